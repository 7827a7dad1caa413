"""How good a model is on scenes that it has not seen, and a sheet of pictures to look at."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from sspsam.modeling.model import SSPSAM
from sspsam.scenes.scene import SPLITS
from sspsam.training.losses import generalized_iou, mask_iou, to_corners
from sspsam.training.process import Source
from sspsam.training.scene_batches import Batch
from sspsam.training.stages import align, points
from sspsam.training.train_config import TrainConfig

#: Seed of validation scenes: training seeds below it never meet them.
VALIDATION_SEED = SPLITS["validation"][0]
_CHUNK = 16  # scenes at a time


@torch.no_grad()
def validate(
    model: SSPSAM, source: Source, config: TrainConfig, picture: Path | None = None
) -> dict[str, float]:
    """Measures of a stage: losses for the towers' stages, IoU by kind of phrase for the others."""
    model.eval()
    sums: dict[str, list[float]] = defaultdict(list)
    rows: list[Image.Image] = []
    for start in range(0, config.validation_scenes, _CHUNK):
        stop = min(start + _CHUNK, config.validation_scenes)
        indices = np.arange(start, stop, dtype=np.int64)
        batch = source.make(indices, config.phrases, Random(start), model.device)
        if config.stage == "align":
            _validate_align(model, batch, config, sums)
        elif config.stage == "points":
            losses = points(model, batch, config, None)
            sums["miou"].append(1 - float(losses["dice"]) / config.dice_weight)
        else:
            _validate_prompts(model, batch, sums, rows if start == 0 else None)
    if picture is not None and rows:
        picture.parent.mkdir(parents=True, exist_ok=True)
        _stack(rows).save(picture)
    model.train()
    return {name: float(np.mean(values)) for name, values in sorted(sums.items())}


def _validate_align(model: SSPSAM, batch: Batch, config: TrainConfig, sums: dict[str, list[float]]) -> None:
    for name, value in align(model, batch, config, None).items():
        sums[f"loss_{name}"].append(float(value))
    patches = F.normalize(model.clip.encode_image(batch.clip_pixels), dim=1)[:, 1:]
    names = [*names_of_pool(), "background"]
    sentences = F.normalize(model.clip.encode_text(model.tokenize(names).to(model.device))[1], dim=-1)
    guess = (patches @ sentences.T).argmax(-1).view_as(batch.patch_names)
    right = guess == batch.patch_names
    is_object = (batch.patch_names >= 0) & (batch.patch_names < len(names) - 1)
    sums["object_patches"].append(float(right[is_object].float().mean()))
    sums["background_patches"].append(float(right[batch.patch_names == len(names) - 1].float().mean()))


def names_of_pool() -> list[str]:
    from sspsam.scenes.atlas import load_atlas

    return list(load_atlas().pool("train")[0])


def _validate_prompts(
    model: SSPSAM, batch: Batch, sums: dict[str, list[float]], rows: list[Image.Image] | None
) -> None:
    features = model.encode_image(batch.clip_pixels, batch.sam_pixels)
    text = model.encode_text(model.tokenize(batch.phrases).to(model.device))
    prompt = model.prompt(features, text, batch.image_index)
    logits, _ = model.decode(features.sam_embedding, prompt.prompts, batch.image_index)
    drawn = square_masks(model, logits)
    # The authors' rule: too few positive pixels mean that there is no target.
    few = drawn.flatten(1).sum(1) < model.config.min_target_pixels
    answered = drawn & ~few[:, None, None]
    ious = mask_iou(answered, batch.masks)
    box_ious = generalized_iou(to_corners(prompt.boxes), to_corners(batch.boxes)).clamp_min(0)
    targeted = batch.boxes.any(1)  # also where only the box is known
    wanted = batch.mentioned >= 0.4
    gate_iou = mask_iou(prompt.gate > 0.5, wanted)
    for i, kind in enumerate(batch.kinds):
        if targeted[i]:
            sums[kind].append(float(ious[i]))
            sums["miou"].append(float(ious[i]))
            sums["box"].append(float(box_ious[i]))
            sums["gate"].append(float(gate_iou[i]))
            sums["T-acc"].append(float(not few[i]))
        else:
            sums["N-acc"].append(float(few[i]))
    if rows is not None:
        rows.extend(_picture_rows(batch, drawn, prompt.gate, ious))


def square_masks(model: SSPSAM, logits: Tensor) -> Tensor:
    """(N, L, L) logits to (N, M, M) bool in the scoring square: up to SAM's size, then to M."""
    large, side = model.config.sam.image_size, model.config.score_size
    full = F.interpolate(logits[:, None], size=(large, large), mode="bilinear")
    return F.interpolate(full, size=(side, side), mode="bilinear")[:, 0] > 0


def _picture_rows(batch: Batch, drawn: Tensor, gate: Tensor, ious: Tensor) -> list[Image.Image]:
    """A tile a phrase: picture, truth in green, answer in red, both in yellow; the gate beside it."""
    side = 160
    rows = []
    low, high = batch.sam_pixels.amin(), batch.sam_pixels.amax()
    pictures = ((batch.sam_pixels - low) / (high - low) * 255).byte().permute(0, 2, 3, 1).cpu()
    for image in range(min(6, len(pictures))):
        tiles = []
        for i in (batch.image_index == image).nonzero().flatten().tolist()[:6]:
            base = Image.fromarray(pictures[image].numpy()).resize((side, side)).convert("RGB")
            pixels = np.asarray(base).astype(np.float32) * 0.6
            for channel, mask in ((1, batch.masks[i]), (0, drawn[i])):
                big = Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255)
                pixels[..., channel] += 0.4 * np.asarray(big.resize((side, side)))
            heat = (gate[i].clamp(0, 1) * 255).byte().cpu().numpy()
            small = Image.fromarray(heat).resize((side // 3, side // 3), Image.Resampling.NEAREST)
            tile = Image.new("RGB", (side, side + 14))
            tile.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), (0, 14))
            tile.paste(small.convert("RGB"), (side - side // 3, 14 + side - side // 3))
            ImageDraw.Draw(tile).text((2, 1), f"{batch.phrases[i][:23]} {ious[i]:.2f}", fill="white")
            tiles.append(tile)
        row = Image.new("RGB", (side * 6, side + 14))
        for column, tile in enumerate(tiles):
            row.paste(tile, (column * side, 0))
        rows.append(row)
    return rows


def _stack(rows: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
