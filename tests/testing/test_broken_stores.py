"""Stores with one promise broken, each in its own way: the machine and the simulation find them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.core.queue import TaskStatus
from jotty.testing import simulate, task_queue_machine
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jotty.core.queue import Change, Claimed, ClaimRequest, QueueBackend, Record, Swapped
    from jotty.testing import VirtualClock

EXAMPLES = settings(
    max_examples=2000,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=False,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Cloned(MemoryBackend):
    """A memory store whose other handles are of its own class."""

    def clone(self) -> MemoryBackend:
        twin = super().clone()
        twin.__class__ = type(self)
        return twin


class Unfenced(Cloned):
    """Takes whatever a worker writes, whoever holds the task by now."""

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        heads = self._store.state._heads
        forced = [
            attrs.evolve(one, expected=found.version)
            if (found := heads.get(one.record.head.id)) is not None
            and one.record.head.status is TaskStatus.COMPLETED
            else one
            for one in changes
        ]
        return await super().swap(forced)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        swapped = await self.swap(changes)
        return swapped, (await super().turn((), request))[1]


class Halving(Cloned):
    """Stores only the first half of what is inserted at once."""

    async def insert(self, records: Sequence[Record], *, limit: int | None = None) -> list[Record]:
        half = (len(records) + 1) // 2
        stored = await super().insert(records[:half], limit=limit)
        return stored + list(records[half:])


class Shortening(Cloned):
    """Sets a lease to its new length, also where that is shorter."""

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        found = await super().extend(leases, us)
        for record in found:
            if record is not None:
                until = self.now() + us
                head = attrs.evolve(record.head, lease_until=until, due=until)
                self._store.state._put(head)
        return found


class Unordered(Cloned):
    """Gives tasks in the wrong order."""

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        swapped, claimed = await super().turn(changes, request)
        claimed.records.reverse()
        return swapped, claimed


class Forgetful(Cloned):
    """Does not give back what a cancelled claim took."""

    async def claim(self, request: ClaimRequest) -> Claimed:
        claimed = (await self.turn((), request))[1]
        await checkpoint()
        return claimed


class Inaccurate(Cloned):
    """Counts each task that failed twice."""

    async def count(self) -> Any:
        counts = await super().count()
        return {where: number * (1 + (where[1] is TaskStatus.FAILED)) for where, number in counts.items()}


class Generous(Cloned):
    """Gives a task to whoever asks first and to whoever asks next, under one lease."""

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        swapped, claimed = await super().turn(changes, request)
        given = self._store.__dict__.setdefault("given", [])
        if not claimed.records and request.limit and given:
            return swapped, attrs.evolve(claimed, records=[given.pop()])
        given += claimed.records[:1]
        return swapped, claimed


def over(store: type[Cloned]) -> Callable[[VirtualClock], Callable[[], QueueBackend]]:
    return lambda clock: store(clock=clock).clone


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (Unfenced, "must raise LeaseLost|C29"),
        (Halving, "C8"),
        (Shortening, "lease_until must be"),
        (Unordered, "C13"),
        (Forgetful, "C4"),
        (Inaccurate, "C5: the counts"),
        (Generous, "C1"),
    ],
)
def test_the_machine_catches_what_breaks_a_promise(store: type[Cloned], said: str) -> None:
    unshrunk = settings(EXAMPLES, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError, match=said):
        run_state_machine_as_test(task_queue_machine(over(store)), settings=unshrunk)


@pytest.mark.parametrize("store", [Halving, Unordered])
def test_a_failing_script_is_short_and_names_what_is_claimed(store: type[Cloned]) -> None:
    shrunk = settings(EXAMPLES, phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False)
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(task_queue_machine(over(store)), settings=shrunk)
    script = "\n".join(caught.value.__notes__)

    assert len(script.splitlines()) < 10
    assert "object at 0x" not in script


@pytest.mark.parametrize(
    ("store", "rules"),
    [
        (Unfenced, {"C2", "C23"}),
        (Generous, {"C15"}),
        (Halving, {"C6", "C8"}),
        (Inaccurate, {"C5"}),
    ],
)
def test_the_simulation_finds_it_out_within_a_few_seeds(store: type[Cloned], rules: set[str]) -> None:
    verdicts = (simulate(seed, new_store=over(store)).verdict for seed in range(5))
    broken = next((found for one in verdicts if (found := {each.rule for each in one.violations})), set())

    assert rules & broken
