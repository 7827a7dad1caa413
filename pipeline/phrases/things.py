"""Which nouns of a parsed caption name a thing that a person would ask a mask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.phrases.words import (
    ABSTRACT,
    DEPICTIONS,
    GAMES,
    LANDMARKS,
    PLACES,
    QUANTITIES,
    TIMES,
    US_STATES,
    WHEREABOUTS,
)

if TYPE_CHECKING:
    from spacy.tokens import Token

#: Nouns that only modify another noun are no things of their own.
_INNER = frozenset({"compound", "nmod", "amod", "npadvmod", "nummod", "quantmod", "advmod", "det"})
#: Entities that no mask can cover: places, dates, times, amounts.
_UNSEEN: Final = frozenset({"GPE", "LOC", "DATE", "TIME", "MONEY", "PERCENT", "EVENT", "LANGUAGE", "LAW"})


def is_unseen(token: Token) -> bool:
    """Names of places, dates and times: nothing that a mask could cover, but for "Lake Como"."""
    if token.lower_ in TIMES and token.dep_ == "pobj" and not is_determined(token):
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


def is_no_phrase(token: Token) -> bool:
    """Tokens of sentences, and heads that are no things."""
    sentence = token.dep_ in ("aux", "auxpass", "expl", "csubj", "ccomp")
    return sentence or (token.dep_ == "ROOT" and token.tag_.startswith("NN") and _is_excluded(token))


def may_be_thing(token: Token) -> bool:
    word = singular(token)
    return token.tag_.startswith(("NN", "VB")) and word not in ABSTRACT | PLACES | DEPICTIONS


def is_thing(token: Token) -> bool:
    """Whether a token heads a phrase that a person would ask a mask for."""
    word = singular(token)
    of_noun = noun_after_of(token)
    if of_noun is not None and word in QUANTITIES and token.dep_ not in ("det", "predet"):
        return of_noun.tag_ not in ("PRP", "PRP$", "WP", "DT", "EX") and not _is_excluded(of_noun)
    if token.lower_ == "orange" and token.dep_ in ("conj", "appos", "dobj", "pobj", "attr"):
        return True
    inner = token.dep_ in _INNER and (token.dep_ != "nmod" or joined(token.head) is None)
    if token.dep_ == "conj" and token.head.dep_ == "nmod" and token.head.head.i == token.i + 1:
        inner = joined(token.head.head) is not None  # the palm of "a pool and palm trees"
    if not _is_noun(token) or inner or _is_excluded(token):
        return False
    if token.dep_ == "poss":
        return is_determined(token) or token.tag_.startswith("NNP")
    if token.dep_ == "pobj" and token.head.lower_ == "of":
        return is_own_after_of(token, token.head.head)
    return not _is_out_of_picture(token, word)


def _is_noun(token: Token) -> bool:
    """Nouns; and rare ones that the tagger takes for pronouns ("bookshelf")."""
    return token.tag_.startswith("NN") or (
        token.tag_ == "PRP" and len(token) > 4 and "sel" not in token.lower_
    )


def joined(token: Token) -> Token | None:
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


def is_own_after_of(token: Token, whole: Token) -> bool:
    """ "the leg of a chair" has two things, "a bowl of soup" and "a group of people" have one."""
    word = singular(whole)
    if word in QUANTITIES and not (word in PLACES and whole.tag_ in ("NN", "NNS")):
        return False
    if not whole.tag_.startswith("NN") or _is_excluded(whole) or word in DEPICTIONS:
        return True
    return is_determined(token)


def _is_excluded(token: Token) -> bool:
    word = singular(token)
    children = list(token.children)
    if any(child.lower_ == "no" and child.dep_ == "det" for child in children):
        return True
    named = any(child.dep_ in ("compound", "poss") for child in children)
    return word in ABSTRACT or (word in PLACES and not named) or is_unseen(token)


def is_determined(token: Token) -> bool:
    return any(child.dep_ in ("det", "poss", "nummod", "predet") for child in token.lefts)


def noun_after_of(token: Token) -> Token | None:
    for child in token.rights:
        if child.lower_ == "of" and child.dep_ == "prep":
            return next((noun for noun in child.rights if noun.dep_ == "pobj"), None)
    return None


def singular(token: Token) -> str:
    word = str(token.lower_)
    if token.tag_ in ("NNS", "NNPS") and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
