"""Which words of a parsed caption are phrases: rules over spaCy's English dependency labels.

Labels are those of spaCy's English models (ClearNLP dependencies, universal parts of speech, Penn
Treebank tags). The rules are stated in docs/input.md; captions with the phrases a person would ask
masks for stand in tests/pipeline/phrases/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.phrases.attachment import (
    left_of,
    list_cuts,
    right_of,
    unseen_cuts,
    with_place,
)
from pipeline.phrases.nouns import (
    is_no_phrase,
    is_own_after_of,
    is_thing,
    may_be_thing,
    noun_after_of,
)
from pipeline.phrases.words import (
    BODY,
    ROLES,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

#: Tags of titles' words before the noun; those that only the first word has.
_NOMINAL: Final = frozenset({"NN", "NNS", "NNP", "JJ", "JJR", "JJS", "HYPH"})
_FIRST: Final = frozenset({"VBN", "VBG", "VB", "UH", "CD", "RB", "VBD"})
_LETTERS = re.compile(r"[A-Za-z]{2}")


class Found(NamedTuple):
    """A phrase in a text: characters, and the words that stand for a name that is not to be asked for."""

    start: int
    end: int
    text: str | None = None


def find(doc: Doc, text: str, detail: str = "full", names: str = "keep") -> Iterator[Found]:
    """The phrases of one parsed text.

    Args:
        doc: tagged and parsed; with entities unless `names` is "keep".
        text: as it was written, every character where it is in `doc`.
        detail: "head" (noun and compounds), "modifiers" (all that stands before the noun too) or
            "full" (what follows as well).
        names: "generic" says role or "person" for a person's name, "drop" leaves persons out, "keep"
            asks for names as they stand. Named places are left out unless "keep".
    """
    doc = _as_title(doc)
    verbs = {token.i for token in doc if _is_disguised_verb(token)}
    cuts = sorted(verbs | {cut for token in doc for cut in (*list_cuts(token), *unseen_cuts(token))})
    found = any(e.label_ == "ORG" and len(e) == len(doc) and _is_proper(e) for e in doc.ents)
    for token in () if found else doc:
        if token.i in verbs:
            head = token.nbor(-1)  # "a suitcase waits": the suitcase, not the waits
        elif is_thing(token):
            head = token
        else:
            continue
        found = True
        if names == "drop" and head.ent_type_ == "PERSON":
            continue
        left, right = left_of(head), right_of(head)
        right = min([right, *(cut - 1 for cut in cuts if cut > head.i)])
        while right > head.i and (doc[right].is_punct or doc[right].dep_ in ("cc", "mark")):
            right -= 1
        right = with_place(doc, right)
        if detail != "full":
            right = min(right, _core(head))
        if detail == "head":
            left = _compound(head)
        span = doc[left].idx, doc[right].idx + len(doc[right])
        if _LETTERS.search(doc.text[slice(*span)]):
            yield Found(*span, _without_names(doc, text, left, right))
    if not found and any(map(may_be_thing, doc)) and not any(map(is_no_phrase, doc)):
        yield Found(0, len(doc.text.rstrip(" .,!?")))  # "a red rose", parsed as if something rose


def _is_proper(words: Span) -> bool:
    return all(word.tag_ == "NNP" for word in words)


def _as_title(doc: Doc) -> Doc:
    """The text as one noun with what stands before it, if it has no other words but nouns and adjectives.

    "chicken tikka masala", "stainless steel garlic press": the parser looks for a verb in them.
    """
    last = len(doc) - 1
    tags = [token.tag_ for token in doc]
    nominal = all(tag in _NOMINAL or (i == 0 and tag in _FIRST) for i, tag in enumerate(tags[:-1]))
    noun = tags[-1] in ("NN", "NNS", "NNP", "NNPS", "VB", "VBP") and doc[-1].ent_type_ != "PERSON"
    plain = 0 < last < 6 and nominal and noun and not any(token.like_num for token in doc)
    if not plain or (doc[-1].dep_ == "ROOT" and not any(map(is_thing, doc[:-1]))):
        return doc
    deps = ["amod" if tag.startswith(("JJ", "VB")) else "compound" for tag in tags[:-1]]
    tags[-1] = tags[-1] if tags[-1].startswith("NN") else "NN"
    words, spaces = [token.text for token in doc], [bool(token.whitespace_) for token in doc]
    mended = type(doc)(
        doc.vocab, words=words, spaces=spaces, tags=tags, heads=[last] * len(doc), deps=[*deps, "ROOT"]
    )
    spans = (mended.char_span(e.start_char, e.end_char, e.label_) for e in doc.ents)
    mended.set_ents([span for span in spans if span is not None])
    return mended


def _core(head: Token) -> int:
    """The last token of what the phrase is about: "two cups of coffee", "a red chair"."""
    of_noun = noun_after_of(head)
    return of_noun.i if of_noun is not None and not is_own_after_of(of_noun, head) else head.i


def _compound(head: Token) -> int:
    first = head.i
    while (
        first
        and head.doc[first - 1].dep_ == "compound"
        and head.doc[first - 1].head in (head, head.doc[first])
    ):
        first -= 1
    return int(first)


def _without_names(doc: Doc, written: str, left: int, right: int) -> str | None:
    """The tokens as written with "person", or the role before the name, for names; None if it has none."""
    names = [e for e in doc.ents if e.label_ == "PERSON" and left <= e.start < e.end <= right + 1]
    if not names:
        return None
    text, at = "", doc[left].idx
    for entity in names:
        name = doc[entity.start + 1 : entity.end] if len(entity) > 1 and entity[0].lower_ in ROLES else entity
        before = doc[name.start - 1] if name.start > left else None
        role = before is not None and (before.lower_ in ROLES or before.tag_ in ("NN", "NNS"))
        text += written[at : name.start_char].rstrip() if role else written[at : name.start_char] + "person"
        at = name.end_char - (2 if name.text.endswith(("'s", "’s")) else 0)
        at += written[at : at + 1] == ","
    return text + written[at : doc[right].idx + len(doc[right])]


def _is_disguised_verb(token: Token) -> bool:
    """A verb taken for a noun: "a zebra drinks", where the article gives it away."""
    if not token.i or token.nbor(-1).dep_ != "compound":
        return False
    if token.tag_ in ("NNS", "NNPS"):
        group = [*token.lefts, *token.nbor(-1).lefts]
        if token.nbor(-1).lower_ in BODY and any(word.dep_ == "poss" for word in group):
            return True  # "with a ball in its mouth runs"
        return any(word.lower_ in ("a", "an") for word in group)
    return token.lower_ in ("standing", "sitting", "riding", "walking", "looking", "wearing")
