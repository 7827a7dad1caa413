"""Noun phrases of captions: cleaned, told by language, parsed in batches, each distinct text once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pipeline.phrases import grammar
from pipeline.phrases.cleaning import for_parser, is_english, segments
from pipeline.phrases.grammar import Found
from pipeline.phrases.language import Languages, pipeline
from pipeline.phrases.web_text import BREAK
from pipeline.phrases.words import KIN, ROLES

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

DETAILS: Final = ("head", "modifiers", "full")
PROPER_NAMES: Final = ("generic", "drop", "keep")

_BATCH: Final = 256
#: Texts whose phrases are remembered by a process: captions of the web repeat.
_REMEMBERED: Final = 20_000
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_CAPITAL = re.compile(r"\b[^\W\d_a-z]")


@dataclass(frozen=True)
class Phrase:
    """Words to ask a mask for: `text` is `caption[start:end]`, counted in characters.

    `start` and `end` are None if the phrase does not come from the caption. Where a name is not asked
    for (`--proper-names generic`), they say where the words stand that `text` says in other words.
    """

    text: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class CaptionReader:
    """Callable: captions to the noun phrases of each that name something to segment.

    Each is a noun with its modifiers; a noun inside a modifier is a phrase of its own as well. Left
    out are pronouns, places that are no things, repeats (but for case and articles), and what web
    pages add.

    Args:
        detail: "head", "modifiers" or "full", as for `--phrase-detail`.
        proper_names: "generic", "drop" or "keep", as for `--proper-names`.
        languages: which are read, by which spaCy pipeline.
    """

    detail: str = "full"
    proper_names: str = "generic"
    languages: Languages = field(default_factory=Languages)

    def __call__(self, captions: Iterable[str | None]) -> list[list[Phrase]]:
        """The phrases of each caption, in its order; none for None and "".

        Raises:
            ConfigError: spaCy or a pipeline is not installed.
        """
        texts = [caption or "" for caption in captions]
        pieces: dict[str, list[tuple[int, int, str]]] = {}
        for i, text in enumerate(texts):
            spans = segments(text)
            code, known = self._language(text) if spans else ("", False)
            for start, end in spans if known else ():
                if code != "en" or is_english(text[start:end]):
                    pieces.setdefault(code, []).append((i, start, text[start:end]))
        result: list[list[Phrase]] = [[] for _ in texts]
        for code, found in pieces.items():
            of_text = self._parse(code, dict.fromkeys(text for _, _, text in found))
            for i, offset, text in found:
                for start, end, words in of_text[text]:
                    span = offset + start, offset + end
                    result[i].append(Phrase(words or texts[i][slice(*span)], *span))
        return [without_repeats(sorted(phrases, key=_position)) for phrases in result]

    def other_language(self, caption: str) -> str | None:
        """The language's code if that is why the caption has no phrases, else None."""
        code, known = self._language(caption) if segments(caption) else ("", True)
        return None if known else code

    def _language(self, caption: str) -> tuple[str, bool]:
        """As `Languages.of`; what looks foreign is judged again without URLs, file names and credits."""
        code, known = self.languages.of(caption)
        return (code, known) if known else self.languages.of(BREAK.sub(" ", caption))

    def _parse(self, code: str, texts: Iterable[str]) -> dict[str, list[Found]]:
        """The phrases in each text; texts that this process has seen are not parsed again."""
        key = (self.detail, self.proper_names, dict(self.languages.pipelines)[code])
        seen = _seen.setdefault(key, {})
        if len(seen) > _REMEMBERED:
            seen.clear()
        found = {text: seen[text] for text in texts if text in seen}
        new = [text for text in texts if text not in found]
        if new:
            nlp = pipeline(dict(self.languages.pipelines)[code])
            with nlp.memory_zone():  # or the vocabulary grows with every new word for as long as we run
                for text, doc in zip(new, self._docs(nlp, code, new), strict=True):
                    found[text] = seen[text] = list(self._find(code, doc, text))
        return found

    def _docs(self, nlp: Language, code: str, texts: Sequence[str]) -> Iterator[Doc]:
        read = [for_parser(text) if code == "en" else text for text in texts]
        docs = nlp.pipe(read, batch_size=_BATCH)
        if self.proper_names == "keep" or "ner" not in nlp.component_names:
            yield from docs
            return
        found = list(docs)
        named = [i for i, text in enumerate(texts) if _may_name(found[i], text)]
        recognizer: Any = nlp.get_pipe("ner")
        # names are told by the capitals that the parser does not get to see
        for i, doc in zip(named, recognizer.pipe(map(nlp.make_doc, (texts[i] for i in named))), strict=True):
            spans = [found[i].char_span(e.start_char, e.end_char, e.label_) for e in doc.ents]
            found[i].set_ents([span for span in spans if span is not None and _is_name(span, texts[i])])
        yield from found

    def _find(self, code: str, doc: Doc, text: str) -> Iterator[Found]:
        if code == "en":
            yield from grammar.find(doc, text, self.detail, self.proper_names)
            return
        for chunk in doc.noun_chunks:
            named = chunk.root.ent_type_ in ("PER", "PERSON", "LOC", "GPE") and self.proper_names != "keep"
            if chunk.root.pos_ != "PRON" and not named:
                words = chunk if self.detail != "head" else chunk.doc[chunk.root.i : chunk.root.i + 1]
                yield Found(words.start_char, words.end_char)


def _may_name(doc: Doc, text: str) -> bool:
    """Whether a capital may begin a name: not that of "A man on a horse". Names are dear to find."""
    if text.isupper() or not _CAPITAL.search(text):
        return False
    return doc[0].tag_ not in ("DT", "CD") or _CAPITAL.search(text, len(doc[0])) is not None


def _is_name(entity: Span, text: str) -> bool:
    """Whether an entity can be one by the capitals of `text` and by the tagger, which judged alone."""
    if entity.label_ in ("PERSON", "GPE", "LOC"):
        written = text[entity.start_char : entity.end_char]
        common = written.islower() or any(word.lower() in KIN for word in written.split())
        if entity.label_ == "PERSON" and _is_modifier(entity):
            return False
        return not common and all(token.tag_.startswith("NN") for token in entity)
    return True


def _is_modifier(entity: Span) -> bool:
    """Whether a "person" is a thing: "glass of coffee", "easy lemon muffins"."""
    root, after = entity.root, entity.end
    if after < len(entity.doc) and entity.doc[after].lower_ in ("of", "by"):
        return True
    if root.dep_ in ("compound", "amod") and root.head.i >= after and root.head.tag_.startswith("NN"):
        return not root.head.lower_.endswith("ing")
    before = entity.doc[entity.start - 1] if entity.start else None
    beside = before is not None and before.tag_.startswith("NNP") and before.lower_ not in ROLES
    return beside or entity[-1].tag_ in ("NNS", "NNPS")


_seen: dict[tuple[str, str, str], dict[str, list[Found]]] = {}


def noun_phrases(captions: Iterable[str | None]) -> list[list[Phrase]]:
    """The phrases of English captions, by `CaptionReader` as it is by default."""
    return CaptionReader()(captions)


def without_repeats(phrases: Sequence[Phrase]) -> list[Phrase]:
    """The phrases without those that differ from an earlier one in case, spaces or article only."""
    first: dict[str, Phrase] = {}
    for phrase in phrases:
        first.setdefault(" ".join(_ARTICLE.sub("", phrase.text.strip()).lower().split()), phrase)
    first.pop("", None)
    return list(first.values())


def _position(phrase: Phrase) -> tuple[int, int]:
    return phrase.start or 0, -(phrase.end or 0)
