"""Which colour a drawing has, by the hue of its pixels; and drawings turned to another hue."""

from __future__ import annotations

import colorsys
from typing import Final

import numpy as np
from numpy.typing import NDArray

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


def hsv(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """(..., 3) uint8 to hue in degrees 0..360, saturation and value 0..1, each (...) float32."""
    x = rgb.astype(np.float32) / 255.0
    value, low = x.max(-1), x.min(-1)
    spread = value - low
    safe = np.where(spread > 0, spread, 1.0)
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    hue = np.where(
        value == r,
        ((g - b) / safe) % 6,
        np.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4),
    )
    hue = np.where(spread > 0, hue * 60, 0).astype(np.float32)
    return hue, np.where(value > 0, spread / np.where(value > 0, value, 1), 0), value


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


def recoloured(rgba: NDArray[np.uint8], hue_degrees: float) -> NDArray[np.uint8]:
    """Turn every saturated pixel of a (H, W, 4) uint8 drawing to one hue, keeping its shading."""
    _, saturation, value = hsv(rgba[..., :3])
    r, g, b = colorsys.hsv_to_rgb(hue_degrees / 360.0, 1.0, 1.0)
    strength = np.maximum(saturation, 0.55)[..., None]
    light = np.clip(value * 1.1 + 0.05, 0, 1)[..., None]
    turned = light * (1 - strength * (1 - np.array([r, g, b], np.float32)))
    out = rgba.copy()
    chosen = saturation > 0.25
    out[..., :3][chosen] = np.round(turned[chosen] * 255).astype(np.uint8)
    return out
