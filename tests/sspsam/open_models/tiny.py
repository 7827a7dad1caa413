"""Tiny random models in transformers' layout, as folders: SAM 3, both detectors, three segmenters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

_SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
_STRETCHED = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "a", "the", "red", "blue", "green"),
    *("square", "circle", "ball", "dog", "next", "to"),
]
SEGMENTERS = ("sam", "sam_hq", "sam2")


def sam3(folder: Path) -> Path:
    """SAM 3 over 112 x 112 pixels with five queries."""
    backbone = {
        **{
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
        },
        **{"num_attention_heads": 2, "image_size": 112, "patch_size": 14, "pretrain_image_size": 56},
        **{"window_size": 2, "global_attn_indexes": [1]},
    }
    vision = {
        **{"backbone_config": backbone, "fpn_hidden_size": 32, "scale_factors": [4.0, 2.0, 1.0, 0.5]},
        **{"backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "model_type": "sam3_vision_model"},
    }
    text = {**_SMALL, "vocab_size": 400, "projection_dim": 32, "num_hidden_layers": 1}
    text |= {"max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config={**_SMALL, "num_layers": 1},
        detr_encoder_config={**_SMALL, "num_layers": 1},
        detr_decoder_config={**_SMALL, "num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_upsampling_stages": 3, "num_attention_heads": 2},
    )
    save(folder, transformers.Sam3Model, config)
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    transformers.CLIPTokenizer(
        vocab={word: at for at, word in enumerate(vocabulary)}, merges=[]
    ).save_pretrained(folder)
    return settings(folder, size={"height": 112, "width": 112}, **_STRETCHED)


def grounding_dino(folder: Path, multi: bool = False) -> Path:
    """Grounding DINO, or MM Grounding DINO, with ten queries over images of at most 64 pixels."""
    prefix = "MMGroundingDino" if multi else "GroundingDino"
    swin = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4,
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    text = transformers.BertConfig(
        **_SMALL, num_hidden_layers=1, vocab_size=len(_WORDS), max_position_embeddings=64
    )
    config = getattr(transformers, f"{prefix}Config")(
        backbone_config=swin, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        num_queries=10, num_feature_levels=3, max_text_len=16,
    )  # fmt: skip
    save(folder, getattr(transformers, f"{prefix}ForObjectDetection"), config)
    transformers.BertTokenizer(vocab={word: at for at, word in enumerate(_WORDS)}).save_pretrained(folder)
    sides = {"shortest_edge": 48, "longest_edge": 64}
    return settings(folder, size=sides, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def segmenter(folder: Path, kind: str) -> Path:
    """SAM, SAM-HQ or SAM 2 over 64 x 64 pixels."""
    mask = {**_SMALL, "mlp_dim": 32, "iou_head_hidden_dim": 32}
    normal = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    if kind == "sam2":
        hiera = {
            **{"model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1},
            **{
                "image_size": [64, 64],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
            },
            **{"num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2]},
            **{"global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4]},
        }
        vision = {
            **{"backbone_config": hiera, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32},
            **{"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "model_type": "sam2_vision_model"},
        }
        prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
        config: Any = transformers.Sam2Config(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask
        )
        save(folder, transformers.Sam2Model, config)
        return settings(folder, size={"height": 64, "width": 64}, **normal)
    vision = {**_SMALL, "image_size": 64, "patch_size": 16, "output_channels": 32, "num_hidden_layers": 2}
    vision |= {"mlp_dim": 64, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16}
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "image_embedding_size": 4}
    prefix = {"sam": "Sam", "sam_hq": "SamHQ"}[kind]
    if kind == "sam_hq":
        mask["vit_dim"] = 32
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask
    )
    save(folder, getattr(transformers, f"{prefix}Model"), config)
    padded = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    return settings(folder, **padded, **normal)


def save(folder: Path, kind: Any, config: Any) -> None:
    """Random weights, spread out so that scores and masks differ between queries and pixels."""
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.dim() > 1 and "embed" not in name:
                values.mul_(20.0 if "mask" in name else 2.5)
    model.save_pretrained(folder)


def settings(folder: Path, **values: Any) -> Path:
    """The folder's preprocessor_config.json, as published repositories have it."""
    (folder / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder
