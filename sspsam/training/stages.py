"""What each stage minimises: model and batch in, named losses out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sspsam.modeling.model import SSPSAM
from sspsam.scenes.atlas import load_atlas
from sspsam.training.features import FeatureCache
from sspsam.training.losses import (
    box_l1_loss,
    corners_of,
    dice_loss,
    focal_loss,
    gate_loss,
    giou_loss,
    mask_iou,
)
from sspsam.training.scene_batches import Batch
from sspsam.training.train_config import TrainConfig

Losses = dict[str, Tensor]  # each already weighted; their sum is minimised

#: The text for patches that show no object.
NOTHING = "background"


def align(model: SSPSAM, batch: Batch, config: TrainConfig, cache: FeatureCache | None) -> Losses:
    """Patches against the words of what they show, both ways.

    Each clear patch picks its name among all names of the pool and "background"; each phrase picks
    its patches among those of its image. Both see patches as the SSP encoder does: divided by their
    norm over the token axis.
    """
    names = _class_phrases(batch)
    patches, sentences = patches_and_sentences(model, batch.clip_pixels, [*names, *batch.phrases])
    scale = model.clip.logit_scale.exp().clamp(max=100)
    classes, phrases = sentences[: len(names)], sentences[len(names) :]
    logits = scale * patches @ classes.T
    losses = {"names": F.cross_entropy(logits.flatten(0, 1), batch.patch_names.flatten(), ignore_index=-1)}
    shown = batch.mentioned.flatten(1)
    has = shown.sum(1) > 0.5
    similarity = scale * torch.einsum("npe,ne->np", patches[batch.image_index], phrases)
    wanted = shown / shown.sum(1, keepdim=True).clamp_min(1e-6)
    picked = -(wanted * similarity.log_softmax(1)).sum(1)
    losses["phrases"] = 0.3 * (picked * has).sum() / has.sum().clamp_min(1)
    return losses


def patches_and_sentences(model: SSPSAM, pixels: Tensor, phrases: list[str]) -> tuple[Tensor, Tensor]:
    """(B, G*G, E) patches of CLIP's inputs, divided by their norm over the token axis; (N, E) phrases."""
    patches = F.normalize(model.clip.encode_image(pixels), dim=1)[:, 1:]
    ids = model.tokenize(phrases).to(patches.device)
    return patches, F.normalize(model.clip.encode_text(ids)[1], dim=-1)


def _class_phrases(batch: Batch) -> list[str]:
    """Every name of the training pool, by a synonym now and then, and "background"."""
    names, drawings = load_atlas().pool("train")
    sprites = load_atlas().sprites
    choice = int(batch.scenes[0])  # the same for the same batch
    said = []
    for i, name in enumerate(names):
        words = (name, name, f"the {name}", *sprites[drawings[name][0]].synonyms)
        said.append(words[(choice + 7 * i) % len(words)])
    return [*said, NOTHING]


def points(model: SSPSAM, batch: Batch, config: TrainConfig, cache: FeatureCache | None) -> Losses:
    """One object's mask from points on it or a box around it, as SAM was pre-trained."""
    side = batch.object_masks.shape[-1]
    areas = batch.object_masks.flatten(2).sum(2)
    generator = torch.Generator().manual_seed(int(batch.scenes[0]) * 7919 + len(batch.scenes))
    seen = (areas > 0.004 * side * side).float()
    seen[:, 0] += 1e-6  # a picture of slivers still needs one row to draw from
    slot = torch.multinomial(seen.cpu(), config.phrases, replacement=True, generator=generator)
    rows = torch.arange(len(seen)).repeat_interleave(config.phrases)
    masks = batch.object_masks[rows, slot.flatten().to(batch.object_masks.device)]
    sparse = _sparse_prompts(model, masks, generator)
    embedding = model.sam.image_encoder(batch.sam_pixels)
    logits, predicted_iou = model.sam.decode(embedding, sparse, rows.to(embedding.device))
    return mask_losses(logits, predicted_iou, masks, config)


def _sparse_prompts(model: SSPSAM, masks: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 4, C): a jittered box for the odd rows, one to three inner points for the even ones."""
    count, side = len(masks), masks.shape[-1]
    scale = model.config.sam.image_size / side
    weights = masks.flatten(1).float().cpu() + 1e-9
    chosen = torch.multinomial(weights, 3, replacement=True, generator=generator)
    xy = torch.stack([chosen % side, chosen // side], dim=-1).float()
    labels = torch.ones(count, 3)
    labels[0::4, 1:] = -1  # one point only: the others are "not a point"
    corners = corners_of(masks.cpu()).float()
    size = (corners[:, 1] - corners[:, 0]).clamp_min(1)[:, None]
    corners = corners + 0.06 * size * torch.randn(count, 2, 2, generator=generator)
    boxed = torch.arange(count) % 2 == 1
    coordinates = torch.cat([xy, xy[:, :1]], dim=1) + 0.5
    codes = torch.cat([labels, torch.full((count, 1), -1.0)], dim=1)
    coordinates[boxed, :2] = corners[boxed]
    codes[boxed] = torch.tensor([2.0, 3.0, -1.0, -1.0])  # SAM's codes of a box's two corners
    return _embedded(model, coordinates * scale, codes).to(masks.device)


def _embedded(model: SSPSAM, coordinates: Tensor, codes: Tensor) -> Tensor:
    """(N, 4, 2) pixels of SAM's square and (N, 4) codes (-1 none, 1 point, 2 and 3 corners)."""
    encoder = model.sam.prompt_encoder
    size = (model.config.sam.image_size,) * 2
    coordinates, codes = coordinates.to(model.device), codes.to(model.device).long()
    places = encoder.pe_layer.forward_with_coords(coordinates, size)
    table = torch.cat([e.weight for e in encoder.point_embeddings] + [encoder.not_a_point_embed.weight])
    nothing = codes == -1
    places = places.masked_fill(nothing[..., None], 0.0)
    return places + table[torch.where(nothing, len(table) - 1, codes)]


def boxes(model: SSPSAM, batch: Batch, config: TrainConfig, cache: FeatureCache | None) -> Losses:
    """The published first stage: the box alone, and the auxiliary loss on the gate if weighted."""
    tokens = _clip_tokens(model, batch, cache)
    text = model.encode_text(model.tokenize(batch.phrases).to(tokens.device))
    prompt = model.ssp_encoder(tokens, text, batch.image_index)
    return _box_losses(prompt.boxes, prompt.gate, batch, config)


def masks(model: SSPSAM, batch: Batch, config: TrainConfig, cache: FeatureCache | None) -> Losses:
    """The published second stage: boxes and masks."""
    tokens, embedding = _clip_tokens(model, batch, cache), _sam_embedding(model, batch, cache)
    text = model.encode_text(model.tokenize(batch.phrases).to(tokens.device))
    with encoder_tokens(model) as layers:
        prompt = model.ssp_encoder(tokens, text, batch.image_index)
    logits, predicted_iou = model.decode(embedding, prompt.prompts, batch.image_index)
    losses = _box_losses(prompt.boxes, prompt.gate, batch, config)
    if config.select_weight:
        losses["select"] = config.select_weight * select_loss(layers, batch.masks, model.config.clip.grid)
    return losses | mask_losses(logits, predicted_iou, batch.masks, config)


def _clip_tokens(model: SSPSAM, batch: Batch, cache: FeatureCache | None) -> Tensor:
    """CLIP's tokens: computed before if its tower is frozen, or now."""
    tokens = batch.clip_tokens
    if tokens is None and cache is not None:
        tokens = cache.clip_tokens(batch.scenes)
    return model.encode_clip(batch.clip_pixels) if tokens is None else tokens


def _sam_embedding(model: SSPSAM, batch: Batch, cache: FeatureCache | None) -> Tensor:
    embedding = batch.sam_embedding
    if embedding is None and cache is not None:
        embedding = cache.sam_embedding(batch.scenes)
    return model.encode_sam(batch.sam_pixels) if embedding is None else embedding


@contextmanager
def encoder_tokens(model: SSPSAM) -> Iterator[list[Tensor]]:
    """Collects what each layer of the SSP encoder's transformer puts out within the block."""
    caught: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: caught.append(output))
        for layer in model.ssp_encoder.layers
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def select_loss(layers: list[Tensor], masks: Tensor, grid: int) -> Tensor:
    """Whether each patch token knows that it is part of what is meant; mean over layers.

    A patch token's first channel is read as a logit. The gate says what a phrase names, this which of
    it the phrase means ("the left dog"): without it that choice is learned from prompts and box alone.

    Args:
        layers: (N, 1 + P + G*G, C) each, the encoder's tokens after each layer.
        masks: (N, M, M) bool.
    """
    covered = F.adaptive_avg_pool2d(masks.float()[:, None], grid).flatten(1)
    losses = [gate_loss((3 * tokens[:, -grid * grid :, 0]).sigmoid(), covered) for tokens in layers]
    return torch.stack(losses).mean()


def _box_losses(boxes: Tensor, gate: Tensor, batch: Batch, config: TrainConfig) -> Losses:
    losses = {
        "l1": config.l1_weight * box_l1_loss(boxes, batch.boxes),
        "giou": config.giou_weight * giou_loss(boxes, batch.boxes),
    }
    if config.gate_weight:
        losses["gate"] = config.gate_weight * gate_loss(gate, batch.mentioned)
    return losses


def mask_losses(logits: Tensor, predicted_iou: Tensor, masks: Tensor, config: TrainConfig) -> Losses:
    """Dice and focal on logits brought to the truth's size, and SAM's own estimate if weighted.

    Args: logits (N, L, L), predicted_iou (N,), masks (N, M, M) bool.
    """
    side = masks.shape[-1]
    logits = F.interpolate(logits[:, None], size=(side, side), mode="bilinear")[:, 0]
    targets = masks.float()
    losses = {
        "dice": config.dice_weight * dice_loss(logits, targets),
        "focal": config.focal_weight * focal_loss(logits, targets),
    }
    if config.iou_weight:
        true = mask_iou(logits.detach() > 0, masks)
        losses["iou"] = config.iou_weight * F.mse_loss(predicted_iou, true)
    return losses


STAGE_LOSSES: Final[dict[str, Callable[..., Losses]]] = {
    "align": align,
    "points": points,
    "boxes": boxes,
    "masks": masks,
}
