"""What queued runs tell: to the end, once, each by its own end, and in words that name the actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty import Conductor, End, Goto, MemoryTaskQueue, TaskQueue, TaskStatus, WorkflowMode, actor
from jotty.core.orchestration import foreign
from jotty.core.queue import MAX_PAYLOAD, Change, Claimed, ClaimRequest, Record, Swapped
from jotty.errors import StorageError, TaskFailed
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.anyio

LARGEST = "x" * (MAX_PAYLOAD - len('""'))
TOO_LARGE = LARGEST + "x"


@actor
async def greet(goal: str) -> str:
    return f"hello {goal}"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def queue(clock: VirtualClock) -> MemoryTaskQueue:
    return MemoryTaskQueue(clock=clock)


def workflow(queue: TaskQueue, clock: VirtualClock, *actors: Any, **settings: Any) -> WorkflowMode:
    return WorkflowMode(Conductor(actors, clock=clock), execution="async", queue=queue, **settings)


async def drain(work: WorkflowMode, clock: VirtualClock) -> int:
    async with clock.autojump():
        return await work.process_queue(drain=True)


async def read(work: WorkflowMode, task_id: str, clock: VirtualClock) -> list[Any]:
    """What a stream gives, within a minute."""
    events: list[Any] = []
    async with clock.autojump():
        with clock.timeout(60):
            async for event in work.stream(task_id):
                events.append(event)  # noqa: PERF401 - what came before the minute was over is kept
    return events


async def types_of(work: WorkflowMode, task_id: str) -> list[str]:
    return [event["type"] async for event in work.stream(task_id)]


# A task that is retried while its stream is read


async def test_who_reads_the_end_of_a_failed_run_as_it_is_retried_reads_on_to_the_end_of_the_next(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    goes_on = anyio.Event()
    events: list[Any] = []

    @actor
    async def lucky_at_last(greet: str) -> str:
        if not events:
            raise ValueError(f"cannot use {greet}")
        await goes_on.wait()
        return "done"

    work = workflow(queue, clock, greet, lucky_at_last)
    task_id = await work.enqueue_task("g", max_attempts=1)
    await drain(work, clock)
    async with clock.autojump(), anyio.create_task_group() as group:
        async for event in work.stream(task_id):
            events.append(event)
            if event["type"] == "agent_error":
                await queue.retry(task_id)
                group.start_soon(work.process_queue)
                await clock.sleep(10)  # a slow reader: the next attempt is under way
                goes_on.set()
        work.stop_processing()

    assert [event["type"] for event in events] == [
        *("workflow_start", "agent_start", "agent_complete", "agent_start", "agent_error"),
        *("agent_start", "agent_complete"),
        "workflow_complete",
    ]
    assert events[-1]["result"]["actor_outputs"] == {"greet": "hello g", "lucky_at_last": "done"}
    assert [event async for event in work.stream(task_id)] == events


class RetriedLate(MemoryBackend):
    """A store where somebody retries a task, and begins with it, as its reader asks how it ended."""

    retries: TaskQueue | None = None

    async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
        if payload and self.retries is not None:
            queue, self.retries = self.retries, None
            await queue.retry(ids[0])
            (held,) = await queue.claim(worker="another")
            await queue.record(held, [{"kind": "event", "event": {"type": "workflow_start"}}])
        return await super().get(ids, payload=payload)


async def test_a_failed_run_that_is_retried_after_its_end_was_read_ends_with_its_own_error(
    clock: VirtualClock,
) -> None:
    @actor
    async def broken(greet: str) -> None:
        raise ValueError(f"cannot use {greet}")

    backend = RetriedLate(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    work = workflow(queue, clock, greet, broken)
    task_id = await work.enqueue_task("g", max_attempts=1)
    await drain(work, clock)
    backend.retries = queue
    events = await read(work, task_id, clock)

    task = await queue.get(task_id)
    assert task is not None
    assert task.status is TaskStatus.IN_PROGRESS
    last = events[-1]
    assert last["type"] == "workflow_error"
    assert (last["error"]["type"], last["error"]["message"]) == ("ValueError", "cannot use hello g")
    assert last["error"]["attempt"] == 1
    assert last["result"]["actor_outputs"] == {"greet": "hello g"}


async def test_a_cancelled_run_that_is_retried_after_its_end_was_read_ends_as_cancelled(
    clock: VirtualClock,
) -> None:
    backend = RetriedLate(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    work = workflow(queue, clock, greet)
    task_id = await work.enqueue_task("g")
    await work.cancel(task_id)
    backend.retries = queue
    (last,) = await read(work, task_id, clock)

    assert (last["type"], last["error"]["type"]) == ("workflow_error", "TaskCancelled")


# What the store did not take, or took without an answer


class Unreliable(MemoryBackend):
    """A store that takes its time over an append, and then fails; or whose answer to a settlement is lost."""

    fails_append = False
    loses_answer = False

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        if self.fails_append:
            self.fails_append = False
            await self._store.clock.sleep(0.3)
            raise StorageError(self.url, "busy")
        return await super().append(task_id, lease, entries)

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        done = await super().turn(changes, request)
        if changes and self.loses_answer:
            self.loses_answer = False
            raise StorageError(self.url, "connection lost after the commit")
        return done


async def test_events_that_the_store_did_not_take_are_stored_though_the_run_fails(
    clock: VirtualClock,
) -> None:
    """They were on their way to the store when it failed."""

    @actor
    async def fails(greet: str) -> None:
        await clock.sleep(0.15)
        raise ValueError(greet)

    backend = Unreliable(clock=clock)
    work = workflow(TaskQueue(backend, clock=clock), clock, greet, fails)
    task_id = await work.enqueue_task("g", max_attempts=1)
    backend.fails_append = True
    await drain(work, clock)

    events: list[Any] = [event async for event in work.stream(task_id)]
    assert not backend.fails_append
    assert [event["type"] for event in events] == [
        "workflow_start",
        *("agent_start", "agent_complete"),
        *("agent_start", "agent_error"),
        "workflow_error",
    ]
    assert events[-1]["result"]["actor_outputs"] == {"greet": "hello g"}


async def test_a_run_whose_end_was_stored_without_an_answer_ends_once(clock: VirtualClock) -> None:
    backend = Unreliable(clock=clock)
    work = workflow(TaskQueue(backend, clock=clock), clock, greet)
    task_id = await work.enqueue_task("g")
    backend.loses_answer = True
    ended = await drain(work, clock)

    assert not backend.loses_answer
    assert ended == 1
    assert await types_of(work, task_id) == [
        "workflow_start",
        *("agent_start", "agent_complete"),
        "workflow_complete",
    ]


async def test_a_failed_attempt_that_was_stored_without_an_answer_is_told_once(clock: VirtualClock) -> None:
    tried: list[str] = []

    @actor
    async def flaky(goal: str) -> str:
        tried.append(goal)
        if len(tried) == 1:
            raise ConnectionError("try me again")
        return "second time"

    backend = Unreliable(clock=clock)
    work = workflow(TaskQueue(backend, clock=clock), clock, flaky)
    task_id = await work.enqueue_task("g")
    backend.loses_answer = True
    ended = await drain(work, clock)

    assert ended == 1
    assert await types_of(work, task_id) == [
        *("workflow_start", "agent_start", "agent_error"),
        *("agent_start", "agent_complete"),
        "workflow_complete",
    ]


# What following a run costs


async def test_who_follows_a_run_or_waits_for_it_loads_its_payload_no_oftener_for_its_many_events() -> None:
    class Counting(MemoryBackend):
        payloads = 0

        async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
            self.payloads += payload * len(ids)
            return await super().get(ids, payload=payload)

    clock = VirtualClock()
    backend = Counting(clock=clock)
    chunks: list[str] = []

    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        for _ in range(50):
            await clock.sleep(1)
            yield "."

    work = workflow(TaskQueue(backend, clock=clock), clock, talk)
    task_id = await work.enqueue_task("g", {"document": "x" * 900_000})

    async def follow() -> None:
        chunks.extend(
            [event["text"] async for event in work.stream(task_id) if event["type"] == "text_chunk"]
        )

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        group.start_soon(work.result, task_id)
        await drain(work, clock)

    assert chunks == ["."] * 50
    assert backend.payloads <= 2


# What is too large


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize("excess", [0, 70_000], ids=["by a byte", "by far"])
async def test_an_output_that_is_too_large_fails_the_goal_at_once_and_names_the_actor(
    queue: MemoryTaskQueue, clock: VirtualClock, excess: int, *, is_final: bool
) -> None:
    calls: list[str] = []

    @actor
    async def big(goal: str) -> str:
        calls.append(goal)
        return TOO_LARGE + "x" * excess

    @actor
    async def size(big: str) -> int:
        await clock.sleep(60)
        return len(big)

    work = workflow(queue, clock, big) if is_final else workflow(queue, clock, big, size)
    task_id = await work.enqueue_task("g", max_attempts=5)
    await drain(work, clock)

    with pytest.raises(TaskFailed, match=r"output of actor 'big': .* bytes of JSON") as failed:
        await work.result(task_id)
    assert failed.value.error["type"] == "PayloadError"
    assert f"max_payload={MAX_PAYLOAD}" in failed.value.error["message"]
    assert calls == ["g"]


@pytest.mark.parametrize("is_final", [True, False])
async def test_an_output_as_large_as_it_may_be_is_kept_whole(
    queue: MemoryTaskQueue, clock: VirtualClock, *, is_final: bool
) -> None:
    """The journal and the result wrap it, which is not held against it."""

    @actor
    async def big(goal: str) -> str:
        return LARGEST

    @actor
    async def size(big: str) -> int:
        return len(big)

    work = workflow(queue, clock, big) if is_final else workflow(queue, clock, big, size)
    task_id = await work.enqueue_task("g", max_attempts=1)
    await drain(work, clock)
    result = await work.result(task_id)

    assert result["actor_outputs"]["big"] == LARGEST
    assert result["final_output"] == (LARGEST if is_final else len(LARGEST))


async def test_an_event_that_is_too_large_fails_the_goal_at_once_and_names_the_actor(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    calls: list[str] = []

    @actor
    async def talk(goal: str) -> AsyncIterator[str]:
        calls.append(goal)
        yield TOO_LARGE * 2  # an event has some room beyond what a value may have
        await anyio.sleep_forever()

    work = workflow(queue, clock, talk)
    task_id = await work.enqueue_task("g", max_attempts=5)
    await drain(work, clock)

    with pytest.raises(TaskFailed, match=r"event 'text_chunk' of actor 'talk': .* bytes of JSON"):
        await work.result(task_id)
    assert calls == ["g"]


async def test_a_goal_as_large_as_a_task_may_hold_can_be_run(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    """The journal repeats it, and adds to it."""

    @actor
    async def size(goal: str) -> int:
        return len(goal)

    goal = "g" * (MAX_PAYLOAD - 100)
    work = workflow(queue, clock, size)
    task_id = await work.enqueue_task(goal)
    await drain(work, clock)

    assert (await work.result(task_id))["final_output"] == len(goal)


# What can't run here


@pytest.mark.parametrize(
    "wrong",
    [
        {"goal": 5},
        {"goal": None},
        {"metadata": {"jotty": 5}},
        {"metadata": {"jotty": None}},
        {"metadata": {"jotty": ["dynamic"]}},
        {"metadata": {"jotty": {"mode": "zig"}}},
        {"metadata": {"jotty": {"mode": 3}}},
        {"metadata": {"jotty": {"max_iterations": 0}}},
        {"metadata": {"jotty": {"max_iterations": "many"}}},
        {"metadata": {"jotty": {"mode": "static", "agent_order": ["nobody"]}}},
        {"metadata": {"jotty": {"mode": "static", "agent_order": 5}}},
        {"metadata": {"jotty": {"agent_order": ["greet"]}}},
        {"metadata": {"jotty": {"actors": ["somebody", "else"]}}},
        {"metadata": {"jotty": {"actors": "greet"}}},
        {"metadata": {"jotty": {"actors": [1]}}},
    ],
    ids=repr,
)
async def test_a_task_that_says_nothing_to_this_workflow_is_left_to_others(
    queue: MemoryTaskQueue, clock: VirtualClock, wrong: dict[str, Any]
) -> None:
    work = workflow(queue, clock, greet)
    task = await queue.enqueue(wrong.get("goal", "g"), metadata=wrong.get("metadata"), max_attempts=1)
    good = await work.enqueue_task("g")
    assert await drain(work, clock) == 1

    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt) == (TaskStatus.PENDING, 0)
    assert (await work.result(good))["final_output"] == "hello g"


async def test_a_goal_whose_context_lacks_what_the_actors_need_is_tried_once(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    @actor
    async def report(goal: str, quarter: str) -> str:
        return f"{goal} {quarter}"

    work = workflow(queue, clock, report)
    started = clock.now()
    task = await queue.enqueue("g", {"year": 2026}, max_attempts=3)
    assert await drain(work, clock) == 1

    with pytest.raises(TaskFailed, match="quarter") as failed:
        await work.result(task.id)
    assert failed.value.error["type"] == "GraphError"
    found = await queue.get(task.id)
    assert found is not None
    assert (found.status, found.attempt, found.head.finished_at) == (TaskStatus.FAILED, 1, started)


async def test_an_actor_that_raises_the_same_errors_is_tried_again(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    """They are pointless to repeat only before the run."""
    raised: list[Exception] = [TypeError("a"), ValueError("b"), AttributeError("c")]

    @actor
    async def unlucky(goal: str) -> str:
        if raised:
            raise raised.pop()
        return "done"

    work = workflow(queue, clock, unlucky)
    task_id = await work.enqueue_task("g", max_attempts=4)
    await drain(work, clock)

    assert (await work.result(task_id))["final_output"] == "done"


# Other orchestrators


class Stream:
    """A stream of another library, whose closing may be all that it is bad at."""

    def __init__(self, *events: Any, is_slow: bool = False) -> None:
        self.events = list(events)
        self.is_slow = is_slow
        self.is_closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if not self.events:
            raise StopAsyncIteration
        return self.events.pop(0)

    async def aclose(self) -> None:
        if self.is_slow:
            await anyio.sleep(3)  # no deadline is that far away
        self.is_closed = True


class Foreign:
    """Another library's orchestrator, with one stream to give."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def run(self, goal: str, context: Any, max_iterations: int) -> Any:
        raise NotImplementedError

    def run_stream(self, goal: str, context: Any, max_iterations: int) -> Stream:
        return self.stream


def completion(output: Any) -> dict[str, Any]:
    result = {"success": True, "final_output": output, "actor_outputs": {}, "errors": [], "metadata": {}}
    return {"type": "workflow_complete", "seq": 1, "result": result}


async def test_a_stream_that_takes_too_long_to_close_does_not_keep_the_worker(
    queue: MemoryTaskQueue, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "LAST_WORDS", 0.02)  # real seconds
    stream = Stream(completion(1), is_slow=True)
    work = workflow(queue, clock, greet, orchestrator=Foreign(stream))
    task_id = await work.enqueue_task("g")
    await work.process_queue(max_tasks=1)

    assert not stream.is_closed
    assert (await work.result(task_id))["final_output"] == 1


async def test_a_stream_without_a_result_is_the_same_error_now_and_later(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    later = workflow(queue, clock, greet, orchestrator=Foreign(Stream()))
    task_id = await later.enqueue_task("g", max_attempts=1)
    await drain(later, clock)
    now = WorkflowMode(Conductor([greet]), orchestrator=Foreign(Stream()))

    with pytest.raises(TaskFailed) as failed:
        await later.result(task_id)
    with pytest.raises(RuntimeError, match="workflow_complete") as raised:
        await now.execute_stream("g").result()
    assert failed.value.error["type"] == "RuntimeError"
    assert failed.value.error["message"] == str(raised.value)


# What is void


async def test_an_output_made_void_by_a_goto_is_gone_though_its_actor_never_runs_again(
    queue: MemoryTaskQueue, clock: VirtualClock
) -> None:
    def players() -> list[Any]:
        rounds: list[str] = []

        @actor
        async def draft(goal: str) -> Any:
            rounds.append(goal)
            return "draft" if len(rounds) == 1 else End("enough")

        @actor
        async def polish(draft: str) -> str:
            return f"polished {draft}"

        @actor
        async def judge(polish: str) -> Any:
            return Goto("draft")

        return [draft, polish, judge]

    now = await WorkflowMode(Conductor(players(), clock=clock)).execute("g")
    work = workflow(queue, clock, *players())
    task_id = await work.enqueue_task("g")
    await drain(work, clock)
    later = await work.result(task_id)

    assert "polish" not in now["actor_outputs"]
    assert later["actor_outputs"] == now["actor_outputs"]
    assert later["final_output"] == now["final_output"] == "enough"


@pytest.mark.parametrize("mute", [{2, 3, 5}, {2, 3, 4, 5, 6}, {3, 4, 5, 7, 8, 9}], ids=str)
async def test_events_whose_writing_was_not_answered_are_told_once(
    clock: VirtualClock, mute: set[int]
) -> None:
    class Mute(MemoryBackend):
        calls = 0

        async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
            number = await super().append(task_id, lease, entries)
            self.calls += 1
            if self.calls in mute:
                raise StorageError(self.url, "the answer was lost")
            return number

    @actor
    async def tell(goal: str) -> AsyncIterator[str]:
        for number in range(120):
            await clock.sleep(0.03)
            yield f"{number} "

    backend = Mute(clock=clock)
    players = Conductor([tell], clock=clock)
    work = WorkflowMode(players, execution="async", queue=TaskQueue(backend, clock=clock))
    task_id = await work.enqueue_task("g")
    async with clock.autojump():
        await work.process_queue(drain=True)

    told: list[Any] = [event async for event in work.stream(task_id)]
    assert backend.calls > 5
    assert [event["text"] for event in told if event["type"] == "text_chunk"] == [f"{n} " for n in range(120)]
    assert (await work.result(task_id))["final_output"] == "".join(f"{n} " for n in range(120))
