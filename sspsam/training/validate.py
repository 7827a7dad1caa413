"""Validation metrics on held-out data, and a contact sheet of predictions."""

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
from sspsam.scenes.atlas import load_atlas
from sspsam.scenes.scene import SPLITS
from sspsam.training.losses import generalized_iou, mask_iou, to_corners
from sspsam.training.process import Process, Source
from sspsam.training.scene_batches import Batch
from sspsam.training.stages import NOTHING, align, patches_and_sentences, points
from sspsam.training.train_config import TrainConfig

#: Seed of validation scenes: training seeds below it never meet them.
VALIDATION_SEED = SPLITS["validation"][0]
_CHUNK = 16  # scenes at a time


@torch.no_grad()
def validate(
    model: SSPSAM,
    source: Source,
    config: TrainConfig,
    picture: Path | None = None,
    process: Process | None = None,
) -> dict[str, float]:
    """Validation metrics of a stage: losses in the towers' stages, IoU by kind of phrase in the others.

    Each process measures its share; all of them return the metrics of the whole, as one process would.
    """
    process = process or Process()
    model.eval()
    shares: dict[int, dict[str, list[float]]] = {}
    for start in range(0, config.validation_scenes, _CHUNK)[process.rank :: process.world]:
        sums = shares[start] = defaultdict(list)
        stop = min(start + _CHUNK, config.validation_scenes)
        indices = np.arange(start, stop, dtype=np.int64)
        batch = source.make(indices, config.phrases, Random(start), model.device)
        if config.stage == "align":
            _validate_align(model, batch, config, sums)
        elif config.stage == "points":
            losses = points(model, batch, config, None)
            sums["miou"].append(1 - float(losses["dice"]) / config.dice_weight)
        else:
            _validate_prompts(model, batch, sums, picture if start == 0 else None)
    model.train()
    all_shares = {start: share for part in process.gather(shares) for start, share in part.items()}
    values: dict[str, list[float]] = defaultdict(list)
    for _, share in sorted(all_shares.items()):
        for name, measured in share.items():
            values[name] += measured
    return {name: float(np.mean(measured)) for name, measured in sorted(values.items())}


def _validate_align(model: SSPSAM, batch: Batch, config: TrainConfig, sums: dict[str, list[float]]) -> None:
    for name, value in align(model, batch, config, None).items():
        sums[f"loss_{name}"].append(float(value))
    names = [*load_atlas().pool("train")[0], NOTHING]
    patches, sentences = patches_and_sentences(model, batch.clip_pixels, names)
    guess = (patches @ sentences.T).argmax(-1).view_as(batch.patch_names)
    right = guess == batch.patch_names
    is_object = (batch.patch_names >= 0) & (batch.patch_names < len(names) - 1)
    sums["object_patches"].append(float(right[is_object].float().mean()))
    sums["background_patches"].append(float(right[batch.patch_names == len(names) - 1].float().mean()))


def _validate_prompts(
    model: SSPSAM, batch: Batch, sums: dict[str, list[float]], picture: Path | None
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
            sums["gIoU"].append(float(ious[i]))
        else:
            sums["N-acc"].append(float(few[i]))
            sums["gIoU"].append(float(few[i]))  # of all phrases: silence is right here
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        _sheet(batch, drawn, prompt.gate, ious).save(picture)


def square_masks(model: SSPSAM, logits: Tensor) -> Tensor:
    """(N, L, L) logits to (N, M, M) bool in the scoring square: up to SAM's size, then to M."""
    large, side = model.config.sam.image_size, model.config.score_size
    full = F.interpolate(logits[:, None], size=(large, large), mode="bilinear")
    return F.interpolate(full, size=(side, side), mode="bilinear")[:, 0] > 0


def _sheet(batch: Batch, drawn: Tensor, gate: Tensor, ious: Tensor) -> Image.Image:
    """A row an image, a tile a phrase, six of each at most: the picture with the truth in green, the
    answer in red, both in yellow; the gate in the corner."""
    most, side, line = 6, 160, 14  # pixels of a tile and of its text
    low, high = batch.sam_pixels.amin(), batch.sam_pixels.amax()
    pictures = ((batch.sam_pixels - low) / (high - low) * 255).byte().permute(0, 2, 3, 1).cpu()
    sheet = Image.new("RGB", (side * most, (side + line) * min(most, len(pictures))))
    pen = ImageDraw.Draw(sheet)
    for image in range(min(most, len(pictures))):
        top = image * (side + line)
        base = Image.fromarray(pictures[image].numpy()).resize((side, side)).convert("RGB")
        for column, i in enumerate((batch.image_index == image).nonzero().flatten().tolist()[:most]):
            pixels = np.asarray(base).astype(np.float32) * 0.6
            for channel, mask in ((1, batch.masks[i]), (0, drawn[i])):
                big = Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255)
                pixels[..., channel] += 0.4 * np.asarray(big.resize((side, side)))
            heat = Image.fromarray((gate[i].clamp(0, 1) * 255).byte().cpu().numpy())
            small = heat.resize((side // 3, side // 3), Image.Resampling.NEAREST)
            left, bottom = column * side, top + line + side
            sheet.paste(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), (left, top + line))
            sheet.paste(small, (left + side - side // 3, bottom - side // 3))
            pen.text((left + 2, top + 1), f"{batch.phrases[i][:23]} {ious[i]:.2f}", fill="white")
    return sheet
