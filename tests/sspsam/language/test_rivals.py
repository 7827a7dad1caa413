"""Rival phrases: opposites that undo each other, and never the phrase itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sspsam.language.phrase_text import clean_phrase
from sspsam.language.rivals import HEADS, OPPOSITES, opposite, other_heads, paraphrase, rivals

WORDS = [word.replace("_", " ") for pairs in OPPOSITES.values() for word in pairs.replace("/", " ").split()]
PHRASES = st.lists(
    st.sampled_from(
        [*WORDS, *HEADS, "left", "Right", "leftmost", "the", "of", "to", "on", "slices", "behind"]
    ),
    min_size=1,
    max_size=6,
).map(" ".join)


@given(PHRASES | st.text(st.characters(categories=["L", "Zs"]), min_size=1).filter(str.strip))
def test_a_rival_is_never_the_phrase_and_an_opposite_undoes_itself(text: str) -> None:
    phrase = clean_phrase(text)
    found = rivals(phrase)
    assert phrase not in found
    assert len(set(found)) == len(found)
    assert all(clean_phrase(rival) == rival for rival in found)
    assert paraphrase(phrase) != phrase
    for kind in OPPOSITES:
        assert opposite(opposite(phrase, kind), kind) == phrase


def test_what_rivals_say() -> None:
    def heads(phrase: str) -> list[str]:
        return [
            text.replace(head, "HEAD") for text in other_heads(phrase, 2) for head in HEADS if head in text
        ]

    assert opposite("the Top left Cat", "side") == "the Bottom right Cat"
    assert opposite("the bag left on the bench", "side") == "the bag left on the bench"  # no side
    assert (
        opposite("the one left underneath", "side") == "the one left underneath"
    )  # "right underneath" is no side
    assert opposite("a woman in front of a RED bus", "relation") == "a woman behind a RED bus"
    assert opposite("a woman in front of a RED bus", "colour") == "a woman in front of a GREEN bus"
    assert opposite("blackbird", "colour") == "blackbird"
    assert heads("two slices of pizza on the left") == ["two HEAD on the left"] * 2
    assert heads("the panda left of the key") == ["the HEAD left of the key"] * 2
    assert heads("a man wearing a cap") == ["a HEAD wearing a cap"] * 2
    assert not any("dog" in text.split() for text in other_heads("both dogs", len(HEADS)))
    assert paraphrase("a cat") == "cat"
    assert paraphrase("cats") == "the cats"
