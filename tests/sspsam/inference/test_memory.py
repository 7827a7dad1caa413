"""Batches that halve: which errors mean that memory is out, and what is tried after one."""

from __future__ import annotations

import torch

from sspsam.errors import OutOfMemoryError
from sspsam.inference.memory import BatchSize, is_out_of_memory, run_halving

CPU_OUT_OF_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)


def test_what_counts_as_out_of_memory() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(CPU_OUT_OF_MEMORY),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    ):
        assert is_out_of_memory(error)
    for other in (RuntimeError("size mismatch"), ValueError("out of memory"), KeyError("x")):
        assert not is_out_of_memory(other)
    batch, tried = BatchSize(8), []

    def needs(part: list[int]) -> int:
        tried.append(len(part))
        if sum(part) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sum(part)

    found = list(run_halving(needs, [1, 2, 3, 4, 11, 5, 5, 5], batch))
    assert [part for part, _ in found] == [[1, 2, 3, 4], [11], [5], [5], [5]]
    assert [isinstance(result, OutOfMemoryError) for _, result in found].index(True) == 1
    assert found[0][1] == 10
    assert tried == [8, 4, 4, 2, 1, 1, 1, 1]
