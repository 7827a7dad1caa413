"""sam3 and grounded-sam against transformers' own processors and forward passes, on tiny random models."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from sspsam.errors import CheckpointError, ConfigError, UnknownModelError
from sspsam.open_models.named import named_model
from sspsam.open_models.open_segmenter import OpenSegmenter
from sspsam.open_models.protocol import Drawing
from tests.sspsam.open_models import tiny

PHRASES = ("a red square", "the dog", "Blue circle next to the ball")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("open")
    made = {kind: tiny.segmenter(root / kind, kind) for kind in tiny.SEGMENTERS}
    made["sam3"] = tiny.sam3(root / "sam3")
    made["dino"] = tiny.grounding_dino(root / "dino")
    made["mm"] = tiny.grounding_dino(root / "mm", multi=True)
    return made


def image(width: int = 90, height: int = 70) -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((-(-height // 4), -(-width // 4), 1), np.uint8))[:height, :width]


def load(name: str, **options: Any) -> Any:
    segmenter = named_model(name, options).load("cpu")
    assert isinstance(segmenter, OpenSegmenter)
    return segmenter.model


def drawn(model: Any, *phrases: str) -> list[Drawing]:
    with torch.inference_mode():
        return list(model.draw(image(), phrases))


def same(one: Drawing, mask: torch.Tensor, scores: torch.Tensor) -> None:
    """Equal but for pixels whose logit is at the threshold: batches round differently."""
    assert (one.mask != mask.numpy()).sum() <= 3
    assert one.mask.any() == bool(len(scores))
    assert one.score == (pytest.approx(float(scores.max()), abs=1e-5) if len(scores) else None)


def counting(counts: Counter[str], name: str, module: torch.nn.Module) -> None:
    module.register_forward_hook(lambda *_: counts.update([name]))


@torch.inference_mode()
def test_sam3_is_transformers_own_and_encodes_once(folders: dict[str, Path]) -> None:
    model = load(f"sam3:{folders['sam3']}", threshold=0.24, phrases_per_batch=2)
    counts: Counter[str] = Counter()
    counting(counts, "vision", model.model.vision_encoder)
    counting(counts, "text", model.model.text_encoder)
    found = drawn(model, *PHRASES)
    assert counts == {"vision": 1, "text": 2}
    assert drawn(model, *PHRASES[::-1])[0].score == pytest.approx(found[-1].score, abs=1e-5)
    assert counts == {"vision": 2, "text": 2}
    processor = transformers.ViTImageProcessorPil(
        size={"height": 112, "width": 112}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
    )
    pixels = processor(Image.fromarray(image()), return_tensors="pt")["pixel_values"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["sam3"])
    kept = []
    for phrase, one in zip(PHRASES, found, strict=True):
        text = tokenizer([phrase], padding="max_length", max_length=32, truncation=True, return_tensors="pt")
        out = model.model(pixel_values=pixels, **text)
        # As Sam3ImageProcessor.post_process_instance_segmentation, which needs torchvision to be imported.
        scores = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0]
        masks = (
            F.interpolate(out.pred_masks.sigmoid(), (70, 90), mode="bilinear", align_corners=False)[0] > 0.5
        )
        chosen = scores > 0.24
        kept.append(int(chosen.sum()))
        same(one, masks[chosen].any(dim=0), scores[chosen])
        assert one.predicted_iou is one.clip_score is None
        assert one.truncated == (len(tokenizer(phrase)["input_ids"]) > 32)
        if chosen.any():
            corners = out.pred_boxes[0][chosen] * torch.tensor([90, 70, 90, 70])
            x, y, width, height = one.box or (0, 0, 0, 0)
            assert (x, y) == pytest.approx(corners[:, :2].amin(dim=0).tolist(), abs=1e-3)
            assert (x + width, y + height) == pytest.approx(corners[:, 2:].amax(dim=0).tolist(), abs=1e-3)
            assert 0 <= one.stability <= 1  # type: ignore[operator]
    assert min(kept) < 5  # the threshold is what decides
    assert max(kept) > 0
    nothing = drawn(load(f"sam3:{folders['sam3']}", threshold=1.0), *PHRASES)
    assert not any(one.mask.any() or one.score or one.box for one in nothing)


@torch.inference_mode()
@pytest.mark.parametrize(("detector", "segmenter"), [("dino", "sam"), ("mm", "sam_hq"), ("dino", "sam2")])
def test_grounded_sam_is_transformers_own_and_encodes_once(
    folders: dict[str, Path], detector: str, segmenter: str
) -> None:
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    name = f"grounded-sam:{folders[detector]}+{folders[segmenter]}"
    every = load(name, threshold=0.0)
    boxes_of = every._detector
    scores = torch.cat([found for _, found, _ in boxes_of.find(image(), PHRASES, 0.0)])
    threshold = float(scores.quantile(0.8))  # of random weights: some boxes of some phrases
    model = load(name, threshold=threshold, phrases_per_batch=2)
    counts: Counter[str] = Counter()
    counting(counts, "backbone", model._detector._backbone.backbone)
    counting(counts, "encoder", model._segmenter.model.vision_encoder)
    found = drawn(model, *PHRASES)
    assert counts == {"backbone": 1, "encoder": 1}

    kind = {"dino": "GroundingDino", "mm": "MMGroundingDino"}[detector]
    dino = getattr(transformers, f"{kind}ForObjectDetection").from_pretrained(folders[detector]).eval()
    processor = transformers.GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folders[detector]),
        transformers.AutoTokenizer.from_pretrained(folders[detector]),
    )
    sam = model._segmenter.model
    kept = 0
    for phrase, one in zip(PHRASES, found, strict=True):
        inputs = processor(images=Image.fromarray(image()), text=[[phrase]], return_tensors="pt")
        (result,) = processor.post_process_grounded_object_detection(
            dino(**inputs), threshold=threshold, target_sizes=[(70, 90)]
        )
        kept += len(result["scores"])
        mask = torch.zeros(70, 90, dtype=torch.bool)
        for box in result["boxes"]:
            if segmenter == "sam2":
                stretch = transformers.ViTImageProcessorPil(**(model._segmenter._settings | {"resample": 2}))
                pixels = stretch(Image.fromarray(image()), return_tensors="pt")["pixel_values"]
                scale = torch.tensor([64 / 90, 64 / 70, 64 / 90, 64 / 70])
                out = sam(pixels, input_boxes=(box * scale)[None, None], multimask_output=False)
                logits = F.interpolate(out.pred_masks[0], (70, 90), mode="bilinear", align_corners=False)
                mask |= logits[0, 0] > 0
            else:
                squares = transformers.SamProcessor(SamImageProcessorPil.from_pretrained(folders[segmenter]))
                given = squares(Image.fromarray(image()), input_boxes=[[box.tolist()]], return_tensors="pt")
                out = sam(
                    given["pixel_values"], input_boxes=given["input_boxes"].float(), multimask_output=False
                )
                sizes = (given["original_sizes"], given["reshaped_input_sizes"])
                mask |= squares.image_processor.post_process_masks(out.pred_masks, *sizes)[0][0, 0]
        same(one, mask, result["scores"])
        assert (one.predicted_iou is None) == (not len(result["scores"]))
        assert one.clip_score is None
    assert 0 < kept < 30
    for phrase, one in zip(PHRASES, found, strict=True):  # what else is asked for changes nothing
        (alone,) = drawn(model, phrase)
        assert (alone.mask != one.mask).sum() <= 3
    (long,) = drawn(model, " ".join(["red ball"] * 20))
    assert long.truncated


def test_models_that_cannot_be_had_are_said(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    sam3, dino, sam = (str(folders[name]) for name in ("sam3", "dino", "sam"))
    first = named_model(f"grounded-sam:{dino}+{sam}").digest()
    assert first != named_model(f"grounded-sam:{dino}+{folders['sam2']}").digest()
    for name, error, message in (
        (
            "sam3:facebook/sam3",
            UnknownModelError,
            "facebook/sam3 is no folder here, and not had from the hub",
        ),
        ("sam3:no such", UnknownModelError, "no such is no folder here, and not org/repo"),
        (f"grounded-sam:{sam}+{dino}", CheckpointError, "type sam; wanted here: grounding-dino or mm"),
        (f"grounded-sam:{dino}+{dino}", CheckpointError, "type grounding-dino; wanted here: sam or"),
        (f"sam3:{sam}", CheckpointError, "type sam; wanted here: sam3 or sam3_video"),
        (f"sam3:{tmp_path}", CheckpointError, r"holds no config\.json"),
    ):
        with pytest.raises(error, match=message):
            named_model(name).digest()
    (tmp_path / "config.json").write_text('{"model_type": "sam3"}')
    with pytest.raises(CheckpointError, match=r"holds no \.safetensors file"):
        named_model(f"sam3:{tmp_path}").digest()
    less = shutil.copytree(sam, tmp_path / "less")
    tensors = load_file(less / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if "neck" not in k}, less / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights of SamModel, such as .*neck"):
        named_model(f"grounded-sam:{dino}+{less}").load("cpu")
    for options in ({"threshold": 2}, {"threshold": "0.5"}, {"phrases_per_batch": 0}):
        with pytest.raises(ConfigError, match='--model-options "'):
            named_model(f"sam3:{sam3}", options)
    home = str(folders["sam3"].parent)
    monkeypatch.chdir(tmp_path)
    assert named_model("sam3:sam3", home=home).sources == (sam3,)
