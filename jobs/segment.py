"""`sspsam segment IMAGE PHRASE ...`: masks of one image, as a table, an overlay or JSON."""

from __future__ import annotations

import json as json_text
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.choose_model import choose_model
from jobs.options import run
from sspsam.errors import ConfigError, DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from sspsam import Mask, SegmenterConfig
    from sspsam.open_models.protocol import PhraseSegmenter

_STDIN = "stdin:"
_LAST_LATIN = 0x24F  # Latin Extended-B ends here, and with it what Pillow's bundled font can write


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 with a message that says what to change."""
    words = sys.argv[1:] if argv is None else argv
    # cyclopts takes a lone hyphen for a misspelt flag.
    return run(segment, [_STDIN if word == "-" else word for word in words], "s3,gcs,hub")


def segment(
    image: str,
    phrase: Annotated[str, Parameter(help='such as "the dog chasing the frisbee"')],
    /,
    *phrases: Annotated[str, Parameter(show=False)],
    model: str | None = None,
    model_options: str = "{}",
    sha256: str | None = None,
    device: str | None = None,
    output: Annotated[str | None, Parameter(alias="-o")] = None,
    explain: bool = False,
    json: bool = False,
    font: Path | None = None,
    max_pixels: int | None = None,
    min_target_pixels: int | None = None,
) -> int:
    """Segment one image by one phrase or several.

    Prints a table (or JSON) and writes the image with contours and labels.

    Args:
        image: file, URL, or - for standard input
        model: for photographs hf://wayneicloud/SSP-SAM (the authors'), a folder, file or URL; `sspsam
            models` lists more; or another open model: sam3:SOURCE, grounded-sam:DETECTOR+SEGMENTER,
            module:factory (docs/model.md). Without it: on a terminal you are asked, elsewhere it is
            tiny, which knows drawings only
        model_options: options of another open model, such as its thresholds, as JSON
        sha256: hex digest that the model's weights must have
        device: torch device (default: CUDA, else MPS, else CPU)
        output: overlay to write (default: NAME.overlay.png here)
        explain: also write the similarity, gate and word attention of each phrase (NAME.explain.png)
        json: print JSON; pictures only with -o or --explain
        font: TTF font for labels in other scripts
        max_pixels: refuse images of more pixels (default: 179 million)
        min_target_pixels: fewer positive pixels in the score square mean "no target" (the model's own: 50)
    """
    from sspsam import Segmenter, SegmenterConfig, draw_explanation, draw_overlay
    from sspsam.images.decoding import MAX_PIXELS, decode_image

    requested = [phrase, *phrases]
    image = "-" if image == _STDIN else image
    stem = Path(image.split("?", maxsplit=1)[0].rsplit("/", 1)[-1]).stem.strip("-") or "image"
    overlay = Path(output or f"{stem}.overlay.png")
    _check_early(requested, overlay, font)
    config = SegmenterConfig(
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        min_target_pixels=min_target_pixels,
    )
    try:
        picture = decode_image(_read(image), config.max_pixels)
    except ImageError as error:
        raise type(error)(f"{image}: {error}") from error
    segmenter, source = _load(model or choose_model(), _as_object(model_options), device, sha256, config)
    if not isinstance(segmenter, Segmenter) and (explain or min_target_pixels is not None):
        raise ConfigError(f"--explain and --min-target-pixels are for SSP-SAM, not for --model {model}")
    (result,) = segmenter.segment_images([picture], [requested])
    if result.error is not None:
        raise result.error
    masks = result.masks
    if json:
        print(json_text.dumps(_as_json(image, picture.size, source, masks), ensure_ascii=False))
    else:
        from rich.console import Console

        Console().print(_table(masks))
    pictures: list[tuple[Path, Image.Image]] = []
    if output or not json:
        pictures.append((overlay, draw_overlay(picture, masks, font=font)))
    if explain and isinstance(segmenter, Segmenter):
        panel = draw_explanation(picture, masks, segmenter.explain(picture, requested), font=font)
        pictures.append((overlay.with_name(f"{overlay.stem.removesuffix('.overlay')}.explain.png"), panel))
    drawn = [_save(path, drawing) for path, drawing in pictures]
    for path in drawn:
        print(f"wrote {path}", file=sys.stderr if json else sys.stdout)
    if drawn and not font and any(ord(mark) > _LAST_LATIN for mark in "".join(requested)):
        print("labels in other scripts than Latin need a font that has them: --font TTF", file=sys.stderr)
    return 0


def _read(source: str) -> bytes:
    """The bytes of a file, URL or standard input."""
    from sspsam.images.load_image import load_image

    if source == "-":
        return sys.stdin.buffer.read()
    if "://" in source:
        return load_image({"url": source})
    if Path(source).is_dir():
        raise DataError(f"{source} is a folder: name one image in it (sspsam annotate takes folders)")
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{source}: {error.strerror or error}") from error


def _check_early(phrases: Sequence[str], overlay: Path, font: Path | None) -> None:
    """What can be wrong before a model is loaded for nothing."""
    from PIL import Image

    from sspsam.drawing.labels import font_for
    from sspsam.language.phrase_text import clean_phrase

    for phrase in phrases:
        clean_phrase(phrase)
    if overlay.suffix.lower() not in Image.registered_extensions():
        raise ConfigError(f"-o {overlay}: give a name that ends in .png or .jpg")
    if not overlay.parent.is_dir():
        raise ConfigError(f"-o {overlay}: the folder {overlay.parent} does not exist")
    font_for(12, font)


def _as_object(options: str) -> dict[str, Any]:
    try:
        found = json_text.loads(options)
    except ValueError as error:
        raise ConfigError(f"--model-options is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError("--model-options must be a JSON object, such as '{\"threshold\": 0.4}'")
    return found


def _load(
    name: str, options: Mapping[str, Any], device: str | None, sha256: str | None, config: SegmenterConfig
) -> tuple[PhraseSegmenter, dict[str, str]]:
    """The model, its name and sha256; what it warns of (random weights) is said once, loudly."""
    from sspsam import SSPSAM, Segmenter
    from sspsam.checkpoint import RANDOM_PREFIX
    from sspsam.known_models import model_warning
    from sspsam.open_models.named import fingerprint, hub_commit, is_open_model, named_model

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if is_open_model(name) or options:
                source = {"name": name, "sha256": fingerprint(name, options)}
                if commit := hub_commit(name, source["sha256"]):
                    source["commit"] = commit
                segmenter = named_model(name, options).load(device, config, sha256)
            else:
                model = SSPSAM.from_pretrained(name, device=device, sha256=sha256)
                segmenter, source = Segmenter(model, config), model.source
        except (RuntimeError, AssertionError) as error:  # what torch says of devices it lacks
            if device is None:
                raise
            raise ConfigError(f"--device {device}: {error}") from error
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"\n  !!  {warning.message}\n", file=sys.stderr)
    if (caution := model_warning(source)) and not name.startswith(RANDOM_PREFIX):
        print(caution, file=sys.stderr)
    return segmenter, source


def _as_json(
    source: str, size: tuple[int, int], model: dict[str, str], masks: Sequence[Mask]
) -> dict[str, object]:
    described = [
        {name: value for name, value in asdict(mask).items() if name != "square_rle"} for mask in masks
    ]
    for one in described:
        one["segmentation"] = one.pop("rle")
    return {
        "image": source,
        "width": size[0],
        "height": size[1],
        "model": model,
        "annotations": described,
    }


def _table(masks: Sequence[Mask]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("phrase", overflow="fold", min_width=10)
    table.add_column("target", no_wrap=True)
    for name in ("area px", "x y w h", "score", "iou", "stable", "box", "clip"):
        # On a narrow terminal a box of a large image takes two lines, two whole numbers in each.
        box_wraps: dict[str, Any] = {"min_width": 11} if name == "x y w h" else {"no_wrap": True}
        table.add_column(name, justify="right", **box_wraps)
    for mask in masks:
        signals = (
            mask.score,
            mask.predicted_iou,
            mask.stability,
            mask.box_agreement,
            mask.clip_score,
        )
        table.add_row(
            mask.phrase + (" (cut: too many tokens)" if mask.truncated else ""),
            "yes" if mask.has_target else "no",
            str(mask.area),
            " ".join(f"{value:.0f}" for value in mask.bbox),
            *("-" if value is None else f"{value:.2f}" for value in signals),
        )
    return table


def _save(path: Path, picture: Image.Image) -> Path:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"-o {path}: the picture cannot be written: {error}") from error
    return path


if __name__ == "__main__":
    sys.exit(main())
