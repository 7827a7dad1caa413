"""Where a noun's phrase begins and ends: which words of a parsed caption are attached to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pipeline.phrases.nouns import (
    is_determined,
    is_unseen,
    joined,
    singular,
)
from pipeline.phrases.words import (
    ABSTRACT,
    ACTIVITIES,
    BODY,
    DIRECTIONS,
    IMPERATIVES,
    INSTRUMENTS,
    OBSERVING,
    PLACES,
    RELATIONS,
    STATES,
    TIMES,
    VERBAL,
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
        max([child.left_edge.i, *(w.i + 1 for w in child.subtree if w.text == "," and child.tag_ == "VBD")])
        for child in token.lefts
        if child.dep_ in _LEFT or (child.lower_ == "both" and token.tag_ == "NNS")
    ]
    left = min([token.i, *edges])
    start = token.sent.start
    verb = token.head
    if token.dep_ == "dobj" and verb.dep_ == "pcomp" and verb.i == left - 1 and verb.head.lower_ == "with":
        return int(verb.i)  # "with rocking chairs"
    if left == start + 1 and token.doc[start].tag_ == "VB" and token.head.i == start:
        return left if token.doc[start].lower_ in IMPERATIVES else start  # "keynote speaker on stage"
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
            if _is_talk(child) or _is_of_whole(child, token) or _is_of_verb(child, token):
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
    return _with_verb(token, right)


def _with_verb(token: Token, right: int) -> int:
    """The end of the phrase with what the parser gave to a verb that is none, or to the verb."""
    verb = token.head
    if token.dep_ == "dobj" and verb.dep_ == "ROOT" and left_of(token) <= verb.i:
        # "Blue and white striped umbrella on a beach": no verb
        commas = (word.i - 1 for word in verb.subtree if word.i > token.i and word.text == ",")
        return min(int(verb.right_edge.i), next(commas, len(token.doc)))
    if token.dep_ in ("nsubj", "nsubjpass") and verb.dep_ == "ROOT" and _is_state(verb):
        right = max(right, verb.right_edge.i)
    after = token.doc[right + 1] if right + 1 < len(token.doc) else None
    if token.dep_ == "conj" and after is not None and after.dep_ == "prep":
        whole = verb.head if verb.dep_ == "conj" else verb
        if after.head in (verb, whole) and verb.tag_.startswith("NN"):
            return int(after.right_edge.i)  # "bride and groom under an arch"
    if right == token.i:
        right = _with_neighbour(token)
    return int(right)


def _is_talk(clause: Token) -> bool:
    """ "cookies you'll make" says nothing of how they look."""
    return clause.dep_ == "relcl" and any(word.lower_ in ("you", "we", "i") for word in clause.lefts)


def _is_of_whole(clause: Token, noun: Token) -> bool:
    """Whether what a noun seems to do is done by what has it: "a girl with freckles looking up"."""
    if clause.tag_ != "VBG" or clause.dep_ != "acl":
        return False
    having = noun.dep_ == "pobj" and noun.head.lower_ == "with" and noun.head.head.tag_.startswith("NN")
    return having and not is_determined(noun)


def _is_of_verb(prep: Token, noun: Token) -> bool:
    """Whether a verb's object got a preposition that is the verb's: "eats spaghetti with both hands"."""
    whole = noun.head.head if noun.dep_ == "pobj" and noun.head.lower_ == "of" else noun
    if whole.dep_ != "dobj" or prep.dep_ != "prep":
        return False
    other = next((word for word in prep.rights if word.dep_ == "pobj"), None)
    if other is None or prep.lower_ in VERBAL:
        return other is not None
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
        front = noun.doc[after.i : after.i + 2].text.lower() == "in front"  # the text may end in "in"
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
    noun = token.head
    inner = token.dep_ == "prep" and noun.dep_ == "pobj" and noun.head.head.head.dep_ == "ROOT"
    if inner and _is_of_verb(token, noun):
        yield token.i  # "trims the beard of a man with scissors"
    if token.dep_ == "npadvmod" and (token.lower_ in TIMES or token.lower_ in ABSTRACT):
        yield token.left_edge.i  # "all rugs this weekend"
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
