"""Schedules that have names, and the function that runs the stages of one in order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from sspsam.config import SSPSAMConfig
from sspsam.errors import ConfigError
from sspsam.modeling.model import SSPSAM
from sspsam.scenes.render import SceneConfig
from sspsam.training.config import TrainConfig
from sspsam.training.loop import train
from sspsam.training.scene_batches import SceneSource
from sspsam.training.validate import VALIDATION_SEED

#: The bundled model: both towers first (they share no weight, so their order does not matter), then
#: the SSP encoder on features that are computed once a scene.
_TINY: Final = (
    TrainConfig(
        stage="align",
        steps=4000,
        images=24,
        phrases=4,
        learning_rate=1e-3,
        warmup=200,
        pool=12000,
    ),
    TrainConfig(
        stage="points",
        steps=3000,
        images=12,
        phrases=4,
        learning_rate=8e-4,
        warmup=200,
        iou_weight=1.0,
        pool=12000,
    ),
    TrainConfig(
        stage="boxes",
        steps=1500,
        images=24,
        phrases=6,
        learning_rate=1e-3,
        gate_weight=4.0,
        pool=12000,
        cache_features=True,
    ),
    TrainConfig(
        stage="masks",
        steps=4000,
        images=24,
        phrases=6,
        learning_rate=1e-3,
        decoder_rate=0.5,
        gate_weight=2.0,
        iou_weight=1.0,
        pool=12000,
        cache_features=True,
    ),
)

RECIPES: Final = {"tiny": _TINY}


def run_stages(
    stages: tuple[TrainConfig, ...],
    output: Path,
    *,
    preset: str = "tiny",
    source: str | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    writer: Any = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Train the stages one after another, each from the averaged weights of the one before.

    Args:
        output: gets a folder `<number>-<stage>` each, and the last stage's model as `model`.
        source: model to start from, as `from_pretrained` takes it; random weights if left out.

    Returns:
        The last validation's measures.
    """
    measures: dict[str, float] = {}
    for number, config in enumerate(stages, start=1):
        folder = output / f"{number}-{config.stage}"
        if (folder / "finished").exists():
            say(f"{config.stage}: finished before")
            source = str(folder / "model")
            continue
        if config.cache_features and not config.pool:
            raise ConfigError("--cache-features needs --pool: new scenes have nothing to reuse")
        torch.manual_seed(config.seed)
        layout = SSPSAMConfig.preset(preset)
        model = SSPSAM.from_pretrained(source) if source else SSPSAM(layout)
        model.to(device)
        model.image_tower_dtype = getattr(torch, config.precision)
        pictures = SceneConfig()
        data = SceneSource(model.config, pictures, config.seed, config.pool, output / "pool")
        unseen = SceneSource(model.config, pictures, VALIDATION_SEED)
        measures = train(model, config, data, unseen, folder, say=say, writer=writer, stop=stop)
        if stop():
            return measures
        (folder / "finished").touch()
        source = str(folder / "model")
    if source is not None and (output / "model").resolve() != Path(source).resolve():
        shutil.copytree(source, output / "model", dirs_exist_ok=True)
    return measures
