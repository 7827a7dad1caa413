"""Every form of reference gives back exactly the bytes that were annotated."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspsam.errors import DataError
from sspsam.images.load_image import load_image

IMAGES = [bytes([i]) * (500 + 13 * i) for i in range(7)]


def tar_bytes(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for i, data in enumerate(IMAGES):
            entry = tarfile.TarInfo(f"0000{i}.jpg")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def ref(url: str, member: str | None = None, offset: int | None = None, length: int | None = None):
    return {"url": url, "member": member, "offset": offset, "length": length}


def test_tars(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "a.tar", tmp_path / "a.tar.gz"
    plain.write_bytes(tar_bytes("w"))
    zipped.write_bytes(tar_bytes("w:gz"))
    store = fsspec.filesystem("memory")
    store.pipe("/shards/a.tar", tar_bytes("w"))
    with tarfile.open(plain) as tar:
        members = tar.getmembers()
    for i, entry in enumerate(members):
        for url in (str(plain), plain.as_uri(), "memory://shards/a.tar"):
            place = (entry.offset_data, entry.size)
            assert load_image(ref(url, entry.name, *place)) == IMAGES[i]
            assert load_image(ref(url, entry.name)) == IMAGES[i]
        assert load_image(ref(str(zipped), entry.name)) == IMAGES[i]
    with pytest.raises(DataError, match="no such member"):
        load_image(ref(str(zipped), "absent.jpg"))
    with pytest.raises(DataError, match="was the tar replaced"):
        load_image(ref(str(plain), "x", plain.stat().st_size - 5, 100))
    zipped.write_bytes(zipped.read_bytes()[:60])
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        load_image(ref(str(zipped), "00006.jpg"))
    store.rm("/shards", recursive=True)


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "p.jpg").write_bytes(IMAGES[0])
    structs = [{"bytes": data, "path": None} for data in IMAGES[:-1]]
    structs.append({"bytes": None, "path": "pictures/p.jpg"})
    tables = {
        "struct": pa.table({"text": ["t"] * 7, "image": structs}),
        "binary": pa.table({"thumb": IMAGES[::-1], "jpg": IMAGES}),
        "large": pa.table({"data": pa.array(IMAGES, pa.large_binary())}),
    }
    for name, table in tables.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=3)
        for row in range(6):
            assert load_image(ref(str(path), str(row))) == IMAGES[row]
        with pytest.raises(DataError, match="no row 7"):
            load_image(ref(str(path), "7"))
        with pytest.raises(DataError, match="row number"):
            load_image(ref(str(path), "seven"))
    assert load_image(ref(str(tmp_path / "struct.parquet"), "6")) == IMAGES[0]
    path = tmp_path / "binary.parquet"
    assert load_image(ref(str(path), "0"), image_column="thumb") == IMAGES[6]
    pq.write_table(pa.table({"jpg": IMAGES[::-1]}), path)
    assert load_image(ref(str(path), "0")) == IMAGES[6]  # a replaced file is not remembered
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(DataError, match="text \\(string\\)"):
        load_image(ref(str(path), "0"))


def test_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.jpg").write_bytes(IMAGES[3])
    assert load_image(ref(str(tmp_path), "sub/a b.jpg")) == IMAGES[3]
    assert load_image(ref(str(tmp_path) + "/", "sub/a b.jpg")) == IMAGES[3]
    assert load_image(ref(str(tmp_path / "sub" / "a b.jpg"))) == IMAGES[3]
    with pytest.raises(DataError, match="was the input moved"):
        load_image(ref(str(tmp_path), "sub/absent.jpg"))
    with pytest.raises(DataError, match="image_ref"):
        load_image({"url": None})
    with pytest.raises(DataError, match="nosuch"):
        load_image(ref("nosuch://x/y.jpg"))
