"""What web pages write around what a picture shows: credits, dates, prices, shops, file names."""

from __future__ import annotations

import re
from typing import Final

_MONTH = (
    "(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"

#: Where language about the picture is interrupted or ends.
BREAK: Final = re.compile(
    rf"""
    https?://\S+ | www\.\S+                                           # URLs
    | [\#@][\w-]+                                                     # hashtags, mentions
    | \bFile:[^|]*?\.\w{{3,4}}\b                                      # wiki file names
    | \b(?:photo(?:graph)?|image|picture)s?\s(?:by|credit|courtesy)\b[^.,|]*
    | \S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|svg|eps|psd|heic|mp4|avi|mov)\b   # file names
    | \b(?:IMG|DSC[NF]?|DCIM|PICT|P|MVI|PXL|GOPR|SAM)[-_]?\d{{3,}}\w*        # camera file names
    | \b\d{{2,5}}\s?[x×]\s?\d{{2,5}}(?:\s?(?:px|pixels))?\b                  # sizes
    | \b\d+\s?(?:px|dpi|mp|kb|mb)\b
    | <[^<>]{{1,200}}> | &\w{{2,8}};                                  # HTML
    | [\U0001F000-\U0001FAFF\u2600-\u27BF\u2B50\uFE0F\u200D]+         # emojis
    # whoever took it, to the end of the stretch
    | \b(?:photos?|images?|pictures?|photograph|credit|source|courtesy|illustration|copyright)\s?
      (?::|\bby\b|\bcredit\b|©|\bid\b)[^.|()]*
    | ©[^.|()]*
    | \b(?:AP|AFP|EPA|Reuters|UNICEF)(?:\sPhoto)?\s?/[^|()]*
    | \b(?:by\s[\w\s]{{2,30}}\s)?on\s(?:unsplash|etsy|flickr|pinterest|ebay|amazon|instagram|zillow)\b
    # prices and dates; a month alone may be a name
    | [$€£¥]\s?\d[\d,.]*\+? | \b\d[\d,.]*\s?(?:usd|eur|gbp|dollars|euros)\b | \d+\s?%(?:\soff)?
    | (?:,?\s(?:on|in|since|from|until|during|this|last)\s)?(?:\b{_DAY},?\s)?\b(?:
        {_MONTH}\.?\s{_ORDINAL}\b(?:,?\s\d{{4}}\b)?
        | {_ORDINAL}\s{_MONTH}\b(?:\s\d{{4}})?
        | {_MONTH}\s\d{{4}}\b
        | (?:19|20)\d\d[-/.]\d\d?[-/.]\d\d? )
    | ,?\s(?:on\s)?{_DAY}(?=[.,\s]*$) | ,?\s(?:in\s|circa\s)?(?:19|20)\d\d(?=[.,\s]*$)
    # addresses
    | \b(?:at\s)?\d{{1,5}}\s(?:\w+\s){{1,3}}
      (?:street|st|avenue|ave|road|rd|boulevard|blvd|drive|dr|lane|ln)\b[^|()]*
    | ,?\s(?:[A-Z]\w+\s)?[A-Z][A-Z]\s\d{{5}}\b
    # what a thing measures or can do, and after it
    | (?<=\w)\s\d+\s?%\s(?!off)[^.|()]*
    | (?<=\w)\s\d+(?:\.\d+)?\s?-?(?:w|watts?|v|volts?|mah|[gt]b|hz|oz|ml|inch(?:es)?|cm|mm|ft|lbs?|kg
      |pcs|packs?|ct|count|pieces?)\b
    | ,\s(?:[\w-]+\s){{0,2}}(?:[a-z]+\d+|\d+(?:h|hrs?|gb|mah|w|hz|mm|cm|in|k|p))\b[^|()]*
    | ,\s(?:ca?\.?\s?|circa\s)?\d{{3,4}}s?(?:[-–]\d+)?,[^|()]*                # "1642, National Gallery"
    | ,\s(?:\w+,\s)?(?:\w+\s)*\d+(?:st|nd|rd|th)\scentury\b[^|()]* | ,?\s(?:ca?\.|circa)\s?\d+[^|()]*
    | ,?\s(?:oil|acrylic|tempera|gouache|watercolou?r|ink|pastel|chalk|pencil|mixed\smedia)\son\s\w+
    | [!?]+\s
    | \s[-–—|•·»~*]+\s | [\r\n\t]+ | [|•·»]+ | [;:]\s | [()\[\]{{}}"“”]
    """,
    re.VERBOSE | re.IGNORECASE,
)

#: Stretches that shops and pages write, whatever things they name.
TALK: Final = re.compile(
    r"""
    \bfree\s(?:shipping|returns?|delivery|gift)\b
    | \b(?:shop|buy|order|book|call|subscribe|sign\sup|register)\s(?:now|today|here|online)\b
    | \bclick\s(?:here|to|on)\b | \bcontact\sus\b | \b(?:read|learn|see)\s(?:more|our)\b
    | \bnew\s(?:arrivals?|in)\b | \bbest\s(?:prices?|deals?|sellers?)\b | \bguarantee | \bsatisfaction\b
    | \blimited\s(?:time|offer|edition)\b | \bsave\s(?:up|big)\b | \bsold\sout\b | \bmoney\sback\b
    | \bships?\s(?:world|free|from|in\s\d) | \b(?:sale|offer)\s(?:ends|now)\b | \bdiscount | \bcoupon
    | \bbuy\s(?:one|\d)\b.*\bget\b | \b(?:gift|present)\s(?:ideas?|for)\b | \bone\sowner\b
    | \b(?:dishwasher|microwave|machine)\s(?:safe|proof|washable)\b
    | \b(?:tips|ideas|ways|reasons|quotes|hacks|tricks|places|things)\s(?:for|to|on|about|of)\b
    | \b(?:concepts?|quotes|logo|homepage|banner|flat\sdesign|slow\smotion|footage|copy\s?space)[\s.!]*$
    | \b(?:blog|recipes|tutorial|reviews?)[\s.!]*$
    | ^(?:size|ages?|colou?r|style|model|item|ref|sku|isbn|page|lot|pack\sof|qty|vol|no)\.?\s\d
    | ^[\d.,/\s+-]+\s?(?:pcs|pieces|ct|sq\s?ft|miles|km|baths?|beds?|oz|lbs?|inch(?:es)?|cm|mm|ft)\b
    | ^[\d.,/\s+-]+\s?(?:kg|g|ml|l|months?|years?|minutes|mins?)\b
    | \bin\s\d+\s(?:minutes|mins|hours|days)\b | \bnewsletter\b | \bopen\s\d
    | ^(?:figure|fig\.|table|map)\s(?:\d|of\b) | \b(?:condition|unused)[\s.!]*$
    | ^(?:vector|stock|royalty)\s | ^\S+\.(?:com|net|org|co)\b | ^image\sid\b
    | ^(?:breaking|update|video|watch|file\sphoto|recipe|sale)$ | \b(?:wholesale|manufacturers?|suppliers?)\b
    | ^(?:menu|loading|placeholder|skip\sto|sign\sin|log\s?in|close|untitled|step\s\d|screenshot|default)\b
    | ^(?:gift|courtesy|collection|bequest|purchase)\sof\b | ^in\.$
    | ^ingredients\s | ^(?:file|footage)$ | ^[a-z]{2,5}[\#:\s-]*\d{3,}$
    | ^(?:\w+\s){1,2}(?:background|texture|backdrop)[\s.!]*$
    | \b(?:online|cheap|cheapest|compare|free)\b.*\b(?:online|cheap|cheapest|compare|free|quotes)\b
    | ^(?:vibes|style|fashion|brand\snew|like\snew)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)

#: What comes before the thing: "How to make", "Buy", "Icon set of", "Seamless pattern with".
LEAD: Final = re.compile(
    r"""^\s*(?:
    (?:file\sphoto|photo|image|recipe|diy|sale|new|hot|update|watch|video|breaking)\s?:\s
    | how\sto\s\w+\s | (?:the\s)?(?:top|best)\s\d+\s | \d+\s(?:best|top)\s
    | (?:easy|quick|simple)\s
    | (?:an?\s)?(?:[a-z]+\s)?silhouettes?\sof\s | that\s\w+\swhen\s
    | (?:hand[-\s]drawn|vector)\s(?:set|collection)\sof\s
    | (?:an?\s|the\s|this\s)?(?:\w+\s)?(?:image|photo|picture)\s(?:shows|depicts|features)\s
    | add\sto\s(?:cart|bag|basket|wishlist)\s?[-:]?\s? | (?:buy|shop|order|get)\s(?:the\s|our\s|this\s)?
    | on\s(?=[a-z]) | (?:happy\s\w+\sto|introducing|road\strip\swith)\s
    | (?:recipes?|mock-?up|ideas?|designs?|patterns?|templates?)\s(?:for|of)\s
    | (?:(?:vector|flat|line|outline|simple|cartoon|colou?rful|cute)\s)*
      (?:icons?|logos?|stickers?|cliparts?|seamless\spatterns?)\s(?:set\s|collection\s|pack\s)?(?:of|with)\s
    )""",
    re.VERBOSE | re.IGNORECASE,
)

#: What comes after it: "recipe", "size 10 NEW with box", "from scratch", "for sale in Austin".
TRAIL: Final = re.compile(
    r"""(?:
    \s(?:recipes?|from\sscratch|for\s(?:sale|rent)(?:\s.*)?|in\soriginal\spackaging|set\sof\s\d+)
    | (?:\s(?:remodel|makeover|renovation))?\sbefore\s(?:and|&)\safter.*
    | \sonline(?:\sat\s.*)? | \s(?:at|for)\s(?:the\s)?(?:best|low(?:est)?|great|affordable)\sprices?.*
    | \s(?:in|with)\s(?:just\s|only\s)?\d+\s(?:easy\s|simple\s|quick\s)?(?:steps|minutes|ingredients)
    | ,?\sin\s(?:this|an?)\s(?:\w+\s){0,2}(?:photo|image|picture|photograph)
    | \sfor\s(?:him|her|kids|beginners)
    | ,?\s\(?(?:us|eu|uk)?\s?sizes?\s\S+(?:\s.*)? | ,?\s(?:us|eu|uk)\s\d+(?:\s.*)?
    | ,?\s(?:brand\s)?new\s(?:with|in)\s(?:box|tags?)(?:\s.*)? | \s(?:brand\s)?new
    )[\s.!]*$""",
    re.VERBOSE | re.IGNORECASE,
)
