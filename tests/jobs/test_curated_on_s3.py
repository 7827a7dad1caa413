"""From annotations in a bucket to a curated dataset and an export in it, by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.dataset.opening import open_dataset
from tests.pipeline.annotation_fixture import make_dataset
from tests.s3_server import s3_server


def test_stats_curate_and_export_in_a_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import s3fs

    with s3_server(tmp_path / "server") as s3:
        bucket = f"s3://{s3.bucket}"
        made = make_dataset(tmp_path / "made", images=12, image_url=f"{bucket}/input")
        remote = s3fs.S3FileSystem(**s3.options)
        for folder, name in ((made.output, "output"), (made.input, "input"), (made.truth, "truth")):
            remote.put(f"{folder}/", f"{s3.bucket}/{name}/", recursive=True)
        options = ["--storage-options", json.dumps(s3.options)]
        assert main(["stats", f"{bucket}/output", "--compare", f"{bucket}/truth", "--json", *options]) == 0
        assert json.loads(capsys.readouterr().out)["images"]["both"] == 12
        curate = ["curate", f"{bucket}/output", f"{bucket}/curated", "--where", "score > 0.5", *options]
        assert main([*curate, "--workers", "1", "--phash-distance", "2"]) == 0
        with open_dataset(f"{bucket}/curated", storage_options=s3.options).connect(threads=1) as connection:
            ((masks, least),) = connection.execute("SELECT count(*), min(score) FROM masks").fetchall()
        assert masks > 5
        assert least > 0.5
        assert main([*curate, "--workers", "1"]) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert main(["export", f"{bucket}/curated", f"{bucket}/coco", "--format", "coco", *options]) == 0
        coco = json.loads(remote.cat(f"{s3.bucket}/coco/annotations/instances_train.json"))
        assert remote.exists(f"{s3.bucket}/coco/images/train/{coco['images'][0]['file_name']}")
        manifest = json.loads(remote.cat(f"{s3.bucket}/coco/_export.json"))
        assert manifest["complete"]
        assert manifest["masks"] == masks
