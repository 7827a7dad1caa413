"""A store that is away, refuses, is slow, or tells lies: it costs time and no rows.

The moments are random, from a seed that is printed: `make chaos SEED=...` plays them again.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from tests.jobs.campaign.campaign import ACCOUNTED, Campaign, line_of
from tests.jobs.campaign.proxy import Trouble
from tests.reliability import record

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

_READS = ("GET",)
_TROUBLES: dict[str, tuple[str, dict[str, Any]]] = {
    "the store away for 10 s": (
        "from a random chunk on, connections are closed without an answer for 10 s",
        {"kinds": ("away",), "seconds": 10},
    ),
    "500, 503 and SlowDown": (
        "from a random chunk on, 30 % of all requests are refused so for a minute",
        {"kinds": (500, 503, 503), "share": 0.3, "seconds": 60},
    ),
    "a slow store": (
        "from a random chunk on, every answer comes 2 s later",
        {"kinds": ("slow",)},
    ),
    "bodies cut, reset or too short": (
        "20 % of reads: half a body, then the connection is closed or reset; or the last byte is missing",
        {"kinds": ("cut", "reset", "short"), "share": 0.2, "methods": _READS},
    ),
    "the store's disk full, then space again": (
        "from a random chunk on, every write is answered 507 for 8 s",
        {"kinds": (507,), "methods": ("PUT", "POST"), "seconds": 8},
    ),
    "wrong bytes of the right length, in OUTPUT": (
        "64 bytes are inverted in three reads of chunk files that wait for being sealed",
        {"kinds": ("wrong",), "methods": _READS, "path": "/_chunks/", "times": 3},
    ),
}


@pytest.mark.parametrize("name", _TROUBLES)
def test_a_store_in_trouble_costs_time_and_no_rows(campaign: Campaign, name: str) -> None:
    rng = campaign.rng(name)
    done, options = _TROUBLES[name]
    trouble = Trouble(rng=rng, after=0 if "times" in options else rng.randrange(0, 5), **options)
    output = f"s3://bucket/store-{list(_TROUBLES).index(name)}"
    code, said, seconds = campaign.troubled(trouble, output)
    assert trouble.hits > 0
    assert code == 0, said
    left = campaign.check(output)
    done += f" ({trouble.hits} requests)"
    record(name, done, "yes", f"exit 0: {ACCOUNTED}", max(0, seconds - campaign.seconds), left)


def test_credentials_that_are_refused_and_then_good_again(campaign: Campaign) -> None:
    """And of what waits for the resume, a chunk file is cut short."""
    name, output = "credentials refused, then good again", "s3://bucket/refused"
    trouble = Trouble((403,), campaign.rng(name), after=campaign.rng(name).randrange(2, 6))
    code, said, _ = campaign.troubled(trouble, output)
    assert code == 1, said
    assert "DataContext" not in said  # Ray's own advice
    why = line_of(said, r"(?i)403|denied|forbidden|credential|permission")
    waiting = sorted(campaign.fs.find("bucket/refused/_chunks"))
    cut = campaign.rng(name).choice(waiting)
    data = campaign.fs.cat_file(cut)
    campaign.fs.pipe_file(cut, data[: campaign.rng(name).randrange(1, len(data))])
    code, said, seconds = campaign.run(output)
    assert code == 0, said
    left = campaign.check(output)
    again = f"the same command: exit 0, {ACCOUNTED}"
    record(
        name, "403 to every request from a random chunk on", "yes", f"exit 1: {why}; {again}", seconds, left
    )
    done = "one of those that wait for their shard's end, cut at a random byte before the resume above"
    record("a chunk file truncated", done, "yes", again, seconds, left)


def test_wrong_bytes_of_the_right_length_in_the_input(campaign: Campaign) -> None:
    """Nothing in a tar or a JPEG holds a checksum of pixels: what a decoder does not notice, nobody does."""
    name = "wrong bytes of the right length, in INPUT"
    trouble = Trouble(("wrong",), campaign.rng(name), methods=_READS, path="/in/")
    code, said, seconds = campaign.troubled(trouble, "s3://bucket/wrong")
    assert code == 0, said
    assert trouble.hits > 0
    rows = {(row["shard"], row["index"]): row for row in campaign.rows("s3://bucket/wrong")}
    wanted = {(row["shard"], row["index"]): row for row in campaign.wanted}
    told = {place for place, row in rows.items() if row["status"] == "error"}
    lost = wanted.keys() - rows.keys()
    assert {shard for shard, _ in lost} <= {shard for shard, _ in told}  # a shard that ends early says why
    unnoticed = sum(row != wanted[place] for place, row in rows.items() if place not in told)
    assert unnoticed + len(told) <= 2 * trouble.hits
    equal = f"no: {len(told)} error rows say why, {unnoticed} differ unnoticed: read over https"
    once = "yes" if not lost else f"{len(lost)} samples after the damage: one row a shard says so"
    assert Counter(row["shard"] for row in rows.values()).keys() == {"00000", "00001"}
    done = f"64 bytes are inverted in every read of a shard ({trouble.hits} reads)"
    record(name, done, equal, f"exit 0: {ACCOUNTED}", max(0, seconds - campaign.seconds), once=once)


def test_clocks_that_differ_by_an_hour(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the store is an hour ahead and the driver an hour behind, then the other way round."""
    name, output, now = "clocks an hour apart", "s3://bucket/clocks", time.time
    rng = campaign.rng(name)
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    trouble = Trouble((403,), rng, after=rng.randrange(1, 6), delay=3600.0)
    clock = Trouble(("clock",), rng, delay=3600.0)
    trouble.otherwise = clock
    code, said, _ = campaign.troubled(trouble, output)
    assert code == 1, said
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    behind = Trouble(("clock",), rng, delay=-3600.0)
    code, said, seconds = campaign.troubled(behind, output)
    assert code == 0, said
    assert clock.hits > 0 < behind.hits
    left = campaign.check(output)
    done = (
        "the store's an hour ahead and the driver's an hour behind, until refused; then the other way round"
    )
    record(name, done, "yes", f"exit 1, then exit 0: {ACCOUNTED}", seconds, left)
