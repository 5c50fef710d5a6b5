"""What is noted in the lock file: how long the log is, and whether all of it has come to the disk."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from jotty.core.queue.points import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .directory import Directory

__all__ = ["LOCK", "Note", "noted_length"]

LOCK: Final = "lock"
_LENGTH: Final = b"%20d %20d\n"
_SECOND_LINE: Final = 42
_SUSPECT: Final = b"suspect\n"
_TRUSTED: Final = b"       \n"
_CLOSED: Final = -1


def noted_length(root: Directory) -> tuple[int, int] | None:
    """Return what was last noted, if anything was: a generation, and how long its log was at least."""
    try:
        generation, length = map(int, root.read(LOCK)[:_SECOND_LINE].split())
    except (FileNotFoundError, ValueError):
        return None
    return generation, length


class Note:
    """The note, as who has the lock reads and writes it; all that goes wrong here is passed over.

    Args:
        root: The store's directory, in which there is a lock file.
    """

    def __init__(self, root: Directory) -> None:
        self._root = root
        self._descriptor = _CLOSED
        self._is_suspect = False

    def set_length(self, generation: int, length: int) -> None:
        """Note how long the log is: what is shorter one day was not left so by a write cut short."""
        self._write(_LENGTH % (generation, length), 0)

    @property
    def is_suspect(self) -> bool:
        """Whether some of the log may never come to the disk, though the system may say that it has."""
        with suppress(OSError):
            if os.pread(self._opened(), len(_SUSPECT), _SECOND_LINE) == _SUSPECT:
                return True
        return self._is_suspect

    def suspect(self) -> None:
        """Have every process put a snapshot in place of the log before it appends anything."""
        self._is_suspect = True
        self._write(_SUSPECT, _SECOND_LINE)

    @contextmanager
    def suspecting(self) -> Iterator[None]:
        """Replace the log, or the file that tells of it: it is suspect until that is certain to last."""
        self.suspect()
        yield
        self._is_suspect = False
        self._write(_TRUSTED, _SECOND_LINE)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED

    def _opened(self) -> int:
        if self._descriptor == _CLOSED:
            self._descriptor = self._root.open(LOCK, os.O_RDWR)
        return self._descriptor

    def _write(self, data: bytes, place: int) -> None:
        reached("file.note.before")
        with suppress(OSError):  # the log is what counts
            os.pwrite(self._opened(), data, place)
        reached("file.note.after")
