"""What SIGINT and SIGTERM do to a command: the first asks, a later one ends the process."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import attrs

from .failing import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Signals", "heard"]

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}
_SHOW_CURSOR = "\x1b[?25h"


@attrs.define
class Signals:
    """How often the process was asked to end.

    Attributes:
        count: How many signals came.
        code: The exit code that the last one stands for.
    """

    count: int = 0
    code: ExitCode = ExitCode.OK


@contextmanager
def heard(respond: Callable[[Signals], object], *, enough: int) -> Iterator[Signals]:
    """Call `respond` at each SIGINT and SIGTERM while the block runs, until there are enough of them.

    The handlers are Python's own, not the event loop's, so that they are heard also while an actor blocks the
    loop. `respond` runs between any two steps of the main thread: it may only do what other threads may.

    Args:
        respond: Called with all that came so far.
        enough: At this many signals the process ends at once, with the last one's code.
    """
    signals = Signals()

    def handle(number: int, _: FrameType | None) -> None:
        signals.count += 1
        signals.code = _CODES[signal.Signals(number)]
        if signals.count >= enough:
            _end_now(signals.code)
        respond(signals)

    before = {number: signal.signal(number, handle) for number in _CODES}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _end_now(code: ExitCode) -> NoReturn:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
    os._exit(code)
