"""What a queued goal says of how it is to be run: written when it is enqueued, read by its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.errors import Unhandled

from .actor import is_count
from .binding import listed
from .graph import GraphMode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jotty.core.queue import Task

__all__ = ["KEY", "Ticket", "read_ticket"]

KEY: Final = "jotty"  # where a task's metadata holds what jotty needs to run it


@attrs.frozen(kw_only=True)
class Ticket:
    """How a goal is to be run.

    Attributes:
        actors: The names of those who were there when it was enqueued; none where nobody said.
        max_iterations: How many executions it may take.
        mode: How the actors follow each other; None for the worker's own way.
        agent_order: In static mode their order, or None.
        outputs: Outputs by actor, supplied instead of running it.
    """

    actors: tuple[str, ...] = ()
    max_iterations: int = 100
    mode: GraphMode | None = None
    agent_order: tuple[str, ...] | None = None
    outputs: Mapping[str, Any] = attrs.field(factory=dict)

    def as_metadata(self) -> dict[str, Any]:
        """Return it as strict JSON, without what is not said."""
        told: dict[str, Any] = {"max_iterations": self.max_iterations, "actors": list(self.actors)}
        if self.mode is not None:
            told["mode"] = self.mode.value
        if self.agent_order is not None:
            told["agent_order"] = list(self.agent_order)
        if self.outputs:
            told["outputs"] = dict(self.outputs)
        return told


def read_ticket(task: Task, here: Collection[str]) -> Ticket:
    """Return how a task is to be run; one without a ticket, in the worker's own way.

    Args:
        task: The task.
        here: The names of the actors of this worker.

    Raises:
        Unhandled: It is meant for other actors, or was written by a version that says it otherwise.
    """
    told = task.metadata.get(KEY, {})
    try:
        ticket = _parsed(told)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Unhandled(
            f"metadata[{KEY!r}] is {told!r:.200}, which this version of jotty cannot read. "
            "Run a worker of the version that enqueued it."
        ) from None
    if ticket.actors and set(ticket.actors).isdisjoint(here):
        raise Unhandled(
            f"it is meant for the actors {', '.join(ticket.actors)}; here are {', '.join(here)}. Run a "
            "worker of that workflow. Give each conductor a name of its own, which is its lane."
        )
    missing = [name for name in ticket.agent_order or () if name not in here]
    if missing:
        raise Unhandled(
            f"its order names {listed(missing)}; here are {listed(here)}. Run a worker that has them."
        )
    return ticket


def _parsed(told: Mapping[str, Any]) -> Ticket:
    order = told.get("agent_order")
    mode = told.get("mode")
    max_iterations = told.get("max_iterations", 100)
    if not is_count(max_iterations, 1) or (order is not None and mode != GraphMode.STATIC):
        raise ValueError(told)
    return Ticket(
        actors=_names(told.get("actors") or []),
        max_iterations=max_iterations,
        mode=None if mode is None else GraphMode(mode),
        agent_order=None if order is None else _names(order),
        outputs=dict(told.get("outputs") or {}),
    )


def _names(told: Any) -> tuple[str, ...]:
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise TypeError(told)
    return tuple(told)
