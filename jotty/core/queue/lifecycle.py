"""All policy, as pure functions from a head and an instant to the next head.

Each function makes one move of C1 and bumps `version` by one, so that its result can be
swapped in for what it was given. Those for a settle (`completed`, `failed`, ...) take a head that is
in progress; the caller has checked the lease. Instants and durations are int microseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.errors import InvalidState

from .clock import microseconds
from .task import LIVE, TERMINAL, Head, TaskStatus, next_head, rewriting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .retry import Random, RetryLater

__all__ = [
    "Verdict",
    "accepted",
    "answered",
    "cancelled",
    "claimed",
    "completed",
    "examine",
    "extended",
    "failed",
    "fired",
    "inserted",
    "is_fired_by",
    "is_same_claim",
    "needs_edges",
    "parked",
    "postponed",
    "released",
    "reprioritised",
    "retried",
]

S = TaskStatus
_UNHELD: Final[dict[str, Any]] = {"lease_until": 0, "due": None}
# the moves that every task makes
_insert: Final = rewriting("seq", "created_at", "run_at", "depends_on", is_next=False)
_claim: Final = rewriting("status", "lease", "attempt", "worker", "started_at", "lease_until", "due")
_finish: Final = rewriting("status", "finished_at", "awaiting", "lease_until", "due")


@attrs.frozen
class Verdict:
    """What `examine` decided.

    Attributes:
        head: The task's next head.
        error: Type and message, where the task failed.
    """

    head: Head
    error: tuple[str, str] | None = None


def _finished(head: Head, status: TaskStatus, now: int) -> Head:
    return _finish(head, status=status, finished_at=now, awaiting=(), lease_until=0, due=None)


# Moves that a backend makes, inside its critical section


def inserted(head: Head, *, seq: int, now: int, depends_on: tuple[str, ...]) -> Head:
    """Complete a new head: its place in the order of enqueue, and "now" for an unset created_at and run_at.

    Args:
        head: The head as the caller built it.
        seq: Its place in the order of enqueue.
        now: The store's time.
        depends_on: The same ids, with those replaced that stood for a task with a live key.
    """
    run_at = head.run_at or now
    return _insert(head, seq=seq, created_at=head.created_at or now, run_at=run_at, depends_on=depends_on)


def needs_edges(head: Head) -> bool:
    """Whether a backend that writes this head must (again) watch the task's dependencies.

    Again, because an edge is gone once its parent has ended, and that parent may have been retried since.
    """
    return head.status is S.BLOCKED and not head.awaiting


def is_fired_by(head: Head, dependencies: Iterable[TaskStatus]) -> bool:
    """Whether policy must look at a blocked task at once: no dependency is live, or one has broken it."""
    states = list(dependencies)
    is_broken = any(one in {S.FAILED, S.CANCELLED} for one in states)
    return all(one in TERMINAL for one in states) or (is_broken and head.on_dependency != "run")


def claimed(head: Head, *, worker: str, now: int, lease_us: int) -> Head:
    """Give a pending task to a worker: a new lease, and one attempt spent (C12)."""
    until = now + lease_us
    return _claim(
        head,
        status=S.IN_PROGRESS,
        lease=head.lease + 1,
        attempt=head.attempt + 1,
        worker=worker,
        started_at=now,
        lease_until=until,
        due=until,
    )


def is_same_claim(head: Head, claimed: Head) -> bool:
    """Whether a task is still held by the claim that made `claimed`.

    The lease alone does not tell where that claim may have come to nothing: the next has the same number.
    """
    return head.status is S.IN_PROGRESS and (head.lease, head.worker, head.started_at) == (
        claimed.lease,
        claimed.worker,
        claimed.started_at,
    )


def extended(head: Head, *, now: int, lease_us: int) -> Head:
    """Renew a lease; it never becomes shorter (C20)."""
    until = max(head.lease_until, now + lease_us)
    return next_head(head, lease_until=until, due=until)


def fired(head: Head) -> Head:
    """Ask for a look at a blocked task: no dependency is left, or one did not complete."""
    return next_head(head, due=0)


# Settling a task in progress


def completed(head: Head, now: int) -> Head:
    """Finish well; also where a cancel was requested meanwhile (C33)."""
    return _finished(head, S.COMPLETED, now)


def failed(head: Head, now: int, *, retry: bool, delay: float | None, random: Random) -> Head:
    """Back to the line after a wait, or to failed if no attempt is left or none is wanted (C31).

    Args:
        head: The head, in progress.
        now: The store's time.
        retry: Whether another attempt makes sense.
        delay: Seconds to wait for it; None for the task's own policy.
        random: Where the jitter comes from.
    """
    if head.cancel_requested:
        return _finished(head, S.CANCELLED, now)
    if not retry or head.attempt >= head.max_attempts:
        return _finished(head, S.FAILED, now)
    wait = head.retry.backoff(head.attempt, random) if delay is None else delay
    return next_head(
        head, status=S.PENDING, run_at=now + microseconds(wait), isolated=False, postponed=0, **_UNHELD
    )


def postponed(head: Head, now: int, request: RetryLater) -> Head:
    """Try again later at no cost, but not for ever: beyond `max_postponements` in a row it is failed."""
    if head.cancel_requested:
        return _finished(head, S.CANCELLED, now)
    if head.postponed >= head.retry.max_postponements:
        return _finished(head, S.FAILED, now)
    return next_head(
        head,
        status=S.PENDING,
        run_at=now + microseconds(request.seconds),
        attempt=head.attempt - 1,
        postponed=head.postponed + 1,
        isolated=False,
        **_UNHELD,
    )


def released(head: Head, now: int, *, delay: float = 0.0) -> Head:
    """Back to its place in line, the attempt given back (C26); with a delay, that much later."""
    if head.cancel_requested:
        return _finished(head, S.CANCELLED, now)
    run_at = now + microseconds(delay) if delay else head.run_at
    return next_head(head, status=S.PENDING, run_at=run_at, attempt=head.attempt - 1, **_UNHELD)


def parked(head: Head, now: int, *, awaiting: Sequence[str], until: int | None) -> Head:
    """Wait for an answer without a worker, the attempt given back; ready at once if it is there already."""
    if head.cancel_requested:
        return _finished(head, S.CANCELLED, now)
    back = {"attempt": head.attempt - 1, "isolated": False, "postponed": 0, "lease_until": 0}
    if not set(awaiting).isdisjoint(head.answered):
        return next_head(head, status=S.PENDING, due=None, **back)
    return next_head(head, status=S.BLOCKED, awaiting=tuple(awaiting), due=until, **back)


# What clients ask for


def answered(head: Head, key: str) -> Head:
    """Take note of an answer; a task that waits for it is ready again.

    Raises:
        InvalidState: The task is over, or has this answer already.
    """
    if head.status.is_terminal:
        raise InvalidState(head.id, head.status, "answer", "it is over")
    if key in head.answered:
        raise InvalidState(head.id, head.status, "answer", f"the question {key!r} has its answer already")
    taken = {"answered": (*head.answered, key)}
    if head.status is S.BLOCKED and key in head.awaiting:
        return next_head(head, status=S.PENDING, awaiting=(), due=None, **taken)
    return next_head(head, **taken)


def cancelled(head: Head, now: int) -> Head | None:
    """End a waiting task, or ask the holder of a running one to stop; None if nothing changes (C33)."""
    if head.status.is_terminal or head.cancel_requested:
        return None
    if head.status is S.IN_PROGRESS:
        return next_head(head, cancel_requested=True)
    return _finished(head, S.CANCELLED, now)


def accepted(head: Head, dependencies: Sequence[Head | None], *, run: bool) -> Head:
    """Move a suggested task to the backlog, or either of the two to the line (C1).

    A task whose dependencies are not done yet is blocked until they are.

    Raises:
        InvalidState: The task is neither suggested nor in the backlog, or a task it depends on is missing.
    """
    if head.status is S.SUGGESTED and not run:
        return next_head(head, status=S.BACKLOG)
    if head.status not in {S.SUGGESTED, S.BACKLOG} or not run:
        raise InvalidState(head.id, head.status, "accept", "only suggested and backlog tasks wait for that")
    if None in dependencies:
        missing = head.depends_on[list(dependencies).index(None)]
        raise InvalidState(head.id, head.status, "accept", f"it depends on {missing}, which is missing")
    if any(parent and parent.status is not S.COMPLETED for parent in dependencies):
        return next_head(head, status=S.BLOCKED)
    return next_head(head, status=S.PENDING)


def reprioritised(head: Head, priority: int) -> Head:
    """Give a live task another priority.

    Raises:
        InvalidState: The task is over.
    """
    if head.status.is_terminal:
        raise InvalidState(head.id, head.status, "reprioritise", "it is over")
    return next_head(head, priority=priority)


def retried(head: Head, dependencies: Sequence[Head | None]) -> Head:
    """Start a failed or cancelled task afresh, with all its attempts (C36).

    Raises:
        InvalidState: It is neither, or a task it depends on did not complete or is missing.
    """
    if head.status not in {S.FAILED, S.CANCELLED}:
        raise InvalidState(head.id, head.status, "retry", "only failed and cancelled tasks can be retried")
    if head.on_dependency != "run":
        _refuse_broken(head, dependencies)
    return next_head(
        head,
        status=S.BLOCKED if any(parent and parent.status in LIVE for parent in dependencies) else S.PENDING,
        run_at=0,
        attempt=0,
        postponed=0,
        isolated=False,
        cancel_requested=False,
        finished_at=0,
        **_UNHELD,
    )


def _refuse_broken(head: Head, dependencies: Sequence[Head | None]) -> None:
    for task_id, parent in zip(head.depends_on, dependencies, strict=True):
        if parent is None or parent.status in {S.FAILED, S.CANCELLED}:
            state = "missing" if parent is None else parent.status
            raise InvalidState(head.id, head.status, "retry", f"it depends on {task_id}, which is {state}")


# What anyone does who finds a task due


def examine(head: Head, dependencies: Sequence[Head | None], now: int) -> Verdict | None:
    """Decide what becomes of a task that is due; None if it is not, after all.

    Args:
        head: The head as it is stored.
        dependencies: The heads of `depends_on`, in that order; None for one that was purged. Only terminal
            tasks are, and whoever purges first examines all that is due: what is missing had completed.
        now: The store's time.
    """
    if head.due is None or head.due > now:
        return None
    if head.status is S.IN_PROGRESS:
        return _expired(head, now)
    if head.status is not S.BLOCKED:
        return Verdict(next_head(head, due=None))
    if head.awaiting:
        return Verdict(next_head(head, status=S.PENDING, awaiting=(), due=None))
    return _unblocked(head, dependencies, now)


def _expired(head: Head, now: int) -> Verdict:
    """The worker is lost: to the next one, alone (C25), or to failed where no attempt is left (C24)."""
    if head.cancel_requested:
        return Verdict(_finished(head, S.CANCELLED, now))
    if head.attempt >= head.max_attempts:
        message = f"worker lost: {head.worker} let lease {head.lease} expire at attempt {head.attempt}"
        return Verdict(_finished(head, S.FAILED, now), ("WorkerLost", message))
    return Verdict(next_head(head, status=S.PENDING, isolated=True, **_UNHELD))


def _unblocked(head: Head, dependencies: Sequence[Head | None], now: int) -> Verdict:
    broken = next((one for one in dependencies if one and one.status in {S.FAILED, S.CANCELLED}), None)
    if broken is not None and head.on_dependency == "fail":
        message = f"it depends on {broken.id}, which is {broken.status}"
        return Verdict(_finished(head, S.FAILED, now), ("DependencyFailed", message))
    if broken is not None and head.on_dependency == "cancel":
        return Verdict(_finished(head, S.CANCELLED, now))
    if any(parent and parent.status in LIVE for parent in dependencies):
        return Verdict(next_head(head, due=None))
    return Verdict(next_head(head, status=S.PENDING, due=None))
