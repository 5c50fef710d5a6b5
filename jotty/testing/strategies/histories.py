"""Histories as `check_history` judges them: true ones, and ones in which a promise was broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
from hypothesis import strategies as st

from jotty.testing.history import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["SampleHistory", "histories"]

LEASE: Final = 1000
ATTEMPTS: Final = 3
FATES: Final = ("completed", "failed", "released", "killed", "stopped", "unheard", "in doubt")


@attrs.frozen
class SampleHistory:
    """What may have happened to some tasks.

    Attributes:
        events: What was told, in order of time.
        breaks: The rule of the contract that was broken, like "C23"; None if none was.
    """

    events: tuple[Event, ...]
    breaks: str | None = None


class _Tale:
    """Tells of one task, lease by lease."""

    def __init__(self, task: str, begin: int, **details: Any) -> None:
        self.task = task
        self.time = begin
        self.events: list[Event] = []
        self.lease = self.attempt = self.entries = 0
        self.outcome: dict[str, Any] = {"status": "pending", "result": None}
        self.tell("producer", "enqueued", max_attempts=ATTEMPTS, is_new=True, **details)

    @property
    def is_over(self) -> bool:
        return bool(self.outcome["status"] != "pending")

    def tell(self, process: str, kind: str, lease: int = 0, **details: Any) -> None:
        self.time += 1
        self.events.append(Event(self.time, process, kind, self.task, lease, details))

    def claim(self) -> str:
        """Claim the task as a process of its own."""
        self.lease, self.attempt = self.lease + 1, self.attempt + 1
        process = f"{self.task}-{self.lease}"
        self.tell(process, "claiming", call=0)
        since = self.time
        self.tell(process, "claimed", self.lease, since=since, lease_us=LEASE, attempt=self.attempt)
        self.tell(process, "answered", call=0)
        self.tell(process, "started", self.lease)
        return process

    def claim_unheard(self) -> None:
        """Claim the task as a process that is killed before it hears of it."""
        self.lease, self.attempt = self.lease + 1, self.attempt + 1
        process = f"{self.task}-{self.lease}"
        self.tell(process, "claiming", call=0)
        self.tell(process, "killed")
        self.time += LEASE

    def work(self, process: str, entries: int) -> None:
        """Write entries, renew the lease and do something."""
        if entries:
            first, self.entries = self.entries + 1, self.entries + entries
            self.tell(process, "recorded", self.lease, first=first, last=self.entries)
        self.tell(process, "renewed", self.lease, since=self.time, lease_us=LEASE)
        self.tell(process, "effect", self.lease)

    def settle(self, process: str, status: str, *, is_heard: bool = True, refund: int = 0) -> None:
        """Let go of the task; an answer that is not heard is that of a killed process."""
        self.attempt -= refund
        self.tell(process, "settling", self.lease, status=status, attempt=self.attempt)
        self.outcome = {"status": status, "result": self.lease if status == "completed" else None}
        told = {"status": status, "attempt": self.attempt, "since": self.time}
        if status == "completed":
            told["result"] = self.lease
        if is_heard:
            self.tell(process, "settled", self.lease, **told)
        else:
            self.tell(process, "killed")

    def expire(self, process: str, kind: str) -> None:
        """Kill or stop the holder, so that its lease expires; after the last attempt the task fails."""
        self.tell(process, kind)
        self.time += 2 * LEASE
        if kind == "stopped":
            self.tell(process, "continued")
        if self.attempt == ATTEMPTS:
            self.settle("reaper", "failed")

    def live(self, fate: str, entries: int) -> None:
        """Have one lease given, and let this become of it."""
        if fate == "unheard":
            if self.attempt < ATTEMPTS - 1:  # somebody must see the end
                self.claim_unheard()
            return
        process = self.claim()
        self.work(process, entries)
        if fate in {"killed", "stopped"}:
            self.expire(process, fate)
        elif fate == "released":
            self.settle(process, "pending", refund=1)
        elif fate == "failed":
            self.settle(process, "pending" if self.attempt < ATTEMPTS else "failed")
        else:
            self.settle(process, "completed", is_heard=fate == "completed")

    def finish(self, **other: Any) -> None:
        """Tell what the store says at the end."""
        self.time += 10 * LEASE
        told = {**self.outcome, "attempt": self.attempt, "entries": self.entries, **other}
        self.tell("harness", "final", self.lease, **told)


# A task each, to which one thing happens that must not


def _a_task_is_lost(tale: _Tale) -> None:
    tale.settle(tale.claim(), "pending")


def _two_hold_one_lease(tale: _Tale) -> None:
    process = tale.claim()
    tale.tell("thief", "claimed", tale.lease, lease_us=LEASE, attempt=tale.attempt)
    tale.settle(process, "completed")
    tale.finish()


def _a_lease_is_taken_early(tale: _Tale) -> None:
    tale.claim()
    tale.settle(tale.claim(), "completed")
    tale.finish()


def _a_late_write_is_taken(tale: _Tale) -> None:
    late, lease = tale.claim(), tale.lease
    tale.expire(late, "stopped")
    process = tale.claim()
    tale.tell(late, "recorded", lease, first=1, last=1)
    tale.entries = 1
    tale.settle(process, "completed")
    tale.finish()


def _a_lease_is_given_to_nobody(tale: _Tale) -> None:
    tale.lease += 1
    tale.settle(tale.claim(), "completed")
    tale.finish()


def _it_is_tried_too_often(tale: _Tale) -> None:
    for _ in range(ATTEMPTS):
        tale.settle(tale.claim(), "pending")
    tale.settle(tale.claim(), "completed")
    tale.finish()


def _it_runs_again_after_its_end(tale: _Tale) -> None:
    tale.settle(tale.claim(), "completed")
    tale.claim()
    tale.finish()


def _journal_numbers_are_given_twice(tale: _Tale) -> None:
    process = tale.claim()
    for _ in range(2):
        tale.tell(process, "recorded", tale.lease, first=1, last=1)
    tale.entries = 1
    tale.settle(process, "completed")
    tale.finish()


def _journal_entries_are_lost(tale: _Tale) -> None:
    process = tale.claim()
    tale.work(process, 2)
    tale.settle(process, "completed")
    tale.finish(entries=1)


def _a_result_is_another(tale: _Tale) -> None:
    tale.settle(tale.claim(), "completed")
    tale.finish(result="another")


BREACHES: Final[Mapping[str, Callable[[_Tale], None]]] = {
    "C2": _it_runs_again_after_its_end,
    "C6": _a_task_is_lost,
    "C15": _two_hold_one_lease,
    "C21": _a_lease_is_given_to_nobody,
    "C22": _a_lease_is_taken_early,
    "C23": _a_late_write_is_taken,
    "C25": _it_is_tried_too_often,
    "C37": _journal_numbers_are_given_twice,
    "C38": _journal_entries_are_lost,
    "C44": _a_result_is_another,
}


@st.composite
def _tales(draw: st.DrawFn, task: str, fates: Sequence[str]) -> list[Event]:
    tale = _Tale(task, draw(st.integers(0, 5 * LEASE)))
    for fate in draw(st.lists(st.sampled_from(fates), max_size=5)):
        if not tale.is_over and tale.attempt < ATTEMPTS:
            tale.live(fate, draw(st.integers(0, 3)))
    if not tale.is_over and tale.attempt < ATTEMPTS:
        tale.live("completed", 0)
    tale.finish()
    return tale.events


@st.composite
def _histories(draw: st.DrawFn, least: int, most: int, *, broken: bool) -> SampleHistory:
    # a claim that nobody heard of may have taken any lease, so that none is missed for certain
    fates = [fate for fate in FATES if not (broken and fate == "unheard")]
    number = draw(st.integers(least, most))
    events = [event for at in range(number) for event in draw(_tales(f"task-{at}", fates))]
    rule = draw(st.sampled_from(list(BREACHES))) if broken else None
    if rule is not None:
        tale = _Tale("broken", draw(st.integers(0, 5 * LEASE)))
        BREACHES[rule](tale)
        events += tale.events
    return SampleHistory(tuple(sorted(events, key=lambda event: event.time)), rule)


def histories(*, max_tasks: int = 4, broken: bool = False) -> st.SearchStrategy[SampleHistory]:
    """Generate histories of tasks that are claimed, worked on, released, lost and completed.

    Args:
        max_tasks: Of how many tasks they tell at most.
        broken: Whether they tell of one more, at which one promise was broken; `breaks` says which.

    Example:
        @given(histories(broken=True))
        def test_my_checker_finds_what_is_wrong(history):
            assert {history.breaks} == {one.rule for one in check_history(history.events).violations}
    """
    return _histories(0 if broken else 1, max_tasks, broken=broken)
