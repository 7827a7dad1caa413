"""The published recipe on records: what moves, what stays, at which rate; accumulation; epochs."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM
from sspsam.data import DataConfig, Record, read_records
from sspsam.errors import ConfigError
from sspsam.training.loop import train
from sspsam.training.optimizer import make_optimizer, set_rates, trainable
from sspsam.training.recipes import RECIPES
from sspsam.training.record_batches import RecordOptions, RecordSource
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import RecordData, SceneData, settle
from tests.sspsam.data.benchmarks import make_benchmarks

PUBLISHED = RECIPES["published-masks"][0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    made = make_benchmarks(tmp_path_factory.mktemp("benchmarks"))
    return DataConfig(str(made.grefcoco), "grefcoco", split="train")


@pytest.fixture(scope="module")
def records(data: DataConfig) -> list[Record]:
    return list(read_records(data))


def run(model: SSPSAM, config: TrainConfig, records: list[Record], output: Path) -> SSPSAM:
    """A trained copy of the model."""
    trained = copy.deepcopy(model)
    source = RecordSource(model.config, records, RecordOptions(seed=config.seed))
    train(trained, config, source, source, output, say=lambda line: None)
    return trained


def moved(before: SSPSAM, after: SSPSAM) -> set[str]:
    values = dict(after.named_parameters())
    return {name for name, value in before.named_parameters() if not torch.equal(value, values[name])}


def short(**changes) -> TrainConfig:
    """The published recipe in a few steps."""
    few = {"epochs": 0, "warmup_epochs": 0, "steps": 4, "warmup": 1, "images": 2, "validation_scenes": 2}
    return replace(PUBLISHED, **(few | {"learning_rate": 1e-3} | changes))


def test_the_schedule_is_timms_cosine(small_model: SSPSAM):
    """80 epochs of 10 steps: 1e-6 up to 1e-4 in 5 epochs, then the cosine of the whole run to 1e-6;
    the mask decoder a tenth of it, and not before epoch 20."""
    config = replace(PUBLISHED, epochs=0, steps=800, warmup=50)
    optimizer = make_optimizer(trainable(copy.deepcopy(small_model), config), config)
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 1e-4
        assert group["betas"] == (0.9, 0.999)
    for step in (0, 10, 49, 50, 199, 200, 400, 799, 800):
        set_rates(optimizer, config, step)
        rates = {group["decoder"]: group["lr"] for group in optimizer.param_groups}
        for decoder, peak in ((False, 1e-4), (True, 1e-5)):
            if step < 50:
                expected = 1e-6 + (peak - 1e-6) * step / 50
            else:
                expected = 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * step / 800)) / 2
            if decoder and step < 200:
                expected = 0.0
            assert rates[decoder] == pytest.approx(expected, rel=1e-9), (step, decoder)


def test_each_part_has_its_rate(small_model: SSPSAM):
    config = replace(PUBLISHED, epochs=0, steps=100, warmup=0, lowest_rate=0.0, decoder_frozen=0.0)
    config = replace(config, vision_rate=0.25, decoder_rate=0.5)
    parameters = trainable(copy.deepcopy(small_model), config)
    optimizer = make_optimizer(parameters, config)
    set_rates(optimizer, config, 0)
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    parts = {"clip.vision": 0.25, "clip.visual_projection": 0.25, "sam.mask_decoder": 0.5, "ssp_encoder": 1}
    seen = set()
    for name, parameter in parameters.items():
        for prefix, factor in parts.items():
            if name.startswith(prefix):
                seen.add(prefix)
                assert found[id(parameter)] == pytest.approx(1e-4 * factor), name
    assert seen == set(parts)


def test_what_trains_and_what_stays(small_model: SSPSAM, records, tmp_path: Path):
    frozen = run(small_model, short(decoder_frozen=1.0), records, tmp_path / "frozen")
    changed = moved(small_model, frozen)
    assert changed
    assert all(name.startswith("ssp_encoder.") for name in changed)
    content = torch.load(tmp_path / "frozen" / "checkpoint.pt", weights_only=True)
    with_state = len(content["optimizer"]["state"])

    freed = run(small_model, short(decoder_frozen=0.5), records, tmp_path / "freed")
    changed = moved(small_model, freed)
    assert any(name.startswith("sam.mask_decoder.") for name in changed)
    assert not any(name.startswith(("clip.", "sam.image_encoder.", "sam.prompt")) for name in changed)
    content = torch.load(tmp_path / "freed" / "checkpoint.pt", weights_only=True)
    states = content["optimizer"]["state"].values()
    assert len(states) > with_state
    # The decoder's moments begin with its first step: frozen steps leave no trace.
    assert {int(state["step"]) for state in states} == {2, 4}

    seeing = run(small_model, short(vision_rate=0.5, text_tower=True), records, tmp_path / "seeing")
    changed = moved(small_model, seeing)
    towers = ("clip.vision.", "clip.visual_projection.", "clip.text.", "clip.text_projection.")
    assert {tower for tower in towers if any(name.startswith(tower) for name in changed)} == set(towers)
    assert not any(name.startswith(("sam.image_encoder.", "sam.prompt")) for name in changed)

    boxes = replace(RECIPES["published-boxes"][0], epochs=0, steps=2, images=2, validation_scenes=2)
    changed = moved(small_model, run(small_model, boxes, records, tmp_path / "boxes"))
    assert changed
    assert all(name.startswith("ssp_encoder.") for name in changed)


def test_micro_batches_add_up(small_model: SSPSAM, records, tmp_path: Path):
    """Two micro-batches of one image give the gradient of one batch of two, by Adam's first moments."""
    once = short(steps=1, warmup=0, phrases=3, clip_norm=1e9, decoder_frozen=0.0)
    run(small_model, once, records, tmp_path / "whole")
    run(small_model, replace(once, images=1, accumulate=2), records, tmp_path / "parts")
    whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
        for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    largest = max(float(state["exp_avg"].abs().max()) for state in whole.values())
    assert largest > 1e-4
    for number, state in whole.items():
        torch.testing.assert_close(parts[number]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-5 * largest)


def test_epochs_become_steps(small_model: SSPSAM, data: DataConfig):
    """12 referents, batches of 4 on 2 processes: 2 steps an epoch."""
    config = replace(PUBLISHED, images=4, epochs=3, warmup_epochs=1)
    training, unseen = RecordData(data, validation_split="val").sources(config, small_model.config, 0, 2)
    settled = settle(config, training, unseen)
    assert (settled.steps, settled.warmup) == (6, 2)
    assert settled.validation_scenes == 9

    held_out = RecordData(data)
    training_records, unseen_records = held_out.records()
    assert training_records
    assert unseen_records
    assert not {r.image for r in training_records} & {r.image for r in unseen_records}
    with pytest.raises(ConfigError, match="scenes, not on --data"):
        held_out.sources(replace(config, stage="align"), small_model.config)
    cached = RecordData(data, features="x")
    with pytest.raises(ConfigError, match="--vision-rate"):
        cached.sources(replace(config, vision_rate=0.1), small_model.config)
    with pytest.raises(ConfigError, match="--epochs"):
        SceneData("x").sources(config, small_model.config)
