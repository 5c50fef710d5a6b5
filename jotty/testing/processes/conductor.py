"""A process that runs goals with actors which tell when they begin and end; or that enqueues such goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import attrs

from jotty.core.orchestration import Conductor, actor

from .child import run_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jotty.core.orchestration import ActorContext, AnyActor

    from .child import Child

__all__ = ["PARENTS", "ConductorOptions"]

# By actor, which of them it depends on: a diamond with a tail.
PARENTS: Final[Mapping[str, Sequence[str]]] = {
    "first": (),
    "left": ("first",),
    "right": ("first",),
    "join": ("left", "right"),
    "last": ("join",),
}


@attrs.frozen(kw_only=True)
class ConductorOptions:
    """What to run.

    Attributes:
        goals: How many goals to enqueue; 0 to work on those that are there, until the queue is empty.
        seconds: How long an actor takes at most; it is a random part of it.
        lease_timeout: Seconds that a lease lasts.
    """

    goals: int = 0
    seconds: float = 0.1
    lease_timeout: float = 1.0


def _actor(child: Child[ConductorOptions], name: str) -> AnyActor:
    async def act(ctx: ActorContext) -> str:
        child.history.tell("began", ctx.run_id, actor=name)
        await anyio.sleep(child.random.random() * child.options.seconds)
        child.history.tell("finished", ctx.run_id, actor=name)
        return name

    return actor(name=name, depends_on=PARENTS[name])(act)


async def conduct(child: Child[ConductorOptions]) -> None:
    """Enqueue goals, or run what is there."""
    options = child.options
    conductor = Conductor([_actor(child, name) for name in PARENTS], child.queue)
    for number in range(options.goals):
        task_id = await conductor.enqueue_goal(f"goal {number}", max_attempts=100)
        child.history.tell("asked", task_id)
    if not options.goals:
        await conductor.process_queue(lease_timeout=options.lease_timeout, drain=True)


if __name__ == "__main__":
    run_program(conduct, ConductorOptions)
