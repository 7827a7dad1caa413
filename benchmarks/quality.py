"""Do the quality signals mean anything? Their rank correlation with true IoU on held-out scenes.

    python -m benchmarks.quality [MODEL] [--scenes 120] [--split heldout]

For each signal of a mask, and for `blend`, prints Spearman's rank correlation with the IoU of that mask
and its truth, over every phrase for which something was drawn (phrases with nothing there included: their
IoU is 0). Also how the mean IoU rises when the worst third by a signal is left out, which is what people
filter for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sspsam import SSPSAM, Segmenter
from sspsam.scenes import SPLITS, scenes
from sspsam.schema import SIGNALS


def blend(signals: dict[str, float]) -> float:
    """Geometric mean of what the model says about itself in four different ways."""
    parts = [max(signals[name], 0.0) for name in ("score", "predicted_iou", "stability", "box_agreement")]
    return float(np.prod(parts) ** (1 / len(parts)))


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the least; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rank correlation; nan if one of them is constant."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def measure(
    source: str, count: int, split: str
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Signals by name and true IoU, one entry a drawn mask."""
    segmenter = Segmenter(SSPSAM.from_pretrained(source))
    rows: list[dict[str, float]] = []
    ious: list[float] = []
    for scene in scenes(split, 0, count):
        phrases = [phrase.text for phrase in scene.phrases]
        for phrase, mask in zip(scene.phrases, segmenter.segment([scene.image], [phrases])[0], strict=True):
            told = {name: getattr(mask, name) for name in SIGNALS}
            if not mask.has_target or any(value is None for value in told.values()):
                continue
            drawn, true = mask.decode(), scene.mask(phrase)
            rows.append(told | {"blend": blend(told)})
            ious.append(float((drawn & true).sum() / (drawn | true).sum()))
    table = {name: np.array([row[name] for row in rows]) for name in (*SIGNALS, "blend")}
    return table, np.array(ious)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--split", choices=sorted(SPLITS), default="heldout")
    options = parser.parse_args(argv)
    signals, ious = measure(options.model, options.scenes, options.split)
    table = Table("signal", "Spearman with IoU", "mean IoU, all", "without the worst third")
    for name, values in signals.items():
        kept = ious[values >= np.quantile(values, 1 / 3)]
        table.add_row(name, f"{spearman(values, ious):.3f}", f"{ious.mean():.3f}", f"{kept.mean():.3f}")
    Console().print(f"{options.model}: {len(ious)} masks of {options.scenes} scenes ({options.split})")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
