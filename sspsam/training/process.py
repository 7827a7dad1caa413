"""What the training loop is given: its data source, its rank among processes, the losses as a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sspsam.modeling.model import SSPSAM
from sspsam.training.features import FeatureCache
from sspsam.training.scene_batches import Batch, ScenePool
from sspsam.training.stages import STAGE_LOSSES
from sspsam.training.train_config import TrainConfig


@dataclass(frozen=True)
class Process:
    """Rank of this process, and the hooks of distributed training; by default there is one process.

    Args:
        rank, world: rank of this process, and the number of processes. Rank 0 saves.
        wrap: synchronises gradients between processes, such as DistributedDataParallel.
        restore: returns the checkpoint to resume from, or None; by default the one in the output folder.
        report: called by every process at each checkpoint with the steps done, the last metrics, and on
            rank 0 the file.
        gather: called by every process with a value of its own; returns the values of all, by rank.
    """

    rank: int = 0
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] | None = None
    restore: Callable[[], Path | None] | None = None
    report: Callable[[int, dict[str, float], Path | None], None] | None = None
    gather: Callable[[Any], list[Any]] = lambda value: [value]


class StageLosses(nn.Module):
    """A stage's losses as a module, so that DistributedDataParallel can hold it."""

    def __init__(self, model: SSPSAM, config: TrainConfig, cache: FeatureCache | None) -> None:
        super().__init__()
        self.model = model
        self._config = config
        self._cache = cache

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The stage's losses, weighted, by name."""
        return STAGE_LOSSES[self._config.stage](self.model, batch, self._config, self._cache)


class Source(Protocol):
    """A source of training batches: `SceneSource` or `RecordSource`."""

    pool: ScenePool | None
    pool_size: int

    def batch(self, step: int, images: int, phrases: int, device: torch.device) -> Batch: ...

    def make(
        self, indices: NDArray[np.int64], phrases: int, random: Random, device: torch.device
    ) -> Batch: ...
