"""`agree`: a dataset again, with how far another one of the same images agrees with each of its masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.data_card import write_made_card
from pipeline.dataset.dataset_schema import schema_of
from pipeline.dataset.destination import Destination
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_rows import add_signals
from pipeline.stats.compare import count_images, measure, nothing_in_both, pairing, portions
from sspsam.errors import ConfigError

MANIFEST = "_agreement.json"

#: (key, place of the phrase in its image, from 0) -> agreement.
_Agreement = dict[tuple[str, int], float]


def agree(
    first: str,
    second: str,
    destination: str,
    *,
    overwrite: bool = False,
    memory_mb: int = 1024,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `first` to `destination` with `annotations[].agreement`; return its `_agreement.json`.

    Images and phrases are matched as `compare` does. Agreement is the IoU of the two masks, 0 if one of them
    has no target, 1 if neither has; null where `second` has no such phrase or image, or a mask is broken. All
    else is `first`'s, file by file. Where no shard name is in both, the numbers of all phrases are held.
    Raises ConfigError (a flag, an existing destination) or DataError (a file of either; no image in both).
    """
    options = dict(storage_options or {})
    one, two = (open_dataset(url, storage_options=options) for url in (first, second))
    if "agreement" in one.added:
        raise ConfigError(f"{first} has `agreement` already: give the dataset that it was made from")
    schema = schema_of(one.curated, (*one.added, "agreement"))
    output = Destination(destination, MANIFEST, options)
    output.begin(overwrite=overwrite, sources=[first, second])
    images: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    total = 0.0
    with pairing(one, two, memory_mb) as connection:
        for portion in portions(one, two):
            count_images(connection, one, two, portion, images, Counter())
            measure(connection, one, two, portion)
            found: _Agreement = {}
            if all(portion[0]):
                rows = connection.execute(
                    "SELECT key, place - 1, CASE targets WHEN 'neither' THEN 1.0 ELSE iou END FROM pairs"
                    " WHERE side = 'both' AND NOT broken"
                ).fetchall()
                found = {(key, place): value for key, place, value in rows}
                connection.execute("DROP TABLE pairs")
            for file in portion[0][0]:
                tables = [_with_agreement(table, found) for table in one.read_batches(file)]
                table = pa.concat_tables([schema.empty_table(), *tables])
                output.store.put_table(file.path.removeprefix(f"{one.root}/"), table)
                counts["images"] += table.num_rows
                counts["phrases"] += pc.sum(pc.list_value_length(table["annotations"])).as_py() or 0
            counts["compared"] += len(found)
            total += sum(found.values())
    if not images["both"]:
        raise nothing_in_both(one, two)
    manifest = {
        "version": 1,
        "first": one.url,
        "second": two.url,
        "images": counts["images"],
        "images_in_both": images["both"],
        "phrases": counts["phrases"],
        "phrases_compared": counts["compared"],
        "mean_agreement": total / counts["compared"] if counts["compared"] else None,
        "image_places": one.image_places.to_json(),
        "run": one.run() or None,
        "second_run": two.run() or None,
    }
    output.finish(manifest)
    write_made_card(output.store, ("sspsam", "agree", first, second, destination), manifest)
    return {"complete": True, **manifest}


def _with_agreement(table: pa.Table, found: _Agreement) -> pa.Table:
    """The rows with the field `agreement` in each of their annotations."""
    counts = pc.fill_null(pc.list_value_length(table["annotations"]), 0).to_pylist()
    values = [
        found.get((key, place), np.nan)
        for key, count in zip(table["key"].to_pylist(), counts, strict=True)
        for place in range(count)
    ]
    return add_signals(table, {"agreement": np.array(values, dtype=float)})
