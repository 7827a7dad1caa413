"""Builds `sspsam/assets/sprites.zip` from openly licensed emoji drawings. Run once, by hand.

    npm pack emoji-datasource-twitter@16.0.0 @lobehub/fluent-emoji-3d@1.1.0 cldr-annotations-full@48.2.0
    # unpack each `package/` as twitter/, fluent/ and cldr/ under SOURCES
    python -m docs.make_sprites SOURCES /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

The zip holds `atlas.webp` (square cells, row by row), `index.json` (one entry a cell) and `NOTICES.txt`.
Needs fontTools, which the package itself does not depend on.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from docs.sprite_names import CORE, SUBCATEGORIES
from sspsam.scenes.colours import hsv

CELL = 96  # pixels a side
COLUMNS = 40
MARGIN = 2  # transparent pixels around the drawing, so that sampling never bleeds

NOTICES = """The drawings in atlas.webp, cropped and resized, come from:

style "noto":    Noto Emoji 2.042, Copyright 2013-2023 Google LLC. Apache License 2.0 (drawings),
                 SIL Open Font License 1.1 (font). https://github.com/googlefonts/noto-emoji
style "twemoji": Twemoji (jdecked/twemoji 16.0, through emoji-datasource-twitter 16.0.0),
                 Copyright Twitter, Inc and other contributors. CC-BY 4.0,
                 https://creativecommons.org/licenses/by/4.0/. https://github.com/jdecked/twemoji
style "fluent":  Fluent Emoji, Copyright (c) Microsoft Corporation. MIT License
                 (through @lobehub/fluent-emoji-3d 1.1.0, Copyright 2023 LobeHub, MIT).
                 https://github.com/microsoft/fluentui-emoji

Names and keywords: Unicode CLDR 48.2.0, Copyright 1991-2025 Unicode, Inc. Unicode License v3,
https://www.unicode.org/license.txt

MIT License: Permission is hereby granted, free of charge, to any person obtaining a copy of this
software and associated documentation files (the "Software"), to deal in the Software without
restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished
to do so, subject to the following conditions: The above copyright notice and this permission notice
shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS
IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
IN THE SOFTWARE.
"""


#: Upper bounds of hue in degrees; red wraps around. Brown is dark orange.
_HUES: Final = (
    (14.0, "red"),
    (40.0, "orange"),
    (68.0, "yellow"),
    (165.0, "green"),
    (255.0, "blue"),
    (300.0, "purple"),
    (338.0, "pink"),
    (361.0, "red"),
)

COLOURS: Final = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "grey",
)

#: Share of a drawing's pixels that must agree before it is called by a colour.
DOMINANT_SHARE: Final = 0.55


def into_cell(drawing: Image.Image) -> Image.Image:
    """Crop to what is drawn and centre it in a CELL x CELL square, its long side filling it."""
    rgba = drawing.convert("RGBA")
    box = rgba.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox()
    if box is None:
        raise ValueError("nothing is drawn")
    rgba = rgba.crop(box)
    room = CELL - 2 * MARGIN
    ratio = room / max(rgba.size)
    size = (max(1, round(rgba.width * ratio)), max(1, round(rgba.height * ratio)))
    cell = Image.new("RGBA", (CELL, CELL))
    resized = rgba.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell.paste(resized, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def noto_drawings(font_path: Path) -> dict[str, Image.Image]:
    """Code point (lower-case hexadecimal) to drawing, for every single-character emoji."""
    from fontTools.ttLib import TTFont

    font = TTFont(str(font_path))
    strike = font["CBDT"].strikeData[0]
    drawings: dict[str, Image.Image] = {}
    for point, glyph in font.getBestCmap().items():
        if glyph in strike and hasattr(strike[glyph], "imageData"):
            drawings[f"{point:x}"] = Image.open(io.BytesIO(strike[glyph].imageData))
    return drawings


def colour_fractions(rgba: NDArray[np.uint8]) -> dict[str, float]:
    """Share of the opaque pixels of a (H, W, 4) uint8 drawing that has each of COLOURS."""
    pixels = rgba[rgba[..., 3] > 127][:, :3]
    hue, saturation, value = hsv(pixels)
    names = np.full(len(pixels), "red   ", dtype="<U6")
    for bound, name in reversed(_HUES):
        names[hue < bound] = name
    names[((names == "orange") | (names == "red")) & (value < 0.62) & (saturation < 0.85)] = "brown"
    grey = saturation < 0.22
    names[grey] = "grey"
    names[grey & (value > 0.85)] = "white"
    names[(value < 0.25) | (grey & (value < 0.35))] = "black"
    return {name: float((names == name).mean()) for name in COLOURS}


def dominant_colour(fractions: dict[str, float]) -> str | None:
    """The colour that most people would say, or None for a drawing of several."""
    name = max(fractions, key=lambda k: fractions[k])
    return name if fractions[name] >= DOMINANT_SHARE else None


def open_if_present(*paths: Path) -> Image.Image | None:
    return next((Image.open(path) for path in paths if path.exists()), None)


def entries(sources: Path) -> list[dict[str, Any]]:
    """One entry a thing, core first: code, name, synonyms, keywords, categories, core."""
    cldr = json.loads((sources / "cldr/annotations/en/annotations.json").read_text())
    words = cldr["annotations"]["annotations"]
    found = []
    for emoji in json.loads((sources / "twitter/emoji.json").read_text()):
        code = emoji["unified"].lower()
        character = chr(int(code.split("-")[0], 16))
        if "-" in code.removesuffix("-fe0f") or character not in words:
            continue
        about = words[character]
        keywords = sorted({*about["default"], *about["tts"]})
        if code in CORE:
            name, synonyms, categories = CORE[code]
        elif emoji["subcategory"] in SUBCATEGORIES:
            name, synonyms = about["tts"][0], ()
            categories = (SUBCATEGORIES[emoji["subcategory"]],)
        else:
            continue
        found.append(
            {
                "code": code,
                "name": name,
                "synonyms": list(synonyms),
                "keywords": keywords,
                "categories": list(categories),
                "core": code in CORE,
            }
        )
    order = list(CORE)
    missing = set(CORE) - {entry["code"] for entry in found}
    if missing:
        raise SystemExit(f"not among the sources: {sorted(missing)}")
    return sorted(found, key=lambda e: (order.index(e["code"]) if e["core"] else 999, e["code"]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("font", type=Path)
    parser.add_argument("--output", type=Path, default=Path("sspsam/assets/sprites.zip"))
    options = parser.parse_args(argv)
    noto = noto_drawings(options.font)
    cells: list[Image.Image] = []
    index = []
    for entry in entries(options.sources):
        code = entry["code"]
        plain = code.removesuffix("-fe0f")
        twitter = options.sources / "twitter/img/twitter/64"
        fluent = options.sources / "fluent/assets"
        drawings = {
            "noto": noto.get(plain),
            "fluent": open_if_present(fluent / f"{code}.webp", fluent / f"{plain}.webp"),
            "twemoji": open_if_present(twitter / f"{code}.png", twitter / f"{plain}.png"),
        }
        if entry["core"] and None in drawings.values():
            raise SystemExit(f"{entry['name']}: a style is missing: {drawings}")
        for style, drawing in drawings.items():
            if drawing is None:
                continue
            cell = into_cell(drawing)
            fractions = colour_fractions(np.asarray(cell))
            index.append({**entry, "style": style, "colour": dominant_colour(fractions)})
            cells.append(cell)
    rows = -(-len(cells) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, cell in enumerate(cells):
        atlas.paste(cell, (i % COLUMNS * CELL, i // COLUMNS * CELL))
    encoded = io.BytesIO()
    atlas.save(encoded, "WEBP", quality=82, alpha_quality=90, method=6)
    table = {"cell": CELL, "columns": COLUMNS, "sprites": index}
    with zipfile.ZipFile(options.output, "w") as archive:
        for name, content, method in (
            ("NOTICES.txt", NOTICES.encode(), zipfile.ZIP_DEFLATED),
            ("index.json", json.dumps(table, indent=0).encode(), zipfile.ZIP_DEFLATED),
            ("atlas.webp", encoded.getvalue(), zipfile.ZIP_STORED),
        ):
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            archive.writestr(info, content, method)
    names = {entry["name"] for entry in index}
    print(f"{len(index)} drawings of {len(names)} things, {options.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
