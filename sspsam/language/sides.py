"""Left and right in phrases: the phrase for the mirrored picture, and whether there is one."""

from __future__ import annotations

import re

#: "left" and "right" as words, as the first part of leftmost, right-handed, leftside, rightward, lefty
#: ..., and as the second of topleft, farright ...
_SIDE = re.compile(
    r"(?<![a-z])((?:top|bottom|upper|lower|far|front|back|mid|middle)?)(left|right)"
    r"(?=(?:[- ]?(?:(?:er)?most|hand(?:ed|er)?(?:[- ]?side)?|side|wards?)|y|ie|est)?(?![a-z]))",
    re.IGNORECASE,
)
_OTHER = {"left": "right", "right": "left"}

#: Words before "left" and "right" that make a side of them, whatever comes after.
_SIDE_BEFORE = re.compile(
    r"the|an?|on|at|to|in|from|of|by|far|top|bottom|upper|lower|front|back|middle|cent(?:er|re)|most|very"
    r"|extreme|his|her|its|their|my|your|our|first|second|third|fourth|fifth|last|and|or",
    re.IGNORECASE,
)
#: "right behind the car", "the bag left on the bench": here the words may mean no side.
_MAYBE_NO_SIDE = re.compile(
    r"""(?:([a-z]+)\s+)?\b(?:
        right\s+(?:behind|beside|besides|next|near|above|below|beneath|under|underneath|over|in|on|at|by|up|down
            |against|there|here|now|after|before|outside|inside|through|across|around|beyond|between
            |angled?|of\s+way)
      | left\s+(?:behind|over|alone|out|open|on|in|at|by|under|unattended|untouched|uneaten|unfinished)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
#: What a mirrored picture turns round and `swap_left_right` does not, and "left" as what remains.
_ONE_WAY = re.compile(
    r"""\b(?:(?:counter[- ]?|anti[- ]?)?clockwise | o['\u2019\s]?clock | lft | rgt | rt | lhs | rhs | [lr]
      | (?:is|are|was|were|be|been|being|not|nothing|what'?s|all|alright|that'?s)\s+(?:left|right)\s*$
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def swap_left_right(phrase: str) -> str:
    """The phrase for the mirrored picture: left and right change places, capitals stay.

    Whole words only: "bright" stays "bright" (the authors' code makes it "bleft"). A left-handed
    player becomes a right-handed one, as the picture says.
    """

    def other(match: re.Match[str]) -> str:
        place, word = match.groups()
        swapped = _OTHER[word.lower()]
        if word.isupper():
            return place + swapped.upper()
        return place + (swapped.capitalize() if word[0].isupper() else swapped)

    return _SIDE.sub(other, phrase)


def can_mirror(phrase: str) -> bool:
    """Whether `swap_left_right` gives a correct phrase for the mirrored image.

    False where "left" or "right" may be no side ("the man right behind her", "the slice that is left"),
    and where the phrase turns round with the picture in other words ("clockwise", "at 3 o'clock", "far
    rt"). Rather too often false: the picture is then shown as it is.
    """
    if _ONE_WAY.search(phrase):
        return False
    doubts = _MAYBE_NO_SIDE.finditer(phrase)
    return all(_SIDE_BEFORE.fullmatch(match.group(1) or "") for match in doubts)
