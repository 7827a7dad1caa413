"""`sspsam segment IMAGE PHRASE ...`: masks of one image, as a table, an overlay or JSON."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.options import exit_code
from sspsam.errors import ConfigError, DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from sspsam import SSPSAM, Mask, Segmenter

_LAST_LATIN = 0x24F  # Latin Extended-B ends here, and with it what Pillow's bundled font can write


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam segment",
        description="Segment one image by phrases. Prints a table (or JSON) and writes the image with "
        "contours and labels.",
    )
    parser.add_argument("image", metavar="IMAGE", help="file, URL, or - for standard input")
    parser.add_argument("phrases", metavar="PHRASE", nargs="+", help='such as "the dog chasing the frisbee"')
    parser.add_argument(
        "--model",
        help="bundled name, folder, file, hf://org/repo/path, URL, or random:PRESET "
        "(default: the bundled model)",
    )
    parser.add_argument("--sha256", help="hex digest that the model's weights must have")
    parser.add_argument("--device", help="torch device (default: CUDA, else MPS, else CPU)")
    parser.add_argument(
        "-o", "--output", metavar="PNG", help="overlay to write (default: NAME.overlay.png here)"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also write the similarity, gate and word attention of each phrase (NAME.explain.png)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; pictures only with -o or --explain")
    parser.add_argument("--font", metavar="TTF", type=Path, help="font for labels in other scripts")
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="refuse images of more pixels (179 million)"
    )
    parser.add_argument(
        "--min-target-pixels",
        type=int,
        metavar="N",
        help='fewer positive pixels in the score square mean "no target" (the model\'s own: 50)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 with a message that says what to change."""
    arguments = build_parser().parse_args(argv)
    return exit_code("segment", "s3,gcs,hub", lambda: _segment(arguments))


def _segment(arguments: argparse.Namespace) -> int:
    from sspsam import Segmenter, SegmenterConfig
    from sspsam.images.decoding import MAX_PIXELS, decode_image

    stem = Path(arguments.image.split("?")[0].rsplit("/", 1)[-1]).stem.strip("-") or "image"
    overlay = Path(arguments.output or f"{stem}.overlay.png")
    _check_early(arguments, overlay)
    config = SegmenterConfig(
        max_pixels=MAX_PIXELS if arguments.max_pixels is None else arguments.max_pixels,
        min_target_pixels=arguments.min_target_pixels,
    )
    try:
        image = decode_image(_read(arguments.image), config.max_pixels)
    except ImageError as error:
        raise type(error)(f"{arguments.image}: {error}") from error
    model = _load(arguments)
    segmenter = Segmenter(model, config)
    (masks,) = segmenter.segment([image], [arguments.phrases])
    if arguments.json:
        print(json.dumps(_as_json(arguments.image, image.size, model, masks), ensure_ascii=False))
    else:
        from rich.console import Console

        Console().print(_table(masks))
    drawn = _draw(arguments, overlay, segmenter, image, masks)
    for path in drawn:
        print(f"wrote {path}", file=sys.stderr if arguments.json else sys.stdout)
    if drawn and not arguments.font and any(ord(mark) > _LAST_LATIN for mark in "".join(arguments.phrases)):
        print("labels in other scripts than Latin need a font that has them: --font TTF", file=sys.stderr)
    return 0


def _read(source: str) -> bytes:
    """The bytes of a file, URL or standard input."""
    from sspsam.images.image_refs import load_image

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


def _check_early(arguments: argparse.Namespace, overlay: Path) -> None:
    """What can be wrong before a model is loaded for nothing."""
    from PIL import Image

    from sspsam.drawing.labels import font_for
    from sspsam.language.phrase_text import clean_phrase

    for phrase in arguments.phrases:
        clean_phrase(phrase)
    if overlay.suffix.lower() not in Image.registered_extensions():
        raise ConfigError(f"-o {overlay}: give a name that ends in .png or .jpg")
    if not overlay.parent.is_dir():
        raise ConfigError(f"-o {overlay}: the folder {overlay.parent} does not exist")
    font_for(12, arguments.font)


def _load(arguments: argparse.Namespace) -> SSPSAM:
    """The model; what it warns of (random weights) is said once, loudly."""
    from sspsam import SSPSAM
    from sspsam.checkpoint import default_model

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = SSPSAM.from_pretrained(
                arguments.model or default_model(), device=arguments.device, sha256=arguments.sha256
            )
        except (RuntimeError, AssertionError) as error:  # what torch says of devices it lacks
            if arguments.device is None:
                raise
            raise ConfigError(f"--device {arguments.device}: {error}") from error
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"\n  !!  {warning.message}\n", file=sys.stderr)
    return model


def _as_json(source: str, size: tuple[int, int], model: SSPSAM, masks: Sequence[Mask]) -> dict[str, object]:
    described = [
        {name: value for name, value in asdict(mask).items() if name != "square_rle"} for mask in masks
    ]
    for one in described:
        one["segmentation"] = one.pop("rle")
    return {
        "image": source,
        "width": size[0],
        "height": size[1],
        "model": model.source,
        "annotations": described,
    }


def _table(masks: Sequence[Mask]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("phrase", overflow="fold", min_width=12)
    table.add_column("target")
    for name in ("area px", "x y w h", "score", "iou", "stable", "box", "clip"):
        table.add_column(name, justify="right", no_wrap=True)
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


def _draw(
    arguments: argparse.Namespace,
    overlay: Path,
    segmenter: Segmenter,
    image: Image.Image,
    masks: Sequence[Mask],
) -> list[Path]:
    """Write the pictures that were asked for."""
    from sspsam.drawing.overlays import draw_explanation, draw_overlay

    pictures: list[tuple[Path, Image.Image]] = []
    if arguments.output or not arguments.json:
        pictures.append((overlay, draw_overlay(image, masks, font=arguments.font)))
    if arguments.explain:
        maps = segmenter.explain(image, arguments.phrases)
        panel = draw_explanation(image, masks, maps, font=arguments.font)
        beside = overlay.with_name(f"{overlay.stem.removesuffix('.overlay')}.explain.png")
        pictures.append((beside, panel))
    for path, picture in pictures:
        try:
            picture.save(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"-o {path}: the picture cannot be written: {error}") from error
    return [path for path, _ in pictures]


if __name__ == "__main__":
    sys.exit(main())
