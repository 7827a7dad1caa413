"""Files of a store that only one of several writers may create."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.dataset.store import Store
from sspsam.errors import DataError
from tests.s3_server import s3_server


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


def test_of_several_creators_at_s3_one_succeeds(tmp_path: Path) -> None:
    """Each has a store of its own, as jobs on several machines have; a name that is taken stays as it is."""
    with s3_server(tmp_path) as s3:
        url = f"s3://{s3.bucket}/creators"

        def create(race: int, who: int) -> bool:
            return Store(url, s3.options).create(f"{race}.json", b"%d" % who)

        for race in range(2):
            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(create, [race] * 8, range(8)))
            assert won.count(True) == 1
            assert Store(url, s3.options).get(f"{race}.json") == b"%d" % won.index(True)
        assert not create(0, 9)


def test_what_a_full_disk_left_half_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        Store(str(tmp_path)).put("_chunks/a/00000.parquet", b"rows")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
