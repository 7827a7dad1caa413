"""What a run says while it goes, and at its end."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.progress import Progress
from pipeline.annotate.run_summary import RunSummary, duration, stage_seconds, verdict
from pipeline.sources import Shard

SUMMARY = RunSummary(
    output="out",
    shards=2,
    ended=2,
    samples=10,
    ok=7,
    no_phrase=1,
    error=2,
    phrases=20,
    masks=15,
    kinds={"not_an_image": 2},
    computed=10,
    seconds=12.0,
    start_seconds=2.0,
    steady_images=8,
    steady_seconds=4.0,
)


def receipt(samples: int, size: int) -> Receipt:
    return Receipt("a", 0, False, samples, samples - 1, 0, 1, 5, 4, {"image": 1}, {"bytes_in": size})


def test_line_counts_and_tells_the_time_left() -> None:
    stream = io.StringIO()
    shards = [Shard("a", "a.tar", "tar", 1000), Shard("b", "b.tar", "tar", 1000)]
    with Progress(shards, {"b"}, stream) as progress:
        assert "left -" in progress.line()
        progress.add(receipt(8, 500))
        line = progress.line()
        assert "shards 1/2" in line
        assert "images 8  masks 4" in line
        assert "errors 1" in line
        assert "left 0 s" in line
        progress.end_shard("a")
        progress.say("a word")
    said = stream.getvalue()
    assert "a word\n" in said
    assert "shards 2/2" in said.splitlines()[-1]
    unknown = Progress([Shard("a", "a.tar", "tar", None)], set(), stream)
    unknown.add(receipt(8, 500))
    assert "left -" in unknown.line()


def test_exit_code_follows_the_accounting() -> None:
    assert SUMMARY.exit_code == 0
    assert SUMMARY.images_per_second == 2.0
    for change in ({"ok": 8}, {"ended": 1}, {"problems": ("shard a: gone",)}):
        assert replace(SUMMARY, **change).exit_code == 1
    console = Console(file=io.StringIO(), width=100)
    replace(SUMMARY, problems=("shard a: gone",), ended=1).print(console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 2" in text
    assert "shard a: gone" in text
    assert "INCOMPLETE" in text


def test_verdict_names_what_bounds_the_run() -> None:
    def of(steady: float = 100, **seconds: float) -> str:
        notes = {f"{stage}_seconds": value for stage, value in seconds.items()}
        return verdict(stage_seconds(notes), steady)

    assert of(model=90, busy=95, idle=5).startswith("The model bounds the run")
    assert of(model=50, decode=40, busy=95, idle=5).startswith("Decoding images bounds")
    assert of(model=50, busy=50, idle=50, read=60, write=5).startswith("Reading bounds")
    assert of(model=50, busy=50, idle=50, phrases=60).startswith("Finding phrases bounds")
    assert of(model=50, busy=50, idle=50, write=60).startswith("Writing bounds the run: put the replicas")
    assert of(model=50, busy=50, idle=50, write=40, read=30).startswith("Reading bounds"), "idle for longer"
    assert of(3, model=1, busy=1, idle=2, write=1).startswith("The run was too short to say what bounds it")
    assert of(3, model=2, busy=2).startswith("The model bounds the run"), "measured, however short"
    assert of() == ""


def test_durations_read_well() -> None:
    said = [duration(seconds) for seconds in (0.2, 59, 60, 185, 7800)]
    assert said == ["0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]
