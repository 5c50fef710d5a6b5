"""The seam below `LogBackend`: a place that can lock, and append to a log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from .contents import Contents, InlineContents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

__all__ = ["Draft", "Log", "LogRead"]


@attrs.frozen
class LogRead:
    """What was read of a log.

    Attributes:
        lines: The lines, in their order; none if that is all there is for now.
        position: Where to read on.
        is_anew: Whether they begin from the start: at a snapshot, or with the first line there ever was. Who
            has followed so far forgets what is known.
    """

    lines: Sequence[str]
    position: Any
    is_anew: bool = False


class Draft(Protocol):
    """Takes the lines of a snapshot, a few at a time, while others append to the log."""

    def extend(self, lines: Iterable[str], /) -> object:
        """Add lines at the end."""
        ...

    def close(self) -> object:
        """Let go of it, and of the lines, unless they have become a snapshot; again does nothing."""
        ...


class Log(ABC):
    """A sequence of lines that any number of processes read and append to. No line holds a line break.

    All calls come from one thread, and may wait, but for no more than some seconds. Any `OSError` or
    `StorageError` tells that the place failed; who asked is told, and the same `Log` is used again.
    """

    @abstractmethod
    def lock(self, timeout: float) -> AbstractContextManager[object]:
        """Keep every other process, and every other `Log` on this place, from appending.

        Args:
            timeout: Seconds to wait for the others at most; 0 only tries. Called again after a TimeoutError
                as long as there is something to append, and once with 0 if there no longer is.

        Raises:
            TimeoutError: Another still has it.
        """

    @abstractmethod
    def read_since(self, position: Any) -> LogRead:
        """Return the next lines, as many as are convenient; called with or without the lock.

        All that was appended before this call must be reached by calling it until there are no lines. What is
        being appended right now is seen whole or not at all.

        Args:
            position: What the last read, `append` or `snapshot` returned; None to read from the start, which
                is the last snapshot and what was appended since. From the start, too, if a snapshot has taken
                the place of the position.

        Raises:
            StoreCorrupt: The place is damaged.
        """

    @abstractmethod
    def append(self, lines: Sequence[str]) -> Any:
        """Add lines, all or none, and return the position behind them.

        The lock is held, and everything has been read. When this returns, every process sees the lines, and
        they survive what the backend's `durability` promises.
        """

    @abstractmethod
    def snapshot(self, lines: Any, position: Any) -> Any:
        """Put these lines in place of all before the position; return the position behind the last line.

        The lock is held, and everything has been read, up to this position.

        Args:
            lines: The lines, as a list; or what `draft` returned, with the lines.
            position: What the last read or `append` returned. For a draft, what it was when that was begun:
                lines may follow it, which stay; and another process may have put a snapshot there meanwhile,
                which makes the draft worthless.
        """

    # What a log may do better

    def draft(self) -> Draft | None:
        """Return what takes the lines of a snapshot, so that nobody has to wait while it is being written.

        With None, as this default returns, all are kept from appending until it is there.

        Raises:
            BlockingIOError: Another process writes one just now.
        """
        return None

    def is_long(self, lines: int, tasks: int) -> bool:
        """Whether it is time for a snapshot.

        Args:
            lines: How many were read or appended since the start, or since the last snapshot of this `Log`.
            tasks: How many tasks there are.
        """
        return lines > 4 * tasks + 1000

    def is_worn(self) -> bool:
        """Whether it must be replaced by a snapshot before anything is appended; never, by default."""
        return False

    def has_grown(self, position: Any) -> bool:
        """Take a cheap look whether another has appended; called each 10 ms while somebody waits."""
        return bool(self.read_since(position).lines)

    def contents(self) -> Contents:
        """Return where payloads, outcomes and journals are kept: by default in the lines themselves.

        Called again whenever the log is read from the start.
        """
        return InlineContents()

    def close(self) -> None:  # noqa: B027 - there may be nothing to do
        """Let go of the place; nothing is called after it."""
