"""The phrases to segment: from captions, columns, lists, or a user's function."""

from pipeline.phrases.noun_phrases import CaptionReader, Phrase, noun_phrases, without_repeats
from pipeline.phrases.source import LANGUAGE, PhraseSource, phrase_source

__all__ = [
    "LANGUAGE",
    "CaptionReader",
    "Phrase",
    "PhraseSource",
    "noun_phrases",
    "phrase_source",
    "without_repeats",
]
