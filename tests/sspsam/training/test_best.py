"""The start as a baseline, the best weights instead of the last, and the end of waiting for better ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.data import DataConfig
from sspsam.errors import ConfigError
from sspsam.training import loop
from sspsam.training.recipes import RECIPES
from sspsam.training.scene_batches import SceneSource
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import RecordData
from tests.pipeline.annotation_fixture import make_dataset

#: What validation measures after so many steps.
MEASURED = {0: 0.5, 1: 0.4, 2: 0.7, 3: 0.6, 4: 0.69, 5: 0.7, 6: 0.9}
CONFIG = TrainConfig(
    stage="boxes",
    steps=6,
    images=1,
    phrases=2,
    warmup=1,
    checkpoint_every=2,
    validate_every=1,
    validation_scenes=1,
    keep="best",
    best_by="gIoU",
    patience=3,
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def validate(model: Any, source: Any, config: Any, picture: Path, process: Any) -> dict[str, float]:
        return {"gIoU": MEASURED[int(re.findall(r"\d+", picture.stem)[-1])], "loss_l1": 1.0}

    monkeypatch.setattr(loop, "validate", validate)


def trained(
    micro: SSPSAMConfig, config: TrainConfig, scenes: SceneSource, output: Path, stops: tuple[int, ...] = ()
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights that a run hands on, stopped and resumed after so many steps each."""
    said: list[str] = []
    for more in (*stops, config.steps):
        torch.manual_seed(0)
        steps = iter(range(more))
        stop = lambda s=steps: next(s, None) is None  # noqa: E731
        loop.train(SSPSAM(micro), config, scenes, scenes, output, say=said.append, stop=stop)
    return SSPSAM.from_pretrained(output / "model", device="cpu").state_dict(), said


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.usefixtures("measured")
def test_the_best_weights_are_handed_on_and_waiting_ends(
    micro_config: SSPSAMConfig, small_scenes: SceneSource, tmp_path: Path
) -> None:
    best, said = trained(micro_config, CONFIG, small_scenes, tmp_path / "whole")
    assert [line for line in said if "gIoU 0" in line] == [
        *(f"boxes {step}: gIoU {MEASURED[step]:.3f}, loss_l1 1.000" for step in range(6)),
        "boxes: kept are the weights of step 2 (gIoU 0.700)",
    ]
    assert "boxes 5: ends, nothing was better than step 2 (--patience)" in said
    for stops in ((1, 2), (5,)):
        resumed, _ = trained(micro_config, CONFIG, small_scenes, tmp_path / f"{stops}", stops)
        assert same(resumed, best), stops
    # Step 2's average, as a run has it that is stopped there; not step 5's.
    stopped = tmp_path / "stopped"
    trained(micro_config, CONFIG, small_scenes, stopped, (2, 0))
    assert same(torch.load(stopped / "checkpoint.pt", weights_only=True)["best"]["weights"], best)
    last, _ = trained(micro_config, replace(CONFIG, keep="last", patience=0), small_scenes, tmp_path / "last")
    assert not same(last, best)
    everything, _ = trained(micro_config, replace(CONFIG, patience=0), small_scenes, tmp_path / "patient")
    assert same(everything, last)  # step 6 was the best after all


@pytest.mark.usefixtures("measured")
def test_a_run_that_only_gets_worse_hands_on_its_start(
    micro_config: SSPSAMConfig, small_scenes: SceneSource, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    start = SSPSAM(micro_config).state_dict()
    config = replace(CONFIG, steps=1, patience=0)
    assert same(trained(micro_config, config, small_scenes, tmp_path / "a")[0], start)
    with pytest.raises(ConfigError, match="--best-by mIoU: stage boxes measures gIoU, loss_l1"):
        trained(micro_config, replace(config, best_by="mIoU"), small_scenes, tmp_path / "b")
    with pytest.raises(ConfigError, match="--keep 'first'"):
        replace(config, keep="first")


def test_the_start_is_measured(small_model: SSPSAM, small_scenes: SceneSource, tmp_path: Path) -> None:
    """On paper and in TensorBoard, before the first step; with the IoU of all phrases in one number."""
    told: list[tuple[str, int]] = []

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step))

    config = replace(CONFIG, stage="masks", steps=1, phrases=4, validation_scenes=4, keep="last", patience=0)
    said: list[str] = []
    loop.train(small_model, config, small_scenes, small_scenes, tmp_path, say=said.append, writer=Writer())
    assert [line.split(":")[0] for line in said] == ["masks 0", "masks 1"]
    assert {("validation/masks/gIoU", 0), ("validation/masks/N-acc", 0), ("validation/masks/miou", 1)} <= {
        *told
    }
    last = ("tiny", "finetune-towers")
    assert {recipe.keep for name in RECIPES if name not in last for recipe in RECIPES[name]} == {"best"}


def test_masks_that_a_model_drew_are_no_truth(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=6)

    def doubt(folder: Path) -> str | None:
        return RecordData(DataConfig(str(folder), "annotations", split="all")).doubt()

    assert "masks that drawn drew" in str(doubt(made.output))
    (made.truth / "_run.json").unlink(missing_ok=True)
    (made.truth / "_import.json").write_text('{"format": "coco"}')
    assert doubt(made.truth) is None
    curated = '{"run": {"model": {"name": "x.pth"}}, "config": {"reviews": "%s"}}'
    for reviews, told in (("apply", True), ("accepted", False)):
        (made.truth / "_curation.json").write_text(curated % reviews)
        assert ("x.pth" in str(doubt(made.truth))) == told
