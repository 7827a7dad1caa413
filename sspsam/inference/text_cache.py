"""Text features of phrases, encoded once however often a phrase occurs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from sspsam.errors import OutOfMemoryError
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.transfers import to_device
from sspsam.modeling.ssp_encoder import TextFeatures

if TYPE_CHECKING:
    from sspsam.modeling.model import SSPSAM


@dataclass(frozen=True)
class EncodedPhrases:
    """N phrases: their features (N rows, on the model's device), and which were too long."""

    features: TextFeatures
    truncated: list[bool]


class TextCache:
    """Keeps the features of the phrases that were used last.

    Args:
        model: its text tower and tokenizer.
        capacity: phrases to keep; about 0.2 MB each in the published layouts.
        batch: phrases of one pass.
    """

    def __init__(self, model: SSPSAM, capacity: int, batch: BatchSize) -> None:
        self._model = model
        self._capacity = capacity
        self._batch = batch
        self._rows: OrderedDict[str, tuple[TextFeatures, bool]] = OrderedDict()
        self._last: tuple[list[str], EncodedPhrases] | None = None

    def encode(self, phrases: Sequence[str]) -> EncodedPhrases:
        """Features of distinct phrases, in order.

        Raises:
            OutOfMemoryError: a phrase does not fit into memory by itself.
        """
        asked = list(phrases)
        # A fixed vocabulary asks for the same list with every batch of images.
        if self._last is not None and self._last[0] == asked:
            return self._last[1]
        missing = [phrase for phrase in asked if phrase not in self._rows]
        for part, features in run_halving(self._encode, missing, self._batch):
            if isinstance(features, OutOfMemoryError):
                raise features
            for i, phrase in enumerate(part):
                row = features.take(to_device([i], features.sentence.device))
                self._rows[phrase] = (row, self._model.tokenizer.is_truncated(phrase))
        rows = [self._rows[phrase] for phrase in asked]
        for phrase in asked:
            self._rows.move_to_end(phrase)
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
        joined = (torch.cat([getattr(row, item.name) for row, _ in rows]) for item in fields(TextFeatures))
        encoded = EncodedPhrases(TextFeatures(*joined), [truncated for _, truncated in rows])
        self._last = (asked, encoded)
        return encoded

    def _encode(self, phrases: Sequence[str]) -> TextFeatures:
        return self._model.encode_text(to_device(self._model.tokenize(phrases), self._model.device))
