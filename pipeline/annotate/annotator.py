"""Batches of images through a model: `LoadSegmenter` loads it, `Annotator` is the class for `map_batches`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pipeline.annotate.rows import Reason, annotation_struct, clip, reason_of
from pipeline.phrases import Phrase
from sspsam.errors import SSPSAMError
from sspsam.schema import ANNOTATION_TYPE, ERROR_TYPE

if TYPE_CHECKING:
    from sspsam.inference.results import ImageResult
    from sspsam.open_models.protocol import PhraseSegmenter

#: Images a batch on CUDA; the warm-up of a replica halves it until a batch fits into memory.
_IMAGES_ON_CUDA = 16

SegmenterFactory = Callable[[], "PhraseSegmenter"]


@dataclass(frozen=True)
class LoadSegmenter:
    """Loads the model from where it is stored; travels to the replicas in place of its weights.

    `sha256`: what the weights file must have; `threads`: torch's, on a CPU; `vocabulary`: phrases asked of
    every image, whose text features are all kept; `square_masks`, `max_pixels`, `decode`, `verify`: of
    SegmenterConfig; `home`: the folder that a relative `model` is of, unless the replica's node has none
    there; `options`: of a model that is not SSP-SAM (`sspsam.open_models`); `compiled`: of SegmenterConfig,
    on CUDA with `fast_float32`; None: where the device is CUDA.
    """

    model: str
    device: str | None = None
    sha256: str | None = None
    threads: int | None = None
    vocabulary: int = 0
    square_masks: bool = False
    home: str = dataclasses.field(default_factory=os.getcwd)
    max_pixels: int | None = None
    decode: Literal["exact", "reduced"] = "exact"
    verify: Literal["none", "fast", "full"] = "none"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    compiled: bool | None = None

    def __call__(self) -> PhraseSegmenter:
        import torch

        from sspsam import SSPSAM
        from sspsam.checkpoint import located_model
        from sspsam.inference.results import SegmenterConfig
        from sspsam.inference.segmenter import Segmenter
        from sspsam.modeling.precision import fast_float32
        from sspsam.open_models.named import is_open_model, named_model

        if self.threads:
            torch.set_num_threads(self.threads)
        usual = SegmenterConfig()
        usual = dataclasses.replace(usual, max_pixels=self.max_pixels or usual.max_pixels)
        if is_open_model(self.model):
            return named_model(self.model, self.options, self.home).load(self.device, usual, self.sha256)
        model = located_model(self.model, self.home)
        loaded = SSPSAM.from_pretrained(model, device=self.device, sha256=self.sha256)
        on_cuda = loaded.device.type == "cuda"
        compiled = on_cuda if self.compiled is None else self.compiled
        if compiled and on_cuda:
            fast_float32()
        segmenter = Segmenter(
            loaded,
            dataclasses.replace(
                usual,
                images_per_batch=_IMAGES_ON_CUDA if on_cuda else usual.images_per_batch,
                cached_phrases=max(usual.cached_phrases, self.vocabulary),
                square_masks=self.square_masks,
                decode=self.decode,
                verify=self.verify,
                compiled=compiled,
            ),
        )
        if compiled:
            segmenter.warm_up()
        return segmenter


class Annotator:
    """Draws masks for batches of images; hand the class to Ray Data, each actor loads one model::

        ds.map_batches(
            pipeline.Annotator,
            fn_constructor_kwargs={"model": "tiny"},
            compute=ray.data.ActorPoolStrategy(size=4),
            batch_size=16,
            num_gpus=1,
            batch_format="pyarrow",
        )

    Args:
        model: as `SSPSAM.from_pretrained` takes it, or another open model as `--model` takes it.
        model_options: of another open model.
        device: cpu, cuda or mps; None takes the best there is.
        image_column: encoded bytes, or the Hugging Face struct<bytes, path>.
        phrase_column: lists of phrases, or one phrase an image.
        segmenter_factory: makes the segmenter instead of `model`, `model_options` and `device`.
    """

    def __init__(
        self,
        model: str = "tiny",
        *,
        model_options: Mapping[str, Any] | None = None,
        device: str | None = None,
        image_column: str = "image",
        phrase_column: str = "phrases",
        segmenter_factory: SegmenterFactory | None = None,
    ) -> None:
        self._segmenter = (segmenter_factory or LoadSegmenter(model, device, options=model_options or {}))()
        self._image_column = image_column
        self._phrase_column = phrase_column

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with columns `width`, `height`, `annotations` and `error` added (see the schema).

        An image that cannot be used has an `error` and no annotations; the others are unaffected.
        """
        phrases = [
            [Phrase(text, None, None) for text in ([given] if isinstance(given, str) else given or [])]
            for given in batch[self._phrase_column].to_pylist()
        ]
        images = [
            image["bytes"] if isinstance(image, dict) else image
            for image in batch[self._image_column].to_pylist()
        ]
        results = segment_images(self._segmenter, images, phrases)
        structs: list[list[dict[str, Any]]] = []
        errors: list[dict[str, str] | None] = []
        for asked, outcome in zip(phrases, results, strict=True):
            reason = outcome if isinstance(outcome, tuple) else _error_of(outcome)
            errors.append({"kind": reason[0], "message": clip(reason[1])} if reason else None)
            masks = [] if reason or isinstance(outcome, tuple) else outcome.masks
            structs.append([annotation_struct(p, m) for p, m in zip(asked, masks, strict=False)])
        columns = {
            "width": pa.array([getattr(r, "width", None) for r in results], pa.int32()),
            "height": pa.array([getattr(r, "height", None) for r in results], pa.int32()),
            "annotations": pa.array(structs, pa.list_(ANNOTATION_TYPE)),
            "error": pa.array(errors, ERROR_TYPE),
        }
        for name, values in columns.items():
            batch = batch.append_column(name, values)
        return batch


def _error_of(result: ImageResult) -> Reason | None:
    return None if result.error is None else reason_of(result.error)


def segment_images(
    segmenter: PhraseSegmenter, images: Sequence[Any], phrases: Sequence[Sequence[Phrase]]
) -> list[ImageResult | Reason]:
    """`segmenter.segment_images`; an error of the whole call is pinned to the images that cause it."""
    if not images:
        return []
    texts = [[phrase.text for phrase in asked] for asked in phrases]
    try:
        return list(segmenter.segment_images(images, texts))
    except Exception as error:
        if _device_is_lost(error):
            # No later call in this process can succeed; a new one may. The ledger counts it.
            print(f"the GPU's context is lost: {error}", file=sys.stderr, flush=True)
            os._exit(70)
        if len(images) == 1:
            return [reason_of(error)]
        return [
            segment_images(segmenter, [image], [asked])[0]
            for image, asked in zip(images, phrases, strict=True)
        ]


def _device_is_lost(error: BaseException) -> bool:
    text = str(error)
    lost = "CUDA error" in text or "device-side assert" in text
    return lost and not isinstance(error, SSPSAMError) and "out of memory" not in text
