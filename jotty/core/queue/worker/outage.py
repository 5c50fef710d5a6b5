"""A store that does not answer: said once when it begins, and once when it is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from jotty.core.queue.retry import Random, RetryPolicy

if TYPE_CHECKING:
    from jotty.errors import StorageError

__all__ = ["RECONNECT", "Outage"]

logger = logging.getLogger("jotty.queue")

RECONNECT: Final = RetryPolicy(delay=0.1, cap=5.0)


class Outage:
    """Counts the failures in a row of one kind of call, and says how long to wait before the next try.

    The first is a warning in the log, and so is the end of the outage; what lies between is there for who
    debugs.

    Args:
        trouble: What is wrong while it lasts, as a sentence without its full stop.
        relief: What is so again afterwards, likewise.
        random: Where the jitter of the waits comes from.
    """

    def __init__(self, trouble: str, relief: str, random: Random) -> None:
        self._trouble = trouble
        self._relief = relief
        self._random = random
        self._failures = 0

    def failed(self, failure: StorageError, *, longest: float = RECONNECT.cap) -> float:
        """Take note of one more failure, and return the seconds to wait, which grow from 0.1 up to 5."""
        self._failures += 1
        wait = min(RECONNECT.backoff(self._failures, self._random), longest)
        level = logging.DEBUG if self._failures > 1 else logging.WARNING
        logger.log(level, "%s, trying again in %.1f s: %s", self._trouble, wait, failure)
        return wait

    def over(self) -> None:
        """Take note of a success; nothing happens if nothing had failed."""
        if self._failures:
            logger.warning("%s after %d failures.", self._relief, self._failures)
        self._failures = 0
