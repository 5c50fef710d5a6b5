"""What is too large is refused soon and everywhere alike, and reading a task costs no look at its payload."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import (
    MAX_PAYLOAD,
    MemoryTaskQueue,
    QueueManager,
    Record,
    RetryPolicy,
    Task,
    TaskQueue,
    payload,
)
from jotty.errors import JottyError, PayloadError, TaskFailed
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend
from jotty_backends.sqlite import SQLiteTaskQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

DENSE: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 9) | st.just("") | st.just([]) | st.just({}),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab", max_size=2), inner),
)


def shared(levels: int, leaf: Any = None) -> Any:
    """A small value in memory, of which JSON would have twice as much with each level."""
    value = leaf
    for _ in range(levels):
        value = [value, value]
    return value


# What is too large


@given(DENSE)
def test_c07_however_short_its_items_a_value_is_refused_from_its_own_size_on(value: Any) -> None:
    """The look ends early by counting items; it must not end before what is exactly as long as allowed."""
    size = len(json.dumps(value, separators=(",", ":")))

    assert size == len(payload.encode(value, limit=size))
    with pytest.raises(PayloadError):
        payload.encode(value, limit=size - 1)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([*[0] * MAX_PAYLOAD, object()], id="long"),
        pytest.param([shared(20), object()], id="shared"),
        pytest.param([{"a": shared(19), "b": shared(19)}, {"c": object()}], id="dicts"),
    ],
)
def test_c07_the_look_ends_where_there_is_too_much(value: Any) -> None:
    """Else it would come to what is at the end of these, and blame that."""
    with pytest.raises(PayloadError) as caught:
        payload.check_json(value, "context", limit=MAX_PAYLOAD)

    assert "context" == caught.value.path
    assert f"max_payload={MAX_PAYLOAD}" in caught.value.problem


@pytest.mark.parametrize("kind", [dict, list])
def test_c07_what_is_wrong_before_there_is_too_much_is_named(kind: type) -> None:
    value = [object(), shared(20)] if kind is list else {"a": object(), "b": shared(20)}
    with pytest.raises(PayloadError) as caught:
        payload.encode(value, "context", limit=MAX_PAYLOAD)

    assert ("context[0]" if kind is list else "context['a']") == caught.value.path


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["goal", "context", "metadata", "entry", "value"])
async def test_c07_every_call_ends_its_look_where_there_is_too_much(place: str) -> None:
    queue = MemoryTaskQueue(clock=VirtualClock())
    task = await queue.enqueue("g")
    (held,) = await queue.claim(worker="w")
    huge = {"deep": [shared(20), object()]}
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "goal": lambda: queue.enqueue(huge),
        "context": lambda: queue.enqueue("g", huge),
        "metadata": lambda: queue.enqueue("g", metadata=huge),
        "entry": lambda: queue.record(held, [{"kind": "mine", **huge}]),
        "value": lambda: queue.answer(task.id, "key", huge),
    }
    with pytest.raises(PayloadError) as caught:
        await calls[place]()

    assert place == caught.value.path
    assert [one.id async for one in queue.tasks()] == [task.id]
    assert [entry async for entry in queue.events(task.id, follow=False)] == []


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["complete", "worker"])
async def test_c31_a_result_is_looked_through_only_as_far_as_it_may_go(place: str) -> None:
    """It is too large before it is no JSON: the task fails with that error, and is not tried again."""
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    huge = [shared(20), object()]

    async def handler(_: Task) -> Any:
        return huge

    task = await queue.enqueue("g")
    if place == "complete":
        (held,) = await queue.claim(worker="w")
        await queue.complete(held, huge)
    else:
        await QueueManager(queue, handler, clock=clock).run(drain=True)

    with pytest.raises(TaskFailed, match=f"max_payload={MAX_PAYLOAD}") as failed:
        await queue.result(task.id)
    assert failed.value.error["type"] == "PayloadError"
    assert failed.value.error["message"].startswith("result is more than")


# Figures beyond what a store holds


@pytest.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TaskQueue]:
    made: TaskQueue = MemoryTaskQueue() if request.param == "memory" else SQLiteTaskQueue(tmp_path / "t.db")
    async with made:
        yield made


@pytest.mark.anyio
@pytest.mark.parametrize("count", [2**53 + 1, 2**63, 2**100])
async def test_c41_a_count_that_no_store_holds_is_refused_in_each(queue: TaskQueue, count: int) -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        await queue.enqueue("g", max_attempts=count)
    with pytest.raises(ValueError, match="limit"):
        await queue.claim(worker="w", limit=count)
    task = await queue.enqueue("g")
    with pytest.raises(ValueError, match="after"):
        [entry async for entry in queue.events(task.id, after=count, follow=False)]


@pytest.mark.anyio
async def test_the_greatest_count_and_the_most_patient_policy_are_kept(queue: TaskQueue) -> None:
    retry = RetryPolicy(factor=1e308, max_postponements=10**30)
    task = await queue.enqueue("g", max_attempts=2**53, retry=retry)
    (held,) = await queue.claim(worker="w", limit=2**53)
    await queue.fail(held, "broken", delay=0)
    found = await queue.get(task.id)

    assert found is not None
    assert (found.head.max_attempts, found.head.retry) == (2**53, retry)


@pytest.mark.anyio
async def test_purging_what_is_older_than_time_itself_deletes_nothing(queue: TaskQueue) -> None:
    task = await queue.enqueue("g")
    await queue.cancel(task.id)

    assert await queue.purge(timedelta.max) == 0
    assert await queue.get(task.id) is not None


@pytest.mark.anyio
@given(older=st.timedeltas(min_value=timedelta(0)))
async def test_any_age_can_be_purged(older: timedelta) -> None:
    clock = VirtualClock()
    memory = MemoryTaskQueue(clock=clock)
    task = await memory.enqueue("g")
    await memory.cancel(task.id)
    await clock.advance(3600)

    assert await memory.purge(older) == (older < timedelta(hours=1))


@pytest.mark.anyio
@pytest.mark.parametrize("older", [timedelta(-1), timedelta.min, 1, None])
async def test_what_is_no_age_is_refused(queue: TaskQueue, older: Any) -> None:
    with pytest.raises(ValueError, match="older_than") as caught:
        await queue.purge(older)

    assert not isinstance(caught.value, JottyError)


# What following a task costs


@pytest.mark.anyio
async def test_who_waits_for_a_task_and_who_follows_it_load_its_payload_once_at_most() -> None:
    class Counting(MemoryBackend):
        payloads = heads = 0

        async def get(self, ids: Sequence[str], *, payload: bool = True) -> list[Record | None]:
            if payload:
                self.payloads += len(ids)
            else:
                self.heads += len(ids)
            return await super().get(ids, payload=payload)

    clock = VirtualClock()
    backend = Counting(clock=clock)
    queue = TaskQueue(backend, clock=clock)
    results: list[Any] = []
    entries: list[int] = []

    async def wait() -> None:
        results.append(await queue.result(task.id))

    async def follow() -> None:
        entries.extend([entry.number async for entry in queue.events(task.id)])

    task = await queue.enqueue("g", {"document": "x" * 900_000})
    (held,) = await queue.claim(worker="w")
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(wait)
        group.start_soon(follow)
        for number in range(20):
            await clock.sleep(1)
            await queue.record(held, [{"kind": "mine", "number": number}])
        await queue.complete(held, "done")

    assert results == ["done"]
    assert entries == list(range(1, 22))
    assert backend.heads >= 20
    assert backend.payloads <= 1
