"""Ending the process in time, whatever still runs in it."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .failing import ExitCode

__all__ = ["Deadline", "deadline"]

LAST_WORDS: Final = 0.35  # seconds for what is in the buffers, should nobody read it


class Deadline:
    """Ends the process with a code after some seconds, once it is told to.

    A thread of its own does so: an actor may block the event loop, or be in a thread that can't be stopped.
    """

    def __init__(self) -> None:
        self._news: SimpleQueue[tuple[float, ExitCode] | None] = SimpleQueue()
        self._is_set = False
        threading.Thread(target=self._wait, name="jotty deadline", daemon=True).start()

    def set(self, seconds: float, code: ExitCode) -> None:
        """End the process so soon; the last call counts. A signal handler may call it, also within itself."""
        self._is_set = True
        self._news.put((time.monotonic() + seconds, code))

    def drop(self) -> None:
        """Let the process go on, unless it was told to end."""
        if not self._is_set:
            self._news.put(None)

    def forget(self) -> None:
        """Let the process go on, whatever it was told."""
        self._news.put(None)

    def _wait(self) -> None:
        told = self._news.get()
        while told is not None:
            until, code = told
            try:
                told = self._news.get(timeout=max(until - time.monotonic(), 0.0))
            except Empty:
                _end(code)


@contextmanager
def deadline() -> Iterator[Deadline]:
    """Make a deadline for what a command does; one that was set still counts when that has ended well."""
    made = Deadline()
    try:
        yield made
    except BaseException:
        made.forget()  # the failure is to be told, with a code of its own
        raise
    made.drop()


def _end(code: ExitCode) -> NoReturn:
    flusher = threading.Thread(target=_flush, daemon=True)
    flusher.start()
    flusher.join(LAST_WORDS)
    os._exit(code)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
