"""What workers do with the tasks they claim, one call at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import consumes, multiple, rule

from jotty.core.queue import RetryLater, Task, TaskStatus, microseconds
from jotty.errors import LeaseLost

from .arguments import (
    LANES,
    claims,
    durations,
    faults,
    handles,
    limits,
    questions,
    several_lanes,
    waits,
    workers,
)
from .expectation import UNKNOWN, Call, Expectations, all_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.testing.faults import Fault
    from jotty.testing.model import QueueModel, TaskModel

    from .expectation import Effect

__all__ = ["WorkerRules"]

endings = st.sampled_from(["complete", "fail", "release", "park", "nothing"])


class WorkerRules(Expectations):
    """`claim`, `heartbeat`, `complete`, `fail`, `release`, `park` and `record`."""

    @rule(
        target=claims,
        handle=handles,
        fault=faults,
        worker=workers,
        asked=several_lanes,
        limit=limits,
        lease_timeout=durations,
    )
    def claim(  # noqa: PLR0917 - called by hypothesis, by name
        self,
        handle: int,
        fault: Fault | None,
        worker: str,
        asked: list[str],
        limit: int,
        lease_timeout: float,
    ) -> Any:
        """Claim tasks: those the model has first in line, and no other."""
        return multiple(
            *self._claim(handle, fault, worker=worker, asked=asked, limit=limit, lease_timeout=lease_timeout)
        )

    @rule(target=claims, handle=handles, worker=workers, limit=limits, ending=endings, again=endings)
    def work(self, handle: int, worker: str, limit: int, ending: str, again: str) -> Any:
        """Claim tasks and settle them, perhaps twice."""
        claimed = self._claim(handle, None, worker=worker, asked=LANES, limit=limit, lease_timeout=30)
        for held in claimed:
            self._end(handle, held, ending)
            self._end(handle, held, again)
        return multiple(*claimed)

    def _claim(
        self,
        handle: int,
        fault: Fault | None,
        *,
        worker: str,
        asked: list[str],
        limit: int,
        lease_timeout: float,
    ) -> list[Task]:
        self.reap(handle)
        expected = [task.id for task in self.model.ready(asked, self.now)[:limit]]
        claimed = claiming(asked, limit, worker, lease_timeout, self.now)
        value = self.expect(
            handle,
            fault,
            lambda queue: queue.claim(worker=worker, lanes=asked, limit=limit, lease_timeout=lease_timeout),
            claimed,
            unknown=[all_of(claimed, giving_back(expected, self.now)) if is_cancel(fault) else claimed],
        )
        found: list[Task] = [] if value is UNKNOWN else value
        if value is not UNKNOWN:
            assert expected == [task.id for task in found], "C12, C13, C14, C17: the first in line"
        return found

    def _end(self, handle: int, held: Task, ending: str) -> None:
        endings: dict[str, Callable[[], None]] = {
            "complete": lambda: self.complete(handle, None, held, 7),
            "fail": lambda: self.fail(handle, None, held, None, retry=True),
            "release": lambda: self.release(handle, None, held, 0),
            "park": lambda: self.park(handle, None, held, ["a"], None),
            "nothing": lambda: None,
        }
        endings[ending]()

    @rule(handle=handles, fault=faults, held=st.lists(claims, max_size=3), lease_timeout=durations)
    def heartbeat(self, handle: int, fault: Fault | None, held: list[Task], lease_timeout: float) -> None:
        """Renew leases (C20)."""
        unique = list({task.id: task for task in held}.values())
        until = self.now + microseconds(lease_timeout)

        def renew(model: QueueModel) -> None:
            for task in unique:
                if found := model.held(task.id, task.lease):
                    found.lease_until = max(found.lease_until, until)

        call: Call = lambda queue: queue.heartbeat(unique, lease_timeout=lease_timeout)  # noqa: E731
        renewed = self.expect(handle, fault, call, renew)
        for task, found in zip(unique, renewed if renewed is not UNKNOWN else [], strict=False):
            model = self.model.held(task.id, task.lease)
            assert (model is None) == (found is None), "C18: None stands for a lost lease, and for no other"
            if model is not None:
                assert model.cancel_requested == found.cancel_requested, "C20: it tells of a cancel"

    @rule(handle=handles, fault=faults, held=claims, result=st.integers(0, 9))
    def complete(self, handle: int, fault: Fault | None, held: Task, result: int) -> None:
        """Complete a task, perhaps again, perhaps too late."""
        call: Call = lambda queue: queue.complete(held, result)  # noqa: E731
        if is_completed(self.model, held):
            value = self.expect(handle, fault, call)
            expected = self.model.tasks[held.id].result
            assert value is UNKNOWN or expected == value.result, "C29: the first result stays"
            return
        self._settle(handle, fault, held, call, partial(_complete, result=result, now=self.now))

    @rule(
        handle=handles,
        fault=faults,
        held=consumes(claims),
        delay=st.sampled_from([None, 0, 30]),
        retry=st.booleans(),
    )
    def fail(self, handle: int, fault: Fault | None, held: Task, delay: float | None, *, retry: bool) -> None:
        """Fail an attempt."""
        call: Call = lambda queue: queue.fail(held, "error", retry=retry, delay=delay)  # noqa: E731
        delay_us = None if delay is None else microseconds(delay)
        self._settle(
            handle,
            fault,
            held,
            call,
            lambda model, task: model.fail(task, self.now, retry=retry, delay_us=delay_us),
        )

    @rule(handle=handles, fault=faults, held=consumes(claims), seconds=st.sampled_from([1, 30]))
    def postpone(self, handle: int, fault: Fault | None, held: Task, seconds: float) -> None:
        """Ask to be tried later."""
        self._settle(
            handle,
            fault,
            held,
            lambda queue: queue.fail(held, RetryLater(seconds)),
            lambda model, task: model.postpone(task, self.now, delay_us=microseconds(seconds)),
        )

    @rule(handle=handles, fault=faults, held=consumes(claims), delay=waits)
    def release(self, handle: int, fault: Fault | None, held: Task, delay: float) -> None:
        """Give a task back."""
        self._settle(
            handle,
            fault,
            held,
            lambda queue: queue.release(held, delay=delay),
            lambda model, task: model.release(task, self.now, delay_us=microseconds(delay)),
        )

    @rule(
        handle=handles,
        fault=faults,
        held=claims,
        keys=st.lists(questions, min_size=1, max_size=2, unique=True),
        seconds=st.sampled_from([None, 1, 30]),
    )
    def park(
        self, handle: int, fault: Fault | None, held: Task, keys: list[str], seconds: float | None
    ) -> None:
        """Wait for an answer, perhaps not for ever."""
        wall = datetime.fromtimestamp(self.clock.wall() / 1e6, UTC)
        until = None if seconds is None else wall + timedelta(seconds=seconds)
        expires_at = None if seconds is None else self.now + microseconds(seconds)
        self._settle(
            handle,
            fault,
            held,
            lambda queue: queue.park(held, keys, until=until),
            lambda model, task: model.park(task, tuple(keys), expires_at, self.now),
        )

    @rule(handle=handles, fault=faults, held=claims, number=st.integers(0, 3))
    def record(self, handle: int, fault: Fault | None, held: Task, number: int) -> None:
        """Append to the journal (C37)."""

        def write(_: QueueModel, task: TaskModel) -> None:
            task.entries += number

        call: Call = lambda queue: queue.record(held, [{"kind": "event"}] * number)  # noqa: E731
        last = self._settle(handle, fault, held, call, write)
        if isinstance(last, int):
            assert self.model.tasks[held.id].entries == last, "C37: numbered without holes"

    def _settle(
        self,
        handle: int,
        fault: Fault | None,
        held: Task,
        call: Call,
        effect: Callable[[QueueModel, TaskModel], object],
    ) -> Any:
        """Make a call that needs the lease (C18)."""
        if self.model.held(held.id, held.lease) is None:
            return self.expect(handle, fault, call, error=LeaseLost)
        return self.expect(handle, fault, call, lambda model: effect(model, model.tasks[held.id]))


def claiming(lanes: list[str], limit: int, worker: str, lease_timeout: float, now: int) -> Effect:
    """Return the effect of a claim."""
    return lambda model: model.claim(lanes, limit, worker, microseconds(lease_timeout), now)


def giving_back(ids: list[str], now: int) -> Effect:
    """Return the effect of a claim that is cancelled after these were claimed (C42)."""

    def effect(model: QueueModel) -> None:
        for task_id in ids:
            model.release(model.tasks[task_id], now)

    return effect


def is_cancel(fault: Fault | None) -> bool:
    """Whether a fault cancels: then what was claimed must have been given back (C42)."""
    return fault is not None and fault.kind.startswith("cancel")


def is_completed(model: QueueModel, held: Task) -> bool:
    """Whether a task was completed under this very lease (C29)."""
    task = model.tasks.get(held.id)
    return task is not None and task.status is TaskStatus.COMPLETED and task.lease == held.lease


def _complete(model: QueueModel, task: TaskModel, *, result: int, now: int) -> None:
    model.complete(task, result, now)
