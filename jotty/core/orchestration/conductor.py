"""The conductor: actors, and the settings under which they play together."""

from __future__ import annotations

import random as random_module
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Unpack

from jotty.core.queue import DEFAULT_RETENTION, SystemClock, check_name
from jotty.errors import GraphError

from .actor import ERROR_POLICIES, ErrorPolicy, Limit, as_actor, is_count, is_seconds
from .binding import RESERVED, among, listed
from .graph import GraphMode, check_actors
from .limiter import Limiters
from .orchestrator import GraphOrchestrator
from .signature import Parameter, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from jotty.core.queue import Clock, EnqueueOptions, Random, TaskQueue

    from .actor import ActorLike, AnyActor
    from .background import BackgroundRuns
    from .graph import Graph
    from .options import RunOptions
    from .questions import OnAsk
    from .result import Result

__all__ = ["Conductor", "check_queue"]


ChangePolicy: TypeAlias = Literal["rerun", "raise"]
CHANGE_POLICIES = ("rerun", "raise")


class Conductor:
    """Actors that belong together, with what they share.

    It holds no state of a run, so it may run any number of goals at once. Its constructor needs no
    running event loop.

    Attributes:
        actors: The actors, in the order in which they were given.
        task_queue: Where goals wait that are to run later, or None. A conductor that was given none has that
            of the latest workflow over it that works on one.
        name: The lane of its tasks in that queue.
        resources: What actors may bind by name: factories of async context managers, entered once a
            run or worker (`Resource(factory, scope="run")`: once a run); what can't be called is
            bound as it is.
        limits: The limits that actors name.
        max_parallel: How many executions of one run may go on at once, or None. What runs within a conductor
            that is an actor here counts, and is bounded by that conductor's own as well.
        output: The actor, or the actors, whose output is the final one; None for those that nothing
            follows.
        on_error: "raise": a failing actor ends the run. "continue": it is absent, and the run goes on.
        on_change: What becomes of a queued run that began with other actors than these, when it goes on.
            "rerun": what still fits is kept, and what does not runs again. "raise": it is left to workers
            that have the actors it began with.
        thread_grace: Seconds that a cancelled actor in a thread is waited for, before it is left to itself
            with a warning; None for as long as it takes.
        clock: The time.
        random: The source of chance.
        limiters: What holds the actors of all its runs in one event loop to the limits.
        conducts: True: what tells a conductor from an agent.

    Raises:
        GraphError: Two actors have one name or a reserved one, or an unknown actor or limit is named.
        TypeError: An actor is nothing that can be run, or a limit is no Limit.
        ValueError: A setting is out of its range.
    """

    conducts: ClassVar[bool] = True
    _lent: TaskQueue | None = None

    def __init__(
        self,
        actors: Iterable[ActorLike],
        task_queue: TaskQueue | None = None,
        *,
        name: str = "default",
        resources: Mapping[str, Any] | None = None,
        limits: Mapping[str, Limit] | None = None,
        max_parallel: int | None = None,
        output: str | Sequence[str] | None = None,
        on_error: ErrorPolicy = "raise",
        on_change: ChangePolicy = "rerun",
        thread_grace: float | None = 5.0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if callable(actors) or isinstance(actors, str):
            raise TypeError(f"actors must be a list of actors, not {actors!r}. Write Conductor([...]).")
        self.actors: tuple[AnyActor, ...] = tuple([as_actor(each) for each in actors])
        self.task_queue = task_queue
        self.name = name
        self.resources: Mapping[str, Any] = _mapping("resources", resources)
        self.limits: Mapping[str, Limit] = _mapping("limits", limits)
        self.max_parallel = max_parallel
        self.output = output if output is None or isinstance(output, str) else _names("output", output)
        self.on_error: ErrorPolicy = on_error
        self.on_change: ChangePolicy = on_change
        self.thread_grace = thread_grace
        self.clock: Clock = clock or SystemClock()
        self.random: Random = random or random_module.Random()
        self._check()
        self.limiters = Limiters(self.limits, self.clock)
        self._dynamic = GraphOrchestrator(self, thread_grace=thread_grace)
        self._runs: BackgroundRuns | None = None

    async def run(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        *,
        max_iterations: int = 100,
        on_ask: OnAsk | None = None,
        **more: Any,
    ) -> Result:
        """Run the actors towards a goal, now, in dynamic mode.

        Args:
            goal: What to run towards.
            context: Values that actors may bind by name.
            max_iterations: How many executions of actors it may take.
            on_ask: Answers the questions of actors; see `WorkflowMode.execute`.
            **more: Further values of the context; they win.

        Raises:
            Exception: What an actor's last attempt raised, with a note; `result_of(exc)` gives what was
                finished.
            GraphError: The actors do not form a graph that can run with this context.
            InputRequired: An actor asks a question, and there is no on_ask.
            MaxIterationsExceeded: It would take more executions than it may.
        """
        if more and isinstance(context or {}, Mapping):
            context = {**(context or {}), **more}
        return await self._dynamic.run(goal, context, max_iterations, on_ask=on_ask)

    async def enqueue_goal(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        priority: int = 3,
        *,
        max_iterations: int = 100,
        outputs: Mapping[str, Any] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> str:
        """Put a goal on the task queue, to be run in dynamic mode, and return its id.

        See `WorkflowMode.enqueue_task`, whose arguments and errors these are.

        Raises:
            RuntimeError: The conductor has no task queue.
        """
        return await self._background().enqueue(
            goal, context, priority, max_iterations, outputs=outputs, options=options
        )

    async def process_queue(
        self,
        max_tasks: int | None = None,
        max_concurrent: int = 3,
        *,
        lease_timeout: float = 30.0,
        heartbeat: float | None = None,
        grace: float = 25.0,
        retention: timedelta | None = DEFAULT_RETENTION,
        drain: bool = False,
        lanes: Sequence[str] | None = None,
    ) -> int:
        """Run queued goals until `stop_processing`, each in the mode it was enqueued with.

        See `WorkflowMode.process_queue`, whose arguments and errors these are.

        Raises:
            RuntimeError: The conductor has no task queue.
        """
        return await self._background().process(
            max_tasks=max_tasks,
            max_concurrent=max_concurrent,
            lease_timeout=lease_timeout,
            heartbeat=heartbeat,
            grace=grace,
            retention=retention,
            drain=drain,
            lanes=lanes,
        )

    def stop_processing(self, grace: float | None = None) -> None:
        """Have `process_queue` end; see `WorkflowMode.stop_processing`."""
        if self._runs is not None:
            self._runs.stop(grace)

    def _background(self) -> BackgroundRuns:
        if self.task_queue is None:
            raise RuntimeError(
                f"The conductor {self.name!r} has no task queue. Pass task_queue=SQLiteTaskQueue('tasks.db')."
            )
        from .background import BackgroundRuns  # a sync run needs no worker

        if self._runs is None or self._runs.queue is not self.task_queue:
            self._runs = BackgroundRuns(self, self.task_queue, self._dynamic)
        return self._runs

    @property
    def own_queue(self) -> TaskQueue | None:
        """The task queue, unless a workflow has lent it."""
        return None if self.task_queue is self._lent else self.task_queue

    def lend(self, queue: TaskQueue) -> None:
        """Let this be the task queue where there is none of its own, until another one is lent."""
        if self.own_queue is None:
            self.task_queue = self._lent = queue

    def graph(
        self,
        context: Mapping[str, Any] | None = None,
        *,
        mode: GraphMode | str = GraphMode.DYNAMIC,
        agent_order: Sequence[str | AnyActor] | None = None,
    ) -> Graph:
        """Return the graph that a run would have, to look at or to draw.

        Args:
            context: The context of that run; None takes what nothing else provides for a part of it.
            mode: How the actors follow each other.
            agent_order: In static mode, their order.

        Raises:
            GraphError: The actors do not form a graph that can run.
            ValueError: An order is given with dynamic, or there is no such mode.
        """
        return GraphOrchestrator(self, mode, agent_order).graph(context=context)

    def signature(self) -> Signature:
        """Return what it takes as an actor of another conductor: what its actors bind that is not here."""
        own = {*RESERVED, *self.resources, *(each.name for each in self.actors)}
        found: dict[str, Parameter] = {"goal": Parameter("goal")}
        for each in self.actors:
            for parameter in (*each.signature.parameters, *(each.when_signature or Signature(())).parameters):
                name = each.bind.get(parameter.name, parameter.name)
                if name not in own and (name not in found or parameter.required):
                    default = None if each.on_demand and parameter.required else parameter.default
                    found[name] = Parameter(name, default)
        return Signature(tuple(found.values()))

    def within(self, goal: Any, context: Mapping[str, Any], outer: RunOptions) -> tuple[Graph, RunOptions]:
        """Return what its run is made of within that of another conductor; see `GraphOrchestrator.within`."""
        return self._dynamic.within(goal, context, outer)

    def __repr__(self) -> str:
        return f"Conductor({self.name!r}: {listed(each.name for each in self.actors)})"

    def _check(self) -> None:
        if not self.actors:
            raise ValueError("A conductor needs at least one actor.")
        check_name("name", self.name)  # it is a lane
        check_queue("task_queue", self.task_queue)
        if self.on_error not in ERROR_POLICIES:
            raise ValueError(f"on_error must be 'raise' or 'continue', not {self.on_error!r}.")
        if self.on_change not in CHANGE_POLICIES:
            raise ValueError(f"on_change must be 'rerun' or 'raise', not {self.on_change!r}.")
        if self.thread_grace is not None and (not is_seconds(self.thread_grace) and self.thread_grace != 0):
            raise ValueError(f"thread_grace must be seconds >= 0, or None, not {self.thread_grace!r}.")
        if self.max_parallel is not None and not is_count(self.max_parallel, 1):
            raise ValueError(
                f"max_parallel must be an int of at least 1, or None, not {self.max_parallel!r}."
            )
        check_actors(self.actors)
        self._check_resources()
        self._check_limits()
        self._check_output()

    def _check_resources(self) -> None:
        names = {each.name for each in self.actors} if self.resources else ()
        for name in self.resources:
            if name in RESERVED or name in names:
                other = "a reserved name" if name in RESERVED else "an actor"
                raise GraphError(f"The resource {name!r} has the name of {other}.", "Rename it.")

    def _check_limits(self) -> None:
        for name, limit in self.limits.items():
            if not isinstance(limit, Limit):
                raise TypeError(f"The limit {name!r} must be a Limit(...), not {limit!r}.")
        for each in self.actors:
            if each.limit is not None and each.limit not in self.limits:
                remedy = f"Add it: Conductor(..., limits={{{each.limit!r}: Limit(...)}})."
                raise GraphError(
                    f"Actor {each.name!r} shares the limit {each.limit!r}, which this conductor has not.",
                    f"{among(each.limit, self.limits)} {remedy}",
                )

    def _check_output(self) -> None:
        wanted = (self.output,) if isinstance(self.output, str) else self.output or ()
        known = [each.name for each in self.actors] if wanted else ()
        for name in wanted:
            if name not in known:
                raise GraphError(f"output names {name!r}, which is no actor here.", among(name, known))


def _mapping(what: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping by name, like {{'name': ...}}, not {given!r}.")
    return dict(given or {})


def _names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    if not isinstance(given, Iterable):
        raise TypeError(f"{what} must be an actor's name, or several, not {given!r}.")
    return tuple(given)


def check_queue(name: str, queue: object) -> None:
    """Refuse what is neither a task queue nor None.

    Raises:
        TypeError: It is something else.
    """
    if queue is None:
        return
    from jotty.core.queue import TaskQueue  # without a queue, none of it is loaded

    if not isinstance(queue, TaskQueue):
        raise TypeError(f"{name} must be a TaskQueue, like SQLiteTaskQueue('tasks.db'), not {queue!r}.")
