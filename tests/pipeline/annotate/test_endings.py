"""How a run ends: error rows counted by kind, which can be tried again, or why it cannot go on."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotate.cluster import may_grow
from pipeline.annotate.job import annotate
from sspsam.errors import ConfigError
from tests.pipeline.annotate import faults
from tests.pipeline.annotate.inputs import sample_members, two_phrases, write_shards, write_tar
from tests.pipeline.annotate.runs import configure, files, rows, say
from tests.reliability import record

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900)]


@pytest.fixture
def many_bad(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """1,000 samples of which 60 are bad in 12 ways: (folder, key -> kind of reason)."""
    from tests.pipeline.bad_samples import spoil

    return spoil(tmp_path / "in", samples=1000, bad=60, shard_size=250)


def test_a_thousand_images_with_sixty_bad_ones(
    many_bad: tuple[Path, dict[str, str]], micro_model: Path, tmp_path: Path
) -> None:
    source, reasons = many_bad
    summary = annotate(configure(source, tmp_path / "out", micro_model, chunk_size=64), say=say)
    assert summary.exit_code == 0
    assert summary.samples == 1000
    found = rows(tmp_path / "out")
    assert len(found) == 1000
    reason = {f"{r['shard']}/{r['index']}": r["error"]["kind"] for r in found if r["error"] is not None}
    assert reason == reasons
    assert len(reasons) == 60
    assert len(set(reasons.values())) >= 8
    no_phrase = {"empty_caption", "no_phrase_found", "language"}
    assert summary.language == list(reasons.values()).count("language") > 0
    kinds = Counter(kind for kind in reasons.values() if kind not in no_phrase)
    assert summary.kinds == dict(kinds)
    assert all(r["annotations"] for r in found if r["error"] is None)


@pytest.mark.chaos
def test_errors_are_retried_by_kind(micro_model: Path, tmp_path: Path) -> None:
    source, output, notes = tmp_path / "in", tmp_path / "out", tmp_path / "notes"
    notes.mkdir()
    members = dict(sample_members(0, 40))
    members["000003.jpg"] += faults.HUNGRY
    members["000033.jpg"] = b"not an image at all"
    write_tar(source / "a.tar", members.items())
    run = functools.partial(
        annotate,
        phrase_source=two_phrases,
        segmenter_factory=faults.LoadFaulty(micro_model, notes),
        say=say,
    )
    first = run(configure(source, output, micro_model))
    assert first.exit_code == 0
    assert first.kinds == {"out_of_memory": 1, "not_an_image": 1}
    before = files(output)
    (notes / "more-memory").touch()
    assert run(configure(source, output, micro_model)).computed == 0
    retried = run(configure(source, output, micro_model, retry_errors="out_of_memory"))
    assert (retried.exit_code, retried.computed) == (0, 8)
    assert retried.kinds == {"not_an_image": 1}
    said = "exit 0; a row says out_of_memory, --retry-errors computes it again"
    done = "the model says that one image of 40 does not fit"
    record("a sample that does not fit the model's device", done, "39 others", said, None)
    changed = {name for name, written in files(output).items() if written != before[name]}
    assert changed == {"annotations/a/part-00000.parquet"}
    assert [row["index"] for row in rows(output)] == list(range(40))


@pytest.mark.chaos
def test_a_run_that_cannot_go_on_ends_and_says_why(micro_model: Path, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", shards=1, samples=4)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"segmenter_factory": faults.load_nothing}, "the weights do not fit"),
        ({"reader": faults.broken_reader}, "ConnectionResetError"),
    ]
    for number, (arguments, message) in enumerate(cases):
        output = tmp_path / f"out-{number}"
        config = configure(source, output, micro_model)
        summary = annotate(config, say=say, **{"phrase_source": two_phrases} | arguments)
        assert summary.exit_code == 1
        assert message in " ".join(summary.problems)
        assert json.loads((output / "_stats.json").read_bytes())["complete"] is False
    assert not may_grow()  # so that this is refused at once
    with pytest.raises(ConfigError, match="2 replicas of 1 CPUs leave 0 of 2 for reading"):
        annotate(
            configure(source, tmp_path / "out", micro_model, replicas="2"),
            phrase_source=two_phrases,
        )


@pytest.mark.chaos
def test_a_run_that_stalls_or_whose_replicas_die_at_once_ends(micro_model: Path, tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", shards=1, samples=4)
    four = {"replicas": "4", "cpus_per_replica": 0.25}  # which die side by side
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (faults.load_for_ever, {"stall_timeout": 30}, "load the model (node"),
        (faults.die_while_loading, {"stall_timeout": 600, **four}, "died 20 times in a row"),
    ]
    for number, (factory, options, message) in enumerate(cases):
        config = configure(source, tmp_path / f"out-{number}", micro_model, **options)
        summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory, say=say)
        assert summary.exit_code == 1
        assert message in " ".join(summary.problems)
