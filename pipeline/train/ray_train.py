"""Training by several processes through Ray Train: DistributedDataParallel, lost workers replaced.

A stage is one Ray Train run. When a worker dies, Ray starts all of them again, and they go on from the
last checkpoint that reached the storage; the order of the data is a function of the step, so nothing is
shown twice or left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.annotate.cluster import connect, total_resources
from pipeline.train.ray_worker import StageSpec, Storage, train_worker
from sspsam.checkpoint import load_config, located_model
from sspsam.errors import CheckpointError, ConfigError, DataError, DivergedError
from sspsam.model_config import SSPSAMConfig
from sspsam.storage.local_paths import absolute
from sspsam.training.recipes import FINISHED, origin, require_finished
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import Data

if TYPE_CHECKING:
    import ray.train

_FATAL = "fatal.json"


@dataclass(frozen=True)
class WorkerConfig:
    """Which processes train."""

    workers: int = 2  # processes
    gpus_per_worker: float | None = None  # GPUs; None: 1 if the cluster has any, else 0
    cpus_per_worker: float = 1.0  # cores
    max_failures: int = 100  # lost workers after which the run gives up
    threads: int | None = None  # of torch, on a CPU; None: cpus_per_worker

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, not {self.workers}")
        if self.cpus_per_worker <= 0:
            raise ConfigError(f"--cpus-per-worker must be positive, not {self.cpus_per_worker}")
        if self.max_failures < 0:
            raise ConfigError(f"--max-failures must not be negative, not {self.max_failures}")


def train_stages(
    stages: tuple[TrainConfig, ...],
    output: str,
    *,
    data: Data,
    workers: WorkerConfig,
    preset: str = "tiny",
    source: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Train the stages one after another; resumes an earlier run of the same command.

    Args:
        output: folder or URL that every node reaches. Gets `<number>-<stage>/` with Ray Train's
            checkpoints and `model/`, and the last stage's model as `model/`.
        source: model to start from, as `from_pretrained` takes it on every node.
        storage_options: fsspec's, for `output`.

    Returns:
        The metrics of the last validation.

    Raises:
        ConfigError: the workers do not fit the cluster.
        DataError: training failed more often than `max_failures`; the message has the last error.
    """
    import ray

    local = connect()
    try:
        use_gpu, resources = _resources(workers)
        root = absolute(output)
        storage = Storage(root, dict(storage_options or {}))
        fs, base = storage.place
        source_options = None
        source, data = source and located_model(source), data.absolute()
        measures: dict[str, float] = {}
        for number, config in enumerate(stages, start=1):
            name = f"{number}-{config.stage}"
            model = f"{root}/{name}/model"
            begun = origin(data, preset, source if number == 1 else None)
            run = config.decisive() | begun
            finished = f"{base}/{name}/{FINISHED}"
            if fs.exists(finished):
                require_finished(fs.cat_file(finished).decode(), run, f"{root}/{name}")
            else:
                # Reported here, at once, not by workers that are restarted.
                data.check(config, _model_config(preset, source, source_options))
                threads = workers.threads or max(1, int(workers.cpus_per_worker))
                fatal = f"{base}/{name}-{_FATAL}"
                spec = StageSpec(config, data, begun, preset, source, threads, source_options, storage, fatal)
                if fs.exists(fatal):
                    fs.rm_file(fatal)
                say(f"{name}: {workers.workers} workers, {'GPU' if use_gpu else 'CPU'}")
                result = _fit(spec, name, storage, workers, use_gpu, resources)
                measures = dict(result.metrics or {})
                assert result.checkpoint is not None
                with result.checkpoint.as_directory() as stored:
                    fs.put(f"{stored}/model/", f"{base}/{name}/model/", recursive=True)
                fs.pipe_file(finished, json.dumps(run).encode())
            source, source_options = model, storage.options
        fs.copy(f"{base}/{name}/model/", f"{base}/model/", recursive=True)
        return measures
    finally:
        if local:
            ray.shutdown()


def _fit(
    spec: StageSpec,
    name: str,
    storage: Storage,
    workers: WorkerConfig,
    use_gpu: bool,
    resources: dict[str, float],
) -> ray.train.Result:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"spec": spec},
        scaling_config=ScalingConfig(
            num_workers=workers.workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            **storage.for_ray(),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[_no_restart(storage, spec.fatal)],
        ),
    )
    fs = storage.place[0]
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps whatever the workers raised
        _raise_fatal(fs, spec.fatal)
        raise DataError(f"stage {name}: training ended: {error}") from error
    _raise_fatal(fs, spec.fatal)
    if result.error is not None or result.checkpoint is None:
        raise DataError(f"stage {name}: training ended: {result.error}")
    return result


def _no_restart(storage: Storage, fatal: str) -> Any:
    """A callback of Ray Train that ends the run in place of starting it again, if a worker left an error."""
    from ray.train import UserCallback

    class NoRestart(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
            _raise_fatal(storage.place[0], fatal)  # an error of a callback is final

    return NoRestart()


def _raise_fatal(fs: Any, path: str) -> None:
    """Raise the error that a worker left, if one did, as what it was there."""
    if not fs.exists(path):
        return
    told = json.loads(fs.cat_file(path))
    kinds = {one.kind: one for one in (ConfigError, DataError, CheckpointError, DivergedError)}
    raise kinds.get(told["kind"], DataError)(told["message"])


def _model_config(preset: str, source: str | None, options: dict[str, Any] | None) -> SSPSAMConfig:
    """The sizes of the model that a stage starts from, for what checks the data against them."""
    if source is None or options is not None:  # an earlier stage's model has the preset's sizes
        return SSPSAMConfig.preset(preset)
    return load_config(source)


def _resources(workers: WorkerConfig) -> tuple[bool, dict[str, float]]:
    """Whether workers use GPUs, and what each reserves.

    Raises:
        ConfigError: the cluster has not as much.
    """
    total = total_resources()
    gpus = workers.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if total.get("GPU", 0.0) else 0.0
    resources = {"CPU": workers.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    for kind, flag in (("CPU", "--cpus-per-worker"), ("GPU", "--gpus-per-worker")):
        wanted, there = workers.workers * resources.get(kind, 0.0), total.get(kind, 0.0)
        if wanted > there:
            raise ConfigError(
                f"--workers {workers.workers} with {flag} {resources[kind]:g} need {wanted:g} "
                f"{kind}s, the cluster has {there:g}"
            )
    return gpus > 0, resources
