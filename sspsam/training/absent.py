"""Phrases of other images that mean nothing in this one, for data that teaches no "nothing there"."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sspsam.data import Record

#: Data with a smaller share of phrases without a target than this has too few of them.
FEW: Final = 0.1
#: Share of the phrases shown that have no target, where the data has too few and nothing else is asked.
SHARE: Final = 0.25

_TRIES = 30  # phrases looked at for one that fits
_SAME = 0.8  # part of the images in which two nouns must mean one region to count as synonyms

_COLOURS = frozenset(
    """red orange yellow green blue purple violet pink brown black white grey gray golden silver beige tan
    """.split()  # noqa: SIM905
)
#: Words that name no thing: determiners, numbers, places, and what stands for any noun.
_NO_NOUN = _COLOURS.union(
    """a an the this that these those his her its their my your our some any all both each every another other
    others one ones two three four five six first second third fourth last only it he she they who whole half
    left right top bottom upper lower middle center centre front back far near close closest side corner end
    leftmost rightmost lhs rhs big bigger biggest large larger largest small smaller smallest little tall
    short thing object stuff item part pic picture image photo
    """.split()  # noqa: SIM905
)
#: Words that end the part of a phrase which says what is meant.
_ENDS = re.compile(
    r"\b(?:of|in|on|at|with|without|to|from|by|near|nearest|next|behind|beside|besides|below|above|under|over"
    r"|between|among|against|along|around|across|inside|outside|facing|for|is|are|was|that|who|which|whose"
    r"|as|than|into|onto|through|beneath|underneath|closest|not|no|has|have|having"
    r"|(?!(?:th|build|cloth|paint|ceil|rail|awn|w|r|k|str|spr|pudd|earr)ing\b)[a-z]+ing)\b"
)
_JOINS = re.compile(r"\b(?:and|or|plus)\b|[,;&/]")
#: Nouns for people mean the same person too often to tell them apart.
_PERSON = frozenset(
    """person people man men woman women guy girl boy lady child children kid dude player baby human batter
    catcher skier surfer rider couple gentleman mom dad mother father umpire somebody someone
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Wording:
    """What of a phrase decides where it may be true; nouns and words are stems."""

    heads: frozenset[str]  # the nouns of what is meant
    joined: bool  # "the dog and the cat": a part of it may be there
    anchors: frozenset[str]  # the nouns of what it is placed by: "the dog left of the CAR"
    colours: frozenset[str]
    words: frozenset[str]  # all words that may name a thing


def stem(word: str) -> str:
    """A word without its plural: dog and dogs, bus and buses, cherry and cherries are the same."""
    if word in _PERSON:
        return "person"
    if word.endswith("es"):
        word = word[:-2]
    elif word.endswith("e") or (word.endswith("s") and not word.endswith(("ss", "us", "is"))):
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


@lru_cache(maxsize=1 << 16)
def wording(phrase: str) -> Wording:
    """The nouns of an English phrase, by its closed-class words alone: no parser is needed here."""
    text = " ".join(re.findall(r"[^\W_]+|[,;&/]", phrase.lower()))
    cut = _ENDS.search(text, next((m.end() for m in re.finditer(r"\S+ ?", text)), 0))
    subject, rest = (text, "") if cut is None else (text[: cut.start()], text[cut.start() :])
    heads = frozenset(noun for part in _JOINS.split(subject) if (noun := _noun(part)))
    anchors = frozenset(
        noun for end in _ENDS.split(rest) for part in _JOINS.split(end) if (noun := _noun(part))
    )
    words = re.findall(r"[^\W_]+", text)
    return Wording(
        heads,
        bool(_JOINS.search(text)),
        anchors,
        frozenset(subject.split()) & _COLOURS,
        frozenset(stem(word) for word in words if word not in _NO_NOUN),
    )


def _noun(words: str) -> str | None:
    """The stem of the last word that may name a thing."""
    found = [word for word in words.split() if word not in _NO_NOUN and not word.isdecimal()]
    return stem(found[-1]) if found else None


def share_without_target(records: Sequence[Record]) -> float:
    """Share of the records that mean nothing in their image; 0 of none."""
    return sum(not record.has_target for record in records) / max(len(records), 1)


class AbsentPhrases:
    """Draws phrases that mean something in another image and nothing in this one.

    A phrase is taken to mean nothing in an image if none of its nouns is a word of the image's own phrases,
    nor a noun that names the same region as one of them elsewhere in the data ("puppy" and "dog", "animals"
    and "dog"). Near ones are harder to tell: of a noun that shares a group word with one that is here ("cat"
    where there is a dog); of a noun that is here, in a colour that no own phrase gives it, or placed by a
    thing that is not here. All of this reads the phrases alone: a thing that the data shows and never names
    can be drawn.

    Args:
        images: the records of each image.
        others: whose phrases are drawn, in their own frequency.
        near: share of near ones among those drawn, where there are any.
    """

    def __init__(self, images: Sequence[Sequence[Record]], others: Sequence[Record], near: float) -> None:
        self._near = near
        self._pool = [r.phrase for r in others if r.has_target and wording(r.phrase).heads]
        self._by_head: dict[str, list[str]] = defaultdict(list)
        for phrase in self._pool:
            for head in wording(phrase).heads:
                self._by_head[head].append(phrase)
        self._same = _synonyms(images)
        self._own = [[wording(record.phrase) for record in records] for records in images]

    def draw(self, image: int, count: int, random: Random) -> list[str]:
        """Up to `count` different phrases that mean nothing in image number `image`."""
        own = self._own[image]
        here = self._alike(set().union(*(one.words for one in own)))
        heads = sorted({head for one in own for head in one.heads if head in self._by_head})
        kin = sorted(h for h in self._alike(here) - here if h in self._by_head)
        drawn: dict[str, None] = {}
        for _ in range(count):
            near = random.random() < self._near
            nouns = random.choice([kin or heads, heads or kin]) if near else []
            found = self._try(nouns, own, here, drawn, random) if nouns else None
            found = found or self._try(None, own, here, drawn, random)
            if found:
                drawn[found] = None
        return list(drawn)

    def any(self) -> bool:
        """Whether there is a phrase for at least one image."""
        return any(self.draw(image, 1, Random(image)) for image in range(len(self._own)))

    def _try(
        self,
        nouns: Sequence[str] | None,
        own: Sequence[Wording],
        here: set[str],
        drawn: dict[str, None],
        random: Random,
    ) -> str | None:
        """A phrase with one of `nouns` (None: any) that is absent here and not drawn yet."""
        for _ in range(_TRIES if self._pool else 0):
            pool = self._pool if nouns is None else self._by_head[random.choice(nouns)]
            phrase = random.choice(pool)
            if phrase not in drawn and _means_nothing(wording(phrase), own, here):
                return phrase
        return None

    def _alike(self, nouns: set[str]) -> set[str]:
        return nouns.union(*(self._same[noun] for noun in nouns if noun in self._same))


def _means_nothing(asked: Wording, own: Sequence[Wording], here: set[str]) -> bool:
    if asked.heads.isdisjoint(here):
        return True
    if asked.joined or "person" in asked.heads:
        return False  # what people wear and hold is seldom all named
    if asked.anchors - here:
        return True
    colours = [one.colours for one in own if one.heads & asked.heads]
    return bool(asked.colours and colours) and all(c and c.isdisjoint(asked.colours) for c in colours)


def _synonyms(images: Sequence[Sequence[Record]]) -> dict[str, set[str]]:
    """Nouns that mean one region, or one a part of the other's, in most images that have both."""
    together: Counter[tuple[str, str]] = Counter()
    same: Counter[tuple[str, str]] = Counter()
    for records in images:
        shown = [r for r in records if r.has_target and r.box and len(wording(r.phrase).heads) == 1]
        if len(shown) < 2:
            continue
        nouns = [next(iter(wording(r.phrase).heads)) for r in shown]
        overlaps = _overlaps(shown)
        pairs: dict[tuple[str, str], bool] = {}
        for i, j in combinations(range(len(shown)), 2):
            if nouns[i] != nouns[j]:
                pair = (min(nouns[i], nouns[j]), max(nouns[i], nouns[j]))
                alike = max(overlaps[i, j], overlaps[j, i]) >= _SAME
                pairs[pair] = pairs.get(pair, False) or bool(alike)
        together.update(pairs)
        same.update(pair for pair, alike in pairs.items() if alike)
    found: dict[str, set[str]] = defaultdict(set)
    for (first, second), count in same.items():
        if count >= _SAME * together[first, second]:
            found[first].add(second)
            found[second].add(first)
    return found


def _overlaps(records: Sequence[Record]) -> NDArray[np.float64]:
    """(n, n): the part of each mask that lies in each other one; of boxes their IoU, where masks are not
    run lengths."""
    masks = list(_run_lengths(records))
    if len(masks) == len(records):
        return np.asarray(coco_mask.iou(masks, masks, [1] * len(masks)))
    boxes = np.array([record.box for record in records], dtype=np.float64)
    return np.asarray(coco_mask.iou(boxes, boxes, [0] * len(boxes)))


def _run_lengths(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        parts = record.segmentation
        if parts is not None and len(parts.rles) == 1 and not parts.rings and parts.file is None:
            (height, width), counts = parts.rles[0]
            yield {"size": [height, width], "counts": counts.encode("ascii")}
