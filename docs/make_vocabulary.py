"""Builds `sspsam/assets/bpe_tiny.txt.gz`, the merges of the bundled model's tokenizer. Run by hand.

    python -m docs.make_vocabulary

Byte-pair encoding (Sennrich et al., arXiv 1508.07909) over the words of scene phrases, so that each
common one is a single token, and over the names of everything else in the atlas, so that unknown
words fall into familiar pieces. The format is that of CLIP's own merges file. The file in the
package belongs to the bundled weights; the shares of the kinds of phrases have changed since, so a run
today gives the vocabulary of a new model, not that file again.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np

from docs.sprite_names import CORE
from sspsam.scenes.atlas import load_atlas, read_sprites
from sspsam.scenes.expressions import scene_phrases
from sspsam.scenes.names import RECOLOURED, RECOLOURS, plural
from sspsam.scenes.render import SceneConfig, render
from sspsam.scenes.things import things

MERGES = 1000
_SCENES = 400


def word_counts() -> Counter[str]:
    """Words of phrases, weighted so that a core noun is never rarer than an atlas-only one."""
    counts: Counter[str] = Counter()
    for sprite, _ in read_sprites():
        drawings = len(RECOLOURS) if sprite.name in RECOLOURED else 1
        counts.update(word for word in sprite.name.lower().split() * drawings if word.isalpha())
    for name, synonyms, categories in CORE.values():
        for noun in (name, *synonyms, *categories):
            for word in f"{noun} {plural(noun)}".replace("-", " ").split():
                counts[word] += 200
    core = load_atlas()
    names, _ = core.pool("train")
    batch = render(0, np.arange(_SCENES), SceneConfig(size=64))
    for row in range(_SCENES):
        for phrase in scene_phrases(things(batch, row, core), names, core, Random(row), 10):
            counts.update(phrase.text.replace("-", " ").split())
    return counts


def merges(counts: Counter[str], number: int) -> list[tuple[str, str]]:
    """The `number` most frequent pairs, merged one after another; ties go by spelling."""
    words = {(*word[:-1], word[-1] + "</w>"): count for word, count in counts.items()}
    chosen: list[tuple[str, str]] = []
    for _ in range(number):
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        chosen.append(best)
        merged: dict[tuple[str, ...], int] = {}
        for symbols, count in words.items():
            merged[_apply(symbols, best)] = count
        words = merged
    return chosen


def _apply(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("sspsam/assets/bpe_tiny.txt.gz"))
    options = parser.parse_args(argv)
    chosen = merges(word_counts(), MERGES)
    lines = ["#version: sspsam tiny", *(" ".join(pair) for pair in chosen), ""]
    options.output.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    print(f"{len(chosen)} merges, vocabulary of {512 + len(chosen) + 2} tokens: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
