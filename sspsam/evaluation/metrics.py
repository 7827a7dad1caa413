"""The field's metrics over a per-sample table.

Every metric is a ratio of two sums over samples, so a metric is a pair of columns: aggregate values,
subsets and bootstrap intervals all come from the same columns.

Sources: RES (oIoU, mIoU, Pr@X): arXiv 1603.06180 and successors. GRES (gIoU, cIoU, N-acc, T-acc):
arXiv 2306.00968 and its code, ReLA. PhraseCut: arXiv 2008.01187 and its evaluator. `authors`:
`engine.py` and `metric/mask_op.py` of github.com/WayneTomas/SSP-SAM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from sspsam.errors import ConfigError
from sspsam.evaluation.table import column, flags, valid

THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Metric:
    """A metric as its terms: value = sum(numerator) / sum(denominator), in 0..1.

    Attributes:
        name: as papers write it.
        numerator, denominator: float64 (N,), a term a sample.
    """

    name: str
    numerator: np.ndarray
    denominator: np.ndarray


@dataclass(frozen=True)
class _Masks:
    """Columns that the mask metrics of one protocol need, (N,) each."""

    has_target: np.ndarray
    predicted_target: np.ndarray
    answered: np.ndarray
    intersection: np.ndarray
    union: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """float64 (N,); 0 where the union is empty."""
        safe = np.where(self.union > 0, self.union, 1.0)
        return np.where(self.union > 0, self.intersection / safe, 0.0)


def res(table: pa.Table) -> list[Metric]:
    """Referring expression segmentation: every phrase has a target; what was drawn is scored.

    oIoU, mIoU, Pr@0.5 ... Pr@0.9 (IoU >= threshold), Acc@0.5 of the boxes.
    """
    masks = _drawn(table)
    one = np.ones(table.num_rows)
    return [
        Metric("oIoU", masks.intersection, masks.union),
        Metric("mIoU", masks.iou, one),
        *_precision(masks.iou, one, strict=False),
        _boxes(table),
    ]


def gres(table: pa.Table) -> list[Metric]:
    """Generalized referring expression segmentation: a phrase may have no target.

    Where the model says "no target" its mask is empty. gIoU, cIoU, N-acc and T-acc over all samples;
    mIoU, Pr@ and the boxes' Acc@0.5 over those with a target.
    """
    masks = _decided(table)
    target = masks.has_target.astype(np.float64)
    return [
        *_generalized(masks),
        Metric("mIoU", masks.iou * target, target),
        *_precision(masks.iou, target, strict=False),
        _boxes(table),
    ]


def phrasecut(table: pa.Table) -> list[Metric]:
    """PhraseCut's evaluator: mean and cumulative IoU, Pr@ with IoU strictly above the threshold.

    A missing prediction counts as an empty mask: 0, as that evaluator assumes for missing tasks; it
    leaves them out of the cumulative IoU, here their area is in its union.
    """
    masks = _drawn(table)
    one = np.ones(table.num_rows)
    return [
        Metric("mIoU", masks.iou, one),
        Metric("cIoU", masks.intersection, masks.union),
        *_precision(masks.iou, one, strict=True),
        _boxes(table),
    ]


def authors(table: pa.Table) -> list[Metric]:
    """As the authors' code scores, at `score_size` in the padded square, one sample a batch.

    An empty truth: fewer than `min_target_pixels` (50) predicted pixels make IoU 1 and add nothing to
    the sums, else IoU 0 and the prediction is added to the union. Pr@ and Acc@0.5 are over all
    samples, those without a target included. N-acc and T-acc are by pixels; those "as coded" follow
    the code's counters, which take any sample of IoU exactly 1 for "predicted empty", and a target
    only with 0 < IoU < 1 for
    found. `docs/evaluation.md` says what each quirk changes.
    """
    truth = column(table, "authors_area")
    predicted = column(table, "authors_predicted_area")
    known, found = valid(table, "authors_area"), valid(table, "authors_predicted_area")
    has_target = np.where(known, truth > 0, flags(table, "has_target"))
    empty = ~has_target & found & flags(table, "authors_empty")
    union = np.where(
        has_target, np.where(found, column(table, "authors_union"), truth), np.where(empty, 0.0, predicted)
    )
    masks = _Masks(
        has_target=has_target,
        predicted_target=np.where(has_target, predicted > 0, ~empty),
        answered=found,
        intersection=column(table, "authors_intersection"),
        union=union,
    )
    iou = np.where(has_target, masks.iou, empty)
    one = np.ones(table.num_rows)
    boxes = column(table, "authors_box_iou")
    metrics = [
        Metric("mIoU (gIoU)", iou, one),
        Metric("oIoU (cIoU)", masks.intersection, masks.union),
        *_precision(iou, one, strict=False),
        Metric("Acc@0.5", (boxes >= 0.5).astype(np.float64), one),
    ]
    if not has_target.all():
        metrics += list(_decisions(masks))
        target, none = has_target.astype(np.float64), (~has_target).astype(np.float64)
        metrics += [
            Metric("N-acc as coded", (iou == 1).astype(np.float64), none),
            Metric("T-acc as coded", ((iou > 0) & (iou < 1)).astype(np.float64), target),
        ]
    return metrics


TASKS: Final[dict[str, Callable[[pa.Table], list[Metric]]]] = {
    "res": res,
    "gres": gres,
    "phrasecut": phrasecut,
}


def task_metrics(table: pa.Table, task: str, protocol: str) -> list[Metric]:
    """The metrics of a task ("res", "gres", "phrasecut") under a protocol ("standard", "authors").

    Raises:
        ConfigError: there is no such task or protocol.
    """
    if task not in TASKS:
        raise ConfigError(f"--task {task}: there is no such task; there are {', '.join(TASKS)}")
    if protocol == "authors":
        return authors(table)
    if protocol != "standard":
        raise ConfigError(f"--protocol {protocol}: choose standard, authors or both")
    return TASKS[task](table)


def _drawn(table: pa.Table) -> _Masks:
    """What the model drew, whatever it decided; nothing where there is no prediction."""
    found = valid(table, "predicted_area")
    return _Masks(
        has_target=flags(table, "has_target"),
        predicted_target=flags(table, "predicted_has_target"),
        answered=found,
        intersection=column(table, "intersection"),
        union=np.where(found, column(table, "union"), column(table, "area")),
    )


def _decided(table: pa.Table) -> _Masks:
    """As `_drawn`, and empty where the model decided that there is no target."""
    drawn = _drawn(table)
    keeps = drawn.predicted_target
    return replace(
        drawn,
        intersection=np.where(keeps, drawn.intersection, 0.0),
        union=np.where(keeps, drawn.union, column(table, "area")),
    )


def _generalized(masks: _Masks) -> Iterator[Metric]:
    """gIoU, cIoU, N-acc, T-acc. A correct "no target" has IoU 1 and adds nothing to cIoU's sums."""
    right = ~masks.has_target & masks.answered & ~masks.predicted_target
    iou = np.where(masks.has_target, masks.iou, right)
    yield Metric("gIoU", iou, np.ones(len(iou)))
    yield Metric("cIoU", masks.intersection, masks.union)
    yield from _decisions(masks)


def _decisions(masks: _Masks) -> Iterator[Metric]:
    """N-acc = TP / (TP + FN) over samples without a target, T-acc = TN / (TN + FP) over those with.

    No prediction is a wrong one on either side.
    """
    none, target = ~masks.has_target, masks.has_target
    said_none = masks.answered & ~masks.predicted_target
    said_target = masks.answered & masks.predicted_target
    yield Metric("N-acc", (none & said_none).astype(np.float64), none.astype(np.float64))
    yield Metric("T-acc", (target & said_target).astype(np.float64), target.astype(np.float64))


def _precision(iou: np.ndarray, weight: np.ndarray, *, strict: bool) -> Iterator[Metric]:
    for threshold in THRESHOLDS:
        hits = iou > threshold if strict else iou >= threshold
        yield Metric(f"Pr@{threshold}", hits * weight, weight)


def _boxes(table: pa.Table) -> Metric:
    """Acc@0.5 of the box head over the samples whose box is known."""
    known = flags(table, "has_target").astype(np.float64)
    hits = (column(table, "box_iou") >= 0.5).astype(np.float64)
    return Metric("Acc@0.5", hits * known, known)
