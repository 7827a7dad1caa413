"""Bootstrap intervals of ratios of sums, over images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from sspsam.evaluation.metrics import Metric


@dataclass(frozen=True)
class Score:
    """A metric's value with its interval, all in 0..1; nan where no sample counts.

    Attributes:
        name: of the metric.
        value: over all samples.
        low, high: ends of the interval.
        samples: samples with a part in the denominator.
    """

    name: str
    value: float
    low: float
    high: float
    samples: int


def intervals(
    metrics: list[Metric],
    groups: np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Score]:
    """Percentile bootstrap (Efron 1979), whole groups drawn with replacement.

    Args:
        metrics: their terms, float64 (N,) each.
        groups: int64 (N,), values 0..G-1: samples of one group (image) are drawn together.
        resamples: how many; 0 for none (low and high are then nan).
        level: share of the resamples inside the interval.
        seed: of the draw.

    Returns:
        A score a metric, in order. The same seed gives the same intervals, and the order of the
        samples changes nothing but rounding.
    """
    terms = np.stack([part for m in metrics for part in (m.numerator, m.denominator)], axis=1)
    count = int(groups.max(initial=-1)) + 1
    sums = np.zeros((count, terms.shape[1]))
    np.add.at(sums, groups, terms)
    values = _ratio(sums.sum(axis=0))
    rng = np.random.default_rng(seed)
    drawn = np.full((max(1, resamples), len(metrics)), np.nan)
    for number in range(resamples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        drawn[number] = _ratio(weights @ sums)
    with warnings.catch_warnings():  # of metrics that exist in no resample, whose ends are nan
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Score(m.name, float(values[i]), float(low[i]), float(high[i]), int((m.denominator > 0).sum()))
        for i, m in enumerate(metrics)
    ]


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(2K,) numerators and denominators in turn -> (K,); nan where the denominator is 0."""
    numerator, denominator = sums[0::2], sums[1::2]
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
