"""The state of a training run, and its checkpoint file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sspsam.errors import CheckpointError
from sspsam.training.best import Best
from sspsam.training.train_config import TrainConfig


@dataclass
class TrainState:
    """A run between two steps. The data position is `step`: batches are a function of it."""

    step: int  # steps done
    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]  # averaged copies of the parameters that train
    data: dict[str, Any] = field(default_factory=dict)  # description of data and start (`recipes.origin`)
    best: Best = field(default_factory=Best)
    frozen: dict[str, str] = field(default_factory=dict)  # `frozen_digests`, once they are needed


def save_state(state: TrainState, config: TrainConfig, path: Path) -> None:
    """Write a checkpoint atomically: a process that is killed leaves the old file or the new one.

    Of the weights it holds those that train. The others are those of the model that the run starts from: it
    holds their digests. Random ones, which nothing else holds, are written too.
    """
    weights = state.model.state_dict()
    start = str(getattr(state.model, "source", {"name": "random"})["name"])
    if not start.startswith("random"):
        state.frozen = state.frozen or frozen_digests(weights, state.ema)
        weights = {name: weights[name] for name in state.ema}
    content = {
        "step": state.step,
        "config": asdict(config),
        "data": state.data,
        "model": weights,
        "frozen": state.frozen,
        "start": start,
        "optimizer": state.optimizer.state_dict(),
        "ema": state.ema,
        "best": vars(state.best),
        "rng": torch.get_rng_state(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def frozen_digests(weights: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, str]:
    """Part of the model (`clip`, `sam`) -> sha256 of its weights that do not train, as a hex digest."""
    digests: dict[str, Any] = {}
    for name in sorted(weights.keys() - trained.keys()):
        value = weights[name].detach().cpu().contiguous()
        digest = digests.setdefault(name.partition(".")[0], hashlib.sha256())
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return {part: digest.hexdigest() for part, digest in digests.items()}


def load_state(state: TrainState, config: TrainConfig, path: Path) -> None:
    """Fill `state` from a checkpoint.

    Raises:
        CheckpointError: the file is unreadable, or of a run with another config, data or start.
    """
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise CheckpointError(f"{path} is no training checkpoint: {error}") from error
    ours = config.decisive()
    # A setting that the checkpoint does not know did what today's default does.
    theirs = asdict(TrainConfig()) | content["config"]
    require_same({name: theirs[name] for name in ours}, ours, str(path))
    require_same(content.get("data"), state.data, str(path))
    if content.get("frozen"):
        state.frozen = frozen_digests(state.model.state_dict(), state.ema)
        others = [part for part, digest in state.frozen.items() if digest != content["frozen"].get(part)]
        if others:
            raise CheckpointError(
                f"{path} goes on from {content['start']}, and the weights of {', '.join(others)} that do not "
                "train are others here: give the same model by --from, or another OUTPUT"
            )
    # Earlier versions wrote the frozen weights too.
    state.model.load_state_dict(content["model"], strict=not content.get("frozen"))
    state.optimizer.load_state_dict(content["optimizer"])
    for name, value in content["ema"].items():
        state.ema[name].copy_(value)
    state.best = Best(**content.get("best", {}))
    torch.set_rng_state(content["rng"])
    state.step = content["step"]


def require_same(theirs: dict[str, Any] | None, ours: dict[str, Any], where: str) -> None:
    """Raise CheckpointError if the run at `where` has other settings or data than `ours`.

    theirs: None or empty where an earlier version wrote no description. What it does not name was unknown to
        the version that wrote it, and is not compared.
    """
    if not theirs or not ours:
        return
    differing = [
        f"{name}: {told!r} there, {ours.get(name)!r} here"
        for name, told in sorted(theirs.items())
        if told != ours.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{where} was trained otherwise ({', '.join(differing)}): give the same flags to go on, "
            "or another OUTPUT"
        )


def update_ema(state: TrainState, decay: float) -> None:
    """Move the averages towards the parameters; a young run averages over what it has."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            if name in state.ema:
                state.ema[name].lerp_(parameter, 1 - decay)
