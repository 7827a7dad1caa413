"""Every reader that people use takes an OUTPUT as it is, images without annotations among it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.annotate.chunk_receipt import chunk_name
from pipeline.annotate.chunk_writer import Writer
from pipeline.annotate.rows import annotation_row, count_rows, rows_table
from pipeline.annotate.seal import seal_shard
from pipeline.annotate.shard_receipt import ShardReceipt
from pipeline.dataset.store import Store
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample, Shard
from sspsam import SSPSAM
from sspsam.errors import DataError
from sspsam.inference.segmenter import Segmenter
from tests.pipeline.annotate.inputs import picture


def sample(index: int, error: tuple[str, str] | None = None) -> Sample:
    ref = {"url": "in.tar", "member": f"{index}.jpg", "offset": 512, "length": 10}
    image = None if error else picture(index)
    return Sample(f"{index:03d}", index, image, "a dog", {}, ref, error)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def output(micro_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed shard of three chunks: annotations; only errors and images without phrases; no rows."""
    folder = tmp_path_factory.mktemp("dataset")
    segmenter = Segmenter(SSPSAM.from_pretrained(micro_model, device="cpu"))
    asked = [Phrase("dog", 2, 5), Phrase("cat")]
    (drawn,) = segmenter.segment_images([picture(0)], [["dog", "cat"]])
    bad = ("not_an_image", "no decoder knows these bytes")
    tables = [
        [annotation_row(sample(0), "s", asked, drawn, None, embed_image=True)],
        [
            annotation_row(sample(1, bad), "s", [], None, bad, embed_image=True),
            annotation_row(sample(2), "s", [], drawn, None, embed_image=False),
        ],
        [],
    ]
    writer = Writer(Store(str(folder)), run="{}")
    shard = Shard("s", "/in/s.tar", "tar")
    for number, found in enumerate(tables):
        chunk = Chunk(shard=shard, index=number, samples=[], last=number == 2)
        receipt = writer.write(chunk, rows_table(found), {"read_seconds": 0.5})
        assert receipt.samples == len(found)
        assert receipt.notes["read_seconds"] == 0.5
    shutil.copytree(folder / "_chunks", folder / "_kept")
    seal_shard(Store(str(folder)), "s", 3)
    return folder


def test_pyarrow_duckdb_pandas_polars_and_datasets_read_it(output: Path) -> None:
    import datasets
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as pads

    folder, glob = output / "annotations", f"{output}/annotations/*/*.parquet"
    by_arrow = pads.dataset(folder).to_table().to_pylist()
    by_duckdb = duckdb.sql(f"SELECT * FROM '{glob}' ORDER BY key").to_arrow_table().to_pylist()
    by_pandas = pd.read_parquet(folder).sort_values("key")
    by_polars = pl.read_parquet(folder).sort("key").to_dicts()
    by_datasets = datasets.load_dataset(
        "parquet", data_files=glob, split="train", cache_dir=str(output / "_cache")
    )
    assert [row["key"] for row in by_arrow] == ["000", "001", "002"]
    assert by_duckdb == by_arrow
    assert by_pandas["status"].tolist() == ["ok", "error", "no_phrase"]
    assert [len(found) for found in by_pandas["annotations"]] == [2, 0, 0]
    assert by_polars[0]["annotations"][0]["segmentation"]["size"] == [80, 96]
    assert [row["annotations"] for row in by_polars[1:]] == [[], []]
    assert by_datasets["key"][:] == ["000", "001", "002"]
    assert by_datasets[0]["annotations"][1]["phrase"] == "cat"
    assert by_datasets[2]["error"]["kind"] == "no_phrase_found"
    found = duckdb.sql(f"SELECT unnest(annotations).score AS score FROM '{glob}'").fetchall()
    assert len(found) == 2


def test_a_shard_is_counted_from_its_files(output: Path, tmp_path: Path) -> None:
    store = Store(str(output))
    receipt = ShardReceipt.from_json(store.get("_shards/s.json") or b"", "s.json")
    assert (receipt.samples, receipt.ok, receipt.no_phrase, receipt.error) == (3, 1, 1, 1)
    assert receipt.error_chunks == {"1": {"not_an_image": 1}}
    with pytest.raises(DataError, match=r"t/00000.parquet is missing"):
        seal_shard(store, "t", 1)
    # A file that is not what its receipt says: chunk 0 in the place of chunk 1.
    shutil.copytree(output / "_kept", tmp_path / "_chunks")
    shutil.copy(tmp_path / chunk_name("s", 0), tmp_path / chunk_name("s", 1))
    with pytest.raises(DataError, match=r"it is chunk 0 of s, last: False\); they are computed again"):
        seal_shard(Store(str(tmp_path)), "s", 3)
    assert not (tmp_path / chunk_name("s", 1)).exists()


def test_counts_come_from_the_rows() -> None:
    bad = ("zero_size", "no bytes")
    table = rows_table(
        [annotation_row(sample(n, bad), "s", [], None, bad, embed_image=False) for n in range(3)]
    )
    counted = count_rows(table)
    assert counted == {
        **{"samples": 3, "ok": 0, "no_phrase": 0, "language": 0, "error": 3, "phrases": 0, "masks": 0},
        "kinds": {"zero_size": 3},
    }
