"""Word lists that decide what is a thing one can ask a mask for. Nouns stand in the singular."""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Nouns that name a place relative to something, and no thing: "the left", "the background".
PLACES: Final = _words(
    "left right top bottom middle center centre background foreground front back rear side corner "
    "edge end distance inside outside area part direction midst midair vicinity position "
    "place location upper lower vertical horizontal interior exterior surface north south east west"
)

#: Nouns of measure, time, looks and doings: nothing that a mask could cover.
ABSTRACT: Final = _words(
    "size color colour shade style type kind sort quality time day night morning afternoon evening "
    "noon dusk dawn midnight daytime nighttime today year month week hour minute moment summer "
    "winter spring autumn season weekend holiday trick nap look action motion use order work fun "
    "display sale flight move turn half quarter air wind breeze height width length weight depth "
    "speed amount price view shot idea fact reason purpose preparation conversation "
    "way standing sitting riding walking looking "
    "celebration competition race game event life love happiness joy beauty detail shape form "
    "pattern other another one thing something anything everything nothing someone anyone everyone "
    "nobody shipping delivery order offer discount deal return quote gift-idea premiere rally match "
    "forehand ceremony meeting trip road-trip vacation travel adventure success teamwork business "
    "fashion lifestyle health concept design news story review tip guide recipe vibe birthday "
    "inspiration copyspace page link website copy space free warranty condition inning finance place "
    "investment rent parking newsletter warranty guarantee home plan kick insurance shopping step "
    "lot bit ml cl l g kg lb oz mm cm km m ft inch px mp gb pcs x vs etc"
)

#: Nouns that say that something is depicted. At the head of a caption they are about the caption.
DEPICTIONS: Final = _words(
    "photo photograph image picture pic view shot close-up closeup snapshot screenshot selfie "
    "portrait illustration drawing cartoon vector sketch render rendering clipart scene footage "
    "photography thumbnail"
)

#: "a group of people": the whole is the thing, what stands after "of" is no other.
QUANTITIES: Final = _words(
    "group pair bunch couple row herd flock pile stack set number lot variety collection piece "
    "slice bit crowd line team cluster handful assortment array series swarm school pack pride heap "
    "dozen hundred thousand lots plenty kind type sort couples string selection mixture mix range "
    "one two three four five six seven eight nine ten some many several each both all any most few "
    "none half part rest majority"
)

#: Words of stock sites and shops that are about the picture or the page, not in the picture.
NOISE: Final = _words(
    "stock photo photos image images vector vectors royalty free royalty-free download wallpaper "
    "wallpapers hd uhd 4k 8k getty gettyimages shutterstock istock istockphoto alamy dreamstime "
    "depositphotos adobe clipart png jpg jpeg psd svg eps pictures picture pic pics photography "
    "pinterest flickr instagram facebook etsy ebay amazon amazon.com buy online shop sale new best "
    "unsplash wikipedia wikimedia commons price resolution "
    "high quality full premium print prints credit copyright by com"
)

#: Played, but not drawn: no things when somebody plays them.
GAMES: Final = _words(
    "tennis baseball soccer football basketball golf hockey cricket volleyball rugby badminton "
    "polo chess sports sport music"
)

#: Relations with one thing on the other side: in a list, what follows that thing is not part of it.
DIRECTIONS: Final = _words("above below under beneath underneath left right over")

#: Participles that, without an auxiliary, say how a thing is, although they look like the past.
STATES: Final = _words(
    "parked docked seated filled covered topped surrounded lined placed stacked dressed decorated "
    "tied made mounted attached painted perched gathered loaded displayed posed set cut piled "
    "arranged served cooked sliced wrapped hung located moored crowded packed spread lit mixed "
    "equipped adorned garnished prepared left shown held"
)

#: Frequent function words of other languages that are no English words.
FOREIGN: Final = _words(
    "der die das und ein eine einen einem einer dem den auf mit im ist für von zur zum nicht durch "
    "le la les un une des du dans avec sur et est pour au aux chez el los las una con por para del "
    "en y il lo gli di della nel che sul sulla het een op van voor met zijn niet do da dos das no na "
    "em uma com och på ett som med jest nie na się w z dla"
)

#: Frequent function words of English, to weigh against `FOREIGN`.
ENGLISH: Final = _words(
    "the a an of in on with and is are at to by for from near next his her its their under over "
    "behind that this two three some up down while wearing holding"
)

#: Times: "at night" says nothing about which thing is meant.
TIMES: Final = _words(
    "night day noon midday midnight dusk dawn sunset sunrise twilight morning afternoon evening "
    "spring summer autumn fall winter daytime nighttime weekend christmas halloween easter"
)

#: Endings of nouns that name no thing when they stand bare: "partnership", "against austerity".
ABSTRACT_ENDINGS: Final = (
    *("ness", "ship", "ity", "ism", "tion", "sion", "ance", "ence", "hood", "dom", "logy", "graphy", "ncy"),
    "ing",
)

#: What ends like that and can be seen.
CONCRETE: Final = _words(
    "battleship spaceship airship starship flagship steamship warship harness lioness waitress wilderness "
    "university celebrity nativity station vegetation decoration reception collection plantation carnation "
    "partition portion section junction intersection invitation ammunition ambulance entrance appliance "
    "mansion television audience residence neighborhood neighbourhood mechanism organism "
    "building painting clothing bedding seating lighting frosting dressing stuffing flooring roofing fencing "
    "knitting tubing pudding herring string filling topping earring ceiling railing awning lettering "
    "dwelling duckling sapling sibling offspring coating covering carving drawing stocking piping wrapping"
)

#: First words that bid: "add butter", unlike "keynote speaker".
IMPERATIVES: Final = _words(
    "add mix pour bake stir cook cut use make take find get learn see visit shop buy meet try watch view "
    "put place serve wear build draw grow paint choose eat drink play read keep save join discover enjoy"
)

#: Gatherings: "at the gala" says where, and no mask covers it.
GATHERINGS: Final = _words(
    "gala reception festival conference party concert tournament final semifinal championship summit "
    "exhibition show workshop fundraiser contest convention wedding funeral protest march rally "
    "demonstration fair parade carnival expo briefing hearing session marathon olympics finals"
)

#: Prepositions of time and cause, which no thing in the picture follows.
WHEN_AND_WHY: Final = _words("during after since until amid despite following due because without")

#: Prepositions of a way or a time: after an object they are the verb's, "pours batter into a pan".
VERBAL: Final = _words("into onto toward towards during after amid through")

#: Words by which a named place is a thing that can be seen: "Lake Como", "Venice Beach".
LANDMARKS: Final = _words(
    "lake beach tower bridge mountain mountains mount river park castle palace cathedral church "
    "temple square statue falls waterfall canyon island bay harbor harbour museum stadium garden "
    "gardens market valley forest glacier volcano pier lighthouse station hotel canal fountain gate"
)

#: What a verb is done with, if "with" follows its object.
INSTRUMENTS: Final = _words(
    "fork knife spoon chopstick hand finger tool brush paintbrush hammer chainsaw saw axe scissor "
    "camera phone cellphone smartphone bat racket stick shovel rake broom mop sponge hose pen pencil "
    "marker crayon straw tong spatula drill wrench screwdriver needle rope net towel tweezer bottle"
)

#: Parts of a body: "with her hands" is how a thing is done, not what the thing has.
BODY: Final = _words("hand finger arm foot leg mouth tooth eye head trunk paw beak tongue thumb palm")

#: Relations of two things side by side: after a place, they say which place is meant.
RELATIONS: Final = _words("next near beside behind beneath alongside")

#: Beginnings of verbs that are done at a place: "reads a newspaper on a bench".
ACTIVITIES: Final = (
    *("read", "eat", "drink", "play", "feed", "fl", "rid", "cook", "throw", "kick", "hit", "cut", "paint"),
    *("clean", "wash", "chas"),
)

#: Beginnings of verbs whose object is where it is looked at: "watches the boxers in the ring".
OBSERVING: Final = ("watch", "observ", "see", "look", "photograph")

#: Postal codes of the United States that follow a town's name.
US_STATES: Final = _words(
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY "
    "NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC UK USA"
)

#: Roles and titles that stand before a name and can be seen, more or less.
ROLES: Final = _words(
    "president queen king prince princess pope actor actress singer senator coach chef doctor professor "
    "captain general minister chancellor mayor governor pastor bishop judge officer player driver "
    "designer artist model author"
)

#: Before a name they say where, so that the name is a place's, whatever the recogniser says.
WHEREABOUTS: Final = _words("in over at across through around")

#: Words that stand for a person without being a name: "grandma's apple pie".
KIN: Final = _words(
    "grandma's grandma grandpa's grandpa mom's mom mum's mum dad's dad mommy daddy santa baby"
)
