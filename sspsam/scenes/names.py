"""What things are called: the names that the bundled model learns, and the words around them.

A core entry is `code point: (name, synonyms, categories)`. Everything else in the atlas takes its
name and keywords from Unicode CLDR and its category from the emoji's own subcategory.
"""

from __future__ import annotations

from typing import Final

#: Things of everyday life whose drawings look clearly unlike one another.
CORE: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "1f436": ("dog", ("puppy", "dog face"), ("animal",)),
    "1f431": ("cat", ("kitten", "cat face"), ("animal",)),
    "1f437": ("pig", ("pig face",), ("animal",)),
    "1f438": ("frog", ("frog face",), ("animal",)),
    "1f418": ("elephant", (), ("animal",)),
    "1f427": ("penguin", (), ("animal", "bird")),
    "1f420": ("fish", ("tropical fish",), ("animal",)),
    "1f422": ("turtle", ("tortoise",), ("animal",)),
    "1f98b": ("butterfly", (), ("animal", "insect")),
    "1f41e": ("ladybug", ("ladybird",), ("animal", "insect")),
    "1f419": ("octopus", (), ("animal",)),
    "1f424": ("chick", ("baby chick",), ("animal", "bird")),
    "1f43c": ("panda", ("panda face",), ("animal",)),
    "1f34e": ("apple", (), ("fruit", "food")),
    "1f34c": ("banana", (), ("fruit", "food")),
    "1f353": ("strawberry", (), ("fruit", "food")),
    "1f347": ("grapes", ("bunch of grapes",), ("fruit", "food")),
    "1f349": ("watermelon", ("slice of watermelon",), ("fruit", "food")),
    "1f34a": ("orange", ("tangerine",), ("fruit", "food")),
    "1f34d": ("pineapple", (), ("fruit", "food")),
    "1f955": ("carrot", (), ("vegetable", "food")),
    "1f33d": ("corn", ("ear of corn",), ("vegetable", "food")),
    "1f354": ("hamburger", ("burger",), ("food",)),
    "1f355": ("pizza", ("slice of pizza",), ("food",)),
    "1f369": ("doughnut", ("donut",), ("food",)),
    "1f366": ("ice cream", ("ice cream cone",), ("food",)),
    "1f370": ("cake", ("slice of cake",), ("food",)),
    "1f697": ("car", ("automobile",), ("vehicle",)),
    "1f68c": ("bus", (), ("vehicle",)),
    "1f6b2": ("bicycle", ("bike",), ("vehicle",)),
    "1f69c": ("tractor", (), ("vehicle",)),
    "1f680": ("rocket", ("spaceship",), ("vehicle",)),
    "26f5": ("sailboat", ("boat",), ("vehicle",)),
    "1f681": ("helicopter", (), ("vehicle",)),
    "1f333": ("tree", (), ("plant",)),
    "1f335": ("cactus", (), ("plant",)),
    "1f33b": ("sunflower", ("flower",), ("plant",)),
    "1f344": ("mushroom", ("toadstool",), ("plant",)),
    "1f9f8": ("teddy bear", ("teddy",), ("toy",)),
    "1f3c0": ("basketball", (), ("toy", "ball")),
    "26bd": ("soccer ball", ("football",), ("toy", "ball")),
    "1f388": ("balloon", (), ("toy",)),
    "1f528": ("hammer", (), ("tool",)),
    "2702-fe0f": ("scissors", ("pair of scissors",), ("tool",)),
    "1f511": ("key", (), ("tool",)),
    "1fa91": ("chair", ("seat",), ("furniture",)),
    "23f0": ("clock", ("alarm clock",), ("household item",)),
    "1f4a1": ("light bulb", ("bulb",), ("household item",)),
    "1f4d5": ("book", (), ("household item",)),
    "2614": ("umbrella", (), ("household item",)),
    "1f3b8": ("guitar", (), ("instrument",)),
    "1f45f": ("shoe", ("sneaker",), ("clothing",)),
    "1f455": ("shirt", ("t-shirt",), ("clothing",)),
    "1f3a9": ("hat", (), ("clothing",)),
    # Held out of training: their names, and what they look like.
    "1f981": ("lion", ("lion face",), ("animal",)),
    "1f989": ("owl", (), ("animal", "bird")),
    "1f352": ("cherries", (), ("fruit", "food")),
    "1f691": ("ambulance", (), ("vehicle",)),
    "1f337": ("tulip", (), ("plant",)),
    "1f3ba": ("trumpet", (), ("instrument",)),
}

#: Core names that no training scene shows and no training phrase says.
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

#: Emoji subcategories that enter the atlas, and the category that each stands for.
SUBCATEGORIES: Final = {
    "animal-mammal": "animal",
    "animal-bird": "bird",
    "animal-amphibian": "animal",
    "animal-reptile": "animal",
    "animal-marine": "animal",
    "animal-bug": "insect",
    "plant-flower": "plant",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "food",
    "food-sweet": "food",
    "drink": "drink",
    "dishware": "household item",
    "transport-ground": "vehicle",
    "transport-water": "vehicle",
    "transport-air": "vehicle",
    "sport": "toy",
    "game": "toy",
    "tool": "tool",
    "household": "household item",
    "musical-instrument": "instrument",
    "clothing": "clothing",
}


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
