"""What one run is given, all in one value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jotty.core.queue import Clock, Random

    from .actor import AnyActor, ErrorPolicy
    from .coding import Codecs
    from .limiter import Limiters
    from .memory import Memory
    from .questions import Question

__all__ = ["RunOptions"]


@attrs.frozen(kw_only=True)
class RunOptions:
    """What a run is given.

    Attributes:
        goal: What it runs towards.
        context: What actors may bind besides.
        history: The conversation so far.
        outputs: Outputs that are there already, by node.
        resources: What is to be opened, by name.
        shared: Resources that are open already, by name.
        entry: The only node to start from, or None.
        run_id: Names the run.
        max_iterations: How many executions it may take.
        max_parallel: How many may run at once, or None.
        output: The names of the actors that make the final output, or one; None for the sinks.
        on_error: What an actor does that says nothing itself.
        clock: The time.
        random: For the jitter of retries.
        thread_grace: Seconds that a cancelled thread is waited for, or None for as long as it takes.
        may_retract: Whether an attempt that has told chunks may be retried.
        actors: The conductor's actors, by name: those that may be spawned by it.
        limiters: What holds actors to the limits that they name.
        codecs: What makes outputs JSON, by actor.
        timeout: Seconds that the run may take, or None.
        memory: Where a durable run notes what happens; None for one that is not.
        on_ask: Answers the questions of actors, if anything does.
        can_ask: Whether anybody can answer.
        check_payloads: Whether outputs must be storable though they are not stored.
        max_payload: The most bytes of JSON that an output may then have.
    """

    goal: str
    context: Mapping[str, Any]
    history: Sequence[Any]
    outputs: Mapping[str, Any]
    resources: Mapping[str, Any]
    shared: Mapping[str, Any]
    entry: str | None
    run_id: str
    max_iterations: int
    max_parallel: int | None
    output: str | tuple[str, ...] | None
    on_error: ErrorPolicy
    clock: Clock
    random: Random
    thread_grace: float | None
    may_retract: bool
    actors: Mapping[str, AnyActor]
    limiters: Limiters
    codecs: Codecs
    timeout: float | None = None
    memory: Memory | None = None
    on_ask: Callable[[Question], Any] | None = None
    can_ask: bool = False
    check_payloads: bool = False
    max_payload: int = MAX_PAYLOAD

    @property
    def is_coded(self) -> bool:
        """Whether outputs pass their codecs, as they are stored or must be storable."""
        return self.memory is not None or self.check_payloads
