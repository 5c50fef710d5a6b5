"""One run of a graph: the thin shell around the dataflow that starts, awaits and cancels executions."""

from __future__ import annotations

import json
from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, Any

from anyio import get_cancelled_exc_class
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import ActorError, MaxIterationsExceeded

from .announcer import Announcer
from .binding import Absent, bind, listed, split_positional
from .dataflow import Dataflow, final_output
from .digests import Digests
from .execution import Execution, Performer
from .graph import GraphMode
from .identity import digest
from .labels import readable
from .nursery import Nursery
from .outcome import Done, End, Failed, Goto, Skipped
from .places import Places
from .replay import replay, restore
from .reporting import Reporter
from .resources import opened
from .result import attach, blame, describe
from .slots import Slots
from .state import RunState
from .tasks import open_tasks
from .workers import Workers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .announcer import Listener
    from .graph import Graph, Node
    from .options import RunOptions
    from .result import ErrorInfo, Result
    from .tasks import Tasks

__all__ = ["Run"]


class Run:
    """Runs a graph once.

    Args:
        graph: What is run.
        options: What it is given.
        host: The execution in which it goes on, where a conductor is an actor of another.
        around: The run of that one.

    Attributes:
        graph: As above.
        options: As above.
        prefix: What stands before the names of its nodes in their labels.
        flow: What has happened in it.
        digests: What stands for what its nodes are given.
        given: What is there for actors from the start, by name.
        executions: The nodes that are being run, by name.
        workers: The tasks that carry out its nodes.
        slots: The room for executions.
        is_stopped: Whether nothing is to begin any more.
        ended_data: The output of the End that has finished a durable run, as JSON.
        state: What it shares with the runs within it; there once it has begun, like the rest.
        reporter: What tells of its nodes.
        places: What executions give up while they wait.
        performer: What carries them out.
        nursery: What runs what they spawn.
        tasks: The tasks of the run.
    """

    state: RunState
    reporter: Reporter
    places: Places
    performer: Performer
    nursery: Nursery
    tasks: Tasks

    def __init__(
        self,
        graph: Graph,
        options: RunOptions,
        *,
        host: Execution | None = None,
        around: Run | None = None,
    ) -> None:
        self.graph = graph
        self.options = options
        self.prefix = "" if host is None else f"{host.label}/"
        self.flow = Dataflow(graph, options.outputs, options.entry)
        self.digests = Digests("" if host is None else host.inputs or "", options.outputs)
        self.given = {**options.context, **options.shared, "goal": options.goal, "history": options.history}
        self.executions: dict[str, Execution] = {}
        self.workers = Workers(self, host)
        outer = None if around is None else around.slots
        self.slots: Slots = Slots(options.max_parallel, self.workers.call, outer)
        self.is_stopped = False
        self.now = options.clock.now
        self._host = host
        self._is_begun = False
        self._failure: BaseException | None = None
        self._failure_info: ErrorInfo | None = None
        self.ended_data: bytes | None = None
        if around is not None:
            self._begin(around.state)

    def _begin(self, state: RunState) -> None:
        self.state = state
        self.reporter = Reporter(state, self.graph, self.prefix, self.now)
        self.places = Places(self.slots, state)
        self.performer = Performer(self)
        self.nursery = Nursery(self)
        state.take_over(self.prefix, self.flow)
        self._is_begun = True

    async def execute(self, listener: Listener | None = None) -> Result:
        """Run to the end; to be called once. If it is cancelled, it returns when all actors have ended.

        Args:
            listener: Called with each event, on the event loop; it must neither block nor raise. A run
                that is cancelled ends without a workflow_complete or workflow_error.

        Raises:
            Exception: What an actor's last attempt raised, if its failure is not continued from.
            MaxIterationsExceeded: It would take more executions than it may.
            Suspended: It is durable, and only an answer would let it go on.
            TimeoutError: It took longer than it may.
        """
        options = self.options
        announcer = Announcer(options.run_id, options.clock, listener, options.memory)
        self._begin(RunState(self, announcer, options.memory))
        self._begin_telling()
        try:
            with options.clock.timeout(options.timeout) as scope:
                await self._perform()
            if scope.cancelled_caught:
                self._failure = TimeoutError(
                    f"The run took longer than its timeout of {options.timeout:g} s."
                )
        except BaseException as exc:  # told to the listener, then raised
            if isinstance(exc, (get_cancelled_exc_class(), GeneratorExit)):
                raise
            # whatever resources made of the actor's exception, say a group: the actor's own is raised
            self._failure = self._failure or exc
        if self.state.parking.suspended is not None and self._failure is None:
            raise self.state.parking.suspended
        return self._conclude()

    def stored_output(self) -> Any:
        """Return the final output of a durable run as JSON."""
        if self.flow.ended is not None:
            return None if self.ended_data is None else json.loads(self.ended_data)
        encoded = copy(self.flow)
        encoded.outputs = {
            name: self.options.codecs.of(self.graph.nodes[name].actor).encode(value)
            for name, value in self.flow.outputs.items()
            if name in self._makers
        }
        return final_output(encoded, self.options.output)

    @property
    def _makers(self) -> Collection[str]:
        """The nodes of whose outputs the final one may be made."""
        is_last = self.options.output is None and self.graph.mode is GraphMode.STATIC
        return self.graph.nodes if is_last else self.graph.output_nodes(self.options.output)

    def answer(self, key: str, value: Any) -> None:
        """Answer a question that an actor of this run waits for; on the run's event loop.

        Raises:
            PayloadError: It could not be stored, and payloads are checked.
            ValueError: None waits under this key, or this is none of its options.
        """
        waiting = tuple(self.state.questions.waiting) if self._is_begun else ()
        if key not in waiting:
            raise ValueError(f"No question waits under the key {key!r}. Those that wait: {listed(waiting)}.")
        self.state.questions.answer(key, value)

    async def execute_within(self) -> Any:
        """Run to the end within another run, and return the final output.

        Raises:
            Exception: As `execute`, the actor's own.
        """
        try:
            await self._perform()
        except BaseException:
            if self._failure is not None:  # whatever resources have made of it
                raise self._failure  # noqa: B904 - it is what happened, and has its own cause
            raise
        return final_output(self.flow, self.options.output)

    def _supplied(self) -> dict[str, Any]:
        """Return the outputs that were supplied as JSON."""
        nodes, codecs = self.graph.nodes, self.options.codecs
        return {
            name: codecs.of(nodes[name].actor).encode(value) for name, value in self.options.outputs.items()
        }

    def _begin_telling(self) -> None:
        state, memory = self.state, self.options.memory
        if memory is not None and memory.begun is not None:
            for usage in memory.usages:
                state.announcer.usage.add(*usage)
            for label, attempt in restore(state, memory.records):
                state.tell("agent_cancelled", agent=label, attempt=attempt)
            return
        graph = None if memory is None else self.graph.fingerprint
        state.tell(
            "workflow_start",
            {"graph": graph, "supplied": self._supplied() if memory else None},
            goal=self.options.goal,
            agents=list(self.graph.nodes),
            output=list(self.graph.output_nodes(self.options.output)),
        )

    async def _perform(self) -> None:
        async with opened(self.options.resources) as resources:
            self.given.update(resources)
            await self._run_actors()

    async def _run_actors(self) -> None:
        try:
            async with open_tasks() as tasks:
                self.tasks = tasks
                if self.state.memory is not None:
                    recall = self.state.recall
                    replay(self, (recall if self._host is None else recall.at(self._host.label)).records)
                self.workers.open()
                if self._host is not None:
                    await self.workers.wait()
        finally:
            self.workers.close()
        if self._failure is None and not self.flow.is_over and self.state.parking.suspended is None:
            await checkpoint_if_cancelled()
            # it is not the caller, but somebody else who has cancelled the task of an execution
            self._failure = ActorError(next(iter((*self.executions, *self.flow.ready, *self.graph.nodes))))
        if self._failure is not None:
            raise self._failure

    def _conclude(self) -> Result:
        success = self._failure is None and not self.state.errors
        result = self.reporter.result(self.flow, self.options, success=success)
        if self._failure is None:
            self.state.tell("workflow_complete", result=result)
            return result
        error = self._failure_info or describe(self._failure)
        self.state.tell("workflow_error", error=error, result=result)
        attach(self._failure, result)
        raise self._failure

    # What is to run next

    def admit(self, node: Node) -> Execution | None:
        """Make an execution of a ready node, or settle it at once if it is not to run."""
        inputs = None if self.state.memory is None else self.digests.inputs_of(node, self.flow)
        try:
            arguments = self._arguments(node)
        except BaseException as exc:  # noqa: BLE001  # a `when` is the user's own, and fails as its actor does
            self._fail(node, exc, attempt=1)
            return None
        if isinstance(arguments, Skipped):
            self.flow.fold(node.name, arguments)
            self.reporter.skipped(self.prefix + node.name, arguments, inputs, self.flow.rounds[node.name])
            return None
        if self.state.iterations >= self.options.max_iterations:
            self.exceed()
            return None
        execution = self.executed(node, arguments, self.now(), inputs)
        self.reporter.began(execution)
        return execution

    def executed(self, node: Node, arguments: dict[str, Any], started: int, inputs: str | None) -> Execution:
        """Return an execution of a node that was taken, which counts as being at work from now on."""
        label = self.prefix + node.name
        execution = Execution(node, node, label, self.flow.rounds[node.name], arguments, started, inputs)
        if self._host is not None:
            execution.spawner = self._host
        self.executions[node.name] = execution
        self.state.active += 1
        return execution

    def exceed(self) -> None:
        """Give the run up, as it would take more executions than it may."""
        state = self.state
        self.give_up(MaxIterationsExceeded(state.iterations, Counter(state.path), state.path))

    def _arguments(self, node: Node) -> dict[str, Any] | Skipped:
        flow = self.flow
        call = flow.calls.get(node.name)
        arguments = bind(node.plan, self.given, flow.outputs, flow.previous, call or {})
        if isinstance(arguments, Absent):
            return Skipped(f"{arguments.name!r} is absent")
        if node.when is None or call is not None:
            return arguments
        asked = bind(node.when, self.given, flow.outputs, flow.previous)
        if isinstance(asked, Absent):
            return Skipped(f"{asked.name!r}, which its condition needs, is absent")
        is_wanted = self.performer.ask(node.actor, split_positional(node.when, asked), asked)
        return arguments if is_wanted else Skipped("its condition is not met")

    # The end of an execution

    def is_void(self, execution: Execution) -> bool:
        """Whether another outcome has made that of this execution void; that the run is cancelled has not."""
        is_decided = self._failure is not None or self.flow.ended is not None
        return is_decided or self.executions.get(execution.node.name) is not execution

    def settle(self, execution: Execution, outcome: Done | Failed) -> None:
        """Fold an outcome."""
        name, now = execution.node.name, self.now()
        seconds = self.reporter.seconds_of(execution, now)
        del self.executions[name]
        if isinstance(outcome, Failed):
            self._fail(
                execution.node, outcome.error, attempt=execution.attempt, seconds=seconds, execution=execution
            )
        else:
            if execution.data is not None and not isinstance(outcome, Goto):
                self.digests.keep(execution.node, digest(execution.data))
            if isinstance(outcome, End):
                self.ended_data = execution.data
            cancelled = self.flow.fold(name, outcome)
            self.reporter.completed(execution, outcome, seconds, now)
            if cancelled:
                self.cancel(cancelled)
        self.places.free(execution)

    def cancel(self, names: Sequence[str]) -> None:
        """End the executions of these nodes, which the dataflow has reset."""
        for name in names:
            self.executions.pop(name).scope.cancel()

    def continues(self, node: Node) -> bool:
        """Whether the run goes on without a node that fails."""
        return (node.actor.on_error or self.options.on_error) == "continue"

    def _fail(
        self,
        node: Node,
        exc: BaseException,
        *,
        attempt: int,
        seconds: float = 0.0,
        execution: Execution | None = None,
    ) -> None:
        """Settle a node as absent, or end the run, as its policy says."""
        label = self.prefix + node.name
        error = describe(exc, label, attempt)
        is_continued = self.continues(node) and isinstance(exc, Exception)
        if is_continued:
            self.flow.fold(node.name, Failed(exc))
        number = 0 if execution is None else execution.round
        self.reporter.failed(label, error, seconds, number, is_continued=is_continued)
        if is_continued or self._host is None:  # else it is the failure of the actor that holds this run
            self.state.errors.append(error)
        if is_continued:
            return
        who = f"actor {readable(label)!r}, attempt {attempt}"
        if execution is None:
            who = f"when= of actor {readable(label)!r}"
        blame(exc, f"{who}, of run {self.options.run_id}")
        self.give_up(exc, error)

    def give_up(self, exc: BaseException, info: ErrorInfo | None = None) -> None:
        """End the run; from now on nothing is settled."""
        if self._failure is None:
            self._failure, self._failure_info = exc, info
        self.halt()
        self.tasks.cancel()

    def halt(self) -> None:
        """Let nothing begin any more."""
        self.is_stopped = True
        self.flow.halt()
        self.workers.dismiss()

    async def run_within(self, execution: Execution, arguments: dict[str, Any]) -> Any:
        """Run another conductor's actors as the work of one execution, and return their final output."""
        goal = arguments.pop("goal", self.options.goal)
        conductor: Any = execution.node.actor.call
        graph, options = conductor.within(goal, arguments, self.options)
        run = Run(graph, options, host=execution, around=self)
        try:
            async with self.places.waiting(execution):  # those within are at work in its place
                return await run.execute_within()
        finally:
            run.slots.close()
