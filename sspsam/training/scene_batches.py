"""Batches of scenes: a pure function of the step, so that a resumed run sees the same data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sspsam.images.preprocess import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD
from sspsam.model_config import SSPSAMConfig
from sspsam.scenes.atlas import load_atlas
from sspsam.scenes.expressions import ScenePhrase, scene_phrases
from sspsam.scenes.render import SceneBatch, SceneConfig, render
from sspsam.scenes.things import things
from sspsam.training.losses import boxes_of

#: A patch shows what covers this much of it, and nothing if all objects cover less than a tenth.
_COVERED = 0.35


@dataclass(frozen=True)
class Batch:
    """B images, N phrases. M is the model's `score_size`, G CLIP's grid."""

    scenes: NDArray[np.int64]  # (B,) indices, for cached features
    clip_pixels: Tensor  # (B, 3, S, S), as `preprocess` makes them
    sam_pixels: Tensor  # (B, 3, L, L), likewise
    phrases: list[str]  # N
    kinds: list[str]  # N
    image_index: Tensor  # (N,) int64
    masks: Tensor  # (N, M, M) bool
    boxes: Tensor  # (N, 4) cxcywh relative to the CLIP square; zeros without a target
    mentioned: Tensor  # (N, G, G), fraction of each patch that shows something the phrase names
    patch_names: Tensor  # (B, G, G) int64: index of the name shown, len(names) for none, -1 unclear
    object_masks: Tensor  # (B, K, M, M) bool, what shows of each object
    clip_tokens: Tensor | None = None  # (B, 1 + G*G, E) if known; then clip_pixels may be empty
    sam_embedding: Tensor | None = None  # (B, C, H, W) if known; then sam_pixels is empty


class SceneSource:
    """Scenes of a seed as training batches.

    Args:
        model: sizes of both towers' inputs.
        scenes: what scenes look like; pictures are resized to each tower's input.
        seed: of the scenes and of the phrases about them.
        pool: number of scenes that are drawn in advance into memory-mapped files and reused with
            new phrases; 0 draws new scenes for every batch.
        folder: where the pool is kept; reused if it is complete.
    """

    def __init__(
        self,
        model: SSPSAMConfig,
        scenes: SceneConfig,
        seed: int,
        pool: int = 0,
        folder: Path | None = None,
        shares: dict[str, float] | None = None,
    ) -> None:
        self.model, self.scenes, self.seed, self.shares = model, scenes, seed, shares
        self.atlas = load_atlas()
        self.names, _ = self.atlas.pool(scenes.pool)
        self.pool = ScenePool(folder, seed, pool, scenes) if pool and folder else None
        self.pool_size = pool

    def batch(self, step: int, images: int, phrases: int, device: torch.device) -> Batch:
        """The batch of a step: the same one at every call."""
        indices: NDArray[np.int64]
        if self.pool is None:
            indices = step * images + np.arange(images, dtype=np.int64)
        else:
            indices = epoch_slice(self.seed, step * images, images, self.pool_size)
        return self.make(indices, phrases, Random(f"{self.seed}/{step}"), device)

    def make(self, indices: NDArray[np.int64], phrases: int, random: Random, device: torch.device) -> Batch:
        """These scenes with `phrases` phrases each."""
        if self.pool is None:
            drawn = render(self.seed, indices, self.scenes, device)
        else:
            drawn = self.pool.take(indices, device)
        made: list[ScenePhrase] = []
        owner: list[int] = []
        for row in range(len(indices)):
            scene = things(drawn, row, self.atlas)
            made += scene_phrases(scene, self.names, self.atlas, random, phrases, self.shares)
            owner += [row] * (len(made) - len(owner))
        slots = drawn.sprites.shape[1]
        shows = _one_hot(drawn.labels, slots)  # (B, K, S, S)
        grid, side = self.model.clip.grid, self.model.score_size
        coverage = F.adaptive_avg_pool2d(shows, grid)
        objects = F.adaptive_avg_pool2d(shows, side) > 0.5
        index = torch.tensor(owner, dtype=torch.long, device=device)
        # (N, K): which objects a phrase means, and which it names.
        meant, named = (
            torch.tensor([[k in chosen for k in range(slots)] for chosen in choices], device=device)
            for choices in ([p.targets for p in made], [p.mentioned for p in made])
        )
        masks = (objects[index] & meant[:, :, None, None]).any(1)
        clip_pixels, sam_pixels = pixels(drawn.images, self.model)
        return Batch(
            scenes=indices,
            clip_pixels=clip_pixels,
            sam_pixels=sam_pixels,
            phrases=[phrase.text for phrase in made],
            kinds=[phrase.kind for phrase in made],
            image_index=index,
            masks=masks,
            boxes=boxes_of(masks),
            mentioned=torch.einsum("nk,nkhw->nhw", named.float(), coverage[index]),
            patch_names=self._patch_names(drawn, coverage),
            object_masks=objects,
        )

    def _patch_names(self, drawn: SceneBatch, coverage: Tensor) -> Tensor:
        lookup = {name: i for i, name in enumerate(self.names)}
        # The last number, an empty slot's -1, is that of no name.
        numbers = np.array([*(lookup.get(sprite.name, -1) for sprite in self.atlas.sprites), -1])
        most, slot = coverage.max(dim=1)
        shown = torch.from_numpy(numbers[drawn.sprites]).to(slot.device)
        shown = shown.gather(1, slot.flatten(1)).view_as(slot)
        empty = coverage.sum(1) < 0.1
        shown = torch.where(most >= _COVERED, shown, -1)
        return torch.where(empty, len(self.names), shown)


def pixels(images: Tensor, model: SSPSAMConfig) -> tuple[Tensor, Tensor]:
    """(B, 3, S, S) uint8 square pictures to both towers' inputs, on their device.

    Like `sspsam.images.preprocess` on a square picture, but resized by torch (antialiased) and not rounded
    to whole grey levels in between: pixels differ by less than one level of 255.
    """
    x = images.float()
    side = model.clip.image_size
    small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    if x.shape[-1] != model.sam.image_size:
        large = model.sam.image_size
        x = F.interpolate(x, size=(large, large), mode="bilinear", antialias=True)
    per_channel = lambda values: torch.tensor(values, device=x.device)[:, None, None]  # noqa: E731
    clip = (small / 255 - per_channel(CLIP_MEAN)) / per_channel(CLIP_STD)
    return clip, (x - per_channel(SAM_MEAN)) / per_channel(SAM_STD)


def _one_hot(labels: Tensor, slots: int) -> Tensor:
    """(B, S, S) uint8 to (B, K, S, S) float32, background left out."""
    numbers = torch.arange(1, slots + 1, dtype=torch.uint8, device=labels.device)
    return (labels[:, None] == numbers[:, None, None]).float()


def epoch_slice(seed: int, start: int, count: int, size: int) -> NDArray[np.int64]:
    """Positions start..start+count of an endless sequence of shuffled passes over 0..size."""
    out = np.empty(count, dtype=np.int64)
    for i, position in enumerate(range(start, start + count)):
        epoch, place = divmod(position, size)
        if i == 0 or place == 0:
            order = np.random.default_rng([seed, epoch]).permutation(size)
        out[i] = order[place]
    return out


class ScenePool:
    """Scenes 0..count of a seed in memory-mapped files, drawn once."""

    _ARRAYS = ("images", "labels", "sprites", "centres", "scales", "drawn", "visible")
    _CHUNK = 64  # scenes drawn at a time

    def __init__(self, folder: Path, seed: int, count: int, config: SceneConfig) -> None:
        stamp = f"{seed} {count} {config}"
        done = folder / "done.txt"
        if not (done.exists() and done.read_text() == stamp):
            folder.mkdir(parents=True, exist_ok=True)
            done.unlink(missing_ok=True)
            self._draw(folder, seed, count, config)
            done.write_text(stamp)
        self._maps = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in self._ARRAYS]

    def _draw(self, folder: Path, seed: int, count: int, config: SceneConfig) -> None:
        maps: list[NDArray[np.generic]] = []
        for start in range(0, count, self._CHUNK):
            indices = np.arange(start, min(start + self._CHUNK, count), dtype=np.int64)
            drawn = render(seed, indices, config)
            arrays = [np.asarray(getattr(drawn, name)) for name in self._ARRAYS]
            if not maps:
                maps = [
                    np.lib.format.open_memmap(
                        folder / f"{name}.npy", "w+", array.dtype, (count, *array.shape[1:])
                    )
                    for name, array in zip(self._ARRAYS, arrays, strict=True)
                ]
            for target, array in zip(maps, arrays, strict=True):
                target[indices] = array
        for target in maps:
            target.flush()  # type: ignore[attr-defined]

    def take(self, indices: NDArray[np.int64], device: torch.device) -> SceneBatch:
        """These scenes, as `render` would draw them."""
        images, labels, *rest = (array[indices] for array in self._maps)
        return SceneBatch(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), *rest)
