"""Batches that shrink when memory runs out, instead of a run that ends."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from sspsam.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")

# What allocators say: torch's on the CPU, CUDA's, cuDNN's and cuBLAS's, MPS's.
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


@dataclass
class BatchSize:
    """How many members the next batch has; shrinks on out-of-memory and stays there."""

    size: int


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def run_halving(
    function: Callable[[Sequence[T]], R], items: Sequence[T], batch: BatchSize
) -> Iterator[tuple[Sequence[T], R | OutOfMemoryError]]:
    """`function` over `items`, `batch.size` at a time, in order.

    When memory runs out the batch is halved and tried again. An item that does not fit by itself comes
    back with an `OutOfMemoryError` of this package, and the others go on.
    """
    start = 0
    while start < len(items):
        part = items[start : start + batch.size]
        result = _attempt(function, part)
        if isinstance(result, OutOfMemoryError):
            # Here, not in the handler: its traceback would keep the tensors alive.
            _free_memory()
            if len(part) > 1:
                batch.size = len(part) // 2
                continue
        yield part, result
        start += len(part)


def _attempt(function: Callable[[Sequence[T]], R], part: Sequence[T]) -> R | OutOfMemoryError:
    try:
        return function(part)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return OutOfMemoryError(f"not enough memory for one item by itself: {error}")


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
