"""REFER's files: how its splits are counted, and that its pickles run nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sspsam.data import DataConfig, read_records
from sspsam.data.refer import unpickle_plain
from sspsam.errors import DataError
from tests.sspsam.data.benchmarks import make_benchmarks


def test_refclef_counts_a_ref_under_each_letter_of_its_split(tmp_path: Path):
    """As REFER's getRefIds does: `testA` is also in the refs of `testAB` and `testABC`."""
    bench = make_benchmarks(tmp_path)
    path = next(bench.refer.glob("refs(*).p"))
    refs = pickle.loads(path.read_bytes())
    names = ["testA", "testB", "testC", "testAB", "testBC", "testABC", "train", "val"]
    for ref, split in zip(refs, names * 3, strict=False):
        ref["split"] = split
    path.write_bytes(pickle.dumps(refs))

    def phrases(split: str) -> int:
        return len(list(read_records(DataConfig(str(bench.refer), "refer", split=split))))

    def counted(wanted: Callable[[str], bool]) -> int:
        return sum(len(ref["sentences"]) for ref in refs if wanted(ref["split"]))

    for letter in "ABC":
        expected = counted(lambda split, letter=letter: letter in split)
        assert phrases(f"test{letter}") == expected > counted(lambda s, n=f"test{letter}": s == n)
    assert phrases("testAB") == counted(lambda split: split == "testAB")
    assert phrases("test") == counted(lambda split: split.startswith("test"))
    assert phrases("train") == counted(lambda split: split == "train")
    assert phrases("testA,testC") == counted(lambda split: "A" in split or "C" in split)


def test_pickles_run_nothing(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for payload in (Evil(), np.float64(1), complex(1, 2)):
        with pytest.raises(DataError, match="not a pickle of plain lists and dicts"):
            unpickle_plain(pickle.dumps([payload]), "refs(unc).p")
    assert not (tmp_path / "ran").exists()
    # As Python 2 wrote them: byte strings, here in UTF-8 and in Latin-1.
    assert unpickle_plain(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.", "x") == ["café"]
    assert unpickle_plain(b"(lp0\nS'caf\\xe9'\np1\na.", "x") == ["café"]
    with pytest.raises(DataError, match="not a pickle"):
        unpickle_plain(b"(lp0\nS'cut", "x")
