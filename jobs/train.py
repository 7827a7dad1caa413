"""`sspsam train OUTPUT`: train SSP-SAM on generated scenes or, with --data, on labelled images.

OUTPUT receives one folder per stage (checkpoint.pt, validation/*.png, model/), TensorBoard events, and the
finished model in `model/`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.options import FLAT, flags_of, given, run
from pipeline.sources.flags import StorageOptions
from sspsam.errors import ConfigError, DivergedError
from sspsam.training.recipes import RECIPES
from sspsam.training.train_config import TrainConfig

if TYPE_CHECKING:
    from sspsam.training.training_data import Data


Stage = flags_of(TrainConfig)


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        output: folder or URL of the run; an existing run is resumed
        recipe: schedule of one or more stages: tiny, published-boxes, published-masks, finetune,
            finetune-towers; stage flags override it
        source: model to start from (default: random weights)
        clip: CLIP weights to start from, together with --sam
        sam: SAM weights to start from, together with --clip
        preset: architecture of a model with random weights
        device: cpu, cuda, mps or auto
        threads: CPU threads (default: torch's choice)
        storage_options: options of fsspec, as JSON
        workers: processes of Ray Train; 0 trains in this process, or in one of Ray Train if OUTPUT is a URL
        gpus_per_worker: GPUs per worker (default: 1 if the cluster has any)
        cpus_per_worker: CPU cores per worker
        max_failures: worker failures after which the run ends
        features: folder or URL of the features of --cache-features (default: OUTPUT/features)
    """

    output: str
    _: KW_ONLY
    recipe: str | None = None
    source: Annotated[str | None, Parameter(name="--from")] = None
    clip: str | None = None
    sam: str | None = None
    preset: str = "tiny"
    device: str = "auto"
    threads: int | None = None
    storage_options: StorageOptions = field(default_factory=dict)
    workers: int = 0
    gpus_per_worker: float | None = None
    cpus_per_worker: float = 1.0
    max_failures: int = 100
    features: str | None = None


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled images, instead of scenes.

    Args:
        data: training data: a benchmark, or the OUTPUT of annotate, curate or import
        format: format of --data (default: detected from the files)
        split: split to train on (default: train; all where there are no splits)
        validation_split: split of the same data to validate on (default: every 20th image)
        images_at: folder or URL of the benchmark's images
        image_root: of an annotation dataset: where its INPUT is now, or FROM=TO; repeatable
        split_by: REFER's maker of the split: unc, umd, google, berkeley
        limit: maximum number of records to train on
        flip: probability of horizontal flipping; left and right in phrases change places
        translate: random position of the image in CLIP's square, as published
    """

    data: str | None = None
    format: str | None = None
    split: str | None = None
    validation_split: str | None = None
    images_at: str | None = None
    image_root: tuple[str, ...] = ()
    split_by: str | None = None
    limit: int | None = None
    flip: float = 0.5
    translate: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when trained, 1 when it diverged, 2 when it could not begin.

    143 when stopped by SIGTERM, after a checkpoint.
    """
    return run(train, argv, "pipeline")


def train(
    options: Annotated[Run, FLAT],
    *,
    labelled: Annotated[Labelled, FLAT] = Labelled(),
    stage: Annotated[Stage | None, FLAT] = None,  # type: ignore[valid-type]
) -> int:
    """Train SSP-SAM on generated scenes or, with --data, on labelled images.

    The same command again resumes the run. With --workers N, N processes train
    together through Ray Train, on one machine or a cluster.
    """
    chosen = given(stage)
    if options.recipe is None:
        by_need = {"absent_share": None} if labelled.data else {}
        stages: tuple[TrainConfig, ...] = (TrainConfig(**(by_need | chosen)),)
    elif options.recipe in RECIPES:
        stages = tuple(replace(one, **chosen) for one in RECIPES[options.recipe])
    else:
        raise ConfigError(f"--recipe {options.recipe!r}: there are {', '.join(sorted(RECIPES))}")
    data = _data(options, labelled)
    if doubt := data.doubt():
        print(f"sspsam train: warning: {doubt}", file=sys.stderr)
    if options.clip or options.sam:
        options = replace(options, source=_with_towers(options))
    try:
        if options.workers or "://" in options.output:
            return _run_workers(options, stages, data)
        return _run(options, stages, data)
    except DivergedError as error:
        print(f"sspsam train: {error}", file=sys.stderr)
        return 1


def _data(options: Run, labelled: Labelled) -> Data:
    """The training data that the flags name. Raises ConfigError and DataError."""
    from sspsam.data import DataConfig, find_format
    from sspsam.data.benchmark_files import exists, join
    from sspsam.training.record_batches import RecordOptions
    from sspsam.training.training_data import RecordData, SceneData

    if labelled.data is None:
        return SceneData(options.output)
    stores = dict(options.storage_options)
    form = labelled.format or find_format(labelled.data, stores)
    unsplit = form == "annotations" and not exists(join(labelled.data, "_curation.json"), stores)
    return RecordData(
        data=DataConfig(
            dataset=labelled.data,
            format=form,
            split=labelled.split or ("all" if unsplit else "train"),
            images=labelled.images_at,
            split_by=labelled.split_by,
            limit=labelled.limit,
            storage_options=stores,
            image_root=labelled.image_root,
        ),
        validation_split=labelled.validation_split,
        options=RecordOptions(flip=labelled.flip, translate=labelled.translate),
    )


def _with_towers(options: Run) -> str:
    """A model with published towers, saved as OUTPUT/start; made once."""
    from sspsam import SSPSAM, SSPSAMConfig
    from sspsam.training.towers import load_towers

    if options.source or not (options.clip and options.sam) or "://" in options.output:
        raise ConfigError("--clip and --sam go together, without --from, into a local OUTPUT")
    start = Path(options.output) / "start"
    if not (start / "model.safetensors").exists():
        model = SSPSAM(SSPSAMConfig.preset(options.preset))
        load_towers(model, options.clip, options.sam)
        model.save_pretrained(start)
    return str(start)


def _run(options: Run, stages: tuple[TrainConfig, ...], data: Data) -> int:
    """Train in this process."""
    import torch

    from sspsam.modeling.model import default_device
    from sspsam.training.recipes import run_stages

    if options.threads:
        torch.set_num_threads(options.threads)
    data = _with_features(options, stages, data)
    asked: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    started = time.monotonic()
    writer = _writer(Path(options.output))
    try:
        measures = run_stages(
            stages,
            Path(options.output),
            data=data,
            preset=options.preset,
            source=options.source,
            device=str(default_device()) if options.device == "auto" else options.device,
            say=partial(print, flush=True),
            writer=writer,
            stop=lambda: bool(asked),
        )
    finally:
        signal.signal(signal.SIGTERM, previous)
        if writer is not None:
            writer.close()
    if asked:
        print("sspsam train: stopped after a checkpoint; the same command goes on from there")
        return 143
    return _finished(options, measures, started)


def _run_workers(options: Run, stages: tuple[TrainConfig, ...], data: Data) -> int:
    """Train through Ray Train."""
    from pipeline.train.ray_train import WorkerConfig, train_stages

    started = time.monotonic()
    measures = train_stages(
        stages,
        options.output,
        data=_with_features(options, stages, data),
        preset=options.preset,
        source=options.source,
        storage_options=dict(options.storage_options),
        workers=WorkerConfig(
            workers=max(1, options.workers),
            gpus_per_worker=options.gpus_per_worker,
            cpus_per_worker=options.cpus_per_worker,
            max_failures=options.max_failures,
            threads=options.threads,
        ),
        say=partial(print, flush=True),
    )
    return _finished(options, measures, started)


def _with_features(options: Run, stages: tuple[TrainConfig, ...], data: Data) -> Data:
    """The data with the towers' outputs cached, if the flags ask for it."""
    from sspsam.training.training_data import RecordData

    wanted = any(stage.cache_features for stage in stages)
    if not isinstance(data, RecordData) or not (wanted or options.features):
        return data
    from pipeline.train.cache_features import cache_features

    if not options.source:
        raise ConfigError("--cache-features: give the model whose image towers they are of, by --from")
    url = options.features or f"{options.output.rstrip('/')}/features"
    cache_features(data, options.source, url)
    return replace(data, features=url)


def _finished(options: Run, measures: dict[str, float], started: float) -> int:
    told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
    print(f"trained in {(time.monotonic() - started) / 60:.1f} min: {told}")
    print(f"model: {options.output.rstrip('/')}/model")
    return 0


def _writer(output: Path) -> Any:
    """TensorBoard's writer, or None (with a note) without the `train` extra."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        print("no TensorBoard: pip install 'sspsam[train]' to have metrics in OUTPUT/tensorboard")
        return None
    return SummaryWriter(str(output / "tensorboard"))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main())
