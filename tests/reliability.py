"""The table of faults: tests record what became of each; the session's end prints it.

`RELIABILITY=docs/reliability.md make chaos` writes the page.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

COLUMNS = (
    *("fault", "what was done", "rows equal", "each input once"),
    *("exit code and message", "recovery", "left behind", "test"),
)


@dataclass(frozen=True)
class Fault:
    """What became of one fault. `seconds`: beyond an undisturbed run, or of the run that resumed it."""

    name: str
    done: str
    rows: str
    once: str
    message: str
    seconds: float | None
    leftovers: str
    test: str  # file::function

    def cells(self) -> tuple[str, ...]:
        recovery = "-" if self.seconds is None else f"{self.seconds:.0f} s"
        cells = (self.name, self.done, self.rows, self.once, self.message, recovery, self.leftovers)
        return tuple(cell.replace("|", "/") for cell in (*cells, self.test))


RECORDED: list[Fault] = []


def record(
    name: str,
    done: str,
    rows: str,
    message: str,
    seconds: float | None,
    leftovers: str = "not looked at",
    once: str = "yes",
) -> None:
    """Put a line into the table; called after what it says was asserted."""
    test = os.environ["PYTEST_CURRENT_TEST"].partition(" (")[0].partition("[")[0]
    RECORDED.append(Fault(name, done, rows, once, message, seconds, leftovers, test.removeprefix("tests/")))


def table() -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(fault.cells() for fault in RECORDED)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(seed: str) -> str:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# What faults do to a run

The promise of `sspsam annotate`: every image of the input has one row in OUTPUT, whatever happens, and
the same command again finishes what a fault ended. Here {len(RECORDED)} faults were made on purpose. The page
was written by the run that made them, `RELIABILITY=docs/reliability.md make chaos` on {today}, on
{os.cpu_count()} shared cores ({platform.machine()}), Python {platform.python_version()}; what a line says was
asserted before it was written.

How: real runs of the command on a real Ray. Where the fault is the store's, input and output are on a real S3
server (SeaweedFS), and a proxy that stands before it does what the second column says
([tests/jobs/campaign/proxy.py](../tests/jobs/campaign/proxy.py)): 96 images in two shards, chunks of 8, the
bundled model. The moments are random, from seed {seed}: `make chaos SEED={seed}` plays all of it again, and
`SEED={seed} .venv/bin/python -m pytest -s tests/...` one test of the last column.

- **rows equal**: to the rows of an undisturbed run of the same command, in all columns, masks byte for byte;
  "N others": those of the samples that are not bad themselves; "untouched": the command refused to begin, and
  no file of OUTPUT changed.
- **each input once**: each sample of the input has one row.
- **recovery**: seconds that the fault cost beyond an undisturbed run, or, where the run had to be begun
  again, that the same command took to finish it.
- **left behind**: files in OUTPUT that an undisturbed run does not leave.

What is done about each of them, and what the messages mean: [operations.md](operations.md).

{table()}
"""


def write(path: Path, seed: str) -> None:
    path.write_text(page(seed), encoding="utf-8")
