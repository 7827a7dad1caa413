"""pycocotools' encoder by C and by Python: the same bytes, and only one of them stops other threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sspsam.inference import rle_threads
from sspsam.rle import check_rle


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 3),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
)
def test_both_ways_give_the_same_bytes(
    count: int, width: int, height: int, seed: int, density: float
) -> None:
    masks = (np.random.default_rng(seed).random((count, width, height)) < density).astype(np.uint8)
    rles = rle_threads.encode_columns(masks)
    assert rles == rle_threads._by_python(masks)
    counts = [check_rle(rle).astype(np.uint32) for rle in rles]
    assert rle_threads.encode_counts(counts, width, height) == rles
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle_threads, "_exported", lambda: None)
        assert rle_threads.encode_counts(counts, width, height) == rles


def test_a_library_without_the_functions_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle_threads._mask, "__file__", np._core._multiarray_umath.__file__)
    assert rle_threads._exported.__wrapped__() is None


def test_other_threads_run_meanwhile() -> None:
    """While one large mask is encoded, a second thread goes on counting."""
    if rle_threads._exported() is None:
        pytest.skip("this build of pycocotools exports no C functions")
    noise = np.random.default_rng(0).integers(0, 2, (1, 6000, 6000), np.uint8)
    encoding = threading.Thread(target=rle_threads.encode_columns, args=(noise,))
    encoding.start()
    ticks, last = 0, time.monotonic()
    while encoding.is_alive():
        time.sleep(0.001)
        ticks += time.monotonic() - last < 0.05
        last = time.monotonic()
    assert ticks > 20, "the encoder kept the interpreter's lock"
