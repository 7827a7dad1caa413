"""What the fuzzers found, each as the smallest input that showed it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import main
from pipeline.curate.predicate import parse_predicate
from pipeline.dataset.dataset_schema import CURATED_SCHEMA
from pipeline.dataset.image_rows import Rows, card
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.phrase_rows import batch_schema
from pipeline.import_.coco_instances import read_segmentation
from pipeline.view.server import _JSON
from sspsam.checkpoint import load_config, read_weights
from sspsam.data import DataConfig, Segmentation, read_records
from sspsam.data.benchmark_files import stream_json
from sspsam.data.json_depth import Nested
from sspsam.errors import CheckpointError, ConfigError, DataError, SSPSAMError
from sspsam.language import tokenizer
from sspsam.rle import check_rle
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import make_dataset
from tests.sspsam.data.benchmarks import instances, refer_refs


@pytest.fixture
def model(micro_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(micro_model, tmp_path / "model"))


def _config(**changed: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        config = json.loads(data)
        return json.dumps(config | {"clip": config["clip"] | changed}).encode()

    return change


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("config.json", lambda data: b"\xff" + data, "config.json"),
        ("config.json", lambda data: b"[" * 100_000, "config.json"),
        ("config.json", _config(vision_layers=2**31), "config.json: clip.vision_layers"),  # it built them all
        ("config.json", _config(vision_width=10**400), "config.json: clip.vision_width"),
        ("config.json", _config(text_layers="2"), "config.json: clip.text_layers must be"),
        ("tokenizer.txt.gz", lambda data: data[:200] + bytes(100) + data[300:], "tokenizer.txt.gz"),
    ],
)
def test_a_damaged_model_is_named(model: Path, name: str, spoil: Callable[[bytes], bytes], said: str) -> None:
    (model / name).write_bytes(spoil((model / name).read_bytes()))
    with pytest.raises(SSPSAMError) as caught:
        read_weights(str(model))
    assert said in str(caught.value)


def test_a_merges_file_that_unpacks_to_more_than_any_is_not_unpacked(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_MOST_BYTES", 1000)
    (model / "tokenizer.txt.gz").write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(CheckpointError, match=r"tokenizer\.txt\.gz.*more than 1000 bytes"):
        read_weights(str(model))


def test_shapes_that_a_checkpoint_only_claims_are_not_built(tmp_path: Path) -> None:
    """A view over one number, of a terabyte: it was copied."""
    path = tmp_path / "vast.pth"
    torch.save({"model": {"encoder.visual.proj": torch.zeros(()).expand(2**19, 2**19)}}, path)
    with pytest.raises(CheckpointError, match=r"vast\.pth: encoder\.visual\.proj .* not all in the file"):
        load_config(path)


@pytest.mark.parametrize("spoil", [lambda refs: ["x", *refs], lambda refs: [{**refs[0], "sentences": 3}]])
def test_refs_of_another_form_are_named(tmp_path: Path, spoil: Callable[[list[Any]], list[Any]]) -> None:
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(spoil(refer_refs())))
    (tmp_path / "instances.json").write_text(json.dumps(instances()))
    with pytest.raises(DataError, match=str(tmp_path)):
        list(read_records(DataConfig(str(tmp_path), "refer", split="train")))


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rows = pq.read_table(path).to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, ANNOTATION_SCHEMA), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(width=0),
        lambda row: row["annotations"][0].update(area=2**53 + 1),
        lambda row: row["annotations"].append(None),
    ],
)
def test_rows_that_no_writer_makes(tmp_path: Path, change: Callable[[dict[str, Any]], None], capsys) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    _rewrite(output / "annotations/shard-0000/00000.parquet", change)
    assert main(["stats", str(output)]) == 0
    said = capsys.readouterr().err
    code = main(["export", str(output), str(tmp_path / "coco"), "--format", "coco", "--workers", "1"])
    said += capsys.readouterr().err
    assert code == 0 or "00000.parquet: image '0000-00000'" in said
    assert "Traceback" not in said


def test_training_data_names_the_damaged_file(tmp_path: Path) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    config = DataConfig(str(output), "annotations", split="all")
    path = output / "annotations/shard-0000/00000.parquet"
    _rewrite(path, lambda row: row["image_ref"].update(url=None))
    with pytest.raises(DataError, match=rf"{path}: image 0000-00000: the row has no image reference"):
        list(read_records(config))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"00000\.parquet"):
        list(read_records(config))


def test_a_mask_whose_size_lacks_numbers_names_its_record(tmp_path: Path) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    path = output / "annotations/shard-0000/00000.parquet"

    def spoil(row: dict[str, Any]) -> None:
        row["annotations"][0] |= {"has_target": True}
        row["annotations"][0]["segmentation"]["size"] = []

    _rewrite(path, spoil)
    record, *_ = read_records(DataConfig(str(output), "annotations", split="all"))
    with pytest.raises(DataError, match=rf"^record {record.key} of .*shard-0000\.tar: "):
        record.rle(record.height, record.width)


@pytest.mark.parametrize("text", ["not " * 900 + "true", "(" * 3000, "phrase = '\ud800'"])
def test_predicates_that_broke_the_parser(text: str) -> None:
    with pytest.raises(ConfigError, match="--where"):
        parse_predicate(text, batch_schema(CURATED_SCHEMA))


def test_a_message_that_would_repeat_a_vast_value_is_cut() -> None:
    with pytest.raises(ConfigError, match="--where") as caught:
        parse_predicate("phrase = '" + "x" * 200_000, batch_schema(CURATED_SCHEMA))
    assert len(str(caught.value)) < 5000
    assert str(caught.value).endswith("unterminated string literal")
    assert "characters left out" in str(caught.value)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 50_000, b"[1," * 2000])
def test_json_that_nests_without_end_is_refused(tmp_path: Path, text: bytes) -> None:
    """The parser keeps the path of each level: it took 25 GB."""
    (tmp_path / "instances.json").write_bytes(text)
    with pytest.raises(DataError, match=r"instances\.json is not whole JSON .*nests deeper"):
        list(stream_json(str(tmp_path / "instances.json")))


@given(
    st.recursive(
        st.text('a[]{}"\\') | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text('"{'), one)
    )
)
def test_strings_do_not_count_as_nesting(tree: Any) -> None:
    data = json.dumps(tree).encode()
    stream = Nested(io.BytesIO(data))
    assert b"".join(iter(lambda: stream.read(3), b"")) == data
    assert stream._depth == 0


@pytest.mark.parametrize("corner", [2.0**63, float("nan"), 3e38])
def test_outlines_that_no_image_holds_are_refused(corner: float) -> None:
    """pycocotools draws each pixel of an outline into memory: it was killed, or died of a wild pointer."""
    outline = Segmentation.from_polygons([[0, 0, corner, 3, 5, 9]])
    with pytest.raises(DataError, match="pixels around"):
        outline.rle(72, 96)
    with pytest.raises(DataError, match="pixels around"):
        read_segmentation([[0, 0, corner, 3, 5, 9]], 72, 96)


@pytest.mark.parametrize("height", ["72", -1, 2**40])
def test_sizes_that_no_image_has_name_the_benchmark(tmp_path: Path, height: Any) -> None:
    truth = instances()
    for image in truth["images"]:
        image["height"] = height
        (tmp_path / image["file_name"]).touch()
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refer_refs()))
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    with pytest.raises(DataError, match=rf"{tmp_path}: .* cannot have the size"):
        list(read_records(DataConfig(str(tmp_path), "refer", split="train", images=str(tmp_path))))


def test_a_mask_file_with_a_damaged_header(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.zeros((72, 96), np.uint8))
    data = bytearray((tmp_path / "1.npy").read_bytes())
    data[20] = 0
    (tmp_path / "1.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"1\.npy is no mask"):
        Segmentation(file=str(tmp_path / "1.npy")).rle(72, 96)


def test_manifests_and_references_of_another_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    path = output / "annotations/shard-0000/00000.parquet"
    _rewrite(path, lambda row: row["image_ref"].update(url="/etc/\0passwd"))
    table = pq.read_table(path)
    place = table.schema.get_field_index("height")
    pq.write_table(table.set_column(place, "height", table["height"].cast(pa.int64())), path)
    (output / "_run.json").write_text('{"runs": [3, {"options": 3}], "options": 3, "model": "x"}')
    assert main(["curate", str(output), str(tmp_path / "cut"), "--workers", "1"]) == 0
    index = Index(open_dataset(str(output)))
    index.refresh()
    assert index.progress().problems == ()
    with pytest.raises(DataError, match="is not followed"):
        open_dataset(str(output)).image_places.admit({"url": "/etc/\0passwd", "member": None})


def test_annotations_that_are_null_are_shown_as_the_index_has_them(tmp_path: Path) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    path = output / "annotations/shard-0000/00000.parquet"
    _rewrite(path, lambda row: row.update(annotations=[None, row["annotations"][0] | {"phrase": None}]))
    index = Index(open_dataset(str(output)))
    index.refresh()
    ((image,),) = index.query("select id from images where key = '0000-00000'")
    rows = Rows(index)
    (shown,) = rows.read([image])
    rows.close()
    indexed = index.query(f"select phrase from masks join phrases using (phrase_id) where image_id = {image}")
    assert [one["phrase"] for one in card(shown, {})["annotations"]] == ["", ""] == [p for (p,) in indexed]


def test_numbers_that_json_does_not_have_are_null_in_the_viewer() -> None:
    assert (
        _JSON({"score": float("nan"), "box": [1.5, float("inf")]}).body == b'{"score":null,"box":[1.5,null]}'
    )


def test_json_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "instances.json").write_text('{"images": [{"id": 99999999999999999999999}]}')
    assert main(["import", str(tmp_path / "instances.json"), str(tmp_path / "out"), "--format", "coco"]) == 2
    said = capsys.readouterr().err
    assert "instances.json" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "rle", [{"size": "ab", "counts": "0"}, {"size": [2, None], "counts": "0"}, {"size": [1, 1]}]
)
def test_what_is_no_rle(rle: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no RLE"):
        check_rle(rle)
