"""What both backends ask of the system: a path, and a lock that one process has at a time."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["locked", "open_own", "path_of"]


def path_of(location: str) -> Path:
    """Return the path that a URL names: `///relative` or `////absolute`."""
    path = unquote(location.removeprefix("///"))
    if not location.startswith("///") or not path:
        raise ValueError(f"{location!r} names no file. Three slashes are relative, four absolute.")
    return Path(path)


def open_own(path: Path, flags: int) -> int:
    """Open a file that is for its owner alone, and never through a symbolic link."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


@contextmanager
def locked(descriptor: int, timeout: float) -> Iterator[None]:
    """Keep out every other process, and every other descriptor of this one.

    Raises:
        TimeoutError: Another has kept it for so many seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("others keep it locked") from None
            time.sleep(0.002)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
