"""Learning: boosted trees with monotone constraints give a score, isotonic regression its probability.

The trees regress the IoU (or the verdict), so that their score orders masks beyond right and wrong; the
isotonic curves are learnt from scores of masks whose image the trees did not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sspsam.schema import SIGNALS

#: Fewer labels than this of a kind (with a target, without) teach nothing.
MIN_LABELS: Final = 40
FOLDS: Final = 5
THRESHOLDS: Final = {"p_correct": 0.5, "p_correct_75": 0.75}

#: A signal must have this rank correlation with the label before its direction is taken from the labels.
_MIN_CORRELATION: Final = 0.1


def fit_part(
    names: Sequence[str],
    features: np.ndarray,
    quality: np.ndarray,
    images: np.ndarray,
    graded: bool,
    up: bool,
) -> dict[str, Any] | None:
    """A part of a calibration (see `pipeline.dataset.calibration`); None with too few labels.

    Args:
        features: (N, F), NaN where null. quality: (N,) from 0 to 1. images: (N,) groups.
        graded: whether `quality` is an IoU. up: whether SIGNALS mean better masks the higher they are.
    """
    if len(quality) < MIN_LABELS or len(np.unique(images)) < FOLDS:
        return None
    signs = directions(names, features, quality, up)
    score = np.empty(len(quality))
    for train, test in folds(images):
        part = _trees(features[train], quality[train], signs)
        score[test] = _score(part, features[test])
    part = _trees(features, quality, signs)
    wanted = THRESHOLDS if graded else {"p_correct": 0.5}
    return {**part, "curves": {name: _curve(score, quality >= least) for name, least in wanted.items()}}


def folds(images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """FOLDS pairs of (rows to learn from, rows to test on); no image is in both."""
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(FOLDS).split(images, groups=images))


def directions(names: Sequence[str], features: np.ndarray, quality: np.ndarray, up: bool) -> list[int]:
    """1 or -1 for features that may only raise or lower the score, 0 for those that may do both."""
    from scipy.stats import spearmanr

    signs = []
    for name, column in zip(names, features.T, strict=True):
        known = ~np.isnan(column)
        sign = 1 if up and name in SIGNALS else 0
        free = name in ("area_fraction", "target_pixels", "words")
        if not sign and not free and len(np.unique(column[known])) > 1 and len(np.unique(quality[known])) > 1:
            correlation = float(spearmanr(column[known], quality[known]).statistic)
            sign = int(np.sign(correlation)) if abs(correlation) >= _MIN_CORRELATION else 0
        signs.append(sign)
    return signs


def booster(rows: int, signs: Sequence[int]) -> Any:
    """The regression, for a number of labels."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=150 if rows >= 1000 else 60,
        learning_rate=0.05,
        max_leaf_nodes=8 if rows >= 1000 else 4,
        min_samples_leaf=20 if rows >= 1000 else 10,
        l2_regularization=1.0,
        monotonic_cst=list(signs),
        early_stopping=False,
        random_state=0,
    )


def _trees(features: np.ndarray, quality: np.ndarray, signs: Sequence[int]) -> dict[str, Any]:
    from threadpoolctl import threadpool_limits

    # scikit-learn cannot bin a column without values; nothing splits on one of zeros.
    empty = np.isnan(features).all(axis=0)
    features = np.where(empty, 0.0, features)
    # Few rows are not worth several threads, which wait for each other busily where cores are shared.
    with threadpool_limits(1 if len(quality) < 20_000 else None):
        return as_json(booster(len(quality), signs).fit(features, quality))


def as_json(model: Any) -> dict[str, Any]:
    """`baseline` and `trees` of a fitted HistGradientBoostingRegressor, for `calibration.predict`."""
    trees = []
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            {
                "feature": nodes["feature_idx"].tolist(),
                # A split of the known from the missing has an infinite threshold, which JSON has not.
                "threshold": np.nan_to_num(nodes["num_threshold"]).tolist(),
                "missing_left": nodes["missing_go_to_left"].tolist(),
                "left": np.where(leaf, -1, nodes["left"].astype(int)).tolist(),
                "right": np.where(leaf, -1, nodes["right"].astype(int)).tolist(),
                "value": np.where(leaf, nodes["value"], 0.0).tolist(),
            }
        )
    return {"baseline": float(np.ravel(model._baseline_prediction)[0]), "trees": trees}


def _score(part: Mapping[str, Any], features: np.ndarray) -> np.ndarray:
    from pipeline.dataset.calibration import evaluate_tree

    trees = [evaluate_tree(tree, features) for tree in part["trees"]]
    return np.sum(trees, axis=0) + part["baseline"]


def _curve(score: np.ndarray, right: np.ndarray) -> dict[str, list[float]]:
    """The isotonic curve from score to share of right ones, as the points that numpy interpolates."""
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(score) + 2)  # Laplace: what was always right so far may be wrong once
    fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    fitted.fit(score, right.astype(float))
    return {"x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}
