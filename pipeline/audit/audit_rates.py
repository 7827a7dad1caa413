"""Rates from the verdicts of audits, with confidence intervals, and how far reviewers agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.dataset.audit_sample import Cell
from pipeline.dataset.reviews import Votes


def rates(
    rows: Sequence[Mapping[str, Any]], cells: Sequence[Cell], confidence: float
) -> list[dict[str, Any]]:
    """For each stratum: how many phrases it stands for, the share that is right, and an interval of it.

    Cells were drawn from evenly, so their intervals are those of Clopper and Pearson. Over several cells (all
    masks, a source, a number of words) the share is the weighted mean of the draws, and the interval a
    bootstrap of the draws (percentiles, 2,000 times), which is approximate.
    """
    decided = [row for row in rows if row["right"] is not None]
    strata: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in decided:
        kind = row["cell"] if row["cell"] == "no target" else "masks"
        words = len(row["phrase"].split())
        length = "one word" if words == 1 else "two or three words" if words < 4 else "four words or more"
        source = row["shard"].rpartition("/")[0] or row["shard"].rstrip("0123456789-_.")
        strata["over all", kind].append(row)
        strata["p_correct", row["cell"]].append(row)
        strata["words", f"{kind}, {length}"].append(row)
        strata["source", f"{kind}, {source}"].append(row)
    sizes = {cell.name: cell.size for cell in cells}
    return [_rate(*name, found, sizes, confidence) for name, found in sorted(strata.items())]


def _rate(
    by: str, stratum: str, rows: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], confidence: float
) -> dict[str, Any]:
    draws = np.array([row["draws"] for row in rows])
    right = np.repeat([bool(row["right"]) for row in rows], draws)
    weight = np.repeat([1 / row["rate"] for row in rows], draws)
    share = float((weight * right).sum() / weight.sum())
    if len(set(weight.tolist())) == 1:
        low, high = clopper_pearson(int(right.sum()), len(right), confidence)
    else:
        at = np.random.default_rng(0).integers(0, len(right), (2000, len(right)))
        shares = (weight * right)[at].sum(axis=1) / weight[at].sum(axis=1)
        low, high = (float(end) for end in np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2]))
    cells = {row["cell"] for row in rows}
    size = sum(sizes[cell] for cell in cells) if by in ("over all", "p_correct") else None
    return {
        "by": by,
        "stratum": stratum,
        "stands_for": size,
        "draws": len(right),
        "right": share,
        "low": low,
        "high": high,
    }


def clopper_pearson(right: int, draws: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, 1934)."""
    from scipy.stats import beta

    rest = (1 - confidence) / 2
    low = float(beta.ppf(rest, right, draws - right + 1)) if right else 0.0
    return low, float(beta.ppf(1 - rest, right + 1, draws - right)) if right < draws else 1.0


def agreement(given: Votes) -> dict[str, Any]:
    """Reviewers by name with their verdicts, and Cohen's kappa of each pair on what both looked at."""
    counts = Counter(reviewer for votes in given.values() for reviewer in votes)
    pairs = []
    for first, second in combinations(sorted(counts), 2):
        both = [(votes[first], votes[second]) for votes in given.values() if {first, second} <= votes.keys()]
        if both:
            pair = {"first": first, "second": second, "phrases": len(both)}
            pairs.append({**pair, "same": sum(a == b for a, b in both) / len(both), "kappa": cohen(both)})
    return {"verdicts": dict(counts), "pairs": pairs}


def cohen(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960) of two reviewers' verdicts; None where chance alone would agree always."""
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(first[name] * second[name] for name in first) / len(pairs) ** 2
    same = sum(a == b for a, b in pairs) / len(pairs)
    return None if chance == 1 else (same - chance) / (1 - chance)
