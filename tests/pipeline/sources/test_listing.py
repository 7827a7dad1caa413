"""What the user points at becomes shards with names that are a function of the input alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import ReadOptions, folder, list_shards, listing, read_chunks
from sspsam.errors import ConfigError, DataError
from tests.pipeline.sources.shards import pairs, read, tar_bytes

TAR, _ = tar_bytes(pairs(1))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """img2dataset's layout, a nested folder, and names that need care."""
    for name in ("00000", "00001", "00002"):
        (tmp_path / f"{name}.tar").write_bytes(TAR)
        pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}_stats.json").write_text("{}")
    (tmp_path / "more" / "a b").mkdir(parents=True)
    (tmp_path / "more" / "00000.tar").write_bytes(TAR)
    (tmp_path / "more" / "a b" / "é.tgz").write_bytes(TAR)
    (tmp_path / "more" / "a_b.tar").write_bytes(TAR)
    (tmp_path / ".hidden.tar").write_bytes(TAR)
    return tmp_path


def test_names(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = list_shards(str(shards))
    names = [shard.name for shard in listed]
    assert names == sorted(names)
    assert len(set(names)) == 6
    assert {"00000", "00001", "00002"} < set(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for name in names)
    assert all(shard.format == "tar" and shard.size == len(TAR) for shard in listed)
    assert all(shard.etag for shard in listed)

    # However the same files are named, and wherever from: the same shards.
    assert list_shards(f"{shards}/") == listed
    assert list_shards(f"file://{shards}") == listed
    monkeypatch.chdir(shards.parent)
    assert list_shards(shards.name) == listed
    first = [shard for shard in listed if len(shard.name) == 5]
    assert list_shards(f"{shards}/0000[0-9].tar") == first
    assert list_shards(f"{shards}/{{00000..00002}}.tar") == first
    assert list_shards([f"{shards}/0000{i}.tar" for i in (2, 0, 1, 1)]) == first
    (shards / "urls.lst").write_text("# some\n00001.tar\n\n" + f"{shards}/00000.tar\n00002.tar\r\n")
    assert list_shards(f"{shards}/urls.lst") == first
    (one,) = list_shards(f"{shards}/00001.tar")
    assert one == first[1]

    # Two of one name, from a list: both are told apart.
    same = [f"{shards}/00000.tar", f"{shards}/more/00000.tar"]
    a, b = list_shards(same)
    assert a.name != b.name
    assert list_shards(same[::-1]) == [a, b]


def test_parquet_beside_tars(shards: Path) -> None:
    listed = list_shards(str(shards), format="parquet")
    assert [(s.name, s.format) for s in listed] == [(f"0000{i}", "parquet") for i in range(3)]
    (shards / "other.parquet").write_bytes((shards / "00000.parquet").read_bytes())
    # Beside tars, Parquet of their names is img2dataset's metadata; any other is a shard too.
    listed = list_shards(str(shards))
    assert [s.name for s in listed if s.format == "parquet"] == ["other"]
    assert sum(s.format == "tar" for s in listed) == 6


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere", "nothing there"),
        ("*.zip", "no file matches"),
        ("empty", "the folder is empty"),
        ("00000_stats.json", "--format"),
        ("one.JPG", "name its folder, or use sspsam segment"),
        ("missing.txt", "no such file"),
        ("blank.txt", "no URL in the file"),
        ("list.txt", "nothing there"),
        ("unknown.txt", "INPUT nosuch://x/y.tar: Protocol not known: nosuch; give a local path, s3://"),
    ],
)
def test_inputs_that_cannot_work(shards: Path, name: str, match: str) -> None:
    (shards / "empty").mkdir()
    (shards / "one.JPG").write_bytes(b"x")
    (shards / "blank.txt").write_text("# nothing\n")
    (shards / "list.txt").write_text("00000.tar\ngone.tar\n")
    (shards / "unknown.txt").write_text("00000.tar\nnosuch://x/y.tar\n")
    with pytest.raises(ConfigError, match=match):
        list_shards(f"{shards}/{name}")
    with pytest.raises(ConfigError, match="--format"):
        list_shards(str(shards), format="zip")


def test_storage_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAUSES_SECONDS", (0.0, 0.0))
    with pytest.raises(DataError, match=r"INPUT http://127.0.0.1:9/x.tar cannot be listed.*may be back"):
        list_shards("http://127.0.0.1:9/x.tar")


def captions_files() -> dict[str, str]:
    """The same captions in every form that is read."""
    rows = [("a.jpg", "a dog"), ("a.jpg", "a cat, sitting"), ("sub/b.png", "a car"), ("gone.jpg", "x")]
    coco = {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(("a.jpg", "sub/b.png", "gone.jpg"))],
        "annotations": [
            {"id": 9 - i, "image_id": {"a": 0, "s": 1, "g": 2}[n[0]], "caption": c}
            for i, (n, c) in enumerate(rows)
        ],
    }
    quoted = "".join(f'{name},"{caption}"\n' for name, caption in rows)
    return {
        "captions.jsonl": "".join(json.dumps({"file_name": n, "text": c}) + "\n" for n, c in rows),
        "captions.csv": "\ufeffimage,caption\n" + quoted,
        "plain.csv": quoted,
        "flickr.csv": "image_name| comment_number| comment\n" + "".join(f"{n}| 0| {c}\n" for n, c in rows),
        "captions.tsv": "filepath\ttitle\n" + "".join(f"{n}\t{c}\n" for n, c in rows),
        "coco.json": json.dumps(coco),
        "list.json": json.dumps([{"image": n, "caption": c} for n, c in rows]),
        "map.json": json.dumps(
            {"a.jpg": ["a dog", "a cat, sitting"], "b.png": "a car", "gone.jpg": {"caption": "x"}}
        ),
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.png", "_MG_1.JPG", ".c.jpg"):
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize("name", captions_files())
def test_a_folder_with_any_captions_file(photos: Path, name: str) -> None:
    (photos / name).write_text(captions_files()[name], encoding="utf-8")
    (shard,) = list_shards(str(photos))
    assert (shard.name, shard.format, shard.size) == ("photos-00000", "folder", 4)
    samples = read(shard, 3)
    assert [(s.key, s.image, s.caption, s.error and s.error[0]) for s in samples] == [
        ("_MG_1.JPG", b"_MG_1.JPG", None, None),
        ("a.jpg", b"a.jpg", "a dog\na cat, sitting", None),
        ("gone.jpg", None, "x", "missing_image"),
        ("sub/b.png", b"sub/b.png", "a car", None),
    ]
    assert samples[1].ref["url"] == str(photos)
    assert samples[3].ref["member"] == "sub/b.png"
    (chunk,) = read_chunks(shard, 3, skip={0})
    assert [sample.key for sample in chunk.samples] == ["sub/b.png"]
    assert chunk.shard.members == ()


def test_a_folder_without_captions_says_what_is_missing(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"captions\.jsonl.*--captions FILE.*--captions none"):
        list_shards(str(photos))
    (shard,) = list_shards(str(photos), captions="none")
    assert [sample.caption for sample in read(shard)] == [None] * 3
    (photos / "one.json").write_text("{}")
    (photos / "two.csv").write_text("image,caption\na.jpg,a dog\n")
    with pytest.raises(ConfigError, match=r"one\.json, two\.csv.*--captions"):
        list_shards(str(photos))
    (shard,) = list_shards(str(photos), captions="two.csv")
    assert "a dog" in [sample.caption for sample in read(shard)]
    with pytest.raises(ConfigError, match=r"--captions .*gone\.csv: no such file"):
        list_shards(str(photos), captions=str(photos / "gone.csv"))
    elsewhere = photos.parent / "else.jsonl"
    for text, match in (
        ('{"caption": "x"}', "line 1: no field names the image"),
        ("[1]", "line 1: a list"),
        ("{", "line 1: "),
    ):
        elsewhere.write_text(text)
        with pytest.raises(ConfigError, match=match):
            list_shards(str(photos), captions=str(elsewhere))
    coco = {"images": [], "annotations": [{"image_id": 1}]}
    (photos / "captions.json").write_text(json.dumps(coco))
    with pytest.raises(ConfigError, match="COCO"):
        list_shards(str(photos))


def test_output_among_the_images_is_no_input(photos: Path) -> None:
    """What `annotate photos photos/masks` and `report` leave behind changes nothing for the next run."""
    (photos / "captions.csv").write_text("image,caption\na.jpg,a dog\n")
    before = list_shards(str(photos))
    chunk = photos / "masks" / "annotations" / "photos-00000" / "00000.parquet"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"PAR1")
    for name in ("_run.json", "report.png", "_shards.tar"):
        (photos / "masks" / name).write_text("{}")
    assert list_shards(str(photos)) == before
    # Named itself, a dataset is input like any other: its rows may hold images.
    (shard,) = list_shards(str(photos / "masks" / "annotations"))
    assert (shard.format, shard.url) == ("parquet", str(chunk))


def test_a_large_folder_is_split(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "IMAGES_PER_SHARD", 10)
    with (photos / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "caption"])
        for i in range(25):
            (photos / f"{i:03d}.webp").write_bytes(bytes([i + 1]))
            writer.writerow([f"{i:03d}.webp", f"line\n{i}"])
    shards = list_shards(str(photos))
    assert [(s.name, s.size) for s in shards] == [
        *((f"photos-0000{i}", 10) for i in range(2)),
        ("photos-00002", 8),
    ]
    samples = [sample for shard in shards for sample in read(shard, 4, options=ReadOptions())]
    assert [s.caption for s in samples[:25]] == [f"line\n{i}" for i in range(25)]
    assert [s.image for s in samples[:25]] == [bytes([i + 1]) for i in range(25)]
    tags = [shard.etag for shard in shards]
    (photos / "015.webp").write_bytes(b"changed")
    again = [shard.etag for shard in list_shards(str(photos))]
    assert [a == b for a, b in zip(tags, again, strict=True)] == [True, False, True]
