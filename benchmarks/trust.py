"""Are the labels to be trusted? Which signals rank masks by their true IoU, on scenes never trained on.

    python -m benchmarks.trust [MODEL] [--heldout 400] [--style 200] [--names 100] [--table trust] [--no-loop]

The first run draws masks with every signal (`SegmenterConfig.verify` full) and keeps them in the folder
TABLE, a Parquet file for 50 scenes: one row a phrase, with its true IoU. Later runs read what is there. It
needs no Ray and takes the GPU if there is one.

Prints for each split Spearman's rank correlation of each signal with the true IoU over the masks that are not
empty (masks of absent phrases included: their IoU is 0), and the area under the risk-coverage curve: the
share of wrong masks (IoU below 0.5) among the best by that signal, averaged over all shares kept. The same
for extremely randomised trees over all signals, by ten-fold cross-validation over images. The last three
lines are `spearman`, then those of `benchmarks.guarantee` and of `benchmarks.improve`, which trains for half
an hour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata, spearmanr
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

from sspsam import SSPSAM, Segmenter
from sspsam.inference.results import SegmenterConfig
from sspsam.scenes import scenes
from sspsam.schema import SIGNALS, VERIFICATION_SIGNALS

#: Scenes of a file of the table.
PORTION = 50
#: What the trees are given: signals, and the size of the mask.
FEATURES = (*SIGNALS, *VERIFICATION_SIGNALS["full"], "area", "target_pixels")
_TREES: dict[str, Any] = {"n_estimators": 100, "max_features": 0.5, "random_state": 0}


def measure(segmenter: Segmenter, split: str, start: int, count: int) -> pd.DataFrame:
    """A row a phrase of some scenes, signals and true `iou`, 1 where nothing is there and none was drawn."""
    made = list(scenes(split, start, count))
    asked = [[phrase.text for phrase in scene.phrases] for scene in made]
    rows = []
    for scene, masks in zip(made, segmenter.segment([scene.image for scene in made], asked), strict=True):
        for phrase, mask in zip(scene.phrases, masks, strict=True):
            drawn, true = mask.decode() & mask.has_target, scene.mask(phrase)
            union = (drawn | true).sum()
            signals = {name: getattr(mask, name) for name in SIGNALS} | dict(mask.verification)
            row = {"split": split, "image": scene.key, "phrase": phrase.text, "kind": phrase.kind}
            row |= {"iou": float((drawn & true).sum() / union) if union else 1.0}
            row |= {"is_empty_truth": not true.any(), "is_empty_prediction": not mask.has_target}
            rows.append(row | {"area": mask.area, "target_pixels": mask.target_pixels} | signals)
    return pd.DataFrame(rows).astype(dict.fromkeys(FEATURES, float))


def table(model: str, folder: Path, split: str, count: int) -> pd.DataFrame:
    """The table of the first `count` scenes of a split: read where it is there, else measured and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    segmenter: Segmenter | None = None
    parts = []
    for start in range(0, count, PORTION):
        path = folder / f"{split}-{start:05d}.parquet"
        if not path.exists():
            segmenter = segmenter or Segmenter(SSPSAM.from_pretrained(model), SegmenterConfig(verify="full"))
            measured = measure(segmenter, split, start, PORTION)
            measured.to_parquet(path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        parts.append(pd.read_parquet(path))
    return pd.concat(parts, ignore_index=True)


def risk_coverage(order_by: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk-coverage curve: mean over all n of the share of `wrong` among the n highest."""
    kept = wrong[np.argsort(-order_by, kind="stable")]
    return float(np.mean(np.cumsum(kept) / np.arange(1, len(kept) + 1)))


def by_trees(masks: pd.DataFrame, target: np.ndarray, trees: Any, **how: Any) -> np.ndarray:
    """Predictions for each mask by trees that saw no mask of its image."""
    features = masks[list(FEATURES)].to_numpy(float)
    folds = GroupKFold(10)
    return np.asarray(cross_val_predict(trees, features, target, groups=masks["image"], cv=folds, **how))


def spearman(masks: pd.DataFrame, name: str) -> str:
    """Prints the table of one split; returns what it comes to in a line."""
    masks = masks[~masks["is_empty_prediction"]].reset_index(drop=True)
    iou = masks["iou"].to_numpy()
    wrong = (iou < 0.5).astype(float)
    console, shown = Console(), Table("signal", "Spearman with IoU", "area under risk-coverage", "known")
    found = {}
    for signal in (*SIGNALS, *VERIFICATION_SIGNALS["full"]):
        values = masks[signal] * (-1 if signal == "rival_iou" else 1)
        known = values.notna().to_numpy()
        rank = float(spearmanr(values[known], iou[known]).statistic)
        area = risk_coverage(values.fillna(values.min() - 1).to_numpy(), wrong)
        found[signal] = rank, area
        shown.add_row(signal, f"{rank:.3f}", f"{area:.4f}", f"{known.mean():.1%}")
    ranked = by_trees(masks, rankdata(iou) / len(iou), ExtraTreesRegressor(min_samples_leaf=2, **_TREES))
    right = by_trees(
        masks, wrong == 0, ExtraTreesClassifier(min_samples_leaf=5, **_TREES), method="predict_proba"
    )[:, 1]
    rank, area = float(spearmanr(ranked, iou).statistic), risk_coverage(right, wrong)
    shown.add_row("trees, all signals", f"{rank:.3f}", f"{area:.4f}", "100.0%")
    console.print(
        f"{name}: {len(masks)} masks of {masks['image'].nunique()} scenes, {wrong.mean():.1%} wrong"
    )
    console.print(shown)
    single = {signal: found[signal] for signal in SIGNALS}
    best = max(single, key=lambda signal: single[signal][0])
    least = min(single, key=lambda signal: single[signal][1])
    return (
        f"{name} {rank:.3f} (best single of --verify none: {best} {single[best][0]:.3f}), risk-coverage area"
        f" {area:.4f} = {area / single[least][1]:.2f} of {least}'s {single[least][1]:.4f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--heldout", type=int, default=400, help="scenes of the style that was trained on")
    parser.add_argument("--style", type=int, default=200, help="scenes in a drawing style never trained on")
    parser.add_argument("--names", type=int, default=100, help="scenes of things never trained on")
    parser.add_argument("--table", type=Path, default=Path("trust"), help="folder of the table of signals")
    parser.add_argument("--no-loop", action="store_true", help="leave out what trains")
    parser.add_argument("--device", default="cpu", help="that trains")
    options = parser.parse_args(argv)
    counts = {"heldout": options.heldout, "heldout-style": options.style, "heldout-names": options.names}
    tables = {split: table(options.model, options.table, split, n) for split, n in counts.items() if n}
    said = "; ".join([spearman(masks, split) for split, masks in tables.items()])
    from benchmarks import guarantee, improve  # they read the tables of this one

    print(f"spearman: {said}")
    guarantee.report(guarantee.populations(tables), 500, 200, 0.95)
    if not options.no_loop:
        improve.main([options.model, "--device", options.device, "--work", str(options.table / "improve")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
