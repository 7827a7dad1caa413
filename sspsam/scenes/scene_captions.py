"""Captions of scenes: a sentence with some of a scene's phrases."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from sspsam.scenes.expressions import ScenePhrase
from sspsam.scenes.names import NO_ARTICLE, with_article

_OPENINGS: Final = ("", "", "", "A picture of ", "A drawing of ", "This shows ")
_DETERMINERS: Final = ("a", "an", "the", "all", "both", "two", "three", "four", "five", "six")
_QUESTION: Final = 0.5  # chance that a caption asks for something that is not there


def caption(phrases: Sequence[ScenePhrase], random: Random, most: int = 3) -> str:
    """One to `most` phrases about different objects, and at times a question for what is missing."""
    there = [p for p in phrases if p.targets and " and " not in p.text and not _odd(p)]
    missing = [p for p in phrases if not p.targets and not p.mentioned and not p.text.endswith("s")]
    random.shuffle(there)
    chosen: list[str] = []
    named: set[int] = set()
    for phrase in there:
        if len(chosen) < most and not named & set(phrase.mentioned):
            chosen.append(said_of(phrase))
            named |= set(phrase.mentioned)
    if not chosen:
        chosen = ["a plain wall"]
    listed = chosen[0] if len(chosen) == 1 else ", ".join(chosen[:-1]) + " and " + chosen[-1]
    sentence = f"{random.choice(_OPENINGS)}{listed}."
    sentence = sentence[0].upper() + sentence[1:]
    if missing and random.random() < _QUESTION:
        words = said_of(random.choice(missing)).split()
        rest = " ".join(words[1:] if words[0] in ("a", "an", "the") else words)
        sentence += f" Where is the {rest}?"
    return sentence


def said_of(phrase: ScenePhrase) -> str:
    """The phrase with an article if English wants one."""
    first = phrase.text.split()[0]
    single = len(phrase.targets) <= 1 and not phrase.text.endswith("s")
    if first in _DETERMINERS or not single or phrase.text in NO_ARTICLE:
        return phrase.text
    return with_article(phrase.text)


def _odd(phrase: ScenePhrase) -> bool:
    """A bare singular that means several: an answer key, but no English sentence."""
    bare = phrase.text.split()[0] not in _DETERMINERS
    return len(phrase.targets) > 1 and bare and not phrase.text.endswith("s")
