"""Input that is damaged or hostile, on a store: its rows say so, and all others are as they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.campaign.campaign import ACCOUNTED, IMAGES, Campaign, compare, line_of
from tests.pipeline.annotate.inputs import caption, picture, sample_members, write_tar
from tests.pipeline.bad_samples import _png_of_size
from tests.processes import wait_until
from tests.reliability import record

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def _spoiled(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Shards of bad input in `folder`: file name -> (fault, what was done, kind of the reason)."""
    tar = write_tar(folder / "cut.tar", sample_members(0, 16))
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size * 2 // 3])
    plain: dict[str, Any] = {"row_group_size": 8, "write_page_checksum": True, "use_dictionary": False}
    plain["compression"] = "none"
    columns = {"image": [picture(n) for n in range(16)], "caption": [caption(n) for n in range(16)]}
    for name in ("footer.parquet", "page.parquet"):
        pq.write_table(pa.table(columns), folder / name, **plain)
    data = (folder / "footer.parquet").read_bytes()
    (folder / "footer.parquet").write_bytes(data[:-40])
    at = data.index(columns["image"][3]) + 100
    (folder / "page.parquet").write_bytes(data[:at] + bytes(9) + data[at + 9 :])
    members = dict(sample_members(0, 8))
    write_tar(folder / "jpeg.tar", (members | {"000003.jpg": members["000003.jpg"][:500]}).items())
    write_tar(folder / "bomb.tar", (members | {"000004.jpg": _png_of_size(60_000, 60_000)}).items())
    write_tar(folder / "twice.tar", [*members.items(), *sample_members(5, 1)])
    return {
        "cut.tar": ("truncated tar", "a tar of 16 samples ends after two thirds", "truncated_shard"),
        "footer.parquet": ("corrupt Parquet footer", "the last 40 bytes are missing", "truncated_shard"),
        "page.parquet": ("corrupt Parquet page", "nine bytes of a page are zero", "damaged_shard"),
        "jpeg.tar": ("corrupt JPEG", "one of 8 JPEGs ends after 500 bytes", "truncated_image"),
        "bomb.tar": (
            "decompression bomb",
            "one of 8 images is a PNG of 60,000 x 60,000",
            "decompression_bomb",
        ),
        "twice.tar": ("duplicate keys", "one of 9 samples has the key of another", "duplicate_key"),
    }


def test_bad_input_becomes_rows_that_say_why(campaign: Campaign) -> None:
    spoiled = _spoiled(campaign.folder / "bad")
    campaign.fs.put(f"{campaign.folder / 'bad'}/", "bucket/bad", recursive=True)
    campaign.fs.pipe_file("bucket/bad.txt", "\n".join(f"s3://bucket/bad/{name}" for name in spoiled).encode())
    code, said, _ = campaign.run("s3://bucket/bad-out", source="s3://bucket/bad.txt")
    assert code == 0, said
    rows = campaign.rows("s3://bucket/bad-out")
    for file, (fault, done, kind) in spoiled.items():
        found = [row for row in rows if row["shard"] == file.partition(".")[0]]
        errors = [row for row in found if row["status"] == "error"]
        assert {row["error"]["kind"] for row in errors} == {kind}, (file, errors)
        assert [row["index"] for row in found] == list(range(len(found)))
        assert len(errors) < len(found) or file == "footer.parquet"
        # Sample n is the campaign's sample n: its masks are those of the undisturbed run.
        same = [row for row in found if row["status"] != "error"]
        equal = compare(same, [campaign.wanted[row["index"]] for row in same])
        once = "one row for what cannot be read" if kind == "truncated_shard" else "yes"
        said = f"exit 0: {len(errors)} rows say {kind}"
        record(fault, done, f"{equal}, {len(same)} others", said, None, once=once)


def test_changed_options_and_inputs_are_refused(campaign: Campaign) -> None:
    output = "s3://bucket/undisturbed"
    before = campaign.files(output)
    for fault, model, more, word in (
        ("an option changed before a resume", "", ["--chunk-size", "9"], "--chunk-size was 8, now 9"),
        ("the model changed before a resume", "random:tiny", [], "--model was"),
    ):
        code, said, _ = campaign.run(output, *more, model=model)
        assert code == 2, said
        record(fault, word, "untouched", f"exit 2: {line_of(said, word)}", None, "nothing")
    kept = campaign.fs.cat_file("bucket/in/00001.tar")
    image = picture(IMAGES)
    swapped = kept.replace(image, image[:-2][::-1] + image[-2:])
    assert len(swapped) == len(kept)
    assert swapped != kept
    campaign.fs.pipe_file("bucket/in/00001.tar", swapped)
    code, said, _ = campaign.run(output)
    campaign.fs.pipe_file("bucket/in/00001.tar", kept)
    assert code == 2, said
    fault, done = "a shard replaced before a resume", "by another of the same name and size"
    record(fault, done, "untouched", f"exit 2: {line_of(said, '00001')}", None, "nothing")
    assert campaign.files(output) == before


@pytest.mark.parametrize("limit", ["cgroup", "rlimit"])
def test_a_sample_that_eats_all_memory(campaign: Campaign, limit: str, tmp_path: Path) -> None:
    """The kernel kills the replica as it would on a full machine; without that right malloc fails instead."""
    folder = Path("/sys/fs/cgroup/memory/sspsam-chaos")
    if limit == "cgroup":
        try:
            folder.mkdir()
        except OSError as error:
            pytest.skip(f"no memory cgroup of our own here ({error}); the test by RLIMIT_DATA runs")
    members = dict(sample_members(0, 24))
    members["000013.txt"] = b"a dog that eats memory"
    write_tar(tmp_path / "in/hungry.tar", members.items())
    options = json.dumps({"cgroup": str(folder) if limit == "cgroup" else ""})
    model = "tests.jobs.campaign.hungry_model:HungryModel"
    try:
        code, said, seconds = campaign.run(
            str(tmp_path / "out"), "--model-options", options, source=str(tmp_path / "in"), model=model
        )
    finally:
        if limit == "cgroup":  # which can be removed once Ray has ended the last replica
            wait_until(lambda: not (folder / "cgroup.procs").read_text(), 60, "no process in the cgroup")
            folder.rmdir()
    assert code == 0, said
    rows = campaign.rows(str(tmp_path / "out"))
    assert [row["index"] for row in rows] == list(range(24))
    errors = [row for row in rows if row["status"] == "error"]
    assert [row["index"] for row in errors] == [13], errors
    record(
        "a sample that eats all memory",
        f"one of 24 asks for memory without end, in a process that may have 1 GiB more ({limit})",
        "23 others",
        f"exit 0: {ACCOUNTED}; a row says {errors[0]['error']['kind']}",
        seconds,
    )
