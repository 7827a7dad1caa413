"""Records as batches: targets where the picture has them, mirrored and moved alike; steps fix batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sspsam import SSPSAMConfig
from sspsam.data import DataConfig, Record, read_records
from sspsam.errors import DataError
from sspsam.images.geometry import Geometry
from sspsam.images.preprocess import CLIP_MEAN, CLIP_STD
from sspsam.training.augment import can_mirror, mirror_box, swap_left_right
from sspsam.training.record_batches import RecordOptions, RecordSource
from tests.sspsam.data.benchmarks import SIZE, MadeBenchmarks, make_benchmarks

CPU = torch.device("cpu")
WIDTH, HEIGHT = SIZE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeBenchmarks:
    return make_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def records(made: MadeBenchmarks) -> list[Record]:
    return list(read_records(DataConfig(str(made.grefcoco), "grefcoco", split="train")))


def redness(pixels: torch.Tensor) -> np.ndarray:
    """Where a CLIP square shows the fixture's red, (S, S) bool."""
    rgb = pixels * torch.tensor(CLIP_STD)[:, None, None] + torch.tensor(CLIP_MEAN)[:, None, None]
    return ((rgb[0] > 0.6) & (rgb[1] < 0.4) & (rgb[2] < 0.4)).numpy()


@pytest.mark.parametrize(
    ("phrase", "mirrored"),
    [
        ("the left dog", "the right dog"),
        ("Left one, right of LEFTMOST", "Right one, left of RIGHTMOST"),
        ("bright light upright", "bright light upright"),
        ("left-hand side, righthand man", "right-hand side, lefthand man"),
        ("on the leftside", "on the rightside"),
        ("leftover pizza", "leftover pizza"),
        ("left-handed batter, a lefty", "right-handed batter, a righty"),
        ("the bright one topleft", "the bright one topright"),
        ("Right-hander lefthandside", "Left-hander righthandside"),
        ("playwright with birthrights", "playwright with birthrights"),
    ],
)
def test_swapped_words(phrase: str, mirrored: str):
    assert swap_left_right(phrase) == mirrored
    assert swap_left_right(mirrored) == phrase
    assert can_mirror(phrase)


@pytest.mark.parametrize(
    ("phrase", "clear"),
    [
        ("man right behind the girl", False),
        ("man on the right behind the girl", True),
        ("the zebra right next to the other one", False),
        ("second from right in front", True),
        ("a bag left on the bench", False),
        ("the bowl on the left in front", True),
        ("man left of the bench", True),
        ("the only slice that is left", False),
        ("guy far rt", False),
        ("glass at 3 o'clock", False),
        ("arrow that goes counter-clockwise", False),
        ("the right one on top", True),
        ("guy in red", True),
    ],
)
def test_phrases_whose_sides_are_not_clear(phrase: str, clear: bool):
    assert can_mirror(phrase) == clear


@given(st.text(), st.tuples(*[st.floats(0, 100)] * 4), st.integers(1, 300))
def test_mirroring_twice_is_nothing(text: str, box, width: int):
    assert swap_left_right(swap_left_right(text)) == text
    assert mirror_box(mirror_box(box, width), width) == pytest.approx(box)


def test_pictures_of_unclear_phrases_stay_as_they_are(tiny_config: SSPSAMConfig, records):
    told = {"square and disk": "the disk right behind the square", "a purple elephant": "an elephant"}
    others = [replace(record, phrase=told.get(record.phrase, record.phrase)) for record in records]
    batch = RecordSource(tiny_config, others, RecordOptions(flip=1.0)).batch(0, 2, 3, CPU)
    assert "the red square on the left" in batch.phrases
    assert "the disk right behind the square" in batch.phrases
    plain = RecordSource(tiny_config, others, RecordOptions()).batch(0, 2, 3, CPU)
    assert torch.equal(batch.clip_pixels, plain.clip_pixels)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("translate", [False, True])
def test_targets_lie_on_the_picture(tiny_config: SSPSAMConfig, records, flip: float, translate: bool):
    """The box, the mask's patches and the red pixels agree, whatever was done to the picture."""
    options = RecordOptions(flip=flip, translate=translate)
    source = RecordSource(tiny_config, records, options)
    batch = source.batch(0, 4, 3, CPU)
    assert batch.clip_pixels.shape[0] == 4
    assert len(batch.phrases) == 12
    size, grid = tiny_config.clip.image_size, tiny_config.clip.grid
    seen = 0
    for row, phrase in enumerate(batch.phrases):
        red = redness(batch.clip_pixels[batch.image_index[row]])
        if "square on the" not in phrase:
            if "elephant" in phrase:
                assert not batch.masks[row].any()
                assert not batch.boxes[row].any()
            continue
        seen += 1
        assert phrase == f"the red square on the {'right' if flip else 'left'}"
        rows, columns = np.nonzero(red)
        centre, extent = batch.boxes[row, :2] * size, batch.boxes[row, 2:] * size
        assert centre[0] == pytest.approx((columns.min() + columns.max() + 1) / 2, abs=1.5)
        assert centre[1] == pytest.approx((rows.min() + rows.max() + 1) / 2, abs=1.5)
        assert extent[0] == pytest.approx(columns.max() + 1 - columns.min(), abs=2.5)
        share = red.reshape(grid, size // grid, grid, size // grid).mean(axis=(1, 3))
        assert np.abs(batch.mentioned[row].numpy() - share).max() < 0.35
        assert batch.masks[row].sum() > 0
    assert seen == 4


def test_masks_are_the_authors_targets(tiny_config: SSPSAMConfig, made: MadeBenchmarks, records):
    source = RecordSource(tiny_config, records, RecordOptions())
    batch = source.make(np.arange(1), 3, Random(0), CPU)
    frame = Geometry.of(WIDTH, HEIGHT, tiny_config).sam
    truth = {
        "the red square on the left": ("red square",),
        "square and disk": ("red square", "blue disk"),
        "a purple elephant": (),
    }
    for row, phrase in enumerate(batch.phrases):
        drawn = torch.from_numpy(made.mask(1, *truth[phrase]))[None]
        expected = frame.masks_to_square(drawn, tiny_config.score_size)[0]
        assert torch.equal(batch.masks[row], expected)


def test_an_epoch_shows_every_referent_once(tiny_config: SSPSAMConfig, made: MadeBenchmarks):
    """Two processes, two sentences a ref: over an epoch each ref comes once, by one of its sentences."""
    records = list(read_records(DataConfig(str(made.refer), "refer", split="train")))
    sources = [
        RecordSource(tiny_config, records, RecordOptions(seed=5), rank=rank, world=2) for rank in range(2)
    ]
    assert sources[0].steps_per_epoch(1, 1) == 6  # 12 refs over 2 processes
    told = [[], []]
    for epoch in range(2):
        for step in range(6):
            for source in sources:
                batch = source.batch(6 * epoch + step, 1, 1, CPU)
                told[epoch].append((source.units(1)[batch.scenes[0]], batch.phrases[0]))
    for epoch in range(2):
        units = [unit for unit, _ in told[epoch]]
        assert len(set(units)) == len(units) == 12
        names = sorted(phrase.removeprefix("the ") for _, phrase in told[epoch])
        assert names == sorted(["red square", "blue disk", "green triangle"] * 4)
    assert told[0] != told[1]
    again = RecordSource(tiny_config, records, RecordOptions(seed=5), rank=1, world=2)
    first, second = again.batch(7, 1, 1, CPU), sources[1].batch(7, 1, 1, CPU)
    assert first.phrases == second.phrases
    assert torch.equal(first.clip_pixels, second.clip_pixels)
    assert torch.equal(first.masks, second.masks)


def test_unreadable_pictures_are_left_out_and_named(tiny_config: SSPSAMConfig, tmp_path: Path):
    bench = make_benchmarks(tmp_path)
    records = list(read_records(DataConfig(str(bench.refer), "refer", split="train")))
    broken = Path(records[0].image.url)
    broken.write_bytes(b"not an image")
    source = RecordSource(tiny_config, records, RecordOptions())
    for step in range(4):
        assert len(source.batch(step, 3, 1, CPU).phrases) == 3
    assert list(source.unreadable) == [broken.stem]
    for record in records:
        Path(record.image.url).unlink(missing_ok=True)
    with pytest.raises(DataError, match="in a row cannot be read"):
        RecordSource(tiny_config, records, RecordOptions()).batch(0, 1, 1, CPU)


def test_boxes_alone_train_boxes_alone(tiny_config: SSPSAMConfig, made: MadeBenchmarks):
    path = str(made.authors("merge"))
    config = DataConfig(path, "authors", split="train", images=str(made.images))
    records = list(read_records(config))
    with pytest.raises(DataError, match="boxes alone do not do"):
        RecordSource(tiny_config, records, RecordOptions())
    source = RecordSource(tiny_config, records, RecordOptions(boxes_only=True))
    batch = source.batch(0, 2, 2, CPU)
    assert batch.boxes.any(dim=1).all()
