"""The summary of an evaluation: metrics with intervals, by protocol and subset, and the worst cases;
as JSON and as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sspsam.evaluation.bootstrap import Score, intervals
from sspsam.evaluation.metrics import task_metrics
from sspsam.evaluation.table import image_groups

PROTOCOLS: Final = ("standard", "authors")
WORST: Final = 100
#: Of open-ended subsets ("category:dog"), how many a kind are reported: the commonest.
NAMED_SUBSETS: Final = 10

Scores = list[Score]


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        task: "res", "gres" or "phrasecut": which metrics the standard protocol reports.
        samples, images: how many were scored.
        missing: samples without a prediction or truth, by kind of error; they count as wrong.
        scores: protocol -> subset ("all" first) -> scores.
        worst: rows of the worst samples under the standard protocol, worst first.
        about: model, dataset, split and settings.
    """

    task: str
    samples: int
    images: int
    missing: dict[str, int]
    scores: dict[str, dict[str, Scores]]
    worst: list[dict[str, Any]] = field(repr=False)
    about: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str, *, protocol: str = "standard", subset: str = "all") -> float:
        """A metric by name, in 0..1; nan where no sample counts.

        Raises:
            KeyError: there is no such protocol, subset or metric.
        """
        for score in self.scores[protocol][subset]:
            if score.name == name:
                return score.value
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain containers; nan becomes None."""
        return {
            "version": 1,
            **self.about,
            "task": self.task,
            "samples": self.samples,
            "images": self.images,
            "missing": self.missing,
            "protocols": {
                protocol: {
                    subset: {score.name: _plain(score) for score in scores}
                    for subset, scores in subsets.items()
                }
                for protocol, subsets in self.scores.items()
            },
            "worst": self.worst,
        }


def summarise(
    table: pa.Table,
    task: str,
    protocols: tuple[str, ...],
    *,
    resamples: int = 1000,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> Evaluation:
    """Aggregate a table of `SAMPLE_SCHEMA`.

    Args:
        table: a row a sample.
        task: "res", "gres" or "phrasecut".
        protocols: some of `PROTOCOLS`.
        resamples: of the bootstrap over images.
        seed: of the bootstrap.
        about: model, dataset and settings, kept with the numbers.
    """
    groups = image_groups(table)
    selections = {"all": np.arange(table.num_rows), **_subsets(table)}
    scores: dict[str, dict[str, Scores]] = {}
    for protocol in protocols:
        scores[protocol] = {}
        for name, rows in selections.items():
            metrics = task_metrics(table.take(pa.array(rows)), task, protocol)
            _, dense = np.unique(groups[rows], return_inverse=True)
            scores[protocol][name] = intervals(metrics, dense, resamples=resamples, seed=seed)
    errors = table.column("error").combine_chunks()
    kinds = Counter(pc.struct_field(errors.filter(errors.is_valid()), "kind").to_pylist())
    return Evaluation(
        task=task,
        samples=table.num_rows,
        images=int(groups.max(initial=-1)) + 1,
        missing=dict(sorted(kinds.items())),
        scores=scores,
        worst=_worst(table),
        about=about or {},
    )


def markdown(evaluation: Evaluation, *, most_metrics: int | None = None, worst: int = 20) -> str:
    """The metrics as Markdown tables, percentages with 95 % intervals.

    Args:
        most_metrics: columns of the subsets' table at most.
        worst: worst cases listed at most.
    """
    about = evaluation.about
    lines = [f"# {about.get('model', 'model')} on {about.get('dataset', 'dataset')}", ""]
    lines += [f"- {name}: {value}" for name, value in about.items() if value not in (None, "", {})]
    lines += [f"- task: {evaluation.task}", f"- samples: {evaluation.samples}, images: {evaluation.images}"]
    if evaluation.missing:
        counts = ", ".join(f"{count} {kind}" for kind, count in evaluation.missing.items())
        lines.append(f"- not scored, counted as wrong: {counts}")
    for protocol, subsets in evaluation.scores.items():
        lines += ["", f"## Protocol `{protocol}`", "", "| metric | % | 95 % interval | samples |"]
        lines.append("| --- | ---: | ---: | ---: |")
        for score in subsets["all"]:
            lines.append(f"| {score.name} | {percent(score.value)} | {interval(score)} | {score.samples} |")
        if len(subsets) > 1:
            names = [score.name for score in subsets["all"]][:most_metrics]
            lines += ["", "| subset | samples | " + " | ".join(names) + " |"]
            lines.append("| --- |" + " ---: |" * (len(names) + 1))
            for subset, scores in subsets.items():
                cells = " | ".join(percent(score.value) for score in scores[:most_metrics])
                count = max((score.samples for score in scores), default=0)
                lines.append(f"| {subset} | {count} | {cells} |")
    if evaluation.worst[:worst]:
        lines += ["", "## Worst cases", "", "| IoU | phrase | image | sample |", "| ---: | --- | --- | --- |"]
        for row in evaluation.worst[:worst]:
            phrase = row["phrase"].replace("|", "\\|")
            lines.append(f"| {percent(row['iou'])} | {phrase} | {row['image_key']} | {row['key']} |")
    return "\n".join(lines) + "\n"


def percent(value: float | None) -> str:
    """A share as a percentage with two decimals, "-" if there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def interval(score: Score) -> str:
    """ "low to high", in percent."""
    return f"{percent(score.low)} to {percent(score.high)}"


def _subsets(table: pa.Table) -> dict[str, np.ndarray]:
    """Subset -> row numbers: every fixed one that is not the whole, and the commonest named ones."""
    members: dict[str, list[int]] = {}
    for row, names in enumerate(table.column("subsets").to_pylist()):
        for name in names or []:
            members.setdefault(name, []).append(row)
    kept = sorted(name for name in members if ":" not in name)
    for kind in sorted({name.split(":")[0] for name in members if ":" in name}):
        named = [name for name in members if name.startswith(f"{kind}:")]
        kept += sorted(named, key=lambda name: (-len(members[name]), name))[:NAMED_SUBSETS]
    return {name: np.array(members[name]) for name in kept if len(members[name]) < table.num_rows}


def _worst(table: pa.Table) -> list[dict[str, Any]]:
    """Lowest IoU first, the largest unions first among equals; only what has a prediction."""
    scored = table.filter(table.column("iou").is_valid())
    order = pc.sort_indices(
        scored, sort_keys=[("iou", "ascending"), ("union", "descending"), ("key", "ascending")]
    )
    columns = ["key", "shard", "image_key", "image", "phrase", "has_target", "iou", "score"]
    return list(scored.take(order[:WORST]).select(columns).to_pylist())


def _plain(score: Score) -> dict[str, Any]:
    fields = asdict(score)
    del fields["name"]
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in fields.items()
    }
