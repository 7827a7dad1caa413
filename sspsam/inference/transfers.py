"""Copies between host and device for which the host does not wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def to_device(values: Sequence[int] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values (int64) or a tensor on a device. CUDA stages ordinary memory before it returns."""
    return torch.as_tensor(values).to(device, non_blocking=True)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU; from CUDA it holds the values only once `copied` says so."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    # torch keeps page-locked memory and hands it out again once its copies are done.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def copied(device: torch.device) -> Callable[[], None] | None:
    """What waits for all copies that this thread began so far; None where copies are done at once."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(blocking=True)  # a waiting thread sleeps instead of spinning
    event.record(torch.cuda.current_stream(device))
    return event.synchronize
