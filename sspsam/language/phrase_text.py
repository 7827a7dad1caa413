"""The checks and clean-up that make a text a phrase for the model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from sspsam.errors import EmptyPhraseError

# Letters, numbers, and symbols that name things (emoji are "So", their skin tones "Sk").
_MEANING = ("L", "N", "So")


def clean_phrase(text: str) -> str:
    """Control characters and lone surrogates become blanks, runs of white space one blank.

    Emoji stay: CLIP's byte-level vocabulary has tokens for them. Long texts stay too; the tokenizer cuts
    them, and `Mask.truncated` is set.

    Raises:
        EmptyPhraseError: nothing in the text is a letter, a digit or a pictorial symbol.
    """
    kept = (" " if unicodedata.category(mark) in ("Cc", "Cs") else mark for mark in text)
    cleaned = " ".join("".join(kept).split())
    if not any(unicodedata.category(mark).startswith(_MEANING) for mark in cleaned):
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise EmptyPhraseError(
            f"phrase {shown!r} has no letter, digit or emoji: there is nothing to look for"
        )
    return cleaned


def runnable(phrases: Sequence[str]) -> list[tuple[int, str, str]]:
    """(position, phrase as given, phrase cleaned) of those that have something to look for."""
    found = []
    for position, phrase in enumerate(phrases):
        try:
            found.append((position, phrase, clean_phrase(phrase)))
        except EmptyPhraseError:
            continue
    return found
