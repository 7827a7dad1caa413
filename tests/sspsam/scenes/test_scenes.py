"""Scenes: the same seed draws the same, masks are what shows, phrases mean what they say."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from docs.sprite_names import CORE
from sspsam.errors import ConfigError
from sspsam.scenes import SPLITS, SceneConfig, load_atlas, scene, scenes
from sspsam.scenes.atlas import read_sprites
from sspsam.scenes.expressions import KINDS, ScenePhrase, scene_phrases
from sspsam.scenes.names import HELD_OUT_NAMES, HELD_OUT_STYLE, RECOLOURED, plural
from sspsam.scenes.render import render
from sspsam.scenes.things import Thing, things

_CONFIG = SceneConfig(size=64)


def test_a_scene_is_the_same_alone_in_any_batch_and_on_any_day() -> None:
    batch = render(5, np.arange(40, 46), _CONFIG)
    shuffled = render(5, np.array([45, 41]), _CONFIG)
    assert torch.equal(batch.images[[5, 1]], shuffled.images)
    assert torch.equal(batch.labels[[5, 1]], shuffled.labels)
    np.testing.assert_array_equal(batch.sprites[[5, 1]], shuffled.sprites)
    np.testing.assert_array_equal(batch.visible[[5, 1]], shuffled.visible)
    other = render(6, np.array([45, 41]), _CONFIG)
    assert not torch.equal(other.images, shuffled.images)
    first, again = scene(3, config=_CONFIG), scene(3, config=_CONFIG)
    assert first.phrases == again.phrases
    assert first.caption == again.caption
    np.testing.assert_array_equal(first.image, again.image)


def test_masks_are_what_the_picture_shows_of_each_drawing() -> None:
    """Repeats the compositing in numpy, one object at a time and pixel by pixel."""
    config = replace(_CONFIG, min_objects=4, max_objects=4, min_scale=0.5, max_scale=0.6)
    full = render(1, np.arange(8), config)
    occluded = 0
    for row in range(8):
        alone = [_alone(row, slot, config) for slot in range(4)]
        share = np.zeros((5, 64, 64))
        share[0] = 1.0
        for slot, alpha in enumerate(alone):  # later slots lie on top
            share[: slot + 1] *= 1 - alpha
            share[slot + 1] = alpha
        np.testing.assert_allclose(share.sum(0), 1.0, atol=1e-6)
        labels = full.labels[row].numpy()
        for slot, alpha in enumerate(alone):
            clear = np.abs(share[slot + 1] - 0.5) > 1e-4
            shows = share[slot + 1] > 0.5
            np.testing.assert_array_equal((labels == slot + 1)[clear], shows[clear])
            assert full.visible[row, slot] == (labels == slot + 1).sum()
            assert abs(int(full.drawn[row, slot]) - int((alpha > 0.5).sum())) <= 2
            occluded += int(full.drawn[row, slot] > full.visible[row, slot] + 20)
    assert occluded > 3  # the test saw objects behind others


def _alone(row: int, slot: int, config: SceneConfig) -> np.ndarray:
    """(64, 64) alpha of one object, sampled bilinearly by hand from its cell."""
    from sspsam.scenes import render as module

    atlas = load_atlas()
    caught: dict[str, torch.Tensor] = {}
    original = module._composite

    def catch(canvas, pixels, sprites, transforms, *rest):  # type: ignore[no-untyped-def]
        caught.update(sprites=sprites, transforms=transforms)
        return original(canvas, pixels, sprites, transforms, *rest)

    module._composite = catch
    try:
        render(1, np.array([row]), config)
    finally:
        module._composite = original
    cell = atlas.pixels[caught["sprites"][0, slot], 3].numpy()
    theta = caught["transforms"][0, slot].numpy()
    side = cell.shape[0]
    steps = (2 * np.arange(64) + 1) / 64 - 1
    x, y = np.meshgrid(steps, steps)
    u, v = (theta @ np.stack([x.ravel(), y.ravel(), np.ones(64 * 64)]) + 1) * side / 2 - 0.5
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    alpha = np.zeros(64 * 64)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (1 - np.abs(u - left - dx)) * (1 - np.abs(v - top - dy))
            inside = (left + dx >= 0) & (left + dx < side) & (top + dy >= 0) & (top + dy < side)
            value = cell[np.clip(top + dy, 0, side - 1), np.clip(left + dx, 0, side - 1)]
            alpha += np.where(inside, weight * value, 0)
    return alpha.reshape(64, 64)


def test_pools_keep_apart_what_training_must_not_see() -> None:
    atlas = load_atlas()
    for name in ("train", "style", "names"):
        _, drawings = atlas.pool(name)
        shown = [atlas.sprites[i] for group in drawings.values() for i in group]
        assert {s.style == HELD_OUT_STYLE for s in shown} == {name == "style"}
        assert {s.name in HELD_OUT_NAMES for s in shown} == {name == "names"}
    names, drawings = atlas.pool("train")
    assert set(names) == {entry[0] for entry in CORE.values()} - set(HELD_OUT_NAMES)
    assert all(len(drawings[name]) == 10 for name in RECOLOURED)
    assert len({sprite.name for sprite, _ in read_sprites()}) > 300
    assert len({seed for seed, pool in SPLITS.values() if pool == "train"}) == 3


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_every_phrase_means_what_a_reader_of_it_would_say(split: str) -> None:
    seed, pool = SPLITS[split]
    config = replace(_CONFIG, pool=pool)
    atlas = load_atlas()
    names, _ = atlas.pool(pool)
    batch = render(seed, np.arange(150), config)
    kinds: dict[str, int] = {}
    for row in range(150):
        objects = things(batch, row, atlas)
        for phrase in scene_phrases(objects, names, atlas, Random(row), 8):
            kinds[phrase.kind] = kinds.get(phrase.kind, 0) + 1
            assert set(phrase.targets) == _meaning(phrase.text, objects), (phrase, objects)
            assert set(phrase.targets) <= set(phrase.mentioned)
            assert (phrase.kind == "absent") == (not phrase.targets)
    if pool != "names":
        assert set(kinds) == set(KINDS)
        assert 0.05 < kinds["absent"] / sum(kinds.values()) < 0.25


def test_the_mask_of_a_phrase_is_the_union_of_its_objects() -> None:
    for one in scenes("heldout", 0, 6, config=_CONFIG):
        for phrase in one.phrases:
            expected = np.zeros_like(one.labels, dtype=bool)
            for slot in phrase.targets:
                expected |= one.labels == slot + 1
            np.testing.assert_array_equal(one.mask(phrase), expected)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="min_objects"):
        SceneConfig(min_objects=3, max_objects=2)
    with pytest.raises(ConfigError, match="heldout-style"):
        scene(0, split="nowhere")


# An independent reader of the phrases: grammar by regular expressions, truth by brute force.

_NUMBER = {"two": 2, "three": 3, "four": 4}
_COLOUR = "red|yellow|green|blue|purple"
_SIZE = r"big|large|biggest|small|little|smallest"
_PLACE = r"left|leftmost|right|rightmost|top|upper|bottom|lower"
_RELATION = r"to the left of|left of|to the right of|right of|above|below|under"


def _nouns() -> dict[str, object]:
    """Every noun, singular and plural, to a test for things it stands for."""
    table: dict[str, object] = {}
    for name, synonyms, categories in CORE.values():
        for noun in (name, *synonyms):
            for form in (noun, plural(noun)):
                table[form] = lambda t, name=name: t.sprite.name == name
        for category in categories:
            for form in (category, plural(category)):
                if form not in table:
                    table[form] = lambda t, c=category: c in t.sprite.categories
    return table


_NOUNS = _nouns()
_NOUN = "|".join(sorted(map(re.escape, _NOUNS), key=len, reverse=True))
_PHRASE = re.compile(
    rf"(?:(?:a|an|the|all the|both|two|three|four) )?(?:(?P<size>{_SIZE}) )?(?:(?P<place>{_PLACE}) )?"
    rf"(?:(?P<colour>{_COLOUR}) )?(?P<noun>{_NOUN})"
    rf"(?: (?:on|at) the (?P<where>left|right|top|bottom))?"
    rf"(?: (?P<relation>{_RELATION}) the (?P<anchor>{_NOUN}))?$"
)


def _meaning(text: str, objects: list[Thing]) -> set[int]:
    if " and " in text:
        return set().union(*(_meaning(part, objects) for part in text.split(" and ")))
    found = _PHRASE.match(text)
    assert found, text
    chosen = [t for t in objects if _NOUNS[found["noun"]](t)]  # type: ignore[operator]
    if found["colour"]:
        chosen = [t for t in chosen if t.sprite.colour == found["colour"]]
    number = _NUMBER.get(text.split(maxsplit=1)[0])
    if number and chosen:
        assert len(chosen) == number, text
    if text.startswith("both") and chosen:
        assert len(chosen) == 2
    if chosen and found["size"]:
        big = found["size"].startswith(("b", "la"))
        chosen = [(max if big else min)(chosen, key=lambda t: t.size)]
    place = found["place"] or found["where"]
    if chosen and place:
        place = {"upper": "top", "lower": "bottom"}.get(place, place).removesuffix("most")
        chosen = [max(chosen, key=lambda t: _towards(t, place))]
    if found["relation"]:
        words = found["relation"]
        direction = {"above": "top", "below": "bottom", "under": "bottom"}.get(words)
        direction = direction or ("left" if "left" in words else "right")
        (anchor,) = (t for t in objects if _NOUNS[found["anchor"]](t))  # type: ignore[operator]
        chosen = [t for t in chosen if _towards(t, direction) > _towards(anchor, direction)]
    return {t.slot for t in chosen}


def _towards(thing: Thing, direction: str) -> float:
    return {"left": -thing.x, "right": thing.x, "top": -thing.y, "bottom": thing.y}[direction]


def test_the_reader_knows_wrong_from_right() -> None:
    """The brute-force reader itself: a phrase given another object's truth is caught."""
    atlas = load_atlas()
    sprite = next(s for s in atlas.sprites if s.name == "dog")
    pair = [Thing(0, sprite, 0.2, 0.5, 0.1, True), Thing(1, sprite, 0.8, 0.5, 0.02, True)]
    wrong = ScenePhrase("the left dog", "position", (1,), (0, 1))
    assert _meaning("the left dog", pair) == {0} != set(wrong.targets)
    assert _meaning("the small dog", pair) == {1}
    assert _meaning("both puppies", pair) == {0, 1}
    assert _meaning("a cat", pair) == set()
