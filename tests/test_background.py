"""Workflows in async execution: the same actors, from a queue."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest

from jotty import (
    Conductor,
    Event,
    Goto,
    MemoryTaskQueue,
    Resource,
    RetryPolicy,
    TaskQueue,
    TaskStatus,
    WorkflowMode,
    actor,
    stream_run,
)
from jotty.errors import (
    GraphError,
    PayloadError,
    StorageError,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    Unhandled,
)
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.anyio


@actor
async def research(goal: str, quarter: str) -> list[str]:
    return [goal, quarter]


@actor
async def write(research: list[str]) -> AsyncIterator[str]:
    for word in research:
        yield f"{word} "


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


def conductor(clock: VirtualClock, *actors: Any, **settings: Any) -> Conductor:
    return Conductor(actors or [research, write], clock=clock, **settings)


def workflow(
    queue: MemoryTaskQueue, clock: VirtualClock, *actors: Any, mode: str = "dynamic", **settings: Any
) -> WorkflowMode:
    return WorkflowMode(conductor(clock, *actors, **settings), execution="async", queue=queue, mode=mode)


async def drain(work: WorkflowMode, clock: VirtualClock) -> int:
    async with clock.autojump():
        return await work.process_queue(drain=True)


async def test_a_queued_goal_gives_what_the_same_goal_gives_now(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    background = workflow(queue, clock)
    now = await WorkflowMode(conductor(clock)).execute("report", {"quarter": "Q4"})

    task_id = await background.enqueue_task("report", {"quarter": "Q4"})
    await drain(background, clock)
    later = await background.result(task_id)

    assert later["final_output"] == now["final_output"] == "report Q4 "
    assert later["actor_outputs"] == now["actor_outputs"]
    assert later["success"]
    assert later["metadata"]["run_id"] == task_id
    assert later["metadata"]["path"] == now["metadata"]["path"]


async def test_goals_run_by_priority_each_in_its_own_context(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    ran: list[str] = []

    @actor
    async def note(goal: str, quarter: str) -> str:
        ran.append(goal)
        return quarter

    work = workflow(queue, clock, note)
    ids = [await work.enqueue_task(f"p{number}", {"quarter": f"Q{number}"}, number) for number in (3, 1, 2)]
    async with clock.autojump():
        await work.process_queue(drain=True, max_concurrent=1)

    assert ran == ["p1", "p2", "p3"]
    assert [(await work.result(one))["final_output"] for one in ids] == ["Q3", "Q1", "Q2"]


async def test_the_stream_of_a_background_run_can_be_replayed_from_any_event(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    work = workflow(queue, clock)
    task_id = await work.enqueue_task("report", {"quarter": "Q4"})
    followed: list[Event] = []

    async def follow() -> None:
        followed.extend([event async for event in work.stream(task_id)])

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await drain(work, clock)

    kinds = [event["type"] for event in followed]
    assert kinds == [
        "workflow_start",
        *("agent_start", "agent_complete"),
        *("agent_start", "text_chunk", "text_chunk", "agent_complete"),
        "workflow_complete",
    ]
    assert [event async for event in work.stream(task_id)] == followed
    for number, event in enumerate(followed):
        rest = [one async for one in stream_run(queue, task_id, after=event["seq"])]
        assert rest == followed[number + 1 :]


async def test_chunks_appear_while_the_actor_is_still_at_work(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    seen = anyio.Event()

    @actor
    async def slow(goal: str) -> AsyncIterator[str]:
        yield goal
        await seen.wait()
        yield "!"

    work = workflow(queue, clock, slow)
    task_id = await work.enqueue_task("tell")

    async def follow() -> None:
        async for event in work.stream(task_id):
            if event["type"] == "text_chunk":
                seen.set()  # without it, the actor would never go on

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await drain(work, clock)

    assert (await work.result(task_id))["final_output"] == "tell!"


async def test_a_failing_goal_is_tried_again_and_its_stream_ends_once(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    attempts: list[str] = []

    @actor
    async def flaky(goal: str) -> str:
        attempts.append(goal)
        if len(attempts) < 3:
            raise ConnectionError("try me again")
        return "third time"

    work = workflow(queue, clock, flaky)
    task_id = await work.enqueue_task("g", max_attempts=3)
    await drain(work, clock)

    assert (await work.result(task_id))["final_output"] == "third time"
    events = [event["type"] async for event in work.stream(task_id)]
    assert events.count("workflow_start") == 1  # the same run goes on
    assert events.count("agent_error") == 2
    assert [kind for kind in events if kind.startswith("workflow_") and kind != "workflow_start"] == [
        "workflow_complete"
    ]
    assert events[-1] == "workflow_complete"


async def test_a_goal_that_fails_for_good_tells_its_error(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def broken(research: list[str]) -> None:
        raise ValueError(f"cannot use {research}")

    work = workflow(queue, clock, research, broken)
    task_id = await work.enqueue_task("g", {"quarter": "Q1"}, max_attempts=1)
    await drain(work, clock)

    with pytest.raises(TaskFailed, match="cannot use"):
        await work.result(task_id)
    events: list[Any] = [event async for event in work.stream(task_id)]
    last = events[-1]
    assert last["type"] == "workflow_error"
    assert last["error"]["type"] == "ValueError"
    assert last["result"]["actor_outputs"] == {"research": ["g", "Q1"]}


async def test_a_goal_whose_failing_actor_is_continued_from_is_completed(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor(on_error="continue")
    async def broken(goal: str) -> None:
        raise ValueError(goal)

    work = workflow(queue, clock, research, broken)
    task_id = await work.enqueue_task("g", {"quarter": "Q1"})
    await drain(work, clock)

    result = await work.result(task_id)
    assert not result["success"]
    assert [error["agent"] for error in result["errors"]] == ["broken"]


async def test_an_output_that_is_no_json_fails_the_goal_at_once_and_names_the_actor(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    calls: list[str] = []

    @actor
    async def odd(goal: str) -> Any:
        calls.append(goal)
        return {"when": {1, 2}}

    work = workflow(queue, clock, odd)
    task_id = await work.enqueue_task("g", max_attempts=5)
    await drain(work, clock)

    with pytest.raises(TaskFailed, match=r"output of actor 'odd'.*\['when'\] is of type set") as failed:
        await work.result(task_id)
    assert failed.value.error["type"] == "PayloadError"
    assert calls == ["g"]


async def test_an_output_that_is_no_json_ends_a_long_run_early(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def odd(goal: str) -> Any:
        return (goal,)

    @actor
    async def endless(odd: Any) -> None:
        await anyio.sleep_forever()

    work = workflow(queue, clock, odd, endless)
    task_id = await work.enqueue_task("g")
    await drain(work, clock)

    with pytest.raises(TaskFailed, match="output of actor 'odd'"):
        await work.result(task_id)


async def test_a_running_goal_is_cancelled_and_its_actors_with_it(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    running, ended = anyio.Event(), anyio.Event()

    @actor
    async def endless(goal: str) -> None:
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    work = workflow(queue, clock, endless)
    task_id = await work.enqueue_task("g")
    async with anyio.create_task_group() as group:
        group.start_soon(work.process_queue)
        await running.wait()
        assert await work.cancel(task_id)
        await ended.wait()
        with pytest.raises(TaskCancelled):
            await work.result(task_id)
        work.stop_processing()

    events: list[Any] = [event async for event in work.stream(task_id)]
    before, last = events[-2:]
    assert before["type"] == "agent_cancelled"
    assert (last["type"], last["error"]["type"]) == ("workflow_error", "TaskCancelled")
    assert not await work.cancel(task_id)


async def test_the_task_carries_its_mode_and_order_to_any_worker_of_its_lane(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def first(goal: str) -> str:
        return "first"

    @actor
    async def second(goal: str) -> str:
        return "second"

    players = conductor(clock, first, second)
    static = WorkflowMode(
        players, execution="async", queue=queue, mode="static", agent_order=["second", "first"]
    )
    dynamic = WorkflowMode(players, execution="async", queue=queue)
    task_id = await static.enqueue_task("g")
    await drain(dynamic, clock)

    result = await dynamic.result(task_id)
    assert result["metadata"]["path"] == ["second", "first"]
    assert result["final_output"] == "first"


async def test_two_workflows_share_a_store_by_their_lanes(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def say(goal: str) -> str:
        return f"said {goal}"

    talk, report = workflow(queue, clock, say, name="talk"), workflow(queue, clock, name="report")
    said = await talk.enqueue_task("hello")
    reported = await report.enqueue_task("g", {"quarter": "Q1"})
    assert await drain(talk, clock) == 1

    assert (await talk.result(said))["final_output"] == "said hello"
    waiting = await queue.get(reported)
    assert waiting is not None
    assert (waiting.status, waiting.lane) == (TaskStatus.PENDING, "report")


async def test_resources_are_entered_once_a_worker_or_once_a_run(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    class Counting(AbstractAsyncContextManager["Counting"]):
        def __init__(self) -> None:
            self.opened = self.closed = 0

        async def __aenter__(self) -> Self:
            self.opened += 1
            return self

        async def __aexit__(self, *_: object) -> None:
            self.closed += 1

    shared, fresh = Counting(), Counting()

    @actor
    async def use(goal: str, http: Counting, session: Counting) -> list[int]:
        return [http.opened, session.opened - session.closed]

    resources = {"http": lambda: shared, "session": Resource(lambda: fresh, scope="run")}
    work = workflow(queue, clock, use, resources=resources)
    ids = [await work.enqueue_task(f"g{number}") for number in range(3)]
    await drain(work, clock)

    for one in ids:
        assert (await work.result(one))["final_output"][0] == 1
    assert (shared.opened, shared.closed) == (1, 1)
    assert (fresh.opened, fresh.closed) == (3, 3)


async def test_bad_input_is_refused_before_anything_is_written(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    work = workflow(queue, clock)

    with pytest.raises(GraphError, match="quarter"):
        await work.enqueue_task("g")
    with pytest.raises(PayloadError) as refused:
        await work.enqueue_task("g", {"quarter": "Q1", "frame": [0, 1, 2, {"a"}]})
    assert refused.value.path == "context['frame'][3]"
    for priority in (0, True, "high", 6, 1.0, None):
        with pytest.raises(ValueError, match="priority"):
            await work.enqueue_task("g", {"quarter": "Q1"}, priority)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="jotty"):
        await work.enqueue_task("g", {"quarter": "Q1"}, metadata={"jotty": 1})
    with pytest.raises(TypeError, match="prio"):
        await work.enqueue_task("g", {"quarter": "Q1"}, prio=1)  # type: ignore[call-arg]
    with pytest.raises(TaskNotFound):
        await work.result("no such id")
    assert (await queue.stats()).lanes == {}


async def test_a_call_of_the_other_execution_names_the_right_one(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    later, now = workflow(queue, clock), WorkflowMode(conductor(clock))

    with pytest.raises(ValueError, match="enqueue_task"):
        await later.execute("g")
    with pytest.raises(ValueError, match="enqueue_task"):
        later.execute_stream("g")
    with pytest.raises(ValueError, match="execute"):
        await now.enqueue_task("g")
    with pytest.raises(ValueError, match="execute"):
        await now.process_queue()
    now.stop_processing()
    with pytest.raises(ValueError, match="queue"):
        WorkflowMode(conductor(clock), execution="async")


async def test_a_conductor_with_a_queue_needs_no_workflow(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    players = conductor(clock, task_queue=queue)
    task_id = await players.enqueue_goal("g", {"quarter": "Q2"}, priority=1)
    async with clock.autojump():
        await players.process_queue(drain=True)

    assert (await queue.result(task_id))["final_output"] == "g Q2 "
    with pytest.raises(RuntimeError, match="task_queue="):
        await conductor(clock).enqueue_goal("g", {"quarter": "Q2"})
    with pytest.raises(ValueError, match="different queues"):
        WorkflowMode(players, execution="async", queue=MemoryTaskQueue())


async def test_workflows_of_one_conductor_may_have_a_queue_each(clock: VirtualClock) -> None:
    players = conductor(clock)
    first, second = MemoryTaskQueue(clock=clock), MemoryTaskQueue(clock=clock)
    one, other = (WorkflowMode(players, execution="async", queue=each) for each in (first, second))
    in_first = await one.enqueue_task("one", {"quarter": "Q1"})
    in_second = await other.enqueue_task("other", {"quarter": "Q2"})

    assert (1, 1) == (await drain(one, clock), await drain(other, clock))
    assert ["one Q1 ", "other Q2 "] == [
        (await first.result(in_first))["final_output"],
        (await second.result(in_second))["final_output"],
    ]


async def test_a_conductor_without_a_queue_has_that_of_its_latest_workflow(clock: VirtualClock) -> None:
    players = conductor(clock)
    first, second = MemoryTaskQueue(clock=clock), MemoryTaskQueue(clock=clock)
    for lent in (first, second):
        WorkflowMode(players, execution="async", queue=lent)
        assert lent is players.task_queue
        assert lent is WorkflowMode(players, execution="async").queue
    WorkflowMode(players, queue=first)
    assert second is players.task_queue

    players.task_queue = MemoryTaskQueue(clock=clock)
    with pytest.raises(ValueError, match="different queues"):
        WorkflowMode(players, execution="async", queue=second)


async def test_a_foreign_orchestrator_runs_queued_goals(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    class Foreign:
        async def run(self, goal: str, context: Any, max_iterations: int) -> Any:
            raise NotImplementedError

        async def run_stream(self, goal: str, context: Any, max_iterations: int) -> AsyncIterator[Any]:
            yield {"type": "text_chunk", "seq": 1, "agent": "foreign", "text": goal}
            if goal == "breaks off":
                return
            result = {"success": True, "final_output": goal.upper(), "errors": [], "metadata": {}}
            yield {"type": "workflow_complete", "result": {**result, "actor_outputs": {}}}

    work = WorkflowMode(conductor(clock), execution="async", queue=queue, orchestrator=Foreign())
    good, bad = await work.enqueue_task("shout"), await work.enqueue_task("breaks off")
    await drain(work, clock)

    assert (await work.result(good))["final_output"] == "SHOUT"
    assert [event["type"] async for event in work.stream(good)] == ["text_chunk", "workflow_complete"]
    with pytest.raises(TaskFailed, match="workflow_complete"):
        await work.result(bad)


async def test_cancelling_the_worker_gives_the_goal_back(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    running = anyio.Event()

    @actor
    async def endless(goal: str) -> None:
        running.set()
        await anyio.sleep_forever()

    work = workflow(queue, clock, endless)
    task_id = await work.enqueue_task("g")
    async with anyio.create_task_group() as group:
        group.start_soon(work.process_queue)
        await running.wait()
        group.cancel_scope.cancel()

    task = await queue.get(task_id)
    assert task is not None
    assert (task.status, task.attempt) == (TaskStatus.PENDING, 0)


async def test_events_that_the_store_did_not_take_are_stored_with_the_result(clock: VirtualClock) -> None:
    class Busy(MemoryBackend):
        is_busy = True

        async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
            if self.is_busy:
                self.is_busy = False
                await clock.sleep(0.3)
                raise StorageError(self.url, "busy")
            return await super().append(task_id, lease, entries)

    @actor
    async def one(goal: str) -> str:
        return "1"

    @actor
    async def two(one: str) -> str:
        await clock.sleep(0.15)
        return "2"

    backend = Busy(clock=clock)
    work = WorkflowMode(conductor(clock, one, two), "async", TaskQueue(backend, clock=clock))
    task_id = await work.enqueue_task("g")
    await drain(work, clock)

    assert not backend.is_busy
    assert (await work.result(task_id))["actor_outputs"] == {"one": "1", "two": "2"}
    assert [event["type"] async for event in work.stream(task_id)] == [
        "workflow_start",
        *("agent_start", "agent_complete"),
        *("agent_start", "agent_complete"),
        "workflow_complete",
    ]


async def test_a_queued_loop_gives_the_outputs_that_the_same_loop_gives_now(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    def players() -> list[Any]:
        rounds: list[str] = []

        @actor
        async def draft(goal: str) -> str:
            rounds.append(goal)
            return f"draft {len(rounds)}"

        @actor(when=lambda draft: draft == "draft 1")
        async def polish(draft: str) -> str:
            return f"polished {draft}"

        @actor
        async def judge(draft: str, polish: str = "") -> Any:
            return Goto("draft") if polish else "good"

        return [draft, polish, judge]

    now = await WorkflowMode(conductor(clock, *players())).execute("g")
    work = workflow(queue, clock, *players())
    task_id = await work.enqueue_task("g")
    await drain(work, clock)

    assert now["actor_outputs"] == {"draft": "draft 2", "judge": "good"}
    assert (await work.result(task_id))["actor_outputs"] == now["actor_outputs"]


async def test_the_journal_keeps_an_output_as_it_was_when_its_actor_returned_it(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def one(goal: str) -> list[str]:
        return [goal]

    @actor
    async def two(one: list[str]) -> str:
        one.append("changed by two")
        return "done"

    work = workflow(queue, clock, one, two)
    task_id = await work.enqueue_task("g")
    await drain(work, clock)

    assert (await work.result(task_id))["actor_outputs"]["one"] == ["g"]


async def test_an_orchestrator_whose_stream_cannot_be_closed_is_fine(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    class Stream:
        def __init__(self) -> None:
            result = {"success": True, "final_output": 1, "actor_outputs": {}, "errors": [], "metadata": {}}
            self.events = [{"type": "workflow_complete", "seq": 1, "result": result}]

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> Any:
            if not self.events:
                raise StopAsyncIteration
            return self.events.pop()

    class Foreign:
        async def run(self, goal: str, context: Any, max_iterations: int) -> Any:
            raise NotImplementedError

        def run_stream(self, goal: str, context: Any, max_iterations: int) -> Stream:
            return Stream()

    work = WorkflowMode(conductor(clock), execution="async", queue=queue, orchestrator=Foreign())
    task_id = await work.enqueue_task("g")
    await drain(work, clock)

    assert (await work.result(task_id))["final_output"] == 1


async def test_a_cancelled_wait_for_an_event_loses_none_and_a_stream_may_just_be_left(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def slow(goal: str) -> AsyncIterator[str]:
        for word in ("one ", "two ", "three "):
            await clock.sleep(10)
            yield word

    work = workflow(queue, clock, slow)
    task_id = await work.enqueue_task("g")
    events: list[Event] = []

    async def follow() -> None:
        stream = work.stream(task_id)
        while not events or events[-1]["type"] != "workflow_complete":
            with clock.timeout(3):  # as a server does that sends keep-alives
                events.append(await anext(stream))

    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(follow)
        await work.process_queue(drain=True)
        async for _ in work.stream(task_id):
            break

    assert events == [event async for event in work.stream(task_id)]


async def test_who_waits_for_a_result_sees_the_end_of_a_task_whose_last_worker_died(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    task = await queue.enqueue("g", max_attempts=1)
    await queue.claim(worker="dies", lease_timeout=5)

    async with clock.autojump():
        with pytest.raises(TaskFailed, match="worker lost"):
            await queue.result(task.id, timeout=20)


async def test_a_goal_of_another_workflow_that_came_by_the_same_lane_is_left_to_its_workers(
    queue: MemoryTaskQueue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @actor
    async def analyse(goal: str) -> str:
        return goal

    @actor
    async def delete_things(goal: str) -> None:
        ran.append(goal)

    task_id = await workflow(queue, clock, analyse).enqueue_task("Analyse sales", max_attempts=1)
    with caplog.at_level(logging.WARNING, logger="jotty.queue"):
        assert await drain(workflow(queue, clock, delete_things), clock) == 0

    left = await queue.get(task_id)
    assert left is not None
    assert (left.status, left.attempt, ran) == (TaskStatus.PENDING, 0, [])
    assert "meant for the actors analyse; here are delete_things" in caplog.text

    async with clock.autojump():
        await clock.sleep(1)
        await workflow(queue, clock, analyse).process_queue(drain=True)
    assert (await queue.result(task_id))["final_output"] == "Analyse sales"


async def test_a_bare_goal_is_run_in_the_workers_own_way(queue: MemoryTaskQueue, clock: VirtualClock) -> None:
    work = WorkflowMode(
        conductor(clock), execution="async", queue=queue, mode="static", agent_order=["research"]
    )
    task = await queue.enqueue("report", {"quarter": "Q4"})

    await drain(work, clock)

    assert (await work.result(task.id))["metadata"]["path"] == ["research"]


async def test_settings_of_a_worker_that_contradict_each_other_are_refused_by_either_door(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    work = workflow(queue, clock)

    for process in (work.process_queue, work.conductor.process_queue):
        with pytest.raises(ValueError, match=r"lease_timeout=3 s is under three heartbeats of 1\.5 s"):
            await process(lease_timeout=3, heartbeat=1.5, drain=True)
        with pytest.raises(ValueError, match="retention must be a timedelta above zero"):
            await process(retention=timedelta(0), drain=True)


@pytest.mark.parametrize(("retention", "is_kept"), [(timedelta(days=1), False), (None, True)])
async def test_finished_goals_are_kept_for_as_long_as_the_worker_is_told(
    queue: MemoryTaskQueue, clock: VirtualClock, retention: timedelta | None, *, is_kept: bool
) -> None:
    work = workflow(queue, clock)
    task_id = await work.enqueue_task("report", {"quarter": "Q4"})
    await drain(work, clock)
    await clock.advance(2 * 86_400)

    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(partial(work.process_queue, retention=retention))
        await clock.sleep(20)
        work.stop_processing()

    assert (await queue.get(task_id) is not None) == is_kept


async def test_an_actor_may_leave_a_goal_to_other_workers(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    has_gpu = False

    @actor
    async def train(goal: str) -> str:
        if not has_gpu:
            raise Unhandled("this machine has no GPU")
        return goal

    work = workflow(queue, clock, train)
    task_id = await work.enqueue_task("model", max_attempts=1)
    await drain(work, clock)
    left = await queue.get(task_id)
    has_gpu = True
    await clock.advance(60)
    await drain(work, clock)

    assert left is not None
    assert (left.status, left.attempt) == (TaskStatus.PENDING, 0)
    assert (await work.result(task_id))["final_output"] == "model"


async def test_c25_an_actor_that_interrupts_its_worker_uses_up_its_own_attempts(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def quits(goal: str) -> str:
        if goal == "quit":
            raise KeyboardInterrupt
        return goal

    work = workflow(queue, clock, quits)
    bad = await work.enqueue_task("quit", priority=1, max_attempts=2, retry=RetryPolicy(delay=0))
    good = await work.enqueue_task("go on", max_attempts=1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            await work.process_queue(drain=True, max_concurrent=1)
    await work.process_queue(drain=True)

    task = await queue.get(bad)
    assert task is not None
    assert task.error is not None
    assert (task.status, task.attempt, task.error["type"]) == (TaskStatus.FAILED, 2, "ActorError")
    assert "Actor 'quits' raised KeyboardInterrupt, which ended the worker." in task.error["message"]
    assert (await work.result(good))["final_output"] == "go on"


@pytest.mark.parametrize("message", ["lone \ud800", "x" * 5_000_000], ids=["no unicode", "long"])
async def test_c31_the_error_of_an_actor_decides_whatever_its_text(
    queue: MemoryTaskQueue, clock: VirtualClock, message: str
) -> None:
    attempts: list[int] = []

    @actor(retries=1)
    async def fails() -> None:
        attempts.append(1)
        raise ValueError(message)

    work = workflow(queue, clock, fails)
    task_id = await work.enqueue_task("g", max_attempts=3)
    await drain(work, clock)

    task = await queue.get(task_id)
    assert task is not None
    assert task.error is not None
    assert (task.status, task.attempt, task.error["type"]) == (TaskStatus.FAILED, 3, "ValueError")
    assert len(attempts) == 6
    events = [event["type"] async for event in work.stream(task_id)]
    assert (events.count("agent_retry"), events.count("agent_error")) == (3, 3)


async def test_c31_a_failure_that_is_continued_from_is_stored_whatever_its_text(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor(on_error="continue")
    async def fails() -> None:
        raise OSError(2, "No such file", "lone \ud800")

    work = workflow(queue, clock, fails)
    task_id = await work.enqueue_task("g", max_attempts=1)
    await drain(work, clock)

    (error,) = (await work.result(task_id))["errors"]
    assert error["type"] == "FileNotFoundError"
