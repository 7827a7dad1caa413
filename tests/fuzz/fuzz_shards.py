"""Hostile shards, captions files and images."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.sources import Shard, list_shards
from sspsam.images.decoding import decode_reduced
from tests.fuzz.corpus import MAX_PIXELS
from tests.fuzz.mutations import spoil_bytes, spoil_text, spoil_tree
from tests.fuzz.verdicts import FindingError, judged
from tests.pipeline.annotate.inputs import picture, sample_members
from tests.pipeline.sources.shards import FAST, read, tar_bytes

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")


def _samples(shard: Shard, whole: int) -> None:
    """Read a shard to its end: each sample is an image or a reason, and a cut one says so."""
    samples = read(shard, options=FAST)
    for sample in samples:
        if sample.image is not None:
            judged(lambda data=sample.image: decode_reduced(data, MAX_PIXELS, 64))
        elif not (sample.error and sample.error[0] and sample.error[1]):
            raise FindingError(f"sample {sample.key} has no image and no reason")
    if len(samples) < whole and not any(sample.error for sample in samples):
        raise FindingError(f"{len(samples)} of {whole} samples, and no reason")


def tar(rng: random.Random, folder: Path) -> None:
    members = [
        *sample_members(0, 5),
        ("a.json", b'{"caption": "x", "n": 1}'),
        ("a.png", picture(9, (8, 8), "PNG")),
    ]
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    if form != tarfile.USTAR_FORMAT:
        members.append(("long/" * 40 + "ä.jpg", picture(3, (8, 8))))
    rng.shuffle(members)
    data, _ = tar_bytes(members, form)
    packed = rng.random() < 0.3
    if rng.random() < 0.3:  # a cut is always told
        cut = rng.randrange(len(data) - 1024)
        data, whole = gzip.compress(data)[:-9] if packed else data[:cut], 6
    else:
        data = gzip.compress(spoil_bytes(data, rng), 1) if rng.random() < 0.5 else spoil_bytes(data, rng)
        packed, whole = data[:2] == b"\x1f\x8b", 0
    path = folder / ("x.tar.gz" if packed else "x.tar")
    path.write_bytes(data)
    _samples(Shard("x", str(path), "tar", len(data)), whole)


def parquet(rng: random.Random, folder: Path) -> None:
    rows = {
        "key": [f"k{n}" for n in range(9)],
        "image": [picture(n, (16, 16)) for n in range(9)],
        "caption": [f"a dog {n}" for n in range(9)],
    }
    sink, table = io.BytesIO(), pa.table(rows)
    pq.write_table(table, sink, row_group_size=4, compression=rng.choice(("snappy", "zstd", "none", "gzip")))
    path = folder / "x.parquet"
    path.write_bytes(spoil_bytes(sink.getvalue(), rng))
    _samples(Shard("x", str(path), "parquet", path.stat().st_size), 0)


def captions(rng: random.Random, folder: Path) -> None:
    names = [f"{n}.jpg" for n in range(4)]
    for name in names:
        (folder / name).write_bytes(picture(1, (8, 8)))
    entries: Any = [{"file_name": name, "caption": f"a dog on {name}"} for name in names]
    ending = rng.choice((".jsonl", ".csv", ".json", ".tsv"))
    if ending == ".json" and rng.random() < 0.5:
        images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
        entries = {"images": images, "annotations": [{"image_id": n, "caption": "a cat"} for n in range(4)]}
    if ending == ".json":
        data = json.dumps(spoil_tree(entries, rng)).encode()
    elif ending == ".jsonl":
        data = "\n".join(map(json.dumps, spoil_tree(entries, rng))).encode()
    else:
        data = "\n".join(
            ["file_name,caption", *(f'{e["file_name"]},"{e["caption"]}"' for e in entries)]
        ).encode()
    (folder / f"captions{ending}").write_bytes(spoil_text(data, rng) if rng.random() < 0.6 else data)
    shards = judged(lambda: list_shards(str(folder)), str(folder), "--captions") or []
    for shard in shards:
        _samples(shard, 0)


def _encoded(rng: random.Random) -> bytes:
    form = rng.choice(_FORMATS)
    sink = io.BytesIO()
    drawn = Image.open(io.BytesIO(picture(rng.randrange(8), (96, 80))))
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "LA", "I;16", "1"), "GIF": ("P", "L")}
    modes["TIFF"] = ("RGB", "RGBA", "CMYK", "I;16", "F", "1", "LAB")
    mode = rng.choice(modes.get(form, ("RGB",)))
    drawn = drawn.convert("L").convert(mode) if mode in ("I;16", "F") else drawn.convert(mode)
    options: dict[str, Any] = {}
    if form == "TIFF":
        options["compression"] = rng.choice((None, "tiff_lzw", "tiff_deflate", "packbits"))
    elif form == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = rng.randrange(10)
        options |= {"exif": exif, "progressive": rng.random() < 0.5}
    elif form in ("GIF", "WEBP") and rng.random() < 0.5:
        options |= {"save_all": True, "append_images": [drawn.rotate(90)]}
    drawn.save(sink, form, **options)
    return sink.getvalue()


def image(rng: random.Random, folder: Path) -> None:
    data = spoil_bytes(_encoded(rng), rng)
    (folder / "x.img").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for side in (None, 64):
            found = judged(lambda side=side: decode_reduced(data, MAX_PIXELS, side))
            if found and (found.rgb.mode != "RGB" or min(found.width, found.height) < 1):
                raise FindingError(f"{found}")
