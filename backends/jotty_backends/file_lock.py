"""The lock file beside a store: it makes many processes take turns, which SQLite's own waiting does not."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if sys.platform != "win32":  # there, SQLite's own waiting must do
    import fcntl

from .ownership import opened_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from .ownership import Owner

__all__ = ["FileLock"]

_NOTE_LENGTH: Final = 100
_CLOSED: Final = -1


class FileLock:
    """An exclusive lock among processes, and among handles of one process, held by one thread at a time.

    A holder that is stopped keeps it: who waits does so in a thread of this lock's own, and is never blocked.

    Args:
        path: The lock file, made if missing.
        news: Called, in another thread, when a requested lock is here, or cannot be had.
        owner: To whom root gives a lock file that it makes; None for root.
    """

    def __init__(self, path: str, news: Callable[[], object], *, owner: Owner | None = None) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = opened_for(owner, path, flags)
        self._waiting_descriptor = _CLOSED
        self._news = news
        self._guard = threading.Lock()
        self._is_held = False
        self._requests: SimpleQueue[int] | None = None
        _close_in_children()
        _locks.add(self)

    def try_acquire(self) -> bool:
        """Take the lock if it is free; never waits.

        Raises:
            OSError: The file system has no locks to give.
        """
        with self._guard:
            if not self._is_held and self._waiting_descriptor == _CLOSED:
                self._is_held = _try(self._descriptor)
            return self._is_held

    def request(self) -> None:
        """Have another thread wait for the lock, and call `news` once it is held; returns at once."""
        with self._guard:
            if self._is_held or self._waiting_descriptor != _CLOSED:
                return
            # a descriptor of its own for the same lock, since this one may be closed meanwhile
            self._waiting_descriptor = os.dup(self._descriptor)
        if self._requests is None:
            self._requests = SimpleQueue()
            name = f"jotty waits for {self.path}"
            threading.Thread(target=self._wait, args=(self._requests,), name=name, daemon=True).start()
        self._requests.put(self._waiting_descriptor)

    def release(self) -> None:
        """Let the next have it; nothing happens if it is not held."""
        with self._guard:
            if self._is_held:
                _unlock(self._descriptor)
                self._is_held = False

    def close(self) -> None:
        """Release the lock for good; one that is still waited for will be let go when it comes."""
        with self._guard:
            if self._descriptor != _CLOSED:
                os.close(self._descriptor)
            self._descriptor, self._is_held = _CLOSED, False
        if self._requests is not None:
            self._requests.put(_CLOSED)

    def read_note(self) -> bytes:
        """Return what the lock file says."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, _NOTE_LENGTH)

    def write_note(self, note: bytes) -> None:
        """Write into the lock file, in place of what it says."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, note)

    def _wait(self, requests: SimpleQueue[int]) -> None:
        while (descriptor := requests.get()) != _CLOSED:
            is_locked = _lock(descriptor)
            with self._guard:
                os.close(descriptor)
                self._waiting_descriptor = _CLOSED
                self._is_held = is_locked and self._descriptor != _CLOSED
            self._news()

    def forget(self) -> None:
        """Let go of the lock in a forked child, which shares it: it would outlive the parent there."""
        for descriptor in {self._descriptor, self._waiting_descriptor} - {_CLOSED}:
            os.close(descriptor)
        self._descriptor = self._waiting_descriptor = _CLOSED


def _try(descriptor: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _lock(descriptor: int) -> bool:
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # who tries next is told why
            return False
    return True


def _unlock(descriptor: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_locks: WeakSet[FileLock] = WeakSet()


@cache
def _close_in_children() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for lock in list(_locks):
        lock.forget()
    _locks.clear()
