"""A benchmark as input of the annotate job: an index of records a shard, read back chunk by chunk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import pyarrow.parquet as pq
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipeline.dataset.store import Store
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample, Shard
from pipeline.sources.storage import is_transient
from sspsam.data import Record, group_by_image
from sspsam.data.orientation import ignore_orientation
from sspsam.data.record_index import image_keys, records_table, table_records
from sspsam.errors import DataError
from sspsam.images.load_image import load_image

INDEX = "records"
IMAGES_PER_SHARD = 1024
_THREADS = 16
_ATTEMPTS = 7


def write_index(store: Store, records: Sequence[Record], split: str) -> list[Shard]:
    """Write the records under OUTPUT/records/, a file a shard of `IMAGES_PER_SHARD` images.

    The files are a function of the records, and their digest is the shard's tag: a resume with
    another benchmark is refused as one with another input.
    """
    groups = group_by_image(records)
    keys = image_keys(groups)
    shards = []
    for start in range(0, len(groups), IMAGES_PER_SHARD):
        part = slice(start, start + IMAGES_PER_SHARD)
        buffer = io.BytesIO()
        pq.write_table(records_table(groups[part], keys[part]), buffer, compression="zstd")
        data = buffer.getvalue()
        name = f"{split.replace(',', '+')}-{start // IMAGES_PER_SHARD:05d}"
        digest = hashlib.sha256(data).hexdigest()[:16]
        # The digest in the name keeps a run that is refused from touching what is there.
        path = f"{INDEX}/{name}-{digest}.parquet"
        store.put(path, data)
        shards.append(Shard(name=name, url=path, format="records", size=len(data), etag=digest))
    return shards


@dataclass(frozen=True)
class IndexReader:
    """Reads chunks of a shard that `write_index` made: encoded images, with their records.

    `storage_options` serve the images; `as_stored` ignores EXIF orientation.
    """

    store: Store
    as_stored: bool
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, shard: Shard, chunk_size: int, *, skip: Container[int] = ()) -> Iterator[Chunk]:
        data = self.store.get(shard.url)
        if data is None:
            raise DataError(f"{self.store.url}/{shard.url} is gone: run the same command again")
        table = pq.read_table(io.BytesIO(data))
        names = table.column("image_key").to_pylist()
        pairs = zip(names, table_records(table), strict=True)
        groups = [
            (name, [record for _, record in group])
            for name, group in groupby(pairs, key=lambda pair: pair[0])
        ]
        count = -(-len(groups) // chunk_size)
        with ThreadPoolExecutor(_THREADS) as pool:
            for index in range(count):
                if index in skip:
                    continue
                first = index * chunk_size
                part = groups[first : first + chunk_size]
                numbers = range(first, first + len(part))
                samples = list(pool.map(self._sample, numbers, part))
                yield Chunk(shard=shard, index=index, samples=samples, last=index == count - 1)

    def _sample(self, number: int, group: tuple[str, list[Record]]) -> Sample:
        key, records = group
        reference = asdict(records[0].image)
        image, error = None, None
        try:
            image = self._load(reference)
            if self.as_stored:
                image = ignore_orientation(image)
        except DataError as failure:
            error = ("missing_image", str(failure))
        return Sample(
            key=key,
            index=number,
            image=image,
            caption=None,
            columns={"records": records},
            ref=reference,  # type: ignore[arg-type]
            error=error,
        )

    def _load(self, reference: dict[str, Any]) -> bytes:
        """The image's bytes; requests are repeated while the store is unavailable."""
        patience = Retrying(
            retry=retry_if_exception(lambda e: e.__cause__ is not None and is_transient(e.__cause__)),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=0.5, max=15.0),
            reraise=True,
        )
        return patience(load_image, reference, dict(self.storage_options))


def record_phrases(samples: list[Sample]) -> list[list[Phrase]]:
    """The phrases of each sample's records, each once: the job's phrase source."""
    return [
        [
            Phrase(text, None, None)
            for text in dict.fromkeys(record.phrase for record in sample.columns["records"])
        ]
        for sample in samples
    ]
