"""What to ask masks for: phrases from captions, columns, lists, or a function of the user's."""

from pipeline.phrases.noun_phrases import Phrase, noun_phrases

__all__ = ["Phrase", "noun_phrases"]
