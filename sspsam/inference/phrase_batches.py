"""The phrases of a batch of images: prompts, mask decoder, upsampling, RLE, within a memory budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from sspsam.errors import OutOfMemoryError
from sspsam.images.geometry import Geometry
from sspsam.inference.drafts import Draft, Task
from sspsam.inference.masks import DrawnMasks, draw_masks, finish_masks, flagged_mask
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.square_scores import SquareScores, places, score_squares
from sspsam.inference.stopwatch import Stopwatch
from sspsam.inference.text_cache import EncodedPhrases
from sspsam.inference.transfers import copied, to_device, to_host
from sspsam.inference.verification import Checks, Verifier
from sspsam.modeling.graphed import Graphed, Tensors

if TYPE_CHECKING:
    from sspsam.images.preprocess import ResizedImage
    from sspsam.inference.results import SegmenterConfig
    from sspsam.modeling.model import SSPSAM, ImageFeatures


#: Phrases that compiled batches are padded to a multiple of.
_PHRASE_STEP = 8


@dataclass(frozen=True)
class _Decoded:
    """What the model says of N phrases."""

    mask_logits: torch.Tensor  # (N, L, L)
    predicted_iou: torch.Tensor  # (N,), on the CPU, like the next, and of the last all but the maps
    boxes: torch.Tensor  # (N, 4) cxcywh relative to the CLIP square
    scores: SquareScores


class PhraseRunner:
    """Runs the phrase side of a model, for one thread at a time; threads of its own encode RLE meanwhile."""

    def __init__(self, model: SSPSAM, config: SegmenterConfig, stopwatch: Stopwatch) -> None:
        self._model = model
        self._verifier = None if config.verify == "none" else Verifier(model, config)
        self._config = config
        self._threads = ThreadPoolExecutor(config.threads, thread_name_prefix="sspsam-rle")
        self._stopwatch = stopwatch
        self._budget = config.upsample_mib << 20
        each = 4 * (
            model.config.sam.image_size**2 + 4 * model.config.score_size**2
        )  # bytes, see `score_squares`
        self._batch = BatchSize(max(1, min(config.phrases_per_batch, self._budget // each)))
        least = config.min_target_pixels
        self._min_target_pixels = model.config.min_target_pixels if least is None else least
        self._waiting: deque[tuple[int, Future[None]]] = deque()  # bytes of masks, their encoding
        self._answer = Graphed(partial(_answer, model)) if config.compiled else partial(_answer, model)

    def run(
        self,
        drafts: Sequence[Draft],
        features: ImageFeatures,
        encoded: EncodedPhrases,
        tasks: Sequence[Task],
        images: Sequence[ResizedImage],
    ) -> list[Future[None]]:
        """Have the drafts' masks drawn and encoded; they are in the drafts when the futures are done.

        An image whose phrase does not fit into memory gets that error.

        Args:
            drafts: one a row of `features`.
            features: of the batch of images.
            encoded: the distinct phrases.
            tasks: by slot.
            images: one a draft, of which `verify` makes other views.
        """
        futures: list[Future[None]] = []
        drawn_masks: list[tuple[int, Callable[[], None]]] = []
        geometries = [draft.geometry for draft in drafts]
        tokens = features.clip_tokens
        where = places(geometries, self._model.config.score_size, len(tokens), tokens.device)
        decode = partial(self._decode, features, where, encoded)
        checks = Checks(self._verifier, drafts, features, images) if self._verifier else None
        for part, decoded in run_halving(decode, tasks, self._batch):
            if isinstance(decoded, OutOfMemoryError):
                drafts[part[0].slot].error = decoded
                continue
            if checks is not None:
                with self._stopwatch.on_device("phrase"):
                    checks.see(part, decoded.mask_logits)
            for slot, group in groupby(range(len(part)), key=lambda i: part[i].slot):
                members, draft = list(group), drafts[slot]
                draw = partial(self._draw, draft.geometry, decoded)
                batch = BatchSize(self._masks_at_a_time(draft.geometry))
                for some, drawn in run_halving(draw, members, batch):
                    if isinstance(drawn, OutOfMemoryError):
                        draft.error = drawn
                        continue
                    asked = [part[i] for i in some]
                    job = partial(self._finish, draft, decoded, encoded, drawn, some, asked)
                    drawn_masks.append((drawn.masks.nbytes, job))
                    # On a CPU what is drawn is there; on a device the host waits for it once.
                    if self._model.device.type == "cpu" or sum(n for n, _ in drawn_masks) > self._budget:
                        futures += self._encode(drawn_masks)
        futures += self._encode(drawn_masks)
        if checks is not None:
            hand_over = checks.finish()
            futures.append(self._threads.submit(_after, copied(self._model.device), hand_over))
        return futures

    def _encode(self, drawn_masks: list[tuple[int, Callable[[], None]]]) -> list[Future[None]]:
        """Hand over what is drawn, and wait until no more masks than the budget wait for RLE.

        The only wait of the host for the device, once a batch unless its masks exceed the budget: threads
        that encode RLE wait for the event behind the batch's last copy. No other thread waits for any.
        """
        wait = copied(self._model.device) if drawn_masks else None
        futures = []
        for size, job in drawn_masks:
            future = self._threads.submit(_after, wait, job)
            self._waiting.append((size, future))
            futures.append(future)
        drawn_masks.clear()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        with self._stopwatch.on_clock("rle"):
            while sum(size for size, _ in self._waiting) > self._budget:
                self._waiting.popleft()[1].exception()  # the caller that requested these masks raises it
        return futures

    def _decode(
        self,
        features: ImageFeatures,
        where: torch.Tensor,
        encoded: EncodedPhrases,
        tasks: Sequence[Task],
    ) -> _Decoded:
        device = features.clip_tokens.device
        self._stopwatch.add("phrases", len(tasks))
        self._stopwatch.add("phrase_slots", self._batch.size)
        # Graphs are captured once a shape: phrases go in groups of a few sizes, the last of them padded.
        padding = [0] * (-len(tasks) % _PHRASE_STEP if self._config.compiled else 0)
        with self._stopwatch.on_device("phrase"):
            slots = to_device([task.slot for task in tasks] + padding, device)
            text = encoded.features.take(to_device([task.row for task in tasks] + padding, device))
            parts = [getattr(text, item.name) for item in fields(text)]
            answers = self._answer(features.clip_tokens, features.sam_embedding, where, slots, *parts)
            logits, predicted_iou, boxes, padded, drawn, target_pixels, signals = answers
        members = slice(len(tasks))
        scores = SquareScores(padded, drawn, to_host(target_pixels), to_host(signals))
        return _Decoded(logits[members], to_host(predicted_iou)[members], to_host(boxes)[members], scores)

    def _draw(self, geometry: Geometry, decoded: _Decoded, members: Sequence[int]) -> DrawnMasks:
        with self._stopwatch.on_device("rle"):
            some = slice(members[0], members[-1] + 1)  # the phrases of an image stand together
            return draw_masks(decoded.scores, some, geometry, self._config.square_masks)

    def _finish(
        self,
        draft: Draft,
        decoded: _Decoded,
        encoded: EncodedPhrases,
        drawn: DrawnMasks,
        members: Sequence[int],
        tasks: Sequence[Task],
    ) -> None:
        rows = torch.tensor(members)
        masks = finish_masks(
            drawn,
            [task.phrase for task in tasks],
            [encoded.truncated[task.row] for task in tasks],
            decoded.predicted_iou[rows],
            draft.geometry.clip.boxes_to_original(decoded.boxes[rows]),
            self._min_target_pixels,
        )
        for task, mask in zip(tasks, masks, strict=True):
            draft.masks[task.position] = mask

    def _masks_at_a_time(self, geometry: Geometry) -> int:
        """How many masks of an image are drawn at once: logits cut out and resized, bools, run starts."""
        each = 4 * self._model.config.sam.image_size**2 + 6 * geometry.width * geometry.height
        return max(1, self._budget // each)


def _answer(
    model: SSPSAM,
    clip_tokens: torch.Tensor,
    embedding: torch.Tensor,
    where: torch.Tensor,
    slots: torch.Tensor,
    *text: torch.Tensor,
) -> Tensors:
    """Mask logits (N, L, L), predicted IoU (N,), boxes (N, 4) and `score_squares` of N phrases, float32."""
    from sspsam.modeling.model import ImageFeatures
    from sspsam.modeling.ssp_encoder import TextFeatures

    features = TextFeatures(*text)
    prompt = model.prompt(ImageFeatures(clip_tokens, embedding), features, slots)
    logits, predicted_iou = model.decode(embedding, prompt.prompts, slots)
    logits = logits.float()
    scores = score_squares(model.config, logits, where, clip_tokens, features.sentence, slots)
    return logits, predicted_iou.float(), prompt.boxes.float(), *scores


def _after(wait: Callable[[], None] | None, job: Callable[[], None]) -> None:
    if wait is not None:
        wait()
    job()


def prefilled(phrases: Sequence[str], geometry: Geometry) -> Draft:
    """A draft with flagged masks, each to be replaced by what is drawn."""
    masks = [flagged_mask(phrase, geometry.width, geometry.height) for phrase in phrases]
    return Draft(geometry, masks)
