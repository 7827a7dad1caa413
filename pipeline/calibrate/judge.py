"""How good probabilities are: calibration error, Brier score, and risk against coverage."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

BINS: Final = 10


def judge(probability: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Numbers of (N,) probabilities of what is (N,) right.

    `ece`: expected calibration error over bins of equally many phrases (Nixon et al., arXiv 1904.01685);
    `brier`: mean squared error; `aurc`: area under the risk-coverage curve (Geifman et al., arXiv
    1805.08206).
    """
    bins = reliability(probability, right)
    gaps = [one["count"] * abs(one["predicted"] - one["observed"]) for one in bins]
    return {
        "phrases": len(right),
        "right": float(right.mean()),
        "ece": float(sum(gaps) / len(right)),
        "brier": float(np.mean((probability - right) ** 2)),
        "aurc": risk_coverage(probability, ~right),
        "reliability": bins,
    }


def reliability(probability: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Mean probability and share of right ones in bins of equally many phrases, from the lowest."""
    order = np.argsort(probability, kind="stable")
    return [
        {"predicted": float(probability[at].mean()), "observed": float(right[at].mean()), "count": len(at)}
        for at in np.array_split(order, min(BINS, len(order)))
    ]


def risk_coverage(confidence: np.ndarray, risk: np.ndarray) -> float:
    """Area under the risk-coverage curve: the mean risk of the n most confident, over all n.

    confidence: (N,), NaN least. risk: (N,) bool or 0 to 1. Equal confidences are taken in any order, so each
    has the mean risk of its equals.
    """
    filled = np.where(np.isnan(confidence), -np.inf, confidence)
    _, group = np.unique(-filled, return_inverse=True)
    size = np.bincount(group)
    mean = np.bincount(group, weights=risk.astype(float)) / size
    return float(np.mean(np.cumsum(np.repeat(mean, size)) / np.arange(1, len(risk) + 1)))


def ranks(values: np.ndarray, quality: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where either is constant."""
    from scipy.stats import spearmanr

    filled = np.where(np.isnan(values), -np.inf, values)
    if len(np.unique(filled)) < 2 or len(np.unique(quality)) < 2:
        return None
    return float(spearmanr(filled, quality).statistic)
