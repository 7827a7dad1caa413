# ruff: noqa: N803  -- constants of a kernel are written as in the papers
"""A Triton kernel for attention with decomposed relative positions: FlashAttention with a bias for nothing.

The bias of a query towards a key depends on their offset alone, and each query's products with all
offsets are at hand (`relative_attention.offset_table`): the kernel reads a row of them instead of a bias
a key. The online softmax is FlashAttention's (arXiv 2205.14135). Measurements: docs/log.md, 2026-11-26.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Queries and keys of a tile, warps and pipeline stages: where a tile of keys is one row of the grid
#: (global attention), and where it is not (windows).
_BY_ROWS = (64, 4, 3)
_IN_WINDOWS = (64, 32, 4, 3)


def takes(depth: int, dtype: torch.dtype) -> bool:
    """Whether the kernel computes heads of this width: 16, 32, 64, or 64 and one of them."""
    rest = depth - 64 if depth > 64 else depth
    return dtype in (torch.bfloat16, torch.float16) and rest in (16, 32, 64)


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0915
    qkv,
    products,
    out,
    length,
    heads,
    count,
    scale,
    H: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,  # half of a row of products
    PH: tl.constexpr,  # H and W, padded to powers of two
    PW: tl.constexpr,
    D1: tl.constexpr,  # a head's width is D1 + D2
    D2: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    ROWS: tl.constexpr,  # a tile of keys is one row of the grid: BN == W
):
    log2e: tl.constexpr = 1.4426950408889634
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    depth: tl.constexpr = D1 + D2
    step = 3 * heads * depth  # elements from a token to the next
    base = qkv + image.to(tl.int64) * length * step + head * depth
    keys, values = base + heads * depth, base + 2 * heads * depth
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    real = m < length
    d1 = tl.arange(0, D1)
    q1 = tl.load(base + m[:, None] * step + d1[None, :], mask=real[:, None], other=0.0)
    if D2 > 0:
        d2 = D1 + tl.arange(0, D2)
        q2 = tl.load(base + m[:, None] * step + d2[None, :], mask=real[:, None], other=0.0)
    row = products + ((head.to(tl.int64) * count + image) * length + m) * (2 * P)
    ph, pw = tl.arange(0, PH), tl.arange(0, PW)
    across = row[:, None] + (P + W - 1) + (m % W)[:, None] - pw[None, :]
    rel_w = tl.load(across, mask=real[:, None] & (pw < W)[None, :], other=0.0)
    down = row + (H - 1) + m // W
    if ROWS:
        rel_w2 = rel_w.to(tl.float32) * log2e
    else:
        rel_h = tl.load(down[:, None] - ph[None, :], mask=real[:, None] & (ph < H)[None, :], other=0.0)
    top = tl.full([BM], -1e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    sum1 = tl.zeros([BM, D1], tl.float32)
    if D2 > 0:
        sum2 = tl.zeros([BM, D2], tl.float32)
    for start in range(0, length, BN):
        n = start + tl.arange(0, BN)
        inside = n < length
        k1 = tl.load(keys + n[None, :] * step + d1[:, None], mask=inside[None, :], other=0.0)
        s = tl.dot(q1, k1)
        if D2 > 0:
            k2 = tl.load(keys + n[None, :] * step + d2[:, None], mask=inside[None, :], other=0.0)
            s = tl.dot(q2, k2, s)
        if ROWS:
            towards = tl.load(down - start // BN, mask=real, other=0.0).to(tl.float32) * log2e
            s = s * (scale * log2e) + towards[:, None] + rel_w2
        else:
            # A product with one-hot rows and columns stays in registers; loads a key would not.
            bias = tl.dot(rel_h, (ph[:, None] == (n // W)[None, :]).to(rel_h.dtype))
            bias = tl.dot(rel_w, (pw[:, None] == (n % W)[None, :]).to(rel_w.dtype), bias)
            s = tl.where(inside[None, :], (s * scale + bias) * log2e, -1e30)
        new = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
        fade = tl.exp2(top - new)
        total = total * fade + tl.sum(p, 1)
        top = new
        p = p.to(q1.dtype)
        v1 = tl.load(values + n[:, None] * step + d1[None, :], mask=inside[:, None], other=0.0)
        sum1 = tl.dot(p, v1, sum1 * fade[:, None])
        if D2 > 0:
            v2 = tl.load(values + n[:, None] * step + d2[None, :], mask=inside[:, None], other=0.0)
            sum2 = tl.dot(p, v2, sum2 * fade[:, None])
    to = out + (image.to(tl.int64) * length + m[:, None]) * heads * depth + head * depth
    tl.store(to + d1[None, :], (sum1 / total[:, None]).to(q1.dtype), mask=real[:, None])
    if D2 > 0:
        tl.store(to + d2[None, :], (sum2 / total[:, None]).to(q1.dtype), mask=real[:, None])


def attend_triton(
    qkv: Tensor, products: Tensor, height: int, width: int, tile: tuple[int, ...] | None = None
) -> Tensor:
    """Self-attention over a grid.

    Args:
        qkv: (N, H*W, 3, M, D) float16 or bfloat16, contiguous; D as `takes` says.
        products: (M, N, H*W, 2P) of the queries with an offset table, same type, contiguous.
        tile: queries, keys (in windows), warps, stages; measured ones if left out.

    Returns:
        (N, H*W, M, D), contiguous.
    """
    count, length, _, heads, depth = qkv.shape
    out = torch.empty(count, length, heads, depth, dtype=qkv.dtype, device=qkv.device)
    by_rows = width in (16, 32, 64)
    queries, *keys, warps, stages = tile or (_BY_ROWS if by_rows else _IN_WINDOWS)
    first = min(depth, 64)
    options: dict[str, Any] = {"num_warps": warps, "num_stages": stages}
    _kernel[(triton.cdiv(length, queries), count * heads)](
        qkv,
        products,
        out,
        length,
        heads,
        count,
        depth**-0.5,
        H=height,
        W=width,
        P=products.shape[-1] // 2,
        PH=max(16, triton.next_power_of_2(height)),
        PW=width if by_rows else max(16, triton.next_power_of_2(width)),
        D1=first,
        D2=depth - first,
        BM=queries,
        BN=width if by_rows else keys[0],
        ROWS=by_rows,
        **options,
    )
    return out
