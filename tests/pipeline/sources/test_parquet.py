"""Parquet: bytes and URLs, row by row, with damage confined to the rows that it hits."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.sources import ReadOptions, Shard, list_shards, read_chunks
from sspsam.errors import ConfigError
from tests.pipeline.sources.http_server import serve
from tests.pipeline.sources.shards import FAST, read

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, table: pa.Table, group: int = 10) -> Shard:
    pq.write_table(table, path, row_group_size=group, compression="zstd")
    return Shard(path.stem, str(path), "parquet", path.stat().st_size)


def images(count: int) -> list[bytes]:
    return [bytes([i % 256]) * (i % 50 + 1) for i in range(count)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 150),
    group=st.integers(1, 100),
    size=st.integers(1, 70),
    kind=st.sampled_from([pa.binary(), pa.large_binary(), IMAGE]),
    skip=st.sets(st.integers(0, 20)),
)
def test_any_layout_gives_the_same_samples(count, group, size, kind, skip, tmp_path):
    data = images(count)
    stored = [{"bytes": d, "path": None} for d in data] if kind == IMAGE else data
    table = pa.table(
        {
            "n": pa.array(range(count), pa.int64()),
            "image": pa.array(stored, kind),
            "Text": pa.array([f"caption {i}" for i in range(count)]).dictionary_encode(),
            "names": pa.array([[f"a {i}", "b"] for i in range(count)], pa.list_(pa.string())),
        }
    )
    shard = write(tmp_path / "p.parquet", table, group)
    options = ReadOptions(columns=("names",))
    samples = read(shard, size, sorted(skip), options)
    rows = [i for i in range(count) if i // size not in skip]
    assert [sample.image for sample in samples] == [data[i] for i in rows]
    assert [sample.caption for sample in samples] == [f"caption {i}" for i in rows]
    assert [sample.columns for sample in samples] == [{"names": [f"a {i}", "b"]} for i in rows]
    assert [sample.ref["member"] for sample in samples] == [str(i) for i in rows]
    assert [sample.key for sample in samples] == [f"p-{i:08d}" for i in rows]


def test_rows_with_faults(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").write_bytes(b"from path")
    stored = [
        {"bytes": b"x", "path": "anything"},
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": None},
        {"bytes": None, "path": "here.jpg"},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": bytes(99), "path": None},
        {"bytes": b"y", "path": None},
        {"bytes": b"z", "path": None},
    ]
    keys = ["a", "b", "c", "d", "e", "f", "g", "a", None]
    captions = [["one", " ", "two"], [], None, *([["c"]] * 6)]
    table = pa.table(
        {
            "image": pa.array(stored, IMAGE),
            "key": keys,
            "sentences": pa.array(captions, pa.list_(pa.string())),
        }
    )
    options = ReadOptions(max_image_bytes=50, attempts=1)
    samples = read(write(tmp_path / "p.parquet", table), options=options)
    assert [(s.key, s.error and s.error[0], s.caption) for s in samples] == [
        ("a", None, "one\ntwo"),
        ("b", "missing_image", None),
        ("c", "missing_image", None),
        ("d", "zero_size", "c"),
        ("e", None, "c"),
        ("f", "missing_image", "c"),
        ("g", "too_large", "c"),
        ("a", "duplicate_key", "c"),
        ("p-00000008", None, "c"),
    ]
    assert samples[4].image == b"from path"
    assert samples[4].ref["url"] == str(tmp_path / "here.jpg")


def test_damage_costs_the_rows_it_hits(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([bytes([i]) * 500 for i in range(40)], pa.binary())})
    path = tmp_path / "p.parquet"
    shard = write(path, table)
    column = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    samples = read(shard, 7)
    assert [s.error and s.error[0] for s in samples] == [
        "damaged_shard" if 20 <= i < 30 else None for i in range(40)
    ]
    assert "row group 2" in samples[20].error[1]

    for cut, kind in ((len(data) - 3, "truncated_shard"), (600, "truncated_shard")):
        path.write_bytes(data[:cut])
        (sample,) = read(Shard("p", str(path), "parquet", cut))
        assert sample.error[0] == kind
    path.write_bytes(b"key,image\n")
    (sample,) = read(Shard("p", str(path), "parquet"))
    assert sample.error[0] == "not_a_parquet"


def test_image_urls(tmp_path: Path) -> None:
    """Every row has its image or its reason; a fault that passes is retried, for that row alone."""
    files = {f"{i}.jpg": bytes([i + 1]) * 40 for i in range(20)}
    files |= {"empty.jpg": b"", "large.jpg": bytes(5000), "spaced name é.jpg": b"spaced"}
    with serve(files) as server:
        urls = [f"{server.url}/{i}.jpg" for i in range(20)]
        urls += [f"{server.url}/{name}.jpg" for name in ("gone", "empty", "large")]
        urls += [f"{server.url}/spaced name é.jpg", None, "", "nonsense://x", "http://[bad"]
        urls += ["http://127.0.0.1:9/refused.jpg"]
        table = pa.table({"URL": urls, "TEXT": [f"c{i}" for i in range(len(urls))]})
        shard = write(tmp_path / "laion.parquet", table)
        options = ReadOptions(attempts=2, backoff_seconds=0, fetch_threads=1, max_image_bytes=100)
        server.faults = [3, 503, 7]
        samples = read(shard, 6, options=options)
    told = [s.error and s.error[0] for s in samples]
    # The first image met two faults in two attempts; the second image one, and then came.
    assert told[0] == "fetch_failed"
    assert told[1:20] == [None] * 19
    assert [s.image for s in samples[1:20]] == [bytes([i + 1]) * 40 for i in range(1, 20)]
    assert told[20:] == [
        *("fetch_failed", "zero_size", "too_large", None, "missing_image", "missing_image"),
        *("fetch_failed", "fetch_failed", "fetch_failed"),
    ]
    assert "404" in samples[20].error[1]
    assert samples[23].image == b"spaced"
    assert samples[5].ref == {"url": urls[5], "member": None, "offset": None, "length": None}
    assert [s.caption for s in samples] == [f"c{i}" for i in range(len(urls))]


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    two = pa.table({"left": pa.array([b"x"]), "right": pa.array([b"y"]), "size": [1]})
    shard = write(path, two)
    with pytest.raises(ConfigError, match=r"--image-column.*left: binary, right: binary"):
        list_shards(str(path))
    with pytest.raises(ConfigError, match="--image-column size"):
        list_shards(str(path), image_column="size")
    with pytest.raises(ConfigError, match="--caption-column words"):
        list_shards(str(path), image_column="left", caption_column="words")
    assert len(list_shards(str(path), image_column="left")) == 1
    (sample,) = read(shard, options=ReadOptions(image_column="right"))
    assert sample.image == b"y"
    (sample,) = read(shard)
    assert sample.error[0] == "missing_column"
    (sample,) = read(shard, options=ReadOptions(image_column="left", columns=("tags",)))
    assert "column:NAME" in sample.error[1]
    (chunk,) = read_chunks(write(path, two.slice(0, 0)), 4, options=ReadOptions(image_column="left"))
    assert (chunk.samples, chunk.last) == ([], True)
    assert FAST.columns == ()
