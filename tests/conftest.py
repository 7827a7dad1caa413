"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig

torch.set_num_threads(1)  # two cores: the processes under test need the other one


@pytest.fixture(scope="session")
def tiny_model() -> SSPSAM:
    """The tiny layout with random weights of seed 0, in evaluation mode on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of random weights: meant here
        return SSPSAM.from_pretrained("random:tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_model: SSPSAM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` saved as a folder."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> SSPSAMConfig:
    return SSPSAMConfig.preset("tiny")
