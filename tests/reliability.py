"""The table of faults: tests record what became of each; the session's end prints it.

`RELIABILITY=docs/reliability.md make chaos` writes the page.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("fault", "rows equal", "each input once", "exit code and message", "recovery", "left behind")


@dataclass(frozen=True)
class Fault:
    """What became of one fault. `seconds`: beyond an undisturbed run, or of the run that resumed it."""

    name: str
    rows: str
    once: str
    message: str
    seconds: float | None
    leftovers: str = "not looked at"

    def cells(self) -> tuple[str, ...]:
        recovery = "-" if self.seconds is None else f"{self.seconds:.0f} s"
        cells = (self.name, self.rows, self.once, self.message, recovery, self.leftovers)
        return tuple(cell.replace("|", "/") for cell in cells)


RECORDED: list[Fault] = []


def record(
    name: str,
    rows: str,
    message: str,
    seconds: float | None,
    leftovers: str = "not looked at",
    once: str = "yes",
) -> None:
    """Put a line into the table; called after what it says was asserted."""
    RECORDED.append(Fault(name, rows, once, message, seconds, leftovers))


def table() -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(fault.cells() for fault in RECORDED)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(seed: str) -> str:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# What faults do to a run

Written by `RELIABILITY=docs/reliability.md make chaos` on {today}, seed {seed}: real runs of `annotate`;
where a fault is the store's, input and output are on a real S3 server (SeaweedFS). "Rows equal": with
those of an undisturbed run, masks byte for byte. "Each input once": each sample of the input has one
row. Recovery: what the fault cost beyond an undisturbed run, or how long the command took that resumed
it, on two shared cores. "Left behind": files in OUTPUT that an undisturbed run does not leave.

{table()}
"""


def write(path: Path, seed: str) -> None:
    path.write_text(page(seed), encoding="utf-8")
