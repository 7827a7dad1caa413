"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from sspsam import SSPSAM, SSPSAMConfig
from tests import reliability
from tests.hub_server import Hub, hub_server
from tests.micro_model import micro_config
from tests.seed import SEED

# The same examples each time, so that what passed passes again; `make fuzz` looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")
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


@pytest.fixture(scope="session", name="micro_config")
def _micro_config() -> SSPSAMConfig:
    return micro_config()


@pytest.fixture(scope="session")
def micro_model(micro_config: SSPSAMConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of that layout, random weights of seed 0."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "micro"
    SSPSAM(micro_config).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, with huggingface_hub's settings as its environment variables would make them."""
    from huggingface_hub import constants

    from sspsam.storage import local_copies

    with hub_server() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(local_copies, "_FIRST_PAUSE_S", 0.01)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What became of each fault that a test recorded, as one table; RELIABILITY=PATH keeps it."""
    if not reliability.RECORDED:
        return
    terminalreporter.section(f"faults, SEED={SEED}")
    terminalreporter.write_line(reliability.table())
    if path := os.environ.get("RELIABILITY"):
        reliability.write(Path(path), str(SEED))
