"""Running a workflow in a test: with scripted actors, in virtual time, now or through a queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from inspect import isawaitable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, Unpack

import anyio
import attrs

from jotty.core.orchestration import Conductor, GraphOrchestrator, Question, WorkflowMode, result_of
from jotty.core.orchestration.questions import answering
from jotty.core.queue import MICROSECONDS, MemoryTaskQueue, TaskQueue, microseconds
from jotty.errors import InputRequired, TaskCancelled, TaskFailed

from .clock import VirtualClock
from .scripts import stand_ins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from jotty.core.orchestration import ActorLike, Event, OnAsk, Result
    from jotty.core.queue import EnqueueOptions, Task

    from .scripts import StandIn

__all__ = ["Script", "WorkflowRun", "run_workflow"]

Script: TypeAlias = Mapping[
    Any, Any
]  # keys are actors or names; Mapping[str | Actor] would take no dict[str]
DAY: Final = 86_400.0
QUESTION: Final = ("key", "agent", "question", "options", "until")
FIRST_PAUSE: Final = 1.0  # seconds to wait for what a task waits for; each pause is twice the one before


@attrs.frozen
class _Outcome:
    """What a run came to."""

    result: Any
    events: list[Event]
    error: Exception | None
    seconds: float
    task: Task | None = None


class WorkflowRun:
    """A run of a workflow in a test; made by `run_workflow`.

    Attributes:
        calls: The arguments of each call of a scripted actor, by the actor's name and the parameter's.
    """

    def __init__(self, work: Callable[[], Awaitable[_Outcome]], scripted: Mapping[str, StandIn]) -> None:
        self.calls = {name: one.calls for name, one in scripted.items()}
        self._scripted = scripted
        self._work = work
        self._outcome: _Outcome | None = None
        self._awaitable: Any = None

    @property
    def result(self) -> Result:
        """What the workflow gave, or, where it failed, what was finished."""
        result: Result = self._over().result
        return result

    @property
    def events(self) -> list[Event]:
        """All that it told, in order."""
        return self._over().events

    @property
    def error(self) -> Exception | None:
        """What it raised: an actor's own exception now, a TaskFailed from a queue; None if nothing."""
        return self._over().error

    @property
    def seconds(self) -> float:
        """How long it took, in virtual time."""
        return self._over().seconds

    @property
    def task(self) -> Task | None:
        """The task as it is in the queue; None where there was no queue."""
        return self._over().task

    @property
    def final_output(self) -> Any:
        """The final output."""
        return self.result["final_output"]

    @property
    def outputs(self) -> dict[str, Any]:
        """The outputs by actor."""
        return self.result["actor_outputs"]

    @property
    def path(self) -> list[str]:
        """The actors in the order in which they were started."""
        return self.result["metadata"]["path"]

    def __await__(self) -> Generator[Any, Any, WorkflowRun]:
        """Wait for the end; what `run_workflow` raises, it raises here."""
        if self._awaitable is not None:
            yield from self._awaitable.__await__()
        return self

    def __repr__(self) -> str:
        if self._outcome is None:
            return "<WorkflowRun that was not awaited>"
        if self._outcome.error is not None:
            return f"<WorkflowRun that raised {self._outcome.error!r}>"
        return f"<WorkflowRun with final_output={self.final_output!r:.80}>"

    def _over(self) -> _Outcome:
        if self._outcome is None:
            raise RuntimeError(
                "The workflow has not run yet. In an async test, write: await run_workflow(...)."
            )
        return self._outcome

    def _begin(self, *, check: bool) -> WorkflowRun:
        """Run to the end if there is no event loop here, and else be awaited."""
        work = partial(self._finish, check=check)
        if _is_within_loop():
            self._awaitable = work()
            return self
        # in a thread: the event loop of an async fixture may be asleep in this one
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(work)
        return self

    async def _finish(self, *, check: bool) -> None:
        self._outcome = await self._work()
        self._awaitable = None
        for stand_in in self._scripted.values():
            if stand_in.problem is not None:
                raise stand_in.problem
        if check and self._outcome.error is not None:
            raise self._outcome.error


def run_workflow(
    workflow: WorkflowMode | Conductor | Iterable[ActorLike],
    goal: str = "test",
    context: Mapping[str, Any] | None = None,
    *,
    script: Script | None = None,
    execution: Literal["sync", "async"] | None = None,
    resources: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    answers: OnAsk | None = None,
    max_iterations: int = 100,
    clock: VirtualClock | None = None,
    queue: TaskQueue | None = None,
    time_limit: float = 366 * DAY,
    check: bool = True,
    **options: Unpack[EnqueueOptions],
) -> WorkflowRun:
    """Run a workflow towards a goal, and return what came of it.

    In a plain test, outside of any event loop, it has run when this returns; in an async test, `await` it.
    The workflow itself is left as it is: a copy runs, on the virtual clock, with a generator that always
    begins alike, and never on the queue that it has. Retries, timeouts and schedules take no real time. What
    waits for something else (a network, a thread that nobody holds the clock for) is overtaken by its
    timeouts: give such an actor a script.

    Args:
        workflow: A workflow, a conductor, or the actors.
        goal: What to run towards.
        context: Values that actors may bind by name.
        script: What actors answer, by actor or name; see `StandIn`. The others run as they are.
        execution: "sync" runs the goal now, "async" enqueues it and works on the queue until it is over;
            None for the workflow's own, which is "sync" for a conductor or actors.
        resources: Take the place of the conductor's, by name.
        outputs: Outputs by actor, supplied instead of running it.
        answers: Those to the questions of actors, by key (in the second round of a loop, `key#2`); or a
            function that is called with each `Question`.
        max_iterations: How many executions of actors the run may take.
        clock: The time; None for a new one.
        queue: Where an async goal waits, on the same clock; None for a new one in memory.
        time_limit: Virtual seconds after which it is cancelled.
        check: Whether to raise what the workflow raises; else it is the `error` of what is returned.
        **options: Those of `enqueue_task`, for async execution; `max_attempts` is 1 unless given.

    Raises:
        Exception: What the workflow raises: an actor's own exception, or `TaskFailed` from a queue.
        GraphError: The actors do not form a graph that can run with this context.
        InputRequired: An actor asks what there is no answer to.
        LookupError: The script is for an actor that is not there; lists those that are.
        TimeoutError: It was not over within the time limit.
        TypeError: There are options for a queue, but the execution is sync; or it is no workflow.
        UnscriptedCall: An actor was called more often than its script has answers; whatever came of that.
        ValueError: A script is for an orchestrator other than jotty's.
    """
    clock = clock or VirtualClock()
    given = _given(workflow)
    chosen = execution or given.execution
    if options and chosen == "sync":
        raise TypeError(f"{', '.join(options)}: options of a queue go with execution='async'.")
    scripted = stand_ins(given.conductor.actors, script or {})
    if scripted and not isinstance(given.orchestrator, GraphOrchestrator):
        raise ValueError("A script needs jotty's own orchestrator. Script what the other one calls instead.")
    conductor = _copied(given.conductor, scripted, resources or {}, clock)
    on_ask = answering({} if answers is None else answers)
    common: dict[str, Any] = {"max_iterations": max_iterations}
    if outputs is not None:
        common["outputs"] = outputs
    if chosen == "sync":
        work = partial(_now, _remade(given, conductor, None), goal, context, common, on_ask)
    else:
        queue = MemoryTaskQueue(clock=clock, random=Random(0)) if queue is None else queue
        later = {"max_attempts": 1, **options, **common}
        remade = _remade(given, conductor, queue)
        work = partial(_from_queue, remade, goal, context, later, on_ask=on_ask, time_limit=time_limit)
    run = WorkflowRun(partial(_within_time, work, clock, time_limit), scripted)
    return run._begin(check=check)  # noqa: SLF001 - the class is part of this function


def _given(workflow: Any) -> WorkflowMode:
    if isinstance(workflow, WorkflowMode):
        return workflow
    if isinstance(workflow, Conductor):
        return WorkflowMode(workflow)
    if isinstance(workflow, Iterable) and not isinstance(workflow, str):
        return WorkflowMode(Conductor(workflow))
    raise TypeError(f"Expected a WorkflowMode, a Conductor or a list of actors, not {workflow!r}.")


def _copied(
    conductor: Conductor, scripted: Mapping[str, StandIn], resources: Mapping[str, Any], clock: VirtualClock
) -> Conductor:
    actors = [scripted[each.name].actor if each.name in scripted else each for each in conductor.actors]
    return Conductor(
        actors,
        name=conductor.name,
        resources={**conductor.resources, **resources},
        limits=conductor.limits,
        max_parallel=conductor.max_parallel,
        output=conductor.output,
        on_error=conductor.on_error,
        on_change=conductor.on_change,
        thread_grace=conductor.thread_grace,
        clock=clock,
        random=Random(0),
    )


def _remade(given: WorkflowMode, conductor: Conductor, queue: TaskQueue | None) -> WorkflowMode:
    own = given.orchestrator if isinstance(given.orchestrator, GraphOrchestrator) else None
    return WorkflowMode(
        conductor,
        execution="sync" if queue is None else "async",
        queue=queue,
        mode=given.mode if own is None else own.mode,
        agent_order=None if own is None else own.agent_order,
        max_concurrent=given.max_concurrent,
        poll_interval=given.poll_interval,
        orchestrator=given.orchestrator if own is None else None,
        check_payloads=given.check_payloads,
    )


async def _within_time(
    work: Callable[[], Awaitable[_Outcome]], clock: VirtualClock, time_limit: float
) -> _Outcome:
    began = clock.now()
    failure: Exception = _late(time_limit)
    async with clock.autojump():
        with clock.timeout(time_limit):
            try:
                return attrs.evolve(await work(), seconds=(clock.now() - began) / MICROSECONDS)
            except Exception as exc:  # noqa: BLE001 - raised below, bare
                failure = exc
    raise failure


async def _now(
    workflow: WorkflowMode,
    goal: str,
    context: Mapping[str, Any] | None,
    options: dict[str, Any],
    on_ask: Callable[[Question], Any],
) -> _Outcome:
    error: Exception | None = None
    if isinstance(workflow.orchestrator, GraphOrchestrator):  # another one may not know it
        options = {**options, "on_ask": on_ask}
    async with workflow.execute_stream(goal, context, **options) as stream:
        events = [event async for event in stream]
        try:
            result: Any = await stream.result()
        except Exception as exc:  # noqa: BLE001 - raised by who wants it checked
            result, error = result_of(exc), exc
    return _Outcome(result, events, error, 0)


async def _from_queue(
    workflow: WorkflowMode,
    goal: str,
    context: Mapping[str, Any] | None,
    options: dict[str, Any],
    *,
    on_ask: Callable[[Question], Any],
    time_limit: float,
) -> _Outcome:
    queue = workflow.queue
    assert queue is not None
    task_id = await workflow.enqueue_task(goal, context, **options)
    await _work(workflow, queue, task_id, on_ask, time_limit)
    events = [event async for event in workflow.stream(task_id)]
    error: Exception | None = None
    try:
        result: Any = await workflow.result(task_id)
    except (TaskFailed, TaskCancelled) as exc:
        error, result = exc, events[-1].get("result")
    return _Outcome(result, events, error, 0, await queue.get(task_id))


async def _work(
    workflow: WorkflowMode,
    queue: TaskQueue,
    task_id: str,
    on_ask: Callable[[Question], Any],
    time_limit: float,
) -> None:
    """Have workers run until a task is over; none idles, as that takes a turn for each virtual second."""
    clock, pause = workflow.conductor.clock, FIRST_PAUSE
    until = clock.now() + microseconds(time_limit)
    while (task := await queue.get(task_id)) is not None and not task.status.is_terminal:
        ready_at = task.head.due if task.awaiting and task.head.due else task.head.run_at
        await clock.sleep((ready_at - clock.now()) / MICROSECONDS)
        await workflow.process_queue(max_tasks=1, drain=True, lanes=[task.lane])
        await _answer_questions(workflow, queue, task_id, on_ask)
        if task == await queue.get(task_id):  # it waits for something else
            if clock.now() + microseconds(pause) >= until:
                raise _late(time_limit, f" Its task is {task.status}.")
            await clock.sleep(pause)
            pause *= 2


async def _answer_questions(
    workflow: WorkflowMode, queue: TaskQueue, task_id: str, on_ask: Callable[[Question], Any]
) -> None:
    """Answer what a parked task waits for, unless it goes on without an answer at its time."""
    task = await queue.get(task_id)
    if task is None or not task.awaiting:
        return
    async for entry in queue.events(task_id, follow=False):
        if entry.kind == "question" and entry.data["key"] in task.awaiting:
            asked: dict[str, Any] = {name: entry.data.get(name) for name in QUESTION}
            try:
                answer = on_ask(Question(**asked))
            except InputRequired:
                if task.head.due is None:  # nothing else will ever let it go on
                    raise
                continue
            await workflow.answer(task_id, asked["key"], await answer if isawaitable(answer) else answer)


def _late(time_limit: float, more: str = "") -> TimeoutError:
    return TimeoutError(f"The workflow was not over after {time_limit:g} virtual seconds.{more}")


def _is_within_loop() -> bool:
    try:
        anyio.get_current_task()
    except RuntimeError:
        return False
    return True
