"""The right to write, which one thread of one process has at a time."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jotty.core.queue.points import reached
from jotty.errors import StorageError
from jotty_backends.file_lock import FileLock

from .note import LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .directory import Directory

__all__ = ["StoreLock"]


class StoreLock:
    """A `FileLock` that is waited for now and then, by one thread.

    Args:
        root: The store's directory.
        url: The store's address, for errors.

    Raises:
        OSError: The lock file cannot be opened.

    Attributes:
        is_held: Whether that thread has it.
    """

    def __init__(self, root: Directory, url: str) -> None:
        self.is_held = False
        self._root = root
        self._url = url
        self._guard = threading.Lock()
        self._has_come = threading.Event()
        self._is_wanted = False
        self._lock = FileLock(str(Path(root.path) / LOCK), self._on_news, owner=root.owner)
        self._identity = root.identity_of(LOCK)

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Have it; a request for it outlasts a timeout, unless that is 0.

        Raises:
            TimeoutError: Another still has it.
            StorageError: It is no lock any more: its file was deleted or replaced.
        """
        reached("file.lock.before")
        if not self._acquire(timeout):
            raise TimeoutError(f"{self._lock.path} is held by another")
        try:
            if self._root.identity_of(LOCK) != self._identity:
                raise StorageError(self._url, "its lock file was deleted or replaced while it was open.")
            reached("file.lock.after")
            yield
            reached("file.unlock.before")
        finally:
            with self._guard:
                self.is_held = False
                self._lock.release()
        reached("file.unlock.after")

    def close(self) -> None:
        """Let go of it for good."""
        self._lock.close()

    def _acquire(self, timeout: float) -> bool:
        self._has_come.clear()
        with self._guard:
            self._is_wanted = timeout > 0
        if not self._try() and timeout > 0:
            self._lock.request()
            self._has_come.wait(timeout)
            self._try()
        return self.is_held

    def _try(self) -> bool:
        with self._guard:  # or a lock that has come just now would be let go of
            self.is_held = self._lock.try_acquire()
        return self.is_held

    def _on_news(self) -> None:
        """Let go of a lock that nobody wants any more; in a thread of its own."""
        with self._guard:
            if not self._is_wanted and not self.is_held:
                self._lock.release()
        self._has_come.set()
