"""Images and phrases in, masks out: decoding, batching, memory and threads around the model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from sspsam.errors import EmptyPhraseError, OutOfMemoryError, SSPSAMError
from sspsam.images.decoding import ImageInput, decode_reduced, difference_hash
from sspsam.images.preprocess import ResizedImage, WholeImage, to_send
from sspsam.inference.drafts import Draft, Task
from sspsam.inference.masks import Mask
from sspsam.inference.memory import BatchSize, run_halving
from sspsam.inference.phrase_batches import PhraseRunner, prefilled
from sspsam.inference.results import ImageResult, PhraseMaps, SegmenterConfig
from sspsam.inference.stopwatch import Stopwatch
from sspsam.inference.text_cache import TextCache
from sspsam.language.phrase_text import clean_phrase, runnable

if TYPE_CHECKING:
    from sspsam.modeling.compiled_towers import CompiledTowers
    from sspsam.modeling.model import SSPSAM, ImageFeatures

#: What `Segmenter.timings` holds. Seconds: "decode" that the model waited for decoded images, "image" of
#: the image towers, "phrase" of text, prompts and mask decoder, "rle" of upsampling, signals and RLE.
#: Counts: members and slots of image and phrase batches; their quotients are the batches' occupancy.
TIMINGS = ("decode", "image", "phrase", "rle", "images", "image_slots", "phrases", "phrase_slots")


#: Pixels of an image up to which CUDA resizes it. Some three batches of them wait in page-locked memory.
RESIZED_ON_CUDA = 2**22

#: Batches between their first pixel and their last RLE: one in the towers, one before them, one in the
#: mask decoder, one being encoded.
_BATCHES_UNDER_WAY = 4


@dataclass(frozen=True)
class _Prepared:
    """One decoded image as it goes to the device."""

    pixels: ResizedImage | WholeImage
    phash: int


@dataclass(frozen=True)
class _Asked:
    """The phrases of an image that can be run, and where their masks go."""

    draft: Draft
    phrases: list[tuple[int, str, str]]  # (position in the caller's list, as given, cleaned)


#: An image that is ready for the model, and what is asked of it.
_Job: TypeAlias = tuple[_Prepared, _Asked]


class Segmenter:
    """Masks for images by phrases, at the speed of the model.

    Each image runs once through the image towers and each distinct phrase once through the text tower,
    however they are combined. Four stages work at once, each on its own batch: threads decode and resize,
    one thread runs the image towers, one the phrases' part of the model, threads encode RLE. Calls may
    come from several threads: the images of the next call are decoded while the last one's are finished,
    and a batch never holds images of two calls, so that what a call gives depends on nothing else, but for
    the last bits of a phrase's text features, which stay as they were in the first batch that asked.

    Args:
        model: in evaluation mode, on its device.
        config: batches, threads and limits.
    """

    #: Whether `segment_images` may be called again, from another thread, before the last call returned.
    overlapping_calls = True

    def __init__(self, model: SSPSAM, config: SegmenterConfig | None = None) -> None:
        self.model = model
        self.config = config or SegmenterConfig()
        self._decoders = ThreadPoolExecutor(self.config.threads, thread_name_prefix="sspsam-decode")
        # One thread each: the device's work stays in order, and OpenMP keeps one team of threads for it.
        self._towers = ThreadPoolExecutor(1, thread_name_prefix="sspsam-towers")
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="sspsam-phrases")
        self._turn = threading.Lock()  # of the call whose batches are handed to the towers
        self._stopwatch = Stopwatch(model.device, TIMINGS)
        self._batch = BatchSize(self.config.images_per_batch)
        self._text = TextCache(model, self.config.cached_phrases, BatchSize(self.config.phrases_per_batch))
        self._phrases = PhraseRunner(model, self.config, self._stopwatch)
        self._compiled: CompiledTowers | None = None
        if self.config.compiled:
            from sspsam.modeling.compiled_towers import CompiledTowers

            self._compiled = CompiledTowers(model, self._batch.size)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds and counts since the start or the last `reset_timings`; see `TIMINGS`."""
        return self._stopwatch.read()

    def reset_timings(self) -> None:
        """Start `timings` from zero."""
        self._stopwatch.reset()

    def warm_up(self) -> None:
        """Run a batch of blank images: compiles, captures, shrinks batches that do not fit into memory."""
        blank = np.zeros((64, 64, 3), np.uint8)
        self.segment([blank] * self._batch.size, [["a thing"]] * self._batch.size)
        self.reset_timings()

    def segment(self, images: Sequence[ImageInput], phrases: Sequence[Sequence[str]]) -> list[list[Mask]]:
        """Masks of each image, one a phrase, in the order given.

        Args:
            images: PIL images, uint8 HWC arrays or encoded bytes, in any mixture.
            phrases: a list of phrases for each image.

        Raises:
            EmptyPhraseError: before anything is run, if a phrase has nothing to look for.
            ImageError, OutOfMemoryError: the first that an image gave; `segment_images` goes on.
        """
        _check_arguments(images, phrases)
        for index, asked in enumerate(phrases):
            for phrase in asked:
                try:
                    clean_phrase(phrase)
                except EmptyPhraseError as error:
                    raise EmptyPhraseError(f"image {index}: {error}") from error
        results = self.segment_images(images, phrases)
        for index, result in enumerate(results):
            if result.error is not None:
                raise type(result.error)(f"image {index}: {result.error}") from result.error
        return [result.masks for result in results]

    def segment_images(
        self, images: Sequence[ImageInput], phrases: Sequence[Sequence[str]]
    ) -> list[ImageResult]:
        """Like `segment`, but what cannot be used gives a result that says so, and the rest goes on.

        A phrase with nothing to look for gives an empty mask whose `predicted_iou` is None. An image
        without phrases is decoded (size, hash) and not run.
        """
        _check_arguments(images, phrases)
        prepared: list[tuple[Draft, int] | SSPSAMError] = []
        jobs: list[_Job] = []
        under_way: deque[Future[list[Future[list[Future[None]]]]]] = deque()
        ahead = _Ahead(self._decoders, self._prepare, images, 2 * self._batch.size + self.config.threads)
        with self._turn:
            for given in phrases:
                with self._stopwatch.on_clock("decode"):
                    image = ahead.take()
                if isinstance(image, SSPSAMError):
                    prepared.append(image)
                    continue
                draft = prefilled(given, image.pixels.geometry)
                prepared.append((draft, image.phash))
                if asked := runnable(given):
                    jobs.append((image, _Asked(draft, asked)))
                if len(jobs) >= self._batch.size:
                    under_way.append(self._towers.submit(self._encode, jobs))
                    jobs = []
                while len(under_way) >= _BATCHES_UNDER_WAY:
                    _finish(under_way.popleft())
            if jobs:
                under_way.append(self._towers.submit(self._encode, jobs))
        while under_way:
            _finish(under_way.popleft())
        return [_result(one) for one in prepared]

    @torch.inference_mode()
    def explain(self, image: ImageInput, phrases: Sequence[str]) -> list[PhraseMaps]:
        """The maps behind the masks of one image: CLIP, text tower and SSP encoder, without SAM.

        Raises: as `segment`.
        """
        from sspsam.modeling.model import ImageFeatures

        prepared = self._prepare(image).pixels
        tokens = self.model.encode_clip(self.model.squares(self.model.received([prepared]))[0])
        index = torch.zeros(1, dtype=torch.long, device=self.model.device)
        maps = []
        for phrase in phrases:
            text = clean_phrase(phrase)
            features = self._text.encode([text]).features
            # SAM's part of the image features is not looked at.
            prompt = self.model.prompt(ImageFeatures(tokens, tokens), features, index)
            words = self.model.tokenizer.words(text)[1:-1]
            attention = prompt.word_attention[0, 1 : 1 + len(words)].cpu().tolist()
            similarity, gate = prompt.similarity[0].float().cpu(), prompt.gate[0].float().cpu()
            maps.append(PhraseMaps(phrase, prepared.geometry, similarity, gate, words, attention))
        return maps

    def _prepare(self, image: ImageInput) -> _Prepared:
        side = self.model.config.sam.image_size if self.config.decode == "reduced" else None
        decoded = decode_reduced(image, self.config.max_pixels, side)
        on_cuda, most = self.model.device.type == "cuda", self.config.device_resize_pixels
        most = (RESIZED_ON_CUDA if on_cuda else 0) if most is None else most
        return _Prepared(to_send(decoded, self.model.config, most, on_cuda), difference_hash(decoded.rgb))

    @torch.inference_mode()
    def _encode(self, jobs: Sequence[_Job]) -> list[Future[list[Future[None]]]]:
        """A batch of images through both towers; returns what its phrases' part returns, once that is run."""
        decoding = []
        for part, encoded in run_halving(self._encode_images, jobs, self._batch):
            asked = [one for _, one in part]
            if isinstance(encoded, OutOfMemoryError):
                asked[0].draft.error = encoded
            else:
                decoding.append(self._decoder.submit(self._decode, asked, *encoded))
        return decoding

    def _encode_images(self, jobs: Sequence[_Job]) -> tuple[list[ResizedImage], ImageFeatures]:
        from sspsam.modeling.model import ImageFeatures

        self._stopwatch.add("images", len(jobs))
        self._stopwatch.add("image_slots", self._batch.size)
        with self._stopwatch.on_device("image"):
            images = self.model.received([image.pixels for image, _ in jobs])
            pixels = self.model.squares(images)
            if self._compiled is None:
                return images, self.model.encode_image(*pixels)
            self._compiled.slots = self._batch.size
            return images, ImageFeatures(*self._compiled(*pixels))

    @torch.inference_mode()
    def _decode(
        self, asked: Sequence[_Asked], images: Sequence[ResizedImage], features: ImageFeatures
    ) -> list[Future[None]]:
        """The phrases of a batch of images; returns the RLE that is being made."""
        texts = list(dict.fromkeys(text for one in asked for _, _, text in one.phrases))
        rows = {text: row for row, text in enumerate(texts)}
        try:
            with self._stopwatch.on_device("phrase"):
                encoded = self._text.encode(texts)
        except OutOfMemoryError as error:
            for one in asked:
                one.draft.error = error
            return []
        tasks = [
            Task(slot, position, phrase, rows[text])
            for slot, one in enumerate(asked)
            for position, phrase, text in one.phrases
        ]
        return self._phrases.run([one.draft for one in asked], features, encoded, tasks, images)


class _Ahead:
    """Images in order, prepared by threads up to `window` ahead of who takes them, from the start on."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        prepare: Callable[[ImageInput], _Prepared],
        images: Sequence[ImageInput],
        window: int,
    ) -> None:
        self._futures = (threads.submit(prepare, image) for image in images)
        self._queue = deque(islice(self._futures, window))

    def take(self) -> _Prepared | SSPSAMError:
        """The next one, or why it cannot be used."""
        ready = self._queue.popleft()
        self._queue.extend(islice(self._futures, 1))
        error = ready.exception()
        if error is None or isinstance(error, SSPSAMError):
            return ready.result() if error is None else error
        raise error


def _finish(batch: Future[list[Future[list[Future[None]]]]]) -> None:
    """Wait until a batch's masks are encoded; raises what any of its stages raised."""
    for decoding in batch.result():
        for encoding in decoding.result():
            encoding.result()


def _check_arguments(images: Sequence[ImageInput], phrases: Sequence[Sequence[str]]) -> None:
    if isinstance(images, str | bytes) or isinstance(phrases, str):
        raise TypeError("give a list of images and, for each, a list of phrases")
    if len(images) != len(phrases):
        raise ValueError(f"{len(images)} images, but phrases for {len(phrases)}")
    for index, asked in enumerate(phrases):
        wrong = [phrase for phrase in asked if not isinstance(phrase, str)]
        if isinstance(asked, str) or wrong:
            found = repr(asked if isinstance(asked, str) else wrong[0])
            raise TypeError(f"image {index}: give a list of strings as phrases, not {found}")


def _result(prepared: tuple[Draft, int] | SSPSAMError) -> ImageResult:
    if isinstance(prepared, SSPSAMError):
        return ImageResult(None, None, [], prepared, None)
    draft, phash = prepared
    masks = [] if draft.error else draft.masks
    if draft.signals:
        masks = [replace(mask, verification=draft.signals.get(i, {})) for i, mask in enumerate(masks)]
    return ImageResult(draft.geometry.width, draft.geometry.height, masks, draft.error, phash)
