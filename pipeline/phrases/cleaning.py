"""Which stretches of a caption are language about the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pipeline.phrases.web_text import BREAK, LEAD, TALK, TRAIL
from pipeline.phrases.words import DEPICTIONS, ENGLISH, FOREIGN, NOISE

#: Longer captions are cut here: what follows 10,000 characters is never a caption.
MAX_CHARACTERS: Final = 10_000

_IMAGE_WORD = "|".join(sorted((re.escape(w) + "s?" for w in DEPICTIONS), key=len, reverse=True))
#: "A black and white photo of", "Aerial view of", "this is an image showing".
_DEPICTION = re.compile(
    rf"""^\s*(?:(?:this|here|it)\s(?:is|are|shows)\s)?(?:(?:an?|the|this|some|two|three)\s)?
    (?:(?!(?:an?|the|of|with|in|on|at|his|her|their|its)\s|\w+ing\s)[\w'-]+\s){{0,4}}?
    (?:{_IMAGE_WORD}|close\sup)(?:\s(?:shot|view|photo|image|picture|drawing)s?)?\s
    (?:of|showing|depicting|featuring)\s""",
    re.VERBOSE | re.IGNORECASE,
)
#: "isolated on a white background", "for sale".
_BACKDROP = re.compile(
    r",?\s(?:isolated\s)?(?:(?:on|over|against|with)\s(?:an?\s|the\s)?"
    r"(?:\w+\s)?(?:\w+\s)?background|for\ssale|in\sstock)[\s.!]*$|,?\sisolated[\s.!]*$",
    re.IGNORECASE,
)
_DEPICTION_ONLY = re.compile(rf"(?:[\w-]+\s)?(?:{_IMAGE_WORD})[\s.!]*$", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[a-z]{3})\.\s+(?=[A-Z])")
#: Who shows it, at the end of a title that has lower case: "Kitchen sink | Home Depot".
_SITE: Final = re.compile(r"(?: [-–—]|\|)\s([A-Z][\w'&.]*(?: (?:&|[A-Z][\w'.]*)){0,2})\s*$")
_SMALL = re.compile(r"\b[a-z]{3,}\b")
_COMMA = re.compile(r",\s+")
_NOISE_TAIL = re.compile(r",\s*([\w .-]+)$")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def segments(caption: str) -> list[tuple[int, int]]:
    """Spans (start, end) of a caption, in characters, that hold language about the picture.

    Left out are URLs, hashtags, file names, sizes, the words of stock sites and shops, "a photo
    of".
    """
    caption = caption[:MAX_CHARACTERS]
    spans: list[tuple[int, int]] = []
    for start, end in _between(BREAK, caption, 0, len(caption)):
        # the parser reads sentences best together, but one that sells is left out alone
        sentences = list(_between(_SENTENCE, caption, start, end))
        talks = any(TALK.search(caption[slice(*sentence)]) for sentence in sentences)
        spans += sentences if talks else [(start, end)]
    site = _SITE.search(caption)
    if len(spans) > 1 and site and ("|" in site.group() or _SMALL.search(caption, 0, site.start())):
        spans.pop()
    trimmed = [_trim(caption, *span) for span in spans]
    return [span for span in trimmed if span[0] < span[1]]


def _between(breaks: re.Pattern[str], text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in breaks.finditer(text, start, end):
        yield start, match.start()
        start = match.end()
    yield start, end


def _trim(caption: str, start: int, end: int) -> tuple[int, int]:
    """A span without the noise at its ends; empty if nothing is left."""
    words = list(re.finditer(r"\S+", caption[start:end]))
    if all(_is_noise(word.group()) for word in words):
        return start, start
    tail = _NOISE_TAIL.search(caption, start, end)
    if tail and all(map(_is_noise, tail.group(1).split())):
        end = tail.start()
    parts = [*_COMMA.finditer(caption, start, end)][-50:]  # each is searched to the end
    for comma in reversed(parts):  # "ceramic mug, dishwasher safe, perfect gift for coffee lovers"
        if TALK.search(caption[comma.end() : end]) or _DEPICTION_ONLY.match(caption[comma.end() : end]):
            end = comma.start()
    while match := LEAD.match(caption[start:end]) or _DEPICTION.match(caption[start:end]):
        start += match.end()
    if match := TRAIL.search(caption[start:end]):
        end = start + match.start()
    if TALK.search(caption[start:end]):
        return start, start
    if match := _BACKDROP.search(caption[start:end]):
        end = start + match.start()
    words = list(re.finditer(r"\S+", caption[start:end]))
    first, last = 0, len(words)
    while first < last and words[first].group().lower() in ("download", "free", "stock", "buy"):
        first += 1
    while last > first + 1 and _is_trailing_noise([w.group().lower() for w in words[:last]]):
        last -= 1
    if first == last:
        return start, start
    return start + words[first].start(), start + words[last - 1].end()


def _is_noise(word: str) -> bool:
    return word.strip(".,!?-'").lower() in NOISE or not any(c.isalpha() for c in word)


def _is_trailing_noise(words: list[str]) -> bool:
    """Whether the last word is a shop's: "mountain wallpaper", but not "a boy with a wallpaper"."""
    word, before = words[-1].strip(".,!"), words[-2]
    if word in ("wallpaper", "wallpapers", "clipart", "stock", "hd", "4k"):
        return before not in ENGLISH
    if word in ("vector", "vectors"):
        return before not in ("a", "the", "of")
    return word in ("photo", "photos", "image", "images") and before in NOISE


def is_english(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    foreign = sum(word in FOREIGN for word in words)
    english = sum(word in ENGLISH for word in words)
    latin = sum(c.isascii() for word in words for c in word)
    return bool(words) and 2 * latin > sum(map(len, words)) and (foreign < 2 or english > foreign)


def for_parser(text: str) -> str:
    """The text as a parser reads it best, with every character where it was.

    Capitals make the parser see names; an all-capitals or Title Case text says nothing with them,
    nor does the first letter of a sentence.
    """
    words = [word for word in _WORD.findall(text) if len(word) > 1]
    capital = [word for word in words if word[0].isupper()]
    shouting = [word for word in words if word.isupper()]
    if len(words) > 1 and len(shouting) > 0.7 * len(words):
        return _lower(text)
    functional = [word for word in capital if word.lower() in ENGLISH]
    if len(words) > 2 and functional and len(capital) > 0.7 * len(words):
        return _lower(text)
    first = words[0] if words else ""
    couple = len(words) > 2 and words[1] == "and" and words[2][0].isupper()  # "Emily and Jack"
    if first and first[1:].islower() and not couple and (len(words) < 2 or words[1][0].islower()):
        at = text.index(first)
        return text[:at] + _lower(text[at : at + 1]) + text[at + 1 :]
    return text


def _lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
