"""Weights in and out: strict, safe, and clear about what is wrong."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from sspsam import SSPSAM
from sspsam.checkpoint import bundled_models, fingerprint
from sspsam.errors import (
    ArchitectureError,
    CheckpointError,
    ChecksumError,
    ConfigError,
    UnknownModelError,
)
from sspsam.storage.local_copies import file_sha256
from tests.sspsam.modeling import parity


def same(first: SSPSAM, second: SSPSAM) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_round_trip_through_folder_file_and_random(tiny_model: SSPSAM, tiny_model_dir: Path) -> None:
    from_folder = SSPSAM.from_pretrained(tiny_model_dir, device="cpu")
    assert same(from_folder, tiny_model)
    assert from_folder.source["sha256"] == file_sha256(tiny_model_dir / "model.safetensors")
    rights = {path.stat().st_mode for path in tiny_model_dir.iterdir()}
    assert len(rights) == 1  # whoever may read the config may read the weights
    assert same(SSPSAM.from_pretrained(tiny_model_dir / "model.safetensors", device="cpu"), tiny_model)
    assert fingerprint(tiny_model_dir) == from_folder.source["sha256"]
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        assert same(SSPSAM.from_pretrained("random:tiny", device="cpu"), tiny_model)


def test_a_remote_folder_and_a_remote_file(
    tiny_model: SSPSAM, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSPSAM_CACHE", str(tmp_path))
    store = fsspec.filesystem("memory")
    store.put(str(tiny_model_dir), "/models/tiny", recursive=True)
    digest = fingerprint(tiny_model_dir)
    for url in ("memory://models/tiny", "memory://models/tiny/model.safetensors"):
        model = SSPSAM.from_pretrained(url, device="cpu", sha256=digest)
        assert same(model, tiny_model)
        assert model.source == {"name": url, "sha256": digest}


def test_unknown_names_list_the_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UnknownModelError, match=r"no model 'b16'.*random:tiny.*hf://"):
        SSPSAM.from_pretrained("b16")
    with pytest.raises(UnknownModelError, match=r"the folder .*empty0 holds no model\.safetensors"):
        SSPSAM.from_pretrained(tmp_path_factory.mktemp("empty"))
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        SSPSAM.from_pretrained("tiny", device="gpu")
    for name in bundled_models():
        assert SSPSAM.from_pretrained(name, device="cpu").source["name"] == name


def test_strict_lists_missing_extra_and_misshapen(tiny_model_dir: Path, tmp_path: Path) -> None:
    state = load_file(tiny_model_dir / "model.safetensors")
    del state["ssp_encoder.norm.bias"]
    state["ssp_encoder.norm.weight"] = torch.zeros(7)
    state["surplus"] = torch.zeros(2, 3)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny_model_dir / "config.json").read_bytes())
    with pytest.raises(ArchitectureError) as caught:
        SSPSAM.from_pretrained(tmp_path, device="cpu")
    message = str(caught.value)
    assert "missing ssp_encoder.norm.bias" in message
    assert "extra surplus (2, 3)" in message
    assert "misshapen ssp_encoder.norm.weight: (7,) in the file" in message


def test_sha256_is_checked(tiny_model_dir: Path) -> None:
    digest = file_sha256(tiny_model_dir / "model.safetensors")
    assert SSPSAM.from_pretrained(tiny_model_dir, device="cpu", sha256=digest.upper())
    with pytest.raises(ChecksumError, match=f"has sha256 {digest}, not 0000"):
        SSPSAM.from_pretrained(tiny_model_dir, device="cpu", sha256="0000")


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (eval, ("print('this must never run')",))  # not print itself: Ray replaces it


def test_nothing_pickled_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {}, "args": Payload()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth is not loaded, because unpickling") as caught:
        SSPSAM.from_pretrained(path)
    # Torch's message says which object it is, and then advises to load it all the same.
    assert "GLOBAL eval" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(CheckpointError):
        SSPSAM.from_pretrained(path)
    assert "must never run" not in capsys.readouterr().out


def test_files_that_are_no_checkpoint_of_ours(tmp_path: Path, tiny_model_dir: Path) -> None:
    other = tmp_path / "resnet.pth"
    torch.save({"model": {"conv1.weight": torch.zeros(3)}, "args": argparse.Namespace()}, other)
    with pytest.raises(ArchitectureError, match="not an SSP-SAM checkpoint"):
        SSPSAM.from_pretrained(other)
    torch.save({"model": [1, 2]}, other)
    with pytest.raises(ArchitectureError, match="no state dict under the key 'model'"):
        SSPSAM.from_pretrained(other)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tiny_model_dir / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged"):
        SSPSAM.from_pretrained(cut)
    lost = parity.authors_state()
    del lost["mlp.weight"]
    with pytest.raises(ArchitectureError, match=r"missing ssp_encoder\.fusion\.weight"):
        SSPSAM.from_pretrained(parity.write_checkpoint(tmp_path / "lost.pth", lost), device="cpu")
