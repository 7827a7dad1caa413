"""`sspsam train OUTPUT`: train SSP-SAM on generated scenes, resumable at any moment.

The same command again goes on where it was stopped or killed. OUTPUT receives one folder a stage
(checkpoint.pt, validation/*.png, model/), TensorBoard events, and the finished model in `model/`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sspsam.errors import SSPSAMError
from sspsam.training.config import TrainConfig
from sspsam.training.recipes import RECIPES


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sspsam train", description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="folder of the run; an existing run is resumed")
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), help="all stages of a schedule; flags below override it"
    )
    parser.add_argument("--from", dest="source", help="model to start from (default: random weights)")
    parser.add_argument("--preset", default="tiny", help="layout of random weights (default: tiny)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
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


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    chosen = {
        item.name: getattr(options, item.name)
        for item in fields(TrainConfig)
        if getattr(options, item.name) is not None
    }
    try:
        if options.recipe:
            stages = tuple(replace(stage, **chosen) for stage in RECIPES[options.recipe])
        else:
            stages = (TrainConfig(**chosen),)
        return _run(options, stages)
    except SSPSAMError as error:
        print(f"sspsam train: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, stages: tuple[TrainConfig, ...]) -> int:
    import torch

    from sspsam.training.recipes import run_stages

    if options.threads:
        torch.set_num_threads(options.threads)
    asked: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    started = time.monotonic()
    writer = _writer(options.output)
    try:
        measures = run_stages(
            stages,
            options.output,
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
    told = ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
    print(f"trained in {(time.monotonic() - started) / 60:.1f} min: {told}")
    print(f"model: {options.output / 'model'}")
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
