"""Files of a store that only one of several writers may create."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.dataset.store import Store


@pytest.mark.parametrize("kind", ["local", "memory", "no links"])
def test_of_several_creators_one_succeeds(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://creators" if kind == "memory" else str(tmp_path))
    if kind == "no links":  # as on file systems that know none: who is not at the same time is still told
        monkeypatch.setattr("os.link", lambda a, b: (_ for _ in ()).throw(PermissionError("not supported")))
    with ThreadPoolExecutor(1 if kind == "no links" else 8) as pool:
        won = list(pool.map(lambda n: store.create("_run.json", b"%d" % n), range(8)))
    assert won.count(True) == 1
    assert store.get("_run.json") == b"%d" % won.index(True)
    assert set(store.listing()) == {"_run.json"}
