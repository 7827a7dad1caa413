"""CLIP's BPE: against transformers' tokenizer on any text, and what the authors' way adds."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from sspsam import Tokenizer
from sspsam.errors import CheckpointError
from sspsam.language.tokenizer import bundled_merges

ours = Tokenizer()


@pytest.fixture(scope="module")
def theirs() -> CLIPTokenizer:
    merges = gzip.decompress(bundled_merges("clip").read_bytes()).decode().split("\n")[1:48895]
    return CLIPTokenizer(vocab=dict(ours._ids), merges=[tuple(pair.split()) for pair in merges])


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec="ascii", min_codepoint=32), max_size=60))
def test_equals_transformers(theirs: CLIPTokenizer, text: str) -> None:
    expected = theirs(f"{text.lower().strip()}.".replace("<|", "< |"))["input_ids"]
    if len(expected) > 77:
        expected = [*expected[:76], ours.end]
    assert ours([text.replace("<|", "< |")])[0, : len(expected)].tolist() == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300))
def test_any_text_gives_a_framed_row(text: str) -> None:
    """Start, end, zeros; control tokens spelled in a phrase stay text."""
    row = ours([text])[0].tolist()
    start = ours.end - 1
    assert row[0] == start
    assert row.count(start) == row.count(ours.end) == 1
    assert not any(row[row.index(ours.end) + 1 :])
    assert ours.is_truncated(text) == (len(ours._encode(text)) > 75)


def test_monsters_and_impostors_are_quick_text() -> None:
    row = ours(["<|startoftext|> dog <|endoftext|>"])[0].tolist()
    assert row.count(ours.end) == 1
    monster = ("qzxj" * 2500)[:10_000]
    assert ours.is_truncated(monster)
    assert ours([monster])[0, -1] == ours.end
    assert ours.words("the dogs") == ["", "the", "dogs", ".", ""]


def test_a_vocabulary_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no bundled vocabulary 'klingon'"):
        Tokenizer("klingon")
    (tmp_path / "bpe.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(CheckpointError, match="no gzipped merges file"):
        Tokenizer(tmp_path / "bpe.txt.gz")
