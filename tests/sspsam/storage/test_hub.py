"""Models on a hub: what is listed, taken, pinned, refused and kept, against a server that speaks its API."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import huggingface_hub.constants
import pytest

from sspsam.errors import CheckpointError, ChecksumError, UnknownModelError
from sspsam.storage.hub import HubModel, fetch_model
from tests.hub_server import Hub

WEIGHTS = b"weights" * 1000
OTHER = b"other weights" * 2000


def fetch(url: str, sha256: str | None = None) -> dict[str, Path]:
    model = HubModel.parse(url)
    assert model is not None
    return fetch_model(model, ("config.json",), sha256=sha256)


def test_urls() -> None:
    commit = "0123456789abcdef" * 2
    for url, parts in {
        "hf://org/repo": ("org/repo", "main", ""),
        "hf://models/org/repo/": ("org/repo", "main", ""),
        f"hf://org/repo@{commit}/a/b.pth": ("org/repo", commit, "a/b.pth"),
        "hf://org/repo@refs/pr/3/b.pth": ("org/repo", "refs/pr/3", "b.pth"),
        "hf://org/repo@refs%2Fpr%2F3": ("org/repo", "refs/pr/3", ""),
    }.items():
        model = HubModel.parse(url)
        assert model == HubModel(*parts)
        assert HubModel.parse(model.url(model.path)) == model
    for url in ("hf://datasets/org/repo/a.pth", "hf://repo", "s3://org/repo/a.pth"):
        assert HubModel.parse(url) is None


def test_one_is_taken_several_are_named_none_says_what_is_there(hub: Hub, capsys, caplog) -> None:
    hub.push("org/one", {"README.md": b"hello", "ssp-sam.pth": WEIGHTS})
    hub.failures = 1  # a hub that is busy is asked again
    assert fetch("hf://org/one")[""].read_bytes() == WEIGHTS
    assert "downloading hf://org/one/ssp-sam.pth (7.0 kB), once, into" in capsys.readouterr().err
    fetch("hf://org/one/ssp-sam.pth")
    assert capsys.readouterr().err == ""
    assert sum("elsewhere" in one for one in hub.requests) == 1

    files = {"b/large.pt": OTHER, "b/config.json": b"{}", "a.safetensors": WEIGHTS, "x.txt": b""}
    hub.push("org/many", files)
    with pytest.raises(UnknownModelError) as caught:
        fetch("hf://org/many")
    assert str(caught.value).splitlines() == [
        "hf://org/many holds 2 checkpoints, name one of them:",
        "  --model hf://org/many/a.safetensors  (7.0 kB)",
        "  --model hf://org/many/b/large.pt  (26.0 kB)",
    ]
    assert fetch("hf://org/many/a.safetensors").keys() == {""}
    folder = fetch("hf://org/many/b")
    assert (folder[""].read_bytes(), folder["config.json"].read_bytes()) == (OTHER, b"{}")

    hub.push("org/none", {f"{number:02}.md": b"text" for number in range(10)})
    for path in ("", "/absent.pth", "/folder"):
        message = r"no checkpoint \(.pth, .*: in hf://org/none are 00.md, .* and 2 more"
        with pytest.raises(UnknownModelError, match=message):
            fetch(f"hf://org/none{path}")
    assert not caplog.records


def test_pins_and_digests(hub: Hub) -> None:
    first = hub.push("org/repo", {"m.pth": WEIGHTS})
    second = hub.push("org/repo", {"m.pth": OTHER})
    hub.push("org/repo", {"m.pth": WEIGHTS}, name="refs/pr/1")
    for pin, content in {first: WEIGHTS, second: OTHER, "main": OTHER, "refs/pr/1": WEIGHTS}.items():
        assert fetch(f"hf://org/repo@{pin}")[""].read_bytes() == content
    with pytest.raises(UnknownModelError, match="hf://org/repo has no branch, tag or commit 'v2'"):
        fetch("hf://org/repo@v2/m.pth")
    digest = hashlib.sha256(OTHER).hexdigest()
    hub.requests.clear()
    assert fetch("hf://org/repo/m.pth", sha256=digest.upper())[""].read_bytes() == OTHER
    assert not hub.requests  # what has the digest needs no network: each replica would ask
    with pytest.raises(ChecksumError, match=f"hf://org/repo@{first}/m.pth has sha256"):
        fetch(f"hf://org/repo@{first}", sha256=digest)


def test_tokens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for repo in ("org/private", "org/gated"):
        hub.push(repo, {"m.pth": WEIGHTS})
    hub.private, hub.gated = {"org/private"}, {"org/gated"}
    with pytest.raises(UnknownModelError, match=r"no such repository; a private one needs a token: `hf"):
        fetch("hf://org/private")
    with pytest.raises(
        CheckpointError, match=rf"gated: accept its conditions at {hub.endpoint}/org/gated, then"
    ):
        fetch("hf://org/gated")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    for repo in ("org/private", "org/gated"):
        assert fetch(f"hf://{repo}")[""].read_bytes() == WEIGHTS
    assert not hub.tokens_elsewhere  # the token is not for the host that keeps large files


def test_without_a_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.push("org/repo", {"m.pth": WEIGHTS, "n.pth": OTHER})
    fetch("hf://org/repo/m.pth")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.WARNING):
        assert fetch("hf://org/repo")[""].read_bytes() == WEIGHTS  # the one that is there
    assert "using the cached copy" in caplog.text
    with pytest.raises(UnknownModelError, match=r"n\.pth is or holds no checkpoint .*/repo are m\.pth"):
        fetch("hf://org/repo/n.pth")
    with pytest.raises(CheckpointError, match="is not in the cache: HF_HUB_OFFLINE is set"):
        fetch("hf://org/other")
    assert not hub.requests
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.failures = 99
    assert fetch("hf://org/repo/m.pth")[""].read_bytes() == WEIGHTS
