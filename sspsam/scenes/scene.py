"""One labelled scene: picture, phrases, exact masks, caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sspsam.errors import ConfigError
from sspsam.scenes.atlas import load_atlas
from sspsam.scenes.expressions import ScenePhrase, scene_phrases
from sspsam.scenes.render import SceneConfig, render
from sspsam.scenes.scene_captions import caption
from sspsam.scenes.things import things

#: Split -> (seed, sprite pool). No training run may use these seeds, but for that of `practice`.
SPLITS: Final = {
    "validation": (1_000_003, "train"),
    "practice": (3_000_017, "train"),
    "heldout": (2_000_003, "train"),
    "heldout-style": (2_000_003, "style"),
    "heldout-names": (2_000_003, "names"),
}

_CHUNK = 16  # scenes drawn at a time


@dataclass(frozen=True)
class Scene:
    """A labelled picture."""

    key: str  # "<split>-<index>"
    image: NDArray[np.uint8]  # (S, S, 3) RGB
    labels: NDArray[np.uint8]  # (S, S): 0 background, k + 1 where object k shows
    names: tuple[str, ...]  # of the objects, in drawing order
    phrases: tuple[ScenePhrase, ...]
    caption: str  # a sentence with some of `phrases`

    def mask(self, phrase: ScenePhrase) -> NDArray[np.bool_]:
        """(S, S) bool: what shows of the objects that the phrase means, all false if none."""
        return np.isin(self.labels, [slot + 1 for slot in phrase.targets])


def scene(index: int, split: str = "heldout", phrases: int = 8, config: SceneConfig | None = None) -> Scene:
    """Scene `index` of a split; the same at every call."""
    return next(scenes(split, index, 1, phrases, config))


def scenes(
    split: str,
    start: int,
    count: int,
    phrases: int = 8,
    config: SceneConfig | None = None,
) -> Iterator[Scene]:
    """Scenes start..start+count of a split, each with up to `phrases` phrases.

    Raises:
        ConfigError: no such split; the message lists those that exist.
    """
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r} of scenes; there are {', '.join(SPLITS)}")
    seed, pool = SPLITS[split]
    config = replace(config or SceneConfig(), pool=pool)
    atlas = load_atlas()
    names, _ = atlas.pool(pool)
    for first in range(start, start + count, _CHUNK):
        indices = np.arange(first, min(first + _CHUNK, start + count), dtype=np.int64)
        batch = render(seed, indices, config)
        for row, index in enumerate(indices.tolist()):
            random = Random(f"{seed}/{index}")
            objects = things(batch, row, atlas)
            made = scene_phrases(objects, names, atlas, random, phrases)
            yield Scene(
                key=f"{split}-{index:05d}",
                image=batch.images[row].permute(1, 2, 0).numpy(),
                labels=batch.labels[row].numpy(),
                names=tuple(thing.sprite.name for thing in objects),
                phrases=tuple(made),
                caption=caption(made, random),
            )
