"""Notices, from a thread beside it, that an event loop is blocked, and says by what."""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jotty.core.queue.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

    from jotty.core.queue.clock import Clock

    from .keeper import Store

__all__ = ["LoopWatch"]

logger = logging.getLogger("jotty.queue")

LOOK_EVERY: Final = 0.5
PATIENCE: Final = 1.0  # seconds without an answer, after which it is said
MAX_NAMED: Final = 5


class LoopWatch:
    """Asks an event loop for a sign of life while tasks run on it, and warns in the log if none comes.

    It warns once when the loop is found blocked, naming the culprit as far as its stack tells, and once
    when the loop answers again. To be made on the loop; `look` and `watch_on` are for another thread.

    Args:
        running: Gives the ids of the tasks that run on the loop; called from that thread.
        describe: Names what a stack frame runs, like "actor 'write'", or gives None.
        on_change: Called at each look that finds the loop blocked, and when it answers again; from either
            thread.
    """

    def __init__(
        self,
        running: Callable[[], Collection[str]],
        describe: Callable[[FrameType], str | None] | None,
        on_change: Callable[[], object],
    ) -> None:
        self._running = running
        self._describe = describe or (lambda _: None)
        self._on_change = on_change
        self._loop = EventLoop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._looks = 0
        self._is_told = False

    @property
    def blocked(self) -> float:
        """For how many seconds the loop is known to be blocked; 0.0 if it is not."""
        with self._lock:
            if self._asked_at is None or not self._is_told:
                return 0.0
            return time.monotonic() - self._asked_at

    async def watch_on(self, _: Store, clock: Clock) -> None:
        """Look twice a second, until cancelled."""
        while True:
            await clock.sleep(LOOK_EVERY)
            self.look()

    def look(self) -> None:
        """Ask the loop, or see how long it has not answered."""
        with self._lock:
            if self._asked_at is None:
                if self._running():
                    self._asked_at, self._looks = time.monotonic(), 0
                    self._loop.call_soon(self._answer)
                return
            # counted, not measured: a process that was stopped as a whole has blocked nothing
            self._looks += 1
            if self._looks * LOOK_EVERY < PATIENCE:
                return
            if not self._is_told:
                self._is_told = True
                self._warn(time.monotonic() - self._asked_at)
            self._on_change()

    def _answer(self) -> None:
        with self._lock:
            asked_at, was_told = self._asked_at, self._is_told
            self._asked_at, self._is_told = None, False
        if asked_at is not None and was_told:
            logger.warning("The event loop answers again, after %.1f s.", time.monotonic() - asked_at)
            self._on_change()

    def _warn(self, seconds: float) -> None:
        stack = list(_frames(self._thread))
        logger.warning(
            "The event loop has not answered for %.1f s: %s blocks it. Running here: %s. "
            "Leases are kept. Await instead, or make it a plain function, which runs in a thread.",
            seconds,
            self._culprit(stack),
            _listed(self._running()),
        )

    def _culprit(self, stack: list[FrameType]) -> str:
        who = next((name for frame in stack if (name := self._named(frame))), None)
        frame = next((frame for frame in stack if not _is_library(frame)), stack[0] if stack else None)
        if frame is None:
            return who or "something"
        code = frame.f_code
        where = f"{code.co_qualname} at {code.co_filename}:{frame.f_lineno}"
        return where if who is None else f"{who}, in {where},"

    def _named(self, frame: FrameType) -> str | None:
        try:
            return self._describe(frame)
        except Exception as error:  # noqa: BLE001 - a warning without a name is still a warning
            return f"something that cannot be named ({error!r})"


def _frames(thread: int) -> Iterator[FrameType]:
    """Return the stack of a thread, from the innermost frame."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to see another thread's
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_library(frame: FrameType) -> bool:
    """Whether a frame is of Python, an installed package or jotty itself, and so hardly the culprit."""
    file = frame.f_code.co_filename
    own = str(Path(__file__).parents[2])
    installed = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file.startswith("<frozen") or any(file.startswith(f"{root}/") for root in (own, *installed))


def _listed(ids: Collection[str]) -> str:
    named = sorted(ids)[:MAX_NAMED]
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return ", ".join(f"task {one}" for one in named) + more
