"""Images on their way out, and what happens when the dataset or an image is not as it should be."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.image_bytes import safe_name
from pipeline.dataset.vocabulary import normalise
from pipeline.export import ExportConfig, export
from sspsam.errors import ConfigError, DataError
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import MadeDataset, annotation, make_dataset


def write_rows(output: Path, rows: list[dict[str, Any]]) -> None:
    path = output / "annotations/shard/00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    inputs = [{"url": ref["url"]} for row in rows if (ref := row.get("image_ref"))]
    (output / "_run.json").write_text(json.dumps({"inputs": inputs}))


def folder_rows(folder: Path, encoded: dict[str, bytes], size: tuple[int, int]) -> list[dict[str, Any]]:
    """One row for each image file, written to `folder`; its mask is the upper left quarter."""
    folder.mkdir()
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    mask[: height // 2, : width // 2] = True
    rows = []
    for index, (name, data) in enumerate(encoded.items()):
        (folder / name).write_bytes(data)
        rows.append(
            {
                "key": name,
                "shard": "shard",
                "index": index,
                "status": "ok",
                "width": width,
                "height": height,
                "annotations": [annotation("a thing", mask, score=0.9)],
                "image_ref": {"url": str(folder), "member": name},
            }
        )
    return rows


def jpeg(size: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def test_images_stand_upright_beside_their_masks(tmp_path: Path) -> None:
    """EXIF says "turn by 90 degrees": masks are in the turned frame, so the copy is turned for good."""
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = {"turned.jpg": jpeg((40, 20), exif=exif), "plain.jpg": jpeg((20, 40))}
    write_rows(tmp_path / "out", folder_rows(tmp_path / "in", encoded, (20, 40)))
    export(str(tmp_path / "out"), str(tmp_path / "x"), ExportConfig("coco"))
    coco = json.loads((tmp_path / "x/annotations/instances_train.json").read_text())
    by_key = {one["key"]: tmp_path / "x/images/train" / one["file_name"] for one in coco["images"]}
    assert by_key["plain.jpg"].read_bytes() == encoded["plain.jpg"]
    with Image.open(by_key["turned.jpg"]) as turned:
        assert turned.size == (20, 40)
        assert turned.getexif().get(0x0112, 1) == 1
        row = np.asarray(turned.convert("L"))[20]
        assert row[0] > row[-1]  # the gradient ran downwards, so it runs to the left now


def test_hostile_names_and_embedded_images_survive_every_step(tmp_path: Path) -> None:
    """Images inside the rows and phrases of all kinds: curated, exported, and read again."""
    rows = folder_rows(tmp_path / "in", {"one.jpg": jpeg((20, 40)), "two.jpg": jpeg((20, 40))}, (20, 40))
    hostile = '\x1b[1m😀 it\'s: #1 "<b>" {x} \u2028 & co'
    for row in rows:
        row["annotations"][0]["phrase"] = hostile
        row["image"] = {"bytes": jpeg((20, 40)), "path": row["key"]}
        row["image_ref"] = None
    write_rows(tmp_path / "out", rows)
    curate(str(tmp_path / "out"), str(tmp_path / "curated"), CurateConfig(), CurateResources(workers=1))
    (name,) = {normalise(hostile)}
    assert "\x1b" not in name
    for format in ("yolo", "labelstudio", "webdataset"):
        manifest = export(str(tmp_path / "curated"), str(tmp_path / format), ExportConfig(format))
        assert (manifest["images"], manifest["images_skipped"]) == (2, 0)
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"] == {0: name}
    (label,) = ET.parse(tmp_path / "labelstudio/label_config.xml").iter("Label")
    assert label.get("value") == name


def test_links_point_at_the_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "out", folder_rows(tmp_path / "in", {"a b.jpg": jpeg((20, 40))}, (20, 40)))
    export(str(tmp_path / "out"), str(tmp_path / "x"), ExportConfig("yolo", images="link"))
    (link,) = (tmp_path / "x/images/train").iterdir()
    assert link.is_symlink()
    assert link.resolve() == (tmp_path / "in/a b.jpg").resolve()
    made = make_dataset(tmp_path / "tars", images=2, shards=1)
    with pytest.raises(ConfigError, match=r"shard-0000.tar.*use --images copy"):
        export(str(made.output), str(tmp_path / "y"), ExportConfig("yolo", images="link"))


def test_references_to_elsewhere_are_left_out_and_a_moved_input_is_found(tmp_path: Path) -> None:
    rows = folder_rows(tmp_path / "in", {name: jpeg((20, 40)) for name in ("a.jpg", "b.jpg")}, (20, 40))
    (tmp_path / "secret.jpg").write_bytes(jpeg((20, 40)))
    rows[1]["image_ref"] = {"url": str(tmp_path / "secret.jpg"), "member": None}
    write_rows(tmp_path / "out", rows)
    (tmp_path / "out/_run.json").write_text(json.dumps({"image_root": str(tmp_path / "in")}))
    for images in ("copy", "link"):
        manifest = export(str(tmp_path / "out"), str(tmp_path / images), ExportConfig("yolo", images=images))
        assert (manifest["images"], manifest["images_skipped"]) == (1, 1)
        assert "secret.jpg is outside" in (tmp_path / images / "_skipped.jsonl").read_text()
    (tmp_path / "in").rename(tmp_path / "moved")
    curate(str(tmp_path / "out"), str(tmp_path / "cut"), image_roots=[str(tmp_path / "moved")])
    for source, roots in (("out", (str(tmp_path / "moved"),)), ("cut", ())):
        config = ExportConfig("yolo", image_root=roots)
        assert export(str(tmp_path / source), str(tmp_path / f"from-{source}"), config)["images"] == 1


def test_images_that_are_gone_or_changed_are_left_out_and_listed(tmp_path: Path) -> None:
    names = ["gone.jpg", "cut.jpg", "small.jpg", "good.jpg"]
    rows = folder_rows(tmp_path / "in", {name: jpeg((20, 40)) for name in names}, (20, 40))
    write_rows(tmp_path / "out", rows)
    (tmp_path / "in/gone.jpg").unlink()
    (tmp_path / "in/cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "in/small.jpg").write_bytes(jpeg((10, 20)))
    manifest = export(str(tmp_path / "out"), str(tmp_path / "x"), ExportConfig("webdataset"))
    assert (manifest["images"], manifest["images_skipped"], manifest["rows_in"]) == (1, 3, 4)
    lines = [json.loads(line) for line in (tmp_path / "x/_skipped.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == names[:3]
    assert "not there any more" in lines[0]["reason"]
    assert str(tmp_path / "in") in lines[1]["reason"]
    assert "is 10 x 20 now, was 20 x 40" in lines[2]["reason"]


@pytest.fixture
def made(tmp_path: Path) -> MadeDataset:
    return make_dataset(tmp_path / "made", images=6, shards=1)


# Lance reads a stream of ours, and hides what it raises.
@pytest.mark.parametrize("format", ["coco", "lance"])
def test_a_mask_that_does_not_fit_is_named(made: MadeDataset, tmp_path: Path, format: str) -> None:
    path = made.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["annotations"][0]["segmentation"]["size"] = [7, 7]
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    with pytest.raises(DataError, match=r"0000-00001.*7 x 7") as caught:
        export(str(made.output), str(tmp_path / "x"), ExportConfig(format))
    assert str(path) in str(caught.value)
    assert rows[1]["annotations"][0]["phrase"] in str(caught.value)
    rows[0]["annotations"][0]["bbox"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    with pytest.raises(DataError, match=r"0000-00000.*bbox is null"):
        export(str(made.output), str(tmp_path / "x"), ExportConfig(format), overwrite=True)
    curate(str(made.output), str(tmp_path / "curated"), resources=CurateResources(workers=1))
    export(str(tmp_path / "curated"), str(tmp_path / "x"), ExportConfig(format), overwrite=True)


def test_an_uncurated_dataset_behind_fsspec(made: MadeDataset, tmp_path: Path) -> None:
    remote = fsspec.filesystem("memory")
    remote.put(f"{made.output}/", "/exports/out/", recursive=True)
    for format, name in (("coco", "annotations/instances_train.json"), ("hf", "data/train-00000.parquet")):
        manifest = export("memory://exports/out", f"memory://exports/{format}", ExportConfig(format))
        assert (manifest["images"], manifest["rows_with_error"]) == (5, 1)
        assert remote.exists(f"/exports/{format}/{name}")
    assert len(remote.ls("/exports/coco/images/train")) == 5
    assert json.loads(remote.cat("/exports/coco/_export.json"))["complete"]


def test_targets_are_not_overwritten_by_accident(made: MadeDataset, tmp_path: Path) -> None:
    config = ExportConfig("coco", images="reference")
    export(str(made.output), str(tmp_path / "x"), config)
    with pytest.raises(ConfigError, match="--overwrite replaces it"):
        export(str(made.output), str(tmp_path / "x"), config)
    export(str(made.output), str(tmp_path / "x"), ExportConfig("coco-panoptic"), overwrite=True)
    assert not (tmp_path / "x/annotations/instances_train.json").exists()
    with pytest.raises(ConfigError, match="is not apart"):
        export(str(made.output), str(made.output / "x"), config)
    for options, says in (
        ({"format": "voc"}, "one of coco"),
        ({"format": "yolo", "images": "reference"}, "finds images by file name"),
        ({"format": "hf", "images": "link"}, "inside its files"),
        ({"format": "coco", "images_per_file": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=says):
            ExportConfig(**options)  # type: ignore[arg-type]


@given(st.lists(st.text(max_size=12) | st.text("a_./-", max_size=5), unique=True, max_size=30))
def test_file_names_are_safe_and_differ(texts: list[str]) -> None:
    names = [safe_name(text) for text in texts]
    assert len(set(names)) == len(names)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") for name in names
    )
    assert not any("__" in name or name.startswith("_") or name.endswith("_") for name in names)
    pairs = {f"{first}__{second}" for first in names for second in names}
    assert len(pairs) == len(names) ** 2
