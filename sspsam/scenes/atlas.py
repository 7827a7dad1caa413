"""The sprite atlas: cut-out drawings of everyday things, with names, categories and colours."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sspsam.scenes.colours import recoloured
from sspsam.scenes.names import HELD_OUT_NAMES, HELD_OUT_STYLE, RECOLOURED, RECOLOURS

#: What a scene may show. "train": core names in training styles. "style": the same names in the style
#: that training never shows. "names": only things that training never shows.
POOLS: Final = ("train", "style", "names")


@dataclass(frozen=True)
class Sprite:
    """One drawing."""

    name: str
    synonyms: tuple[str, ...]
    keywords: tuple[str, ...]  # CLDR's, for search; phrases do not use them
    categories: tuple[str, ...]  # most particular first
    style: str  # "noto", "fluent" or "twemoji"
    colour: str | None  # the one colour that it clearly has
    core: bool  # in the bundled model's vocabulary


@dataclass(frozen=True)
class Atlas:
    """Drawings and what they are.

    `pixels`: (S, 4, C, C) float32 0..1, RGB multiplied by alpha; the drawing's long side fills the
    cell but for two pixels at either end.
    """

    sprites: tuple[Sprite, ...]
    pixels: Tensor

    def pool(self, name: str) -> tuple[tuple[str, ...], dict[str, list[int]]]:
        """Names of a pool (see POOLS), and the indices of each name's drawings."""
        by_name: dict[str, list[int]] = {}
        for i, sprite in enumerate(self.sprites):
            unseen_style = sprite.style == HELD_OUT_STYLE
            unseen_name = sprite.name in HELD_OUT_NAMES
            if not sprite.core or unseen_style != (name == "style"):
                continue
            if unseen_name != (name == "names"):
                continue
            by_name.setdefault(sprite.name, []).append(i)
        return tuple(by_name), by_name


def _read() -> tuple[list[Sprite], np.ndarray]:
    path = files("sspsam") / "assets" / "sprites.zip"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        table = json.loads(archive.read("index.json"))
        atlas = np.asarray(Image.open(io.BytesIO(archive.read("atlas.webp"))).convert("RGBA"))
    cell, columns = table["cell"], table["columns"]
    rows = atlas.shape[0] // cell
    cells = atlas.reshape(rows, cell, columns, cell, 4).transpose(0, 2, 1, 3, 4)
    sprites = [
        Sprite(
            name=entry["name"],
            synonyms=tuple(entry["synonyms"]),
            keywords=tuple(entry["keywords"]),
            categories=tuple(entry["categories"]),
            style=entry["style"],
            colour=entry["colour"],
            core=entry["core"],
        )
        for entry in table["sprites"]
    ]
    return sprites, cells.reshape(rows * columns, cell, cell, 4)[: len(sprites)]


@lru_cache(maxsize=2)
def load_atlas(core_only: bool = True) -> Atlas:
    """The bundled atlas, drawings of RECOLOURED names in every one of RECOLOURS.

    Args:
        core_only: leave out the hundreds of things that the bundled model has no name for.
    """
    sprites: list[Sprite] = []
    drawings: list[np.ndarray] = []
    for sprite, drawing in zip(*_read(), strict=True):
        if core_only and not sprite.core:
            continue
        if sprite.name not in RECOLOURED:
            sprites.append(sprite)
            drawings.append(drawing)
            continue
        for colour, hue in RECOLOURS.items():
            sprites.append(replace(sprite, colour=colour))
            drawings.append(recoloured(drawing, hue))
    rgba = torch.from_numpy(np.stack(drawings)).permute(0, 3, 1, 2).float() / 255.0
    rgba[:, :3] *= rgba[:, 3:]
    return Atlas(tuple(sprites), rgba.contiguous())
