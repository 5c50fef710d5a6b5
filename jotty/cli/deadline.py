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
    from collections.abc import Callable, Iterator

    from .failing import ExitCode

__all__ = ["Deadline", "deadline"]

LAST_WORDS: Final = 0.35  # seconds for what is said and in the buffers, should nobody read it


class Deadline:
    """Ends the process with a code after some seconds, once it is told to.

    A thread of its own does so: an actor may block the event loop, or be in a thread that can't be stopped.

    Args:
        first_words: Called when it is told so first; not waited for.
        last_words: Called just before the end; not waited for if nobody reads what it says.
    """

    def __init__(self, first_words: Callable[[], object], last_words: Callable[[], object]) -> None:
        self._first_words = first_words
        self._last_words = last_words
        self._news: SimpleQueue[tuple[float, Callable[[], ExitCode]] | None] = SimpleQueue()
        self._is_set = False
        threading.Thread(target=self._wait, name="jotty deadline", daemon=True).start()

    def set(self, seconds: float, code: Callable[[], ExitCode]) -> None:
        """End the process so soon, with what `code` returns then; the last call counts.

        A signal handler may call it, also within itself.
        """
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
        if told is not None:
            threading.Thread(target=self._first_words, daemon=True).start()
        while told is not None:
            until, code = told
            try:
                told = self._news.get(timeout=max(until - time.monotonic(), 0.0))
            except Empty:
                self._end(code())

    def _end(self, code: ExitCode) -> NoReturn:
        speaker = threading.Thread(target=self._speak, daemon=True)
        speaker.start()
        speaker.join(LAST_WORDS)
        os._exit(code)

    def _speak(self) -> None:
        self._last_words()
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def deadline(first_words: Callable[[], object], last_words: Callable[[], object]) -> Iterator[Deadline]:
    """Make a deadline for what a command does; one that was set still counts when that has ended well."""
    made = Deadline(first_words, last_words)
    try:
        yield made
    except BaseException:
        made.forget()  # the failure is to be told, with a code of its own
        raise
    made.drop()
