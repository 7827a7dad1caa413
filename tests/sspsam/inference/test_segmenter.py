"""The Segmenter: any batching gives the same masks, and bad input spoils nothing but itself."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sspsam import SSPSAM, Mask, Segmenter, SegmenterConfig
from sspsam.errors import (
    ConfigError,
    DecompressionBombError,
    EmptyPhraseError,
    ImageError,
    NotAnImageError,
    OutOfMemoryError,
    TruncatedImageError,
)
from sspsam.inference.segmenter import TIMINGS
from sspsam.language.phrase_text import clean_phrase
from tests.sspsam.inference.test_memory import CPU_OUT_OF_MEMORY


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 255, (5, 7, 3), np.uint8))
    return np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC))


def as_jpeg(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def assert_same(a: Mask, b: Mask) -> None:
    """Equal up to the order in which float32 sums are taken."""
    assert (a.phrase, a.truncated, a.rle["size"]) == (b.phrase, b.truncated, b.rle["size"])
    height, width = a.rle["size"]
    assert (a.decode() != b.decode()).sum() <= 2 + 0.001 * height * width
    assert abs(a.target_pixels - b.target_pixels) <= 20
    assert a.predicted_box == pytest.approx(b.predicted_box, abs=0.01)
    for name in ("score", "predicted_iou", "clip_score"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=2e-3)


class Counting:
    """A model that counts its calls and runs out of memory above given batch sizes."""

    def __init__(self, model: SSPSAM, images: int = 10**9, phrases: int = 10**9) -> None:
        self._model = model
        self._limits = {"encode_image": images, "prompt": phrases, "encode_text": phrases}
        self.sizes: dict[str, list[int]] = {name: [] for name in self._limits}

    def __getattr__(self, name: str) -> object:
        value = getattr(self._model, name)
        if name not in self._limits:
            return value

        def limited(*arguments: object) -> object:
            size = len(arguments[-1])  # type: ignore[arg-type]
            if size > self._limits[name]:
                raise RuntimeError(CPU_OUT_OF_MEMORY)
            self.sizes[name].append(size)
            return value(*arguments)

        return limited


IMAGES = [picture(90, 60, 1), picture(40, 120, 2), picture(64, 64, 3), picture(200, 31, 4)]
PHRASES = [
    ["a red bird", "left-most person", "the sky"],
    ["a red bird"],
    [f"thing number {i}" for i in range(7)],
    ["the sky", "zebra's head (far right)"],
]


@pytest.fixture(scope="module")
def expected(tiny_model: SSPSAM) -> list[list[Mask]]:
    """Each phrase of each image by itself: nothing is batched."""
    segmenter = Segmenter(tiny_model, SegmenterConfig(cached_phrases=0, threads=1))
    return [
        [segmenter.segment([image], [[phrase]])[0][0] for phrase in asked]
        for image, asked in zip(IMAGES, PHRASES, strict=True)
    ]


@pytest.mark.parametrize(("images", "phrases", "upsample"), [(1, 1, 1), (2, 3, 4), (8, 64, 512)])
def test_batching_changes_nothing(tiny_model, expected, images, phrases, upsample) -> None:
    config = SegmenterConfig(
        images_per_batch=images, phrases_per_batch=phrases, upsample_mib=upsample, cached_phrases=3
    )
    model = Counting(tiny_model)
    segmenter = Segmenter(model, config)  # type: ignore[arg-type]
    for _ in range(2):
        found = segmenter.segment(IMAGES, PHRASES)
        for masks, wanted in zip(found, expected, strict=True):
            for mask, want in zip(masks, wanted, strict=True):
                assert_same(mask, want)
    assert sum(model.sizes["encode_image"]) == 2 * len(IMAGES)
    assert max(model.sizes["encode_image"]) <= images
    assert max(model.sizes["prompt"]) <= phrases


def test_permuting_changes_nothing(tiny_model, expected) -> None:
    segmenter = Segmenter(tiny_model)
    chance = random.Random(0)
    for _ in range(3):
        order = chance.sample(range(len(IMAGES)), len(IMAGES))
        shuffled = [chance.sample(range(len(PHRASES[i])), len(PHRASES[i])) for i in order]
        found = segmenter.segment(
            [IMAGES[i] for i in order],
            [[PHRASES[i][p] for p in places] for i, places in zip(order, shuffled, strict=True)],
        )
        for i, places, masks in zip(order, shuffled, found, strict=True):
            for place, mask in zip(places, masks, strict=True):
                assert_same(mask, expected[i][place])


def test_calls_from_several_threads_change_nothing(tiny_model) -> None:
    """Batches hold images of one call alone, so that masks are equal to the bit whoever else calls."""
    segmenter = Segmenter(tiny_model, SegmenterConfig(images_per_batch=3))
    calls = [(IMAGES[i:] * 2, PHRASES[i:] * 2) for i in range(len(IMAGES))] * 3
    alone = [segmenter.segment_images(*call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as threads:
        assert list(threads.map(lambda call: segmenter.segment_images(*call), calls)) == alone


def test_each_phrase_is_encoded_once(tiny_model) -> None:
    model = Counting(tiny_model)
    segmenter = Segmenter(model, SegmenterConfig(images_per_batch=2))  # type: ignore[arg-type]
    vocabulary = [f"class {i}" for i in range(40)]
    segmenter.segment(IMAGES, [vocabulary] * 4)
    segmenter.segment(IMAGES[:1], [[*vocabulary[::-1], "class 7", "new"]])
    assert sum(model.sizes["encode_text"]) == 41
    assert sum(model.sizes["encode_image"]) == 5


def test_batches_halve_when_memory_runs_out(tiny_model, expected) -> None:
    model = Counting(tiny_model, images=1, phrases=3)
    segmenter = Segmenter(model)  # type: ignore[arg-type]
    for masks, wanted in zip(segmenter.segment(IMAGES, PHRASES), expected, strict=True):
        for mask, want in zip(masks, wanted, strict=True):
            assert_same(mask, want)
    assert max(model.sizes["encode_image"]) == 1
    assert 1 < max(model.sizes["prompt"]) <= 3
    nothing = Segmenter(Counting(tiny_model, phrases=0))  # type: ignore[arg-type]
    results = nothing.segment_images(IMAGES[:2], [["a"], []])
    assert isinstance(results[0].error, OutOfMemoryError)
    assert (results[0].masks, results[0].width) == ([], 90)
    assert results[1].error is None
    with pytest.raises(OutOfMemoryError, match="image 0"):
        nothing.segment(IMAGES[:1], [["a"]])


def test_other_errors_of_the_model_are_not_swallowed(tiny_model) -> None:
    class Broken(Counting):
        def __getattr__(self, name: str) -> object:
            if name == "decode":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return super().__getattr__(name)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        Segmenter(Broken(tiny_model)).segment(IMAGES[:1], [["a"]])  # type: ignore[arg-type]


def test_one_bad_image_leaves_the_others(tiny_model, expected) -> None:
    whole = as_jpeg(IMAGES[0])
    bad: list[tuple[object, type[ImageError]]] = [
        (b"", ImageError),
        (b"no image", NotAnImageError),
        (whole[: len(whole) // 2], TruncatedImageError),
        (np.zeros((0, 4, 3), np.uint8), ImageError),
        (None, NotAnImageError),
        (np.zeros((500, 500, 3), np.uint8), DecompressionBombError),
    ]
    segmenter = Segmenter(tiny_model, SegmenterConfig(max_pixels=100_000, images_per_batch=2))
    images = [part for image, _ in bad for part in (IMAGES[0], image)]
    results = segmenter.segment_images(images, [PHRASES[0]] * len(images))  # type: ignore[arg-type]
    for i, (_, kind) in enumerate(bad):
        good, failed = results[2 * i : 2 * i + 2]
        assert good.error is None
        for mask, want in zip(good.masks, expected[0], strict=True):
            assert_same(mask, want)
        assert isinstance(failed.error, kind)
        assert (failed.masks, failed.width, failed.phash) == ([], None, None)
    with pytest.raises(NotAnImageError, match="image 1"):
        segmenter.segment([IMAGES[0], b"no image"], [["a"], ["b"]])


def test_kinds_of_input_agree(tiny_model) -> None:
    data = as_jpeg(IMAGES[2])
    decoded = np.asarray(Image.open(io.BytesIO(data)))
    inputs = [data, Image.open(io.BytesIO(data)), decoded]
    results = Segmenter(tiny_model).segment_images(inputs, [["the sky"]] * 3)
    assert len({result.masks[0].rle["counts"] for result in results}) == 1
    assert len({result.phash for result in results}) == 1
    assert (results[0].width, results[0].height) == (64, 64)


def test_strange_phrases(tiny_model) -> None:
    segmenter = Segmenter(tiny_model)
    empty = ["", "   ", "?!...", "\x00\x07\n", "\ud800", "—", "$ + ="]
    for phrase in empty:
        with pytest.raises(EmptyPhraseError, match="nothing to look for"):
            segmenter.segment(IMAGES[:1], [["a dog", phrase]])
    fine = ["🐶", "un château", "狗", "a\x00dog\t!", "a" * 10_000, "very " * 3000 + "old", "7"]
    (result,) = segmenter.segment_images(IMAGES[:1], [[*fine, *empty]])
    assert result.error is None
    assert [mask.phrase for mask in result.masks] == [*fine, *empty]
    assert [mask.truncated for mask in result.masks[4:7]] == [True, True, False]
    for mask in result.masks[: len(fine)]:
        assert mask.predicted_iou is not None
    for mask in result.masks[len(fine) :]:
        assert (mask.has_target, mask.area, mask.predicted_iou) == (False, 0, None)
        assert mask.decode().shape == (60, 90)
    assert clean_phrase(" a\x00dog\t\n!") == "a dog !"


def test_no_phrases_run_no_tower(tiny_model) -> None:
    model = Counting(tiny_model)
    segmenter = Segmenter(model)  # type: ignore[arg-type]
    (result,) = segmenter.segment_images(IMAGES[:1], [[]])
    assert (result.width, result.height, result.masks, result.error) == (90, 60, [], None)
    assert result.phash is not None
    assert model.sizes["encode_image"] == []
    assert segmenter.segment_images([], []) == []


def test_threshold_square_masks_and_timings(tiny_model, expected) -> None:
    pixels = expected[0][0].target_pixels
    assert expected[0][0].square_rle is None
    for least, found in [(pixels + 30, False), (1, True)]:
        config = SegmenterConfig(min_target_pixels=least, square_masks=True)
        segmenter = Segmenter(tiny_model, config)
        mask = segmenter.segment(IMAGES[:1], [PHRASES[0][:1]])[0][0]
        assert mask.has_target is found
        assert mask.rle == segmenter.segment(IMAGES[:1], [PHRASES[0][:1]])[0][0].rle
        assert mask.square_rle is not None
        assert mask.square_rle["size"] == [tiny_model.config.score_size] * 2
    timings = segmenter.timings
    assert set(timings) == set(TIMINGS)
    assert (timings["images"], timings["phrases"]) == (2, 2)
    assert timings["image_slots"] == 2 * 8
    assert all(timings[name] > 0 for name in ("image", "phrase", "rle"))
    segmenter.reset_timings()
    assert set(segmenter.timings.values()) == {0.0}


def test_maps_explain_a_mask(tiny_model) -> None:
    (maps,) = Segmenter(tiny_model).explain(IMAGES[1], ["a red bird"])
    grid = tiny_model.config.clip.grid
    assert maps.similarity.shape == maps.gate.shape == (grid, grid)
    assert (float(maps.similarity.min()), float(maps.similarity.max())) == (0.0, 1.0)
    assert len(maps.words) == len(maps.word_attention)
    assert "".join(maps.words) == "aredbird."
    assert 0 < sum(maps.word_attention) < 1
    laid = maps.geometry.clip.grid_to_original(maps.gate[None])
    assert laid.shape == (1, 120, 40)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.segment(IMAGES[:1], ["a dog"]),
        lambda s: s.segment(IMAGES[:2], [["a dog"]]),
        lambda s: s.segment(IMAGES[:1], [["a dog", 7]]),
        lambda s: s.segment(b"abc", [["a dog"]]),
    ],
)
def test_wrong_calls(tiny_model, call: Callable[[Segmenter], object]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"list|phrases for"):
        call(Segmenter(tiny_model))


def test_config_is_checked() -> None:
    for name in ("images_per_batch", "phrases_per_batch", "upsample_mib", "threads", "max_pixels"):
        for value in (0, -1, 1.5, True):
            with pytest.raises(ConfigError, match=f"SegmenterConfig.{name}"):
                replace(SegmenterConfig(), **{name: value})
    with pytest.raises(ConfigError, match="min_target_pixels"):
        SegmenterConfig(min_target_pixels=-1)


def test_whole_images_to_the_device_change_nothing(tiny_model) -> None:
    """Below the limit the device resizes, above it the threads do: one batch holds both."""
    plain, mixed = (
        Segmenter(tiny_model, SegmenterConfig(device_resize_pixels=most)) for most in (0, 90 * 60)
    )
    images = [as_jpeg(image) for image in IMAGES]
    assert mixed.segment_images(images, PHRASES) == plain.segment_images(images, PHRASES)
