"""The SSP-SAM authors' checkpoint layout: its tensor names, and the sizes that its shapes tell.

Two spellings exist for the last six vision blocks, because the authors' code rewrites those modules
at the first forward pass; both are read. `img2img_attn.*` and `norm_text_cond_img.*` are in every
file and used by nothing; `encoder.visual.attn.*` is an alias of one of the blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from sspsam.errors import ArchitectureError, ConfigError
from sspsam.model_config import CLIPConfig, SAMConfig, SSPConfig, SSPSAMConfig

_UNUSED = re.compile(r"(img2img_attn|norm_text_cond_img|encoder\.visual\.attn)\.")

#: (their name, our name), tried in this order; a layer index or suffix passes through.
_NAMES = [
    (r"sam\.(.+)", r"sam.\1"),
    (r"encoder\.visual\.class_embedding", "clip.vision.embeddings.class_embedding"),
    (r"encoder\.visual\.positional_embedding", "clip.vision.embeddings.position_embedding.weight"),
    (r"encoder\.visual\.conv1\.weight", "clip.vision.embeddings.patch_embedding.weight"),
    (r"encoder\.visual\.ln_pre\.(.+)", r"clip.vision.pre_layrnorm.\1"),
    (r"encoder\.visual\.ln_post\.(.+)", r"clip.vision.post_layernorm.\1"),
    (r"encoder\.visual\.proj", "clip.visual_projection.weight"),
    (r"encoder\.visual\.transformer\.resblocks\.(.+)", r"clip.vision.encoder.layers.\1"),
    (r"encoder\.transformer\.resblocks\.(.+)", r"clip.text.encoder.layers.\1"),
    (r"encoder\.token_embedding\.weight", "clip.text.embeddings.token_embedding.weight"),
    (r"encoder\.positional_embedding", "clip.text.embeddings.position_embedding.weight"),
    (r"encoder\.ln_final\.(.+)", r"clip.text.final_layer_norm.\1"),
    (r"encoder\.text_projection", "clip.text_projection.weight"),
    (r"encoder\.logit_scale", "clip.logit_scale"),
    (r"text_proj\.(.+)", r"ssp_encoder.linguistic.gru.\1"),
    (r"clip_proj\.(.+)", r"ssp_encoder.linguistic.word_proj.\1"),
    (r"phrase_attn\.fc\.(.+)", r"ssp_encoder.linguistic.score.\1"),
    (r"clip_img_proj\.layers\.(.+)", r"ssp_encoder.visual.patch_mlp.\1"),
    (r"img2text_attn\.(.+)", r"ssp_encoder.visual.words_to_patches.\1"),
    (r"imgtext_proj\.layers\.0\.(.+)", r"ssp_encoder.visual.words_proj.\1"),
    (r"img_proj\.layers\.0\.(.+)", r"ssp_encoder.visual.patch_proj.\1"),
    (r"norm_img\.(.+)", r"ssp_encoder.visual.norm.\1"),
    (r"tf_scale", "ssp_encoder.visual.gate_scale"),
    (r"tf_sigma", "ssp_encoder.visual.gate_sigma"),
    (r"mlp\.(.+)", r"ssp_encoder.fusion.\1"),
    (r"reg_token\.weight", "ssp_encoder.box_token"),
    (r"prompt_token\.weight", "ssp_encoder.prompt_tokens"),
    (r"vl_pos_embed\.weight", "ssp_encoder.positions"),
    (r"vl_transformer\.encoder\.layers\.(.+)", r"ssp_encoder.layers.\1"),
    (r"norm\.(.+)", r"ssp_encoder.norm.\1"),
    (r"bbox_embed\.layers\.(.+)", r"ssp_encoder.box_head.\1"),
]
_COMPILED = [(re.compile(theirs), ours) for theirs, ours in _NAMES]

#: Inside a CLIP block, once the block itself has its new name.
_BLOCK_NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "attn.proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_JOINT_QKV = re.compile(r"attn\.(?:in_proj_|qkv\.)(weight|bias)$")


def is_authors_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is spelled the authors' way."""
    return "vl_pos_embed.weight" in state


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' tensors to `SSPSAM`'s own; unknown names pass through unchanged."""
    return {name: tensor for key in state for name, tensor in _converted(key, state[key])}


def _converted(key: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if _UNUSED.match(key):
        return
    for theirs, ours in _COMPILED:
        match = theirs.fullmatch(key)
        if match:
            name = match.expand(ours)
            break
    else:
        yield key, tensor  # the strict load lists it as an extra tensor
        return
    if key in ("encoder.visual.proj", "encoder.text_projection"):
        yield name, tensor.T.contiguous()  # theirs multiplies from the right
    elif ".encoder.layers." in name:
        yield from _block(name, tensor)
    elif ".patch_mlp." in name or ".box_head." in name:
        stem, layer, suffix = name.rsplit(".", 2)
        yield f"{stem}.{2 * int(layer)}.{suffix}", tensor  # ReLUs stand between our layers
    else:
        yield name, tensor


def _block(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    joint = _JOINT_QKV.search(name)
    if joint:
        for part, piece in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{name[: joint.start()]}self_attn.{part}_proj.{joint[1]}", piece.contiguous()
        return
    for theirs, ours in _BLOCK_NAMES.items():
        if f".{theirs}." in name:
            yield name.replace(f".{theirs}.", f".{ours}."), tensor
            return
    yield name, tensor


def infer_config(state: Mapping[str, Tensor]) -> SSPSAMConfig:
    """Every size from the shapes of an authors' state dict.

    What shapes cannot tell is as published: CLIP heads of 64 channels, 8 heads in the SSP encoder
    and in SAM's decoder, surgery in the last 6 blocks.

    Raises:
        ArchitectureError: a tensor that tells a size is missing.
    """
    try:
        clip = _clip_config(state)
        return SSPSAMConfig(clip=clip, ssp=_ssp_config(state), sam=_sam_config(state))
    except KeyError as error:
        raise ArchitectureError(f"not an SSP-SAM checkpoint: it has no tensor {error}") from error
    except (IndexError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ArchitectureError(f"not an SSP-SAM checkpoint: a tensor has another shape ({error})") from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of consecutive layers under `prefix`."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(m[1]) for key in state if (m := pattern.match(key))), default=-1)


def _clip_config(state: Mapping[str, Tensor]) -> CLIPConfig:
    vision_width, _, patch, _ = state["encoder.visual.conv1.weight"].shape
    vocab_size, text_width = state["encoder.token_embedding.weight"].shape
    grid = round((len(state["encoder.visual.positional_embedding"]) - 1) ** 0.5)
    vision_layers = _count(state, "encoder.visual.transformer.resblocks.")
    return CLIPConfig(
        image_size=grid * patch,
        patch_size=patch,
        embed_dim=state["encoder.visual.proj"].shape[1],
        vision_width=vision_width,
        vision_layers=vision_layers,
        vision_heads=max(1, vision_width // 64),
        text_width=text_width,
        text_layers=_count(state, "encoder.transformer.resblocks."),
        text_heads=max(1, text_width // 64),
        surgery_layers=min(6, vision_layers),
        vocab_size=vocab_size,
        context_length=len(state["encoder.positional_embedding"]),
    )


def _ssp_config(state: Mapping[str, Tensor]) -> SSPConfig:
    return SSPConfig(
        width=len(state["clip_proj.weight"]),
        prompts=len(state["prompt_token.weight"]),
        layers=_count(state, "vl_transformer.encoder.layers."),
        feed_forward=len(state["vl_transformer.encoder.layers.0.linear1.weight"]),
    )


def _sam_config(state: Mapping[str, Tensor]) -> SAMConfig:
    encoder, decoder = "sam.image_encoder.", "sam.mask_decoder."
    width, _, patch, _ = state[encoder + "patch_embed.proj.weight"].shape
    grid = state[encoder + "pos_embed"].shape[1]
    depth = _count(state, encoder + "blocks.")
    tables = [state[f"{encoder}blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    sides = [(length + 1) // 2 for length, _ in tables]
    return SAMConfig(
        encoder_width=width,
        encoder_depth=depth,
        encoder_heads=width // tables[0][1],
        global_blocks=tuple(i for i, side in enumerate(sides) if side == grid),
        image_size=grid * patch,
        patch_size=patch,
        window=min(sides, default=14) if min(sides) < grid else 14,
        embed_dim=len(state[encoder + "neck.0.weight"]),
        mask_channels=len(state["sam.prompt_encoder.mask_downscaling.4.weight"]),
        decoder_depth=_count(state, decoder + "transformer.layers."),
        decoder_mlp=len(state[decoder + "transformer.layers.0.mlp.lin1.weight"]),
        iou_hidden=len(state[decoder + "iou_prediction_head.layers.0.weight"]),
    )
