"""Hostile checkpoints: folders of ours, and `.pth` in its containers."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sspsam import SSPSAM
from tests.fuzz.corpus import root
from tests.fuzz.mutations import spoil_bytes, spoil_text, spoil_tree
from tests.fuzz.verdicts import judged
from tests.micro_model import micro_config


@cache
def _model() -> Path:
    torch.manual_seed(0)
    folder = root() / "model"
    SSPSAM(micro_config()).save_pretrained(folder)
    return folder


def _load(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged(lambda: SSPSAM.from_pretrained(path, device="cpu"), path.name, str(path.parent), "config.json")


def checkpoint(rng: random.Random, folder: Path) -> None:
    shutil.copytree(_model(), folder / "m")
    config, weights, merges = (
        folder / "m" / name for name in ("config.json", "model.safetensors", "tokenizer.txt.gz")
    )
    way = rng.randrange(5)
    if way == 0:
        weights.write_bytes(spoil_bytes(weights.read_bytes(), rng))
    elif way == 1:
        config.write_text(json.dumps(spoil_tree(json.loads(config.read_text()), rng)))
    elif way == 2:
        config.write_bytes(spoil_text(config.read_bytes(), rng))
    elif way == 3:
        merges.write_bytes(spoil_bytes(merges.read_bytes(), rng))
    else:
        text = gzip.decompress(merges.read_bytes())
        merges.write_bytes(gzip.compress(spoil_text(text, rng), 1))
    _load(folder / "m")


@cache
def _authors_state() -> dict[str, torch.Tensor]:
    """The names of an authors' checkpoint; one number a tensor, whatever the shape says."""
    from tests.sspsam.modeling.parity import RECIPE

    return {name: torch.zeros(()).expand(shape) for name, shape in RECIPE["state_dict"].items()}


def pickled(rng: random.Random, folder: Path) -> None:
    """`.pth` as a zip and as the older stream: damaged, with other objects, with shapes that cannot be."""
    state: dict[Any, Any] = dict(_authors_state())
    for name in rng.sample(sorted(state), rng.choice((0, 1, 3, len(state) - 5))):
        sizes = [rng.choice((0, 1, 7, 2**10, 2**15)) for _ in range(rng.randrange(5))]
        replaced = (
            torch.zeros(()).expand(sizes),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(0),
            None,
            "x",
            3,
        )
        state[name] = rng.choice(replaced)
        if rng.random() < 0.3:
            del state[name]
    if rng.random() < 0.1:
        state[rng.choice((3, None, (1,)))] = torch.zeros(1)
    content = rng.choice(({"model": state}, state, {"model": {"module": state}}, [state], None))
    sink, path = io.BytesIO(), folder / "x.pth"
    torch.save(content, sink, _use_new_zipfile_serialization=rng.random() < 0.6)
    path.write_bytes(sink.getvalue() if rng.random() < 0.4 else spoil_bytes(sink.getvalue(), rng))
    _load(path)
