"""What the tests of the annotate job share: a model that takes milliseconds, and a Ray of their own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig

# Before Ray is imported anywhere: one setting on every side, and never a cluster of somebody else.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ADDRESS"] = "local"


@pytest.fixture(scope="session")
def micro_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the real classes, so small that its speed does not matter."""
    tiny = SSPSAMConfig.preset("tiny")
    config = dataclasses.replace(
        tiny,
        clip=dataclasses.replace(tiny.clip, image_size=48, vision_width=48, vision_layers=2, text_layers=1),
        ssp=dataclasses.replace(tiny.ssp, width=32, prompts=4, layers=1, feed_forward=64),
        sam=dataclasses.replace(
            tiny.sam,
            image_size=64,
            encoder_width=32,
            encoder_depth=2,
            global_blocks=(1,),
            window=2,
            embed_dim=32,
            decoder_mlp=32,
            iou_hidden=32,
        ),
        score_size=64,
        min_target_pixels=10,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "micro"
    SSPSAM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray in this process with two CPUs; ended with the session."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=2**28)
    yield
    ray.shutdown()
