"""One run of a graph: the thin shell around the dataflow that starts, awaits and cancels executions."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from jotty.core.queue import MICROSECONDS
from jotty.errors import ActorError, GraphError, MaxIterationsExceeded

from .actor import as_actor
from .announcer import Announcer
from .binding import RESERVED, Absent, Names, bind, listed, make_plan, split_positional
from .dataflow import Dataflow, final_output
from .digests import Digests, digest, fingerprint
from .execution import Execution, Performer
from .memory import Suspended
from .outcome import Done, End, Failed, Goto, Output, Skipped
from .replay import kept_of, outcome_of, replay, restore, routed
from .resources import opened
from .result import annotate, attach, describe
from .slots import Slots
from .spawning import arguments_of
from .state import RunState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .actor import ActorLike, AnyActor
    from .announcer import Listener
    from .binding import Plan
    from .graph import Graph, Node
    from .memory import Memory
    from .options import RunOptions
    from .result import ErrorInfo, Result
    from .spawning import Handle

__all__ = ["Run"]

# actors that never suspend must not keep the event loop from everyone else
CHECKPOINT_EVERY = 32
MOST_STARTING = 2  # more would start for nothing where actors never suspend; so they double in number


class Run:
    """Runs a graph once.

    A task that has finished one node goes on with the next that is ready; others are started only for what is
    ready meanwhile. So a chain makes one task in all, and so do actors that never wait for anything.

    Args:
        graph: What is run.
        options: What it is given.
        host: The execution in which it goes on, where a conductor is an actor of another.
        state: What it then shares with the run around it.

    Attributes:
        graph: As above.
        options: As above.
        state: What it shares with the runs within it.
        prefix: What stands before the names of its nodes in their labels.
        flow: What has happened in it.
        digests: What stands for what its nodes are given.
    """

    def __init__(
        self,
        graph: Graph,
        options: RunOptions,
        *,
        host: Execution | None = None,
        state: RunState | None = None,
    ) -> None:
        self.graph = graph
        self.options = options
        self._host = host
        self.prefix = "" if host is None else f"{host.label}/"
        self._is_begun = state is not None
        if state is not None:
            self.state = state
        self.flow = Dataflow(graph, options.outputs, options.entry)
        self.digests = Digests("" if host is None else host.inputs or "", options.outputs)
        self._now = options.clock.now
        self._given = {**options.context, **options.shared, "goal": options.goal, "history": options.history}
        self._slots = Slots(options.max_parallel, self._call_workers)
        self._executions: dict[str, Execution] = {}
        self._starting = 0  # workers that have not taken anything yet
        self._plans: dict[tuple[AnyActor, str], Plan] = {}
        self._failure: BaseException | None = None
        self._failure_info: ErrorInfo | None = None
        self._suspended: Suspended | None = None
        self._is_stopped = False
        self._following: CancelScope | None = None

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
        self._announcer = Announcer(options.run_id, options.clock, listener, options.memory)
        self.state = RunState(self, self._announcer, options.memory)
        self._is_begun = True
        self._started = options.clock.now()
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
        if self._suspended is not None and self._failure is None:
            raise self._suspended
        return self._conclude()

    def answer(self, key: str, value: Any) -> None:
        """Answer a question that an actor of this run waits for; on the run's event loop.

        Raises:
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
        self.state.flows[self.prefix] = self.flow
        try:
            await self._perform()
        except BaseException:
            if self._failure is not None:  # whatever resources have made of it
                raise self._failure  # noqa: B904 - it is what happened, and has its own cause
            raise
        return final_output(self.flow, self.options.output)

    def _begin_telling(self) -> None:
        state, memory = self.state, self.options.memory
        state.flows[self.prefix] = self.flow
        if memory is not None and memory.begun is not None:
            for usage in memory.usages:
                self._announcer.usage.add(*usage)
            for label, attempt in restore(state, memory.records):
                state.tell("agent_cancelled", agent=label, attempt=attempt)
            return
        graph = None if memory is None else fingerprint(self.graph)
        state.tell(
            "workflow_start",
            {"graph": graph},
            goal=self.options.goal,
            agents=list(self.graph.nodes),
            output=list(self.graph.output_nodes(self.options.output)),
        )

    async def _perform(self) -> None:
        self._performer = Performer(self)
        async with opened(self.options.resources) as resources:
            self._given.update(resources)
            await self._run_actors()

    async def _run_actors(self) -> None:
        async with anyio.create_task_group() as self._group:
            if self.state.memory is not None:
                recall = self.state.recall
                replay(self, (recall if self._host is None else recall.at(self._host.label)).records)
            self._call_workers()
        if self._failure is None and not self.flow.is_over and self._suspended is None:
            # somebody else has cancelled the task of a branch, which ended without a word
            self._failure = ActorError(next(iter(self._executions)))
        if self._failure is not None:
            raise self._failure

    def _conclude(self) -> Result:
        result = self._result()
        if self._failure is None:
            self.state.tell("workflow_complete", result=result)
            return result
        error = self._failure_info or describe(self._failure)
        self.state.tell("workflow_error", error=error, result=result)
        attach(self._failure, result)
        raise self._failure

    # Workers: tasks that run execution after execution, as many as there is something to wait for

    def _call_workers(self) -> None:
        """Start workers if more is ready than those that are starting will take; each calls the next ones."""
        if self._is_stopped or not self._slots.is_free:
            return
        while self._starting < min(self.flow.count_ready(), MOST_STARTING):
            self._starting += 1
            self._group.start_soon(self._work)

    async def _work(self) -> None:
        self._starting -= 1
        execution: Execution | None = None
        memory = self.state.memory
        try:
            with CancelScope() as scope:
                execution = self._next(scope)
                while execution is not None:
                    if memory is not None:
                        await memory.flush()  # what it follows from must be stored before it begins
                    outcome = await self._performer.perform(execution)
                    if scope.cancel_called or self._is_stopped:
                        break
                    self._settle(execution, outcome)
                    settled, execution = execution, self._next(scope)
                    self.state.idle(settled)
                    if execution is not None and self.state.iterations % CHECKPOINT_EVERY == 0:
                        await checkpoint()
        except BaseException:
            self._halt()
            raise
        finally:
            if execution is not None:
                self._leave(execution)

    def _next(self, scope: CancelScope) -> Execution | None:
        """Take what is ready, if there is room, and have others look if there is more."""
        flow, slots = self.flow, self._slots
        if scope.cancel_called:
            return None
        while not self._is_stopped and flow.count_ready() and slots.try_take():
            execution = self._admit(self.graph.nodes[flow.take() or ""])
            if execution is None:
                slots.give_back(quietly=True)
                continue
            execution.scope = scope
            if flow.count_ready():
                self._call_workers()
            return execution
        return None

    def _leave(self, execution: Execution) -> None:
        """Drop an execution that was cancelled, whatever it came to, and start what waited for its end."""
        self._tell_cancelled(execution)
        self.flow.stopped(execution.node.name)
        self._free(execution)
        self.state.idle(execution)
        self._call_workers()
        self.rest()

    def _tell_cancelled(self, execution: Execution) -> None:
        now = self._now()
        self._count_time(execution, now)
        self.state.tell("agent_cancelled", None, now, agent=execution.label, attempt=execution.attempt)

    def _count_time(self, execution: Execution, now: int) -> float:
        label, seconds = execution.label, (now - execution.started) / MICROSECONDS
        spent = self.state.seconds
        spent[label] = spent.get(label, 0.0) + seconds
        return seconds

    # What is to run next

    def _admit(self, node: Node) -> Execution | None:
        """Make an execution of a ready node, or settle it at once if it is not to run."""
        inputs = None if self.state.memory is None else self.digests.inputs_of(node, self.flow)
        try:
            arguments = self._arguments(node)
        except BaseException as exc:  # noqa: BLE001  # a `when` is the user's own, and fails as its actor does
            self._fail(node, exc, attempt=1)
            return None
        if isinstance(arguments, Skipped):
            self.flow.fold(node.name, arguments)
            self._tell_skipped(self.prefix + node.name, arguments, inputs, self.flow.rounds[node.name])
            return None
        if self.state.iterations >= self.options.max_iterations:
            self._exceed()
            return None
        label, now = self.prefix + node.name, self._now()
        execution = Execution(node, node, label, self.flow.rounds[node.name], arguments, now, inputs)
        self._executions[node.name] = execution
        self.state.active += 1
        self._begin(execution)
        return execution

    def _tell_skipped(self, label: str, skipped: Skipped, inputs: str | None, number: int) -> None:
        finished, known = self.state.progress()
        note = {"inputs": inputs, "round": number}
        self.state.tell(
            "agent_skipped", note, agent=label, reason=skipped.reason, finished=finished, known=known
        )

    def _exceed(self) -> None:
        state = self.state
        self.give_up(MaxIterationsExceeded(state.iterations, Counter(state.path), state.path))

    def _arguments(self, node: Node) -> dict[str, Any] | Skipped:
        flow = self.flow
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

    def _begin(self, execution: Execution) -> None:
        label, number, state = execution.label, execution.round, self.state
        state.path.append(label)
        state.iterations += 1
        if state.memory is None:
            state.tell("agent_start", None, execution.started, agent=label, attempt=1, round=number)
            return
        note = {"inputs": execution.inputs, "round": number}
        state.tell("agent_start", note, execution.started, agent=label, attempt=1, round=number)
        if number or "/" in label:  # another round forgets what the last one has spawned
            state.remember("start", label, note)

    # The end of an execution

    def _settle(self, execution: Execution, outcome: Done | Failed) -> None:
        """Fold an outcome."""
        name, now = execution.node.name, self._now()
        seconds = self._count_time(execution, now)
        del self._executions[name]
        if isinstance(outcome, Failed):
            self._fail(
                execution.node, outcome.error, attempt=execution.attempt, seconds=seconds, execution=execution
            )
        else:
            if execution.data is not None and not isinstance(outcome, Goto):
                self.digests.keep(execution.node, digest(execution.data))
            cancelled = self.flow.fold(name, outcome)
            self._tell_complete(execution, outcome, seconds, now)
            if cancelled:
                self.cancel(cancelled)
        self._free(execution)

    def _free(self, execution: Execution, *, quietly: bool = True) -> None:
        if execution.has_slot:
            execution.has_slot = False
            self._slots.give_back(quietly=quietly)

    def _tell_complete(self, execution: Execution, outcome: Done, seconds: float, now: int) -> None:
        state = self.state
        kind, output, target = "output", None, None
        reset: list[str] = []
        note: dict[str, Any] | None = None
        if state.memory is not None:
            note = {"round": execution.round, "output": execution.data}
        if isinstance(outcome, Output):
            output = outcome.value
        elif isinstance(outcome, End):
            kind, output = "end", outcome.output
        else:
            kind, target, closure = "goto", self.prefix + outcome.target, self.graph.closure(outcome.target)
            reset = [self.prefix + one for one in self.graph.nodes if one in closure]
            if note is not None:
                note = {"round": execution.round, "given": dict(outcome.inputs)}
        finished, known = state.progress()
        state.tell(
            "agent_complete",
            note,
            now,
            agent=execution.label,
            attempt=execution.attempt,
            kind=kind,
            output=output,
            target=target,
            reset=reset,
            seconds=seconds,
            finished=finished,
            known=known,
        )
        if note is not None and "/" in execution.label:
            state.remember("step", execution.label, kept_of(outcome, execution.data, self.prefix))

    def cancel(self, names: Sequence[str]) -> None:
        """End the executions of these nodes, which the dataflow has reset."""
        for name in names:
            self._executions.pop(name).scope.cancel()

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
        self._tell_error(label, error, seconds, number, is_continued=is_continued)
        self.state.errors.append(error)
        if is_continued:
            return
        annotate(exc, f"Raised by actor {label!r}, attempt {attempt}, of run {self.options.run_id}.")
        self._failure_info = error
        self.give_up(exc)

    def _tell_error(
        self, label: str, error: ErrorInfo, seconds: float, number: int, *, is_continued: bool
    ) -> None:
        finished, known = self.state.progress()
        self.state.tell(
            "agent_error",
            {"round": number, "continued": is_continued},
            agent=label,
            attempt=error["attempt"],
            error=error,
            seconds=seconds,
            finished=finished,
            known=known,
        )

    def give_up(self, exc: BaseException) -> None:
        """End the run; from now on nothing is settled, so this happens once."""
        if self._failure is None:
            self._failure = exc
        self._halt()
        self._group.cancel_scope.cancel()

    def _halt(self) -> None:
        self._is_stopped = True
        self.flow.halt()

    # What actors spawn

    def actor_of(self, value: ActorLike) -> AnyActor:
        """Return the actor that a name of the conductor's stands for, or that this is.

        Raises:
            GraphError: There is none of this name.
            TypeError: It is nothing that can be run.
        """
        if not isinstance(value, str):
            return as_actor(value)
        found = self.options.actors.get(value)
        if found is None:
            raise GraphError(f"There is no actor {value!r}. There are: {listed(self.options.actors)}.")
        return found

    def plan_of(self, actor: AnyActor, root: Node) -> Plan:
        """Return how an actor is bound that a node of the graph spawns: to what that node descends from.

        Raises:
            GraphError: One name stands for two things.
        """
        found = self._plans.get((actor, root.name))
        if found is None:
            before = self.graph.ancestors(root.name)
            nodes = {node.actor.name: name for name, node in self.graph.nodes.items() if name in before}
            context = frozenset(self.options.context)
            shared = frozenset(self._given) - context - set(RESERVED)
            names = Names(frozenset(nodes), shared, context)
            found = make_plan(actor, actor.signature, names, nodes, may_be_open=True)
            self._plans[actor, root.name] = found
        return found

    def start_spawned(self, handle: Handle, spawner: Execution, parents: Sequence[Handle]) -> None:
        """Have something spawned run in a task of its own, once its parents are settled."""
        self.state.active += 1
        self._group.start_soon(self._spawned_branch, handle, spawner, parents, name=handle.agent)

    async def _spawned_branch(self, handle: Handle, spawner: Execution, parents: Sequence[Handle]) -> None:
        try:
            with handle.scope:
                for parent in parents:
                    await parent.settled(self.state, handle)
                await self._run_spawned(handle, spawner)
        except BaseException:
            self._halt()
            raise
        finally:
            self._drop(handle)

    async def run_here(self, handle: Handle, spawner: Execution) -> None:
        """Run something spawned in the task of its spawner, which waits for it."""
        self.state.active += 1
        handle.waiters.append(spawner)
        try:
            async with self.waiting(spawner):
                await self._run_spawned(handle, spawner)
        finally:
            self._drop(handle)

    def _drop(self, handle: Handle) -> None:
        """Settle what did not come to anything, and count its work no more."""
        if not handle.is_settled:
            handle.settle(None, self.state)
        self.state.idle(handle)

    async def _run_spawned(self, handle: Handle, spawner: Execution) -> None:
        outcome = await self._outcome_of_spawned(handle, spawner)
        if self.state.memory is not None:
            await self.state.memory.flush()
        handle.settle(outcome, self.state)

    async def _outcome_of_spawned(self, handle: Handle, spawner: Execution) -> Done | Failed | Skipped:
        node, label = handle.node, handle.agent
        arguments = arguments_of(handle, self._given, self.flow.outputs)
        inputs = None if self.state.memory is None else self.digests.spawned(node, handle.inputs, self.flow)
        if isinstance(arguments, Skipped):
            self.state.finished += 1
            self._tell_skipped(label, arguments, inputs, 0)
            return arguments
        if (recalled := self._recalled(node, inputs)) is not None:
            self.state.finished += 1
            outcome, handle.output_digest = recalled
            return outcome
        await self._slots.take()
        try:
            if self.state.iterations >= self.options.max_iterations:
                self._exceed()
                await anyio.sleep_forever()  # the whole run is being cancelled
            outcome = await self._perform_spawned(node, spawner, arguments, inputs, handle)
        finally:
            self._slots.give_back()
        if isinstance(outcome, (Goto, End)):
            self._route(spawner.root, outcome, handle.data)
        return outcome

    def _recalled(self, node: Node, inputs: str | None) -> tuple[Done | Failed, str | None] | None:
        """Return what something spawned came to before, with the digest of its output."""
        if self.state.memory is None:
            return None
        parent, _, name = node.name.rpartition("/")
        record = self.state.recall.at(parent).outcome_of(name, inputs)
        return None if record is None else outcome_of(record, self.options.codecs.of(node.actor))

    async def _perform_spawned(
        self, node: Node, spawner: Execution, arguments: dict[str, Any], inputs: str | None, handle: Handle
    ) -> Done | Failed:
        execution = Execution(node, spawner.root, node.name, 0, arguments, self._now(), inputs)
        execution.scope = handle.scope
        execution.count = handle
        self._begin(execution)
        try:
            if self.state.memory is not None:
                await self.state.memory.flush()
            outcome = await self._performer.perform(execution)
        except BaseException:
            self._tell_cancelled(execution)
            raise
        now = self._now()
        seconds = self._count_time(execution, now)
        self.state.finished += 1
        if isinstance(outcome, Failed):
            self._fail_spawned(execution, outcome.error, seconds)
            return outcome
        if execution.data is not None:
            handle.data = execution.data
            handle.output_digest = digest(execution.data)
        self._tell_complete(execution, outcome, seconds, now)
        return outcome

    def _fail_spawned(self, execution: Execution, exc: BaseException, seconds: float) -> None:
        """Tell of a failure; it is raised where the handle is awaited, or counted if it is continued from."""
        error = describe(exc, execution.label, execution.attempt)
        is_continued = self.continues(execution.node) and isinstance(exc, Exception)
        self._tell_error(execution.label, error, seconds, 0, is_continued=is_continued)
        if is_continued:
            self.state.errors.append(error)
            kept = {"error": error, "continued": True}
            self.state.remember("error", execution.label, kept)
            return
        attempt, run = execution.attempt, self.options.run_id
        annotate(exc, f"Raised by actor {execution.label!r}, attempt {attempt}, of run {run}.")
        if not isinstance(exc, Exception):
            self._failure_info = error
            self.give_up(exc)

    def _route(self, root: Node, outcome: Goto | End, data: bytes | None) -> None:
        """Follow the Goto or End of something spawned."""
        if self._is_stopped or root.name not in self._executions:
            return
        self.state.note("route", agent=self.prefix + root.name, **routed(outcome, data))
        self.cancel(self.flow.route(outcome))
        self._call_workers()

    # What actors wait for

    @asynccontextmanager
    async def waiting(self, execution: Execution, *, is_timed: bool = True) -> AsyncIterator[None]:
        """Let an actor wait for others, or for an answer: its place and its limit are others' meanwhile.

        Args:
            execution: Who waits.
            is_timed: Whether the wait counts towards the actor's timeout.
        """
        timer = None if is_timed else execution.timer
        execution.waits += 1
        self._lend(execution)
        if timer is not None:
            timer.pause()
        self.state.idle(execution.count or execution)
        is_cancelled = False
        try:
            yield
        except get_cancelled_exc_class():
            is_cancelled = True
            raise
        finally:
            execution.waits -= 1
            self.state.wake(execution.count or execution)
            if not (is_cancelled or execution.waits):
                await self._regain(execution)
            if timer is not None:
                timer.resume()

    def _lend(self, execution: Execution) -> None:
        if execution.limiter is not None:
            execution.lent, execution.limiter = execution.limiter, None
            execution.lent.release()
        if execution.has_slot:
            execution.has_slot = False
            self._slots.give_back()

    async def _regain(self, execution: Execution) -> None:
        # always in this order, so that nobody who holds a place waits for a limit
        if execution.lent is not None:
            await execution.lent.acquire(counts=False)
            execution.limiter, execution.lent = execution.lent, None
        await self._slots.take()
        execution.has_slot = True

    @asynccontextmanager
    async def without_slot(self, execution: Execution) -> AsyncIterator[None]:
        """Let others have the place of an execution that waits for its limit."""
        self._free(execution, quietly=False)
        yield
        await self._slots.take()
        execution.has_slot = True

    def follow_answers(self) -> None:
        """See that an answer reaches who waits for it while others are at work."""
        if self.state.memory is not None and self._following is None:
            self._following = CancelScope()
            self._group.start_soon(self._take_answers, self.state.memory, self._following)

    def unfollow_answers(self) -> None:
        """Look for answers no longer, once nobody waits for one."""
        if self._following is not None and not self.state.questions.waiting:
            self._following.cancel()
            self._following = None

    async def _take_answers(self, memory: Memory, scope: CancelScope) -> None:
        with scope:
            async for key, value in memory.follow_answers():
                if key not in self.state.questions.answers:
                    self.state.questions.take(key, value)

    def rest(self) -> None:
        """Park a durable run of which nothing but an answer makes more."""
        state = self.state
        questions = state.questions
        if self.state.memory is None or state.active or not questions.waiting:
            return
        top = state.top
        # what is ready is about to be taken, and what is stopping makes others ready
        is_at_rest = not any(flow.stopping or flow.count_ready() for flow in state.flows.values())
        if top._is_stopped or not is_at_rest:  # noqa: SLF001 - the run around this one
            return
        top._suspended = Suspended(list(questions.waiting), questions.next_expiry)  # noqa: SLF001
        top._halt()  # noqa: SLF001
        top._group.cancel_scope.cancel()  # noqa: SLF001

    # Runs within this one

    async def run_within(self, execution: Execution, arguments: dict[str, Any]) -> Any:
        """Run another conductor's actors as the work of one execution, and return their final output."""
        goal = arguments.pop("goal", self.options.goal)
        conductor: Any = execution.node.actor.call
        graph, options = conductor.within(goal, arguments, self.options)
        run = Run(graph, options, host=execution, state=self.state)
        return await run.execute_within()

    def _result(self) -> Result:
        flow, options, state = self.flow, self.options, self.state
        seconds = (options.clock.now() - self._started) / MICROSECONDS
        return {
            "success": self._failure is None and not state.errors,
            "final_output": final_output(flow, options.output),
            "actor_outputs": {name: flow.outputs[name] for name in self.graph.nodes if name in flow.outputs},
            "errors": state.errors,
            "metadata": {
                "run_id": options.run_id,
                "iterations": state.iterations,
                "timings": {
                    "started_at": self._started / MICROSECONDS,
                    "seconds": seconds,
                    "actors": state.seconds,
                },
                "path": state.path,
                "usage": self._announcer.usage.total(),
            },
        }
