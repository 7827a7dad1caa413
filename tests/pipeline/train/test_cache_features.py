"""Files of cached features: what was put in comes out, by one read of its bytes alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFile

from pipeline.annotate.annotator import LoadSegmenter
from pipeline.dataset.store import Store
from pipeline.train.cache_features import Encoded, KeepFeatures
from sspsam import SSPSAM
from sspsam.errors import DataError, ImageError, UnknownModelError
from sspsam.training.feature_store import FeatureStore


def test_a_row_is_one_range_read(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://cache"
    torch.manual_seed(0)
    towers = [(way, torch.randn(5, 8), torch.randn(6, 3, 4)) for way in (False, True)]
    results: list[Any] = [
        Encoded(20 + n, 10, [], None, None, tuple((way, a + n, b + n) for way, a, b in towers))
        for n in range(3)
    ]
    results[1] = Encoded(None, None, [], ImageError("damaged"), None)
    chunk: Any = SimpleNamespace(
        samples=[SimpleNamespace(key=f"image {n}") for n in range(3)],
        shard=SimpleNamespace(name="train-00000"),
        index=7,
    )
    fs = fsspec.filesystem("memory")
    try:
        KeepFeatures(Store(url))(chunk, [], results)
        assert fs.find("/cache") == ["/cache/features/train-00000/00007.parquet"]
        size = fs.size("/cache/features/train-00000/00007.parquet")
        store = FeatureStore(url)
        assert len(store) == 4
        read: list[int] = []
        whole = MemoryFile.read

        def noted(file: MemoryFile, length: int = -1) -> bytes:
            data = whole(file, length)
            read.append(len(data))
            return data

        monkeypatch.setattr(MemoryFile, "read", noted)
        for n in (2, 0):
            for way, tokens, embedding in towers:
                found = store.get(f"image {n}", way)
                assert torch.equal(found[0], (tokens + n).half())
                assert torch.equal(found[1], (embedding + n).half())
                assert found[2:] == (20 + n, 10)
        assert len(read) == 4
        assert sum(read) < size
        with pytest.raises(DataError, match="no features of the mirrored image image 1"):
            store.get("image 1", True)
    finally:
        fs.rm("/cache", recursive=True)
    with pytest.raises(DataError, match="no cached features"):
        FeatureStore(url)


def test_a_relative_model_is_found_from_any_folder(
    micro_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas run in their cluster's folder: the driver's counts, else what is there."""
    monkeypatch.chdir(micro_model.parent)
    load = LoadSegmenter(micro_model.name, "cpu")
    monkeypatch.chdir(tmp_path)
    Path(micro_model.name).mkdir()  # of the same name, and empty
    assert load().model.config == SSPSAM.from_pretrained(micro_model, device="cpu").config
    elsewhere = replace(load, home=str(tmp_path / "on another node"))
    with pytest.raises(UnknownModelError):
        elsewhere()
    shutil.copytree(micro_model, micro_model.name, dirs_exist_ok=True)
    assert elsewhere().model.config == load().model.config
