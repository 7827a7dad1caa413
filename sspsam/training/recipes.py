"""Named training recipes, and the function that trains their stages in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from sspsam import checkpoint
from sspsam.checkpoint import located_model
from sspsam.model_config import SSPSAMConfig
from sspsam.modeling.model import SSPSAM
from sspsam.training.initialise import smooth_positions
from sspsam.training.loop import train
from sspsam.training.state import require_same
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import Data, SceneData, settle

#: The file that marks a stage as finished; holds its fingerprint.
FINISHED: Final = "finished"

#: The bundled model: both towers first (they share no weight, so their order does not matter), then
#: the SSP encoder on features that are computed once a scene.
_TINY: Final = (
    TrainConfig(
        stage="align",
        steps=3500,
        images=24,
        phrases=4,
        learning_rate=1e-3,
        warmup=200,
        pool=12000,
    ),
    TrainConfig(
        stage="points",
        steps=2500,
        images=16,
        phrases=2,
        learning_rate=8e-4,
        warmup=150,
        iou_weight=1.0,
        pool=12000,
    ),
    TrainConfig(
        stage="boxes",
        steps=500,
        images=16,
        phrases=6,
        learning_rate=7e-4,
        warmup=150,
        gate_weight=4.0,
        vision_rate=0.25,
        pool=12000,
    ),
    TrainConfig(
        stage="masks",
        steps=3500,
        images=16,
        phrases=6,
        learning_rate=8e-4,
        warmup=60,
        vision_rate=0.25,
        decoder_rate=0.5,
        gate_weight=8.0,
        select_weight=8.0,
        iou_weight=1.0,
        text_tower=True,  # names alone taught it nothing about "left"
        pool=12000,
        cache_features=True,
    ),
)

#: The published recipe (github.com/WayneTomas/SSP-SAM, `train.py` and `configs/`): AdamW at 1e-4, the
#: mask decoder at a tenth, cosine to 1e-6, gradients clipped at 0.1, CLIP and SAM's encoder frozen.
#: Batch 8 a process, on 8 of them. Their schedule moves by epoch, ours by step.
_PUBLISHED: Final = TrainConfig(
    stage="masks",
    epochs=80,
    warmup_epochs=5,
    images=8,
    phrases=1,
    learning_rate=1e-4,
    decoder_rate=0.1,
    decoder_frozen=20 / 80,
    lowest_rate=1e-6,
    weight_decay=1e-4,
    beta2=0.999,
    decay_all=True,
    text_tower=False,
    clip_norm=0.1,
    attention_dropout=0.1,
    ema_decay=0.0,
    keep="best",
    best_by="miou",
    checkpoint_every=1000,
    validate_every=5000,
    validation_scenes=512,
)

_FINETUNE: Final = replace(
    _PUBLISHED,
    epochs=10,
    warmup_epochs=1,
    phrases=4,
    absent_share=None,
    attention_dropout=0.0,
    decoder_frozen=0.1,
    ema_decay=0.998,
    clip_norm=1.0,
    best_by=None,
    checkpoint_every=200,
    validate_every=200,
)

RECIPES: Final = {
    "tiny": _TINY,
    # Stage 1: boxes alone, on the merged grounding data, without warm-up.
    "published-boxes": (replace(_PUBLISHED, stage="boxes", epochs=20, warmup_epochs=0, best_by=None),),
    # Stage 2: boxes and masks, the mask decoder frozen for the first quarter.
    "published-masks": (_PUBLISHED,),
    # One's own annotations: a short run from a trained model.
    "finetune": (_FINETUNE,),
    # The same where the towers must learn too, as they do not know the pictures (docs/training-at-scale.md).
    "finetune-towers": (
        replace(
            _FINETUNE,
            epochs=6,
            learning_rate=4e-4,
            vision_rate=0.25,
            text_tower=True,
            decoder_rate=0.5,
            select_weight=8.0,
            iou_weight=1.0,
            absent_share=0.4,
            absent_near=0.25,
            keep="last",  # the best by gIoU in the middle of this schedule says too little of "nothing there"
        ),
    ),
}


def run_stages(
    stages: tuple[TrainConfig, ...],
    output: Path,
    *,
    data: Data | None = None,
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
        data: what to train on; scenes if left out.
        source: model to start from, as `from_pretrained` takes it; random weights if left out.

    Returns:
        The metrics of the last validation.
    """
    data = data or SceneData(str(output))
    measures: dict[str, float] = {}
    for number, config in enumerate(stages, start=1):
        folder = output / f"{number}-{config.stage}"
        begun = origin(data, preset, source if number == 1 else None)
        run = config.decisive() | begun
        if (folder / FINISHED).exists():
            require_finished((folder / FINISHED).read_text(), run, str(folder))
            say(f"{config.stage}: finished before")
            source = str(folder / "model")
            continue
        model = start_model(config, preset, source, device)
        training, validation = data.sources(config, model.config)
        config = settle(config, training, validation, say)  # noqa: PLW2901
        measures = train(
            model,
            config,
            training,
            validation,
            folder,
            data=begun,
            say=say,
            writer=writer,
            stop=stop,
        )
        if stop():
            return measures
        (folder / FINISHED).write_text(json.dumps(run))
        source = str(folder / "model")
    if source is not None and (output / "model").resolve() != Path(source).resolve():
        shutil.copytree(source, output / "model", dirs_exist_ok=True)
    return measures


def origin(data: Data, preset: str, source: str | None) -> dict[str, Any]:
    """Data and initial model of a stage: with its settings, what tells it from other runs in its OUTPUT.

    Args:
        source: model that the run starts from; None for a stage that starts from the one before.
    """
    start = {"preset": preset}
    if source:
        start = {"from": located_model(source), "from_sha256": checkpoint.fingerprint(source)}
    return start | data.describe()


def require_finished(told: str, run: dict[str, Any], where: str) -> None:
    """Raise CheckpointError if the stage that finished at `where` is not this run's.

    told: the content of its file `finished`; empty if an earlier version wrote it.
    """
    if told:
        # A setting that an earlier version did not know did what today's default does.
        theirs = TrainConfig().decisive() | json.loads(told)
        if "from" in theirs:  # relative in earlier versions
            theirs["from"] = located_model(theirs["from"])
        require_same(theirs, json.loads(json.dumps(run)), where)


def start_model(config: TrainConfig, preset: str, source: str | None, device: str) -> SSPSAM:
    """The model that a stage starts from: `source`, or the preset with random weights of its seed."""
    torch.manual_seed(config.seed)
    if source:
        model = SSPSAM.from_pretrained(source)
    else:
        model = SSPSAM(SSPSAMConfig.preset(preset))
        smooth_positions(model.ssp_encoder)
    model.to(device)
    model.image_tower_dtype = getattr(torch, config.precision)
    return model
