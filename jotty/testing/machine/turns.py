"""A worker's turn: many settlements and a claim, in one step of the store."""

from __future__ import annotations

from functools import partial
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import multiple, rule

from jotty.core.queue import MAX_PAYLOAD, Task
from jotty.core.queue.settlement import completion, failure, release
from jotty.errors import LeaseLost, QueueError, StorageError

from .arguments import LANES, claims, durations, faults, handles, workers
from .expectation import UNKNOWN, Expectations
from .workers import claiming, giving_back, is_cancel, is_completed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from random import Random

    from jotty.core.queue import QueueBackend
    from jotty.core.queue.settlement import Settlement
    from jotty.testing.faults import Fault
    from jotty.testing.model import QueueModel

    from .expectation import Effect

__all__ = ["TurnRules"]

RESULT = 5
settlings = st.sampled_from(["complete", "fail", "release"])


@attrs.frozen
class _Step:
    """One settlement of a turn.

    Attributes:
        held: The task, as it was claimed.
        ending: What becomes of it.
        is_late: Whether the task was written since, so that it is settled after the claim.
    """

    held: Task
    ending: str
    is_late: bool

    def settlement(self, random: Random) -> Settlement:
        """Return it as the queue takes it."""
        if self.ending == "complete":
            return completion(self.held, RESULT, MAX_PAYLOAD, random)
        if self.ending == "release":
            return release(self.held)
        return failure(self.held, "error", retry=True, delay=None, random=random)

    def apply(self, model: QueueModel, now: int) -> None:
        """Have the model follow; nothing happens where the lease is lost."""
        task = model.held(self.held.id, self.held.lease)
        if task is None:
            return
        if self.ending == "complete":
            model.complete(task, RESULT, now)
        elif self.ending == "release":
            model.release(task, now)
        else:
            model.fail(task, now, retry=True)

    def check(self, model: QueueModel, settled: Task | QueueError) -> None:
        """Insist on the right answer, given the model as it was before."""
        is_held = model.held(self.held.id, self.held.lease) is not None
        is_again = self.ending == "complete" and is_completed(model, self.held)
        if isinstance(settled, StorageError):
            return
        assert isinstance(settled, LeaseLost) == (not is_held and not is_again), f"C18: {settled!r}"


class TurnRules(Expectations):
    """`turn`."""

    @rule(
        target=claims,
        handle=handles,
        fault=faults,
        worker=workers,
        held=st.lists(claims, max_size=2),
        ending=settlings,
        limit=st.integers(0, 2),
        lease_timeout=durations,
    )
    def turn(  # noqa: PLR0917 - called by hypothesis, by name
        self,
        handle: int,
        fault: Fault | None,
        worker: str,
        held: list[Task],
        ending: str,
        limit: int,
        lease_timeout: float,
    ) -> Any:
        """Settle tasks and claim others; what is too late stops nobody else."""
        steps = self._steps(held, ending)
        claimed = claiming(LANES, limit, worker, lease_timeout, self.now)
        before = self.model.copy()
        whole = _turn(steps, claimed, self.now)
        value = self.expect(
            handle,
            fault,
            lambda queue: queue.turn(
                [step.settlement(_NO_JITTER) for step in steps],
                worker=worker,
                lanes=LANES,
                limit=limit,
                lease_timeout=lease_timeout,
            ),
            unknown=list(_partly(steps, claimed, self.now, gives_back=is_cancel(fault))),
        )
        if value is UNKNOWN:
            return multiple()
        for step, settled in zip(steps, value.settled, strict=True):
            step.check(before, settled)
        if any(isinstance(one, StorageError) for one in value.settled):
            self.look(*_partly(steps, claimed, self.now, gives_back=False))
        else:
            whole(self.model)
        found = [self.model.tasks[task.id] for task in value.claimed]
        assert all(one.holds(task.lease) for one, task in zip(found, value.claimed, strict=True)), "C12, C13"
        return multiple(*value.claimed)

    def _steps(self, held: Sequence[Task], ending: str) -> list[_Step]:
        unique = list({task.id: task for task in held}.values())
        self.run(self.observer.stats())  # opens it
        backend = self.observer.backend
        return [_Step(task, ending, self.run(_is_changed(backend, task))) for task in unique]


class _NoJitter:
    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return k


_NO_JITTER: Any = _NoJitter()


async def _is_changed(backend: QueueBackend, task: Task) -> bool:
    (found,) = await backend.get([task.id], payload=False)
    return found is None or found.head.version != task.version


def _turn(steps: Sequence[_Step], claimed: Effect, now: int) -> Effect:
    """Return the effect of a turn: children of what ends move after the claim."""

    def effect(model: QueueModel) -> None:
        with model.children_later(now):
            for step in steps:
                if not step.is_late:
                    step.apply(model, now)
            claimed(model)
            for step in steps:
                if step.is_late:
                    step.apply(model, now)

    return effect


def _partly(steps: Sequence[_Step], claimed: Effect, now: int, *, gives_back: bool) -> Iterator[Effect]:
    """Return what a turn may have done whose answer is lost: what is late may be settled or not."""
    late = [step for step in steps if step.is_late]
    for done in _subsets(late):
        effect = _turn([step for step in steps if step in done or not step.is_late], claimed, now)
        yield partial(_cancelled, effect=effect, now=now) if gives_back else effect


def _cancelled(model: QueueModel, *, effect: Effect, now: int) -> None:
    """Have the effect of a turn that gives back what it claimed."""
    before = {task.id: task.lease for task in model.tasks.values()}
    effect(model)
    taken = [task.id for task in model.tasks.values() if task.lease > before[task.id]]
    giving_back([one for one in taken if model.tasks[one].status == "in_progress"], now)(model)


def _subsets(steps: Sequence[_Step]) -> Iterable[tuple[_Step, ...]]:
    return chain.from_iterable(combinations(steps, number) for number in range(len(steps), -1, -1))
