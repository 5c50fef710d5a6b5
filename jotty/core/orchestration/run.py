"""One run of a graph: the thin shell around the dataflow that starts, awaits and cancels executions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from jotty.core.queue import MICROSECONDS
from jotty.errors import ActorError, MaxIterationsExceeded

from .announcer import Announcer
from .binding import Absent, bind, split_positional
from .dataflow import Dataflow, final_output
from .execution import Execution, Performer
from .outcome import Done, End, Failed, Output, Skipped
from .resources import opened
from .result import annotate, attach, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .announcer import Listener
    from .graph import Graph, Node
    from .options import RunOptions
    from .result import ErrorInfo, Result

__all__ = ["Run"]

# actors that never suspend must not keep the event loop from everyone else
CHECKPOINT_EVERY = 32


class Run:
    """Runs a graph once.

    A finished node runs its first ready child in its own task, so that a chain makes one task in all.

    Attributes:
        graph: What is run.
    """

    def __init__(self, graph: Graph, options: RunOptions) -> None:
        self.graph = graph
        self._options = options
        self._flow = Dataflow(graph, options.outputs, options.entry)
        self._given = {**options.context, **options.shared, "goal": options.goal, "history": options.history}
        self._executions: dict[str, Execution] = {}
        self._path: list[str] = []
        self._errors: list[ErrorInfo] = []
        self._seconds: dict[str, float] = {}
        self._failure: BaseException | None = None
        self._failure_info: ErrorInfo | None = None
        self._is_stopped = False

    async def execute(self, listener: Listener | None = None) -> Result:
        """Run to the end; to be called once. If it is cancelled, it returns when all actors have ended.

        Args:
            listener: Called with each event, on the event loop; it must neither block nor raise. A run
                that is cancelled ends without a workflow_complete or workflow_error.

        Raises:
            Exception: What an actor's last attempt raised, if its failure is not continued from.
            MaxIterationsExceeded: It would take more executions than it may.
        """
        options = self._options
        self._announcer = Announcer(options.run_id, options.clock, listener)
        self._performer = Performer(self.graph, options, self._announcer)
        self._started = options.clock.now()
        self._announcer.tell(
            "workflow_start",
            goal=options.goal,
            agents=list(self.graph.nodes),
            output=list(self.graph.output_nodes(options.output)),
        )
        try:
            async with opened(options.resources) as resources:
                self._given.update(resources)
                await self._run_actors()
        except BaseException as exc:  # told to the listener, then raised
            if isinstance(exc, (get_cancelled_exc_class(), GeneratorExit)):
                raise
            # whatever resources made of the actor's exception, say a group: the actor's own is raised
            self._failure = self._failure or exc
        return self._conclude()

    async def _run_actors(self) -> None:
        async with anyio.create_task_group() as self._group:
            self._spawn(self._advance())
        if self._failure is None and not self._flow.is_over:
            # somebody else has cancelled the task of a branch, which ended without a word
            self._failure = ActorError(next(iter(self._executions)))
        if self._failure is not None:
            raise self._failure

    def _conclude(self) -> Result:
        result = self._result()
        if self._failure is None:
            self._announcer.tell("workflow_complete", result=result)
            return result
        error = self._failure_info or describe(self._failure)
        self._announcer.tell("workflow_error", error=error, result=result)
        attach(self._failure, result)
        raise self._failure

    # Branches: one task each, which runs execution after execution

    def _spawn(self, executions: Iterable[Execution]) -> None:
        for execution in executions:
            execution.scope = CancelScope()
            self._group.start_soon(self._branch, execution, execution.scope, name=execution.node.name)

    async def _branch(self, execution: Execution, scope: CancelScope) -> None:
        current: Execution | None = execution
        try:
            with scope:
                while current is not None and self._goes_on(scope):
                    outcome = await self._performer.perform(current)
                    if self._goes_on(scope):
                        following = self._settle(current, outcome)
                        current = self._continue(following, scope)
                        if current is not None and (following or len(self._path) % CHECKPOINT_EVERY == 0):
                            await checkpoint()
        except BaseException:
            self._halt()
            raise
        finally:
            if current is not None:
                self._leave(current)

    def _goes_on(self, scope: CancelScope) -> bool:
        return not (scope.cancel_called or self._is_stopped)

    def _continue(self, following: list[Execution], scope: CancelScope) -> Execution | None:
        """Start tasks for all but the first, and return that; `following` keeps the others."""
        if not following:
            return None
        first = following.pop(0)
        first.scope = scope
        self._spawn(following)
        return first

    def _leave(self, execution: Execution) -> None:
        """Drop an execution that was cancelled, whatever it came to, and start what waited for its end."""
        self._tell_cancelled(execution)
        self._flow.stopped(execution.node.name)
        self._spawn(self._advance())

    def _tell_cancelled(self, execution: Execution) -> None:
        self._count_time(execution)
        self._announcer.tell("agent_cancelled", agent=execution.node.name, attempt=execution.attempt)

    def _count_time(self, execution: Execution) -> float:
        name = execution.node.name
        seconds = (self._options.clock.now() - execution.started) / MICROSECONDS
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        return seconds

    # What is to run next

    def _advance(self) -> list[Execution]:
        """Take what is ready, as far as there is room, and make executions of it."""
        started: list[Execution] = []
        while self._has_room() and (name := self._flow.take()) is not None:
            execution = self._admit(self.graph.nodes[name])
            if execution is not None:
                started.append(execution)
        if self._is_stopped:
            for execution in started:
                self._tell_cancelled(execution)
            started.clear()
        return started

    def _has_room(self) -> bool:
        bound = self._options.max_parallel
        if self._is_stopped or bound is None:
            return not self._is_stopped
        return len(self._flow.running) + len(self._flow.stopping) < bound

    def _admit(self, node: Node) -> Execution | None:
        """Make an execution of a ready node, or settle it at once if it is not to run."""
        try:
            arguments = self._arguments(node)
        except BaseException as exc:  # noqa: BLE001  # a `when` is the user's own, and fails as its actor does
            self._fail(node, exc, attempt=1)
            return None
        if isinstance(arguments, Skipped):
            self._announcer.tell("agent_skipped", agent=node.name, reason=arguments.reason)
            self._flow.fold(node.name, arguments)
            return None
        if len(self._path) >= self._options.max_iterations:
            self._give_up(MaxIterationsExceeded(len(self._path), Counter(self._path), self._path))
            return None
        return self._begin(node, arguments)

    def _arguments(self, node: Node) -> dict[str, Any] | Skipped:
        flow = self._flow
        call = flow.calls.get(node.name)
        arguments = bind(node.plan, self._given, flow.outputs, flow.previous, call or {})
        if isinstance(arguments, Absent):
            return Skipped(f"{arguments.name!r} is absent")
        if node.when is None or call is not None:
            return arguments
        asked = bind(node.when, self._given, flow.outputs, flow.previous)
        if isinstance(asked, Absent):
            return Skipped(f"{asked.name!r}, which its condition needs, is absent")
        is_wanted = self._performer.ask(node.actor, split_positional(node.when, asked), asked)
        return arguments if is_wanted else Skipped("its condition is not met")

    def _begin(self, node: Node, arguments: dict[str, Any]) -> Execution:
        name, number = node.name, self._flow.rounds[node.name]
        execution = Execution(node, number, arguments, self._options.clock.now())
        self._executions[name] = execution
        self._path.append(name)
        self._announcer.tell("agent_start", agent=name, attempt=1, round=number)
        return execution

    # The end of an execution

    def _settle(self, execution: Execution, outcome: Done | Failed) -> list[Execution]:
        """Fold an outcome, and return what may run now."""
        name = execution.node.name
        seconds = self._count_time(execution)
        del self._executions[name]
        if isinstance(outcome, Failed):
            self._fail(execution.node, outcome.error, attempt=execution.attempt, seconds=seconds)
        else:
            self._tell_complete(execution, outcome, seconds)
            self._cancel(self._flow.fold(name, outcome))
        return self._advance()

    def _tell_complete(self, execution: Execution, outcome: Done, seconds: float) -> None:
        name, attempt, tell = execution.node.name, execution.attempt, self._announcer.tell
        common = {"agent": name, "attempt": attempt, "seconds": seconds}
        if isinstance(outcome, Output):
            tell("agent_complete", kind="output", output=outcome.value, target=None, reset=[], **common)
        elif isinstance(outcome, End):
            tell("agent_complete", kind="end", output=outcome.output, target=None, reset=[], **common)
        else:
            reset = [one for one in self.graph.nodes if one in self.graph.closure(outcome.target)]
            tell("agent_complete", kind="goto", output=None, target=outcome.target, reset=reset, **common)

    def _cancel(self, names: Sequence[str]) -> None:
        for name in names:
            self._executions.pop(name).scope.cancel()

    def _fail(self, node: Node, exc: BaseException, *, attempt: int, seconds: float = 0.0) -> None:
        """Settle a node as absent, or end the run, as its policy says."""
        error = describe(exc, node.name, attempt)
        self._errors.append(error)
        self._announcer.tell("agent_error", agent=node.name, attempt=attempt, error=error, seconds=seconds)
        policy = node.actor.on_error or self._options.on_error
        if policy == "continue" and isinstance(exc, Exception):
            self._flow.fold(node.name, Failed(exc))
            return
        annotate(exc, f"Raised by actor {node.name!r}, attempt {attempt}, of run {self._options.run_id}.")
        self._failure_info = error
        self._give_up(exc)

    def _give_up(self, exc: BaseException) -> None:
        """End the run; from now on nothing is settled, so this happens once."""
        self._failure = exc
        self._halt()
        self._group.cancel_scope.cancel()

    def _halt(self) -> None:
        self._is_stopped = True
        self._flow.halt()

    def _result(self) -> Result:
        flow, options = self._flow, self._options
        seconds = (options.clock.now() - self._started) / MICROSECONDS
        return {
            "success": self._failure is None and not self._errors,
            "final_output": final_output(flow, options.output),
            "actor_outputs": {name: flow.outputs[name] for name in self.graph.nodes if name in flow.outputs},
            "errors": self._errors,
            "metadata": {
                "run_id": options.run_id,
                "iterations": len(self._path),
                "timings": {
                    "started_at": self._started / MICROSECONDS,
                    "seconds": seconds,
                    "actors": self._seconds,
                },
                "path": self._path,
                "usage": self._announcer.usage.total(),
            },
        }
