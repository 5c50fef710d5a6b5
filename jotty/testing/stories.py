"""A history, sorted by what it is about: one story a task, and in it one a lease."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from .moves import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .history import Event

__all__ = ["Lease", "Story", "Surroundings"]


class Surroundings:
    """What a history tells that is about no single task.

    Args:
        events: The history, in order of its time.

    Attributes:
        unanswered_claims: When claims began that were never heard of again: each may have taken any task.
        tells_of_ends: Whether the history tells of writes that take tasks out of progress.
        interruptions: By process, when it was killed or stopped.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        answered = {_call(event) for event in events if event.kind == "answered"}
        self.unanswered_claims = [
            event.time for event in events if event.kind == "claiming" and _call(event) not in answered
        ]
        self.tells_of_ends = any(event.kind in {"settling", "settled"} for event in events)
        self.interruptions: defaultdict[str, list[int]] = defaultdict(list)
        for event in events:
            if event.kind in {"killed", "stopped"}:
                self.interruptions[event.process].append(event.time)


def _call(event: Event) -> tuple[str, object]:
    return event.process, event.details.get("call")


@attrs.define
class Lease:
    """All that is told of one lease of a task; settled it may be by others, too, once it has expired.

    Attributes:
        number: The lease's number.
        given: The claims that gave it; where none is told, the start of the work.
        renewed: Its heartbeats.
        started: Where the work began.
        settling: Writes that began, to take the task out of progress.
        settled: Such writes that were acknowledged.
        recorded: What was acknowledged of the journal.
    """

    number: int
    given: list[Event] = attrs.field(factory=list)
    renewed: list[Event] = attrs.field(factory=list)
    started: list[Event] = attrs.field(factory=list)
    settling: list[Event] = attrs.field(factory=list)
    settled: list[Event] = attrs.field(factory=list)
    recorded: list[Event] = attrs.field(factory=list)

    @property
    def first(self) -> Event:
        """The event that shows the lease to have been given."""
        return self.given[0]

    @property
    def holder(self) -> str:
        """The process that had it."""
        return self.first.process

    @property
    def deadline(self) -> int:
        """Until when, at least, nobody else may have the task, if the holder does not give it up."""
        held = [*self.given, *self.renewed]
        return max(event.since + int(event.details.get("lease_us", 0)) for event in held)

    @property
    def given_up_at(self) -> int | None:
        """When, at the earliest, the holder may have given the task up."""
        given_up = [event.time for event in self.settling if event.process == self.holder]
        given_up += [event.since for event in self.settled if event.process == self.holder]
        return min(given_up, default=None)

    @property
    def writes(self) -> Iterator[Event]:
        """What the holder was acknowledged under this lease."""
        yield from self.renewed
        yield from self.recorded
        yield from (event for event in self.settled if event.process == self.holder)

    @property
    def is_refunded(self) -> bool:
        """Whether the claim may count against no attempt, because the task was released or postponed."""
        attempt = self.first.details.get("attempt")
        if attempt is None:
            return any(event.details.get("status") not in TERMINAL for event in self.settled)
        # also where the answer was lost: the write may have been taken
        writes = (*self.settling, *self.settled)
        return any(event.details.get("attempt", attempt) < attempt for event in writes)


class Story:
    """What a history tells of one task.

    Args:
        task: Its id.
        events: All that are about it, in order of their time.
        around: What is about no single task.

    Attributes:
        by_kind: The events by their kind.
        leases: Its leases, by their numbers.
    """

    def __init__(self, task: str, events: Sequence[Event], around: Surroundings) -> None:
        self.task = task
        self.around = around
        self.by_kind: defaultdict[str, list[Event]] = defaultdict(list)
        for event in events:
            self.by_kind[event.kind].append(event)
        self.leases = self._leases()

    def _leases(self) -> list[Lease]:
        """Return the leases in the order of their numbers; a start shows a claim where none is told."""
        leases: dict[int, Lease] = {}
        for event in self.by_kind["claimed"]:
            leases.setdefault(event.lease, Lease(event.lease)).given.append(event)
        for event in self.by_kind["started"]:
            lease = leases.setdefault(event.lease, Lease(event.lease, given=[event]))
            lease.started.append(event)
        for kind in ("renewed", "settling", "settled", "recorded"):
            for event in self.by_kind[kind]:
                if event.lease in leases:
                    getattr(leases[event.lease], kind).append(event)
        return [leases[number] for number in sorted(leases)]

    @property
    def final(self) -> Event | None:
        """What the store says of it at the end."""
        return next(iter(self.by_kind["final"]), None)

    def is_retried_after(self, time: int) -> bool:
        """Whether it may run again, though it had ended by then."""
        return any(event.time >= time for event in self.by_kind["retrying"])

    def ended(self) -> list[Event]:
        """Return the acknowledged ends of the task."""
        return [event for event in self.by_kind["settled"] if event.details.get("status") in TERMINAL]

    def may_end_at(self, status: str | None = None) -> int | None:
        """Return when, at the earliest, the task may have come to its end (or to this one)."""
        wanted = TERMINAL if status is None else {status}
        ends = [*self.by_kind["settling"], *self.by_kind["settled"]]
        return min((end.since for end in ends if end.details.get("status") in wanted), default=None)
