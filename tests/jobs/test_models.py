"""`--model hf://...` and `sspsam models`, as people meet them in their first minute."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import models, segment
from jobs.choose_model import choose_model
from sspsam.storage.downloads import weight_text
from sspsam.storage.hub import HubModel, fetch_model
from sspsam.storage.local_copies import file_sha256
from tests.hub_server import Hub
from tests.sspsam.modeling import parity


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_first_minute_at_a_terminal(hub: Hub, photo: Path, tmp_path: Path) -> None:
    """No flag but the photo: asked what to download, with its size, then a bar, a table and an overlay."""
    state = {name: tensor.half() for name, tensor in parity.authors_state().items()}
    checkpoint = parity.write_checkpoint(tmp_path / "ssp-sam.pth", state)
    files = {"README.md": b"weights", "best/ssp-sam.pth": checkpoint.read_bytes(), "other.pth": b"other"}
    commit = hub.push("wayneicloud/SSP-SAM", files)
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jobs.cli",
            "segment",
            str(photo),
            "the dog",
            *("--device", "cpu", "--json", "-o", "overlay.png"),
        ],
        cwd=tmp_path,
        env=os.environ | settings | {"PYTHONPATH": str(Path(segment.__file__).parents[1]), "COLUMNS": "80"},
        stdin=side,
        stdout=subprocess.PIPE,
        stderr=side,
    )
    os.close(side)
    os.write(terminal, b"1\n")
    assert process.stdout is not None
    answer = json.loads(process.stdout.read())
    said = os.read(terminal, 1 << 20).decode()
    os.close(terminal)
    assert process.wait(60) == 0
    url = "hf://wayneicloud/SSP-SAM/best/ssp-sam.pth"
    assert answer["model"] == {"name": url, "sha256": file_sha256(checkpoint), "commit": commit}
    size = f"({checkpoint.stat().st_size / 1e6:.1f} MB"
    for wanted in (f"  1  {url}  {size}", "other.pth  (5 bytes)", "Enter for the demo model", "━"):
        assert wanted in said
    assert f"downloading {url} {size}" in said
    assert "mean nothing on photographs" not in said
    assert Image.open(tmp_path / "overlay.png").width >= 80


def test_who_is_asked_for_a_model(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert choose_model() == "tiny"  # no terminal
    assert not hub.requests
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert choose_model() == "tiny"
    assert "They cannot be had now: hf://wayneicloud/SSP-SAM: no such repository" in capsys.readouterr().err
    hub.push("wayneicloud/SSP-SAM", {"a.pth": b"a", "b.pth": b"b" * 2_000_000})
    for typed, model in {"": "tiny", "3": "tiny", "2": "hf://wayneicloud/SSP-SAM/b.pth"}.items():
        monkeypatch.setattr(sys.stdin, "readline", lambda typed=typed: f"{typed}\n", raising=False)
        assert choose_model() == model
    assert "2  hf://wayneicloud/SSP-SAM/b.pth  (2.0 MB)" in capsys.readouterr().err
    assert weight_text(2_100_000_000) == "2.1 GB, about 3 minutes at 100 Mbit/s"
    fetch_model(HubModel("wayneicloud/SSP-SAM", "main", "a.pth"), ())
    hub.requests.clear()
    assert choose_model() == "hf://wayneicloud/SSP-SAM/a.pth"  # what was downloaded is not asked for again
    assert "downloaded before" in capsys.readouterr().err
    assert not hub.requests


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
