"""Hostile input of every kind: an answer or one line of ours, soon, in bounded memory; nothing is lost.

`make test` runs a fixed number of fixed cases, `make fuzz` many with another seed each time: it is printed,
and `SEED=... make fuzz` runs them again. `tests/fuzz/runner.py` says how one case is run alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fuzz.runner import Runner
from tests.fuzz.targets import TARGETS
from tests.seed import SEED

#: What a case takes, ms on one core, so that each kind of input gets its share of the time.
COST_MS = {
    **dict.fromkeys(("tar", "parquet", "captions", "image", "search"), 15),
    **dict.fromkeys(("benchmark", "pickled", "dataset_train", "predicate"), 40),
    **dict.fromkeys(("coco", "dataset_stats", "dataset_view", "checkpoint"), 150),
    **dict.fromkeys(("dataset_curate", "dataset_export"), 300),
    "dataset_report": 600,
    "rle": 2,
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as running:
        yield running


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_few_hostile_inputs(runner: Runner, target: str) -> None:
    for number in range(max(2, 400 // COST_MS[target])):
        wrong = runner.run(target, 0, number)
        assert not wrong, f"python -m tests.fuzz.runner {target} 0 {number}\n{wrong}"


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_many_hostile_inputs(runner: Runner, target: str) -> None:
    print(f"SEED={SEED}")
    findings, end, number = [], time.monotonic() + 10, 0
    while time.monotonic() < end or number < 5:
        if wrong := runner.run(target, SEED, number):
            findings.append(f"python -m tests.fuzz.runner {target} {SEED} {number}\n{wrong}")
        number += 1
    print(f"{number} cases")
    assert not findings, f"{len(findings)} of {number} cases, seed {SEED}\n" + "\n\n".join(findings[:5])
