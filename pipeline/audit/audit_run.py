"""`audit`: draws the sample that the queue of `view` shows, and makes rates of its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.audit.audit_rates import agreement, rates
from pipeline.dataset.annotation_dataset import AnnotationDataset, read_every_review
from pipeline.dataset.audit_sample import SCHEMA, Audit, draw, read_audits, write_audit
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import decided, votes_of
from pipeline.dataset.store import Store
from sspsam.errors import ConfigError, DataError


def begin(
    dataset: AnnotationDataset, budget: int, *, precision: float, confidence: float, seed: int, memory_mb: int
) -> Audit:
    """The audit to go on with: the newest one whose phrases lack verdicts, else a new one of `budget` draws.

    Raises ConfigError if the dataset has no p_correct, DataError if it has no phrases.
    """
    audits = read_audits(dataset)
    given = votes_of(read_every_review(dataset))
    if audits and any(place not in given for place in places(audits[-1])):
        return audits[-1]
    if "p_correct" not in dataset.signals():
        raise ConfigError(
            f"{dataset.url} has no p_correct to draw by:"
            f" sspsam calibrate {dataset.url} --calibration FILE --to SCORED, then audit SCORED"
        )
    index = Index(dataset, memory_mb=memory_mb)
    try:
        index.refresh()
        if problems := index.progress().problems:
            raise DataError(problems[0][1])
        rows, cells = _drawn(index, budget, precision, confidence, seed + len(audits))
    finally:
        index.close()
    told = {"budget": budget, "precision": precision, "confidence": confidence, "seed": seed}
    name = write_audit(Store(dataset.url, dataset.storage_options), rows, cells, told)
    return Audit(name, rows, cells, told)


def _drawn(
    index: Index, budget: int, precision: float, confidence: float, seed: int
) -> tuple[pa.Table, list[Any]]:
    """The rows (SCHEMA) and cells of a new audit."""
    found = index.query("select image_id, position, p_correct, has_target from masks order by 1, 2")
    if not found:
        raise DataError(f"{index.dataset.url} has no phrase to audit")
    images, positions, p, has_target = (np.array(column) for column in zip(*found, strict=True))
    values = p.astype(np.float32)
    drawn, names, cells = draw(values, has_target.astype(bool), budget, precision, confidence, seed)
    chosen, times = np.unique(drawn, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(chosen))  # the queue tells nothing of a phrase
    rate = {cell.name: cell.rate for cell in cells}
    rows = []
    for at, draws in zip(chosen[order].tolist(), times[order].tolist(), strict=True):
        ((shard, key, phrase),) = index.query(
            'select shard, "key", phrase from images i join masks m on m.image_id = i.id'
            " join phrases using (phrase_id) where i.id = ? and position = ?",
            [int(images[at]), int(positions[at])],
        )
        cell = str(names[at])
        place = (shard, key, phrase, int(positions[at]), float(values[at]), cell, draws, rate[cell])
        rows.append(dict(zip(SCHEMA.names, place, strict=True)))
    return pa.Table.from_pylist(rows, SCHEMA), cells


def places(audit: Audit) -> list[tuple[str, str, str]]:
    """(shard, key, phrase) of its rows."""
    return list(zip(*(audit.rows[name].to_pylist() for name in ("shard", "key", "phrase")), strict=True))


def summarise_audits(
    dataset: AnnotationDataset, audits: Sequence[Audit], confidence: float
) -> dict[str, Any]:
    """What the verdicts on all audits say: rates by stratum, agreement of reviewers, time.

    Phrases without a verdict, and flagged ones, are left out and counted.
    """
    reviews = read_every_review(dataset)
    given = votes_of(reviews)
    rows = [{**row, "audit": audit.name} for audit in audits for row in audit.rows.to_pylist()]
    for row in rows:
        row["right"] = decided(given.get((row["shard"], row["key"], row["phrase"]), {}))
    seconds = [value for value in reviews["seconds"].to_pylist() if value is not None]
    found: Mapping[str, Any] = {
        "phrases": len(rows),
        "draws": sum(row["draws"] for row in rows),
        "decided": sum(row["right"] is not None for row in rows),
        "rates": rates(rows, [cell for audit in audits for cell in audit.cells], confidence),
        "reviewers": agreement(given),
        "median_seconds": float(np.median(seconds)) if seconds else None,
    }
    return dict(found)
