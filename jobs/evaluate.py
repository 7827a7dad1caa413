"""`sspsam evaluate MODEL DATASET --split ...`: score a model on a benchmark the way the field does."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.options import FLAT, flags_of, given, run, with_kind
from pipeline.annotate.annotate_config import ComputeConfig, ModelConfig, OutputConfig
from pipeline.evaluate.evaluate_config import EvaluateConfig, ScoringConfig
from pipeline.sources.flags import StorageOptions
from sspsam.data import DataConfig, find_format
from sspsam.errors import ConfigError

if TYPE_CHECKING:
    from sspsam.evaluation import Evaluation


Compute = flags_of(ComputeConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when every sample was scored, 1 when not, 2 when it could not begin."""
    return run(evaluate, with_kind(sys.argv[1:] if argv is None else argv), "pipeline")


def evaluate(
    model: str,
    dataset: str,
    /,
    *,
    output: Annotated[str | None, Parameter(alias="-o")] = None,
    format: str | None = None,
    split: str = "val",
    images: str | None = None,
    split_by: str | None = None,
    limit: int | None = None,
    scoring: Annotated[ScoringConfig | None, FLAT] = None,
    device: str | None = None,
    compute: Annotated[Compute | None, FLAT] = None,  # type: ignore[valid-type]
    chunk_size: int = 64,
    overwrite: bool = False,
    retry_errors: str | None = None,
    storage_options: StorageOptions | None = None,
    json: bool = False,
) -> int:
    """Score a model on a benchmark the way the field does.

    Args:
        model: bundled name, random:PRESET, folder, file or URL
        dataset: folder, file or URL of the benchmark; see docs/evaluation.md
        output: folder or URL; by default evaluations/MODEL-DATASET-SPLIT
        format: of the benchmark; by default found from the files
        split: one, or several with commas
        images: folder or URL of the images, if not beside the benchmark
        split_by: REFER's maker of the split: unc, umd, google, berkeley
        limit: records to score at most
        device: cpu, cuda or mps
        chunk_size: images a chunk
        overwrite: delete what is at OUTPUT, start anew
        retry_errors: recompute chunks that hold error rows: of this kind, or of any if none is named
        storage_options: options of fsspec, as JSON
        json: print the metrics as JSON alone
    """
    output = output or _default_output(model, dataset, split)
    options = dict(storage_options or {})
    form = format or find_format(dataset, options)
    # Scenes have no pictures until they are drawn.
    images = images or (f"{output}/images" if form == "scenes" else None)
    config = EvaluateConfig(
        data=DataConfig(dataset, form, split, images, split_by, limit, options),
        output=OutputConfig(
            output=output, chunk_size=chunk_size, overwrite=overwrite, retry_errors=retry_errors
        ),
        model=ModelConfig(model, device),
        compute=ComputeConfig(**given(compute)),
        scoring=scoring or ScoringConfig(),
    )
    return _evaluate(config, json)


def _evaluate(config: EvaluateConfig, json: bool) -> int:
    from rich.console import Console

    from pipeline.evaluate.evaluate_run import evaluate as score

    messages = Console(stderr=True, highlight=False)
    evaluation, summary = score(config, say=lambda text: messages.print(text, markup=False))
    if evaluation is None:
        summary.print(messages)
        messages.print("not every image is accounted for, so there are no numbers: run it again")
        return 1
    if json:
        print(json_text.dumps(evaluation.to_json(), indent=1))
    else:
        show(evaluation, config.output.output)
    missing = sum(evaluation.missing.values())
    if missing:
        messages.print(f"{missing:,} samples could not be scored and count as wrong", style="red")
    return 1 if missing else 0


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


def _default_output(model: str, dataset: str, split: str) -> str:
    if "://" in dataset:
        raise ConfigError("--output is needed for a remote benchmark: name a folder or URL")
    source = PurePosixPath(model)
    if source.name == "model":  # as training calls each of its models
        source = source.parent
    names = (source, PurePosixPath(dataset), PurePosixPath(split.replace(",", "+")))
    parts = [name.name.replace(":", "-") or "root" for name in names]
    return f"evaluations/{'-'.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
