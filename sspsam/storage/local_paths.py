"""Relative paths made good: local ones as they are found from any folder, since workers have their own."""

from __future__ import annotations

import os


def absolute(path: str, home: str = "") -> str:
    """A local path from the root on, its symbolic links kept; a URL as it is.

    Args:
        path: of a file or folder that need not exist.
        home: the folder that a relative path is of; this process's own if left out.
    """
    if "://" in path:
        return path
    return os.path.abspath(os.path.join(home, os.path.expanduser(path)))  # noqa: PTH100, PTH111, PTH118


def located(name: str, home: str = "") -> str:
    """`absolute` of what is there; a name that is no file as it is, say of a repository of the hub."""
    path = absolute(name, home)
    return path if os.path.exists(path) else name  # noqa: PTH110
