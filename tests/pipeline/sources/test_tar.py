"""Tars: whatever is in them and wherever they break off, every sample is told, once."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.sources import read_chunks
from tests.pipeline.sources.shards import FAST, check_chunks, pairs, read, shard_of, tar_bytes

PROPERTY = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
KEYS = st.sampled_from(["a", "b", "c.v1", "c", "dir/a", "dir.x/a.b", "ü", "x" * 120, "y" * 300])
PARTS = st.lists(
    st.sampled_from([".jpg", ".JPEG", ".png", ".webp", ".txt", ".json", ".npy", ".cls"]),
    min_size=1,
    max_size=4,
    unique_by=lambda part: {".jpeg": ".jpg", ".png": ".jpg", ".webp": ".jpg"}.get(part.lower(), part.lower()),
)
GROUPS = st.lists(st.tuples(KEYS, PARTS), max_size=12)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def content(part: str, number: int) -> bytes:
    if part == ".txt":
        return f"caption {number}".encode()
    if part == ".json":
        return json.dumps({"caption": f"json {number}", "n": number}).encode()
    return bytes([number]) * (number * 97 % 1500 + 1)


@PROPERTY
@given(groups=GROUPS, form=FORMATS, size=st.integers(1, 5), packed=st.booleans(), data=st.data())
def test_samples_are_runs_of_members_with_one_key(groups, form, size, packed, data, tmp_path):
    # Neighbours with one key would be one run; what happens then is tested below.
    groups = [next(run) for _, run in itertools.groupby(groups, key=lambda group: group[0])]
    members = [(key + part, content(part, i)) for i, (key, parts) in enumerate(groups) for part in parts]
    raw, _ = tar_bytes(members, form)
    shard = shard_of(tmp_path / "s.tar", gzip.compress(raw) if packed else raw)
    samples = read(shard, size)

    known = (".jpg", ".jpeg", ".png", ".webp", ".txt", ".json")
    groups = [g for g in enumerate(groups) if any(p.lower() in known for p in g[1][1])]
    # A group of strangers alone is no sample, and two runs that it stood between are one.
    if not groups:
        if members:
            assert [sample.error[0] for sample in samples] == ["no_samples"]
        return
    if any(a[1][0] == b[1][0] for a, b in itertools.pairwise(groups)):
        return
    assert [sample.key for sample in samples] == [key for _, (key, _) in groups]
    seen: set[str] = set()
    for sample, (number, (key, parts)) in zip(samples, groups, strict=True):
        image = next((p for p in parts if p.lower() in known[:4]), None)
        if key in seen:
            assert sample.error[0] == "duplicate_key"
        elif image is None:
            assert sample.error[0] == "missing_image"
        else:
            assert sample.error is None
            assert sample.image == content(image, number)
            if not packed:
                start = sample.ref["offset"]
                assert raw[start : start + sample.ref["length"]] == sample.image
            assert sample.ref["member"] == key + image
        seen.add(key)
        captions = {".txt": f"caption {number}", ".json": f"json {number}"}
        assert sample.caption == next((captions[p] for p in captions if p in parts), None)
        assert sample.columns.get("n") == (number if ".json" in parts else None)

    chunks = -(-len(samples) // size)
    skip = data.draw(st.lists(st.integers(0, max(chunks - 1, 0)), unique=True))
    rest = read(shard, size, skip)
    assert rest == [sample for sample in samples if sample.index // size not in skip]


@PROPERTY
@given(
    count=st.integers(1, 7),
    form=FORMATS,
    name=st.sampled_from(["", "n" * 150]),
    place=st.floats(0, 1),
    nudge=st.sampled_from([0, 0, 1, 511]),
)
def test_a_truncated_tar_yields_its_whole_samples_and_one_error(count, form, name, place, nudge, tmp_path):
    raw, ends = tar_bytes([(name + member, data) for member, data in pairs(count)], form)
    cut = min(int(place * len(raw)) // 512 * 512 + nudge, len(raw))
    samples = read(shard_of(tmp_path / "s.tar", raw[:cut]))

    content_end = -(-ends[-1] // 512) * 512
    if cut >= content_end + 1024 and cut % 512 == 0:
        assert [sample.error for sample in samples] == [None] * count
        return
    whole = sum(end <= cut for end in ends[1::2])
    *good, broken = samples
    assert broken.error[0] == ("truncated_shard" if cut >= 512 else "not_a_tar")
    assert str(tmp_path / "s.tar") in broken.error[1]
    assert [sample.error for sample in good] == [None] * len(good)
    assert [sample.image for sample in good] == [bytes([i]) * 700 for i in range(whole)]
    assert len({sample.key for sample in samples}) == len(samples)


@PROPERTY
@given(count=st.integers(1, 5), place=st.floats(0, 0.999))
def test_a_truncated_gzip_yields_what_can_be_unpacked_and_one_error(count, place, tmp_path):
    raw, _ = tar_bytes(pairs(count))
    packed = gzip.compress(raw, 1)
    *good, broken = read(shard_of(tmp_path / "s.tgz", packed[: int(place * len(packed))]))
    assert broken.error[0] in ("truncated_shard", "not_a_tar")
    assert [sample.image for sample in good] == [bytes([i]) * 700 for i in range(len(good))]


@PROPERTY
@given(
    count=st.integers(2, 6),
    member=st.integers(1, 11),
    place=st.integers(0, 511).filter(lambda byte: byte != 155),
)
def test_a_damaged_header_ends_the_shard_with_an_error(count, member, place, tmp_path):
    # Byte 155 is a space behind the checksum, and the one byte that no checksum covers.
    raw, ends = tar_bytes(pairs(count), tarfile.GNU_FORMAT)
    member = min(member, 2 * count - 1)
    header = -(-ends[member - 1] // 512) * 512
    damaged = bytearray(raw)
    damaged[header + place] ^= 0x55
    samples = read(shard_of(tmp_path / "s.tar", bytes(damaged)))
    # Members before the damage: their samples, if nothing of them lies behind it.
    whole = member // 2
    assert [s.image for s in samples[:whole]] == [bytes([i]) * 700 for i in range(whole)]
    assert samples[-1].error[0] == "damaged_shard"
    assert len(samples) == whole + 1


def test_odd_members(tmp_path: Path) -> None:
    """Members that are no samples, and samples that lack something, each with its reason."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> None:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "other"
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))

        add("folder", kind=tarfile.DIRTYPE)
        add("folder/._a.jpg")
        add("__MACOSX/a.jpg")
        add("./folder/a.jpg")
        add("README")
        add("./folder/a.txt", b"\xef\xbb\xbfa dog\n")
        add("empty.jpg", b"")
        add("link.jpg", kind=tarfile.SYMTYPE)
        add("latin.jpg")
        add("latin.txt", "café".encode("latin-1"))
        add("bad.jpg")
        add("bad.json", b"{")
        add("list.jpg")
        add("list.json", b"[1]")
        add("both.jpg")
        add("both.png")
        add("surrogate.jpg")
        add("surrogate.json", b'{"caption": "\\ud83d dog", "other": 1}')
        add("large.jpg", bytes(5000))
        add("unknown.heic")
        add("unknown.txt", b"words")
        add("fields.jpg")
        add("fields.json", b'{"TEXT": "", "alt": "from alt", "deep": {"a": [1]}}')
        add("none.jpg")
    options = type(FAST)(max_image_bytes=4000)
    samples = read(shard_of(tmp_path / "s.tar", buffer.getvalue()), options=options)
    told = [(s.key, s.error and s.error[0], s.caption) for s in samples]
    assert told == [
        ("folder/a", None, "a dog\n"),
        ("empty", "zero_size", None),
        ("link", "missing_image", None),
        ("latin", "unreadable_caption", None),
        ("bad", "unreadable_caption", None),
        ("list", "unreadable_caption", None),
        ("both", None, None),
        ("both", "duplicate_key", None),
        ("surrogate", None, "\N{REPLACEMENT CHARACTER} dog"),
        ("large", "too_large", None),
        ("unknown", "missing_image", "words"),
        ("fields", None, "from alt"),
        ("none", None, None),
    ]
    assert "unknown.txt" in samples[10].error[1]
    said = [samples[i].error[1].partition(":")[0] for i in (3, 4, 5)]
    assert said == [
        "'latin.txt' is not UTF-8",
        "'bad.json' cannot be read as JSON",
        "'list.json' holds a list, not an object",
    ]
    assert samples[11].columns["deep"] == {"a": [1]}
    json.dumps([s.caption for s in samples], ensure_ascii=False).encode()  # valid Unicode


def test_archives_in_a_row_are_read_on(tmp_path: Path) -> None:
    first, _ = tar_bytes(pairs(2))
    second, _ = tar_bytes([("late.jpg", b"z"), ("late.txt", b"late")])
    samples = read(shard_of(tmp_path / "s.tar", first + second))
    assert [sample.key for sample in samples] == ["0000", "0001", "late"]
    assert all(sample.error is None for sample in samples)


def test_no_samples(tmp_path: Path) -> None:
    """An empty tar is one empty chunk; what is no tar, or has no images, says so."""
    empty = shard_of(tmp_path / "e.tar", tar_bytes([])[0])
    (chunk,) = read_chunks(empty, 8)
    assert (chunk.index, chunk.samples, chunk.last) == (0, [], True)
    for data, kind in (
        (b"", "not_a_tar"),
        (b"<html>" * 200, "not_a_tar"),
        (gzip.compress(b"<html>" * 200), "not_a_tar"),
        (tar_bytes([("a.mp4", b"x"), ("b.mp4", b"x")])[0], "no_samples"),
    ):
        (sample,) = read(shard_of(tmp_path / "n.tar", data))
        assert sample.error[0] == kind
        assert data or "the file has 0 bytes" in sample.error[1]


def test_chunk_size_divides_the_shard(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "s.tar", tar_bytes(pairs(6))[0])
    chunks = list(read_chunks(shard, 3, options=FAST))
    check_chunks(chunks, 3)
    assert [chunk.last for chunk in chunks] == [False, True]
    with pytest.raises(ValueError, match="--chunk-size"):
        next(read_chunks(shard, 0))
