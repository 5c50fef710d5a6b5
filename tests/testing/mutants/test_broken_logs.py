"""C6, broken by a log: what a snapshot keeps, and whether its readers see it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.core.queue import Durability, Log, LogBackend, LogRead
from jotty.testing.trial import Trial, run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jotty.core.queue import Clock, QueueBackend
    from jotty.testing import VirtualClock
    from tests.testing.mutants.conftest import SuiteCatches


class Place:
    """Lines, how often a snapshot has taken their place, and a lock."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.generation = 0
        self.lock = threading.Lock()


class ListLog(Log):
    """A right log, of a list."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        if not self.place.lock.acquire(timeout=timeout):
            raise TimeoutError
        try:
            yield
        finally:
            self.place.lock.release()

    def read_since(self, position: Any) -> LogRead:
        generation, number = position or (None, 0)
        is_anew = generation != self.place.generation
        lines = self.place.lines[0 if is_anew else number :]
        return LogRead(lines, self._end(), is_anew=is_anew)

    def append(self, lines: Sequence[str]) -> Any:
        self.place.lines.extend(lines)
        return self._end()

    def snapshot(self, lines: Any, position: Any) -> Any:
        self.place.lines = list(lines)
        self.place.generation += 1
        return self._end()

    def _end(self) -> tuple[int, int]:
        return self.place.generation, len(self.place.lines)


class ListBackend(LogBackend):
    scheme = "list"
    durability: Durability = "none"

    def __init__(self, place: Place, *, clock: Clock | None = None) -> None:
        super().__init__("list:", clock=clock, place=f"list:{id(place)}")
        self.place = place

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> ListBackend:
        raise NotImplementedError

    def open_log(self, *, create: bool) -> Log:
        return ListLog(self.place)


@pytest.fixture
def open_store() -> Callable[[VirtualClock, Path], Callable[[], QueueBackend]]:
    """The mutants of this module break a log."""

    def open_list(clock: VirtualClock, _: Path) -> Callable[[], QueueBackend]:
        place = Place()
        return lambda: ListBackend(place, clock=clock)

    return open_list


def test_c06_a_snapshot_that_loses_all(suite_catches: SuiteCatches) -> None:
    suite_catches(ListLog, "snapshot", lambda snapshot, self, lines, position: snapshot(self, [], position))


def test_c06_a_snapshot_that_loses_its_last_line(suite_catches: SuiteCatches) -> None:
    suite_catches(
        ListLog,
        "snapshot",
        lambda snapshot, self, lines, position: snapshot(self, list(lines)[:-1], position),
    )


def test_c06_a_snapshot_that_those_who_follow_take_for_more_of_the_same(suite_catches: SuiteCatches) -> None:
    def read_since(read_since: Any, self: ListLog, position: Any) -> LogRead:
        read: LogRead = read_since(self, position)
        return attrs.evolve(read, is_anew=False)

    suite_catches(ListLog, "read_since", read_since)


def test_c06_a_position_that_never_moves(suite_catches: SuiteCatches) -> None:
    def read_since(read_since: Any, self: ListLog, position: Any) -> LogRead:
        read: LogRead = read_since(self, position)
        return read if position is None else attrs.evolve(read, position=position)

    suite_catches(ListLog, "read_since", read_since)


def test_c06_an_append_over_what_was_appended_last(suite_catches: SuiteCatches) -> None:
    def append(append: Any, self: ListLog, lines: Sequence[str]) -> Any:
        del self.place.lines[-1:]
        return append(self, lines)

    suite_catches(ListLog, "append", append)


def test_a_right_log_passes_where_they_fail(
    open_store: Callable[[VirtualClock, Path], Callable[[], QueueBackend]],
) -> None:
    findings = run_trial(Trial(open_backend=open_store, rules={"C6"}, quick=True))

    assert [] == [one for one in findings if one.outcome == "failed"]
    assert [] != [one for one in findings if one.outcome == "passed"]
