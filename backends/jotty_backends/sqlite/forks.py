"""Which files SQLite has open in this process, so that a forked child does not open them once more.

SQLite remembers in memory which locks its process holds. A child inherits that memory but not the locks: what
it wrote through a connection of its own to the same file would be lost when the parent closes the file.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Final

from jotty.errors import StorageError

__all__ = ["REMEDY", "check", "enter", "leave"]

REMEDY: Final = "Close it before forking, or start the process afresh (multiprocessing's 'spawn')."

Entry = tuple[int, int, int, int]  # device and inode of the file, the process, a number of its own

_open: set[Entry] = set()
_numbers = count()


def check(path: str, url: str) -> None:
    """Refuse a file that a process had open when it forked this one.

    Raises:
        StorageError: It had.
    """
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return
    for device, inode, process, _ in _open.copy():
        if (device, inode) == (found.st_dev, found.st_ino) and process != os.getpid():
            raise StorageError(url, f"it was open when this process was forked. {REMEDY}")


def enter(path: str) -> Entry:
    """Take note that a file is about to be opened."""
    found = Path(path).stat()
    entry = (found.st_dev, found.st_ino, os.getpid(), next(_numbers))
    _open.add(entry)
    return entry


def leave(entry: Entry) -> None:
    """Take note that it was closed."""
    _open.discard(entry)
