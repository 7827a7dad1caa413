"""Makes small annotation datasets whose truth is known, for the tests of everything that reads one.

The pictures are drawn shapes on a plain ground; their masks are the shapes themselves, so a test
can compare pixel by pixel. The layout and schema are those that `sspsam annotate` writes.

    made = make_dataset(tmp_path, images=12, seed=0)
    made.output   # OUTPUT: annotations/<shard>/00000.parquet, _run.json, _stats.json
    made.truth    # the same images and phrases with exact masks, in the same layout
    made.input    # the tars that hold the images and captions
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sspsam.schema import ANNOTATION_SCHEMA

COLOURS = {
    "red": (214, 48, 49),
    "green": (46, 158, 84),
    "blue": (52, 98, 219),
    "yellow": (241, 196, 15),
    "purple": (142, 68, 173),
    "orange": (230, 126, 34),
}
SHAPES = ("circle", "square", "triangle", "ring", "bar")
ABSENT = ("dog", "bicycle", "umbrella", "piano")
HOSTILE_PHRASE = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script> & 'quoted'"


@dataclass(frozen=True)
class MadeDataset:
    """Where things are, and every row as written (`rows`, `truth_rows`: by key)."""

    output: Path
    truth: Path
    input: Path
    rows: dict[str, dict[str, Any]] = field(repr=False)
    truth_rows: dict[str, dict[str, Any]] = field(repr=False)

    def mask(self, key: str, position: int, *, truth: bool = False) -> np.ndarray:
        """Boolean (height, width) mask of the annotation at `position` of image `key`."""
        row = (self.truth_rows if truth else self.rows)[key]
        rle = row["annotations"][position]["segmentation"]
        return coco_mask.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO RLE of a boolean (height, width) mask, `counts` as str."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def annotation(
    phrase: str,
    mask: np.ndarray,
    *,
    score: float | None,
    caption: str | None = None,
    has_target: bool = True,
    clip_score: float | None = 0.25,
) -> dict[str, Any]:
    """One `annotations` struct; the span is where `phrase` first stands in `caption`, else null."""
    start = caption.find(phrase) if caption else -1
    rle = encode_rle(mask)
    box = [float(side) for side in coco_mask.toBbox({**rle, "counts": rle["counts"].encode()})]
    area = int(mask.sum())
    signal = None if score is None or not area else float(np.float32(score))
    return {
        "phrase": phrase,
        "start": start if start >= 0 else None,
        "end": start + len(phrase) if start >= 0 else None,
        "has_target": has_target,
        "segmentation": rle,
        "bbox": box,
        "predicted_box": box if has_target else [0.0, 0.0, 0.0, 0.0],
        "area": area,
        "target_pixels": area * 4 if has_target else min(area * 4, 20),
        "score": signal,
        "predicted_iou": None if signal is None else min(1.0, signal * 0.95 + 0.03),
        "stability": None if signal is None else min(1.0, 0.5 + signal / 2),
        "box_agreement": None if signal is None else signal**0.5,
        "clip_score": clip_score,
        "truncated": False,
    }


def _draw(
    rng: np.random.Generator, width: int, height: int
) -> tuple[Image.Image, list[tuple[str, np.ndarray]]]:
    """One picture and its (name, visible mask) pairs; later shapes hide earlier ones."""
    shade = int(rng.integers(190, 240))
    picture = Image.new("RGB", (width, height), (shade, shade, min(255, shade + 8)))
    draw = ImageDraw.Draw(picture)
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    chosen = [names[i] for i in rng.permutation(len(names))[: int(rng.integers(2, 5))]]
    found: list[tuple[str, np.ndarray]] = []
    for position, name in enumerate(chosen):
        colour, shape = name.split()
        size = int(rng.integers(height // 4, height // 2))
        x = int((position + 0.5) * width / len(chosen) - size / 2 + rng.integers(-4, 5))
        y = int(rng.integers(0, height - size))
        canvas = Image.new("1", (width, height))
        pen = ImageDraw.Draw(canvas)
        box = (x, y, x + size, y + size)
        for target, ink in ((pen, 1), (draw, COLOURS[colour])):
            if shape == "circle":
                target.ellipse(box, fill=ink)
            elif shape == "square":
                target.rectangle(box, fill=ink)
            elif shape == "triangle":
                target.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill=ink)
            elif shape == "ring":
                target.ellipse(box, outline=ink, width=max(3, size // 5))
            else:
                target.rectangle((x, y + size // 3, x + size, y + 2 * size // 3), fill=ink)
        mask = np.array(canvas, dtype=bool)
        found = [(other, seen & ~mask) for other, seen in found] + [(name, mask)]
    return picture, [(name, mask) for name, mask in found if mask.sum() >= 30]


def _spoil(mask: np.ndarray, amount: float) -> np.ndarray:
    """The mask moved sideways by up to a third of its width: a plausible wrong answer."""
    columns = np.flatnonzero(mask.any(axis=0))
    shift = round(amount * (columns[-1] - columns[0] + 1) / 3)
    moved = np.zeros_like(mask)
    if shift:
        moved[:, shift:] = mask[:, :-shift]
        return moved
    return mask


def _difference_hash(picture: Image.Image) -> int:
    grey = np.asarray(picture.convert("L").resize((9, 8)), dtype=np.int16)
    bits = np.packbits((grey[:, 1:] > grey[:, :-1]).ravel()).tobytes()
    return int.from_bytes(bits, "big", signed=True)


def _image_row(
    rng: np.random.Generator, key: str, previous: tuple[bytes, dict, dict] | None
) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """(encoded bytes, row, truth row) of one image; `previous` is repeated as a near-duplicate."""
    if previous is not None:
        encoded, row, truth = previous
        again = io.BytesIO()
        Image.open(io.BytesIO(encoded)).save(again, "JPEG", quality=60)
        return again.getvalue(), {**row, "key": key}, {**truth, "key": key}
    width, height = (int(side) for side in rng.integers(90, 200, 2))
    picture, shapes = _draw(rng, width, height)
    names = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name, _ in shapes]
    caption = f"🎨 {' and '.join(names)} on a plain ground, naïve"
    annotations, exact = [], []
    for phrase, (_, mask) in zip(names, shapes, strict=True):
        amount = float(rng.random())
        spoiled = _spoil(mask, amount)
        score = 0.98 - 0.6 * amount
        annotations.append(annotation(phrase, spoiled, score=score, caption=caption))
        exact.append(annotation(phrase, mask, score=1.0, caption=caption))
    # The last shape under a second name: a near-duplicate mask of one image.
    twin = shapes[-1][0].split()[1]
    annotations.append({**annotations[-1], "phrase": twin, "start": None, "end": None})
    exact.append({**exact[-1], "phrase": twin, "start": None, "end": None})
    absent = f"the {ABSENT[int(rng.integers(len(ABSENT)))]}"
    specks = np.zeros((height, width), dtype=bool)
    if rng.random() < 0.5:
        specks[2:4, 2:4] = True
    annotations.append(annotation(absent, specks, score=0.2, has_target=False, clip_score=0.12))
    exact.append(annotation(absent, specks & False, score=None, has_target=False, clip_score=None))
    buffer = io.BytesIO()
    if rng.random() < 0.5:
        picture.save(buffer, "JPEG", quality=92)
    else:
        picture.save(buffer, "PNG")
    row = {
        "key": key,
        "status": "ok",
        "error": None,
        "width": width,
        "height": height,
        "caption": caption,
        "annotations": annotations,
        "phash": _difference_hash(picture),
    }
    return buffer.getvalue(), row, {**row, "annotations": exact}


def _bad_row(key: str, status: str) -> tuple[bytes, dict[str, Any]]:
    """A truncated picture (`error`) or a picture without a phrase (`no_phrase`)."""
    good = io.BytesIO()
    picture = Image.effect_noise((80, 60), 40).convert("RGB")
    picture.save(good, "JPEG")
    row: dict[str, Any] = {"key": key, "status": status, "annotations": [], "caption": ""}
    if status == "no_phrase":
        shape = {"width": 80, "height": 60, "phash": _difference_hash(picture), "error": None}
        return good.getvalue(), {**row, **shape}
    error = {
        "kind": "truncated_image",
        "message": f"{key}.jpg ends after 400 bytes: fetch it again",
    }
    nothing = {"width": None, "height": None, "phash": None, "error": error}
    return good.getvalue()[:400], {**row, **nothing, "caption": "a picture cut short"}


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path, compression="zstd")


def make_dataset(
    folder: Path,
    *,
    images: int = 12,
    seed: int = 0,
    shards: int = 2,
    chunk: int = 4,
    hostile: bool = True,
    image_url: str | None = None,
) -> MadeDataset:
    """Write a dataset of `images` images under `folder` (created) and say what is in it.

    Every sixth image is a near-duplicate of the one before it; the last two images of each shard
    are a `no_phrase` and an `error` row where there is room (at least 6 images a shard).
    hostile: the first image gets a phrase and caption full of HTML.  chunk: rows a Parquet file.
    image_url: prefix of the tars' URLs in `image_ref` (say "s3://bucket/input"); default: the
    local path of `folder/input`.
    """
    rng = np.random.default_rng([seed, 1])
    folder = Path(folder)
    made = MadeDataset(folder / "output", folder / "truth", folder / "input", {}, {})
    made.input.mkdir(parents=True, exist_ok=True)
    tables = ((made.output, made.rows), (made.truth, made.truth_rows))
    inputs = []
    for number in range(shards):
        shard = f"shard-{number:04d}"
        count = images // shards + (number < images % shards)
        samples = _shard_samples(rng, number, count, hostile and number == 0)
        tar_path = made.input / f"{shard}.tar"
        url = f"{image_url}/{shard}.tar" if image_url else str(tar_path)
        places = _write_tar(tar_path, samples)
        for index, (_, row, truth) in enumerate(samples):
            ref = {"url": url, **places[index]}
            place = {"shard": shard, "index": index, "image_ref": ref, "image": None}
            made.rows[row["key"]] = {**row, **place}
            made.truth_rows[row["key"]] = {**truth, **place}
        keys = [row["key"] for _, row, _ in samples]
        for root, table in tables:
            for start in range(0, len(keys), chunk):
                part = [table[key] for key in keys[start : start + chunk]]
                _write_parquet(root / f"annotations/{shard}/{start // chunk:05d}.parquet", part)
        size = tar_path.stat().st_size
        inputs.append({"shard": shard, "url": url, "size": size, "etag": None, "format": "tar"})
    for root, table in tables:
        statuses = Counter(row["status"] for row in table.values())
        run = {"model": {"name": "drawn", "sha256": None}, "options": {}, "versions": {}}
        (root / "_run.json").write_text(json.dumps({**run, "inputs": inputs}, indent=2))
        stats = {"images": len(table), "status": dict(statuses)}
        (root / "_stats.json").write_text(json.dumps(stats, indent=2))
    return made


def _shard_samples(
    rng: np.random.Generator, number: int, count: int, hostile: bool
) -> list[tuple[bytes, dict[str, Any], dict[str, Any]]]:
    """(encoded image, row, truth row) of each of a shard's `count` images."""
    samples: list[tuple[bytes, dict[str, Any], dict[str, Any]]] = []
    for index in range(count):
        key = f"{number:04d}-{index:05d}"
        if count >= 6 and index >= count - 2:
            encoded, row = _bad_row(key, "no_phrase" if index == count - 2 else "error")
            samples.append((encoded, row, row))
            continue
        encoded, row, truth = _image_row(rng, key, samples[-1] if index % 6 == 5 else None)
        if hostile and index == 0:
            caption = f"{HOSTILE_PHRASE} beside {row['caption']}"
            row, truth = (_rename(one, HOSTILE_PHRASE, caption) for one in (row, truth))
        samples.append((encoded, row, truth))
    return samples


def _write_tar(
    path: Path, samples: list[tuple[bytes, dict[str, Any], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Write images and captions as a tar; (member, offset, length) of each image."""
    members = []
    with tarfile.open(path, "w") as tar:
        for encoded, row, _ in samples:
            suffix = "png" if encoded[:4] == b"\x89PNG" else "jpg"
            members.append(f"{row['key']}.{suffix}")
            caption = row["caption"].encode()
            for name, data in ((members[-1], encoded), (f"{row['key']}.txt", caption)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as tar:
        found = {info.name: (info.offset_data, info.size) for info in tar}
    return [{"member": name, "offset": found[name][0], "length": found[name][1]} for name in members]


def _rename(row: dict[str, Any], phrase: str, caption: str) -> dict[str, Any]:
    """The row under another caption, its first phrase replaced and every span moved to fit."""
    annotations = []
    for position, old in enumerate(row["annotations"]):
        name = phrase if position == 0 else old["phrase"]
        start = caption.find(name) if position == 0 or old["start"] is not None else -1
        span = (start, start + len(name)) if start >= 0 else (None, None)
        annotations.append({**old, "phrase": name, "start": span[0], "end": span[1]})
    return {**row, "caption": caption, "annotations": annotations}
