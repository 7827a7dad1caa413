"""What each process of a Ray Train run does: the training loop with Ray's rank, checkpoints and reports."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from torch import nn

from sspsam.errors import SSPSAMError
from sspsam.storage.storage_options import options_for
from sspsam.training.loop import train
from sspsam.training.process import Process
from sspsam.training.recipes import start_model
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import Data, settle

if TYPE_CHECKING:
    from sspsam.modeling.model import SSPSAM

_CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Storage:
    """Where a run's stages go: a folder or URL that every node reaches."""

    root: str
    options: dict[str, Any]

    @property
    def place(self) -> tuple[Any, str]:
        """fsspec's file system, and the root in it."""
        fs, base = fsspec.core.url_to_fs(self.root, **options_for(self.root, self.options))
        return fs, base.rstrip("/")

    def for_ray(self) -> dict[str, Any]:
        """As arguments of Ray Train's RunConfig."""
        if "://" not in self.root:
            return {"storage_path": self.root}
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, base = self.place
        return {"storage_path": base, "storage_filesystem": PyFileSystem(FSSpecHandler(fs))}


@dataclass(frozen=True)
class StageSpec:
    """What a worker needs to train a stage."""

    config: TrainConfig
    data: Data
    begun: dict[str, Any]  # `recipes.origin`
    preset: str
    source: str | None
    threads: int
    #: fsspec's, where `source` is an earlier stage's model under OUTPUT; None anywhere else.
    source_options: dict[str, Any] | None
    storage: Storage
    #: File of `storage` that holds an error which starting again cannot mend.
    fatal: str


def train_worker(settings: dict[str, Any]) -> None:
    """Entry point of each process. A lasting error goes to the driver by a file."""
    spec: StageSpec = settings["spec"]
    try:
        _train(spec)
    except SSPSAMError as error:
        told = json.dumps({"kind": error.kind, "message": str(error)})
        spec.storage.place[0].pipe_file(spec.fatal, told.encode())
        raise


def _train(spec: StageSpec) -> None:
    """The training loop with the rank and hooks of Ray Train."""
    import ray.train
    import ray.train.torch
    import torch

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(spec.threads)
    model = _start(spec, str(device))
    training, validation = spec.data.sources(spec.config, model.config, rank, world)
    say = partial(print, flush=True) if rank == 0 else lambda line: None
    config = settle(spec.config, training, validation, say)
    distributed = partial(
        nn.parallel.DistributedDataParallel,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=True,  # tokens of SAM's decoder whose masks no loss sees
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        process = Process(
            rank=rank,
            world=world,
            wrap=distributed,
            restore=lambda: _restored(folder),
            report=_report,
            gather=partial(_gathered, torch.distributed.new_group(backend="gloo")),
        )
        measures = train(
            model,
            config,
            training,
            validation,
            folder,
            data=spec.begun,
            process=process,
            say=say,
        )
        final = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
        ray.train.report({"step": config.steps, **measures}, checkpoint=final)


def _gathered(group: Any, value: Any) -> list[Any]:
    """The value of every process, by rank."""
    import torch.distributed

    values: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(values, value, group)
    return values


def _start(spec: StageSpec, device: str) -> SSPSAM:
    """The model that a worker starts from."""
    if not spec.source or not spec.source_options:
        return start_model(spec.config, spec.preset, spec.source, device)
    fs, path = Storage(spec.source, spec.source_options).place
    with tempfile.TemporaryDirectory() as folder:
        fs.get(f"{path}/", f"{folder}/", recursive=True)
        return start_model(spec.config, spec.preset, folder, device)


def _restored(folder: Path) -> Path | None:
    """The last checkpoint that reached the storage, copied here."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as stored:
        return Path(shutil.copy(Path(stored) / _CHECKPOINT, folder / f"restored-{_CHECKPOINT}"))


def _report(step: int, measures: dict[str, float], path: Path | None) -> None:
    """Hand a checkpoint to Ray Train; every worker comes here at the same step."""
    import ray.train

    if path is None:
        ray.train.report({"step": step, **measures})
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder) / _CHECKPOINT)
        ray.train.report({"step": step, **measures}, checkpoint=ray.train.Checkpoint.from_directory(folder))
