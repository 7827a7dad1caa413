"""Scores a chunk in the replica that computed it: per-sample rows and the truth beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pycocotools import mask as coco_mask

from pipeline.dataset.store import Store
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample
from sspsam.data import Record
from sspsam.errors import SSPSAMError
from sspsam.evaluation import SAMPLE_SCHEMA, Prediction, score_image
from sspsam.model_config import SSPSAMConfig
from sspsam.schema import ANNOTATION_SCHEMA

if TYPE_CHECKING:
    from sspsam.inference.results import ImageResult

SAMPLES = "samples"
TRUTH = "truth"


@dataclass(frozen=True)
class Scorer:
    """Hook of the annotate job: writes OUTPUT/samples and OUTPUT/truth, a file a chunk each.

    Runs before the chunk's own file is written, which is the mark that the chunk is done; running
    it again writes the same files.
    """

    store: Store
    config: SSPSAMConfig
    authors: bool

    def __call__(self, chunk: Chunk, phrases: list[list[Phrase]], results: list[ImageResult | None]) -> None:
        scored, truths = [], []
        options = dict(self.store.storage_options)
        for sample, result in zip(chunk.samples, results, strict=True):
            records = sample.columns.get("records", [])
            prediction = _prediction(sample, result)
            scored += score_image(
                records,
                prediction,
                shard=chunk.shard.name,
                image_key=sample.key,
                config=self.config,
                authors=self.authors,
                storage_options=options,
            )
            truths.append(_truth_row(sample, chunk.shard.name, records, prediction, options))
        name = f"{chunk.shard.name}/{chunk.index:05d}.parquet"
        samples = pa.Table.from_pylist(scored, schema=SAMPLE_SCHEMA)
        self.store.put_table(f"{SAMPLES}/{name}", samples)
        truth = pa.Table.from_pylist(truths, schema=ANNOTATION_SCHEMA)
        self.store.put_table(f"{TRUTH}/annotations/{name}", truth)


def _prediction(sample: Sample, result: ImageResult | None) -> Prediction:
    if result is None:
        reason = sample.error or ("not_run", "the model was not run; see the row in annotations/")
        return Prediction({}, None, None, reason)
    if result.error is not None:
        reason = (result.error.kind, str(result.error))
        return Prediction({}, result.width, result.height, reason)
    masks = {mask.phrase: mask for mask in result.masks}
    return Prediction(masks, result.width, result.height)


def _truth_row(
    sample: Sample,
    shard: str,
    records: Sequence[Record],
    prediction: Prediction,
    storage_options: dict[str, Any],
) -> dict[str, Any]:
    """The truth as an annotation row, a struct a phrase: of a phrase with two referents the first."""
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(record.phrase, record)
    width = prediction.width or (records[0].width if records else None)
    height = prediction.height or (records[0].height if records else None)
    structs = []
    if width and height:
        for record in first.values():
            try:
                structs.append(_truth_struct(record.rle(height, width, storage_options), record))
            except SSPSAMError:
                continue  # its sample row says why
    return {
        "key": sample.key,
        "shard": shard,
        "index": sample.index,
        "status": "ok" if structs else "error",
        "error": None if structs else {"kind": "no_truth", "message": "see samples/"},
        "width": width,
        "height": height,
        "annotations": structs,
        "image_ref": sample.ref,
    }


def _truth_struct(rle: dict[str, Any], record: Record) -> dict[str, Any]:
    area = int(coco_mask.area(rle))
    return {
        "phrase": record.phrase,
        "has_target": record.has_target,
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "predicted_box": list(record.box or (0.0, 0.0, 0.0, 0.0)),
        "area": area,
        "truncated": False,
    }
