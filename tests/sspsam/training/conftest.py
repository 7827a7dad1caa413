"""A model and scenes small enough to train within a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.scenes import SceneConfig
from sspsam.training.scene_batches import SceneSource


@pytest.fixture(scope="session")
def small_config() -> SSPSAMConfig:
    tiny = SSPSAMConfig.preset("tiny")
    return SSPSAMConfig(
        clip=replace(tiny.clip, image_size=32, vision_width=32, vision_layers=2, vision_heads=2),
        ssp=replace(tiny.ssp, width=32, prompts=2, layers=1, feed_forward=32),
        sam=replace(
            tiny.sam,
            image_size=64,
            encoder_width=32,
            encoder_depth=1,
            encoder_heads=2,
            global_blocks=(0,),
            window=4,
            embed_dim=32,
            decoder_mlp=32,
            iou_hidden=16,
        ),
        score_size=32,
        min_target_pixels=2,
    )


@pytest.fixture
def small_model(small_config: SSPSAMConfig) -> SSPSAM:
    import torch

    torch.manual_seed(0)
    return SSPSAM(small_config)


@pytest.fixture(scope="session")
def small_scenes(small_config: SSPSAMConfig) -> SceneSource:
    return SceneSource(small_config, SceneConfig(size=64), seed=0)
