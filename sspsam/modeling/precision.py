"""Which part computes in which precision: the one place that decides it.

The image towers hold nearly all of the arithmetic and tolerate half precision; the SSP encoder and
the mask decoder do not (casting everything to float16 was reported to break the model), so they
always run in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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


@dataclass
class _Switches:
    half_attention: bool = False


_SWITCHES = _Switches()


def fast_float32(on: bool = True) -> None:
    """Let float32 products on CUDA keep ten bits of the mantissa, for all of this process.

    TF32 in matrix products and convolutions, float16 in the mask decoder's attention: torch's float32 kernel
    for it takes a third of the decoder's time. Masks stay at a mean IoU of 0.999 or more with exact ones
    (docs/log.md, 2026-11-26).
    """
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
    _SWITCHES.half_attention = on


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention over (N, M, L, D), as precise as `fast_float32` says."""
    if not _SWITCHES.half_attention or query.device.type != "cuda" or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    mixed = F.scaled_dot_product_attention(query.half(), key.half(), value.half())
    return mixed.to(query.dtype)
