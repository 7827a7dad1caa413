"""The parity fixture: seeded weights and inputs on which the authors' code was run.

`tests/fixtures/parity/dev_b16.json` says how they were made, `dev_b16.npz` what came out.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

FOLDER = Path(__file__).parents[2] / "fixtures" / "parity"
RECIPE = json.loads((FOLDER / "dev_b16.json").read_text())
EXPECTED = dict(np.load(FOLDER / "dev_b16.npz"))


def authors_state() -> dict[str, torch.Tensor]:
    """The seeded state dict, in the spelling from before the authors' first forward pass."""
    return {
        name: _tensor(name, shape)
        for name, shape in RECIPE["state_dict"].items()
        if not name.endswith(("pos_x", "pos_y"))
    }


def _tensor(name: str, shape: list[int]) -> torch.Tensor:
    seed = [RECIPE["seed"], zlib.crc32(name.encode())]
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if name == "tf_scale":
        x = 1 + 0.1 * x
    elif name == "tf_sigma":
        x = 0.5 + 0.05 * x
    elif len(shape) < 2:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.05 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def after_first_forward(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The other spelling: what the authors' modules are called once a forward pass ran."""
    prefix, renamed = "encoder.visual.transformer.resblocks.", {}
    blocks = {int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)}
    last = sorted(blocks)[-6:]
    for key, tensor in state.items():
        name = key
        if key.startswith(prefix) and int(key[len(prefix) :].split(".")[0]) in last:
            name = name.replace("attn.in_proj_", "attn.qkv.").replace("attn.out_proj", "attn.proj")
            if f"{prefix}{last[0]}.attn." in key:
                renamed[f"encoder.visual.attn.{name.split('.attn.')[1]}"] = tensor
        renamed[name] = tensor
    return renamed


def write_checkpoint(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A file as the authors' training loop writes it."""
    torch.save({"model": state, "epoch": 79, "args": argparse.Namespace(lr=1e-4)}, path)
    return path


def images() -> list[Image.Image]:
    pictures = []
    for (width, height), seed in zip(RECIPE["sizes"], RECIPE["image_seeds"], strict=True):
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        channels = [
            (np.sin(x / (17 + seed) + y / 31) + 1) / 2,
            (np.cos(x / 23 - y / (11 + seed)) + 1) / 2,
            ((x + y) % 97) / 97,
        ]
        pictures.append(Image.fromarray((np.stack(channels, -1) * 255).astype(np.uint8)))
    return pictures


def sam_embedding() -> torch.Tensor:
    count = len(RECIPE["phrases"])
    rng = np.random.default_rng([RECIPE["seed"], 7])
    return torch.from_numpy(rng.standard_normal((count, 256, 64, 64), dtype=np.float32) * 0.3)
