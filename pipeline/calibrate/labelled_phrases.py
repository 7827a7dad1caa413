"""Labelled phrases of a dataset: their features, and whether they are right by truth or by verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.dataset.calibration import DERIVED, PROBABILITIES, image_name, word_counts
from pipeline.dataset.image_rows import Rows
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import Reviews
from pipeline.dataset.truth import Truth, make_table
from sspsam.errors import DataError


@dataclass(frozen=True)
class Labels:
    """N labelled phrases.

    features: (N, F) float64, NaN where null, in the order of `names`. has_target: (N,) bool.
    quality: (N,) float64, the IoU with the truth (1 where nothing was drawn and nothing is there), or 1 and 0
    by a verdict. images: (N,) int, the same for phrases of one image. used: `image_name` of each image.
    graded: whether `quality` is an IoU, so that other thresholds than 0.5 have a meaning.
    """

    names: tuple[str, ...]
    features: np.ndarray
    has_target: np.ndarray
    quality: np.ndarray
    images: np.ndarray
    used: tuple[str, ...]
    graded: bool

    def wrong(self) -> np.ndarray:
        """(N,) bool: not right at an IoU of 0.5."""
        return self.quality < 0.5


def read_labels(index: Index, truth: str | None, *, memory_mb: int, threads: int) -> Labels:
    """The labelled phrases of the dataset in `index`, by the dataset `truth`, or by its own verdicts if None.

    Flagged phrases, and verdicts on whole images, are no labels. Raises DataError if there is none.
    """
    if truth is not None:
        make_table(index)
        opened, rows = Truth(index, truth, memory_mb=memory_mb, threads=threads), Rows(index, threads=threads)
        try:
            opened.compare(rows)
        finally:
            opened.close()
            rows.close()
        source, quality = "truth t using (image_id, position)", "t.iou"
    else:
        Reviews(index).load()
        source = "verdicts v using (image_id, phrase_id) where v.verdict in ('accept', 'reject')"
        quality = "(v.verdict = 'accept')::float"
    signals = [name for name in index.dataset.signals() if name not in PROBABILITIES]
    columns = ", ".join(f"m.{name}" for name in (*signals, "area_fraction", "target_pixels"))
    with index.cursor() as cursor:
        found: Any = cursor.sql(
            f'select image_id, i.shard, i."key", p.phrase, m.has_target, {quality} as quality, {columns}'
            " from masks m join images i on i.id = image_id join phrases p using (phrase_id)"
            f" join {source} order by image_id, position"
        ).to_arrow_table()
    if not found.num_rows:
        raise DataError(
            f"{index.dataset.url} has no verdict on a phrase: review some in `sspsam view`,"
            " or give --truth a dataset of true masks"
        )
    values = {name: found[name].to_pandas().to_numpy(float) for name in (*signals, *DERIVED[:2])}
    known = tuple(name for name in signals if not np.isnan(values[name]).all())
    values["words"] = word_counts(found["phrase"].to_pylist())
    names = (*known, *DERIVED)
    images = {
        image_name(*place) for place in zip(*(found[n].to_pylist() for n in ("shard", "key")), strict=True)
    }
    return Labels(
        names=names,
        features=np.stack([values[name] for name in names], axis=1),
        has_target=np.asarray(found["has_target"]),
        quality=np.asarray(found["quality"], dtype=float),
        images=np.asarray(found["image_id"]),
        used=tuple(sorted(images)),
        graded=truth is not None,
    )
