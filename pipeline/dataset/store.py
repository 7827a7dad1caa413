"""The folder or bucket that a run writes to: whole files or none, one listing, patient retries."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential

from pipeline.sources.storage import filesystem, http_status, is_local, is_transient
from sspsam.errors import DataError

T = TypeVar("T")

_THREADS = 16
_PRECONDITION_FAILED = 412


@dataclass(frozen=True)
class Store:
    """Files below `url`, by names relative to it.

    `patience_seconds`: how long a request is repeated while the store is away.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    patience_seconds: float = 300.0

    @cached_property
    def _place(self) -> tuple[AbstractFileSystem, str]:
        fs, root = filesystem(self.url, self.storage_options)
        return fs, root.rstrip("/") or "/"

    @property
    def local(self) -> bool:
        return is_local(self._place[0])

    def path(self, name: str) -> str:
        """`name` as a path of the filesystem."""
        return f"{self._place[1]}/{name}"

    def put(self, name: str, data: bytes) -> None:
        """Write `data` under `name`, whole or not at all, replacing what was there.

        On an object store this is one PUT. Locally the bytes go to a temporary file beside the
        dataset's folders first, because readers take every file of those folders.

        Raises:
            DataError: the store refuses, or stays away for longer than `patience_seconds`.
        """
        try:
            self._patiently(name, lambda: self._put_once(name, data))
        except FileNotFoundError as error:
            raise DataError(f"{self.url}: {error}: create the bucket first") from error

    def create(self, name: str, data: bytes) -> bool:
        """`put`, but only if there is no such file: of several callers one succeeds, the others get False.

        Stores that cannot do that are asked first whether it is there.
        """
        fs = self._place[0]
        spare = f"_tmp/{name}.{os.getpid()}.{threading.get_ident()}"

        def create_once() -> None:
            try:
                fs.pipe_file(self.path(name), data, mode="create")
            except OSError as error:  # s3fs: an OSError like any other, which would be tried again for long
                if error.__cause__ is not None and http_status(error.__cause__) == _PRECONDITION_FAILED:
                    raise FileExistsError(name) from error
                raise

        try:
            if self.local:
                self.put(spare, data)
                os.link(self.path(spare), self.path(name))
            else:
                self._patiently(name, create_once)
            return True
        except FileExistsError:
            pass
        except (OSError, DataError):
            if self.get(name) is None:
                self.put(name, data)
                return True
        finally:
            if self.local:
                self.delete([spare])
        return self.get(name) == data  # ours, if a request was repeated whose answer was lost

    def tidy(self) -> None:
        """Remove the folder of temporary files, if there is one and no other process uses it."""
        if self.local:
            with contextlib.suppress(OSError):  # not there, or not empty
                os.rmdir(self.path("_tmp"))  # noqa: PTH106

    def put_table(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file as `put` does, its schema metadata as the table's."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.put(name, buffer.getvalue())

    def get(self, name: str, last: int | None = None) -> bytes | None:
        """The bytes under `name`, or its `last` so many, or None if there is no such file."""
        fs = self._place[0]
        start = None if last is None else -last
        # Else s3fs asks for the size first, a request more for every file.
        once = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        try:
            return self._patiently(name, lambda: bytes(fs.cat_file(self.path(name), start=start, **once)))
        except FileNotFoundError:
            return None

    def get_many(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """`get` of several names at once."""
        names = list(names)
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(names, pool.map(self.get, names), strict=True))

    def listing(self, folder: str = "") -> dict[str, int]:
        """Every file below the root, or a folder in it, with its size in bytes, by one (paged) listing."""
        fs, root = self._place

        def list_once() -> dict[str, int]:
            fs.invalidate_cache()
            found = fs.find(f"{root}/{folder}".rstrip("/"), detail=True)
            return {
                path.removeprefix(root).lstrip("/"): int(info.get("size") or 0)
                for path, info in found.items()
                if info.get("type") != "directory"
            }

        try:
            return self._patiently("", list_once)
        except FileNotFoundError:
            return {}

    def delete(self, names: Iterable[str]) -> None:
        """Remove the files; those that are gone already do not matter."""
        fs = self._place[0]

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._patiently(name, lambda: fs.rm_file(self.path(name)))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(remove, names))

    def prune(self, folder: str) -> None:
        """Remove the empty folders that deleted files leave on a local disk, `folder` among them."""
        if self.local:
            for path, _, _ in os.walk(self.path(folder), topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(path)  # noqa: PTH106

    def _put_once(self, name: str, data: bytes) -> None:
        fs, root = self._place
        if not is_local(fs):
            fs.pipe_file(self.path(name), data)
            return
        final = self.path(name)
        temporary = f"{root}/_tmp/{name.replace('/', '__')}.{os.getpid()}"
        os.makedirs(os.path.dirname(temporary), exist_ok=True)  # noqa: PTH103, PTH120
        try:
            with open(temporary, "wb") as file:  # noqa: PTH123
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # on a full disk what is half written is in the way of everything else
            os.unlink(temporary)  # noqa: PTH108
            raise
        while True:
            os.makedirs(os.path.dirname(final), exist_ok=True)  # noqa: PTH103, PTH120
            with contextlib.suppress(FileNotFoundError):  # another job pruned the folder in between
                os.replace(temporary, final)  # noqa: PTH105
                return

    def _patiently(self, name: str, request: Callable[[], T]) -> T:
        """Repeat `request` with back-off while its error is one that passes."""
        patience = Retrying(
            retry=retry_if_exception(lambda error: not self.local and is_transient(error)),
            stop=stop_before_delay(self.patience_seconds),
            wait=wait_exponential(multiplier=0.5, max=15.0),
            reraise=True,
        )
        try:
            return patience(request)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            raise DataError(
                f"{self.url}/{name}: {type(error).__name__}: {error}: see that OUTPUT can "
                "be written (credentials, endpoint, space), then run the command again"
            ) from error
