"""Pictures of scenes: drawings over backgrounds, and which object each pixel shows.

B scenes, K object slots, S side of the square picture in pixels. Positions and sizes are fractions
of the side, x to the right and y down. Everything is drawn from a counter-based hash of (seed, scene
index, column), so a scene is the same in any batch, in any order, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sspsam.errors import ConfigError
from sspsam.scenes.atlas import POOLS, Atlas, load_atlas

_CANDIDATES = 6  # places tried for each object; the one with most room is taken
_BACKGROUND_COLUMNS = 6 * 6 * 3 + 24 * 24


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like."""

    size: int = 256  # S, side of the picture, pixels
    min_objects: int = 2
    max_objects: int = 4  # K
    min_scale: float = 0.28  # long side of a drawing, fraction of the side
    max_scale: float = 0.48
    max_rotation: float = 20.0  # degrees either way
    repeat: float = 0.4  # chance that an object repeats the name of an earlier one
    pool: str = "train"  # see sspsam.scenes.atlas.POOLS

    def __post_init__(self) -> None:
        if not 1 <= self.min_objects <= self.max_objects <= 12:
            raise ConfigError(
                "scenes need 1 <= min_objects <= max_objects <= 12, not "
                f"{self.min_objects} and {self.max_objects}"
            )
        if not 0 < self.min_scale <= self.max_scale < 1:
            raise ConfigError(
                f"scenes need 0 < min_scale <= max_scale < 1, not {self.min_scale} and {self.max_scale}"
            )
        if self.pool not in POOLS:
            raise ConfigError(f"no sprite pool {self.pool!r}; there are {', '.join(POOLS)}")


@dataclass(frozen=True)
class SceneBatch:
    """B pictures and what is in them. A slot without an object has sprite -1."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    labels: Tensor  # (B, S, S) uint8: 0 background, k + 1 where object k shows
    sprites: NDArray[np.int64]  # (B, K), slots in drawing order: later ones lie on top
    centres: NDArray[np.float32]  # (B, K, 2), x and y
    scales: NDArray[np.float32]  # (B, K), long side
    drawn: NDArray[np.int64]  # (B, K), pixels of the drawing inside the picture, hidden or not
    visible: NDArray[np.int64]  # (B, K), pixels that show


def uniforms(seed: int, indices: NDArray[np.int64], columns: int) -> NDArray[np.float32]:
    """(B, columns) numbers in [0, 1), each a hash of (seed, index, column): splitmix64."""
    with np.errstate(over="ignore"):
        base = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(0x632BE59BD9B4E019)
        rows = _mix(indices.astype(np.uint64) + base)
        cells = np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(rows[:, None] + cells[None, :])
    return ((bits >> np.uint64(40)).astype(np.float64) / 2.0**24).astype(np.float32)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def render(
    seed: int,
    indices: NDArray[np.int64],
    config: SceneConfig,
    device: str | torch.device = "cpu",
) -> SceneBatch:
    """Draw the scenes of a seed that have these indices."""
    atlas = load_atlas()
    slots = config.max_objects
    per_slot = 10 + 2 * _CANDIDATES
    u = uniforms(seed, indices, 16 + slots * per_slot + _BACKGROUND_COLUMNS)
    scene, u = u[:, :16], u[:, 16:]
    objects = u[:, : slots * per_slot].reshape(len(u), slots, per_slot)
    sprites = _choose_sprites(scene, objects, config, atlas)
    spread = np.float32(config.max_scale - config.min_scale)
    scales = np.float32(config.min_scale) + spread * objects[:, :, 2]
    centres = _choose_places(objects[:, :, 10:], scales, sprites >= 0)
    device = torch.device(device)
    tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)  # noqa: E731
    canvas = _background(tensor(scene), tensor(u[:, slots * per_slot :]), config.size)
    angle = np.float32(np.deg2rad(config.max_rotation)) * (2 * objects[:, :, 3] - 1)
    flip = np.where(objects[:, :, 4] < 0.5, -1.0, 1.0).astype(np.float32)
    light = 0.82 + 0.32 * objects[:, :, 5]
    shadow = np.where(scene[:, 1] < 0.6, 0.15 + 0.3 * scene[:, 2], 0.0)
    images, labels, drawn, visible = _composite(
        canvas,
        atlas.pixels.to(device),
        tensor(sprites),
        _inverse_transforms(tensor(centres), tensor(scales), tensor(angle), tensor(flip), atlas),
        tensor(light),
        tensor(shadow.astype(np.float32)),
        tensor(np.float32(0.03) * (2 * scene[:, 3:5] - 1) + np.array([0, 0.035], np.float32)),
    )
    return SceneBatch(images, labels, sprites, centres, scales, drawn.cpu().numpy(), visible.cpu().numpy())


def _choose_sprites(
    scene: NDArray[np.float32], objects: NDArray[np.float32], config: SceneConfig, atlas: Atlas
) -> NDArray[np.int64]:
    """(B, K) indices into the atlas, -1 for empty slots."""
    names, drawings = atlas.pool(config.pool)
    spread = config.max_objects - config.min_objects + 1
    count = config.min_objects + np.floor(scene[:, 0] * spread).astype(np.int64)
    rows = np.arange(len(scene))
    chosen = np.zeros(objects.shape[:2], dtype=np.int64)
    most = max(map(len, drawings.values()))
    table = np.array([[d[j % len(d)] for j in range(most)] for d in drawings.values()])
    kinds = np.array([len(d) for d in drawings.values()])
    sprites = np.full(objects.shape[:2], -1, dtype=np.int64)
    for k in range(objects.shape[1]):
        fresh = np.floor(objects[:, k, 0] * len(names)).astype(np.int64)
        if k == 0:
            chosen[:, k] = fresh
        else:
            earlier = chosen[rows, np.floor(objects[:, k, 6] * k).astype(np.int64)]
            chosen[:, k] = np.where(objects[:, k, 7] < config.repeat, earlier, fresh)
        drawing = np.floor(objects[:, k, 1] * kinds[chosen[:, k]]).astype(np.int64)
        sprites[:, k] = np.where(k < count, table[chosen[:, k], drawing], -1)
    return sprites


def _choose_places(
    u: NDArray[np.float32], scales: NDArray[np.float32], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(B, K, 2) centres: of a few random places, the one farthest from the objects before it."""
    batch, slots = scales.shape
    candidates = u.reshape(batch, slots, _CANDIDATES, 2)
    # Half the long side stays inside the picture, so that nothing is cut off beyond naming.
    margin = (np.float32(0.42) * scales)[:, :, None, None]
    places = margin + candidates * (1 - 2 * margin)
    centres = np.zeros((batch, slots, 2), dtype=np.float32)
    rows = np.arange(batch)
    for k in range(slots):
        room = np.full((batch, _CANDIDATES), np.inf, dtype=np.float32)
        for j in range(k):
            apart = np.abs(places[:, k] - centres[:, j, None]).max(-1)
            apart = apart - 0.5 * (scales[:, k] + scales[:, j])[:, None]
            room[:] = np.where(present[:, j, None], np.minimum(room, apart), room)
        # Room enough is enough: beyond it the first candidate wins, which keeps places varied.
        best = np.minimum(room, 0.02).argmax(axis=1)
        centres[:, k] = places[rows, k, best]
    return centres


def _inverse_transforms(centres: Tensor, scales: Tensor, angle: Tensor, flip: Tensor, atlas: Atlas) -> Tensor:
    """(B, K, 2, 3) affine maps from picture to cell coordinates, both -1..1."""
    cell = atlas.pixels.shape[-1]
    half = scales * cell / (cell - 4)  # of the cell, which is a little larger than the drawing
    cos, sin = angle.cos() / half, angle.sin() / half
    linear = torch.stack([cos * flip, sin * flip, -sin, cos], dim=-1).unflatten(-1, (2, 2))
    offset = -(linear @ (2 * centres - 1)[..., None])
    return torch.cat([linear, offset], dim=-1)


def _background(scene: Tensor, noise: Tensor, size: int) -> Tensor:
    """(B, 3, S, S) float32 0..1: two colours in a gradient, a horizon, stripes or squares, clouded."""
    batch = len(scene)
    steps = (torch.arange(size, device=scene.device) + 0.5) / size
    first, second = scene[:, 5:8], scene[:, 8:11]
    # Washed-out colours: the drawings are saturated, the world behind them mostly is not.
    first, second = 0.25 + 0.7 * first, 0.25 + 0.7 * second
    turn = scene[:, 11] * 2 * torch.pi
    along = turn.cos()[:, None, None] * steps[None, None, :]
    along = along + turn.sin()[:, None, None] * steps[None, :, None]
    kind = (scene[:, 12] * 5).floor()[:, None, None]
    frequency = (2 + 10 * scene[:, 13])[:, None, None]
    across = turn.cos()[:, None, None] * steps[None, :, None]
    across = across - turn.sin()[:, None, None] * steps[None, None, :]
    stripes = torch.sigmoid(12 * (along * frequency * 2 * torch.pi).sin())
    squares = torch.sigmoid(12 * (along * frequency * 6.0).sin() * (across * frequency * 6.0).sin())
    horizon = torch.sigmoid(40 * (steps[None, :, None] - 0.3 - 0.4 * scene[:, 13, None, None]))
    mix = torch.where(kind == 1, 0.35 * stripes, along.clamp(0, 1))
    mix = torch.where(kind == 2, 0.35 * squares, mix)
    mix = torch.where(kind == 3, horizon.expand_as(mix), mix)[:, None]
    base = first[:, :, None, None] * (1 - mix) + second[:, :, None, None] * mix
    coarse, fine = noise[:, :108].view(batch, 3, 6, 6), noise[:, 108:].view(batch, 1, 24, 24)
    clouds = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False) - 0.5
    grain = F.interpolate(fine, size=(size, size), mode="bilinear", align_corners=False) - 0.5
    strength = scene[:, 14, None, None, None]
    return (base + 0.2 * strength * clouds + 0.12 * scene[:, 15, None, None, None] * grain).clamp(0, 1)


def _composite(
    canvas: Tensor,
    pixels: Tensor,
    sprites: Tensor,
    transforms: Tensor,
    light: Tensor,
    shadow: Tensor,
    shadow_offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lay the objects over the canvas, slot by slot; see SceneBatch for what comes back.

    A pixel belongs to the object whose share of its colour is more than half, else to none.
    """
    batch, _, size, _ = canvas.shape
    slots = sprites.shape[1]
    shares = canvas.new_zeros(batch, slots, size, size)
    drawn = torch.zeros_like(sprites)
    for k in range(slots):
        here = (sprites[:, k] >= 0).nonzero().squeeze(1)
        if not len(here):
            continue
        cells = pixels[sprites[here, k]]
        theta = transforms[here, k]
        grid = F.affine_grid(theta, [len(here), 4, size, size], align_corners=False)
        layer = F.grid_sample(cells, grid, align_corners=False)
        alpha = layer[:, 3:]
        moved = theta.clone()
        moved[:, :, 2] -= (theta[:, :, :2] @ (2 * shadow_offset[here])[..., None])[..., 0]
        soft = F.avg_pool2d(cells[:, 3:], 9, stride=1, padding=4)
        grid = F.affine_grid(moved, [len(here), 1, size, size], align_corners=False)
        dark = shadow[here, None, None, None] * F.grid_sample(soft, grid, align_corners=False)
        lit = (layer[:, :3] * light[here, k, None, None, None]).minimum(alpha)
        canvas[here] = canvas[here] * (1 - dark) * (1 - alpha) + lit
        shares[here] *= 1 - alpha
        shares[here, k] = alpha[:, 0]
        drawn[here, k] = (alpha > 0.5).sum(dim=(1, 2, 3))
    share, owner = shares.max(dim=1)
    labels = torch.where(share > 0.5, owner + 1, 0)
    visible = F.one_hot(labels.flatten(1), slots + 1).sum(1)[:, 1:]
    images = (canvas * 255).round().to(torch.uint8)
    return images, labels.to(torch.uint8), drawn, visible
