"""How a worker lets go of a task, as a value: so that many can be settled in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.errors import PayloadError

from . import lifecycle
from .record import change, error_outcome, result_outcome
from .retry import RetryLater
from .task import Head, Task, TaskStatus, check_name, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .backend import Change
    from .retry import Random

__all__ = ["Settlement", "completion", "failure", "parking", "release"]


@attrs.frozen
class Settlement:
    """What to do with a task in progress.

    Attributes:
        task: The task, as it was claimed or last renewed.
        move: From the head as it is stored, and the store's time, to the next head.
        outcome: The result or error to store with it.
        outcome_if_failed: The same, where the move turns out to fail the task.
        entries: Journal entries to append in the same step.
        completes: Whether finding the task completed under this lease is success (C29).
        in_doubt: What was tried to be written without an answer; kept to know it again.
    """

    task: Task
    move: Callable[[Head, int], Head]
    outcome: bytes | None = None
    outcome_if_failed: bytes | None = None
    entries: Sequence[bytes] = ()
    completes: bool = False
    in_doubt: list[Head] = attrs.field(factory=list, eq=False)

    def change(self, head: Head, now: int) -> Change:
        """Return the swap that settles the task, whose stored head this is."""
        moved = self.move(head, now)
        outcome = self.outcome_if_failed if moved.status is TaskStatus.FAILED else None
        return change(head, moved, outcome=outcome or self.outcome, entries=self.entries)

    def holds(self, head: Head) -> bool:
        """Whether this is the head of a task that is still held under the lease."""
        return head.status is TaskStatus.IN_PROGRESS and head.lease == self.task.lease

    def is_held(self) -> bool:
        """Whether the task, as the caller has it, is one that it holds."""
        return self.holds(self.task.head)

    def is_done(self, head: Head) -> bool:
        """Whether this is what an earlier try has written, its answer lost; or another completion with it."""
        if head in self.in_doubt:
            return True
        return self.completes and head.status is TaskStatus.COMPLETED and head.lease == self.task.lease


def completion(
    task: Task, result: Any, limit: int, random: Random, entries: Sequence[bytes] = ()
) -> Settlement:
    """Complete the task; where the result is longer than the limit, fail it at once with that error (C31).

    Raises:
        PayloadError: The result is not strict JSON (C30).
    """
    try:
        outcome = result_outcome(result, limit)
    except PayloadError as error:
        if not error.is_too_large:
            raise
        return Settlement(task, _failing(retry=False, random=random), error_outcome(error), entries=entries)
    return Settlement(task, lifecycle.completed, outcome, entries=entries, completes=True)


def failure(
    task: Task, error: BaseException | str, *, retry: bool, delay: float | None, random: Random
) -> Settlement:
    """Fail this attempt, or postpone it where the error is a `RetryLater`.

    Raises:
        TypeError: The error is neither an exception nor text.
        ValueError: The delay is no number of seconds >= 0.
    """
    if not isinstance(error, (BaseException, str)):
        raise TypeError(f"error must be an exception or text, not {error!r}.")
    if delay is not None:
        check_seconds("delay", delay)
    if isinstance(error, RetryLater):
        later = error
        told = f"postponed {task.retry.max_postponements} times in a row, last for {later.seconds:g} s"
        return Settlement(
            task,
            lambda head, now: lifecycle.postponed(head, now, later),
            outcome_if_failed=error_outcome(("RetryLater", told)),
        )
    return Settlement(task, _failing(retry=retry, delay=delay, random=random), error_outcome(error))


def release(task: Task, *, delay: float = 0.0) -> Settlement:
    """Give the task back, and its attempt.

    Raises:
        ValueError: The delay is no number of seconds >= 0.
    """
    check_seconds("delay", delay)
    return Settlement(task, lambda head, now: lifecycle.released(head, now, delay=delay))


def parking(
    task: Task, awaiting: Collection[str], *, until: int | None, entries: Sequence[bytes] = ()
) -> Settlement:
    """Have the task wait for an answer to one of these questions, or until an instant of the store.

    Raises:
        ValueError: There is no question, or a key is no name.
    """
    keys = tuple(dict.fromkeys(awaiting))
    if isinstance(awaiting, str) or not keys:
        raise ValueError(f"awaiting must hold at least one question's key, not {awaiting!r}.")
    for key in keys:
        check_name("a question's key", key)
    return Settlement(
        task, lambda head, now: lifecycle.parked(head, now, awaiting=keys, until=until), entries=entries
    )


def _failing(*, retry: bool, random: Random, delay: float | None = None) -> Callable[[Head, int], Head]:
    return lambda head, now: lifecycle.failed(head, now, retry=retry, delay=delay, random=random)
