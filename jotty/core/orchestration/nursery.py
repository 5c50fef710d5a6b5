"""What actors spawn while a run goes on: executions that are no nodes of its graph."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from jotty.errors import GraphError

from .actor import as_actor
from .binding import RESERVED, Names, among, make_plan
from .execution import Execution
from .identity import digest
from .labels import readable
from .outcome import Done, End, Failed, Goto, Skipped
from .replay import outcome_of, routed
from .result import blame, describe
from .spawning import arguments_of, digested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .actor import ActorLike, AnyActor
    from .binding import Plan
    from .graph import Node
    from .run import Run
    from .spawning import Handle

__all__ = ["Nursery"]

MOST_KEPT: Final = 256


class Nursery:
    """Runs what the actors of one run spawn.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._actors: dict[Any, AnyActor] = {}
        self._plans: dict[tuple[AnyActor, str], Plan] = {}

    def actor_of(self, value: ActorLike) -> AnyActor:
        """Return the actor that a name of the conductor's stands for, or that this is.

        Raises:
            GraphError: There is none of this name.
            TypeError: It is nothing that can be run.
        """
        if isinstance(value, (FunctionType, MethodType)):
            if value not in self._actors:
                _make_room(self._actors)
                self._actors[value] = as_actor(value)
            return self._actors[value]
        if not isinstance(value, str):
            return as_actor(value)
        known = self._run.options.actors
        if value not in known:
            raise GraphError(f"There is no actor {value!r}. {among(value, known)}")
        return known[value]

    def plan_of(self, actor: AnyActor, root: Node) -> Plan:
        """Return how an actor is bound that a node of the graph spawns: to what that node descends from.

        Raises:
            GraphError: One name stands for two things.
        """
        found = self._plans.get((actor, root.name))
        if found is None:
            _make_room(self._plans)
            graph, context = self._run.graph, frozenset(self._run.options.context)
            before = graph.ancestors(root.name)
            nodes = {node.actor.name: name for name, node in graph.nodes.items() if name in before}
            shared = frozenset(self._run.given) - context - set(RESERVED)
            names = Names(frozenset(nodes), shared, context)
            found = make_plan(actor, actor.signature, names, nodes, may_be_open=True)
            self._plans[actor, root.name] = found
        return found

    def start(self, handle: Handle, spawner: Execution, parents: Sequence[Handle]) -> None:
        """Have something spawned run in a task of its own, once its parents are settled."""
        self._run.state.active += 1
        self._run.tasks.start(handle.scope, self._branch, handle, spawner, parents)

    async def _branch(self, handle: Handle, spawner: Execution, parents: Sequence[Handle]) -> None:
        handle.is_begun = True
        try:
            with handle.scope:
                await checkpoint_if_cancelled()  # the attempt that has spawned it may be over already
                for parent in parents:
                    await parent.settled(self._run.state, handle)
                await self._settle(handle, spawner)
        except BaseException:
            self._run.halt()
            raise
        finally:
            self.drop(handle)

    async def run_here(self, handle: Handle, spawner: Execution) -> None:
        """Run something spawned in the task of its spawner, which waits for it."""
        self._run.state.active += 1
        handle.is_begun, handle.depth = True, spawner.depth + 1
        handle.waiters.append(spawner.work)
        try:
            async with self._run.places.waiting(spawner):
                with handle.scope:
                    await self._settle(handle, spawner)
            await checkpoint_if_cancelled()  # where it came to a Goto or an End that ends its spawner
        finally:
            self.drop(handle)

    def drop(self, handle: Handle) -> None:
        """Settle what did not come to anything, and count its work no more."""
        if not handle.is_settled:
            self._run.state.forget(handle.agent)
            handle.settle(None, self._run.state)
        self._run.state.idle(handle)

    async def _settle(self, handle: Handle, spawner: Execution) -> None:
        state = self._run.state
        outcome = await self._outcome(handle, spawner)
        if state.memory is not None:
            await state.memory.flush()
        handle.settle(outcome, state)

    async def _outcome(self, handle: Handle, spawner: Execution) -> Done | Failed | Skipped:
        run, node = self._run, handle.node
        arguments = arguments_of(handle, run.given, run.flow.outputs)
        inputs = None if run.state.memory is None else self._inputs_of(handle)
        if isinstance(arguments, Skipped):
            run.state.finish(node.name)
            run.reporter.skipped(node.name, arguments, inputs, 0)
            return arguments
        if (recalled := self._recalled(node, inputs)) is not None:
            run.state.finish(node.name)
            outcome, handle.output_digest = recalled
            return outcome
        await run.slots.take()
        if run.state.iterations >= run.options.max_iterations:
            run.exceed()
            await anyio.sleep_forever()  # the whole run is being cancelled
        outcome = await self._perform(handle, spawner, arguments, inputs)
        if isinstance(outcome, (Goto, End)):
            self._route(spawner.root, outcome, handle.data)
        return outcome

    def _inputs_of(self, handle: Handle) -> str:
        inputs = {name: digested(value) for name, value in handle.inputs.items()}
        return self._run.digests.spawned(handle.node, inputs, self._run.flow)

    def _recalled(self, node: Node, inputs: str | None) -> tuple[Done | Failed, str | None] | None:
        """Return what something spawned came to before, with the digest of its output."""
        state = self._run.state
        if state.memory is None:
            return None
        parent, _, name = node.name.rpartition("/")
        record = state.recall.at(parent).outcome_of(name, inputs)
        return None if record is None else outcome_of(record, self._run.options.codecs.of(node.actor))

    async def _perform(
        self, handle: Handle, spawner: Execution, arguments: dict[str, Any], inputs: str | None
    ) -> Done | Failed:
        run, node = self._run, handle.node
        execution = Execution(node, spawner.root, node.name, 0, arguments, run.now(), inputs)
        execution.scope = handle.scope
        execution.count = handle
        execution.depth = handle.depth
        execution.spawner = spawner
        run.reporter.began(execution)
        try:
            if run.state.memory is not None:
                await run.state.memory.flush()
            outcome = await run.performer.perform(execution)
            await checkpoint_if_cancelled()  # what comes too late is not followed
        except BaseException:
            run.reporter.cancelled(execution)
            raise
        finally:
            run.places.free(execution, quietly=False)
        now = run.now()
        seconds = run.reporter.seconds_of(execution, now)
        run.state.finish(node.name)
        if isinstance(outcome, Failed):
            self._fail(execution, outcome.error, seconds)
            return outcome
        if execution.data is not None:
            handle.data = execution.data
            handle.output_digest = digest(execution.data)
        run.reporter.completed(execution, outcome, seconds, now)
        return outcome

    def _fail(self, execution: Execution, exc: BaseException, seconds: float) -> None:
        """Tell of a failure; it is raised where the handle is awaited, or counted if it is continued from."""
        run, label = self._run, execution.label
        error = describe(exc, label, execution.attempt)
        is_continued = run.continues(execution.node) and isinstance(exc, Exception)
        run.reporter.failed(label, error, seconds, 0, is_continued=is_continued)
        if is_continued:
            run.state.errors.append(error)
            run.state.remember("error", label, {"error": error, "continued": True})
            return
        who = f"actor {readable(label)!r}, attempt {execution.attempt}, of run {run.options.run_id}"
        blame(exc, who)
        if not isinstance(exc, Exception):
            run.give_up(exc, error)

    def _route(self, root: Node, outcome: Goto | End, data: bytes | None) -> None:
        """Follow the Goto or End of something spawned."""
        run = self._run
        if run.is_stopped or root.name not in run.executions:
            return
        if isinstance(outcome, End):
            run.ended_data = data
        run.state.note("route", agent=run.prefix + root.name, **routed(outcome, data))
        run.cancel(run.flow.route(outcome))
        run.workers.call()


def _make_room(kept: dict[Any, Any]) -> None:
    """Forget what was made before, if it is much: who spawns a new function each time needs none again."""
    if len(kept) >= MOST_KEPT:
        kept.clear()
