"""The phrases of a batch of images: prompts, mask decoder, upsampling, RLE, within a memory budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from sspsam.errors import OutOfMemoryError, SSPSAMError
from sspsam.images.geometry import Geometry
from sspsam.inference.masks import DrawnMasks, Mask, draw_masks, finish_masks, flagged_mask
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.stopwatch import Stopwatch
from sspsam.inference.text_cache import EncodedPhrases

if TYPE_CHECKING:
    from sspsam.inference.results import SegmenterConfig
    from sspsam.modeling.model import SSPSAM, ImageFeatures


@dataclass
class Draft:
    """The result of one image while it is being made."""

    geometry: Geometry
    masks: list[Mask]  # prefilled, so that a phrase that is not run has its flagged mask
    error: SSPSAMError | None = None


@dataclass(frozen=True)
class Task:
    """One phrase of one image of a batch."""

    slot: int  # of the image in the batch
    position: int  # of the phrase in the caller's list
    phrase: str  # as given
    row: int  # in the batch's encoded phrases


@dataclass(frozen=True)
class _Decoded:
    """What the model says of N phrases."""

    mask_logits: torch.Tensor  # (N, L, L)
    sentences: torch.Tensor  # (N, E)
    predicted_iou: torch.Tensor  # (N,), on the CPU
    boxes: torch.Tensor  # (N, 4) cxcywh relative to the CLIP square, on the CPU


class PhraseRunner:
    """Runs the phrase side of a model. `threads` encode RLE while the device draws."""

    def __init__(
        self,
        model: SSPSAM,
        config: SegmenterConfig,
        threads: ThreadPoolExecutor,
        stopwatch: Stopwatch,
    ) -> None:
        self._model = model
        self._config = config
        self._threads = threads
        self._stopwatch = stopwatch
        self._batch = BatchSize(config.phrases_per_batch)
        least = config.min_target_pixels
        self._min_target_pixels = model.config.min_target_pixels if least is None else least
        self._budget = config.upsample_mib << 20

    def run(
        self,
        drafts: Sequence[Draft],
        features: ImageFeatures,
        encoded: EncodedPhrases,
        tasks: Sequence[Task],
    ) -> None:
        """Fill in the drafts' masks, or the error of an image whose phrase does not fit into memory.

        Args:
            drafts: one a row of `features`.
            features: of the batch of images.
            encoded: the distinct phrases.
            tasks: by slot.
        """
        waiting: deque[tuple[int, Sequence[Task], Future[list[Mask]]]] = deque()
        decode = partial(self._decode, features, encoded)
        for part, decoded in run_halving(decode, tasks, self._batch):
            if isinstance(decoded, OutOfMemoryError):
                drafts[part[0].slot].error = decoded
                continue
            for slot, group in groupby(range(len(part)), key=lambda i: part[i].slot):
                members = list(group)
                draw = partial(self._draw, drafts[slot].geometry, features.clip_tokens[slot], decoded)
                batch = BatchSize(self._masks_at_a_time(drafts[slot].geometry))
                for some, drawn in run_halving(draw, members, batch):
                    if isinstance(drawn, OutOfMemoryError):
                        drafts[slot].error = drawn
                        continue
                    asked = [part[i] for i in some]
                    job = self._threads.submit(
                        self._finish, drafts[slot].geometry, decoded, encoded, drawn, some, asked
                    )
                    waiting.append((drawn.masks.nbytes, asked, job))
                    self._settle(waiting, drafts, self._budget)
        self._settle(waiting, drafts, 0)

    def _decode(self, features: ImageFeatures, encoded: EncodedPhrases, tasks: Sequence[Task]) -> _Decoded:
        device = features.clip_tokens.device
        self._stopwatch.add("phrases", len(tasks))
        self._stopwatch.add("phrase_slots", self._batch.size)
        with self._stopwatch.on_device("phrase"):
            slots = torch.tensor([task.slot for task in tasks], device=device)
            text = encoded.features.take(torch.tensor([task.row for task in tasks], device=device))
            prompt = self._model.prompt(features, text, slots)
            logits, predicted_iou = self._model.decode(features.sam_embedding, prompt.prompts, slots)
        return _Decoded(
            logits.float(), text.sentence, predicted_iou.float().cpu(), prompt.boxes.float().cpu()
        )

    def _draw(
        self,
        geometry: Geometry,
        clip_tokens: torch.Tensor,
        decoded: _Decoded,
        members: Sequence[int],
    ) -> DrawnMasks:
        with self._stopwatch.on_device("rle"):
            rows = torch.tensor(members, device=decoded.mask_logits.device)
            return draw_masks(
                decoded.mask_logits[rows],
                geometry,
                self._model.config.score_size,
                clip_tokens[1:],
                decoded.sentences[rows],
                keep_square=self._config.square_masks,
            )

    def _finish(
        self,
        geometry: Geometry,
        decoded: _Decoded,
        encoded: EncodedPhrases,
        drawn: DrawnMasks,
        members: Sequence[int],
        tasks: Sequence[Task],
    ) -> list[Mask]:
        rows = torch.tensor(members)
        return finish_masks(
            drawn,
            [task.phrase for task in tasks],
            [encoded.truncated[task.row] for task in tasks],
            decoded.predicted_iou[rows],
            geometry.clip.boxes_to_original(decoded.boxes[rows]),
            self._min_target_pixels,
        )

    def _settle(
        self,
        waiting: deque[tuple[int, Sequence[Task], Future[list[Mask]]]],
        drafts: Sequence[Draft],
        limit: int,
    ) -> None:
        """Take what is encoded until at most `limit` bytes of masks wait."""
        total = sum(size for size, _, _ in waiting)
        with self._stopwatch.on_clock("rle"):
            while waiting and total > limit:
                size, tasks, job = waiting.popleft()
                total -= size
                for task, mask in zip(tasks, job.result(), strict=True):
                    drafts[task.slot].masks[task.position] = mask

    def _masks_at_a_time(self, geometry: Geometry) -> int:
        """How many masks of an image are drawn at once: float logits and bools at every size."""
        square, score = geometry.sam.size**2, self._model.config.score_size**2
        each = 4 * (2 * square + 4 * score) + 5 * geometry.width * geometry.height
        return max(1, self._budget // each)


def prefilled(phrases: Sequence[str], geometry: Geometry) -> Draft:
    """A draft with flagged masks, each to be replaced by what is drawn."""
    masks = [flagged_mask(phrase, geometry.width, geometry.height) for phrase in phrases]
    return Draft(geometry, masks)
