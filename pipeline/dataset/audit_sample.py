"""The sample of an audit: which phrases are drawn and how often one draw is expected to be each of them.

OUTPUT/audits/<UTC time>-<random>.parquet holds one row a phrase that was drawn, in the order of the queue.
Draws are independent and with replacement: a phrase that was drawn twice is looked at once and counts twice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.store import Store
from pipeline.dataset.threshold_guarantee import CANDIDATES, Sample, cautious, passing
from sspsam.errors import DataError

FOLDER: Final = "audits"
SCHEMA: Final = pa.schema(
    [
        ("shard", pa.string()),
        ("key", pa.string()),
        ("phrase", pa.string()),
        ("position", pa.int32()),  # among the image's phrases, from 0
        ("p_correct", pa.float32()),
        ("cell", pa.string()),
        ("draws", pa.int32()),  # how often it was drawn
        ("rate", pa.float64()),  # expected share of all draws
    ]
)

#: Shares of the draws: of the masks that a threshold may keep, of other masks, of phrases without a target.
SHARES: Final = {"likely kept": 0.8, "unlikely kept": 0.1, "no target": 0.1}


@dataclass(frozen=True)
class Cell:
    """A part of the population, drawn from evenly. size: phrases. high: its highest p_correct."""

    name: str
    size: int
    high: float
    rate: float


def draw(
    p: np.ndarray, has_target: np.ndarray, budget: int, precision: float, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray, list[Cell]]:
    """(budget,) indices of phrases, (N,) names of their cells, and the cells, of a population.

    p: (N,) float32, p_correct; NaN (unknown) counts as 0.

    Masks above the lowest threshold that has an even chance to pass are drawn most, and
    evenly, because the guarantee rests on them; the others are for rates over everything.
    """
    p = np.nan_to_num(p)
    floor = likely_threshold(p[has_target], SHARES["likely kept"] * budget, precision, confidence)
    names = np.where(has_target, np.where(p >= floor, "likely kept", "unlikely kept"), "no target")
    rate = np.zeros(len(p))
    there = [name for name in SHARES if (names == name).any()]
    whole = sum(SHARES[name] for name in there)
    cells = []
    for name in there:
        at = names == name
        each = SHARES[name] / whole / int(at.sum())
        rate[at] = each
        cells.append(Cell(name, int(at.sum()), float(p[at].max()), each))
    return np.random.default_rng(seed).choice(len(p), budget, p=rate / rate.sum()), names, cells


def likely_threshold(p: np.ndarray, draws: float, precision: float, confidence: float) -> float:
    """The lowest threshold with an even chance to pass by so many draws, or the one with the best chance."""
    if not len(p):
        return 0.0
    ordered = np.sort(p.astype(float))[::-1]
    mean = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    places = np.unique(np.ceil(np.linspace(0, len(p), CANDIDATES + 1)[1:]).astype(int)) - 1
    chances = [passing(int(draws), cautious(mean[at]), precision, confidence) for at in places]
    even = [at for at, chance in zip(places, chances, strict=True) if chance >= 0.5]
    return float(ordered[even[-1] if even else places[int(np.argmax(chances))]])


def sample_of(p: np.ndarray, rate: np.ndarray, right: np.ndarray, cells: list[Cell]) -> Sample:
    """The labelled draws; the phrases without a target are no part of what a threshold keeps."""
    kept = tuple((cell.rate, cell.high) for cell in cells if cell.name != "no target")
    return Sample(np.nan_to_num(p).astype(np.float32), right, rate, kept)


@dataclass(frozen=True)
class Audit:
    """An audit that was read: its rows (SCHEMA), its cells, and what it was drawn from."""

    name: str
    rows: pa.Table
    cells: list[Cell]
    told: Mapping[str, Any]

    @property
    def draws(self) -> np.ndarray:
        return np.asarray(self.rows["draws"])

    def labelled(self, right: np.ndarray) -> Sample:
        """Its draws on phrases with a target as a sample; right: (rows,) bool."""
        at = np.asarray(self.rows["cell"].to_pylist()) != "no target"
        again = np.repeat(np.flatnonzero(at), self.draws[at])
        p, rate = (np.asarray(self.rows[name])[again] for name in ("p_correct", "rate"))
        whole = sum(cell.rate * cell.size for cell in self.cells if cell.name != "no target")
        cells = [Cell(cell.name, cell.size, cell.high, cell.rate / whole) for cell in self.cells]
        return sample_of(p, rate / whole, right[again], cells)


def write_audit(store: Store, rows: pa.Table, cells: list[Cell], told: Mapping[str, Any]) -> str:
    """Store an audit; returns its name."""
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    said = json.dumps({**told, "cells": [vars(cell) for cell in cells]})
    store.put_table(f"{FOLDER}/{name}.parquet", rows.replace_schema_metadata({"sspsam.audit": said}))
    return name


def read_audits(dataset: AnnotationDataset) -> list[Audit]:
    """All audits of a dataset, the oldest first. Raises DataError naming a file that is none."""
    found = []
    for file in dataset.list_files(FOLDER):
        try:
            rows = pq.read_table(dataset.fs.open(file.path, "rb"))
            told = json.loads((rows.schema.metadata or {})[b"sspsam.audit"])
            cells = [Cell(**cell) for cell in told.pop("cells")]
            found.append(
                Audit(
                    file.path.rpartition("/")[2].removesuffix(".parquet"),
                    rows.select(SCHEMA.names),
                    cells,
                    told,
                )
            )
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{dataset.locate(file.path)}: not an audit ({error}); move it out of audits/"
            ) from error
    return found
