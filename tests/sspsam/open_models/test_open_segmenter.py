"""The protocol of other models: what wraps them, and what `--model` and `--model-options` refuse."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.colour_model import ColourModel
from sspsam import SSPSAM, Segmenter
from sspsam.errors import ChecksumError, ConfigError, DataError, OutOfMemoryError
from sspsam.images.decoding import difference_hash
from sspsam.open_models.named import fingerprint, is_open_model, named_model
from sspsam.open_models.open_segmenter import OpenSegmenter
from sspsam.open_models.protocol import Drawing

COLOURS = "examples.colour_model:ColourModel"


def picture() -> np.ndarray:
    image = np.full((40, 60, 3), 120, np.uint8)
    image[5:15, 10:30] = (214, 48, 49)
    image[20:30, 40:60] = (214, 48, 49)
    return image


def load_segmenter(device: str | None, *, model: str) -> Segmenter:
    """A factory that brings its own batching."""
    return Segmenter(SSPSAM.from_pretrained(model, device="cpu"))


class Drawn:
    """Draws what it is given; runs out of memory above `fits` phrases a call."""

    def __init__(self, drawing: Any, fits: int = 100) -> None:
        self.drawing, self.fits, self.calls = drawing, fits, []  # type: ignore[var-annotated]

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        self.calls.append(len(phrases))
        assert torch.is_inference_mode_enabled()
        if len(phrases) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [self.drawing] * len(phrases)


def test_masks_and_signals_are_those_of_the_drawing() -> None:
    image = picture()
    results = OpenSegmenter(ColourModel()).segment_images(
        [image, b"no image", image, image], [["red  thing", "?!", "a dog"], ["red"], [], ["blue", "Red"]]
    )
    assert [result.error and result.error.kind for result in results] == [None, "not_an_image", None, None]
    assert [len(result.masks) for result in results] == [3, 0, 0, 2]
    red, nothing, dog = results[0].masks
    assert (red.phrase, red.area, red.bbox, red.has_target) == ("red  thing", 400, (10, 5, 50, 25), True)
    assert (red.decode() == (image[..., 0] == 214)).all()
    assert red.score == 1.0
    lacking = (red.predicted_iou, red.stability, red.box_agreement, red.clip_score, red.predicted_box)
    assert {*lacking, red.target_pixels, nothing.score, dog.score} == {None}
    assert not nothing.has_target
    assert not dog.has_target
    assert dog.rle["size"] == [40, 60]
    from PIL import Image

    assert results[2].phash == difference_hash(Image.fromarray(image))

    mask = image[..., 0] == 214
    whole = Drawing(mask, predicted_iou=float("nan"), stability=0.5, clip_score=0.1, box=(10, 5, 25, 25))
    (drawn,) = OpenSegmenter(Drawn(whole)).segment_images([image], [["x"]])[0].masks
    assert (drawn.predicted_iou, drawn.stability, drawn.clip_score) == (None, 0.5, 0.1)
    assert drawn.box_agreement == pytest.approx(0.5)  # of 50 x 25 and 25 x 25 inside
    denied = Drawing(mask, has_target=False)
    (drawn,) = OpenSegmenter(Drawn(denied)).segment_images([image], [["x"]])[0].masks
    assert (drawn.has_target, drawn.area) == (False, 400)


def test_memory_that_runs_out_and_models_that_break_the_protocol() -> None:
    image, mask = picture(), np.zeros((40, 60), bool)
    model = Drawn(Drawing(mask), fits=2)
    segmenter = OpenSegmenter(model)
    assert len(segmenter.segment_images([image], [[f"thing {n}" for n in range(7)]])[0].masks) == 7
    assert model.calls == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    timings = segmenter.timings
    assert (timings["images"], timings["phrases"], timings["phrase_slots"]) == (1, 7, 7)
    (result,) = OpenSegmenter(Drawn(Drawing(mask), fits=0)).segment_images([image], [["a", "b"]])
    assert isinstance(result.error, OutOfMemoryError)
    assert (result.width, result.masks) == (60, [])
    for wrong in (np.zeros((60, 40), bool), np.zeros((40, 60), np.uint8)):
        with pytest.raises(DataError, match=r"Drawn.draw gave a mask of .* give bool \(40, 60\)"):
            OpenSegmenter(Drawn(Drawing(wrong))).segment_images([image], [["a"]])
    with pytest.raises(ZeroDivisionError):  # the replica pins it to the image
        OpenSegmenter(type("Broken", (), {"draw": lambda *_: [1 / 0]})()).segment_images([image], [["a"]])


def test_models_by_name(tiny_model_dir: Path) -> None:
    for name in (COLOURS, "sam3:facebook/sam3", "grounded-sam:a+b", "m:f"):
        assert is_open_model(name), name
    for name in (
        "tiny",
        "random:tiny",
        "random:tiny/vit_b",
        "hf://org/repo/file.pth",
        "s3://b/x",
        "C:/x",
        "a/b:c",
    ):
        assert not is_open_model(name), name
    found = named_model(COLOURS, {"tolerance": 30})
    file = inspect.getsourcefile(ColourModel)
    assert file is not None
    assert found.digest() == fingerprint(COLOURS) == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    segmenter = found.load("cpu", sha256=found.digest())
    assert isinstance(segmenter, OpenSegmenter)
    assert segmenter.model.tolerance == 30  # type: ignore[attr-defined]
    own = named_model(f"{__name__}:load_segmenter", {"model": str(tiny_model_dir)}).load()
    assert isinstance(own, Segmenter)
    with pytest.raises(ChecksumError, match=f"--model {COLOURS}: sha256 is .*, but 0000"):
        found.load("cpu", sha256="0" * 64)
    for name, options, message in (
        (COLOURS, {"tol": 1}, r'--model-options {"tol": 1} for --model .*: got an unexpected .*tol'),
        (
            "examples.colour_model:Nothing",
            {},
            "--model .*:Nothing: .* has no attribute 'Nothing'.* PYTHONPATH",
        ),
        ("no_such_module:Model", {}, "No module named 'no_such_module'"),
        (f"{__name__}:COLOURS", {}, "is a str: name a class or a function"),
        ("sam3:", {}, r"give sam3:SOURCE, each a folder or org/repo"),
        ("grounded-sam:only-one", {}, r"give grounded-sam:DETECTOR\+SEGMENTER"),
    ):
        with pytest.raises(ConfigError, match=message):
            named_model(name, options)
    with pytest.raises(ConfigError, match="--model tiny has none"):
        fingerprint("tiny", {"threshold": 1})
