"""Runs the actors of anything that has actors and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from jotty.core.queue import MAX_PAYLOAD
from jotty.errors import GraphError

from .actor import is_count, is_seconds, name_of
from .binding import among, guess
from .coding import Codecs
from .graph import Graph, GraphMode
from .limiter import Limiters
from .options import RunOptions
from .questions import answering
from .run import Run
from .stream import RunStream

if TYPE_CHECKING:
    from jotty.core.queue import Clock, Random

    from .actor import AnyActor, ErrorPolicy, Limit
    from .events import Event
    from .memory import Memory
    from .questions import OnAsk
    from .result import Result

__all__ = ["ConductorLike", "GraphOrchestrator", "Orchestrator"]


class ConductorLike(Protocol):
    """What an orchestrator needs of a conductor; its attributes are described there."""

    @property
    def actors(self) -> Sequence[AnyActor]:
        """Whom it conducts."""
        ...

    @property
    def resources(self) -> Mapping[str, Any]:
        """What actors share, by name."""
        ...

    @property
    def limits(self) -> Mapping[str, Limit]:
        """The limits that actors name."""
        ...

    @property
    def max_parallel(self) -> int | None:
        """How many executions of a run may go on at once."""
        ...

    @property
    def output(self) -> str | tuple[str, ...] | None:
        """Whose output is the final one."""
        ...

    @property
    def on_error(self) -> ErrorPolicy:
        """What a failing actor does to the run."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    @property
    def random(self) -> Random:
        """The source of chance."""
        ...


class Orchestrator(Protocol):
    """Anything that can take the place of `GraphOrchestrator` in a workflow."""

    async def run(self, goal: str, context: Mapping[str, Any] | None, max_iterations: int) -> Result:
        """Run to the end; raise what fails."""
        ...

    def run_stream(self, goal: str, context: Mapping[str, Any] | None, max_iterations: int) -> Any:
        """Return an async iterator of events."""
        ...


class GraphOrchestrator:
    """Runs the actors of a conductor as a graph, in memory, as often and as concurrently as asked.

    Attributes:
        conductor: Whose actors it runs.
        mode: How they follow each other.
        agent_order: In static mode their order, or None for the one they were given in.
        thread_grace: Seconds that a cancelled actor in a thread is waited for; None for as long as it takes.
        check_payloads: Whether outputs must be such as a queue can store, though none does.

    Raises:
        ValueError: An order is given with dynamic, or there is no such mode.
        GraphError: The order names an unknown actor.
    """

    def __init__(
        self,
        conductor: ConductorLike,
        mode: GraphMode | str = GraphMode.DYNAMIC,
        agent_order: Sequence[str | AnyActor] | None = None,
        *,
        thread_grace: float | None = 5.0,
        check_payloads: bool = False,
    ) -> None:
        self.conductor = conductor
        self.mode = _mode(mode)
        self.agent_order = _order(self.mode, agent_order, conductor.actors)
        self.thread_grace = thread_grace
        self.check_payloads = check_payloads
        self._codecs = Codecs()
        shared: Limiters | None = getattr(conductor, "limiters", None)
        self._limiters = shared or Limiters(conductor.limits, conductor.clock)
        self._last: tuple[object, Graph] | None = None

    def graph(
        self,
        *,
        context: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> Graph:
        """Return the graph that a run with this context would have; None stands for any context.

        Raises:
            GraphError: The actors do not form a graph that can run.
        """
        names = frozenset({**self.conductor.resources, **(resources or {})})
        keys = None if context is None else frozenset(context)
        key = (tuple(self.conductor.actors), names, keys, frozenset(outputs or ()))
        if self._last is None or self._last[0] != key:
            graph = Graph.build(
                self.conductor.actors,
                mode=self.mode,
                order=self.agent_order,
                resources=names,
                context=keys,
                supplied=key[3],
            )
            self._last = key, graph
        return self._last[1]

    async def run(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        max_iterations: int = 100,
        *,
        outputs: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        on_ask: OnAsk | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run the actors towards a goal.

        If it is cancelled, so are they, and it returns when all have ended.

        Args:
            goal: What to run towards.
            context: Values that actors may bind by name.
            max_iterations: How many executions of actors it may take.
            outputs: Outputs by actor, supplied instead of running it.
            resources: Take the place of the conductor's, by name.
            on_ask: Called with each `Question` of an actor; returns the answer, or an awaitable of it. Or the
                answers, by the keys of the questions.
            timeout: Seconds that the run may take, or None.

        Raises:
            Exception: What an actor's last attempt raised, with a note, if its failure is not continued
                from; `result_of(exc)` gives what was finished.
            GraphError: The actors do not form a graph that can run with this context.
            InputRequired: An actor asks a question, and there is no on_ask.
            MaxIterationsExceeded: It would take more executions than it may.
            TimeoutError: It takes longer than it may.
            TypeError: The goal is no text, or the context no mapping of names.
            ValueError: max_iterations is no int of at least 1, or the timeout no seconds.
        """
        run = self.prepare(
            goal,
            context,
            max_iterations,
            outputs=outputs,
            resources=resources,
            on_ask=on_ask,
            timeout=timeout,
        )
        return await run.execute()

    def run_stream(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        max_iterations: int = 100,
        *,
        outputs: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        on_ask: OnAsk | None = None,
        timeout: float | None = None,
    ) -> RunStream[Event]:
        """Return the stream of a run, which begins at its first use; the arguments are those of `run`.

        Questions are answered by its `answer`, unless there is an on_ask.

        Raises:
            GraphError: As `run`, and at once; TypeError and ValueError likewise.
        """
        run = self.prepare(
            goal,
            context,
            max_iterations,
            outputs=outputs,
            resources=resources,
            on_ask=on_ask,
            timeout=timeout,
            can_ask=True,
        )
        return RunStream(run.execute, run.answer)

    def prepare(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        max_iterations: int = 100,
        *,
        outputs: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        shared: Mapping[str, Any] | None = None,
        history: Sequence[Any] = (),
        entry: str | None = None,
        run_id: str | None = None,
        may_retract: bool = True,
        memory: Memory | None = None,
        on_ask: OnAsk | None = None,
        can_ask: bool = False,
        timeout: float | None = None,
    ) -> Run:
        """Check everything and return a run that has not begun; those who host runs use this.

        Args:
            goal: As for `run`, like the next four.
            context: See there.
            max_iterations: See there.
            outputs: See there.
            resources: See there.
            shared: Resources that are open already, by name; the run does not close them.
            history: The conversation so far.
            entry: The only actor to start from; what does not descend from it is absent.
            run_id: Names the run; None for a new name.
            may_retract: Whether an attempt that has told chunks may be retried.
            memory: Where a durable run notes what happens; None for one that is not.
            on_ask: As for `run`.
            can_ask: Whether questions are answered in another way.
            timeout: As for `run`.

        Raises:
            GraphError: As `run`, like TypeError and ValueError.
        """
        _check_call(goal, context, max_iterations)
        if timeout is not None and not is_seconds(timeout):
            raise ValueError(f"timeout must be seconds > 0, or None, not {timeout!r}.")
        conductor = self.conductor
        wanted = {**conductor.resources, **(resources or {})}
        graph = self.graph(context=context or {}, resources=wanted, outputs=outputs)
        if resources:
            _check_replaced(conductor, resources, graph)
        if entry is not None:
            graph.check_entry(entry)
        is_open = {name: each for name, each in (shared or {}).items() if name not in (resources or {})}
        options = RunOptions(
            goal=goal,
            context=dict(context or {}),
            history=tuple(history),
            outputs=dict(outputs or {}),
            resources={name: each for name, each in wanted.items() if name not in is_open},
            shared=is_open,
            entry=entry,
            run_id=self._new_id() if run_id is None else run_id,
            max_iterations=max_iterations,
            max_parallel=conductor.max_parallel,
            output=conductor.output,
            on_error=conductor.on_error,
            clock=conductor.clock,
            random=conductor.random,
            thread_grace=self.thread_grace,
            may_retract=may_retract,
            actors={each.name: each for each in conductor.actors},
            limiters=self._limiters,
            codecs=self._codecs,
            timeout=timeout,
            memory=memory,
            on_ask=None if on_ask is None else answering(on_ask),
            can_ask=can_ask or on_ask is not None or memory is not None,
            check_payloads=self.check_payloads,
            max_payload=MAX_PAYLOAD if memory is None else memory.limit,
        )
        return Run(graph, options)

    def within(self, goal: Any, context: Mapping[str, Any], outer: RunOptions) -> tuple[Graph, RunOptions]:
        """Return what a run is made of that goes on within another one, as the work of one of its actors.

        Args:
            goal: What to run towards.
            context: What its actors may bind.
            outer: What the run around it was given.

        Raises:
            GraphError: The actors do not form a graph that can run with this context.
            TypeError: The goal is no text.
        """
        run = self.prepare(goal, context, outer.max_iterations, history=outer.history, run_id=outer.run_id)
        inherited = {
            name: getattr(outer, name)
            for name in ("memory", "on_ask", "can_ask", "check_payloads", "max_payload", "may_retract")
        }
        return run.graph, attrs.evolve(run.options, clock=outer.clock, random=outer.random, **inherited)

    def _new_id(self) -> str:
        """Return an id that sorts by time."""
        chance = int(self.conductor.random.random() * 2**40)
        return f"run-{self.conductor.clock.now():014x}-{chance:010x}"


def _mode(mode: GraphMode | str) -> GraphMode:
    try:
        return GraphMode(mode)
    except ValueError:
        known = " or ".join(repr(str(each)) for each in GraphMode)
        raise ValueError(f"mode must be {known}, not {mode!r}.") from None


def _order(
    mode: GraphMode, order: Sequence[str | AnyActor] | None, actors: Sequence[AnyActor]
) -> tuple[str, ...] | None:
    if order is None:
        return None
    if mode is GraphMode.DYNAMIC:
        raise ValueError(
            "agent_order goes with mode='static'; in dynamic mode the parameters make the order."
        )
    if isinstance(order, str) or not order:
        raise ValueError(f"agent_order must be a list of at least one actor's name, not {order!r}.")
    known = [each.name for each in actors]
    names = tuple(name_of(each) for each in order)
    for name in names:
        if name not in known:
            raise GraphError(f"agent_order names {name!r}, which is no actor here.", among(name, known))
    return names


def _check_replaced(conductor: ConductorLike, resources: Mapping[str, Any], graph: Graph) -> None:
    """Refuse the name of no resource that is like one: else what it was to replace would be used."""
    plans = [plan for node in graph.nodes.values() for plan in (node.plan, node.when) if plan is not None]
    bound = {name for plan in plans for _, name in plan.given}
    for name in resources:
        like = "" if name in conductor.resources or name in bound else guess(name, conductor.resources)
        if like:
            raise GraphError(f"resources= names {name!r}, which no actor binds.", like.strip())


def _check_call(goal: str, context: Mapping[str, Any] | None, max_iterations: int) -> None:
    if not isinstance(goal, str):
        raise TypeError(f"The goal must be a text, not {goal!r}.")
    if context is not None and not isinstance(context, Mapping):
        raise TypeError(f"The context must be a mapping of names to values, not {context!r}.")
    for key in context or ():
        if not isinstance(key, str):
            raise TypeError(f"The keys of the context must be texts; {key!r} is none.")
    if not is_count(max_iterations, 1):
        raise ValueError(f"max_iterations must be an int of at least 1, not {max_iterations!r}.")
