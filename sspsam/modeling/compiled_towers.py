"""The image towers for inference on a GPU: half precision, compiled blocks, static shapes, one launch.

The weights and the computation of SAM's encoder are those of `sspsam.modeling.sam.SAMImageEncoder`. Other are
the order in which memory is read and written, and where it is rounded. Measurements: docs/log.md, 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sspsam.modeling.graphed import Graphed, Tensors
from sspsam.modeling.precision import image_tower_dtype
from sspsam.modeling.relative_attention import offset_table, relative_attention
from sspsam.modeling.sam import SAMImageEncoder, windows_of, without_windows

if TYPE_CHECKING:
    from sspsam.modeling.model import SSPSAM


@torch.library.custom_op("sspsam::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU of a linear layer, (..., C) to (..., D), without a trip to memory between the two on CUDA.

    CUDA's has the tanh form of GELU (arXiv 1606.08415), which differs by less than half precision rounds.
    """
    if x.device.type != "cuda":
        return F.gelu(F.linear(x, weight, bias))
    flat = torch._addmm_activation(bias, x.flatten(0, -2), weight.T, use_gelu=True)
    return flat.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@torch.library.custom_op("sspsam::add_linear", mutates_args={"total"})
def add_linear(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add a linear layer without bias of x (..., C) to `total` (..., D), contiguous, in its place."""
    total.view(-1, total.shape[-1]).addmm_(x.flatten(0, -2), weight.T)


@add_linear.register_fake
def _(total: Tensor, x: Tensor, weight: Tensor) -> None:
    return None


class _Block(NamedTuple):
    """What one block computes with."""

    window: int  # side in patches; 0: the whole image
    heads: int
    norm1: tuple[Tensor, Tensor]
    qkv: tuple[Tensor, Tensor]
    offsets: Tensor  # (D, 2P), see `offset_table`
    proj: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    hidden: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]


def _block(tokens: Tensor, block: _Block) -> Tensor:
    """One pre-norm block over (B, H, W, C), as `sspsam.modeling.sam._encoder_block`."""
    shape, channels = tokens.shape, tokens.shape[-1]
    normed = F.layer_norm(tokens, (channels,), *block.norm1, 1e-6)
    if block.window:
        normed = windows_of(normed, block.window)
    count, height, width, _ = normed.shape
    qkv = F.linear(normed, *block.qkv).view(count, height * width, 3, block.heads, -1)
    mixed = relative_attention(qkv, block.offsets, height, width)
    attended = F.linear(mixed.view(count, height, width, channels), *block.proj)
    if block.window:
        attended = without_windows(attended, shape)
    tokens = tokens + attended
    normed = F.layer_norm(tokens, (channels,), *block.norm2, 1e-6)
    total = tokens + block.out[1]
    add_linear(total, linear_gelu(normed, *block.hidden), block.out[0])
    return total


class CompiledTowers:
    """Both image towers of a model for batches of one size.

    Args:
        model: on its device; stays as it is, and its weights must too.
        slots: images of a batch; a smaller one is padded, so that nothing is compiled or captured twice.
    """

    def __init__(self, model: SSPSAM, slots: int) -> None:
        self.slots = slots
        dtype = model.image_tower_dtype or image_tower_dtype(model.device)
        encode_sam = CompiledImageEncoder(model.sam.image_encoder, dtype)

        def towers(clip_pixels: Tensor, sam_pixels: Tensor) -> Tensors:
            return model.encode_clip(clip_pixels), encode_sam(sam_pixels)

        self._towers = Graphed(towers)

    def __call__(self, clip_pixels: Tensor, sam_pixels: Tensor) -> Tensors:
        """(B, 3, S, S) and (B, 3, 1024, 1024) to (slots, 1 + G*G, E) and (slots, 256, 64, 64), float32.

        Rows from B on hold nothing of use.
        """
        missing = (0, 0, 0, 0, 0, 0, 0, max(0, self.slots - len(clip_pixels)))
        return self._towers(F.pad(clip_pixels, missing), F.pad(sam_pixels, missing))


class CompiledImageEncoder:
    """A copy of an image encoder without gradients, whose blocks are compiled with the first batch.

    Args:
        encoder: on its device; stays as it is.
        dtype: of weights and tokens.
    """

    def __init__(self, encoder: SAMImageEncoder, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._side = int(encoder.patch_embed.proj.kernel_size[0])

        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(dtype).contiguous()

        def pair(module: Any) -> tuple[Tensor, Tensor]:
            return cast(module.weight), cast(module.bias)

        patches, bias = pair(encoder.patch_embed.proj)
        self._patches = patches.flatten(1), bias
        self._positions = cast(encoder.pos_embed)
        self._blocks = [
            _Block(
                window=block.window_size,
                heads=block.attn.num_heads,
                norm1=pair(block.norm1),
                qkv=pair(block.attn.qkv),
                offsets=cast(offset_table(block.attn.rel_pos_h, block.attn.rel_pos_w)),
                proj=pair(block.attn.proj),
                norm2=pair(block.norm2),
                hidden=pair(block.mlp.lin1),
                out=pair(block.mlp.lin2),
            )
            for block in encoder.blocks
        ]
        self._neck = encoder.neck
        self._run: Callable[[Tensor, _Block], Tensor] = torch.compile(_block, dynamic=False)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, 1024, 1024), normalised and padded, to the embedding (B, 256, 64, 64) float32."""
        tokens = self._embed(pixels.to(self._dtype))
        for block in self._blocks:
            tokens = self._run(tokens, block)
        with torch.autocast(pixels.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return self._neck(tokens.permute(0, 3, 1, 2)).float()  # type: ignore[no-any-return]

    def _embed(self, pixels: Tensor) -> Tensor:
        """Patches by a linear layer: convolutions of this shape are an order slower on CUDA."""
        batch, channels, height, width = pixels.shape
        side = self._side
        patches = pixels.view(batch, channels, height // side, side, width // side, side)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, *self._patches) + self._positions
