"""Parts of an input that several jobs annotate at once, and which of them are not finished."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.vocabulary import stable_hash


def part_of(shard: str, parts: int) -> int:
    """The part, from 1 to `parts`, that the shard of this name is in."""
    return 1 + stable_hash(shard) % parts


def unfinished(dataset: AnnotationDataset) -> dict[str, Any] | None:
    """How many of the shards that `annotate` found have no receipt yet, and in which parts they are.

    None if none is missing, or if it cannot be said: another command wrote the dataset, or `--limit` says
    that not all shards are wanted.
    """
    manifest = dataset.read_json("_run.json") or {}
    names = [shard["name"] for shard in manifest.get("inputs", ()) if "name" in shard]
    dataset.fs.invalidate_cache(f"{dataset.root}/_shards")
    try:
        receipts = {PurePosixPath(path).stem for path in dataset.fs.find(f"{dataset.root}/_shards")}
    except FileNotFoundError:
        return None
    missing = [name for name in names if name not in receipts]
    if not missing or not receipts or manifest.get("options", {}).get("limit") is not None:
        return None
    options = manifest["runs"][-1]["options"] if manifest.get("runs") else {}
    parts = int((options.get("part") or "1/1").partition("/")[2])
    found = sorted({part_of(name, parts) for name in missing})
    return {
        "shards": len(missing),
        "of": len(names),
        "parts": [f"{part}/{parts}" for part in found] if parts > 1 else [],
    }
