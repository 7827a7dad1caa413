"""Which stretches of a caption are language about the picture."""

from __future__ import annotations

import re
from typing import Final

from pipeline.phrases.words import DEPICTIONS, ENGLISH, FOREIGN, NOISE

#: Longer captions are cut here: what follows 10,000 characters is never a caption.
MAX_CHARACTERS: Final = 10_000

_IMAGE_WORD = "|".join(sorted((re.escape(w) + "s?" for w in DEPICTIONS), key=len, reverse=True))
#: Where language about the picture is interrupted or ends.
_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
#: "on Tuesday, March 3, 2015", "12 June", "May 2018", "2019-04-12"; a month alone may be a name.
_DATE = rf"""
    (?:,?\s(?:on|in|since|from|until|during|this|last)\s)?(?:\b{_DAY},?\s)?\b(?:
    {_MONTH}\.?\s\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{4}}\b)? | \d{{1,2}}(?:st|nd|rd|th)?\s{_MONTH}\b(?:\s\d{{4}})?
    | {_MONTH}\s\d{{4}}\b | (?:19|20)\d\d[-/.]\d\d?[-/.]\d\d? )
    | ,?\s(?:on\s)?{_DAY}(?=[.,\s]*$) | ,?\s(?:in\s|circa\s)?(?:19|20)\d\d(?=[.,\s]*$)"""
_PRICE = r"[$€£¥]\s?\d[\d,.]*\+? | \b\d[\d,.]*\s?(?:usd|eur|gbp|dollars|euros)\b | \d+\s?%(?:\soff)?"
#: "(AP Photo/Jane Smith)", "Photo: Reuters", "© John Doe": whoever took it, to the end of the stretch.
_CREDIT = r"""
    \b(?:photos?|images?|pictures?|photograph|credit|source|courtesy|illustration|copyright)\s?(?::|\bby\b|\bcredit\b|©|\bid\b)[^.|()]*
    | ©[^.|()]* | \b(?:AP|AFP|EPA|REUTERS|Reuters|UNICEF)(?:\sPhoto)?\s?/[^|()]*
    | \b(?:by\s[\w\s]{2,30}\s)?on\s(?:unsplash|etsy|flickr|pinterest|ebay|amazon|instagram|zillow|behance)\b"""
_ADDRESS = r"""
    \b\d{1,5}\s(?:\w+\s){1,3}(?:street|st|avenue|ave|road|rd|boulevard|blvd|drive|dr|lane|ln|court|ct)\b[^|()]*
    | ,?\s(?:[A-Z]\w+\s)?[A-Z][A-Z]\s\d{5}\b"""
_BREAK = re.compile(
    rf"""
    https?://\S+ | www\.\S+                                           # URLs
    | [\#@][\w-]+                                                      # hashtags, mentions
    | \bFile:[^|]*?\.\w{{3,4}}\b                                          # wiki file names
    | \b(?:photo(?:graph)?|image|picture)s?\s(?:by|credit|courtesy)\b[^.,|]*
    | \S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|svg|eps|psd|heic|mp4|avi|mov)\b   # file names
    | \b(?:IMG|DSC[NF]?|DCIM|PICT|P|MVI|PXL|GOPR|SAM)[-_]?\d{{3,}}\w*          # camera file names
    | \b\d{{2,5}}\s?[x×]\s?\d{{2,5}}(?:\s?(?:px|pixels))?\b                      # sizes
    | \b\d+\s?(?:px|dpi|mp|kb|mb)\b
    | <[^<>]{{1,200}}> | &\w{{2,8}};                                  # HTML
    | {_CREDIT} | {_PRICE} | {_DATE} | {_ADDRESS}
    | [\U0001F000-\U0001FAFF\u2600-\u27BF\u2B50\uFE0F\u200D]+                # emojis
    | [!?]+\s | (?<=[a-z]{{3}})\.\s+(?=[A-Z])                             # sentences
    | \s[-–—|•·»~*]+\s | [\r\n\t]+ | [|•·»]+ | [;:]\s | [()\[\]{{}}"“”]
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: "A black and white photo of", "Aerial view of", "this is an image showing".
_DEPICTION = re.compile(
    rf"""^\s*(?:(?:this|here|it)\s(?:is|are|shows)\s)?(?:(?:an?|the|this|some|two|three)\s)?
    (?:(?!(?:an?|the|of|with|in|on|at|his|her|their|its)\s|\w+ing\s)[\w'-]+\s){{0,4}}?
    (?:{_IMAGE_WORD}|close\sup)(?:\s(?:shot|view|photo|image|picture|drawing)s?)?\s
    (?:of|showing|depicting|featuring)\s""",
    re.VERBOSE | re.IGNORECASE,
)
#: "isolated on a white background", "for sale".
_BACKDROP = re.compile(
    r",?\s(?:isolated\s)?(?:(?:on|over|against|with)\s(?:an?\s|the\s)?"
    r"(?:\w+\s)?(?:\w+\s)?background|for\ssale|in\sstock)[\s.!]*$|,?\sisolated[\s.!]*$",
    re.IGNORECASE,
)
#: Stretches that shops and pages write, whatever things they name.
_TALK = re.compile(
    r"""
    \bfree\s(?:shipping|returns?|delivery|gift)\b | \b(?:shop|buy|order|book|call|subscribe|sign\sup|register)\s(?:now|today|here)\b
    | \bclick\s(?:here|to|on)\b | \bcontact\sus\b | \b(?:read|learn|see)\s(?:more|our)\b | \bnew\sarrivals?\b | \bnew\sin\b
    | \bbest\sprices?\b | \bguarantee | \blimited\s(?:time|offer|edition)\b | \bsave\s(?:up|big)\b | \bsold\sout\b | \bmoney\sback\b
    | \bships?\s(?:world|free|from|in\s\d) | \b(?:sale|offer)\s(?:ends|now)\b | \bbuy\s(?:one|\d)\b.*\bget\b | \bdiscount | \bcoupon
    | \b(?:gift|present)\s(?:ideas?|for)\b | \b(?:dishwasher|microwave)\s(?:safe|proof)\b | \bone\sowner\b | \bsatisfaction\b
    | \b(?:tips|ideas|ways|reasons|quotes|hacks|tricks|places|things)\s(?:for|to|on|about|of)\b
    | \b(?:concepts?|quotes|logo|homepage|banner|flat\sdesign|slow\smotion|footage|copy\s?space|blog|recipes|tutorial|reviews?)[\s.!]*$
    | ^(?:size|ages?|color|colour|style|model|item|ref|sku|isbn|eps|page|lot|pack\sof|qty|vol|no)\.?\s\d
    | ^[\d.,/\s+-]+\s?(?:pcs|pieces|ct|sq\s?ft|miles|km|baths?|beds?|oz|lbs?|inch(?:es)?|cm|mm|ft|kg|g|ml|l|months?|years?|minutes|mins?)\b
    | ^(?:vector|stock|royalty)\s | ^\S+\.(?:com|net|org|co)\b | ^image\sid\b | ^(?:vibes|style|fashion|brand\snew|like\snew)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: What comes before the thing: "How to make", "Buy", "Icon set of", "Seamless pattern with".
_LEAD = re.compile(
    r"""^\s*(?:(?:file\sphoto|photo|image|recipe|diy|sale|new|hot|update|watch|video|breaking)\s?:\s
    | how\sto\s(?:make|draw|build|cook|bake|clean|fix|grow|paint|sew|knit|tie|style|wear)\s | save\s(?:up\sto\s)?on\s | up\sto\son\s
    | add\sto\s(?:cart|bag|basket|wishlist)\s?[-:]?\s? | (?:buy|shop|order|get)\s(?:the\s|our\s|this\s)? | on\s(?=[a-z])
    | (?:happy\s\w+\sto|introducing|road\strip\swith|(?:recipes?|mock-?up|ideas?|designs?|patterns?|templates?)\s(?:for|of))\s
    | (?:(?:vector|flat|line|outline|simple|cartoon|colou?rful|cute)\s)*(?:icons?|logos?|stickers?|cliparts?|seamless\spatterns?)\s(?:set\s|collection\s|pack\s)?(?:of|with)\s
    )""",
    re.VERBOSE | re.IGNORECASE,
)
#: What comes after it: "recipe", "size 10 NEW with box", "from scratch", "for sale in Austin".
_TRAIL = re.compile(
    r"""(?:\s(?:recipes?|from\sscratch|for\ssale(?:\s.*)?|in\soriginal\spackaging|for\s(?:him|her|kids|beginners)|set\sof\s\d+)
    | ,?\s\(?(?:us|eu|uk)?\s?sizes?\s\S+(?:\s.*)? | ,?\s(?:brand\s)?new\s(?:with|in)\s(?:box|tags?)(?:\s.*)? | \s(?:brand\s)?new)[\s.!]*$""",
    re.VERBOSE | re.IGNORECASE,
)
_DEPICTION_ONLY = re.compile(rf"(?:[\w-]+\s)?(?:{_IMAGE_WORD})[\s.!]*$", re.IGNORECASE)
_COMMA = re.compile(r",\s+")
_NOISE_TAIL = re.compile(r",\s*([\w .-]+)$")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def segments(caption: str) -> list[tuple[int, int]]:
    """Spans (start, end) of a caption, in characters, that hold language about the picture.

    Left out are URLs, hashtags, file names, sizes, the words of stock sites and shops, "a photo
    of".
    """
    spans = []
    start = 0
    caption = caption[:MAX_CHARACTERS]
    for match in _BREAK.finditer(caption):
        spans.append((start, match.start()))
        start = match.end()
    spans.append((start, len(caption)))
    trimmed = [_trim(caption, *span) for span in spans]
    return [span for span in trimmed if span[0] < span[1]]


def _trim(caption: str, start: int, end: int) -> tuple[int, int]:
    """A span without the noise at its ends; empty if nothing is left."""
    words = list(re.finditer(r"\S+", caption[start:end]))
    if all(_is_noise(word.group()) for word in words):
        return start, start
    tail = _NOISE_TAIL.search(caption, start, end)
    if tail and all(map(_is_noise, tail.group(1).split())):
        end = tail.start()
    parts = [*_COMMA.finditer(caption, start, end)]
    for comma in reversed(parts):  # "ceramic mug, dishwasher safe, perfect gift for coffee lovers"
        if _TALK.search(caption[comma.end() : end]) or _DEPICTION_ONLY.match(caption[comma.end() : end]):
            end = comma.start()
    while match := _LEAD.match(caption[start:end]) or _DEPICTION.match(caption[start:end]):
        start += match.end()
    if _TALK.search(caption[start:end]):
        return start, start
    if match := _TRAIL.search(caption[start:end]):
        end = start + match.start()
    if match := _BACKDROP.search(caption[start:end]):
        end = start + match.start()
    words = list(re.finditer(r"\S+", caption[start:end]))
    first, last = 0, len(words)
    while first < last and words[first].group().lower() in ("download", "free", "stock", "buy"):
        first += 1
    while last > first + 1 and _is_trailing_noise([w.group().lower() for w in words[:last]]):
        last -= 1
    if first == last:
        return start, start
    return start + words[first].start(), start + words[last - 1].end()


def _is_noise(word: str) -> bool:
    return word.strip(".,!?-'").lower() in NOISE or not any(c.isalpha() for c in word)


def _is_trailing_noise(words: list[str]) -> bool:
    """Whether the last word is a shop's: "mountain wallpaper", but not "a boy with a wallpaper"."""
    word, before = words[-1].strip(".,!"), words[-2]
    if word in ("wallpaper", "wallpapers", "clipart", "stock", "hd", "4k"):
        return before not in ENGLISH
    if word in ("vector", "vectors"):
        return before not in ("a", "the", "of")
    return word in ("photo", "photos", "image", "images") and before in NOISE


def is_english(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    foreign = sum(word in FOREIGN for word in words)
    english = sum(word in ENGLISH for word in words)
    latin = sum(c.isascii() for word in words for c in word)
    return bool(words) and 2 * latin > sum(map(len, words)) and (foreign < 2 or english > foreign)


def for_parser(text: str) -> str:
    """The text as a parser reads it best, with every character where it was.

    Capitals make the parser see names; an all-capitals or Title Case text says nothing with them,
    nor does the first letter of a sentence.
    """
    words = [word for word in _WORD.findall(text) if len(word) > 1]
    capital = [word for word in words if word[0].isupper()]
    shouting = [word for word in words if word.isupper()]
    if len(words) > 1 and len(shouting) > 0.7 * len(words):
        return _lower(text)
    functional = [word for word in capital if word.lower() in ENGLISH]
    if len(words) > 2 and functional and len(capital) > 0.7 * len(words):
        return _lower(text)
    first = words[0] if words else ""
    if first and first[1:].islower() and (len(words) < 2 or words[1][0].islower()):
        at = text.index(first)
        return text[:at] + _lower(text[at : at + 1]) + text[at + 1 :]
    return text


def _lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
