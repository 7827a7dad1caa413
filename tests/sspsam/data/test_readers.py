"""Every format gives the same kind of record, with the masks that the picture was drawn from."""

from __future__ import annotations

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sspsam.data import DataConfig, Record, Segmentation, group_by_image, read_records
from sspsam.data.record_index import image_keys, records_table, table_records
from sspsam.errors import ConfigError, DataError
from tests.pipeline.annotation_fixture import make_dataset
from tests.sspsam.data.benchmarks import SHAPES, SIZE, MadeBenchmarks, box, make_benchmarks

WIDTH, HEIGHT = SIZE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeBenchmarks:
    return make_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def read(dataset: Path, form: str, **options) -> list[Record]:
    return list(read_records(DataConfig(str(dataset), form, **options)))


def image_of(record: Record) -> int:
    return int(record.image.url.rsplit("/", 1)[1].removesuffix(".jpg").rsplit("_", 1)[-1])


def test_refer(made: MadeBenchmarks):
    records = read(made.refer, "refer", split="val")
    assert len(records) == 3 * 3 * 2
    assert len({record.key for record in records}) == len(records)
    for record in records:
        shape = record.phrase.removeprefix("the ")
        image = image_of(record)
        assert record.split == "val"
        assert record.has_target
        assert (record.width, record.height) == SIZE
        assert record.box == pytest.approx(box(image, shape))
        assert f"category:{shape}" in record.subsets
        np.testing.assert_array_equal(record.mask(HEIGHT, WIDTH), made.mask(image, shape))
        assert Path(record.image.url).exists()
    assert [len(group) for group in group_by_image(records)] == [6, 6, 6]
    assert len(read(made.refer, "refer", split="train,val", limit=5)) == 5
    assert len(read(made.refer, "refer", split="train,val")) == 7 * 6


def test_grefcoco(made: MadeBenchmarks):
    records = read(made.grefcoco, "grefcoco")
    assert len(records) == 9
    for record in records:
        image = image_of(record)
        shapes = {
            "the red square on the left": ("red square",),
            "square and disk": ("red square", "blue disk"),
            "a purple elephant": (),
        }[record.phrase]
        assert record.has_target == bool(shapes)
        assert record.subsets[0] == ("no target", "one target", "several targets")[len(shapes)]
        np.testing.assert_array_equal(record.mask(HEIGHT, WIDTH), made.mask(image, *shapes))
        if len(shapes) == 2:
            a, b = (np.array(box(image, shape)) for shape in shapes)
            low = np.minimum(a[:2], b[:2])
            high = np.maximum(a[:2] + a[2:], b[:2] + b[2:])
            assert record.box == pytest.approx([*low, *(high - low)])
        if not shapes:
            assert record.box is None


def test_phrasecut(made: MadeBenchmarks):
    records = read(made.phrasecut, "phrasecut")
    assert [record.phrase for record in records] == list(SHAPES) * 3
    for record in records:
        mask = record.mask(HEIGHT, WIDTH)
        # Its evaluator cuts vertices to whole pixels and draws the outline, so it differs by an edge.
        coco = made.mask(image_of(record), record.phrase)
        assert np.logical_xor(mask, coco).sum() <= 0.35 * coco.sum()
        assert (coco & ~mask).sum() <= 0.1 * coco.sum()
    square, disk, triangle = (set(record.subsets) for record in records[:3])
    assert {"i_single", "p_rel", "p_rel+", "p_att", "p_att_rel", "c20", "c100", "c500", "a20"} <= square
    assert {"category:square", "attribute:red", "relation:left of"} <= square
    assert "p_rel" not in disk
    assert {"c500+", "a200+", "p_att+"} <= triangle
    assert "c500" not in triangle


@pytest.mark.parametrize("name", ["refcoco", "grefcoco"])
def test_authors(made: MadeBenchmarks, name: str):
    records = read(made.authors(name), "authors", images=str(made.images))
    assert len({record.key for record in records}) == len(records)
    for record in records:
        image = image_of(record)
        shapes = (record.phrase.removeprefix("the "),)
        if name == "grefcoco":
            shapes = ("red square", "blue disk") if "disk" in record.phrase else ()
        assert record.has_target == bool(shapes)
        np.testing.assert_array_equal(record.mask(HEIGHT, WIDTH), made.mask(image, *shapes))
        if len(shapes) == 1:
            assert record.box == pytest.approx(box(image, shapes[0]))
    if name == "refcoco":
        train = read(made.authors(name), "authors", split="train", images=str(made.images))
        assert len(train) == 4 * 3 * 2
        assert len(records) == 3 * 3 * 2


def test_authors_merged_boxes_have_no_masks(made: MadeBenchmarks):
    record = read(made.authors("merge"), "authors", images=str(made.images))[0]
    assert record.box == pytest.approx(box(5, "red square"))
    assert record.segmentation is None
    with pytest.raises(DataError, match="has a box and no mask"):
        record.mask(HEIGHT, WIDTH)


def test_annotation_parquet(tmp_path: Path):
    dataset = make_dataset(tmp_path, images=6)
    records = read(dataset.truth, "annotations", split="all")
    rows = {row["key"]: row for row in dataset.truth_rows.values() if row["status"] == "ok"}
    assert len(records) == sum(len(row["annotations"]) for row in rows.values())
    for record in records:
        position = int(record.key.split("-")[-2])
        row = rows[record.ids["key"]]
        annotation = row["annotations"][position]
        assert record.phrase == annotation["phrase"]
        assert record.has_target == annotation["has_target"]
        expected = dataset.mask(record.ids["key"], position, truth=True) & record.has_target
        np.testing.assert_array_equal(record.mask(row["height"], row["width"]), expected)
        assert record.image.member is not None
    with pytest.raises(DataError, match="no split train"):
        read(dataset.truth, "annotations", split="train")


def test_masks_of_another_size(made: MadeBenchmarks, tmp_path: Path):
    record = read(made.authors(), "authors", images=str(made.images))[0]
    with pytest.raises(DataError, match=r"mask of 96 x 72 pixels, its image has 72 x 96"):
        record.mask(WIDTH, HEIGHT)
    segmentation = record.segmentation
    assert segmentation is not None
    assert segmentation.file is not None
    for damaged in (np.zeros((HEIGHT, WIDTH, 3)), None):
        file = tmp_path / "mask.npy"
        file.write_bytes(b"no mask") if damaged is None else np.save(file, damaged)
        with pytest.raises(DataError, match=r"mask.npy is (no mask|a mask of 96 x 72 x 3 pixels)"):
            Segmentation(file=str(file)).rle(HEIGHT, WIDTH)
    packed = coco_mask.encode(np.ones((4, 4), np.uint8, order="F"))
    with pytest.raises(DataError, match="belong to other images"):
        Segmentation.from_coco([packed]).rle(4, 5)


def test_the_index_keeps_every_field(made: MadeBenchmarks, tmp_path: Path):
    records = [
        *read(made.grefcoco, "grefcoco"),
        *read(made.phrasecut, "phrasecut"),
        *read(made.authors(), "authors", images=str(made.images)),
        *read(make_dataset(tmp_path, images=3).truth, "annotations", split="all"),
    ]
    groups = group_by_image(records)
    keys = image_keys(groups)
    assert len(set(keys)) == len(groups)
    assert "COCO_train2014_000000000005" in keys
    table = records_table(groups, keys)
    assert table_records(table) == [record for group in groups for record in group]
    assert [r.ids for r in table_records(table)] == [r.ids for g in groups for r in g]


def test_what_is_missing_is_named(made: MadeBenchmarks, tmp_path: Path):
    def message(dataset: Path, form: str, **options) -> str:
        with pytest.raises(DataError) as caught:
            read(dataset, form, **options)
        return str(caught.value)

    nothing = message(tmp_path, "refer")
    for told in ("refs(unc).p", "instances.json", "are missing", "github.com/lichengunc/refer"):
        assert told in nothing
    (tmp_path / "refs(unc).p").write_bytes((made.refer / "refs(unc).p").read_bytes())
    assert re.search(r"instances.json \(.+\) is missing", message(tmp_path, "refer"))
    assert "refs(unc).p (" not in message(tmp_path, "refer")
    assert "huggingface.co/datasets/FudanCVL/gRefCOCO" in message(tmp_path, "grefcoco")
    assert "refer_val.json (the phrases of the split) is missing" in message(tmp_path, "phrasecut")
    assert "huggingface.co/wayneicloud/SSP-SAM" in message(tmp_path / "anns.json", "authors")
    assert "no annotation dataset" in message(tmp_path / "none", "annotations", split="all")
    assert "--split takes train, val" in message(made.refer, "refer", split="testA")
    assert "--split takes train, val" in message(made.phrasecut, "phrasecut", split="test")
    (tmp_path / "anns").mkdir()
    (tmp_path / "anns" / "refcoco.json").write_bytes(made.authors().read_bytes())
    masks = message(tmp_path / "anns" / "refcoco.json", "authors", images=str(made.images))
    assert "masks/refcoco/50.npy (the first of the masks) is missing" in masks
    assert "data_seg/run.sh" in masks
    images = message(made.refer, "refer", images=str(tmp_path / "elsewhere"))
    assert "images.cocodataset.org" in images
    assert "--images" in images
    with pytest.raises(ConfigError, match="there is no such format"):
        DataConfig("x", "coco")
    with pytest.raises(ConfigError, match="--limit"):
        DataConfig("x", "refer", limit=0)


def test_damaged_files_are_named(made: MadeBenchmarks, tmp_path: Path):
    whole = (made.grefcoco / "instances.json").read_bytes()
    refs = json.loads((made.grefcoco / "grefs(unc).json").read_text())
    (tmp_path / "images").symlink_to(made.images)
    (tmp_path / "instances.json").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    with pytest.raises(DataError, match=r"instances.json is not whole JSON"):
        read(tmp_path, "grefcoco")
    (tmp_path / "instances.json").write_bytes(whole)
    refs[-1]["ann_id"] = [999]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    with pytest.raises(DataError, match="no annotation 999"):
        read(tmp_path, "grefcoco")
    del refs[-1]["split"]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    with pytest.raises(DataError, match="has not the fields"):
        read(tmp_path, "grefcoco")
    (tmp_path / "grefs(google).json").write_text("[]")
    for maker in (None, "umd"):
        with pytest.raises(DataError, match=r"split by google, unc: choose one by --split-by"):
            read(tmp_path, "grefcoco", split_by=maker)
    with pytest.raises(DataError, match="has not the fields"):
        read(tmp_path, "grefcoco", split_by="unc")


def test_relative_paths_become_absolute(made: MadeBenchmarks, monkeypatch: pytest.MonkeyPatch):
    """Workers may run in another folder than the command."""
    monkeypatch.chdir(made.root.parent)
    here = Path(made.root.name)
    for record in (
        *read(here / "refcoco", "refer"),
        *read(here / "data_seg" / "anns" / "refcoco.json", "authors", images=str(here / "images")),
        *read(here / "VGPhraseCut_v0", "phrasecut"),
    ):
        files = [record.image.url, record.segmentation.file if record.segmentation else None]
        assert all(file is None or (Path(file).is_absolute() and Path(file).exists()) for file in files)


def test_images_from_a_web_server_beside_a_bucket_s_options(made: MadeBenchmarks):
    """--storage-options are those of the bucket that OUTPUT is in; a web server must not see them."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(made.images))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/train2014"
        options = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:1"}
        records = read(made.refer, "refer", images=url, storage_options=options)
        server.shutdown()
    assert records[0].image.url == f"{url}/COCO_train2014_000000000005.jpg"


def test_images_by_url(made: MadeBenchmarks):
    """A benchmark may lie behind any fsspec URL; here memory://."""
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.put(str(made.root), "/bench", recursive=True)
    try:
        records = list(read_records(DataConfig("memory://bench/refcoco", "refer")))
        assert records[0].image.url == "memory://bench/images/train2014/COCO_train2014_000000000005.jpg"
        assert fs.exists(records[0].image.url)
        path = "memory://bench/data_seg/anns/refcoco.json"
        by_authors = list(read_records(DataConfig(path, "authors", images="memory://bench/images")))
        np.testing.assert_array_equal(by_authors[0].mask(HEIGHT, WIDTH), made.mask(5, by_authors[0].phrase))
    finally:
        fs.rm("/bench", recursive=True)
