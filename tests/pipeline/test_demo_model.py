"""The mark of the demo model: said before a run, kept in the manifest, shown by report and view."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from pipeline.annotate import dry_run as dry
from pipeline.annotate import job
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.dataset.opening import open_dataset
from pipeline.report import make_report
from pipeline.report.report_config import ReportConfig
from pipeline.stats import agree
from pipeline.view.server import Viewer
from pipeline.view.view_config import ViewConfig
from sspsam.known_models import caveat, drawn_shards
from tests.pipeline.annotation_fixture import make_dataset

SHARDS = Path(__file__).parents[2] / "examples" / "shards"
SENTENCE = "is a demo, trained on drawn scenes only: its masks mean nothing on photographs."


class RayWasStartedError(Exception):
    pass


def test_the_mark_goes_from_the_weights_to_the_page(tmp_path: Path, monkeypatch, capsys) -> None:
    """Under another name too: the digest tells. Ray is not needed for what is said before it starts."""
    made = make_dataset(tmp_path / "made", images=4, shards=1)
    weights = tmp_path / "mine"
    shutil.copytree(str(files("sspsam")) + "/weights/tiny", weights)
    given = {"input": str(made.input), "output": str(tmp_path / "output"), "model": str(weights)}

    def no_ray() -> None:
        raise RayWasStartedError

    monkeypatch.setattr(job, "connected", no_ray)
    monkeypatch.setattr(dry, "connected", no_ray)
    said: list[str] = []
    with pytest.raises(RayWasStartedError):
        job.annotate(AnnotateConfig.from_options(given), say=said.append)
    with pytest.raises(RayWasStartedError):
        dry.dry_run(AnnotateConfig.from_options(given | {"model": "tiny"}))
    for line in (said[0], capsys.readouterr().out):
        assert SENTENCE in line
        assert "--model hf://wayneicloud/SSP-SAM" in line
    model = json.loads((tmp_path / "output" / "_run.json").read_text())["model"]
    assert model["trained_on"] == "drawn scenes"

    manifest = made.output / "_run.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"model": model}))
    page = make_report(ReportConfig(str(made.output))).page.read_text()
    assert f"Model {weights} {SENTENCE}" in page
    viewer = Viewer(ViewConfig(str(made.output)))
    try:
        viewer.fill()
        assert (viewer.problem, viewer.caveat) == (None, f"Model {weights} {SENTENCE}")
    finally:
        viewer.close()


def test_only_drawn_scenes_go_without_the_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """Shards of examples/ are known by their bytes, wherever they lie; another shard brings the line."""
    shards = tmp_path / "mine"
    shutil.copytree(SHARDS, shards)
    assert {path.stat().st_size for path in shards.iterdir()} == set(drawn_shards().values())

    def no_ray() -> None:
        raise RayWasStartedError

    monkeypatch.setattr(dry, "connected", no_ray)

    def said(model: str) -> str:
        with pytest.raises(RayWasStartedError):
            dry.dry_run(AnnotateConfig.from_options({"input": str(shards), "output": "out", "model": model}))
        return capsys.readouterr().out

    assert said("tiny") == ""
    assert "has random weights" in said("random:tiny")
    tar = shards / "scenes-01.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"1")
    assert SENTENCE in said("tiny")


def test_who_is_marked(tmp_path: Path) -> None:
    """Manifests from before the mark by their name; a curated copy by the run it was made from."""
    made = make_dataset(tmp_path, images=2, shards=1)
    assert caveat(open_dataset(str(made.output)).model()) is None
    assert caveat({"name": "mine.pth", "sha256": "0"}) is caveat(None) is None
    assert caveat({"name": "random:tiny"}) == "Model random:tiny has random weights: its masks mean nothing."
    (made.output / "_run.json").unlink()
    assert open_dataset(str(made.output)).model() == {}
    (made.output / "_curation.json").write_text(
        json.dumps({"complete": True, "run": {"model": {"name": "tiny", "sha256": "0"}}})
    )
    assert SENTENCE in str(caveat(open_dataset(str(made.output)).model()))
    agree(str(made.output), str(made.truth), str(tmp_path / "agreed"))
    assert SENTENCE in str(caveat(open_dataset(str(tmp_path / "agreed")).model()))
