"""One process's hold on a log: the state that follows it, and its place in it."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue.steady import SteadyClock
from jotty.errors import StorageError, StoreCorrupt

from .state import LoggedState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from jotty.core.queue.clock import Clock
    from jotty.core.queue.topics import Topics

    from .seam import Draft, Log

__all__ = ["InDoubt", "LogSession"]

logger = logging.getLogger("jotty.queue")

_PAUSE: Final = 30.0  # seconds after a snapshot that failed, before the next try
_PIECE: Final = 300  # lines of a snapshot that are written before others get their turn
_MOMENT: Final = 0.05  # seconds to wait for the lock, likewise


class InDoubt(Exception):
    """The log failed for the `__cause__`, and nobody may try again as if nothing had happened.

    What was to be appended may be there, or what belongs to it may have lost its way to the disk.

    Attributes:
        is_void: Whether at least this is sure: nothing was appended, and all has been taken back.
    """

    def __init__(self, *, is_void: bool = False) -> None:
        super().__init__()
        self.is_void = is_void


class LogSession:
    """A log, and the state that has come out of it so far; used by one thread.

    Args:
        log: Freshly opened; closed here.
        url: The store's address, for errors.
        topics: Told what others have changed.
        clock: The store's time.

    Attributes:
        log: As above.
        state: What is known; another one once the log was read anew.
        is_lost: Whether nobody knows any more what the log holds: this session cannot go on.
    """

    def __init__(self, log: Log, *, url: str, topics: Topics, clock: Clock) -> None:
        self.log = log
        self.state = LoggedState(log.contents())
        self.is_lost = False
        self._url = url
        self._topics = topics
        self._clock = clock
        self._position: Any = None
        self._lines = 0
        self._chore: Generator[None, None, None] | None = None
        self._chore_at = 0.0

    def has_news(self) -> bool:
        """Whether another process may have appended something; a cheap look."""
        return self.log.has_grown(self._position)

    def catch_up(self) -> bool:
        """Take in all that others have appended, and tell those who wait; whether there was anything.

        Raises:
            StorageError, OSError: The log failed; this session cannot go on.
        """
        touched: dict[str, None] = {}
        is_first, is_anew, has_news = self._position is None, False, False
        while True:
            read = self.log.read_since(self._position)
            if read.is_anew and self._position is not None:  # which may be in the middle of the first time
                self.state = LoggedState(self.log.contents())
                self._lines, is_anew = 0, True
            # a log that was made anew may have come to where the last one ended, but not to its own beginning
            is_stuck = read.position == self._position and (read.position is None or not read.is_anew)
            if read.lines and is_stuck:
                told = f"its log gives lines at the position {self._position!r}, and no other to go on from."
                raise StorageError(self._url, told)
            self._position = read.position
            if not read.lines:
                break
            has_news = True
            self._lines += len(read.lines)
            for topics in map(self._apply, read.lines):
                if not is_first:
                    touched.update(dict.fromkeys(topics))
        if is_anew:
            self._topics.bump_all()
        elif touched and not is_first:
            self._topics.bump(touched)
        return has_news

    def prepare(self) -> None:
        """Get ready to append, with the lock: catch up, and put a snapshot in place of a log that is worn.

        Raises:
            StorageError, OSError: The log failed; this session cannot go on.
        """
        self.catch_up()
        if self.log.is_worn():
            self._end_chore()  # or the snapshot under way would be in the way of this one
            self._rewrite()

    def commit(self) -> Sequence[str]:
        """Append what the state has gathered, and return the topics that have changed.

        Raises:
            StorageError, OSError: It could not be appended, and is still gathered.
            InDoubt: The log failed for this reason, and yet it was appended, or nobody knows; or the contents
                did, and all has been taken back.
        """
        now = self._clock.now()
        lines = self.state.changes(now)
        if lines:
            self._flush()
            try:
                self._position = self.log.append(lines)
            except (StorageError, OSError) as failure:
                self._find_out(lines, failure)
                raise
            self.state.seen = now
        self._lines += len(lines)
        topics = self.state.settle()
        self.state.contents.settle()
        return topics

    def _flush(self) -> None:
        try:
            self.state.contents.flush()
        except (StorageError, OSError) as failure:
            self.state.take_back()
            raise InDoubt(is_void=True) from failure

    def _find_out(self, lines: Sequence[str], failure: Exception) -> None:
        """Look whether lines were appended for all that.

        Raises:
            InDoubt: They were, or it cannot be told.
        """
        try:
            read = self.log.read_since(self._position)
        except (StorageError, OSError):
            self.is_lost = True
            raise InDoubt from failure
        if not read.lines:
            return
        if read.is_anew or list(read.lines) != list(lines):
            self.is_lost = True
            raise InDoubt from failure
        self._position = read.position
        self._lines += len(lines)
        # the contents settle with what is appended next: until then these lines may yet be lost
        self._topics.bump(self.state.settle())
        raise InDoubt from failure

    def anchor(self, patience: float) -> None:
        """Have a steady clock go by the log's anchor, which is given one of this boot if it has none.

        Raises:
            StorageError, OSError: The log failed, or others keep it for longer than the patience.
        """
        clock = self._clock
        if not isinstance(clock, SteadyClock) or self._take_anchor(clock):
            return
        try:
            with self.log.lock(patience):
                self.prepare()
                if not self._take_anchor(clock):
                    self.state.anchored(clock.new_anchor(self.state.seen))
                    self.commit()
        except TimeoutError as late:
            problem = f"others kept it locked for more than {patience:g} s."
            raise StorageError(self._url, problem) from late
        except InDoubt as doubt:
            raise StorageError(self._url, f"{doubt.__cause__}.") from doubt.__cause__

    def close(self) -> None:
        """Let go of the log."""
        self._end_chore()
        self.log.close()

    def _end_chore(self) -> None:
        if self._chore is not None:
            self._chore.close()
            self._chore = None

    # Snapshots

    def _rewrite(self) -> None:
        """Put a snapshot in place of the log at once; with the lock, caught up, and nothing gathered."""
        lines = self.state.snapshot(self._clock.now())
        draft = self.log.draft()
        if draft is None:
            self._position = self.log.snapshot(list(lines), self._position)
        else:
            with closing(draft):
                draft.extend(lines)
                self._position = self.log.snapshot(draft, self._position)
        self._lines = 0

    def has_chore(self) -> bool:
        """Whether a snapshot is under way, or what follows one."""
        return self._chore is not None

    def begin_chore(self) -> None:
        """Begin a snapshot if the log has grown long; what fails is tried again later."""
        is_due = self._chore is None and time.monotonic() >= self._chore_at
        if is_due and self.log.is_long(self._lines, self.state.size):
            self._chore = self._write_snapshot()

    def do_chore(self) -> None:
        """Go on with it for some milliseconds; without the lock."""
        if self._chore is None:
            return
        try:
            next(self._chore)
        except StopIteration:
            self._chore = None
        except (StorageError, OSError) as failure:
            self._chore, self._chore_at = None, time.monotonic() + _PAUSE
            if not isinstance(failure, BlockingIOError):  # else another process is at it
                logger.warning("%s: no snapshot could be written: %s", self._url, failure)

    def _write_snapshot(self) -> Generator[None, None, None]:
        draft, position = self.log.draft(), self._position
        lines = self.state.snapshot(self._clock.now())
        if draft is None:
            while not self._locked(self._rewrite):
                yield
        else:
            with closing(draft):
                while piece := list(islice(lines, _PIECE)):
                    draft.extend(piece)
                    yield
                while not self._locked(partial(self._put_in_place, draft, position)):
                    yield
        yield from self.state.sweep()

    def _put_in_place(self, draft: Draft, position: Any) -> None:
        self._position = self.log.snapshot(draft, position)
        self._lines = 0

    def _locked(self, step: Callable[[], None]) -> bool:
        """Take a step with the lock, caught up; False if others have it just now."""
        try:
            with self.log.lock(_MOMENT):
                self.catch_up()
                step()
        except TimeoutError:
            return False
        return True

    def _take_anchor(self, clock: SteadyClock) -> bool:
        return self.state.anchor is not None and clock.take_anchor(self.state.anchor)

    def _apply(self, line: str) -> tuple[str, ...]:
        try:
            return self.state.apply(line)
        except (AttributeError, KeyError, TypeError, ValueError) as damage:
            raise StoreCorrupt(
                self._url, f"its log holds a line that tells of nothing: {line:.200}"
            ) from damage
