"""A model and scenes small enough to train within a test."""

from __future__ import annotations

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig
from sspsam.scenes import SceneConfig
from sspsam.training.scene_batches import SceneSource


@pytest.fixture
def small_model(micro_config: SSPSAMConfig) -> SSPSAM:
    torch.manual_seed(0)
    return SSPSAM(micro_config)


@pytest.fixture(scope="session")
def small_scenes(micro_config: SSPSAMConfig) -> SceneSource:
    return SceneSource(micro_config, SceneConfig(size=64), seed=0)
