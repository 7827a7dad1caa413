"""Which nouns of a parsed caption name a thing that a person would ask a mask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.phrases.words import (
    ABSTRACT,
    ABSTRACT_ENDINGS,
    CONCRETE,
    DEPICTIONS,
    GAMES,
    GATHERINGS,
    LANDMARKS,
    PLACES,
    QUANTITIES,
    TIMES,
    US_STATES,
    WHEN_AND_WHY,
    WHEREABOUTS,
)

if TYPE_CHECKING:
    from spacy.tokens import Token

#: Nouns that only modify another noun are no things of their own.
_INNER = frozenset({"compound", "nmod", "amod", "npadvmod", "nummod", "quantmod", "advmod", "det"})
#: Entities that no mask can cover: places, dates, times, amounts.
_UNSEEN: Final = frozenset({"GPE", "LOC", "DATE", "TIME", "MONEY", "PERCENT", "EVENT", "LANGUAGE", "LAW"})


def is_unseen(token: Token) -> bool:
    """Names of places, dates, times, events: nothing that a mask could cover, but for "Lake Como"."""
    if token.dep_ == "pobj" and _is_circumstance(token):
        return True
    if (
        token.text in US_STATES
        and token.i
        and (token.nbor(-1).text == "," or token.nbor(-1).tag_.startswith("NNP"))
    ):
        return True
    if _is_named_place(token):
        return True
    if token.ent_type_ == "PERSON" and token.dep_ == "pobj":
        return token.head.lower_ in WHEREABOUTS
    if token.ent_type_ not in _UNSEEN:
        return False
    return not any(word.ent_type_ == token.ent_type_ and word.lower_ in LANDMARKS for word in token.subtree)


def _is_circumstance(token: Token) -> bool:
    """What follows a preposition to say when, why, on what occasion or by whom: "at the gala"."""
    prep = token.head.lower_
    if prep == "by" and (token.tag_ == "NNP" or token.ent_type_ in ("ORG", "PERSON")):
        return True  # "a dress by Vera Wang"
    occasion = singular(token) in GATHERINGS or _ends_abstract(token)
    return (
        prep in WHEN_AND_WHY
        or (prep in ("at", "in", "for", "from") and occasion)
        or (prep == "at" and singular(token) in ABSTRACT)
        or (token.lower_ in TIMES and not is_determined(token))
    )


def _is_named_place(token: Token) -> bool:
    """ "at DevCon", "boats at dawn, Zanzibar": a name where the other nouns are written small."""
    at = token.left_edge
    if not token.ent_iob_:
        return False  # names are kept
    if not at.text[0].isupper() or not token.text[0].isupper() or token.ent_type_ == "PERSON" or not at.i:
        return False
    after_comma = (
        token.dep_ in ("appos", "conj") and at.nbor(-1).text == "," and token.right_edge.i == token.i
    )
    place = token.dep_ == "pobj" and token.head.lower_ in ("at", "in", "near") and at.i == token.head.i + 1
    landmark = any(word.lower_ in LANDMARKS for word in token.lefts) or token.lower_ in LANDMARKS
    small = any(word.tag_ in ("NN", "NNS") and word.text.islower() for word in token.doc)
    return small and not landmark and (after_comma or place)


def is_no_phrase(token: Token) -> bool:
    """Tokens of sentences, and heads that are no things."""
    sentence = token.dep_ in ("aux", "auxpass", "expl", "csubj", "ccomp")
    seen = not _is_excluded(token) and singular(token) not in DEPICTIONS
    return sentence or (token.dep_ == "ROOT" and token.tag_.startswith("NN") and not seen)


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
    if token.dep_ == "compound" and token.head.dep_ == "ROOT" and token.head.tag_ == "VBP":
        inner = not any(
            w.dep_ == "dobj" for w in token.head.rights
        )  # "firefighters battle a blaze", as if it were a battle
    if token.dep_ == "conj" and token.head.dep_ == "nmod" and token.head.head.i == token.i + 1:
        inner = joined(token.head.head) is not None  # the palm of "a pool and palm trees"
    if not _is_noun(token) or inner or _is_excluded(token):
        return False
    if token.dep_ == "poss":
        named = token.tag_.startswith("NNP")
        return (named and not _is_excluded(token.head)) or is_determined(token)
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
        bare = token.tag_ == "NN" and not [*token.lefts] and head.startswith(("stand", "tak", "pay", "giv"))
        return plays or taken or bare or (word == "hand" and head.startswith("shak"))
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
    if named and word == "lot":
        return False  # "a parking lot", not "a lot"
    abstract = word in ABSTRACT or _is_bare_abstract(token)
    return abstract or (word in PLACES and not named) or is_unseen(token)


def _is_bare_abstract(token: Token) -> bool:
    """ "partnership", "heavy insurance": nouns of qualities and doings, by their ending."""
    bare = not is_determined(token) and not any(w.dep_ == "compound" for w in token.lefts)
    return bare and _ends_abstract(token)


def _ends_abstract(token: Token) -> bool:
    word = token.lower_
    return token.tag_ == "NN" and len(word) > 6 and word not in CONCRETE and word.endswith(ABSTRACT_ENDINGS)


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
