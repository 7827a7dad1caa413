"""Where an image's phrases come from: what `--phrases` says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import fsspec

from pipeline.phrases.language import languages
from pipeline.phrases.noun_phrases import DETAILS, PROPER_NAMES, CaptionReader, Phrase, without_repeats
from pipeline.sources.samples import Sample, clean_text
from sspsam.errors import ConfigError, PhraseError

KINDS: Final = ("caption", "column:NAME", "whole", "vocabulary:FILE", "module:function")
#: Kind of rows without phrases because nobody reads their caption's language.
LANGUAGE: Final = "language"
_LINE = re.compile(r"[^\r\n]*[^\s]")

#: Gives each sample its phrases, as texts or with their place in the caption.
PhraseFunction = Callable[[list[Sample]], Sequence[Sequence["str | Phrase"]]]


@dataclass(frozen=True)
class PhraseSource:
    """Callable: samples to the phrases of each, without repeats. Can be pickled.

    Args:
        spec: as for `--phrases`.
        max_phrases: how many of an image's phrases are kept, the first ones; None keeps all.
        words: the vocabulary, if the spec names one.
        reader: how captions are read.
    """

    spec: str
    max_phrases: int | None = None
    words: tuple[str, ...] = field(default=(), repr=False)
    reader: CaptionReader = field(default_factory=CaptionReader)

    def __call__(self, samples: list[Sample]) -> list[list[Phrase]]:
        """The phrases of each sample, in the samples' order; none for samples with an error.

        Raises:
            PhraseError: a column is not there or holds no text, or the user's function went wrong.
        """
        usable = [sample for sample in samples if sample.error is None]
        found = iter(self._find(usable))
        return [
            without_repeats(next(found))[: self.max_phrases] if sample.error is None else []
            for sample in samples
        ]

    def why_none(self, sample: Sample) -> tuple[str, str] | None:
        """Kind and message of a sample without phrases whose caption is in a language that is not read."""
        if self.spec != "caption" or not sample.caption:
            return None
        code = self.reader.other_language(sample.caption)
        read = ", ".join(code for code, _ in self.reader.languages.pipelines)
        if code is None:
            return None
        return (
            LANGUAGE,
            f"the caption is not in {read} but, it seems, in {code!r}: --language {code}:PIPELINE reads it "
            "by a spaCy pipeline of yours, --phrases whole asks for all of it",
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """What samples must carry besides their caption."""
        kind, _, name = self.spec.partition(":")
        return (name,) if kind == "column" else ()

    def _find(self, samples: list[Sample]) -> list[list[Phrase]]:
        kind, _, name = self.spec.partition(":")
        if kind == "caption":
            return self.reader(sample.caption for sample in samples)
        if kind == "whole":
            return [_lines(sample.caption or "") for sample in samples]
        if kind == "vocabulary":
            vocabulary = [Phrase(word) for word in self.words]
            return [vocabulary for _ in samples]
        if kind == "column":
            return [_from_column(sample, name) for sample in samples]
        return _from_function(self.spec, samples)


def phrase_source(
    spec: str,
    max_phrases: int | None = None,
    detail: str = "full",
    proper_names: str = "generic",
    language: str = "en",
) -> PhraseSource:
    """The source that a value of `--phrases` names.

    `detail`, `proper_names` and `language` are for captions. A vocabulary is read here, once, so that
    workers need not find the file; a function is imported, and a spaCy pipeline of the user's loaded, so
    that a wrong name shows before anything runs.

    Raises:
        ConfigError: naming the flag, and what would work.
    """
    if max_phrases is not None and max_phrases < 1:
        raise ConfigError(f"--max-phrases is {max_phrases}; it must be at least 1")
    for flag, value, known in (
        ("--phrase-detail", detail, DETAILS),
        ("--proper-names", proper_names, PROPER_NAMES),
    ):
        if value not in known:
            raise ConfigError(f"{flag} is {value!r}, not one of {', '.join(known)}")
    kind, colon, name = spec.partition(":")
    if spec == "caption":
        reader = CaptionReader(detail, proper_names, languages(language))
        return PhraseSource(spec, max_phrases, reader=reader)
    if spec == "whole":
        return PhraseSource(spec, max_phrases)
    if not colon or not kind or not name or kind in ("caption", "whole"):
        raise ConfigError(f"--phrases {spec!r} is none of {', '.join(KINDS)}")
    if kind == "column":
        return PhraseSource(spec, max_phrases)
    if kind == "vocabulary":
        return PhraseSource(spec, max_phrases, _vocabulary(name))
    _function(spec)
    return PhraseSource(spec, max_phrases)


def _vocabulary(url: str) -> tuple[str, ...]:
    """A phrase a line; blank lines and lines that begin with # do not count."""
    try:
        with fsspec.open(url, "rt", encoding="utf-8-sig") as file:
            lines = [" ".join(line.split()) for line in file]
    except (OSError, UnicodeDecodeError, ImportError, ValueError) as error:
        raise ConfigError(f"--phrases vocabulary:{url} cannot be read: {error}") from error
    words = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not words:
        raise ConfigError(f"--phrases vocabulary:{url} holds no phrase; write one a line")
    return words


def _function(spec: str) -> PhraseFunction:
    module, _, name = spec.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--phrases {spec!r} is none of {', '.join(KINDS[:-1])}, nor a function that can be "
            f"imported: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(f"--phrases {spec!r} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _lines(caption: str) -> list[Phrase]:
    """Each line as one phrase: images with several captions have one a line."""
    found = []
    for match in _LINE.finditer(caption):
        text = match.group().lstrip()
        found.append(Phrase(text, match.end() - len(text), match.end()))
    return found


def _from_column(sample: Sample, name: str) -> list[Phrase]:
    if name not in sample.columns:
        there = ", ".join(sorted(sample.columns)) or "none"
        raise PhraseError(f"--phrases column:{name}: {sample.key} has no such field; it has {there}")
    value = sample.columns[name]
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(v is None or isinstance(v, str) for v in values):
        raise PhraseError(
            f"--phrases column:{name}: {sample.key} has a {type(value).__name__} there, neither "
            "a text nor a list of texts"
        )
    return _plain(values)


def _from_function(spec: str, samples: list[Sample]) -> list[list[Phrase]]:
    try:
        answers = [list(answer) for answer in _function(spec)(samples)]
    except Exception as error:
        raise PhraseError(f"--phrases {spec}: {type(error).__name__}: {error}") from error
    if len(answers) != len(samples):
        raise PhraseError(
            f"--phrases {spec} gave {len(answers)} lists for {len(samples)} samples; it must give "
            "one list of phrases for each"
        )
    return [
        [phrase for a in answer for phrase in ([a] if isinstance(a, Phrase) else _plain([a]))]
        for answer in answers
    ]


def _plain(values: Sequence[Any]) -> list[Phrase]:
    texts = [clean_text(value) for value in values]
    return [Phrase(" ".join(text.split())) for text in texts if text]
