"""CLIP's byte-level BPE (Radford et al., arXiv 2103.00020), as the authors of SSP-SAM feed it.

The merges file comes with the package, so no network is needed. `assets/bpe_clip.txt.gz` is
OpenAI's `bpe_simple_vocab_16e6.txt.gz` (MIT).
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import regex
import torch
from tokenizers.models import BPE

from sspsam.errors import CheckpointError

#: OpenAI's file holds more merges than its vocabulary uses: 49152 - 256 - 2 of them count.
_CLIP_MERGES = 48894

#: Of an unpacked merges file; CLIP's has 3 MB.
_MOST_BYTES = 64 * 2**20
_LONGEST_WORD = 512  # characters
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


@lru_cache
def _byte_symbols() -> dict[int, str]:
    """A printable character for each byte: itself where it prints, else one above U+00FF."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return symbols


class Tokenizer:
    """Phrases to token ids.

    Args:
        merges: gzipped text file, a header line and then one merge (two symbols) a line, best
            first; or the name of a bundled one, "clip" or "tiny".
        context_length: T, tokens a phrase, start and end included.

    Raises:
        CheckpointError: the merges file is missing or not gzipped text.
    """

    def __init__(self, merges: str | Path = "clip", context_length: int = 77) -> None:
        self.path = bundled_merges(merges) if isinstance(merges, str) else merges
        self.context_length = context_length
        try:
            with gzip.open(self.path) as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise OSError(f"more than {_MOST_BYTES} bytes")
            lines = text.decode("utf-8").split("\n")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.path} is no gzipped merges file: {error}") from error
        merging = (line.strip().partition(" ") for line in lines[1 : _CLIP_MERGES + 1] if line.strip())
        pairs = [(first, second) for first, _, second in merging]
        symbols = list(_byte_symbols().values())
        vocabulary = [
            *symbols,
            *(symbol + "</w>" for symbol in symbols),
            *("".join(pair) for pair in pairs),
            *_SPECIAL,
        ]
        self._ids = {symbol: i for i, symbol in enumerate(vocabulary)}
        try:
            self._bpe = BPE(self._ids, pairs, end_of_word_suffix="</w>", cache_capacity=100_000)
        except Exception as error:  # of no other type
            raise CheckpointError(f"{self.path} is no merges file: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of token ids, start and end included."""
        return len(self._ids)

    @property
    def end(self) -> int:
        """Id of the end token, the highest."""
        return self._ids[_SPECIAL[1]]

    def __call__(self, phrases: Sequence[str]) -> torch.Tensor:
        """Token ids of phrases.

        Each phrase is lower-cased, stripped and put into `"{}."`; a text that is too long keeps
        its first tokens and the end token (`is_truncated` tells).

        Returns:
            (N, T) int64: start, tokens, end, then zeros.
        """
        ids = torch.zeros(len(phrases), self.context_length, dtype=torch.long)
        for row, phrase in enumerate(phrases):
            tokens = self._encode(phrase)[: self.context_length - 2]
            tokens = [self._ids[_SPECIAL[0]], *tokens, self.end]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return ids

    def is_truncated(self, phrase: str) -> bool:
        """Whether the phrase has more tokens than fit."""
        return len(self._encode(phrase)) > self.context_length - 2

    def words(self, phrase: str) -> list[str]:
        """The text of each token position of `phrase`, start and end included, at most T."""
        symbols = {i: symbol for symbol, i in self._ids.items()}
        inverse = {symbol: byte for byte, symbol in _byte_symbols().items()}
        texts = []
        for token in self._encode(phrase)[: self.context_length - 2]:
            characters = symbols[token].removesuffix("</w>")
            raw = bytes(inverse[character] for character in characters)
            texts.append(raw.decode("utf-8", errors="replace"))
        return ["", *texts, ""]

    def save(self, path: Path) -> None:
        """Copy the merges file to `path`."""
        shutil.copyfile(self.path, path)

    def _encode(self, phrase: str) -> list[int]:
        # CLIP's own cleaning: entities and white space. `ftfy` is left out: the authors' phrases
        # are ASCII, and a phrase that survives JSON and Parquet is valid Unicode already.
        text = f"{phrase.lower().strip()}."
        # No word of any language is this long.
        pieces = (
            word[i : i + _LONGEST_WORD]
            for word in _WORDS.findall(text)
            for i in range(0, len(word), _LONGEST_WORD)
        )
        return [token for piece in pieces for token in self._word(piece)]

    def _word(self, word: str) -> list[int]:
        if word in _SPECIAL:
            # A phrase that spells a control token is text, not control: one token a character.
            return [self._ids[symbol] for symbol in [*word[:-1], word[-1] + "</w>"]]
        symbols = _byte_symbols()
        text = "".join(symbols[byte] for byte in word.encode("utf-8", errors="replace"))
        return [token.id for token in self._bpe.tokenize(text)]


def bundled_merges(name: str) -> Path:
    """Path of a merges file in the package.

    Raises:
        CheckpointError: there is none of that name.
    """
    path = Path(str(files("sspsam"))) / "assets" / f"bpe_{name}.txt.gz"
    if not path.is_file():
        raise CheckpointError(f"no bundled vocabulary {name!r}: {path} does not exist")
    return path
