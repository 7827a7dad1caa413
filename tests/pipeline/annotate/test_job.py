"""The annotate job on a real Ray: every image accounted for once, whatever breaks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.cli import main as cli
from pipeline.annotate import job, replica_speed, watch
from pipeline.annotate.cluster import alive_nodes
from pipeline.annotate.job import annotate
from pipeline.annotate.run_summary import RunSummary
from pipeline.dataset.parts import part_of
from sspsam.errors import ConfigError
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotate import faults
from tests.pipeline.annotate.inputs import picture, sample_members, two_phrases, write_shards, write_tar
from tests.pipeline.annotate.runs import configure, files, rows, say
from tests.reliability import record

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900)]

#: Shards of three (00000, 00001, 00002) in part 2 of 2.
SECOND_PART = sum(part_of(f"{shard:05d}", 2) == 2 for shard in range(3))


@pytest.fixture(scope="module")
def undisturbed(
    micro_model: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, RunSummary]:
    """(input, output, summary) of a run in which nothing goes wrong: 3 shards of 20 images."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write_shards(folder / "in", shards=3, samples=20)
    config = configure(source, folder / "out", micro_model)
    return source, folder / "out", annotate(config, phrase_source=two_phrases)


def test_writes_what_the_segmenter_draws_with_one_row_an_image(
    undisturbed: tuple[Path, Path, RunSummary], micro_model: Path
) -> None:
    _, output, summary = undisturbed
    assert summary.exit_code == 0
    assert (summary.shards, summary.samples, summary.ok, summary.phrases) == (3, 60, 60, 120)
    found = rows(output)
    assert [(r["shard"], r["index"]) for r in found] == [
        (f"{shard:05d}", index) for shard in range(3) for index in range(20)
    ]
    assert [r["key"] for r in found] == [f"{number:06d}" for number in range(60)]
    assert sum(a["has_target"] for r in found for a in r["annotations"]) == summary.masks
    for row in found:
        for a in row["annotations"]:
            assert row["caption"][a["start"] : a["end"]] == a["phrase"]
    from pipeline.annotate.annotator import LoadSegmenter

    segmenter = LoadSegmenter(str(micro_model), "cpu")()
    row = found[20]  # its chunk is computed alone here as there: 8 images, 2 phrases each
    drawn = segmenter.segment_images([picture(n) for n in range(20, 28)], [["dog"]] * 8)
    assert (row["width"], row["height"], row["phash"]) == (96, 80, drawn[0].phash)
    assert row["image_ref"]["url"] == "00001.tar"  # relative to INPUT, which the manifest names
    assert row["image"] is None
    assert sorted(files(output)) == [f"annotations/{shard:05d}/part-00000.parquet" for shard in range(3)]
    assert not (output / "_chunks").exists()
    part = pa.parquet.ParquetFile(output / "annotations/00002/part-00000.parquet")
    assert part.schema_arrow.equals(ANNOTATION_SCHEMA)
    said = json.loads(part.metadata.metadata[b"sspsam.chunks"])
    assert [(chunk["samples"], chunk["last"]) for chunk in said] == [(8, False), (8, False), (4, True)]
    run = json.loads(part.metadata.metadata[b"sspsam.run"])
    manifest = json.loads((output / "_run.json").read_bytes())
    assert run["model"] == manifest["model"]
    assert len(manifest["model"]["sha256"]) == 64
    assert [shard["name"] for shard in manifest["inputs"]] == ["00000", "00001", "00002"]
    assert all(shard["size"] and shard["etag"] for shard in manifest["inputs"])
    stats = json.loads((output / "_stats.json").read_bytes())
    assert stats["complete"] is True
    assert stats["stage_seconds"]["model"] > 0
    assert "| phrases | 120 |" in (output / "README.md").read_text()


def test_same_command_resumes_and_another_is_refused(
    undisturbed: tuple[Path, Path, RunSummary], micro_model: Path, tmp_path: Path
) -> None:
    import shutil

    source, first, _ = undisturbed
    output = tmp_path / "out"
    shutil.copytree(first, output)
    before, wanted = files(output), rows(output)
    config = configure(source, output, micro_model)
    again = annotate(config, phrase_source=two_phrases)
    assert (again.exit_code, again.computed, again.samples) == (0, 0, 60)
    assert files(output) == before

    # A file that somebody cut short, one that is gone, a receipt that is gone.
    cut = output / "annotations/00000/part-00000.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    (output / "annotations/00001/part-00000.parquet").unlink()
    (output / "_shards/00002.json").unlink()
    resumed = annotate(config, phrase_source=two_phrases, say=say)
    assert (resumed.exit_code, resumed.computed, resumed.samples) == (0, 40, 60)
    after = files(output)
    assert {name for name in after if after[name] != before[name]} == {
        "annotations/00000/part-00000.parquet",
        "annotations/00001/part-00000.parquet",
    }
    assert rows(output) == wanted
    foreign = output / "annotations/mine.parquet"
    shutil.copy(cut, foreign)
    with pytest.raises(ConfigError, match=r"annotations/mine\.parquet was not written by this.*move it"):
        annotate(config, phrase_source=two_phrases)
    foreign.unlink()

    for options, message in (
        ({"chunk_size": 9}, "--chunk-size was 8, now 9"),
        ({"max_phrases": 1}, "--max-phrases was None, now 1"),
        ({"model": "random:tiny"}, r"--model was .*micro \(sha256 \w{12}\), now random:tiny"),
        ({"input": str(source / "0000[02].tar")}, "INPUT had shard .*00001.tar, now gone"),
    ):
        with pytest.raises(ConfigError, match=message):
            annotate(configure(source, output, micro_model, **options), phrase_source=two_phrases)
    assert files(output) == after
    (output / "README.md").write_text("# My own\n")
    config = configure(source, output, micro_model, overwrite=True, limit=23, sample=0.5)
    anew = annotate(config, phrase_source=two_phrases)
    assert (anew.exit_code, anew.samples) == (0, 23)
    assert (output / "README.md").read_text() == "# My own\n"
    assert " 23 samples, " in json.loads((output / "croissant.json").read_bytes())["description"]
    kept = {row["key"] for row in wanted}
    assert len({row["key"] for row in rows(output)} & kept) == 23


@pytest.mark.chaos
def test_jobs_of_parts_fill_one_dataset(
    undisturbed: tuple[Path, Path, RunSummary],
    micro_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Part 2 of 2 comes first and measures the chunk size, which the other one keeps to; `sspsam stats` names
    the one that is missing; the last writes the totals."""
    source, wanted, all_at_once = undisturbed
    output = tmp_path / "out"
    said: list[str] = []
    for name, value in {"_SMALL_BYTES": 0, "_FEWEST": 8, "_MOST": 8}.items():
        monkeypatch.setattr(replica_speed, name, value)
    config = configure(source, output, micro_model, part="2/2", chunk_size="auto")
    second = annotate(config, phrase_source=two_phrases, say=said.append)
    assert any(re.fullmatch(r"chunks of 8 images: one replica draws [\d.,]+ a second", text) for text in said)
    monkeypatch.setattr(job, "choose_chunk_size", None)
    assert (second.exit_code, second.shards) == (0, SECOND_PART)
    assert f"part 2/2: {3 - SECOND_PART} shards of all parts are not finished yet" in said
    assert json.loads((output / "_stats.json").read_bytes())["complete"] is False
    assert f"**Not finished: {SECOND_PART} of 3 shards" in (output / "README.md").read_text()
    assert cli(["stats", str(output)]) == 0
    assert f"{3 - SECOND_PART} of 3 shards are not finished, in part 1/2: " in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--chunk-size was 8, now 9"):
        annotate(configure(source, output, micro_model, part="1/2", chunk_size=9), phrase_source=two_phrases)
    config = configure(source, output, micro_model, part="1/2", chunk_size="auto")
    first = annotate(config, phrase_source=two_phrases, say=say)
    assert (first.exit_code, first.shards) == (0, 3 - SECOND_PART)
    totals = json.loads((output / "_stats.json").read_bytes())
    assert (totals["complete"], totals["samples"], totals["masks"]) == (True, 60, all_at_once.masks)
    assert rows(output) == rows(wanted)
    assert "| samples | 60 |" in (card := (output / "README.md").read_text())
    assert "Not finished" not in card
    assert "not finished" not in (cli(["stats", str(output)]) or capsys.readouterr().out)


@pytest.mark.chaos
def test_a_killed_replica_changes_nothing(
    undisturbed: tuple[Path, Path, RunSummary], micro_model: Path, tmp_path: Path
) -> None:
    source, wanted, _ = undisturbed
    notes = tmp_path / "notes"
    notes.mkdir()
    factory = faults.LoadFaulty(micro_model, notes, seconds_per_call=0.5)
    killed: list[int] = []

    def kill() -> None:
        # Once: a chunk that dies twice is split, batched otherwise, and equal only up to rounding.
        while not list((tmp_path / "out").glob("_chunks/*/*")):
            time.sleep(0.05)
        time.sleep(0.2)  # in the middle of its call
        killed.extend(int(note.name[8:]) for note in notes.glob("replica-*"))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    config = configure(source, tmp_path / "out", micro_model)
    summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory, say=say)
    killer.join(timeout=1)
    assert len(killed) == 1
    assert len(list(notes.glob("replica-*"))) >= 2  # another took its place
    assert (summary.exit_code, summary.samples) == (0, 60)
    assert summary.deaths <= 1  # one between two chunks has nothing to blame
    assert rows(tmp_path / "out") == rows(wanted)
    done = "SIGKILL in its call; OUTPUT on a local disk"
    record("a replica killed", done, "yes", "exit 0 of the same run", None)


def test_a_chain_that_breaks_is_run_again_for_what_is_missing(
    undisturbed: tuple[Path, Path, RunSummary], micro_model: Path, tmp_path: Path
) -> None:
    source, wanted, _ = undisturbed
    notes = tmp_path / "notes"
    notes.mkdir()
    said: list[str] = []
    summary = annotate(
        configure(source, tmp_path / "out", micro_model),
        reader=faults.FlakyReader(notes),
        phrase_source=two_phrases,
        say=said.append,
    )
    assert (notes / "failed").exists()
    assert (summary.exit_code, summary.computed, summary.samples) == (0, 60, 60)
    assert rows(tmp_path / "out") == rows(wanted)


@pytest.mark.chaos
def test_samples_that_kill_are_found_and_the_rest_is_annotated(micro_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    members = dict(sample_members(0, 24))
    members["000005.jpg"] += faults.KILLER
    members["000012.jpg"] += faults.HANGER
    members["000017.txt"] = b"a dog that kills"
    members["000023.txt"] = b"a dog that raises"
    write_tar(source / "poison.tar", members.items())
    write_tar(source / "crash.tar", sample_members(100, 20))
    notes = tmp_path / "notes"
    notes.mkdir()
    config = configure(source, tmp_path / "out", micro_model, image_timeout=4.0, chunk_size=4)
    summary = annotate(
        config,
        reader=faults.killing_reader,
        phrase_source=faults.killing_phrases,
        segmenter_factory=faults.LoadFaulty(micro_model, notes),
        say=say,
    )
    assert summary.exit_code == 0
    assert summary.kinds == {"killed_worker": 4, "phrase_source": 1}
    found = {row["key"]: row for row in rows(tmp_path / "out")}
    bad = {"000005", "000012", "000017", "000023"}
    for key, row in found.items():
        if key in bad or key.startswith("crash"):
            assert row["status"] == "error"
            assert row["annotations"] == []
        else:
            assert row["status"] == "ok", row["error"]
            assert len(row["annotations"]) == 2
    assert bad < set(found)
    assert "kills" not in str(found["000023"]["error"])
    assert "KeyError" in found["000023"]["error"]["message"]
    # The shard whose reader dies ends there: its first chunk, and a row that says so.
    crash = [row for row in found.values() if row["shard"] == "crash"]
    assert [row["index"] for row in crash] == list(range(5))
    assert "killed its process twice" in crash[-1]["error"]["message"]
    done = "of 44 samples one kills the replica, one hangs in it, one kills the phrase source, one the reader"
    once = "but for 15 that follow the reader's end"
    said = "exit 0; 4 rows say killed_worker"
    record("samples that kill their process, or hang", done, "all others", said, None, once=once)


@pytest.mark.chaos
def test_a_chain_that_stands_still_after_a_lost_node_is_started_again(
    undisturbed: tuple[Path, Path, RunSummary],
    micro_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One call finishes, with the same rows. Here the node is a name; the chaos test loses a real one."""
    source, wanted, _ = undisturbed

    def nodes() -> dict[str, dict[str, float]]:
        gone = (tmp_path / "hung").exists()
        return alive_nodes() | ({} if gone else {"a-node-on-the-spot-market": {}})

    monkeypatch.setattr(job, "alive_nodes", nodes)
    monkeypatch.setattr(watch, "_LOST_NODE_SECONDS", 1.0)
    config = configure(source, tmp_path / "out", micro_model)
    factory = faults.LoadHanging(micro_model, tmp_path)
    summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory, say=say)
    assert summary.exit_code == 0
    assert summary.deaths == 0  # the replica was ended on purpose
    said = capsys.readouterr().err
    assert said.count("node a-node-o was lost, and nothing came for") == 1
    assert rows(tmp_path / "out") == rows(wanted)


@pytest.mark.chaos
@pytest.mark.parametrize("replaced", ["at-once", "late"])
def test_a_lost_node_changes_nothing(
    undisturbed: tuple[Path, Path, RunSummary], micro_model: Path, tmp_path: Path, replaced: str
) -> None:
    source, wanted, _ = undisturbed
    notes = tmp_path / "notes"
    notes.mkdir()
    arguments = [str(path) for path in (source, tmp_path / "out", micro_model, notes)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Its own process: a cluster of several nodes must be made from the main thread of a fresh one.
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.annotate.lose_a_node", *arguments, replaced],
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another node is there" in done.stdout
    if replaced == "late":
        assert "was lost, and nothing came for" in done.stderr
        assert "waiting for the cluster: 1 replicas of 1.2 CPUs leave 0 of 1" in done.stderr
    assert rows(tmp_path / "out") == rows(wanted)
    done = f"the node of the replica is killed, another one comes {replaced}"
    record("node lost", done, "yes", "exit 0 of the same run", None)
