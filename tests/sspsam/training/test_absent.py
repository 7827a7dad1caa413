"""Phrases of other images as absent ones: never true here, as many as asked, the same at every call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.data import DataConfig, Record
from sspsam.data.records import ImageRef
from sspsam.errors import ConfigError
from sspsam.training.absent import AbsentPhrases
from sspsam.training.recipes import RECIPES
from sspsam.training.record_batches import RecordOptions, RecordSource
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import RecordData, settle
from sspsam.training.validate import validate
from tests.pipeline.annotation_fixture import make_dataset

CPU = torch.device("cpu")
LEFT, RIGHT, BOTH = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0), (0.0, 0.0, 30.0, 10.0)


def image(number: int, **boxes: tuple[float, float, float, float]) -> list[Record]:
    """Records of an image; a keyword is a phrase, "_" for blanks."""
    return [
        Record(f"{number}-{n}", ImageRef(f"{number}.png"), text.replace("_", " "), "all", True, box=box)
        for n, (text, box) in enumerate(boxes.items())
    ]


IMAGES = [
    image(0, the_dog=LEFT, red_car=RIGHT),
    image(1, puppy=LEFT, dogs=LEFT, the_blue_cars=RIGHT),
    image(2, the_cat_left_of_the_tree=LEFT, a_tree=RIGHT),
    image(3, kitten=LEFT, cat=LEFT, the_man_in_a_hat=RIGHT),
    image(4, pet=LEFT, the_dog_on_the_right=LEFT, pizza_slices=RIGHT),
    image(5, pet=LEFT, cat=LEFT, the_car_under_the_tree=RIGHT, left=LEFT),
    image(6, two_women=LEFT, woman_with_a_pizza=RIGHT),
]


def drawn(number: int, near: float) -> set[str]:
    others = [record for records in IMAGES for record in records]
    absent = AbsentPhrases(IMAGES, others, near)
    return {text for seed in range(60) for text in absent.draw(number, 3, Random(seed))}


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_what_may_be_true_here_is_never_drawn(near: float) -> None:
    dog = drawn(0, near)
    # The same noun, its plural, a noun for the same region elsewhere, its group, a place without a noun.
    assert dog.isdisjoint({"the dog", "dogs", "puppy", "the dog on the right", "pet", "left", "red car"})
    # No such noun, or a noun that is here: in another colour, or beside something that is not here.
    assert {"kitten", "the blue cars", "the car under the tree"} <= dog
    assert drawn(2, near).isdisjoint({"a tree", "the cat left of the tree", "cat", "kitten", "pet"})
    assert drawn(6, near).isdisjoint({"the man in a hat", "two women", "woman with a pizza"})


def test_near_ones_are_asked_for() -> None:
    assert "two women" not in drawn(0, 1.0)  # nothing like it is here
    assert "two women" in drawn(0, 0.0)


def _data(folder: Path, **options: float) -> RecordData:
    return RecordData(DataConfig(str(folder), "annotations", split="all"), options=RecordOptions(**options))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("made"), images=24).truth


def test_absent_phrases_fill_up_what_the_data_lacks(
    truth: Path, tiny_config: SSPSAMConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _data(truth, flip=0.5)
    targets = [[r for r in part if r.has_target] for part in data.records()]
    monkeypatch.setattr(RecordData, "records", lambda self: tuple(targets))
    config = TrainConfig(images=4, phrases=2, absent_share=None)
    training, unseen = data.sources(config, tiny_config)
    said: list[str] = []
    settle(config, training, unseen, said.append)
    assert said == [
        "0.0% of the phrases have no target: filled up to 25% with phrases of other images (--absent-share)"
    ]
    own = {record.image: set() for record in targets[0]}
    for record in targets[0]:
        own[record.image].add(record.phrase)
    shown = absent = 0
    for step in range(30):
        batch = training.batch(step, 4, 2, CPU)
        shown += len(batch.phrases)
        for row, kind in enumerate(batch.kinds):
            image = training.images[training.units(2)[batch.scenes[batch.image_index[row]]][0]][0].image
            if kind == "no target":
                absent += 1
                assert not batch.boxes[row].any()
                assert batch.phrases[row] not in own[image]
    assert absent / shown == pytest.approx(0.25, abs=0.06)
    again, _ = data.sources(config, tiny_config)
    assert again.batch(29, 4, 2, CPU).phrases == batch.phrases
    assert data.sources(replace(config, absent_share=0.0), tiny_config)[0].absent is None


def test_validation_measures_nothing_there(truth: Path, small_model: SSPSAM) -> None:
    """Also where training is asked for none; and it is said where that cannot be."""
    data = _data(truth)
    config = replace(RECIPES["published-masks"][0], epochs=0, steps=1, validation_scenes=4)
    said: list[str] = []
    training, unseen = data.sources(config, small_model.config)
    config = settle(config, training, unseen, said.append)
    assert said == []
    assert validate(small_model, unseen, config).keys() >= {"miou", "N-acc"}

    alone = [replace(r, phrase="the dog", has_target=True) for r in data.records()[1] if r.has_target]
    options = RecordOptions(absent_share=0.25)
    same = RecordSource(small_model.config, alone, options)
    settle(config, same, same, said.append)
    assert [line.split(":")[0] for line in said[1:]] == [
        '"nothing there" may be forgotten',
        "N-acc is not measured",
    ]
    assert "N-acc" not in validate(small_model, same, replace(config, validation_scenes=1))
    with pytest.raises(ConfigError, match="--absent-share"):
        TrainConfig(absent_share=1.0)
