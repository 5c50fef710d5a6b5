"""A hypothesis state machine: a queue and a plain-Python model of it, side by side, call by call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clients import ClientRules
from .invariants import Invariants
from .opening import OpeningRules
from .producers import ProducerRules
from .readers import ReaderRules
from .turns import TurnRules
from .workers import WorkerRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.queue import QueueBackend
    from jotty.testing.clock import VirtualClock

__all__ = ["TaskQueueMachine", "task_queue_machine"]


class TaskQueueMachine(
    OpeningRules, ProducerRules, WorkerRules, TurnRules, ClientRules, ReaderRules, Invariants
):
    """Every operation of a queue against a model, through two handles, on a virtual clock, with faults.

    Make one with `task_queue_machine`. Each example has an event loop (asyncio) and a store of its own. A
    rule's `fault` strikes one call that the queue makes of its backend; after it, what the store holds must
    be what the model has without the call, or with it, and nothing between.

    Attributes:
        new_store: Gives, for a clock, a function that opens a fresh store, again and again.
    """


def task_queue_machine(
    new_store: Callable[[VirtualClock], Callable[[], QueueBackend]],
) -> type[TaskQueueMachine]:
    """Return a state machine over a backend, to be run by `hypothesis.stateful.run_state_machine_as_test`.

    Its `TestCase` can be collected by pytest as well. Settings are left to the caller.

    Args:
        new_store: Called with the example's clock; gives a function that opens a fresh store, each time as
            another handle: `lambda clock: MemoryBackend(clock=clock).clone`.

    Example:
        machine = task_queue_machine(lambda clock: MemoryBackend(clock=clock).clone)
        run_state_machine_as_test(machine, settings=settings(max_examples=100, deadline=None))
    """
    return type("TaskQueueMachineOver", (TaskQueueMachine,), {"new_store": staticmethod(new_store)})
