"""`--model hf://...` and `sspsam models`, as people meet them in their first minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import models, segment
from sspsam.storage.local_copies import file_sha256
from tests.hub_server import Hub
from tests.sspsam.modeling import parity


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_weights_of_the_authors_layout_from_a_hub(hub: Hub, photo: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT and all, in a process of its own: what is downloaded and how much, then an overlay."""
    state = {name: tensor.half() for name, tensor in parity.authors_state().items()}
    checkpoint = parity.write_checkpoint(tmp_path / "ssp-sam.pth", state)
    hub.push("org/SSP-SAM", {"README.md": b"weights", "best/ssp-sam.pth": checkpoint.read_bytes()})
    overlay = tmp_path / "overlay.png"
    arguments = [str(photo), "the dog", "--model", "hf://org/SSP-SAM", "--json", "-o", str(overlay)]
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", "segment", *arguments, "--device", "cpu"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"] == {"name": "hf://org/SSP-SAM", "sha256": file_sha256(checkpoint)}
    assert "downloading hf://org/SSP-SAM/best/ssp-sam.pth (10" in done.stderr
    assert "mean nothing on photographs" not in done.stderr
    assert Image.open(overlay).width >= 80


def test_the_demo_model_says_what_it_is(photo: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert segment.main([str(photo), "the dog", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "trained on drawn scenes only: its masks mean nothing on photographs" in said
    assert "--model hf://wayneicloud/SSP-SAM" in said
    assert segment.main([str(photo), "the dog", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["trained_on"] == "drawn scenes"


def test_what_models_there_are(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert models.main([]) == 0
    printed = capsys.readouterr().out
    for wanted in ("--model tiny", "--model hf://wayneicloud/SSP-SAM", "not verified: ", "2603.18086"):
        assert wanted in printed
    assert models.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "tiny"
    hub.push("org/repo", {"a.pth": b"a" * 2_000_000, "b/c.safetensors": b"c", "README.md": b""})
    assert models.main(["hf://org/repo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "--model hf://org/repo/a.pth  (2.0 MB)",
        "--model hf://org/repo/b/c.safetensors  (1 byte)",
    ]
    hub.push("org/none", {"README.md": b""})
    for source, message in (
        ("hf://org/none", "holds no checkpoint among its 1 files"),
        ("hf://org/absent", "no such repository"),
        ("photo.jpg", "give hf://org/repo"),
    ):
        assert models.main([source]) == 2
        assert message in capsys.readouterr().err
