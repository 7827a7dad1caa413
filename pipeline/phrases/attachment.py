"""Where a noun's phrase begins and ends: which words of a parsed caption are attached to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pipeline.phrases.things import (
    is_determined,
    is_unseen,
    joined,
    singular,
)
from pipeline.phrases.words import (
    ACTIVITIES,
    BODY,
    DIRECTIONS,
    INSTRUMENTS,
    OBSERVING,
    PLACES,
    RELATIONS,
    STATES,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

#: What stands before a noun as part of its phrase.
_LEFT = frozenset(
    {"det", "predet", "amod", "nummod", "compound", "poss", "nmod", "quantmod", "advmod", "npadvmod"}
)
#: What stands after a noun as part of its phrase.
_RIGHT = frozenset({"prep", "acl", "relcl", "amod", "advmod", "nummod", "prt", "npadvmod", "case", "advcl"})
#: Tags of "blue and white striped".
_LOOKS: Final = frozenset({"JJ", "VBN", "VBD", "CC", "HYPH"})


def left_of(token: Token) -> int:
    if (joint := joined(token)) is not None:
        return joint.i + 1
    edges = [
        child.left_edge.i
        for child in token.lefts
        if child.dep_ in _LEFT or (child.lower_ == "both" and token.tag_ == "NNS")
    ]
    left = min([token.i, *edges])
    start = token.sent.start
    return start if all(word.tag_ in _LOOKS for word in token.doc[start:left]) else left


def right_of(token: Token) -> int:
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
            if after_comma and child.dep_ not in ("acl", "relcl") and token.ent_type_ != "PERSON":
                break
            if _is_of_verb(child, token):
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
    if token.dep_ == "dobj" and verb.dep_ == "ROOT" and left_of(token) <= verb.i:
        return int(verb.right_edge.i)  # "Blue and white striped umbrella on a beach": no verb
    if token.dep_ in ("nsubj", "nsubjpass") and verb.dep_ == "ROOT" and _is_state(verb):
        right = max(right, verb.right_edge.i)
    if right == token.i:
        right = _with_neighbour(token)
    return int(right)


def _is_of_verb(prep: Token, noun: Token) -> bool:
    """Whether a verb's object got a preposition that is the verb's: "eats spaghetti with both hands"."""
    if noun.dep_ != "dobj" or prep.dep_ != "prep":
        return False
    other = next((word for word in prep.rights if word.dep_ == "pobj"), None)
    if other is None:
        return False
    if prep.lower_ == "with":
        own = any(word.dep_ == "poss" or word.lower_ == "both" for word in other.children)
        return singular(other) in INSTRUMENTS or (own and singular(other) in BODY)
    return prep.lower_ in ("in", "on", "at", "from") and noun.head.lower_.startswith(ACTIVITIES)


def _with_neighbour(noun: Token) -> int:
    """The end of a phrase with a relation that the parser gave to the verb: "a couch in front of a TV"."""
    if noun.i + 1 >= len(noun.doc):
        return int(noun.i)
    after = noun.nbor()
    if noun.dep_ == "pobj" and after.head == noun.head.head and noun.head.lower_ != "of":
        front = after.lower_ == "in" and after.nbor().lower_ == "front"
        if after.lower_ in RELATIONS or front:
            return int(after.right_edge.i)
    seen = noun.dep_ == "dobj" and after.head == noun.head and noun.head.lower_.startswith(OBSERVING)
    return int(after.right_edge.i if seen and after.lower_ in ("in", "on") else noun.i)


def _is_state(verb: Token) -> bool:
    """A participle taken for the verb of a sentence: "boats docked at a pier"."""
    if any(child.dep_ in ("aux", "auxpass") for child in verb.children):
        return False
    return verb.tag_ in ("VBG", "VBN") or (verb.tag_ == "VBD" and verb.lower_ in STATES)


def with_place(doc: Doc, right: int) -> int:
    """The phrase's end with a place that the parser gave to the verb: "here is a boat at the top"."""
    if right + 1 >= len(doc) or doc[right + 1].lower_ not in ("in", "on", "at"):
        return right
    place = next((word for word in doc[right + 1].rights if word.dep_ == "pobj"), None)
    if place is None or singular(place) not in PLACES or place.lower_ in ("place", "location"):
        return right
    return right if any(word.lower_ == "of" for word in place.rights) else int(place.i)


def unseen_cuts(token: Token) -> Iterator[int]:
    """Where phrases end before a place or a time: "a street in Tokyo", "a bridge at night"."""
    if is_unseen(token):
        if token.dep_ == "pobj":
            yield token.head.i
        elif token.dep_ in ("appos", "conj", "npadvmod"):
            yield token.left_edge.i


def list_cuts(token: Token) -> Iterator[int]:
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
    place = singular(token) in PLACES
    if relation.lower_ == "of":
        if relation.head.lower_ not in PLACES:
            # "two slices of cake and the guitar"
            if not is_determined(token) and is_determined(parts[0]):
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
