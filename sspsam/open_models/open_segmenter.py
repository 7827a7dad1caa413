"""Any `OpenModel` as a replica's segmenter: decoding ahead, memory, RLE and signals around `draw`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from sspsam.errors import DataError, OutOfMemoryError, SSPSAMError
from sspsam.images.decoding import ImageInput, decode_image, difference_hash
from sspsam.images.geometry import box_iou, xywh_to_xyxy
from sspsam.inference.masks import Mask, encode_rle, flagged_mask
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.results import ImageResult, SegmenterConfig
from sspsam.inference.segmenter import TIMINGS
from sspsam.inference.stopwatch import Stopwatch
from sspsam.language.phrase_text import runnable
from sspsam.open_models.protocol import Drawing, OpenModel

_Finished = list[tuple[int, Mask]]


class OpenSegmenter:
    """Masks for images by phrases from any `OpenModel`. Calls must come from one thread at a time.

    Args:
        model: draws the masks.
        config: its `threads` decode images and encode RLE, `max_pixels` limits an image.
    """

    def __init__(self, model: OpenModel, config: SegmenterConfig | None = None) -> None:
        self.model = model
        self.config = config or SegmenterConfig()
        self._threads = ThreadPoolExecutor(self.config.threads, thread_name_prefix="sspsam")
        # A model hands out arrays, so its device has finished when it returns: the clock is right.
        self._stopwatch = Stopwatch(torch.device("cpu"), TIMINGS)

    @property
    def timings(self) -> dict[str, float]:
        """As `Segmenter.timings`; "image" is all of the model's time, its batches are always full."""
        return self._stopwatch.read()

    @torch.inference_mode()
    def segment_images(
        self, images: Sequence[ImageInput], phrases: Sequence[Sequence[str]]
    ) -> list[ImageResult]:
        """As `sspsam.Segmenter.segment_images`, image by image.

        Raises: what the model raises, but for memory that runs out; DataError if it does not keep to
            the protocol.
        """
        results: list[ImageResult] = []
        waiting: deque[tuple[ImageResult, Future[_Finished]]] = deque()
        for image, given in zip(self._decode_ahead(images), phrases, strict=True):
            if isinstance(image, SSPSAMError):
                results.append(ImageResult(None, None, [], image, None))
                continue
            picture, phash = image
            masks = [flagged_mask(phrase, *picture.size) for phrase in given]
            results.append(ImageResult(*picture.size, masks, None, phash))
            if not (asked := runnable(given)):
                continue
            drawings = self._draw(np.asarray(picture), [text for _, _, text in asked])
            if isinstance(drawings, OutOfMemoryError):
                results[-1] = ImageResult(*picture.size, [], drawings, phash)
                continue
            named = [(place, phrase) for place, phrase, _ in asked]
            waiting.append((results[-1], self._threads.submit(_finish, named, drawings)))
            self._settle(waiting, self.config.threads)
        self._settle(waiting, 0)
        return results

    def _draw(self, image: np.ndarray, texts: Sequence[str]) -> list[Drawing] | OutOfMemoryError:
        """The drawings of one image, with as many phrases a call as fit into memory."""
        self._stopwatch.add("images", 1)
        self._stopwatch.add("image_slots", 1)
        drawings: list[Drawing] = []
        with self._stopwatch.on_clock("image"):
            for part, drawn in run_halving(partial(self.model.draw, image), texts, BatchSize(len(texts))):
                if isinstance(drawn, OutOfMemoryError):
                    return drawn
                self._stopwatch.add("phrases", len(part))
                self._stopwatch.add("phrase_slots", len(part))
                _check(self.model, drawn, len(part), image.shape[:2])
                drawings += drawn
        return drawings

    def _decode(self, image: ImageInput) -> tuple[Image.Image, int]:
        picture = decode_image(image, self.config.max_pixels)
        return picture, difference_hash(picture)

    def _decode_ahead(self, images: Sequence[ImageInput]) -> Iterator[tuple[Image.Image, int] | SSPSAMError]:
        """Images in order, decoded by threads while the model draws."""
        remaining = iter(images)
        queue: deque[Future[tuple[Image.Image, int]]] = deque()
        while True:
            room = 2 * self.config.threads - len(queue)
            queue.extend(self._threads.submit(self._decode, one) for one in islice(remaining, room))
            if not queue:
                return
            ready = queue.popleft()
            with self._stopwatch.on_clock("decode"):
                error = ready.exception()
            if error is not None and not isinstance(error, SSPSAMError):
                raise error
            yield ready.result() if error is None else error

    def _settle(self, waiting: deque[tuple[ImageResult, Future[_Finished]]], limit: int) -> None:
        """Take what is encoded until at most `limit` images wait."""
        with self._stopwatch.on_clock("rle"):
            while len(waiting) > limit:
                result, finished = waiting.popleft()
                for place, mask in finished.result():
                    result.masks[place] = mask


def _check(model: OpenModel, drawn: Sequence[Drawing], count: int, size: tuple[int, ...]) -> None:
    """Raise DataError unless there are `count` masks of `size`: a wrong one would be stored as it is."""
    name = type(model).__name__
    if len(drawn) != count:
        raise DataError(f"{name}.draw gave {len(drawn)} drawings for {count} phrases: give one a phrase")
    for one in drawn:
        if one.mask.dtype != bool or one.mask.shape != size:
            raise DataError(
                f"{name}.draw gave a mask of {one.mask.dtype} {one.mask.shape}: give bool {tuple(size)},"
                " (height, width) of the image"
            )


def _finish(named: Sequence[tuple[int, str]], drawings: Sequence[Drawing]) -> _Finished:
    """Drawings as masks, each with its place among the image's phrases. Runs in a thread."""
    return [(place, _mask(phrase, one)) for (place, phrase), one in zip(named, drawings, strict=True)]


def _mask(phrase: str, drawn: Drawing) -> Mask:
    (rle,) = encode_rle(drawn.mask.T[None])
    area = int(coco_mask.area(rle))
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    agreement = None
    if area and drawn.box is not None:
        boxes = torch.tensor([[x, y, width, height], drawn.box])
        agreement = _defined(float(box_iou(*xywh_to_xyxy(boxes)[:, None])))
    return Mask(
        phrase=phrase,
        rle={"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
        area=area,
        bbox=(x, y, width, height),
        predicted_box=drawn.box,
        has_target=area > 0 if drawn.has_target is None else drawn.has_target and area > 0,
        target_pixels=None,
        score=_defined(drawn.score),
        predicted_iou=_defined(drawn.predicted_iou),
        stability=_defined(drawn.stability),
        box_agreement=agreement,
        clip_score=_defined(drawn.clip_score),
        truncated=drawn.truncated,
    )


def _defined(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
