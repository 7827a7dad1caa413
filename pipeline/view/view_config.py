"""The settings of `sspsam view`."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated

from cyclopts import Parameter

from pipeline.sources.flags import StorageOptions
from pipeline.sources.settings import check_settings
from sspsam.errors import ConfigError


@dataclass(frozen=True)
class ViewConfig:
    """One viewer.

    Args:
        output: annotation dataset, a folder or URL (s3://bucket/output)
        host: address to listen on
        port: TCP port; 0 takes a free one
        token: secret that every request must carry; generated if --host is reachable from other machines
        allowed_hosts: another host name under which browsers reach the server, as behind a proxy; repeatable
        model: also offer attention maps of this model ('tiny', folder, URL)
        device: torch device of --model
        index_path: DuckDB file to keep the index in, so that the next start is faster
        memory_mb: DuckDB's memory limit, MiB
        cache_mb: thumbnails kept in memory, MiB
        threads: files read and images decoded in parallel
        audit: show the queue of this audit (a name in OUTPUT/audits), as `sspsam audit` does
        reviewer: name that verdicts are stored with
        image_root: new location of INPUT, another location to read images from, or FROM=TO; repeatable
        storage_options: options of fsspec for all URLs, as JSON
    """

    output: str
    _: KW_ONLY
    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = None
    allowed_hosts: Annotated[tuple[str, ...], Parameter(name="--allowed-host")] = ()
    model: str | None = None
    device: str | None = None
    index_path: Annotated[str | None, Parameter(name="--index")] = None
    memory_mb: int = 2048
    cache_mb: int = 256
    threads: int = 8
    audit: str | None = None
    reviewer: str | None = None
    image_root: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is not between 0 and 65535")
        check_settings(self, memory_mb=128, cache_mb=1, threads=1)
        if self.token is not None and len(self.token) < 8:
            raise ConfigError("--token has fewer than 8 characters: give a longer secret")
        if self.token is None and not is_loopback(self.host):
            object.__setattr__(self, "token", secrets.token_urlsafe(24))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
