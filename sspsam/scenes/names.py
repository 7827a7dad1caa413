"""Which names scenes hold out of training or recolour, their plurals and articles."""

from __future__ import annotations

from typing import Final

#: Core names that no training scene shows and no training phrase names.
HELD_OUT_NAMES: Final = ("lion", "owl", "cherries", "ambulance", "tulip", "trumpet")

#: The drawing style that no training scene shows.
HELD_OUT_STYLE: Final = "twemoji"

#: Names whose saturated pixels are turned to each of RECOLOURS, so that colour must be looked at.
RECOLOURED: Final = (
    "car",
    "balloon",
    "book",
    "umbrella",
    "shirt",
    "butterfly",
    "fish",
    "shoe",
    "chair",
)

#: Hues of the recoloured drawings, degrees.
RECOLOURS: Final = {"red": 0.0, "yellow": 50.0, "green": 125.0, "blue": 215.0, "purple": 280.0}

#: Plurals that do not end in s.
PLURALS: Final = {
    "fish": "fish",
    "tropical fish": "tropical fish",
    "grapes": "grapes",
    "bunch of grapes": "bunches of grapes",
    "scissors": "scissors",
    "pair of scissors": "pairs of scissors",
    "octopus": "octopuses",
    "bus": "buses",
    "cactus": "cactuses",
    "puppy": "puppies",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "teddy": "teddies",
    "corn": "ears of corn",
    "ear of corn": "ears of corn",
    "slice of watermelon": "slices of watermelon",
    "slice of pizza": "slices of pizza",
    "slice of cake": "slices of cake",
    "cherries": "cherries",
    "fruit": "fruit",
    "food": "food",
    "furniture": "furniture",
    "clothing": "clothing",
}

#: Nouns that already mean several, or a mass: "a scissors" is not English.
NO_ARTICLE: Final = ("grapes", "scissors", "cherries", "fruit", "food", "furniture", "clothing")


def plural(noun: str) -> str:
    """English plural of a name or category of this vocabulary, with or without adjectives."""
    for singular in sorted(PLURALS, key=len, reverse=True):
        if noun == singular or noun.endswith(" " + singular):
            return noun.removesuffix(singular) + PLURALS[singular]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def with_article(noun: str) -> str:
    """ "a dog", "an apple", "grapes"."""
    if noun in NO_ARTICLE:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
