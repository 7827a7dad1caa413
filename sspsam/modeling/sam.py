"""Segment Anything with fused attention and a mask decoder that takes all phrases at once.

The parameters are those of the `segment-anything` package (Apache-2.0), so its checkpoints load as
they are; only how they are applied is ours. Source of the computation: arXiv 2304.02643.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sspsam.model_config import SAMConfig
from sspsam.modeling.precision import attend
from sspsam.modeling.relative_attention import relative_attention_for
from sspsam.modeling.segment_anything import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
)


class SAMImageEncoder(ImageEncoderViT):  # type: ignore[misc,valid-type]
    """Stock ViTDet-style encoder, its attention on `scaled_dot_product_attention`."""

    def __init__(self, config: SAMConfig) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.encoder_width,
            depth=config.encoder_depth,
            num_heads=config.encoder_heads,
            out_chans=config.embed_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window,
            global_attn_indexes=config.global_blocks,
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 1024, 1024), normalised and padded, to the embedding (B, 256, 64, 64)."""
        tokens = self.patch_embed(pixels) + self.pos_embed
        for block in self.blocks:
            tokens = _encoder_block(block, tokens)
        return self.neck(tokens.permute(0, 3, 1, 2))


def _encoder_block(block: Any, tokens: Tensor) -> Tensor:
    """One pre-norm block over (B, H, W, C), in windows unless `block.window_size` is 0."""
    normed = block.norm1(tokens)
    if block.window_size == 0:
        attended = _attention(block.attn, normed)
    else:
        attended = without_windows(
            _attention(block.attn, windows_of(normed, block.window_size)), normed.shape
        )
    tokens = tokens + attended
    return tokens + block.mlp(block.norm2(tokens))


def windows_of(tokens: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B * windows, window, window, C), zero-padded at bottom and right."""
    tokens = F.pad(tokens, (0, 0, 0, -tokens.shape[2] % window, 0, -tokens.shape[1] % window))
    batch, height, width, channels = tokens.shape
    tokens = tokens.view(batch, height // window, window, width // window, window, channels)
    return tokens.transpose(2, 3).reshape(-1, window, window, channels)


def without_windows(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """The way back of `windows_of`, to `shape` (B, H, W, C)."""
    batch, height, width, channels = shape
    window = tokens.shape[1]
    rows, columns = -(-height // window), -(-width // window)
    tokens = tokens.view(batch, rows, columns, window, window, channels).transpose(2, 3)
    return tokens.reshape(batch, rows * window, columns * window, channels)[:, :height, :width]


def _attention(attention: Any, tokens: Tensor) -> Tensor:
    """Self-attention with decomposed relative positions over (N, H, W, C)."""
    batch, height, width, channels = tokens.shape
    qkv = attention.qkv(tokens).view(batch, height * width, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    # Relative positions multiply the unscaled queries (MViTv2, arXiv 2112.01526, equation 4).
    grid = q.unflatten(2, (height, width))
    rel_h = torch.einsum("nmhwc,hkc->nmhwk", grid, _relative(attention.rel_pos_h, height, grid))
    rel_w = torch.einsum("nmhwc,wkc->nmhwk", grid, _relative(attention.rel_pos_w, width, grid))
    attend = relative_attention_for(tokens.device, height * width)
    mixed = attend(q, k, v, rel_h.flatten(2, 3), rel_w.flatten(2, 3))
    return attention.proj(mixed.transpose(1, 2).reshape(batch, height, width, channels))


def _relative(table: Tensor, size: int, like: Tensor) -> Tensor:
    """(2 * size - 1, D) offsets to (size, size, D): entry [i, j] is the offset i - j."""
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + size - 1].to(like.dtype)


class SAM(nn.Module):
    """Image encoder, prompt encoder and mask decoder of Segment Anything."""

    def __init__(self, config: SAMConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = SAMImageEncoder(config)
        self.prompt_encoder = PromptEncoder(
            embed_dim=config.embed_dim,
            image_embedding_size=(config.grid, config.grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_channels,
        )
        self.mask_decoder = MaskDecoder(
            transformer_dim=config.embed_dim,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.embed_dim,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_mlp,
            ),
            iou_head_hidden_dim=config.iou_hidden,
        )

    def decode(self, embedding: Tensor, prompts: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of N phrases of B images in one batch (the stock decoder loops over images).

        The prompts are the whole sparse embedding; the dense one is `no_mask_embed` everywhere.
        Mask token 0 is used (`multimask_output=False`), and only its hypernetwork is run.

        Args:
            embedding: (B, C, H, W).
            prompts: (N, P, C).
            image_index: (N,) int64, each phrase's image.

        Returns:
            mask_logits (N, 4H, 4W) over the padded square, and predicted_iou (N,).
        """
        decoder = self.mask_decoder
        learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([learned.expand(len(prompts), -1, -1), prompts], dim=1)
        dense = self.prompt_encoder.no_mask_embed.weight[0][:, None, None]
        image = (embedding + dense).flatten(2).transpose(1, 2)
        positions = self.prompt_encoder.get_dense_pe().flatten(2).transpose(1, 2)
        tokens, image = _two_way(decoder.transformer, image, positions, tokens, image_index)
        image = image.transpose(1, 2).unflatten(2, embedding.shape[-2:])
        upscaled = decoder.output_upscaling(image)
        kernel = decoder.output_hypernetworks_mlps[0](tokens[:, 1])
        logits = torch.einsum("nc,nchw->nhw", kernel, upscaled)
        return logits, decoder.iou_prediction_head(tokens[:, 0])[:, 0]


def _two_way(
    transformer: Any, image: Tensor, positions: Tensor, tokens: Tensor, image_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Stock `TwoWayTransformer`, where what depends on the image alone runs once an image.

    Args: image (B, L, C), positions (1, L, C), tokens (N, P, C).
    Returns: tokens (N, P, C), image (N, L, C).
    """
    queries, keys = tokens, image
    for i, layer in enumerate(transformer.layers):
        # Until the first block has written to them, the image's keys are shared by its phrases.
        share = image_index if i == 0 else None
        if layer.skip_first_layer_pe:
            queries = _project_and_attend(layer.self_attn, queries, queries, queries)
        else:
            query = queries + tokens
            queries = queries + _project_and_attend(layer.self_attn, query, query, queries)
        queries = layer.norm1(queries)
        located = keys + positions
        attended = _project_and_attend(
            layer.cross_attn_token_to_image, queries + tokens, located, keys, share_keys=share
        )
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        attended = _project_and_attend(
            layer.cross_attn_image_to_token, located, queries + tokens, queries, share_query=share
        )
        keys = layer.norm4((keys if share is None else keys[share]) + attended)
    attended = _project_and_attend(
        transformer.final_attn_token_to_image, queries + tokens, keys + positions, keys
    )
    return transformer.norm_final_attn(queries + attended), keys


def _project_and_attend(
    attention: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    share_query: Tensor | None = None,
    share_keys: Tensor | None = None,
) -> Tensor:
    """Stock SAM `Attention`; `share_*` (N,) gathers rows after the projection, not before."""

    def heads(projected: Tensor, share: Tensor | None) -> Tensor:
        projected = projected if share is None else projected[share]
        return projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)

    q, k, v = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
    mixed = attend(heads(q, share_query), heads(k, share_keys), heads(v, share_keys))
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
