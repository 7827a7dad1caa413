"""Rival phrases: what a phrase must not mean, from its own words. Signals come of asking for them too.

All by rule, so that a phrase has the same rivals in every run and image.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Final

from sspsam.language.sides import can_mirror, swap_left_right

#: Words and their opposites, by what they tell apart. A word stands in one pair: two swaps undo each other.
OPPOSITES: Final = {
    "side": "top/bottom upper/lower topmost/bottommost uppermost/lowermost foreground/background",
    "order": "first/last nearest/farthest closest/furthest",
    "size": "big/small bigger/smaller biggest/smallest large/little larger/littler largest/littlest huge/tiny"
    " tall/short taller/shorter tallest/shortest wide/narrow thick/thin",
    "colour": "red/green blue/yellow black/white purple/orange pink/brown dark/light",
    "relation": "above/below over/under in_front_of/behind on_top_of/underneath inside/outside",
    "person": "man/woman men/women boy/girl boys/girls male/female old/young older/younger oldest/youngest",
    "state": "open/closed full/empty standing/sitting wet/dry",
}

#: Things that most pictures do not show, in the vocabulary of every model here.
HEADS: Final = ("dog", "car", "tree", "chair", "bird", "book", "flower", "boat", "horse", "hat", "clock")

_DETERMINER = re.compile(
    "an?|the|this|that|these|those|his|her|its|their|my|your|our|all|both|some|two|three|four|five|six", re.I
)
#: What ends the part of a phrase in which its head stands.
_AFTER_HEAD = re.compile(
    "on|in|at|by|with|without|above|below|under|underneath|over|behind|near|beside|between|next|to|from|and|or"
    "|that|which|who|inside|outside|against|along|across|around|[a-z]+ing",
    re.IGNORECASE,
)


def _words(pairs: str) -> dict[str, str]:
    both = [pair.replace("_", " ").split("/") for pair in pairs.split()]
    return dict(both) | {b: a for a, b in both}


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest)})(?![\w-])", re.IGNORECASE)


_OTHER: Final = {kind: _words(pairs) for kind, pairs in OPPOSITES.items()}
_PATTERNS: Final = {kind: _pattern(words) for kind, words in _OTHER.items()}


def opposite(phrase: str, kind: str) -> str:
    """The phrase with the words of one kind of OPPOSITES swapped, or as it is. Capitals stay."""

    def other(match: re.Match[str]) -> str:
        found = match.group()
        word = _OTHER[kind][found.lower()]
        return word.upper() if found.isupper() else word.capitalize() if found[0].isupper() else word

    swapped = _PATTERNS[kind].sub(other, phrase)
    if kind != "side":
        return swapped
    mirrored = swap_left_right(swapped)
    # "left underneath" is a side, "right underneath" may be none: there is no way back.
    return mirrored if can_mirror(phrase) and can_mirror(mirrored) else swapped


def other_heads(phrase: str, count: int) -> list[str]:
    """The phrase about `count` other things, drawn from HEADS by the phrase itself: "a hat on the left"."""
    words = phrase.split()
    begin = next((i for i, word in enumerate(words) if not _DETERMINER.fullmatch(word)), 0)
    end = next((i for i in range(begin + 1, len(words)) if _ends_head(words, i)), len(words))
    first = words.index("of", begin, end) - 1 if "of" in words[begin:end] else end - 1
    said = {word.lower().strip(",.").removesuffix("s") for word in words}
    free = [head for head in HEADS if head not in said]
    start = zlib.crc32(phrase.encode())
    chosen = [free[(start + 5 * i) % len(free)] for i in range(min(count, len(free)))]
    return [" ".join([*words[: max(first, begin)], head, *words[end:]]) for head in chosen]


def _ends_head(words: list[str], at: int) -> bool:
    beside = words[at] in ("left", "right") and words[at + 1 : at + 2] == ["of"]
    return beside or _AFTER_HEAD.fullmatch(words[at]) is not None


def rivals(phrase: str) -> list[str]:
    """What a cleaned phrase must not mean: its opposites, one a kind, and itself about another thing.

    None is the phrase itself, and no two are the same.
    """
    asked = dict.fromkeys([*(opposite(phrase, kind) for kind in OPPOSITES), *other_heads(phrase, 1)])
    return [text for text in asked if text != phrase]


def paraphrase(phrase: str) -> str:
    """The same phrase said otherwise: without its article, or with "the"."""
    first, _, rest = phrase.partition(" ")
    return rest if rest and first.lower() in ("a", "an", "the") else f"the {phrase}"
