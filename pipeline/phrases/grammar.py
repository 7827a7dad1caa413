"""Which words of a parsed caption are phrases: rules over spaCy's English dependency labels.

Labels are those of spaCy's English models (ClearNLP dependencies, universal parts of speech, Penn
Treebank tags). The rules are stated in docs/input.md; captions with the phrases a person would ask
masks for stand in tests/pipeline/phrases/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.phrases.words import (
    ABSTRACT,
    ACTIVITIES,
    BODY,
    DEPICTIONS,
    DIRECTIONS,
    GAMES,
    INSTRUMENTS,
    LANDMARKS,
    OBSERVING,
    PLACES,
    QUANTITIES,
    RELATIONS,
    ROLES,
    STATES,
    TIMES,
    US_STATES,
    WHEREABOUTS,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

#: What stands before a noun as part of its phrase.
_LEFT = frozenset(
    {"det", "predet", "amod", "nummod", "compound", "poss", "nmod", "quantmod", "advmod", "npadvmod"}
)
#: What stands after a noun as part of its phrase.
_RIGHT = frozenset({"prep", "acl", "relcl", "amod", "advmod", "nummod", "prt", "npadvmod", "case", "advcl"})
#: Nouns that only modify another noun are no things of their own.
_INNER = frozenset({"compound", "nmod", "amod", "npadvmod", "nummod", "quantmod", "advmod", "det"})
_LETTERS = re.compile(r"[A-Za-z]{2}")
#: Entities that no mask can cover: places, dates, times, amounts.
_UNSEEN: Final = frozenset({"GPE", "LOC", "DATE", "TIME", "MONEY", "PERCENT", "EVENT", "LANGUAGE", "LAW"})


#: Tags of "blue and white striped".
_LOOKS: Final = frozenset({"JJ", "VBN", "VBD", "CC", "HYPH"})


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
    verbs = {token.i for token in doc if _is_disguised_verb(token)}
    cuts = sorted(verbs | {cut for token in doc for cut in (*_list_cuts(token), *_unseen_cuts(token))})
    found = any(e.label_ == "ORG" and len(e) == len(doc) and _is_proper(e) for e in doc.ents)
    for token in () if found else doc:
        if token.i in verbs:
            head = token.nbor(-1)  # "a suitcase waits": the suitcase, not the waits
        elif _is_thing(token):
            head = token
        else:
            continue
        found = True
        if names == "drop" and head.ent_type_ == "PERSON":
            continue
        left, right = _left(head), _right(head)
        right = min([right, *(cut - 1 for cut in cuts if cut > head.i)])
        while right > head.i and (doc[right].is_punct or doc[right].dep_ in ("cc", "mark")):
            right -= 1
        right = _with_place(doc, right)
        if detail != "full":
            right = min(right, _core(head))
        if detail == "head":
            left = _compound(head)
        span = doc[left].idx, doc[right].idx + len(doc[right])
        if _LETTERS.search(doc.text[slice(*span)]):
            yield Found(*span, _without_names(doc, text, left, right))
    if not found and any(map(_may_be_thing, doc)) and not any(map(_is_no_phrase, doc)):
        yield Found(0, len(doc.text.rstrip(" .,!?")))  # "a red rose", parsed as if something rose


def _is_proper(words: Span) -> bool:
    return all(word.tag_ == "NNP" for word in words)


def _core(head: Token) -> int:
    """The last token of what the phrase is about: "two cups of coffee", "a red chair"."""
    of_noun = _noun_after_of(head)
    return of_noun.i if of_noun is not None and not _is_own_after_of(of_noun, head) else head.i


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
    for name in names:
        before = doc[name.start - 1] if name.start > left else None
        role = before is not None and (before.lower_ in ROLES or before.tag_ in ("NN", "NNS"))
        text += written[at : name.start_char].rstrip() if role else written[at : name.start_char] + "person"
        at = name.end_char - (2 if name.text.endswith(("'s", "’s")) else 0)
        at += written[at : at + 1] == ","
    return text + written[at : doc[right].idx + len(doc[right])]


def _is_unseen(token: Token) -> bool:
    """Names of places, dates and times: nothing that a mask could cover, but for "Lake Como"."""
    if token.lower_ in TIMES and token.dep_ == "pobj" and not _is_determined(token):
        return True
    if (
        token.text in US_STATES
        and token.i
        and (token.nbor(-1).text == "," or token.nbor(-1).tag_.startswith("NNP"))
    ):
        return True
    if (
        token.dep_ == "pobj"
        and token.head.lower_ == "by"
        and (token.tag_ == "NNP" or token.ent_type_ in ("ORG", "PERSON"))
    ):
        return True  # "a dress by Vera Wang"
    if token.ent_type_ == "PERSON" and token.dep_ == "pobj":
        return token.head.lower_ in WHEREABOUTS
    if token.ent_type_ not in _UNSEEN:
        return False
    return not any(word.ent_type_ == token.ent_type_ and word.lower_ in LANDMARKS for word in token.subtree)


def _unseen_cuts(token: Token) -> Iterator[int]:
    """Where phrases end before a place or a time: "a street in Tokyo", "a bridge at night"."""
    if _is_unseen(token):
        if token.dep_ == "pobj":
            yield token.head.i
        elif token.dep_ in ("appos", "conj", "npadvmod"):
            yield token.left_edge.i


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


def _is_no_phrase(token: Token) -> bool:
    """Tokens of sentences, and heads that are no things."""
    sentence = token.dep_ in ("aux", "auxpass", "expl", "csubj", "ccomp")
    return sentence or (token.dep_ == "ROOT" and token.tag_.startswith("NN") and _is_excluded(token))


def _may_be_thing(token: Token) -> bool:
    word = _singular(token)
    return token.tag_.startswith(("NN", "VB")) and word not in ABSTRACT | PLACES | DEPICTIONS


def _is_thing(token: Token) -> bool:
    """Whether a token heads a phrase that a person would ask a mask for."""
    word = _singular(token)
    of_noun = _noun_after_of(token)
    if of_noun is not None and word in QUANTITIES and token.dep_ not in ("det", "predet"):
        return of_noun.tag_ not in ("PRP", "PRP$", "WP", "DT", "EX") and not _is_excluded(of_noun)
    if token.lower_ == "orange" and token.dep_ in ("conj", "appos", "dobj", "pobj", "attr"):
        return True
    inner = token.dep_ in _INNER and (token.dep_ != "nmod" or _joined(token.head) is None)
    if token.dep_ == "conj" and token.head.dep_ == "nmod" and token.head.head.i == token.i + 1:
        inner = _joined(token.head.head) is not None  # the palm of "a pool and palm trees"
    if not _is_noun(token) or inner or _is_excluded(token):
        return False
    if token.dep_ == "poss":
        return _is_determined(token) or token.tag_.startswith("NNP")
    if token.dep_ == "pobj" and token.head.lower_ == "of":
        return _is_own_after_of(token, token.head.head)
    return not _is_out_of_picture(token, word)


def _is_noun(token: Token) -> bool:
    """Nouns; and rare ones that the tagger takes for pronouns ("bookshelf")."""
    return token.tag_.startswith("NN") or (
        token.tag_ == "PRP" and len(token) > 4 and "sel" not in token.lower_
    )


def _joined(token: Token) -> Token | None:
    """The "and" of "a pool and palm trees", parsed as if the trees were of a pool and a palm."""
    for child in token.lefts:
        if child.dep_ == "nmod" and child.tag_ == "NN" and (token.dep_, token.head.lower_) != ("pobj", "of"):
            return next((word for word in child.rights if word.dep_ == "cc"), None)
    return None


def _is_out_of_picture(token: Token, word: str) -> bool:
    """Nouns of idioms: "plays tennis", "takes a picture", "poses for a photo", "at the camera"."""
    head = token.head.lower_
    if token.dep_ == "dobj":
        plays = head.startswith("play") and word in GAMES
        taken = word in DEPICTIONS and head.startswith(("tak", "snap"))
        return plays or taken or (word == "hand" and head.startswith("shak"))
    if token.dep_ == "pobj":
        return word in DEPICTIONS or (word == "camera" and head in ("at", "for", "toward"))
    return False


def _is_own_after_of(token: Token, whole: Token) -> bool:
    """ "the leg of a chair" has two things, "a bowl of soup" and "a group of people" have one."""
    word = _singular(whole)
    if word in QUANTITIES and not (word in PLACES and whole.tag_ in ("NN", "NNS")):
        return False
    if not whole.tag_.startswith("NN") or _is_excluded(whole) or word in DEPICTIONS:
        return True
    return _is_determined(token)


def _is_excluded(token: Token) -> bool:
    word = _singular(token)
    children = list(token.children)
    if any(child.lower_ == "no" and child.dep_ == "det" for child in children):
        return True
    named = any(child.dep_ in ("compound", "poss") for child in children)
    return word in ABSTRACT or (word in PLACES and not named) or _is_unseen(token)


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
    if (joint := _joined(token)) is not None:
        return joint.i + 1
    edges = [
        child.left_edge.i
        for child in token.lefts
        if child.dep_ in _LEFT or (child.lower_ == "both" and token.tag_ == "NNS")
    ]
    left = min([token.i, *edges])
    start = token.sent.start
    return start if all(word.tag_ in _LOOKS for word in token.doc[start:left]) else left


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
    if token.dep_ == "dobj" and verb.dep_ == "ROOT" and _left(token) <= verb.i:
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
        return _singular(other) in INSTRUMENTS or (own and _singular(other) in BODY)
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
