"""`sspsam train OUTPUT`: train SSP-SAM on generated scenes or, with --data, on labelled images.

The same command again goes on where it was stopped or killed. OUTPUT receives one folder a stage
(checkpoint.pt, validation/*.png, model/), TensorBoard events, and the finished model in `model/`.
With --workers, that many processes train together through Ray Train, on one machine or a cluster.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.options import exit_code, storage_options
from sspsam.errors import ConfigError
from sspsam.training.recipes import RECIPES
from sspsam.training.train_config import TrainConfig

if TYPE_CHECKING:
    from sspsam.training.training_data import Data


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sspsam train", description=__doc__.split("\n")[0])
    parser.add_argument("output", help="folder or URL of the run; an existing run is resumed")
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="all stages of a schedule; flags below override it"
    )
    parser.add_argument("--from", dest="source", help="model to start from (default: random weights)")
    parser.add_argument("--clip", metavar="FILE", help="CLIP weights to begin with, with --sam")
    parser.add_argument("--sam", metavar="FILE", help="SAM weights to begin with, with --clip")
    parser.add_argument("--preset", default="tiny", help="layout of random weights (default: tiny)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    _add_data(parser)
    _add_workers(parser)
    group = parser.add_argument_group("a stage")
    for item in fields(TrainConfig):
        flag = "--" + item.name.replace("_", "-")
        told = f"{item.metadata['help']} (default: {item.default})"
        if isinstance(item.default, bool):
            group.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=item.metadata["help"]
            )
        else:
            group.add_argument(flag, type=type(item.default), help=told)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    from sspsam.data import FORMATS

    group = parser.add_argument_group("labelled images, instead of scenes")
    group.add_argument("--data", help="benchmark, or OUTPUT of annotate, curate or import")
    group.add_argument("--format", choices=list(FORMATS), help="by default found from the files")
    group.add_argument("--split", help="to train on (default: train; all where there are no splits)")
    group.add_argument("--validation-split", help="of the same data (default: every 20th image)")
    group.add_argument("--images-at", metavar="URL", help="folder or URL of the benchmark's images")
    group.add_argument("--split-by", help="REFER's maker of the split: unc, umd, google, berkeley")
    group.add_argument("--limit", type=int, help="records to train on at most")
    group.add_argument("--flip", type=float, default=0.5, help="chance of mirroring (default: 0.5)")
    group.add_argument(
        "--translate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="place the picture anywhere in CLIP's square, as published",
    )
    group.add_argument(
        "--features", metavar="URL", help="where --cache-features keeps them (default: OUTPUT/features)"
    )
    group.add_argument("--storage-options", default="{}", metavar="JSON", help="options of fsspec")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several processes, through Ray Train")
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes; 0 trains in this one, or in one of Ray Train if OUTPUT is a URL",
    )
    group.add_argument("--gpus-per-worker", type=float, help="default: 1 if the cluster has any")
    group.add_argument("--cpus-per-worker", type=float, default=1.0, help="CPU cores a worker")
    group.add_argument(
        "--max-failures", type=int, default=100, help="lost workers after which the run gives up"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when trained, 2 when it could not be, 143 when stopped by SIGTERM after a checkpoint."""
    return exit_code("train", "pipeline", lambda: _train(build_parser().parse_args(argv)))


def _train(options: argparse.Namespace) -> int:
    chosen = {
        item.name: getattr(options, item.name)
        for item in fields(TrainConfig)
        if getattr(options, item.name) is not None
    }
    if options.recipe:
        stages = tuple(replace(stage, **chosen) for stage in RECIPES[options.recipe])
    else:
        stages = (TrainConfig(**chosen),)
    data = _data(options)
    if options.clip or options.sam:
        options.source = _with_towers(options)
    if options.workers or "://" in options.output:
        return _run_workers(options, stages, data)
    return _run(options, stages, data)


def _data(options: argparse.Namespace) -> Data:
    """What the flags say to train on. Raises ConfigError and DataError."""
    from sspsam.data import DataConfig, find_format
    from sspsam.training.record_batches import RecordOptions
    from sspsam.training.training_data import RecordData, SceneData

    if options.data is None:
        return SceneData(options.output)
    stores = storage_options(options)
    form = options.format or find_format(options.data, stores)
    unsplit = form == "annotations" and not _has_splits(options.data, stores)
    return RecordData(
        data=DataConfig(
            dataset=options.data,
            format=form,
            split=options.split or ("all" if unsplit else "train"),
            images=options.images_at,
            split_by=options.split_by,
            limit=options.limit,
            storage_options=stores,
        ),
        validation_split=options.validation_split,
        options=RecordOptions(flip=options.flip, translate=options.translate),
    )


def _with_towers(options: argparse.Namespace) -> str:
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


def _has_splits(dataset: str, stores: dict[str, Any]) -> bool:
    from sspsam.data.benchmark_files import exists, join

    return exists(join(dataset, "_curation.json"), stores)


def _run(options: argparse.Namespace, stages: tuple[TrainConfig, ...], data: Data) -> int:
    """Train in this process."""
    import torch

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
            device=_device(options.device),
            say=lambda line: print(line, flush=True),
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


def _run_workers(options: argparse.Namespace, stages: tuple[TrainConfig, ...], data: Data) -> int:
    """Train through Ray Train."""
    from pipeline.train.ray_train import WorkerConfig, train_stages

    started = time.monotonic()
    measures = train_stages(
        stages,
        options.output,
        data=_with_features(options, stages, data),
        preset=options.preset,
        source=options.source,
        storage_options=storage_options(options),
        workers=WorkerConfig(
            workers=max(1, options.workers),
            gpus_per_worker=options.gpus_per_worker,
            cpus_per_worker=options.cpus_per_worker,
            max_failures=options.max_failures,
            threads=options.threads,
        ),
        say=lambda line: print(line, flush=True),
    )
    return _finished(options, measures, started)


def _with_features(options: argparse.Namespace, stages: tuple[TrainConfig, ...], data: Data) -> Data:
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


def _finished(options: argparse.Namespace, measures: dict[str, float], started: float) -> int:
    told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
    print(f"trained in {(time.monotonic() - started) / 60:.1f} min: {told}")
    print(f"model: {options.output.rstrip('/')}/model")
    return 0


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _writer(output: Path) -> Any:
    """TensorBoard's writer, or None (said once) without the `train` extra."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        print("no TensorBoard: pip install 'sspsam[train]' to have metrics in OUTPUT/tensorboard")
        return None
    return SummaryWriter(str(output / "tensorboard"))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    sys.exit(main())
