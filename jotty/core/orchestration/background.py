"""Goals in a task queue: enqueued by one process, run by the workers of any other, followed from all."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from jotty.core.queue import Finished, Parked, QueueManager, TaskQueue
from jotty.errors import ActorError, GraphError, Unhandled

from .blame import describe_frames
from .coding import Codecs
from .fold import concise, fold_run, whole_result
from .foreign import relayed
from .journaling import JournalWriters, answer_run, stream_run
from .memory import Suspended
from .orchestrator import ConductorLike, GraphOrchestrator
from .resources import opened, scoped
from .result import result_of
from .ticket import KEY, Ticket, read_ticket

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from datetime import timedelta

    from jotty.core.queue import Cursor, EnqueueOptions, Task

    from .actor import AnyActor
    from .events import Event
    from .graph import Graph
    from .journaling import JournalWriter
    from .orchestrator import Orchestrator
    from .run import Run

__all__ = ["BackgroundRuns"]

Work = Callable[[], Awaitable[Any]]

logger = logging.getLogger("jotty.queue")


class NamedConductor(ConductorLike, Protocol):
    """A conductor whose name is the lane of its tasks."""

    @property
    def name(self) -> str: ...

    @property
    def on_change(self) -> str: ...


class BackgroundRuns:
    """The asynchronous half of a workflow: one conductor's goals in one queue.

    Args:
        conductor: Whose actors run.
        queue: Where the goals are.
        orchestrator: What runs the goals enqueued here, in its mode and order.
        max_concurrent: How many goals a worker runs at once, unless told otherwise.
        poll_interval: Seconds after which a worker looks where the backend cannot wake it.

    Attributes:
        queue: Where the goals are.
    """

    def __init__(
        self,
        conductor: NamedConductor,
        queue: TaskQueue,
        orchestrator: Orchestrator,
        *,
        max_concurrent: int = 3,
        poll_interval: float = 1.0,
    ) -> None:
        self._conductor = conductor
        self.queue = queue
        self._orchestrator = orchestrator
        self._max_concurrent = max_concurrent
        self._poll_interval = poll_interval
        self._workers: set[QueueManager] = set()
        self._codecs = Codecs()

    async def enqueue(
        self,
        goal: str,
        context: Mapping[str, Any] | None,
        priority: int,
        max_iterations: int,
        *,
        outputs: Mapping[str, Any] | None,
        options: EnqueueOptions,
    ) -> str:
        """Store a goal, after checking that it can run, and return its id."""
        ticket = Ticket(
            actors=self._actor_names(), max_iterations=max_iterations, outputs=dict(outputs or {})
        )
        if isinstance(self._orchestrator, GraphOrchestrator):
            self._orchestrator.prepare(goal, context, max_iterations, outputs=outputs)
            mode, order = self._orchestrator.mode, self._orchestrator.agent_order
            supplied = self._by_codec(self._codecs.supplied, outputs or {})
            ticket = attrs.evolve(ticket, mode=mode, agent_order=order, outputs=supplied)
        metadata = options.get("metadata")
        metadata = {} if metadata is None else metadata
        if not isinstance(metadata, dict):
            raise TypeError(f"metadata must be a dict or None, not {metadata!r}.")
        if KEY in metadata:
            raise ValueError(f"metadata[{KEY!r}] is jotty's own. Use another key.")
        metadata = {**metadata, KEY: ticket.as_metadata()}
        given: EnqueueOptions = {"lane": self._conductor.name, **options, "metadata": metadata}
        plain = None if context is None else dict(context)
        return (await self.queue.enqueue(goal, plain, priority=priority, **given)).id

    async def process(
        self,
        *,
        max_tasks: int | None,
        max_concurrent: int | None,
        lease_timeout: float,
        heartbeat: float | None,
        grace: float,
        retention: timedelta | None,
        drain: bool,
        lanes: Sequence[str] | None,
    ) -> int:
        """Work on the queue until stopped, and return how many goals came to their end here."""
        conductor = self._conductor
        writers = JournalWriters(self.queue, conductor.clock, conductor.random)
        shared: dict[str, Any] = {}
        worker = QueueManager(
            self.queue,
            lambda task: self._handle(task, shared, writers),
            lanes=(conductor.name,) if lanes is None else lanes,
            max_concurrent=self._max_concurrent if max_concurrent is None else max_concurrent,
            lease_timeout=lease_timeout,
            heartbeat=heartbeat,
            grace=grace,
            poll_interval=self._poll_interval,
            retention=retention,
            describe=describe_frames(conductor.actors),
            clock=conductor.clock,
            random=conductor.random,
        )
        self._workers.add(worker)
        try:
            async with opened(scoped(conductor.resources, "worker")) as resources:
                shared.update(resources)
                return await _beside(writers.write_on, partial(worker.run, max_tasks=max_tasks, drain=drain))
        finally:
            self._workers.discard(worker)

    def stop(self, grace: float | None) -> None:
        """Have every worker of this object stop; from any thread."""
        for worker in tuple(self._workers):
            worker.stop(grace)

    @property
    def unsettled(self) -> tuple[str, ...]:
        """The ids of the goals whose leases the workers of this object hold; from any thread."""
        return tuple(task_id for worker in tuple(self._workers) for task_id in worker.unsettled)

    async def result(self, task_id: str, timeout: float | None) -> Any:
        """Wait for a goal's end, and return its result, with the outputs that its journal has."""
        stored = await self.queue.result(task_id, timeout)
        return whole_result(stored, await fold_run(self.queue, task_id))

    def stream(self, task_id: str, after: int) -> Cursor[Event]:
        """Follow a goal's events."""
        return stream_run(self.queue, task_id, after)

    async def cancel(self, task_id: str) -> bool:
        """Cancel a goal."""
        return await self.queue.cancel(task_id)

    async def answer(self, task_id: str, key: str, value: Any) -> None:
        """Answer a question of a goal."""
        await answer_run(self.queue, task_id, key, value)

    # Running one goal

    async def _handle(
        self, task: Task, shared: Mapping[str, Any], writers: JournalWriters
    ) -> Finished | Parked:
        """Run a task's goal, its events written to the journal as they come."""
        with anyio.CancelScope() as scope, writers.writer(task, scope) as writer:
            try:
                await writer.recall()
                run = self._prepared(task, shared, writer)
                result = await run()
            except Suspended as waits:
                until = None if waits.until is None else self._store_instant(waits.until)
                return Parked(waits.awaiting, until, await writer.rest())
            except BaseException as error:
                await writer.flush_last()
                if isinstance(error, KeyboardInterrupt) and (agent := _culprit(error)):
                    raise ActorError(agent, "raised KeyboardInterrupt, which ended the worker") from error
                raise
            return Finished(_stored(result), await writer.rest())
        raise writer.error or RuntimeError("The run was cancelled without a reason.")

    def _by_codec(
        self, code: Callable[[str, AnyActor, Any], Any], outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Encode or decode outputs as their actors' codecs do; in a static order, nodes are `name#2`, too."""
        actors = {each.name: each for each in self._conductor.actors}
        coded = dict(outputs)
        for name, value in outputs.items():
            actor = actors.get(name) or actors.get(name.rpartition("#")[0])
            if actor is not None:
                coded[name] = code(name, actor, value)
        return coded

    def _decoded(self, _: str, actor: AnyActor, data: Any) -> Any:
        return self._codecs.of(actor).decode(data)

    def _actor_names(self) -> tuple[str, ...]:
        return tuple(actor.name for actor in self._conductor.actors)

    def _store_instant(self, until: int) -> int:
        """Return an instant of the conductor's clock as one of the store's."""
        return until - self._conductor.clock.now() + self.queue.backend.now()

    def _prepared(self, task: Task, shared: Mapping[str, Any], writer: JournalWriter) -> Work:
        """Return what runs a task's goal.

        Raises:
            Unhandled: It is meant for another workflow, or another version of this one.
            GraphError: It cannot run here, however often it is tried.
        """
        ticket = read_ticket(task, self._actor_names())
        try:
            if not isinstance(self._orchestrator, GraphOrchestrator):
                stream = self._orchestrator.run_stream(task.goal, task.context, ticket.max_iterations)
                return partial(relayed, stream, writer.put)
            if not isinstance(task.goal, str):
                raise Unhandled(f"its goal is {task.goal!r:.200}, and actors run towards a text.")
            orchestrator = self._orchestrator_of(ticket, self._orchestrator)
            run = orchestrator.prepare(
                task.goal,
                task.context,
                ticket.max_iterations,
                outputs=self._by_codec(self._decoded, ticket.outputs),
                shared=shared,
                run_id=task.id,
                memory=writer,
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise GraphError("The task cannot be run by this workflow.", str(error)) from error
        self._check_change(task, writer.begun, run.graph)
        return partial(_executed, run)

    def _check_change(self, task: Task, begun: str | None, graph: Graph) -> None:
        """Tell of a run that began with another graph.

        Raises:
            Unhandled: It is left to those that have this graph.
        """
        if begun is None or begun == graph.fingerprint:
            return
        if self._conductor.on_change == "raise":
            raise Unhandled(
                "it began with other actors, or in another version of them. Run a worker that has those, "
                "or make the conductor with on_change='rerun'."
            )
        logger.warning("Task %s began with other actors than these: what does not fit runs again.", task.id)

    def _orchestrator_of(self, ticket: Ticket, default: GraphOrchestrator) -> GraphOrchestrator:
        """Return what runs a goal in the mode and order that it carries."""
        mode, order = ticket.mode, ticket.agent_order
        if mode is None or (mode, order) == (default.mode, default.agent_order):
            return default
        return GraphOrchestrator(self._conductor, mode, order, thread_grace=default.thread_grace)


async def _beside(
    service: Callable[[], Coroutine[Any, Any, None]], work: Callable[[], Awaitable[int]]
) -> int:
    """Do the work while the service runs; raise, bare, what the work raises."""
    failure: BaseException | None = None
    done = 0
    async with anyio.create_task_group() as group:
        group.start_soon(service)
        try:
            done = await work()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised below, bare
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return done


def _culprit(error: BaseException) -> str | None:
    """Return the actor that ended a run by this, if one did."""
    result = result_of(error)
    return result["errors"][-1]["agent"] if result and result["errors"] else None


async def _executed(run: Run) -> dict[str, Any]:
    """Return what a run comes to, with its final output as JSON."""
    return concise({**await run.execute(), "final_output": run.stored_output()})


def _stored(result: Any) -> dict[str, Any]:
    """Return what a task keeps of a result; the outputs by actor are in its journal already."""
    return {name: result[name] for name in ("success", "final_output", "errors", "metadata")}
