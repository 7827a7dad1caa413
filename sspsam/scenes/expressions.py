"""Referring expressions about a scene, and which of its objects each one means.

A phrase's truth is a set of objects; its mask is their union. Phrases about something that hardly
shows, or whose truth people could argue about (left by a hair, big by a little), are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from sspsam.scenes.atlas import Atlas, Sprite
from sspsam.scenes.names import RECOLOURED, RECOLOURS, plural, with_article
from sspsam.scenes.things import Thing, by_name, of_category, slots

#: Kinds of phrases, each with its weight when a scene's phrases are drawn. "absent" has no target. Scenes
#: seldom offer a relation, a place or a size worth saying, so their weights exceed what comes of them.
KINDS: Final = {
    "name": 0.12,
    "colour": 0.07,
    "size": 0.12,
    "position": 0.30,
    "relation": 0.25,
    "set": 0.08,
    "category": 0.05,
    "absent": 0.14,
}

_NUMBERS: Final = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
#: Fraction of the side by which places must differ before they are told apart.
_APART: Final = 0.10
#: Factor between areas that people see as bigger and smaller.
_BIGGER: Final = 1.7


@dataclass(frozen=True)
class ScenePhrase:
    """A phrase and its truth."""

    text: str
    kind: str  # one of KINDS
    targets: tuple[int, ...]  # slots of the objects that it means; empty: nothing in the scene
    mentioned: tuple[int, ...]  # slots of every object whose name it says, targets included


def scene_phrases(
    scene: Sequence[Thing],
    names: Sequence[str],
    atlas: Atlas,
    random: Random,
    count: int,
    shares: dict[str, float] | None = None,
) -> list[ScenePhrase]:
    """Up to `count` phrases, no text twice.

    Args:
        scene: every object.
        names: those of the pool, from which absent ones are drawn.
        shares: weight of each kind; KINDS if left out.
    """
    shares = KINDS if shares is None else shares
    makers: dict[str, Callable[[], ScenePhrase | None]] = {
        "name": lambda: _name(scene, random),
        "colour": lambda: _colour(scene, random),
        "size": lambda: _size(scene, random),
        "position": lambda: _position(scene, random),
        "relation": lambda: _relation(scene, random),
        "set": lambda: _set(scene, random),
        "category": lambda: _category(scene, random),
        "absent": lambda: _absent(scene, names, atlas, random),
    }
    kinds = [kind for kind in makers if shares.get(kind, 0) > 0]
    weights = [shares[kind] for kind in kinds]
    made: dict[str, ScenePhrase] = {}
    for _ in range(6 * count):
        if len(made) == count:
            break
        phrase = makers[random.choices(kinds, weights)[0]]()
        if phrase is not None:
            made.setdefault(phrase.text, phrase)
    return list(made.values())


def said(sprite: Sprite, random: Random) -> str:
    """A name or, one time in three, a synonym."""
    return random.choice((sprite.name, sprite.name, *sprite.synonyms))


def _pick(scene: Sequence[Thing], random: Random, least: int = 1) -> list[Thing] | None:
    groups = [group for group in by_name(scene).values() if len(group) >= least]
    return random.choice(groups) if groups else None


def _pick_recoloured(scene: Sequence[Thing], random: Random) -> list[Thing] | None:
    groups = {n: g for n, g in by_name(scene).items() if n in RECOLOURED}
    return groups[random.choice(sorted(groups))] if groups else None


def _determined(noun: str, random: Random) -> str:
    """A singular noun phrase as people write them: bare, with "the", or with "a"."""
    return random.choice((noun, noun, f"the {noun}", with_article(noun)))


def _name(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    group = _pick(scene, random)
    if group is None:
        return None
    noun = said(group[0].sprite, random)
    if len(group) == 1:
        return ScenePhrase(_determined(noun, random), "name", slots(group), slots(group))
    return ScenePhrase(noun, "set", slots(group), slots(group))


def _colour(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    group = _pick_recoloured(scene, random)
    if group is None:
        return None
    colour = random.choice([thing.sprite.colour for thing in group])
    same = [thing for thing in group if thing.sprite.colour == colour]
    noun = f"{colour} {said(group[0].sprite, random)}"
    if len(same) == 1:
        return ScenePhrase(_determined(noun, random), "colour", slots(same), slots(same))
    text = random.choice((plural(noun), f"the {plural(noun)}", f"{_NUMBERS[len(same)]} {plural(noun)}"))
    return ScenePhrase(text, "set", slots(same), slots(same))


def _size(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    group = _pick(scene, random, least=2)
    if group is None:
        return None
    ordered = sorted(group, key=lambda thing: thing.size)
    big = random.random() < 0.5
    chosen, rival = (ordered[-1], ordered[-2]) if big else (ordered[0], ordered[1])
    if max(chosen.size, rival.size) < _BIGGER * min(chosen.size, rival.size):
        return None
    noun = said(chosen.sprite, random)
    words = ("big", "large", "biggest") if big else ("small", "little", "smallest")
    text = f"the {random.choice(words)} {noun}"
    return ScenePhrase(text, "size", (chosen.slot,), slots(group))


_PLACES: Final = {
    # direction: (adjectives, phrases after the noun)
    "left": (("left", "leftmost"), ("on the left", "at the left")),
    "right": (("right", "rightmost"), ("on the right", "at the right")),
    "top": (("top", "upper"), ("at the top",)),
    "bottom": (("bottom", "lower"), ("at the bottom",)),
}


def along(thing: Thing, direction: str) -> float:
    """How far `thing` lies in a direction of _PLACES, fraction of the side."""
    value = thing.x if direction in ("left", "right") else thing.y
    return -value if direction in ("left", "top") else value


def _position(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    group = _pick(scene, random, least=2)
    if group is None:
        return None
    direction = random.choice(tuple(_PLACES))
    ordered = sorted(group, key=lambda thing: along(thing, direction))
    chosen, rival = ordered[-1], ordered[-2]
    if along(chosen, direction) - along(rival, direction) < _APART:
        return None
    before, after = _PLACES[direction]
    noun = said(chosen.sprite, random)
    place = random.choice((*before, *after))
    text = f"the {place} {noun}" if place in before else f"the {noun} {place}"
    return ScenePhrase(text, "position", (chosen.slot,), slots(group))


_RELATIONS: Final = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "top": ("above",),
    "bottom": ("below", "under"),
}


def _relation(scene: Sequence[Thing], random: Random, want: bool = True) -> ScenePhrase | None:
    """ "the car left of the tree": what is meant may be several, the anchor is the only one."""
    groups = list(by_name(scene).values())
    anchors = [group[0] for group in groups if len(group) == 1]
    if not anchors or len(groups) < 2:
        return None
    anchor = random.choice(anchors)
    others = [g for g in groups if g[0].sprite.name != anchor.sprite.name]
    # Where two of a name stand about, the relation alone tells them apart: ask there mostly.
    group = random.choice([g for g in others if len(g) > 1] or others)
    direction = random.choice(tuple(_RELATIONS))
    beyond = [along(t, direction) - along(anchor, direction) for t in group]
    if any(0 < distance < _APART for distance in beyond):
        return None
    meant = [t for t, distance in zip(group, beyond, strict=True) if distance >= _APART]
    if bool(meant) != want:
        return None
    noun, several = said(group[0].sprite, random), len(meant) > 1
    relation = random.choice(_RELATIONS[direction])
    if several:
        subject = f"the {plural(noun)}"
    else:
        subject = random.choice((f"the {noun}", f"the {noun}", with_article(noun), noun))
    text = f"{subject} {relation} the {said(anchor.sprite, random)}"
    kind = "relation" if want else "absent"
    return ScenePhrase(text, kind, slots(meant), (*slots(group), anchor.slot))


def _set(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    groups = list(by_name(scene).values())
    several = [group for group in groups if len(group) > 1]
    if several and random.random() < 0.7:
        group = random.choice(several)
        nouns = plural(said(group[0].sprite, random))
        texts = [nouns, f"the {nouns}", f"all the {nouns}", f"{_NUMBERS[len(group)]} {nouns}"]
        if len(group) == 2:
            texts.append(f"both {nouns}")
        return ScenePhrase(random.choice(texts), "set", slots(group), slots(group))
    single = [group[0] for group in groups if len(group) == 1]
    if len(single) < 2:
        return None
    pair = random.sample(single, 2)
    first, second = (said(thing.sprite, random) for thing in pair)
    text = random.choice((f"the {first} and the {second}", f"{first} and {second}"))
    return ScenePhrase(text, "set", slots(pair), slots(pair))


def _category(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    category = random.choice([c for thing in scene for c in thing.sprite.categories])
    group = of_category(scene, category)
    if not group:
        return None
    nouns = plural(category)
    if len(group) == 1:
        mass = nouns == category
        text = f"the {nouns}" if mass else _determined(category, random)
        return ScenePhrase(text, "category", slots(group), slots(group))
    texts = [nouns, f"the {nouns}", f"all the {nouns}"]
    return ScenePhrase(random.choice(texts), "category", slots(group), slots(group))


def _absent(scene: Sequence[Thing], names: Sequence[str], atlas: Atlas, random: Random) -> ScenePhrase | None:
    """A name, a coloured name, a category or a relation that nothing in the scene answers to."""
    case = random.random()
    if case < 0.2:
        return _relation(scene, random, want=False)
    if case < 0.35:
        return _absent_colour(scene, random)
    here = {thing.sprite.name for thing in scene}
    sprite = _sprite_named(atlas, random.choice([n for n in names if n not in here]))
    if case < 0.45:
        category = random.choice(sprite.categories)
        there = any(category in thing.sprite.categories for thing in scene)
        return None if there else ScenePhrase(plural(category), "absent", (), ())
    noun = said(sprite, random)
    if sprite.name in RECOLOURED and random.random() < 0.4:
        noun = f"{random.choice(tuple(RECOLOURS))} {noun}"
    several = f"{_NUMBERS[random.randint(2, 3)]} {plural(noun)}"
    texts = (_determined(noun, random), _determined(noun, random), several)
    return ScenePhrase(random.choice(texts), "absent", (), ())


def _absent_colour(scene: Sequence[Thing], random: Random) -> ScenePhrase | None:
    """Something that is there, in a colour in which it is not."""
    group = _pick_recoloured(scene, random)
    if group is None:
        return None
    free = [c for c in RECOLOURS if c not in {thing.sprite.colour for thing in group}]
    noun = f"{random.choice(free)} {said(group[0].sprite, random)}"
    return ScenePhrase(_determined(noun, random), "absent", (), ())


def _sprite_named(atlas: Atlas, name: str) -> Sprite:
    return next(sprite for sprite in atlas.sprites if sprite.name == name)
