"""What `sspsam view` can be told."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import Any

from sspsam.errors import ConfigError


@dataclass(frozen=True)
class ViewConfig:
    """One viewer. `token` is made up when the address is not a loopback one and none is given."""

    output: str  # folder or fsspec URL of the annotation dataset
    host: str = "127.0.0.1"  # address to listen on
    port: int = 8642  # TCP port; 0 takes a free one
    token: str | None = None  # secret that every request must bring; None: no secret
    allowed_hosts: tuple[str, ...] = ()  # further names that a Host header may hold
    model: str | None = None  # what SSPSAM.from_pretrained takes; None: no attention maps
    device: str | None = None  # torch device of the model; None: the best there is
    index_path: str | None = None  # DuckDB file to keep; None: a temporary one
    memory_mb: int = 2048  # DuckDB's limit, MiB
    cache_mb: int = 256  # thumbnails kept in memory, MiB
    threads: int = 8  # files read, and images decoded, at the same time
    storage_options: dict[str, Any] = field(default_factory=dict)  # of fsspec, for all URLs

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port} is not between 0 and 65535")
        for name in ("memory_mb", "cache_mb", "threads"):
            if getattr(self, name) <= 0:
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} {getattr(self, name)} must be positive")
        if self.memory_mb < 128:
            raise ConfigError(f"--memory-mb {self.memory_mb} is too little: give 128 or more")
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
