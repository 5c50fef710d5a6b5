"""What there is to say of the SQLite library that Python brings."""

from __future__ import annotations

import logging
import sqlite3
from functools import cache
from typing import Final

__all__ = ["has_wal_reset_bug", "tell_of_wal_reset_bug"]

logger = logging.getLogger("jotty.queue.sqlite")

Version = tuple[int, ...]

# https://www.sqlite.org/wal.html, "The WAL-Reset Bug"
_BROKEN_FROM: Final = (3, 7, 0)
_MENDED_FROM: Final = (3, 51, 3)
_MENDED_TOO: Final = frozenset({(3, 44, 6), (3, 50, 7)})


def has_wal_reset_bug(version: Version) -> bool:
    """Whether this SQLite may, in rare cases, damage a file in WAL mode that two connections write to."""
    return _BROKEN_FROM <= version < _MENDED_FROM and version not in _MENDED_TOO


@cache
def tell_of_wal_reset_bug(version: Version = sqlite3.sqlite_version_info) -> None:
    """Say so in the log, once a process."""
    if has_wal_reset_bug(version):
        logger.info(  # no warning: it takes another program that writes to the file
            "SQLite %s has the WAL-reset bug: two connections that write at the same time may, very rarely, "
            "damage the file. The processes of jotty take turns, so keep other programs from writing to it, "
            "or use a Python with SQLite 3.51.3 or later (3.50.7 and 3.44.6 are mended, too).",
            ".".join(map(str, version)),
        )
