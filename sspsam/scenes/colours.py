"""Hue, saturation and value of drawings, and drawings turned to another hue."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray


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
