"""Image-tower features of a dataset, computed once by the annotate job's replicas, for training.

The job's books are the cache's books: a row of `annotations/` an image (status `no_phrase`, since
no phrase is requested), resume, quarantine of images that kill a process, errors with their reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import ImageOps

from pipeline.annotate.annotate_config import (
    AnnotateConfig,
    ComputeConfig,
    InputConfig,
    ModelConfig,
    OutputConfig,
    PhraseConfig,
)
from pipeline.annotate.annotator import LoadSegmenter
from pipeline.annotate.job import annotate
from pipeline.annotate.run_summary import RunSummary
from pipeline.dataset.store import Store
from pipeline.evaluate.record_shards import IndexReader, write_index
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample
from sspsam.errors import DataError, SSPSAMError
from sspsam.images.decoding import decode_image
from sspsam.images.preprocess import preprocess_rgb
from sspsam.inference.results import ImageResult
from sspsam.training.feature_store import FEATURE_SCHEMA, FOLDER, feature_row
from sspsam.training.training_data import RecordData

if TYPE_CHECKING:
    from sspsam.modeling.model import SSPSAM

_IMAGES_PER_CHUNK = 64


@dataclass(frozen=True)
class Encoded(ImageResult):
    """The result of an image that was only encoded: (mirrored, tokens, embedding) each way round."""

    features: tuple[tuple[bool, torch.Tensor, torch.Tensor], ...] = ()


class TowerEncoder:
    """Stands where the job has a Segmenter: runs both image towers and draws nothing.

    Args:
        model: on its device.
        mirrored: encode each image flipped horizontally as well.
    """

    def __init__(self, model: SSPSAM, mirrored: bool) -> None:
        self.model = model
        self.timings = dict.fromkeys(
            ("decode", "image", "phrase", "rle", "images", "image_slots", "phrases", "phrase_slots"), 0.0
        )
        self._ways = (False, True) if mirrored else (False,)

    def segment_images(self, images: Sequence[bytes], phrases: Sequence[Sequence[str]]) -> list[ImageResult]:
        """The features of each image, or its error; `phrases` are not looked at."""
        return [self._encode(image) for image in images]

    @torch.inference_mode()
    def _encode(self, image: bytes) -> ImageResult:
        try:
            rgb = decode_image(image)
        except SSPSAMError as error:
            return Encoded(None, None, [], error, None)
        pictures = [ImageOps.mirror(rgb) if way else rgb for way in self._ways]
        ready = [preprocess_rgb(picture, self.model.config) for picture in pictures]
        clip_pixels = torch.stack([clip for clip, _, _ in ready]).to(self.model.device)
        sam_pixels = torch.stack([sam for _, sam, _ in ready]).to(self.model.device)
        found = self.model.encode_image(clip_pixels, sam_pixels)
        tokens, embeddings = found.clip_tokens.half().cpu(), found.sam_embedding.half().cpu()
        features = tuple(zip(self._ways, tokens, embeddings, strict=True))
        return Encoded(rgb.width, rgb.height, [], None, None, features)


@dataclass(frozen=True)
class LoadTowers(LoadSegmenter):
    """Makes a replica's `TowerEncoder`."""

    mirrored: bool = False

    def __call__(self) -> Any:
        segmenter: Any = super().__call__()
        return TowerEncoder(segmenter.model, self.mirrored)


@dataclass(frozen=True)
class KeepFeatures:
    """Hook of the job: writes a chunk's features, one row group a row, before the chunk counts as done."""

    store: Store

    def __call__(self, chunk: Chunk, phrases: list[list[Phrase]], results: list[ImageResult | None]) -> None:
        sink = pa.BufferOutputStream()
        # Random half-precision bits do not compress; reading them is all that counts.
        # Statistics of the first two columns are the reader's index.
        with pq.ParquetWriter(
            sink,
            FEATURE_SCHEMA,
            compression="none",
            use_dictionary=False,
            write_statistics=FEATURE_SCHEMA.names[:2],
        ) as file:
            for sample, result in zip(chunk.samples, results, strict=True):
                if not isinstance(result, Encoded) or result.error is not None:
                    continue
                assert result.width is not None
                assert result.height is not None
                size = (result.width, result.height)
                for mirrored, tokens, embedding in result.features:
                    row = feature_row(sample.key, mirrored, size, tokens, embedding)
                    file.write_table(pa.Table.from_pylist([row], schema=FEATURE_SCHEMA))
        name = f"{FOLDER}/{chunk.shard.name}/{chunk.index:05d}.parquet"
        self.store.put(name, sink.getvalue().to_pybytes())


def cache_features(
    data: RecordData, model: str, url: str, compute: ComputeConfig | None = None
) -> RunSummary:
    """Fill the cache at `url` with the features of all images of `data`; existing ones are kept.

    Args:
        data: what is to be trained on; with `options.flip` > 0 each image is encoded both ways round.
        model: whose image towers, as `from_pretrained` takes it.
        url: folder or URL.

    Raises:
        ConfigError: `url` holds features of another model or of other data.
        DataError: not every image is accounted for.
    """
    training, _ = data.records()
    options = dict(data.data.storage_options)
    store = Store(url, options)
    mirrored = data.options.flip > 0
    shards = write_index(store, training, data.data.split)
    run = annotate(
        AnnotateConfig(
            source=InputConfig(input=data.data.dataset, storage_options=options),
            output=OutputConfig(url, chunk_size=_IMAGES_PER_CHUNK),
            phrases=PhraseConfig(phrases=f"features:{'both' if mirrored else 'as they are'}"),
            model=ModelConfig(model),
            compute=compute or ComputeConfig(),
        ),
        shards=shards,
        reader=IndexReader(store, data.data.as_stored, options),
        phrase_source=no_phrases,
        segmenter_factory=LoadTowers(model, mirrored=mirrored),
        after_chunk=KeepFeatures(store),
    )
    if run.exit_code:
        raise DataError(f"{url}: not every image is accounted for; run the same command again")
    return run


def no_phrases(samples: list[Sample]) -> list[list[Phrase]]:
    """No phrases for any image."""
    return [[] for _ in samples]
