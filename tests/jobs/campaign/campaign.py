"""A campaign: runs of the command on a store behind a misbehaving proxy, and what they must leave."""

from __future__ import annotations

import contextlib
import io
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import s3fs

from jobs.annotate import main
from pipeline.dataset.segmentations import decode
from tests.jobs.campaign.proxy import Proxy, Trouble
from tests.pipeline.annotate.inputs import write_shards
from tests.s3_server import S3Server
from tests.seed import SEED

SHARDS, IMAGES = 2, 48  # of each shard: six chunks
ACCOUNTED = "every image is accounted for"
SOURCE = "s3://bucket/in"
_FIXED = (
    *("--phrases", "whole", "--chunk-size", "8", "--device", "cpu", "--replicas", "1"),
    *("--cpus-per-replica", "1", "--stall-timeout", "240"),
)


@dataclass
class Campaign:
    """`wanted`: the rows of an undisturbed run, `names`: its files, `seconds`: how long it took."""

    s3: S3Server
    store: Proxy
    folder: Path
    model: str
    ray_address: str
    wanted: list[dict[str, Any]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def fs(self) -> s3fs.S3FileSystem:
        """The store without the proxy."""
        return self.s3.filesystem()

    def begin(self) -> None:
        """Write the input and run the command undisturbed."""
        write_shards(self.folder / "in", SHARDS, IMAGES)
        self.fs.put(f"{self.folder / 'in'}/", "bucket/in", recursive=True)
        code, said, self.seconds = self.run("s3://bucket/undisturbed")
        assert code == 0, said
        self.wanted = self.rows("s3://bucket/undisturbed")
        self.names = self.files("s3://bucket/undisturbed")
        assert len(self.wanted) == SHARDS * IMAGES
        masks = {row["annotations"][0]["segmentation"]["counts"] for row in self.wanted}
        assert len(masks) > SHARDS * IMAGES // 4  # rows of another image are noticed

    def rng(self, fault: str) -> random.Random:
        return random.Random(f"{SEED} {fault}")

    def run(self, output: str, *more: str, source: str = SOURCE, model: str = "") -> tuple[int, str, float]:
        """(exit code, output, seconds) of `sspsam annotate` in this process."""
        said, began = io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([source, output, "--model", model or self.model, *_FIXED, *more])
        assert "Traceback" not in said.getvalue(), said.getvalue()
        return code, said.getvalue(), time.monotonic() - began

    def troubled(self, trouble: Trouble | None, output: str) -> tuple[int, str, float]:
        """`run` while the proxy makes this trouble."""
        self.store.begin(trouble)
        try:
            return self.run(output)
        finally:
            self.store.begin(None)

    def start(self, output: str, log: Path) -> subprocess.Popen[bytes]:
        """The command as a process of its own, on the Ray of the campaign."""
        command = [sys.executable, "-m", "jobs.annotate", SOURCE, output, "--model", self.model, *_FIXED]
        with log.open("ab") as sink:
            return subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)

    def rows(self, output: str) -> list[dict[str, Any]]:
        if output.startswith("s3://"):
            fs: Any = self.fs
            table = pads.dataset(f"{output[5:]}/annotations", format="parquet", filesystem=fs).to_table()
        else:
            table = pads.dataset(f"{output}/annotations", format="parquet").to_table()
        return sorted(table.to_pylist(), key=lambda row: (row["shard"], row["index"]))

    def files(self, output: str) -> set[str]:
        if output.startswith("s3://"):
            path = output.removeprefix("s3://")
            return {str(name).removeprefix(f"{path}/") for name in self.fs.find(path)}
        return {str(path.relative_to(output)) for path in Path(output).rglob("*") if path.is_file()}

    def check(self, output: str) -> str:
        """Rows as of the undisturbed run, each input once. Returns what else lies in OUTPUT."""
        rows = self.rows(output)
        assert max(Counter((row["shard"], row["index"]) for row in rows).values()) == 1
        assert rows == self.wanted
        return ", ".join(sorted(self.files(output) - self.names)) or "nothing"


def compare(rows: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> str:
    """Asserts that the masks are the same; where a batch fell otherwise a pixel at their edges may not be."""
    equal = True
    for row, other in zip(rows, wanted, strict=True):
        pairs = zip(row["annotations"], other["annotations"], strict=True)
        for one, two in pairs:
            assert (one["phrase"], one["has_target"]) == (two["phrase"], two["has_target"])
            equal &= one["segmentation"] == two["segmentation"]
            masks = [decode(mask["segmentation"]) for mask in (one, two)]
            assert (masks[0] & masks[1]).sum() >= 0.999 * (masks[0] | masks[1]).sum()
    return "yes" if equal else "IoU 0.999 at least (batched otherwise)"


def line_of(said: str, pattern: str) -> str:
    """The first line of what was said that holds the pattern."""
    found = next((line.strip() for line in said.splitlines() if re.search(pattern, line)), None)
    assert found is not None, said
    return found[:200]
