"""The objects of a scene: position, size, and whether enough of each is visible to mention it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sspsam.scenes.atlas import Atlas, Sprite
from sspsam.scenes.render import SceneBatch

#: Fraction of a drawing that must show for the object to be talked about.
_SHOWS: Final = 0.35


@dataclass(frozen=True)
class Thing:
    """One object of a scene, as far as phrases go."""

    slot: int
    sprite: Sprite
    x: float  # centre, fraction of the side, to the right
    y: float  # centre, fraction of the side, downwards
    size: float  # area of the whole drawing, fraction of the picture
    shows: bool  # enough of it can be seen


def things(batch: SceneBatch, row: int, atlas: Atlas) -> list[Thing]:
    """The objects of one scene of a batch, in drawing order."""
    side = batch.labels.shape[-1]
    found = []
    for slot, sprite in enumerate(batch.sprites[row]):
        if sprite < 0:
            continue
        drawn, visible = int(batch.drawn[row, slot]), int(batch.visible[row, slot])
        x, y = batch.centres[row, slot]
        found.append(
            Thing(
                slot,
                atlas.sprites[sprite],
                float(x),
                float(y),
                drawn / side**2,
                visible > _SHOWS * drawn,
            )
        )
    return found


def slots(group: Sequence[Thing]) -> tuple[int, ...]:
    """The slots of some objects, in their order."""
    return tuple(thing.slot for thing in group)


def by_name(scene: Sequence[Thing]) -> dict[str, list[Thing]]:
    """Groups of equal name of which every member shows well enough to be talked about."""
    groups = defaultdict(list)
    for thing in scene:
        groups[thing.sprite.name].append(thing)
    return {name: group for name, group in groups.items() if all(t.shows for t in group)}


def of_category(scene: Sequence[Thing], category: str) -> list[Thing] | None:
    """Everything of a category; None if some of it hardly shows."""
    group = [thing for thing in scene if category in thing.sprite.categories]
    return group if all(thing.shows for thing in group) else None
