"""Which part computes in which precision: the one place that decides it.

The image towers hold nearly all of the arithmetic and tolerate half precision; the SSP encoder and
the mask decoder do not (casting everything to float16 was reported to break the model), so they
always run in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def image_tower_dtype(device: torch.device) -> torch.dtype:
    """The image towers' compute type on a device.

    CUDA: bfloat16 where the card has it, else float16. MPS: float16. CPU: bfloat16 only with AMX,
    since without it bfloat16 products are emulated (measured: 8 times slower than float32).
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def image_tower_autocast(
    device: torch.device, dtype: torch.dtype | None = None
) -> AbstractContextManager[object]:
    """Context in which the image towers run; `dtype` overrides the device's own choice."""
    dtype = image_tower_dtype(device) if dtype is None else dtype
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Context in which the SSP encoder and the mask decoder run, whatever is around it."""
    if device.type in ("cpu", "cuda", "mps"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
