"""The guarantee: exact bounds, honest sampling, and the promise kept over many audits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from benchmarks.guarantee import coverage
from pipeline.dataset.audit_sample import draw
from pipeline.dataset.threshold_guarantee import (
    Sample,
    choose_threshold,
    draws_needed,
    look_confidence,
    p_value,
)


def population(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(6, 0.6, size).astype(np.float32)
    return p, rng.random(size) < p


@pytest.mark.parametrize(("wrong", "draws"), [(0, 58), (0, 59), (1, 92), (1, 93), (7, 200)])
def test_the_p_value_is_clopper_and_pearsons(wrong: int, draws: int) -> None:
    lower = 1 - beta.ppf(0.95, wrong + 1, draws - wrong)
    assert (p_value(wrong, draws, 0.95) <= 0.05) == (lower >= 0.95)
    assert p_value(0, 0, 0.95) == 1.0


def test_draws_and_weights_are_unbiased() -> None:
    p, right = population(3000, 0)
    has_target = np.arange(3000) % 4 > 0
    drawn, names, cells = draw(p, has_target, 100_000, 0.95, 0.95, 1)
    assert {cell.name for cell in cells} == set(names)
    assert sum(cell.size * cell.rate for cell in cells) == pytest.approx(1)
    rate = {cell.name: cell.rate for cell in cells}
    weights = np.array([1 / rate[name] for name in names[drawn]]) / len(drawn)
    assert weights.sum() == pytest.approx(3000, rel=0.02)
    assert (weights * right[drawn]).sum() == pytest.approx(right.sum(), rel=0.02)
    # Thinned, the draws of a threshold that lies in two cells are uniform over what it keeps.
    at = drawn[names[drawn] != "no target"]
    kept = tuple((cell.rate, cell.high) for cell in cells if cell.name != "no target")
    sample = Sample(p[at], p[at] > 0.8, np.array([rate[name] for name in names[at]]), kept)
    inside = has_target & (p >= np.float32(0.3))
    assert sample.kept(0.3).mean() == pytest.approx((p[inside] > 0.8).mean(), abs=0.03)
    assert len(sample.kept(0.3)) < (p[at] >= 0.3).sum()


def test_the_promise_is_kept_and_none_is_made_of_too_little() -> None:
    p, right = population(4000, 2)
    returned, reached, kept = coverage(p, right, 25, 200, 0.9, 0.95)
    assert returned > 12
    assert reached >= returned - 3
    assert 0.3 < kept < 1
    rng = np.random.default_rng(0)
    worse = right & (rng.random(4000) < 0.9)  # p_correct is wrong by a tenth: no mask is right so often
    returned, *_ = coverage(p, worse, 15, 200, 0.95, 0.95)
    assert returned <= 2
    few = Sample(p[:20], right[:20], np.full(20, 1 / 4000), ((1 / 4000, 1.0),))
    assert choose_threshold(p, [few], 0.95, 0.95) is None
    assert 60 < (draws_needed(p, 0.95, 0.95) or 0) < 3000
    assert draws_needed(np.full(100, 0.9, np.float32), 0.95, 0.95) is None
    assert sum(1 - look_confidence(0.95, look) for look in range(1, 30)) == pytest.approx(0.05)
