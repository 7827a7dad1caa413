"""`sspsam evaluate MODEL DATASET --split ...`: score a model on a benchmark the way the field does."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from jobs.options import exit_code, storage_options
from sspsam.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.evaluate import EvaluateConfig
    from sspsam.evaluation import Evaluation


def build_parser() -> argparse.ArgumentParser:
    from pipeline.annotate.annotate_config import ComputeConfig
    from sspsam.data import FORMATS
    from sspsam.evaluation import TASKS

    parser = argparse.ArgumentParser(prog="sspsam evaluate", description=__doc__)
    parser.add_argument("model", help="bundled name, random:PRESET, folder, file or URL")
    parser.add_argument("dataset", help="folder, file or URL of the benchmark; see docs/evaluation.md")
    parser.add_argument("-o", "--output", help="folder or URL; by default evaluations/MODEL-DATASET-SPLIT")
    data = parser.add_argument_group("benchmark")
    data.add_argument("--format", choices=list(FORMATS), help="by default found from the files")
    data.add_argument("--split", default="val", help="one, or several with commas")
    data.add_argument("--images", help="folder or URL of the images, if not beside the benchmark")
    data.add_argument("--split-by", help="REFER's maker of the split: unc, umd, google, berkeley")
    data.add_argument("--limit", type=int, help="records to score at most")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--protocol", choices=("standard", "authors", "both"), default="standard")
    scoring.add_argument("--task", choices=list(TASKS), help="by default the format's own")
    scoring.add_argument("--resamples", type=int, default=1000, help="of the bootstrap; 0 for none")
    scoring.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    job = parser.add_argument_group("job, as of sspsam annotate")
    job.add_argument("--device", help="cpu, cuda or mps")
    for item in dataclasses.fields(ComputeConfig):
        flag = f"--{item.name.replace('_', '-')}"
        kind = str if item.name == "replicas" else float
        job.add_argument(flag, type=kind, help=item.metadata["help"])
    job.add_argument("--chunk-size", type=int, default=64, help="images a chunk")
    job.add_argument("--overwrite", action="store_true", help="delete what is at OUTPUT, start anew")
    job.add_argument("--retry-errors", nargs="?", const="any", metavar="KIND")
    job.add_argument("--storage-options", default="{}", metavar="JSON", help="options of fsspec")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON alone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every sample was scored, 1 when not, 2 when it could not begin."""
    return exit_code("evaluate", "pipeline", lambda: _evaluate(build_parser().parse_args(argv)))


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.evaluate import evaluate

    messages = Console(stderr=True, highlight=False)
    config = evaluate_config(arguments)
    evaluation, run = evaluate(config, say=lambda text: messages.print(text, markup=False))
    if evaluation is None:
        run.print(messages)
        messages.print("not every image is accounted for, so there are no numbers: run it again")
        return 1
    if arguments.json:
        print(json.dumps(evaluation.to_json(), indent=1))
    else:
        show(evaluation, config.output.output)
    missing = sum(evaluation.missing.values())
    if missing:
        messages.print(f"{missing:,} samples could not be scored and count as wrong", style="red")
    return 1 if missing else 0


def evaluate_config(arguments: argparse.Namespace) -> EvaluateConfig:
    """The settings that the flags say. Raises ConfigError."""
    from pipeline.annotate.annotate_config import ComputeConfig, ModelConfig, OutputConfig
    from pipeline.evaluate import EvaluateConfig, ScoringConfig
    from sspsam.data import DataConfig, find_format

    options = storage_options(arguments)
    output = arguments.output or _default_output(arguments)
    form = arguments.format or find_format(arguments.dataset, options)
    given = vars(arguments)
    compute: dict[str, Any] = {
        item.name: given[item.name]
        for item in dataclasses.fields(ComputeConfig)
        if given[item.name] is not None
    }
    return EvaluateConfig(
        data=DataConfig(
            dataset=arguments.dataset,
            format=form,
            split=arguments.split,
            # Scenes have no pictures until they are drawn.
            images=arguments.images or (f"{output}/images" if form == "scenes" else None),
            split_by=arguments.split_by,
            limit=arguments.limit,
            storage_options=options,
        ),
        output=OutputConfig(
            output=output,
            chunk_size=arguments.chunk_size,
            overwrite=arguments.overwrite,
            retry_errors=arguments.retry_errors,
        ),
        model=ModelConfig(arguments.model, arguments.device),
        compute=ComputeConfig(**compute),
        scoring=ScoringConfig(
            protocol=arguments.protocol,
            task=arguments.task,
            resamples=arguments.resamples,
            seed=arguments.seed,
        ),
    )


def show(evaluation: Evaluation, output: str) -> None:
    """Print the metrics as tables, and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    from sspsam.evaluation.score_summary import interval, percent

    console = Console(highlight=False)
    about = evaluation.about
    title = f"{about['model']} on {about['dataset']}, split {about['split']}"
    for protocol, subsets in evaluation.scores.items():
        table = Table(title=f"{title}, protocol {protocol}", title_justify="left")
        table.add_column("metric")
        for heading in ("%", "95 % interval", "samples"):
            table.add_column(heading, justify="right")
        for score in subsets["all"]:
            table.add_row(score.name, percent(score.value), interval(score), f"{score.samples:,}")
        console.print(table)
        if len(subsets) > 1:
            console.print(_subset_table(subsets))
    plain: dict[str, Any] = {"markup": False, "soft_wrap": True}  # paths stay whole
    console.print(f"{evaluation.samples:,} samples, {evaluation.images:,} images")
    console.print(f"tables: {output}/metrics.md; per sample: {output}/samples.parquet", **plain)
    console.print(f"pictures of the worst: sspsam report {output}", **plain)


def _subset_table(subsets: dict[str, Any]) -> Any:
    from rich.table import Table

    from sspsam.evaluation.score_summary import percent

    shown = [score.name for score in subsets["all"]][:6]
    table = Table()
    table.add_column("subset", no_wrap=True)
    for name in ("samples", *shown):
        table.add_column(name, justify="right")
    for subset, scores in subsets.items():
        values = [percent(score.value) for score in scores[: len(shown)]]
        table.add_row(subset, str(max(score.samples for score in scores)), *values)
    return table


def _default_output(arguments: argparse.Namespace) -> str:
    if "://" in arguments.dataset:
        raise ConfigError("--output is needed for a remote benchmark: name a folder or URL")
    model = PurePosixPath(arguments.model)
    if model.name == "model":  # as training calls each of its models
        model = model.parent
    names = (model, PurePosixPath(arguments.dataset), PurePosixPath(arguments.split.replace(",", "+")))
    parts = [name.name.replace(":", "-") or "root" for name in names]
    return f"evaluations/{'-'.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
