"""How one attempt is driven: variables, cancel scopes, threads, streams."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import ActorContext, Conductor, End, Goto, GraphOrchestrator, Output, actor
from jotty.core.orchestration.attempt import _Job, in_thread, within
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Watch

pytestmark = pytest.mark.anyio

STAGE: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="outside")


async def test_a_coroutine_keeps_its_variables_over_all_its_suspensions() -> None:
    async def inside() -> list[str]:
        seen = [STAGE.get()]
        STAGE.set("inside")
        for _ in range(3):
            await checkpoint()
            seen.append(STAGE.get())
        return seen

    seen = await within(contextvars.copy_context(), inside())

    assert ["outside", "inside", "inside", "inside"] == seen
    assert "outside" == STAGE.get()


async def test_cancel_scopes_within_a_context_of_its_own_stay_right() -> None:
    async def inside() -> list[bool]:
        STAGE.set("inside")
        found = []
        with anyio.move_on_after(0) as outer:
            await anyio.sleep_forever()
        found.append(outer.cancelled_caught)
        with anyio.CancelScope() as first, anyio.CancelScope() as second:
            second.cancel()
            await anyio.sleep_forever()
        found.extend((first.cancelled_caught, second.cancelled_caught))
        await checkpoint()
        found.append(STAGE.get() == "inside")
        return found

    assert [True, False, True, True] == await within(contextvars.copy_context(), inside())
    await checkpoint()


async def test_task_groups_within_a_context_of_its_own_inherit_its_variables() -> None:
    seen = []

    async def child() -> None:
        await checkpoint()
        seen.append(STAGE.get())

    async def inside() -> None:
        STAGE.set("inside")
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child)

    await within(contextvars.copy_context(), inside())

    assert ["inside", "inside"] == seen


async def test_failures_of_children_arrive_within() -> None:
    found: list[str] = []

    async def inside() -> str:
        async def child() -> None:
            raise KeyError("x")

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
                await anyio.sleep_forever()
        except* KeyError:
            found.append(STAGE.get())
        return "caught, " + ", ".join(found)

    assert "caught, outside" == await within(contextvars.copy_context(), inside())


def test_a_coroutine_that_is_closed_has_not_failed() -> None:
    """GeneratorExit is how Python closes what nobody will resume; an actor that raises it has failed."""
    ended = []

    class Suspension:
        def __await__(self) -> Any:
            yield

    async def inside() -> None:
        try:
            await Suspension()
        finally:
            ended.append(1)

    driven = within(contextvars.copy_context(), inside())
    driven.send(None)
    driven.close()

    assert [1] == ended


async def test_a_cancelled_scope_around_it_cancels_it_and_its_cleanup_sees_its_variables() -> None:
    seen = []

    async def inside() -> None:
        STAGE.set("inside")
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(STAGE.get())
            with anyio.CancelScope(shield=True):
                await checkpoint()
            seen.append(STAGE.get())

    with anyio.CancelScope() as scope:
        scope.cancel()
        await within(contextvars.copy_context(), inside())

    assert scope.cancelled_caught
    assert ["inside", "inside"] == seen


def test_a_coroutine_that_is_given_up_is_closed_within_its_variables() -> None:
    seen = []

    async def inside() -> None:
        STAGE.set("inside")
        try:
            await _suspend()
        finally:
            seen.append(STAGE.get())

    coroutine = within(contextvars.copy_context(), inside())
    coroutine.send(None)
    coroutine.close()

    assert ["inside"] == seen


class _Suspension:
    def __await__(self) -> Any:
        return (yield "suspended")


async def _suspend() -> Any:
    return await _Suspension()


@given(st.lists(st.one_of(st.integers(), st.just(ValueError("x"))), max_size=8))
def test_what_is_sent_and_thrown_arrives_as_without_a_context(moves: list[Any]) -> None:
    async def echo() -> list[Any]:
        got: list[Any] = []
        for _ in moves:
            try:
                got.append(await _suspend())
            except ValueError as exc:
                got.append(exc)
        return got

    def drive(coroutine: Any) -> Any:
        try:
            coroutine.send(None)
            for move in moves:
                coroutine.throw(move) if isinstance(move, ValueError) else coroutine.send(move)
        except StopIteration as stop:
            return stop.value
        return "unfinished"

    assert drive(echo()) == drive(within(contextvars.copy_context(), echo()))


async def test_a_chain_runs_in_one_task_and_its_scopes_stay_right(watch: Watch) -> None:
    tasks = set()

    @actor
    async def first() -> bool:
        tasks.add(anyio.get_current_task().id)
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        return scope.cancelled_caught

    @actor(timeout=5)
    async def second(first: Any) -> Any:
        tasks.add(anyio.get_current_task().id)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            await checkpoint()
            group.cancel_scope.cancel()
        return first and group.cancel_scope.cancel_called

    @actor
    async def third(second: Any) -> Any:
        tasks.add(anyio.get_current_task().id)
        with anyio.fail_after(10):
            await checkpoint()
        return second

    assert (await watch(first, second, third)).output
    assert 1 == len(tasks)


# Streams


async def test_yielded_texts_are_chunks_and_their_join_is_the_output(watch: Watch) -> None:
    @actor
    async def speak(goal: str) -> AsyncIterator[str]:
        yield goal
        await checkpoint()
        yield "!"

    run = await watch(speak)

    assert "goal!" == run.output
    assert ["goal", "!"] == [event["text"] for event in run.told("text_chunk")]


@pytest.mark.parametrize(
    ("last", "expected"), [(Output([1]), [1]), (End("end"), "end"), (Goto("target", x=2), {"target": 2})]
)
async def test_the_last_thing_yielded_may_be_the_outcome(watch: Watch, last: Any, expected: Any) -> None:
    @actor
    async def speak(goal: str) -> AsyncIterator[Any]:
        yield "a"
        yield last

    @actor(on_demand=True)
    async def target(x: int) -> Any:
        return {"target": x}

    run = await watch(speak, target)

    assert expected == run.output
    assert ["a"] == [event["text"] for event in run.told("text_chunk")]


@pytest.mark.parametrize("items", [(1,), ("a", None), (Output(1), "late"), (Output(1), Output(2)), (b"a",)])
async def test_anything_else_that_is_yielded_is_a_type_error_and_closes_the_generator(
    watch: Watch, items: tuple[Any, ...]
) -> None:
    closed = []

    @actor
    async def speak(goal: str) -> AsyncIterator[Any]:
        try:
            for item in items:
                yield item
        finally:
            closed.append(True)

    run = await watch(speak)

    assert isinstance(run.error, TypeError)
    assert "'speak' yields" in str(run.error)
    assert [True] == closed


async def test_a_stream_with_a_context_tells_both(watch: Watch) -> None:
    @actor
    async def speak(ctx: Any) -> AsyncIterator[str]:
        ctx.reasoning("hm")
        yield "a"

    assert ["reasoning", "text_chunk"] == [
        event["type"] for event in (await watch(speak)).told("reasoning", "text_chunk")
    ]


# Threads


async def test_a_plain_function_runs_in_another_thread(watch: Watch) -> None:
    @actor
    def where(goal: str) -> int:
        return threading.get_ident()

    assert threading.get_ident() != (await watch(where)).output


async def test_a_plain_function_that_returns_an_awaitable_is_a_type_error(watch: Watch) -> None:
    @actor
    def forgets(goal: str) -> Any:
        return checkpoint()

    @actor
    def also(goal: str) -> Any:
        return _Suspension()

    for each in (forgets, also):
        run = await watch(each)
        assert isinstance(run.error, TypeError)
        assert "Write it as an async def." in str(run.error)


async def test_a_thread_is_told_to_stop_and_awaited() -> None:
    log: list[str] = []
    begun = threading.Event()

    @actor
    def works(ctx: Any) -> None:
        begun.set()
        while not ctx.cancelled:
            time.sleep(0.001)
        log.append("stopped")

    @actor
    async def fails() -> None:
        await anyio.to_thread.run_sync(begun.wait, 10)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # it has no message
        await Conductor([works, fails]).run("goal")

    assert ["stopped"] == log


async def test_a_thread_that_does_not_stop_is_left_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()
    late, events = list[Any](), list[Any]()

    @actor
    def works(ctx: Any) -> None:
        begun.set()
        go_on.wait(10)
        ctx.text("late")
        ctx.usage(cost=1)
        late.append(ctx)
        over.set()

    @actor
    async def ends() -> End:
        await anyio.to_thread.run_sync(begun.wait, 10)
        return End("end")

    run = GraphOrchestrator(Conductor([works, ends]), thread_grace=0.02).prepare("goal", run_id="r1")
    result = await run.execute(events.append)
    told = len(events)
    go_on.set()
    await anyio.to_thread.run_sync(over.wait, 10)

    assert "end" == result["final_output"]
    assert [True] == [each.cancelled for each in late]
    assert told == len(events)
    assert ["jotty.core.orchestration.attempt"] == [record.name for record in caplog.records]
    assert "'works' goes on 0.02 s after it was cancelled" in caplog.records[0].getMessage()


async def test_a_thread_that_has_not_begun_is_called_off(caplog: pytest.LogCaptureFixture) -> None:
    ran = []

    @actor
    def works(goal: str) -> None:
        ran.append(1)

    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with limiter:
            with anyio.move_on_after(0.01) as scope:
                await Conductor([works]).run("goal")
    finally:
        limiter.total_tokens = before

    assert scope.cancelled_caught
    assert [] == ran
    assert [] == caplog.records


async def test_a_thread_is_called_off_between_its_start_and_its_beginning() -> None:
    ran: list[int] = []
    job = _Job("works", lambda: ran.append(1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread(lambda: ran.append(2), ActorContext.fake(), clock=VirtualClock(), grace=10)

    assert scope.cancelled_caught
    assert job.take()
    assert job.run() is None
    assert [] == ran


async def test_the_wait_for_a_thread_does_not_count_as_the_actors_time(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(timeout=3)
    def works(goal: str) -> str:
        return goal

    runs = []
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1

    async def occupy() -> None:
        async with limiter:
            await clock.sleep(10)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(occupy)
            await checkpoint()
            runs.append(await watch(works))
    finally:
        limiter.total_tokens = before

    (run,) = runs
    assert "goal" == run.output
    assert 10.0 == run.events[-1]["time"] - run.events[0]["time"]


async def test_an_exception_of_a_thread_is_the_actors(watch: Watch) -> None:
    @actor(retries=1, backoff=0)
    def fails(ctx: Any) -> None:
        raise KeyError(ctx.attempt)

    run = await watch(fails)

    assert isinstance(run.error, KeyError)
    assert (2,) == run.error.args


async def test_listeners_are_called_on_the_event_loop_whatever_thread_tells() -> None:
    threads = []

    @actor
    def speaks(ctx: Any) -> None:
        ctx.text("from a thread")

    await (
        GraphOrchestrator(Conductor([speaks]))
        .prepare("goal")
        .execute(lambda _: threads.append(threading.get_ident()))
    )

    assert [threading.get_ident()] * 5 == threads


async def test_what_a_thread_tells_comes_in_order_and_before_its_end(watch: Watch) -> None:
    @actor
    def speaks(ctx: Any) -> str:
        for at in range(50):
            ctx.text(str(at))
            ctx.usage(model="m", input_tokens=1)
        return "done"

    run = await watch(speaks)

    assert [str(at) for at in range(50)] == [event["text"] for event in run.told("text_chunk")]
    assert list(range(1, len(run.events) + 1)) == [event["seq"] for event in run.events]
    assert run.result is not None
    assert 50 == run.result["metadata"]["usage"]["input_tokens"]
    assert "agent_complete" == run.events[-2]["type"]
