"""What is fuzzed: a function a kind of input, that makes one hostile input and judges what is done with it.

Each takes (rng, folder): the input follows from the generator alone. An exception is a finding.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from starlette.requests import Request

from jobs import curate, export, import_, report, stats
from pipeline.curate.predicate import FUNCTIONS, parse_predicate
from pipeline.dataset.dataset_schema import CURATED_SCHEMA
from pipeline.dataset.phrase_rows import batch_schema
from pipeline.sources import Shard, list_shards
from pipeline.view import ViewConfig, server
from sspsam import SSPSAM
from sspsam.data import DataConfig, read_records
from sspsam.images.decoding import decode_reduced
from sspsam.rle import check_rle
from sspsam.schema import ANNOTATION_SCHEMA
from tests.fuzz.mutations import TEXTS, hostile_value, spoil_bytes, spoil_text, spoil_tree, spoil_value
from tests.fuzz.verdicts import FindingError, command, judged
from tests.micro_model import micro_config
from tests.pipeline.annotate.inputs import picture, sample_members
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset
from tests.pipeline.sources.shards import FAST, read, tar_bytes
from tests.sspsam.data.benchmarks import MadeBenchmarks, instances, make_benchmarks, refer_refs

Target = Callable[[random.Random, Path], None]

_MAX_PIXELS = 4_000_000
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")


@cache
def _root() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))


# Shards and images


def _samples(shard: Shard, whole: int) -> None:
    """Read a shard to its end: each sample is an image or a reason, and a cut one says so."""
    samples = read(shard, options=FAST)
    for sample in samples:
        if sample.image is not None:
            judged(lambda data=sample.image: decode_reduced(data, _MAX_PIXELS, 64))
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
            found = judged(lambda side=side: decode_reduced(data, _MAX_PIXELS, side))
            if found and (found.rgb.mode != "RGB" or min(found.width, found.height) < 1):
                raise FindingError(f"{found}")


# Checkpoints


@cache
def _model() -> Path:
    torch.manual_seed(0)
    folder = _root() / "model"
    SSPSAM(micro_config()).save_pretrained(folder)
    return folder


def _load(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judged(lambda: SSPSAM.from_pretrained(path, device="cpu"), path.name, str(path.parent), "config.json")


def checkpoint(rng: random.Random, folder: Path) -> None:
    shutil.copytree(_model(), folder / "m")
    config, weights, merges = (
        folder / "m" / name for name in ("config.json", "model.safetensors", "tokenizer.txt.gz")
    )
    way = rng.randrange(5)
    if way == 0:
        weights.write_bytes(spoil_bytes(weights.read_bytes(), rng))
    elif way == 1:
        config.write_text(json.dumps(spoil_tree(json.loads(config.read_text()), rng)))
    elif way == 2:
        config.write_bytes(spoil_text(config.read_bytes(), rng))
    elif way == 3:
        merges.write_bytes(spoil_bytes(merges.read_bytes(), rng))
    else:
        text = gzip.decompress(merges.read_bytes())
        merges.write_bytes(gzip.compress(spoil_text(text, rng), 1))
    _load(folder / "m")


@cache
def _authors_state() -> dict[str, torch.Tensor]:
    """The names of an authors' checkpoint; one number a tensor, whatever the shape says."""
    from tests.sspsam.modeling.parity import RECIPE

    return {name: torch.zeros(()).expand(shape) for name, shape in RECIPE["state_dict"].items()}


def pickled(rng: random.Random, folder: Path) -> None:
    """`.pth` as a zip and as the older stream: damaged, with other objects, with shapes that cannot be."""
    state: dict[Any, Any] = dict(_authors_state())
    for name in rng.sample(sorted(state), rng.choice((0, 1, 3, len(state) - 5))):
        sizes = [rng.choice((0, 1, 7, 2**10, 2**15)) for _ in range(rng.randrange(5))]
        replaced = (
            torch.zeros(()).expand(sizes),
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(0),
            None,
            "x",
            3,
        )
        state[name] = rng.choice(replaced)
        if rng.random() < 0.3:
            del state[name]
    if rng.random() < 0.1:
        state[rng.choice((3, None, (1,)))] = torch.zeros(1)
    content = rng.choice(({"model": state}, state, {"model": {"module": state}}, [state], None))
    sink, path = io.BytesIO(), folder / "x.pth"
    torch.save(content, sink, _use_new_zipfile_serialization=rng.random() < 0.6)
    path.write_bytes(sink.getvalue() if rng.random() < 0.4 else spoil_bytes(sink.getvalue(), rng))
    _load(path)


# Benchmarks and ground truth


@cache
def _benchmarks() -> MadeBenchmarks:
    return make_benchmarks(_root() / "benchmarks")


def benchmark(rng: random.Random, folder: Path) -> None:
    """REFER, gRefCOCO, PhraseCut and the authors' annotations: every record's mask is asked for."""
    made, form = _benchmarks(), rng.choice(("refer", "grefcoco", "phrasecut", "authors"))
    source = {"refer": made.refer, "grefcoco": made.grefcoco, "phrasecut": made.phrasecut}.get(form)
    root = source or made.root / "data_seg"
    shutil.copytree(root, folder / "b", ignore=shutil.ignore_patterns("*.jpg"))
    files = sorted(path for path in (folder / "b").rglob("*") if path.suffix in (".p", ".json", ".npy"))
    spoiled = rng.choice(files)
    data = spoiled.read_bytes()
    if spoiled.suffix == ".p" and rng.random() < 0.5:
        data = pickle.dumps(spoil_tree(refer_refs(), rng), protocol=rng.choice((0, 2, 4)))
    elif spoiled.suffix == ".json" and rng.random() < 0.7:
        data = json.dumps(spoil_tree(json.loads(data), rng)).encode()
    else:
        data = (spoil_text if spoiled.suffix == ".json" else spoil_bytes)(data, rng)
    spoiled.write_bytes(data)
    dataset = folder / "b" / ("anns/refcoco.json" if form == "authors" else "")
    config = DataConfig(
        str(dataset), form, images=str(made.images if form != "phrasecut" else made.phrasecut / "images")
    )

    def use() -> None:
        for record in read_records(config):
            record.rle(record.height or 72, record.width or 96)

    judged(use, str(folder))


def coco(rng: random.Random, folder: Path) -> None:
    """COCO instances through `sspsam import`."""
    truth = instances()
    mask = np.zeros((72, 96), np.uint8, order="F")
    mask[9:20, 9:30] = 1
    rle = coco_mask.encode(mask)
    truth["annotations"][0]["segmentation"] = {"size": [72, 96], "counts": rle["counts"].decode()}
    truth["annotations"][1] |= {"segmentation": {"size": [72, 96], "counts": [1000, 12, 5900]}, "iscrowd": 1}
    data = json.dumps(spoil_tree(truth, rng) if rng.random() < 0.75 else truth).encode()
    source = folder / "instances.json"
    source.write_bytes(spoil_text(data, rng) if rng.random() < 0.3 else data)
    arguments = [str(source), str(folder / "out"), "--format", "coco", "--images", str(_benchmarks().images)]
    separate = ["--instances", "separate"] if rng.random() < 0.5 else []
    if command(import_.main, [*arguments, *separate], "instances.json") != 2:
        command(stats.main, [str(folder / "out")], "out", codes=(0,))


def rle(rng: random.Random, _: Path) -> None:
    mask = np.asfortranarray(np.random.default_rng(rng.randrange(99)).random((9, 7)) < 0.5, dtype=np.uint8)
    size: Any = rng.choice(([9, 7], [7, 9], [0, 0], [2**31, 2**31], [9], [9, -7], [63, 1], (9, 7)))
    counts: Any = spoil_bytes(coco_mask.encode(mask)["counts"], rng)
    if rng.random() < 0.3:
        counts = counts.decode("latin-1")
    found = judged(lambda: check_rle({"size": size, "counts": counts}))
    if found is not None and len(found) < 10_000 and np.prod(size, dtype=float) < 1e6:
        decoded = coco_mask.decode(
            {"size": list(size), "counts": counts if isinstance(counts, bytes) else counts.encode()}
        )
        if decoded.sum() != found[1::2].sum():
            raise FindingError(f"{size} {counts!r} decodes to {decoded.sum()} pixels of {found[1::2].sum()}")


# Annotation datasets of others


@cache
def _made() -> MadeDataset:
    return make_dataset(_root() / "made", images=8, shards=2, chunk=3)


def _spoiled_dataset(rng: random.Random, folder: Path) -> Path:
    """A copy of a dataset with one file damaged, or with rows that no writer of ours makes."""
    output = folder / "out"
    shutil.copytree(_made().output, output)
    files = sorted((output / "annotations").rglob("*.parquet"))
    spoiled, way = rng.choice(files), rng.random()
    if way < 0.25:
        spoiled.write_bytes(spoil_bytes(spoiled.read_bytes(), rng))
    elif way < 0.35:
        manifest = output / rng.choice(("_run.json", "_stats.json"))
        tree = json.loads(manifest.read_text())
        spoiled_tree = json.dumps(spoil_tree(tree, rng)).encode()
        manifest.write_bytes(spoil_text(spoiled_tree, rng) if rng.random() < 0.5 else spoiled_tree)
    else:
        nullable = [field.with_nullable(True) for field in ANNOTATION_SCHEMA]
        schema = pa.schema(nullable, ANNOTATION_SCHEMA.metadata)
        rows = pq.read_table(spoiled).to_pylist()
        for _ in range(rng.choice((1, 2, 5))):
            row, field = (
                rng.choice(rows),
                rng.choice([*schema, schema.field("annotations"), schema.field("annotations")]),
            )
            row[field.name] = spoil_value(row[field.name], field.type, rng)
        _write(pa.Table.from_pylist(rows, schema), spoiled, rng)
    return output


def _write(table: pa.Table, path: Path, rng: random.Random) -> None:
    if rng.random() < 0.1:
        name = rng.choice(table.schema.names)
        kind = rng.choice((pa.string(), pa.int64(), pa.list_(pa.string()), pa.float32(), pa.binary()))
        column = pa.array([hostile_value(kind, rng) for _ in range(len(table))], kind)
        table = table.set_column(table.schema.names.index(name), name, column)
    elif rng.random() < 0.05:
        table = table.drop_columns([rng.choice(table.schema.names)])
    pq.write_table(table, path, row_group_size=rng.choice((1, 100)))


def dataset_stats(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    more = ["--compare", str(_made().truth)] if rng.random() < 0.3 else []
    command(stats.main, [str(output), *more, "--json"], "out/", str(output), codes=(0,))


def dataset_report(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    arguments = [
        str(output),
        "--page",
        str(folder / "r.html"),
        "--sheet",
        str(folder / "r.png"),
        "--tiles",
        "4",
        "--image-root",
        str(_made().input),
    ]
    command(report.main, arguments, "out/", str(output))


def dataset_curate(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    arguments = [str(output), str(folder / "cut"), "--where", "score > 0.3", "--workers", "1"]
    more = rng.choice(
        ([], ["--merge-iou", "0.9"], ["--phash-distance", "4"], ["--split", "train=0.5,val=0.5"])
    )
    command(curate.main, [*arguments, *more], "out/", str(output))


def dataset_export(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    form = rng.choice(("coco", "yolo", "labelstudio", "webdataset", "hf", "coco-panoptic"))
    arguments = [str(output), str(folder / "x"), "--format", form, "--workers", "1"]
    command(export.main, [*arguments, "--image-root", str(_made().input)], "out/", str(output))


def dataset_train(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    config = DataConfig(str(output), "annotations", split="all", image_root=(str(_made().input),))

    def use() -> None:
        for record in read_records(config):
            if record.height and record.width and record.height * record.width < _MAX_PIXELS:
                judged(lambda record=record: record.rle(record.height, record.width), "record ", str(output))

    judged(use, str(output))


def _request(path: dict[str, Any], **parameters: str) -> Request:
    from urllib.parse import urlencode

    scope = {"type": "http", "method": "GET", "headers": [], "path": "/", "path_params": path}
    return Request({**scope, "query_string": urlencode(parameters, errors="replace").encode()})


def _viewed(
    viewer: server.Viewer, handler: Callable[..., Any], path: dict[str, Any], **parameters: str
) -> None:
    response = server._answered(lambda: handler(viewer, _request(path, **parameters)))
    if response.status_code != 200:
        error = json.loads(response.body)["error"]
        if not error or "Traceback" in error:
            raise FindingError(f"{handler.__name__}: {response.body!r}")


def dataset_view(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)

    def use() -> None:
        viewer = server.Viewer(ViewConfig(str(output), threads=1, image_root=(str(_made().input),)))
        try:
            viewer.fill()
            if viewer.problem and str(output) not in viewer.problem:
                raise FindingError(f"the page says {viewer.problem!r}, which names no file")
            for problem in viewer.index.progress().problems:
                if "out" not in problem[0]:
                    raise FindingError(f"{problem}")
            _viewed(viewer, server._state, {})
            _viewed(viewer, server._cards, {}, unit="images")
            _viewed(viewer, server._cards, {}, unit="masks", sort="score")
            _viewed(viewer, server._histogram, {}, measure="area")
            for number in range(8):
                _viewed(viewer, server._picture, {"image": number}, side="64")
        finally:
            viewer.close()

    judged(use, str(output))


# What people type


@cache
def _viewer() -> server.Viewer:
    viewer = server.Viewer(ViewConfig(str(_made().output), threads=1))
    viewer.fill()
    return viewer


def search(rng: random.Random, _: Path) -> None:
    """Search text and filters of the viewer, as URLs bring them."""
    names = ("unit", "phrase", "key", "shard", "status", "target", "verdict", "min_score", "max_area", "sort")
    words = (
        *TEXTS,
        "images",
        "masks",
        "asc",
        "0.5",
        '"a red',
        "a red circle",
        "random",
        "score",
        "-1",
        "1e309",
        "x" * 9000,
    )
    given = {name: rng.choice(words) for name in rng.sample(names, rng.randrange(1, 5))}
    if rng.random() < 0.5:
        given["phrase"] = "".join(rng.choice(words) for _ in range(3))[:2000]
    for handler in (server._cards, server._histogram, server._phrases):
        more = {"measure": rng.choice(words)} if handler is server._histogram and rng.random() < 0.3 else {}
        parameters = {"text": given.get("phrase", "")} if handler is server._phrases else given
        _viewed(_viewer(), handler, {}, **parameters, **more)


_WORDS = (
    *(
        "score",
        "area",
        "phrase",
        "caption",
        "bbox",
        "width",
        "and",
        "or",
        "not",
        "in",
        "between",
        "is",
        "null",
        "like",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ";",
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "=",
        "<",
        ">",
        "::",
        ".",
        "->",
        "--",
        "/*",
    ),
    *(
        "'a'",
        "'",
        '"',
        "$$",
        "1",
        "0",
        "1e400",
        "9" * 40,
        "case",
        "when",
        "end",
        "cast",
        "as",
        "varchar",
        "interval",
    ),
    *(
        "select",
        "from",
        "union",
        "exists",
        "over",
        "lambda x:",
        "?",
        "$1",
        "@",
        "\x00",
        "\ud800",
        "é",
        "😀",
        "\\",
    ),
    *(
        "read_csv('/etc/passwd')",
        "(" * 3000,
        "not " * 3000,
        "repeat('x', 1000000000)",
        "range(1000000000000)",
    ),
    *(
        "list_filter(bbox, lambda x: x > 1)",
        "getenv('HOME')",
        "score > 0.5",
        "regexp_matches(phrase, '(a+)+$')",
    ),
)
_ROWS = pa.table(
    {
        "score": pa.array([0.5, None], pa.float32()),
        "area": pa.array([1, 500], pa.int64()),
        "phrase": ["a dog", "a" * 40 + "!"],
        "caption": ["a", None],
        "bbox": pa.array([[0, 0, 1, 1], [1, 2, 6, 7]], pa.list_(pa.float32(), 4)),
        "width": pa.array([7, 8], pa.int32()),
    }
)


def predicate(rng: random.Random, _: Path) -> None:
    """`--where`: words of SQL in any order, and every function with any arguments."""
    if rng.random() < 0.5:
        text = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 9)))
    else:
        words = ("score", "area", "phrase", "bbox", "null", "1", "-1", "'x'", "1000000000000", "[1]", "'{}'")
        given = ", ".join(rng.choice(words) for _ in range(rng.randrange(4)))
        call = f"{rng.choice(sorted(FUNCTIONS))}({given})"
        text = rng.choice((f"{call} is null", f"{call} = {rng.choice(words)}", call))

    def use() -> None:
        parsed = parse_predicate(text, batch_schema(CURATED_SCHEMA))
        if set(parsed.columns) <= set(_ROWS.column_names):
            parsed(_ROWS)

    judged(use, "--where")


#: What is fuzzed, by name.
TARGETS: dict[str, Target] = {
    one.__name__: one
    for one in (
        *(tar, parquet, captions, image, checkpoint, pickled, benchmark, coco, rle, predicate, search),
        *(dataset_stats, dataset_report, dataset_curate, dataset_export, dataset_train, dataset_view),
    )
}
