"""A conductor with a way of running it: now, or from a queue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from jotty.core.queue import DEFAULT_RETENTION

from .actor import is_count, is_seconds
from .conductor import Conductor, check_queue
from .foreign import relayed
from .orchestrator import GraphOrchestrator
from .stream import RunStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from jotty.core.queue import Cursor, EnqueueOptions, TaskQueue

    from .actor import AnyActor
    from .background import BackgroundRuns
    from .events import Event
    from .graph import GraphMode
    from .orchestrator import Orchestrator
    from .questions import OnAsk
    from .result import Result

__all__ = ["WorkflowMode"]

EXECUTIONS = ("sync", "async")


class WorkflowMode:
    """Runs a conductor's goals: at once (`execution="sync"`), or from a queue (`"async"`).

    Attributes:
        conductor: Whose actors run.
        execution: "sync" or "async".
        queue: Where goals wait in async mode.
        mode: How the actors follow each other.
        agent_order: In static mode, their order.
        max_concurrent: How many goals a worker runs at once.
        poll_interval: Seconds after which a worker looks for work that nobody told it of.
        orchestrator: What runs a goal.
        check_payloads: Whether in sync mode, too, each output and answer must be such as a queue can store,
            and each output passes its actor's codec on its way to others.

    Raises:
        ValueError: A setting is unknown or out of its range, an order is given with dynamic or beside
            an orchestrator of one's own, or async mode has no queue, or two.
        GraphError: The order names an unknown actor.
        TypeError: The orchestrator has no `run` or no `run_stream`.
    """

    def __init__(  # noqa: PLR0917  # a queue and a mode read well by position
        self,
        conductor: Conductor,
        execution: str = "sync",
        queue: Any = None,
        mode: GraphMode | str = "dynamic",
        agent_order: Sequence[str | AnyActor] | None = None,
        max_concurrent: int = 3,
        poll_interval: float = 1.0,
        orchestrator: Orchestrator | None = None,
        *,
        check_payloads: bool = False,
    ) -> None:
        if not isinstance(conductor, Conductor):
            raise TypeError(f"A workflow takes a Conductor, not {conductor!r}. Write Conductor([...]).")
        if execution not in EXECUTIONS:
            raise ValueError(f"execution must be 'sync' or 'async', not {execution!r}.")
        if not is_count(max_concurrent, 1):
            raise ValueError(f"max_concurrent must be an int of at least 1, not {max_concurrent!r}.")
        if not is_seconds(poll_interval):
            raise ValueError(f"poll_interval must be seconds > 0, not {poll_interval!r}.")
        own = GraphOrchestrator(
            conductor,
            mode,
            agent_order,
            thread_grace=conductor.thread_grace,
            check_payloads=check_payloads,
        )
        self.conductor = conductor
        self.execution = execution
        self.mode = own.mode
        self.agent_order = own.agent_order
        self.max_concurrent = max_concurrent
        self.poll_interval = poll_interval
        self.check_payloads = check_payloads
        self.orchestrator: Any = own if orchestrator is None else _checked(orchestrator, agent_order)
        self.queue: TaskQueue | None = _chosen_queue(execution, conductor, queue)
        self._runs: BackgroundRuns | None = None
        if execution == "async" and self.queue is not None:
            from .background import BackgroundRuns  # a sync run needs no worker

            self._runs = BackgroundRuns(
                conductor,
                self.queue,
                self.orchestrator,
                max_concurrent=max_concurrent,
                poll_interval=poll_interval,
            )

    async def execute(
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
        """Run a goal now, and return its result.

        If it is cancelled, so are the actors, and it returns when all have ended.

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
            ValueError: This workflow runs in async mode.
        """
        self._check_sync("execute")
        given = _given(outputs=outputs, resources=resources, on_ask=on_ask, timeout=timeout)
        result: Result = await self.orchestrator.run(goal, context, max_iterations, **given)
        return result

    def execute_stream(
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
        """Run a goal now, and return the stream of its events; the arguments are those of `execute`.

        Where there is no `on_ask`, a question is an event `input_required`, and `stream.answer(key, value)`
        answers it. The run begins at the stream's first use. Use `async with`, which leaves nothing running.

        Raises:
            GraphError: The actors do not form a graph that can run with this context.
            ValueError: This workflow runs in async mode.
        """
        self._check_sync("execute_stream")
        given = _given(outputs=outputs, resources=resources, on_ask=on_ask, timeout=timeout)
        stream = self.orchestrator.run_stream(goal, context, max_iterations, **given)
        return stream if isinstance(stream, RunStream) else RunStream(partial(relayed, stream))

    async def enqueue_task(
        self,
        goal: str,
        context: Mapping[str, Any] | None = None,
        priority: int = 3,
        *,
        max_iterations: int = 100,
        outputs: Mapping[str, Any] | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> str:
        """Put a goal on the queue, for a worker to run in this workflow's mode and order, and return its id.

        Once this returns, the goal survives what the queue's `durability` says. That it can run is checked
        before anything is written.

        Args:
            goal: What to run towards.
            context: Values that actors may bind by name, strict JSON.
            priority: 1 (most urgent) to 5.
            max_iterations: How many executions of actors the run may take, over all its claims.
            outputs: Outputs by actor, supplied instead of running it, strict JSON.
            **options: Those of `TaskQueue.enqueue`; the lane is the conductor's name unless given.

        Raises:
            GraphError: The actors do not form a graph that can run with this context.
            PayloadError: The context is not strict JSON, or too large; says where.
            QueueError: The queue refuses it; see `TaskQueue.enqueue`.
            ValueError: An option is wrong, or this workflow runs in sync mode.
        """
        runs = self._background("enqueue_task")
        return await runs.enqueue(goal, context, priority, max_iterations, outputs=outputs, options=options)

    async def process_queue(
        self,
        max_tasks: int | None = None,
        max_concurrent: int | None = None,
        *,
        lease_timeout: float = 30.0,
        heartbeat: float | None = None,
        grace: float = 25.0,
        retention: timedelta | None = DEFAULT_RETENTION,
        drain: bool = False,
        lanes: Sequence[str] | None = None,
    ) -> int:
        """Run queued goals until `stop_processing`, and return how many came to their end here.

        If it is cancelled (by Ctrl-C, say), what runs is cancelled and given back to the queue at once.
        A goal that is meant for other actors than these is left to the workers that have them.

        Args:
            max_tasks: How many goals to run at most; None for no bound.
            max_concurrent: How many goals to run at once; None for the workflow's own.
            lease_timeout: Seconds after which others take a goal over if this process dies.
            heartbeat: Seconds between two renewals of the leases; None for a third of `lease_timeout`, and
                never more than that.
            grace: Seconds that running goals may take to finish after `stop_processing`.
            retention: How long finished tasks are kept, by this worker and in the whole store; None for ever.
            drain: Return when nothing in its lanes is ready or in progress, here or elsewhere.
            lanes: The lanes to take from; None for the conductor's name alone.

        Raises:
            StorageError: The store cannot be opened; or it did not take back what ran when this was stopped,
                of which the log names each goal: others have it when its lease ends.
            QueueClosed: The queue was closed.
            KeyboardInterrupt: An actor raised it: its attempt has failed, and the others are given back.
            ValueError: An argument is out of its range, a lease is under three heartbeats, or this workflow
                runs in sync mode.
        """
        return await self._background("process_queue").process(
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
        """Have `process_queue` claim no more, and end when what runs is done or, after the grace, released.

        From any thread; calling it again with a shorter grace hurries. Without a `process_queue` under way,
        and in sync mode, it does nothing.

        Args:
            grace: Seconds; None for what `process_queue` was given.
        """
        if self._runs is not None:
            self._runs.stop(grace)

    @property
    def unsettled(self) -> tuple[str, ...]:
        """The ids of the queued goals that `process_queue` holds now; from any thread.

        They run here, or have ended but the store does not know yet. If the process ended now, others would
        have them when their leases end, at the cost of an attempt.
        """
        return () if self._runs is None else self._runs.unsettled

    async def result(self, id: str, timeout: float | None = None) -> Result:  # noqa: A002  # a caller's word
        """Wait until a queued goal is over, and return its result; from any process.

        Args:
            id: What `enqueue_task` returned.
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            TaskFailed, TaskCancelled: So it ended.
            TaskNotFound: There is no such task, or it was deleted meanwhile.
            TimeoutError: It is not over yet.
            ValueError: This workflow runs in sync mode.
        """
        result: Result = await self._background("result").result(id, timeout)
        return result

    def stream(self, id: str, after: int = 0) -> Cursor[Event]:  # noqa: A002
        """Follow a queued goal: its events from the start, or after one of them, until it is over.

        Any process may; stopping to iterate cancels nothing. See `stream_run`.

        Args:
            id: What `enqueue_task` returned.
            after: The `seq` of the last event that was seen.

        Raises:
            TaskNotFound: There is no such task, or it was deleted meanwhile; raised while iterating.
            ValueError: This workflow runs in sync mode.
        """
        return self._background("stream").stream(id, after)

    async def cancel(self, id: str) -> bool:  # noqa: A002
        """Cancel a queued goal, also a running one; return whether it was live. See `TaskQueue.cancel`.

        Raises:
            TaskNotFound: There is no such task.
            ValueError: This workflow runs in sync mode.
        """
        return await self._background("cancel").cancel(id)

    async def answer(self, id: str, key: str, value: Any) -> None:  # noqa: A002  # a caller's word
        """Answer a question of a queued goal; from any process. A goal that waits for it goes on.

        Args:
            id: What `enqueue_task` returned.
            key: That of the event `input_required`.
            value: The answer, strict JSON.

        Raises:
            InvalidState: The goal is over, or this question has its answer.
            PayloadError: The answer is not strict JSON.
            TaskNotFound: There is no such task.
            ValueError: The answer is none of the question's options, or this workflow runs in sync mode.
        """
        await self._background("answer").answer(id, key, value)

    def _background(self, method: str) -> BackgroundRuns:
        if self._runs is None:
            raise ValueError(
                f"{method}() works on a queue, but this workflow has execution='sync'. "
                "Use execute() or execute_stream(); or make it with execution='async' and a queue."
            )
        return self._runs

    def _check_sync(self, method: str) -> None:
        if self.execution != "sync":
            raise ValueError(
                f"{method}() runs a goal now, but this workflow has execution='async'. "
                "Use enqueue_task(), and process_queue() in a worker; or make it with execution='sync'."
            )


def _given(**options: Any) -> dict[str, Any]:
    """Leave out what was not given: another orchestrator may not know it."""
    return {name: each for name, each in options.items() if each is not None}


def _checked(orchestrator: Orchestrator, order: object) -> Orchestrator:
    for method in ("run", "run_stream"):
        if not callable(getattr(orchestrator, method, None)):
            raise TypeError(f"The orchestrator {orchestrator!r} has no {method}().")
    if order is not None:
        raise ValueError("agent_order is for jotty's own orchestrator. Leave it out beside orchestrator=.")
    return orchestrator


def _chosen_queue(execution: str, conductor: Conductor, queue: Any) -> Any:
    """Return the queue of a workflow, and lend it to a conductor that has none of its own."""
    check_queue("queue", queue)
    own = conductor.own_queue
    if queue is not None and own is not None and queue is not own:
        raise ValueError("The workflow and its conductor have different queues. Give it to one of them only.")
    found = conductor.task_queue if queue is None else queue
    if execution == "sync":
        return found
    if found is None:
        raise ValueError(
            "execution='async' needs a queue. "
            "Pass queue=SQLiteTaskQueue('tasks.db'), or give the conductor one."
        )
    conductor.lend(found)
    return found
