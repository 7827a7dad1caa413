"""Attention with SAM's decomposed relative positions, four ways, and which of them is the fastest here.

`bias[i, j] = rel_h[i, row(j)] + rel_w[i, column(j)]`, where `rel_h` and `rel_w` are products of the
unscaled queries with a learned vector an offset (MViTv2, arXiv 2112.01526, equation 4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

#: A way to attend with a decomposed relative position: (q, k, v, rel_h, rel_w) to (N, M, L, D).
RelativeAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

#: Longest (query, key) bias block that is built at a time, elements a head.
_BIAS_BLOCK = 512 * 4096
_ALIGNED = 32  # columns; the halves of an offset table are padded to a multiple of it


def attend_augmented(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as part of the dot product, so that kernels without a bias argument can be used.

    The bias equals the product of `[rel_h, rel_w]` with one-hot rows and columns: both are appended to
    queries and keys, and zeros to the values, whose width flash kernels want to match.

    Args:
        q, k, v: (N, M, H*W, D), heads M.
        rel_h: (N, M, H*W, H), bias of each query towards each key row.
        rel_w: (N, M, H*W, W), towards each key column.

    Returns:
        (N, M, H*W, D).
    """
    height, width, depth = rel_h.shape[-1], rel_w.shape[-1], q.shape[-1]
    rows = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    place = torch.cat([rows, columns], dim=1).expand(*k.shape[:2], -1, -1)
    pad = -(depth + height + width) % 8  # flash kernels take multiples of 8
    query = torch.cat([q * depth**-0.5, rel_h.to(q.dtype), rel_w.to(q.dtype)], dim=-1)
    key = torch.cat([k, place], dim=-1)
    query, key = F.pad(query, (0, pad)), F.pad(key, (0, pad))
    value = F.pad(v, (0, query.shape[-1] - depth))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :depth]


def attend_biased(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as an additive mask, for a block of queries at a time. Shapes as above."""
    keys = rel_h.shape[-1] * rel_w.shape[-1]
    step = max(1, _BIAS_BLOCK // keys)
    blocks = []
    for start in range(0, q.shape[2], step):
        part = slice(start, start + step)
        bias = (rel_h[:, :, part, :, None] + rel_w[:, :, part, None, :]).flatten(3)
        blocks.append(F.scaled_dot_product_attention(q[:, :, part], k, v, attn_mask=bias.to(q.dtype)))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def relative_attention_for(device: torch.device, tokens: int) -> RelativeAttention:
    """The faster of the two for `tokens` keys on a device (measurements: docs/log.md)."""
    return attend_augmented if device.type == "cuda" and tokens > 1024 else attend_biased


def offset_table(rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Both learned tables as one matrix, whose product with the queries holds every bias there is.

    Args:
        rel_pos_h: (2H - 1, D), rel_pos_w: (2W - 1, D), by offset.

    Returns:
        (D, 2P): column `i` is row offset `i - (H - 1)`, column `P + i` column offset `i - (W - 1)`;
        P is padded with zeros.
    """
    half = max(len(rel_pos_h), len(rel_pos_w))
    half += -half % _ALIGNED
    parts = [F.pad(table, (0, 0, 0, half - len(table))) for table in (rel_pos_h, rel_pos_w)]
    return torch.cat(parts).T.contiguous()


def relative_biases(products: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """`rel_h` (..., H*W, H) and `rel_w` (..., H*W, W) from products (..., H*W, 2P) with an offset table."""
    place = torch.arange(height * width, device=products.device)
    rows, columns = place // width, place % width
    towards_rows = rows[:, None] - torch.arange(height, device=products.device) + height - 1
    towards_columns = columns[:, None] - torch.arange(width, device=products.device) + width - 1
    towards_columns = towards_columns + products.shape[-1] // 2
    lead = products.shape[:-2]
    return (
        products.gather(-1, towards_rows.expand(*lead, -1, -1)),
        products.gather(-1, towards_columns.expand(*lead, -1, -1)),
    )


@torch.library.custom_op("sspsam::relative_attention", mutates_args=())
def relative_attention(qkv: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """Self-attention over a grid, by what is fastest on the device; for inference, it has no gradient.

    One operator, so that `torch.compile` leaves it as it is.

    Args:
        qkv: (N, H*W, 3, M, D), contiguous.
        table: (D, 2P) of `offset_table`.

    Returns:
        (N, H*W, M, D).
    """
    count, length, _, heads, depth = qkv.shape
    # One product for all heads, on the queries where they lie: no copy of them is made.
    queries = qkv[:, :, 0].reshape(count * length, heads, depth).transpose(0, 1)
    products = torch.bmm(queries, table.expand(heads, -1, -1)).view(heads, count, length, -1)
    how = _fastest(qkv.device, qkv.dtype, length, depth, height, width)
    return how(qkv, products, height, width)


@relative_attention.register_fake
def _(qkv: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1], qkv.shape[3], qkv.shape[4])


#: (qkv, products (M, N, H*W, 2P), H, W) to (N, H*W, M, D).
_Way = Callable[[Tensor, Tensor, int, int], Tensor]


def _from_biases(attend: RelativeAttention) -> _Way:
    def way(qkv: Tensor, products: Tensor, height: int, width: int) -> Tensor:
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        rel_h, rel_w = relative_biases(products.transpose(0, 1), height, width)
        return attend(q, k, v, rel_h, rel_w).transpose(1, 2).contiguous()

    return way


def ways(device: torch.device, dtype: torch.dtype, depth: int) -> dict[str, _Way]:
    """The ways that there are on a device, by name."""
    found = {"biased": _from_biases(attend_biased)}
    if device.type == "cuda":
        found["augmented"] = _from_biases(attend_augmented)
        try:
            from sspsam.modeling.triton_attention import attend_triton, takes
        except ImportError:  # torch for CUDA brings Triton where Triton runs
            return found
        if takes(depth, dtype):
            found["triton"] = attend_triton
    return found


@cache
def _fastest(
    device: torch.device, dtype: torch.dtype, length: int, depth: int, height: int, width: int
) -> _Way:
    """Measured once a process, on as many tokens as four images have."""
    found = ways(device, dtype, depth)
    if len(found) == 1:
        return found["biased"]
    table = offset_table(*(torch.randn(2 * side - 1, depth) for side in (height, width)))
    table = table.to(device, dtype)
    qkv = torch.randn(max(1, 4 * 4096 // length), length, 3, 8, depth, device=device, dtype=dtype)
    queries = qkv[:, :, 0].reshape(-1, 8, depth).transpose(0, 1)
    products = torch.bmm(queries, table.expand(8, -1, -1)).view(8, len(qkv), length, -1)
    times = {name: _time(lambda: way(qkv, products, height, width)) for name, way in found.items()}  # noqa: B023
    return found[min(times, key=lambda name: times[name])]


def _time(function: Callable[[], Tensor], repeats: int = 5) -> float:
    """Milliseconds on the device: the best of `repeats` after two that are not counted."""
    best = float("inf")
    for number in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        if number >= 2:
            best = min(best, begin.elapsed_time(end))
    return best
