"""What somebody else, or a full disk, did to OUTPUT before the same command comes again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.jobs.campaign.campaign import ACCOUNTED, Campaign, line_of
from tests.reliability import record

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_output_that_somebody_changed(campaign: Campaign) -> None:
    """Of a copy of a finished dataset: a foreign file, a part cut short, a receipt gone."""
    output, fs = "s3://bucket/changed", campaign.fs
    for name in campaign.names:
        fs.pipe_file(f"bucket/changed/{name}", fs.cat_file(f"bucket/undisturbed/{name}"))
    fs.pipe_file("bucket/changed/annotations/mine.parquet", b"PAR1")
    before = campaign.files(output)
    code, said, _ = campaign.run(output)
    assert code == 2, said
    assert campaign.files(output) == before
    foreign = line_of(said, r"mine\.parquet")
    fs.rm("bucket/changed/annotations/mine.parquet")
    done = "put into annotations/ of a finished dataset"
    record("a foreign Parquet file in OUTPUT", done, "untouched", f"exit 2: {foreign}", None, "the file")
    part = "bucket/changed/annotations/00000/part-00000.parquet"
    data = fs.cat_file(part)
    fs.pipe_file(part, data[: campaign.rng("part").randrange(1, len(data))])
    fs.rm("bucket/changed/_shards/00001.json")
    code, said, seconds = campaign.run(output)
    assert code == 0, said
    left = campaign.check(output)
    for fault, done in (
        ("a shard's finished file truncated", "cut at a random byte after the run, its receipt stands"),
        ("a shard's receipt deleted", "after the run, its finished file stands"),
    ):
        record(fault, done, "yes", f"the same command: exit 0, {ACCOUNTED}", seconds, left)


def test_a_full_disk_that_gets_space_again(campaign: Campaign, tmp_path: Path) -> None:
    """A real one of 96 KiB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk here: {mounted.stderr.decode().strip()}")
    output = str(disk / "out")
    try:
        code, said, _ = campaign.run(output)
        assert code == 1, said
        why = line_of(said, "No space left on device")
        kept = sorted(name for name in campaign.files(output) if name.startswith("_tmp/"))
        assert kept == []  # what could not be written whole takes no space
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        code, said, seconds = campaign.run(output)
        assert code == 0, said
        left = campaign.check(output)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    done = "OUTPUT on a disk of 96 KiB, which then grows"
    message = f"exit 1: {why}; the same command: exit 0, {ACCOUNTED}"
    record("disk full, then space again", done, "yes", message, seconds, left)
