"""The state machine: it makes every call, meets every fault, leaves nothing open, and fits its runner."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from jotty.core.queue import TaskQueue
from jotty.testing import FAULTS, Fault, TaskQueueMachine, task_queue_machine
from jotty.testing.machine.expectation import UNKNOWN
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jotty.core.queue import Change, QueueBackend, Record, Swapped
    from jotty.testing import VirtualClock

NOT_OF_THE_MODEL = {"wait_ready", "workers"}  # one is half of a turn, the other is what workers tell


class Watched(MemoryBackend):
    """A memory store that counts its handles, and lets others run at some of its calls."""

    opened: ClassVar = Counter[str]()

    def clone(self) -> MemoryBackend:
        twin = super().clone()
        twin.__class__ = type(self)
        return twin

    async def open(self) -> None:
        self.opened["open"] += 1
        await super().open()

    async def aclose(self) -> None:
        self.opened["closed"] += 1
        await super().aclose()

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        await checkpoint()
        return await super().get(ids, payload=payload)

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        await checkpoint()
        return await super().swap(changes)


def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
    return Watched(clock=clock).clone


def examples(number: int, steps: int = 40) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def run(machine: type[TaskQueueMachine], number: int = 40) -> None:
    run_state_machine_as_test(machine, settings=examples(number))


def test_every_call_of_a_queue_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[str] = set()
    public = {name for name in dir(TaskQueue) if not name.startswith("_")}
    calls = {name for name in public if inspect.isfunction(getattr(TaskQueue, name))}

    def noted(name: str, call: Any) -> Any:
        def note(*args: Any, **options: Any) -> Any:
            made.add(name)
            return call(*args, **options)

        return note

    for name in calls:
        monkeypatch.setattr(TaskQueue, name, noted(name, getattr(TaskQueue, name)))
    run(task_queue_machine(new_store))

    assert calls - NOT_OF_THE_MODEL == made - NOT_OF_THE_MODEL


def test_every_fault_strikes_and_leaves_both_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    struck: Counter[str] = Counter()
    looks: Counter[bool] = Counter()
    ask, look = TaskQueueMachine.ask, TaskQueueMachine.look

    def noted_ask(machine: TaskQueueMachine, handle: int, fault: Fault | None, call: Any) -> Any:
        answer = ask(machine, handle, fault, call)
        if fault is not None and answer is UNKNOWN:
            struck[fault.kind] += 1
        return answer

    def noted_look(machine: TaskQueueMachine, *effects: Any) -> None:
        before = machine.model.copy()
        before.reap(machine.now)
        look(machine, *effects)
        looks[before.told() == machine.model.told()] += 1

    monkeypatch.setattr(TaskQueueMachine, "ask", noted_ask)
    monkeypatch.setattr(TaskQueueMachine, "look", noted_look)
    run(task_queue_machine(new_store), 60)

    assert set(FAULTS) == set(struck)
    assert {True, False} == set(looks)


def test_all_that_was_opened_is_closed_also_when_an_example_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: TaskQueueMachine) -> None:
        raise AssertionError("as it must")

    monkeypatch.setattr(Watched, "opened", opened := Counter[str]())
    monkeypatch.setattr(TaskQueueMachine, "check_keys", fail)
    with pytest.raises(AssertionError, match="as it must"):
        run(task_queue_machine(new_store), 5)

    assert opened["closed"] >= opened["open"] > 0


def test_settings_are_left_to_the_user() -> None:
    """Its TestCase can be collected, with settings of one's own."""
    case = task_queue_machine(new_store).TestCase
    case.settings = examples(3, steps=5)

    case("runTest").debug()


def test_each_machine_has_the_store_it_was_made_for() -> None:
    first = task_queue_machine(new_store)
    second = task_queue_machine(lambda clock: MemoryBackend(clock=clock).clone)

    assert first.new_store is new_store
    assert second.new_store is not new_store


@pytest.mark.parametrize("kind", ["error", "", "cancel"])
def test_a_fault_is_of_a_known_kind(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        Fault(kind)
