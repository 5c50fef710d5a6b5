"""Snapshots: the state at the beginning of a log, one line for each task."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from jotty.core.queue.points import reached
from jotty.errors import StoreCorrupt

from .directory import lock_now, read_at, sync, write
from .envelope import opened, sealed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .directory import Directory

__all__ = ["Snapshot", "SnapshotDraft"]

_CHUNK: Final = 1 << 20
_PIECE: Final = 4 << 20  # bytes between two syncs: the last one, for which all others wait, is short
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
        _close_in_children()
        _drafts.add(self)
        self._number = 0
        self._unsynced = 0

    def _check_name(self) -> None:
        if self._root.identity_of(_DRAFT) != self._root.identity_of_open(self._descriptor):
            raise BlockingIOError("another process has just written a snapshot")

    def extend(self, lines: Iterable[str], /) -> None:
        """Write lines behind the others."""
        pieces = [sealed(line[1:].encode()) for line in lines]
        self._number += len(pieces)
        data = b"".join(pieces)
        reached("file.write.before")
        write(self._descriptor, data)
        reached("file.write.after")
        self._unsynced += len(data)
        if self._unsynced >= _PIECE:
            sync(self._descriptor)
            self._unsynced = 0

    def finish(self, name: str) -> None:
        """Give it its name, now that it is whole; from now on it survives the loss of power."""
        write(self._descriptor, sealed(b'"end":%d}' % self._number))
        sync(self._descriptor)
        self._root.rename(_DRAFT, name)
        sync(self._root.descriptor)
        self.close()

    def close(self) -> None:
        """Let go of it; what has no name of its own yet is written over by the next one."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


_drafts: WeakSet[SnapshotDraft] = WeakSet()


@cache
def _close_in_children() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    """Let go of drafts in a forked child, which shares their lock: it would outlive the parent there."""
    for draft in list(_drafts):
        with suppress(OSError):
            draft.close()


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
