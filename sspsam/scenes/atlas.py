"""The sprite atlas: cut-out drawings of everyday things, with names, categories and colours."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.resources import files
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
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
            if unseen_style == (name == "style") and unseen_name == (name == "names"):
                by_name.setdefault(sprite.name, []).append(i)
        return tuple(by_name), by_name


def read_sprites() -> Iterator[tuple[Sprite, NDArray[np.uint8]]]:
    """Every drawing of the package as it was drawn, (C, C, 4) RGBA, with what it is."""
    path = files("sspsam") / "assets" / "sprites.zip"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        table = json.loads(archive.read("index.json"))
        atlas = np.asarray(Image.open(io.BytesIO(archive.read("atlas.webp"))).convert("RGBA"))
    cell = table["cell"]
    for number, entry in enumerate(table["sprites"]):
        top, left = (cell * place for place in divmod(number, table["columns"]))
        told = {field.name: entry[field.name] for field in fields(Sprite)}
        told |= {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
        yield Sprite(**told), atlas[top : top + cell, left : left + cell]


@lru_cache
def load_atlas() -> Atlas:
    """The drawings of the bundled model's vocabulary, those of RECOLOURED names in each of RECOLOURS."""
    sprites: list[Sprite] = []
    drawings: list[np.ndarray] = []
    for sprite, drawing in read_sprites():
        if not sprite.core:
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
