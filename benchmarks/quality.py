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
import pandas as pd
from rich.console import Console
from rich.table import Table

from sspsam import SSPSAM, Segmenter
from sspsam.scenes import SPLITS, scenes
from sspsam.schema import SIGNALS


def blend(signals: dict[str, float]) -> float:
    """Geometric mean of what the model says about itself in four different ways."""
    parts = [max(signals[name], 0.0) for name in ("score", "predicted_iou", "stability", "box_agreement")]
    return float(np.prod(parts) ** (1 / len(parts)))


def measure(source: str, count: int, split: str) -> pd.DataFrame:
    """Signals by name and the true `iou`, a row per drawn mask."""
    segmenter = Segmenter(SSPSAM.from_pretrained(source))
    rows: list[dict[str, float]] = []
    for scene in scenes(split, 0, count):
        phrases = [phrase.text for phrase in scene.phrases]
        for phrase, mask in zip(scene.phrases, segmenter.segment([scene.image], [phrases])[0], strict=True):
            told = {name: getattr(mask, name) for name in SIGNALS}
            if not mask.has_target or any(value is None for value in told.values()):
                continue
            drawn, true = mask.decode(), scene.mask(phrase)
            rows.append(told | {"blend": blend(told), "iou": (drawn & true).sum() / (drawn | true).sum()})
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--split", choices=sorted(SPLITS), default="heldout")
    options = parser.parse_args(argv)
    masks = measure(options.model, options.scenes, options.split)
    correlation = masks.corr(method="spearman")["iou"]
    table = Table("signal", "Spearman with IoU", "mean IoU, all", "without the worst third")
    for name in (*SIGNALS, "blend"):
        kept = masks["iou"][masks[name] >= masks[name].quantile(1 / 3)]
        table.add_row(name, f"{correlation[name]:.3f}", f"{masks['iou'].mean():.3f}", f"{kept.mean():.3f}")
    Console().print(f"{options.model}: {len(masks)} masks of {options.scenes} scenes ({options.split})")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
