"""A threshold of p_correct with a guarantee: Learn then Test (Angelopoulos et al., arXiv 2110.01052).

Each candidate threshold is a null hypothesis: "of what it keeps, less than the wanted precision is right".
Its p-value is the exact binomial tail of Clopper and Pearson, over draws that are made uniform (`Sample`).
Hypotheses are tested one after the other in an order that no label decides, each at the level
1 - confidence, up to the first that stands (fixed-sequence testing). So with the wanted confidence every
threshold that was passed has the precision, and the lowest of them is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

#: Candidate thresholds: so many shares of the population, evenly.
CANDIDATES: Final = 40

#: Wrong ones are taken to be so many times as frequent as p_correct says, when candidates are put in order:
#: new images are seldom as easy as those learnt from, and a start that is too loose ends the test.
CAUTION: Final = 1.5

#: How probable success should be with the number of verdicts that is asked for.
_POWER: Final = 0.8


@dataclass(frozen=True)
class Sample:
    """Labelled draws with replacement from the phrases of a dataset, independent of each other.

    p: (n,) float32, p_correct. right: (n,) bool. rate: (n,) float64, how often one draw is expected to
    be just this phrase. cells: (lowest rate of a phrase, highest p_correct) of every part of the
    population that was drawn from at a rate of its own.

    Draws at different rates are thinned to the lowest rate among the phrases that a threshold keeps: what
    is left is uniform over them, so that the exact binomial bound holds, at the price of draws.
    """

    p: np.ndarray
    right: np.ndarray
    rate: np.ndarray
    cells: tuple[tuple[float, float], ...]

    def lowest_rate(self, threshold: float) -> float:
        return min((rate for rate, high in self.cells if high >= threshold), default=0.0)

    def kept(self, threshold: float) -> np.ndarray:
        """(m,) bool: `right` of draws that are uniform over the phrases at or above the threshold."""
        # The same numbers at every call, so that nobody can try his luck.
        chance = np.random.default_rng(0).random(len(self.p))
        kept = (self.p >= np.float32(threshold)) & (chance * self.rate <= self.lowest_rate(threshold))
        return self.right[kept]

    def expected(self, threshold: float, kept: int) -> float:
        """How many draws `kept` gives, expected for so many phrases of the population."""
        return len(self.p) * kept * self.lowest_rate(threshold)


@dataclass(frozen=True)
class Guarantee:
    """What is promised: of the phrases with p_correct >= threshold at least `precision` are right.

    kept, of: phrases of the population. draws, wrong: those that it rests on. tested: hypotheses tested.
    """

    threshold: float
    precision: float
    confidence: float
    kept: int
    of: int
    draws: int
    wrong: int
    tested: int

    def statement(self) -> str:
        """The promise in one sentence."""
        return (
            f"with confidence {self.confidence:g}, at least {self.precision:.1%} of the phrases with"
            f" p_correct >= {self.threshold:.4f} are right ({self.wrong:,} wrong of {self.draws:,} audited);"
            f" yield {self.kept:,} of {self.of:,} ({self.kept / self.of:.1%})"
        )


def choose_threshold(
    population: np.ndarray, samples: Sequence[Sample], precision: float, confidence: float
) -> Guarantee | None:
    """The lowest threshold with the guarantee, or None if the samples show none.

    population: (N,) float32, p_correct of all phrases that the promise is about.
    """
    found, tested = None, 0
    for threshold, kept, _ in in_order(population, samples, precision, confidence):
        labels = np.concatenate([sample.kept(threshold) for sample in samples])
        wrong, tested = int((~labels).sum()), tested + 1
        if p_value(wrong, len(labels), precision) > 1 - confidence:
            break
        if found is None or threshold < found.threshold:
            draws = len(labels)
            found = Guarantee(threshold, precision, confidence, kept, len(population), draws, wrong, tested)
    return found


def look_confidence(confidence: float, look: int) -> float:
    """The confidence that the `look`th test of one dataset needs, so that all together have the wanted one.

    Who audits again because a test found nothing, and tests again, has had another chance to be wrong. Four
    fifths of the risk are for the first look, four fifths of the rest for the second, and so on.
    """
    return 1 - (1 - confidence) * 0.8 * 0.2 ** (look - 1)


def p_value(wrong: int, draws: int, precision: float) -> float:
    """Probability of at most so many wrong ones, were the precision just below the wanted one."""
    from scipy.stats import binom

    return float(binom.cdf(wrong, draws, 1 - precision)) if draws else 1.0


def in_order(
    population: np.ndarray, samples: Sequence[Sample], precision: float, confidence: float
) -> list[tuple[float, int, float]]:
    """(threshold, phrases kept, chance of passing) of the candidates, the most promising first.

    The chance follows from the population and the numbers of draws; no label has a part in it.
    """
    ordered = np.sort(population.astype(float))[::-1]
    places = np.unique(np.ceil(np.linspace(0, len(ordered), CANDIDATES + 1)[1:]).astype(int)) - 1
    thresholds = np.unique(np.floor(ordered[places] * 1e4) / 1e4)
    found = []
    for threshold in thresholds.tolist():
        kept = int((population >= np.float32(threshold)).sum())
        draws = round(sum(sample.expected(threshold, kept) for sample in samples))
        found.append(
            (threshold, kept, passing(draws, cautious(ordered[:kept].mean()), precision, confidence))
        )
    return sorted(found, key=lambda one: (-one[2], one[0]))


def cautious(predicted: float) -> float:
    """The precision to count with where `predicted` is the mean p_correct."""
    return max(0.0, 1 - CAUTION * (1 - float(predicted)))


@lru_cache(4096)  # it follows from no label: whoever draws many audits asks the same again
def passing(draws: int, true: float, precision: float, confidence: float) -> float:
    """How probable a hypothesis is to be rejected by so many draws, if `true` is the precision."""
    from scipy.stats import binom

    most = int(binom.ppf(1 - confidence, draws, 1 - precision))
    while most >= 0 and binom.cdf(most, draws, 1 - precision) > 1 - confidence:
        most -= 1
    return float(binom.cdf(most, draws, 1 - true)) if most >= 0 and draws else 0.0


def draws_needed(population: np.ndarray, precision: float, confidence: float) -> int | None:
    """Uniform draws from the whole population with which some threshold is expected to pass
    4 times of 5; None if none is."""
    ordered = np.sort(population.astype(float))[::-1]
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    hopeful = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    at = np.unique(np.linspace(0, len(ordered) - 1, CANDIDATES + 1).astype(int)[1:])
    best = None
    for true, part in zip(hopeful[at], share[at], strict=True):
        draws = 50 if cautious(true) > precision else 100_000
        while draws < 100_000 and passing(draws, cautious(true), precision, confidence) < _POWER:
            draws = int(draws * 1.1)
        if draws < 100_000:
            best = min(best or 10**9, int(draws / part) + 1)
    return best
