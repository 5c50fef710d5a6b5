"""Snapshots: the state at the beginning of a log, one line for each task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from jotty.core.queue.points import reached
from jotty.errors import StoreCorrupt

from .directory import lock_now, read_at, sync, write
from .envelope import opened, sealed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .directory import Directory

__all__ = ["Snapshot", "SnapshotDraft"]

_CHUNK: Final = 1 << 20
_DRAFT: Final = "snapshot.new"
_CLOSED: Final = -1


class SnapshotDraft:
    """A snapshot that is being written, under a name of its own until it is whole; by one process at a time.

    Args:
        root: The store's directory.

    Raises:
        BlockingIOError: Another process writes one.
        OSError: The system refuses.
    """

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._descriptor = root.open(_DRAFT, os.O_RDWR | os.O_CREAT)
        try:
            lock_now(self._descriptor)
            self._check_name()
            os.ftruncate(self._descriptor, 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._number = 0

    def _check_name(self) -> None:
        if self._root.identity_of(_DRAFT) != self._root.identity_of_open(self._descriptor):
            raise BlockingIOError("another process has just written a snapshot")

    def extend(self, lines: Iterable[str], /) -> None:
        """Write lines behind the others."""
        pieces = [sealed(line[1:].encode()) for line in lines]
        self._number += len(pieces)
        reached("file.write.before")
        write(self._descriptor, b"".join(pieces))
        reached("file.write.after")

    def finish(self, name: str, *, is_synced: bool) -> None:
        """Give it its name, now that it is whole."""
        write(self._descriptor, sealed(b'"end":%d}' % self._number))
        if is_synced:
            sync(self._descriptor)
        self._root.rename(_DRAFT, name)
        self.close()

    def close(self) -> None:
        """Let go of it; what has no name of its own yet is written over by the next one."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED


class Snapshot:
    """A snapshot that is being read.

    Args:
        root: The store's directory.
        name: The file.
        url: The store's address, for errors.

    Attributes:
        size: How many bytes it has.
    """

    def __init__(self, root: Directory, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self._descriptor = root.open(name, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int) -> tuple[list[str], int]:
        """Return the lines from a place on, and where they end: at `size` if these are the last.

        Raises:
            StoreCorrupt: A line is damaged, or the end is missing.
        """
        data = read_at(self._descriptor, start, min(start + _CHUNK, self.size))
        end = data.rfind(b"\n") + 1
        pieces = data[:end].split(b"\n")[:-1]
        rests = [rest for piece in pieces if (rest := opened(piece)) is not None]
        if len(rests) < len(pieces) or not pieces:
            raise StoreCorrupt(self._url, f"{self._name} is damaged. Restore it from a backup.")
        if start + end == self.size and not rests.pop().startswith(b'"end":'):
            raise StoreCorrupt(self._url, f"{self._name} is cut off. Restore it from a backup.")
        return ["{" + rest.decode() for rest in rests], start + end

    def close(self) -> None:
        """Close the file."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED
