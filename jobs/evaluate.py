"""`sspsam evaluate MODEL DATASET --split ...`: the metrics of a model on a benchmark."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jobs.options import FLAT, arguments, flags_of, given, run, with_kind
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
    return run(evaluate, with_kind(arguments(argv)), "pipeline")


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
    model_options: StorageOptions | None = None,
    compute: Annotated[Compute | None, FLAT] = None,  # type: ignore[valid-type]
    chunk_size: int = 64,
    overwrite: bool = False,
    retry_errors: str | None = None,
    storage_options: StorageOptions | None = None,
    json: bool = False,
) -> int:
    """Evaluate a model on a benchmark of referring expression segmentation.

    Args:
        model: bundled name, random:PRESET, folder, file or URL; or another open model (docs/model.md)
        dataset: folder, file or URL of the benchmark; see docs/evaluation.md
        output: folder or URL; by default evaluations/MODEL-DATASET-SPLIT
        format: format of the benchmark (default: detected from its files)
        split: split to score, or several with commas
        images: folder or URL of the images, if not beside the benchmark
        split_by: REFER's maker of the split: unc, umd, google, berkeley
        limit: maximum number of records to score
        device: cpu, cuda or mps
        model_options: options of another open model, as JSON
        chunk_size: images per chunk
        overwrite: delete an existing OUTPUT and start again
        retry_errors: recompute chunks that hold error rows: of this kind, or of any if none is named
        storage_options: options of fsspec, as JSON
        json: print the metrics as JSON
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
        model=ModelConfig(model, device, dict(model_options or {})),
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
    from rich.markdown import Markdown

    from sspsam.evaluation import markdown

    console = Console(highlight=False)
    console.print(Markdown(markdown(evaluation, most_metrics=6, worst=0)))
    plain: dict[str, Any] = {"markup": False, "soft_wrap": True}  # paths stay whole
    console.print(f"tables: {output}/metrics.md; per sample: {output}/samples.parquet", **plain)
    console.print(f"pictures of the worst: sspsam report {output}", **plain)


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
