"""A calibration: JSON that says how probable it is that a mask is right, evaluated with numpy alone.

    {"format": "sspsam-calibration", "version": 1, "features": [...], "parts": {"target": PART,
     "no_target": PART}, "labels": {...}, "judged": {...}}

A part serves the phrases with a target, or those without. It is null where there were too few labels, else
boosted regression trees that give a score, and for each probability a step function of the score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.phrase_rows import Batch, add_signals, open_batch
from pipeline.dataset.store import Store
from pipeline.sources.storage import filesystem
from sspsam.errors import ConfigError

FORMAT: Final = "sspsam-calibration"
VERSION: Final = 1
PROBABILITIES: Final = ("p_correct", "p_correct_75")

#: The calibration that `annotate --calibration` applied, in its OUTPUT.
APPLIED: Final = "_p_correct.json"

#: Features beside the signals, for every dataset.
DERIVED: Final = ("area_fraction", "target_pixels", "words")

#: Share of the score in a probability: it orders the masks within a step.
SCORE_SHARE: Final = 0.01


@dataclass(frozen=True)
class Calibration:
    """A calibration file that was read; `where` names it in messages, `sha256` is of its bytes."""

    values: Mapping[str, Any]
    where: str
    sha256: str

    @classmethod
    def load(cls, url: str, storage_options: Mapping[str, Any] | None = None) -> Calibration:
        """Raises ConfigError if the file cannot be read, or is not a calibration of this version."""
        try:
            fs, path = filesystem(url, dict(storage_options or {}))
            return cls.parse(fs.cat_file(path), url)
        except OSError as error:
            raise ConfigError(f"--calibration {url}: cannot be read ({error})") from error

    @classmethod
    def parse(cls, data: bytes, where: str) -> Calibration:
        """Raises ConfigError as `load`."""
        try:
            values = json.loads(data)
            known = values["format"] == FORMAT and values["version"] == VERSION
            _ = values["features"], values["parts"]["target"], values["parts"]["no_target"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"--calibration {where}: is not what `sspsam calibrate` writes") from error
        if not known:
            raise ConfigError(f"--calibration {where}: is of another version; calibrate again")
        return cls(values, where, hashlib.sha256(data).hexdigest())

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.values["features"])

    @cached_property
    def used(self) -> frozenset[str]:
        """Names (`image_name`) of the images whose labels it was learnt from."""
        return frozenset(self.values.get("labels", {}).get("used", ()))

    @classmethod
    def applied(cls, store: Store) -> Calibration:
        """That of an OUTPUT of `annotate --calibration`. Raises ConfigError as `load`."""
        return cls.parse(store.get(APPLIED) or b"", store.path(APPLIED))

    def to_json(self) -> bytes:
        return (json.dumps(self.values, allow_nan=False) + "\n").encode()

    def missing(self, signals: Sequence[str]) -> list[str]:
        """What this needs and `signals` have not."""
        return [name for name in self.features if name not in (*signals, *DERIVED)]

    def require(self, signals: Sequence[str]) -> None:
        """Raise ConfigError unless a dataset that has `signals` has what this needs."""
        if missing := self.missing(signals):
            raise ConfigError(
                f"--calibration {self.where} needs the signal {missing[0]!r}, which the dataset has not:"
                " annotate with the same options as for the dataset that it was learnt from"
            )

    def __call__(self, features: np.ndarray, has_target: np.ndarray) -> dict[str, np.ndarray]:
        """{probability: (N,) float64, NaN where unknown} of (N, F) `features`, NaN where null."""
        found = {name: np.full(len(features), np.nan) for name in PROBABILITIES}
        for name, at in (("target", has_target), ("no_target", ~has_target)):
            for probability, values in predict(self.values["parts"][name], features[at]).items():
                found[probability][at] = values
        return found

    def apply(self, table: pa.Table) -> pa.Table:
        """Rows of a dataset with the probabilities as fields of their annotations."""
        batch = open_batch(table)
        return add_signals(table, self(features_of(batch, self.features), batch.has_target))


def features_of(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """(P, F) float64 of the batch's P phrases, NaN where null."""
    masks, columns = batch.masks, []
    for name in names:
        if name == "area_fraction":
            pixels = batch.sizes.prod(axis=1).astype(float)[batch.row_of]
            values = _floats(masks["area"]) / np.where(pixels > 0, pixels, np.nan)
        elif name == "words":
            values = word_counts(masks["phrase"].to_pylist())
        else:
            values = _floats(masks[name])
        columns.append(values.astype(np.float32).astype(float))  # as the index holds them
    return np.stack(columns, axis=1) if columns else np.zeros((masks.num_rows, 0))


def word_counts(phrases: Sequence[str | None]) -> np.ndarray:
    """(P,) float64: words of each phrase."""
    return np.array([len((phrase or "").split()) for phrase in phrases], dtype=float)


def predict(part: Mapping[str, Any] | None, features: np.ndarray) -> dict[str, np.ndarray]:
    """{probability: (N,) float64} of (N, F) features; of no part, nothing."""
    if part is None or not len(features):
        return {}
    score = np.full(len(features), float(part["baseline"]))
    for tree in part["trees"]:
        score += evaluate_tree(tree, features)
    return {name: on_curve(curve, score) for name, curve in part["curves"].items()}


def on_curve(curve: Mapping[str, Sequence[float]], score: np.ndarray) -> np.ndarray:
    """Probability of a score, by the step function `curve` and a little of the score itself."""
    steps = np.interp(score, curve["x"], curve["y"])
    return (1 - SCORE_SHARE) * steps + SCORE_SHARE * np.clip(score, 0.0, 1.0)


def evaluate_tree(tree: Mapping[str, Sequence[Any]], features: np.ndarray) -> np.ndarray:
    """(N,) float64: the value of the leaf that each row of (N, F) falls into; a leaf's `left` is -1."""
    feature, left, right = (np.asarray(tree[name], dtype=int) for name in ("feature", "left", "right"))
    threshold, missing = np.asarray(tree["threshold"]), np.asarray(tree["missing_left"], dtype=bool)
    node: Any = np.zeros(len(features), dtype=int)
    rows = np.arange(len(features))
    while (inner := left[node] >= 0).any():
        values = features[rows, feature[node]]
        goes_left = np.where(np.isnan(values), missing[node], values <= threshold[node])
        node = np.where(inner, np.where(goes_left, left[node], right[node]), node)
    return np.asarray(tree["value"])[node]


def image_name(shard: str, key: str) -> str:
    """A short name of an image, by which a calibration remembers it."""
    return hashlib.blake2b(f"{shard}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column.cast(pa.float64()), float("nan")))
