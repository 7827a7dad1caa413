"""How a chunk's samples are gone through after processes died with them: whole, in parts, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

#: [first, last) positions of samples in a chunk.
Span = tuple[int, int]

#: A whole chunk is repeated once before it is split; a lone sample once before it is quarantined.
_PATIENCE = 2
_PARTS = 8


@dataclass
class SpanPlan:
    """How to go through a chunk's samples. Both lists in order, disjoint, together the whole chunk."""

    run: list[Span]
    quarantine: list[int] = field(default_factory=list)


def plan_spans(size: int, deaths: dict[Span, int]) -> SpanPlan:
    """Split `size` samples by how often a process died within each span."""
    plan = SpanPlan([])

    def visit(low: int, high: int, patience: int) -> None:
        died = deaths.get((low, high), 0)
        if high - low == 1:
            patience = _PATIENCE
        if died < patience:
            plan.run.append((low, high))
        elif high - low == 1:
            plan.quarantine.append(low)
        else:
            step = -(-(high - low) // _PARTS)
            for start in range(low, high, step):
                visit(start, min(high, start + step), patience=1)

    if size:
        visit(0, size, _PATIENCE)
    return plan
