"""Which of a run's fsspec options are meant for the file system of a given URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What fsspec's HTTP file system and the requests of aiohttp take; anything else fails each request.
_HTTP_OPTIONS = frozenset(
    {
        *("block_size", "cache_type", "cache_options", "client_kwargs", "encoded", "get_client"),
        *("same_scheme", "simple_links", "size_policy"),
        *("auth", "cookies", "headers", "params", "proxy", "proxy_auth", "ssl", "timeout"),
    }
)


def options_for(url: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that concern `url`'s file system, as a dict of the caller's own.

    One run may read https:// images and write to s3://, with one set of options: keys and endpoints
    of an object store are not for web servers, and local files take no options at all.
    """
    protocol = url.partition("://")[0].lower() if "://" in url else "file"
    given = dict(options or {})
    if protocol in ("file", "local"):
        return {}
    if protocol in ("http", "https"):
        return {name: value for name, value in given.items() if name in _HTTP_OPTIONS}
    return given
