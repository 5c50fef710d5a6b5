"""Runs on every kind of event loop, and what others may do to their tasks there."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from jotty.core.orchestration import Actor, Conductor, End, Goto, GraphOrchestrator
from jotty.errors import ActorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from jotty.core.orchestration import ActorContext

LONG = 1_000
FIVE = 5


class Broken(Exception):
    """What a listener raises."""


def everything(log: list[str]) -> Conductor:  # noqa: C901 - many actors, each of two lines
    """A conductor whose actors return at once, wait, spawn, fail, go back, and hold others."""

    async def start(goal: str) -> str:
        return goal

    async def waits(start: str) -> str:
        for _ in range(3):
            await checkpoint()
        return start + "!"

    async def child(number: int) -> int:
        log.append(f"child {number}")
        await checkpoint()
        return number

    async def spawns(start: str, ctx: ActorContext) -> Any:
        handle = ctx.spawn(child, number=7)
        log.append("spawned")
        return [await handle, *await ctx.map(child, range(3)), await ctx.call(child, number=8)]

    async def fails(start: str, ctx: ActorContext) -> str:
        if ctx.attempt == 1:
            raise ValueError(start)
        return "better"

    def thread(start: str) -> str:
        return start.upper()

    async def inner_first(start: str) -> str:
        return start

    async def inner_last(inner_first: str) -> str:
        await checkpoint()
        return inner_first * 2

    async def back(waits: str, spawns: Any, fails: str, thread: str, held: str, ctx: ActorContext) -> Any:
        return Goto("waits") if not ctx.round else [waits, spawns, fails, thread, held]

    async def forever(start: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("forever ended")

    async def end(back: Any) -> End:
        return End(back)

    held: Any = Conductor([inner_first, inner_last], name="held")
    again = Actor(name="fails", call=fails, retries=1, backoff=0)
    return Conductor([start, waits, spawns, again, thread, held, back, forever, end])


EXPECTED = ["goal!", [7, 0, 1, 2, 8], "better", "GOAL", "goalgoal"]


def loops() -> dict[str, Any]:
    found: dict[str, Any] = {"plain": asyncio.new_event_loop}

    def debugging() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.set_debug(True)
        return loop

    def eager() -> asyncio.AbstractEventLoop:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        if factory is None:
            pytest.skip("Python 3.12 has it")
        loop = asyncio.new_event_loop()
        loop.set_task_factory(factory)
        return loop

    def fast() -> asyncio.AbstractEventLoop:
        return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]

    return {**found, "debug": debugging, "eager": eager, "uvloop": fast}


every_loop = pytest.mark.parametrize("loop", loops().values(), ids=loops())
in_time_or_not = pytest.mark.parametrize("in_time", [False, True], ids=["", "in time"])


def on(loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    gc.collect()


def around(*, in_time: bool) -> Any:
    return anyio.fail_after(LONG) if in_time else nullcontext()


@every_loop
@in_time_or_not
def test_a_run_is_the_same_on_every_loop(
    loop: Any, caplog: pytest.LogCaptureFixture, *, in_time: bool
) -> None:
    log: list[str] = []

    async def main() -> None:
        before = asyncio.all_tasks()
        with around(in_time=in_time):
            result = await everything(log).run("goal")
        assert EXPECTED == result["final_output"]
        assert before == asyncio.all_tasks()

    on(loop, main)

    assert "forever ended" == log[-1]
    assert log.index("spawned") < log.index("child 7")  # nothing begins before its spawner waits
    assert [] == [each for each in caplog.records if each.levelname == "ERROR"]


@every_loop
def test_a_stream_is_the_same_on_every_loop(loop: Any) -> None:
    async def main() -> None:
        async with GraphOrchestrator(everything([])).run_stream("goal") as stream:
            seqs = [event["seq"] async for event in stream]
            result = await stream.result()
        assert list(range(1, len(seqs) + 1)) == seqs
        assert EXPECTED == result["final_output"]

    on(loop, main)


@every_loop
def test_a_stream_that_is_left_ends_on_every_loop(loop: Any) -> None:
    log: list[str] = []

    async def main() -> None:
        before = asyncio.all_tasks()
        async with GraphOrchestrator(everything(log)).run_stream("goal") as stream:
            async for event in stream:
                if event["type"] == "agent_complete" and event["agent"] == "spawns":
                    break
        assert before == asyncio.all_tasks()

    on(loop, main)

    assert ["forever ended"] == [each for each in log if each.startswith("forever")]


# A listener that raises, which it must not


def broken_ones(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [one for each in error.exceptions for one in broken_ones(each)]
    return [error]


@pytest.mark.anyio
@in_time_or_not
async def test_a_listener_that_raises_ends_the_run_wherever_that_is(*, in_time: bool) -> None:
    events: list[Any] = []
    await GraphOrchestrator(everything([])).prepare("goal").execute(events.append)

    for at in range(len(events)):
        log: list[str] = []
        heard: list[Any] = []

        def listen(event: Any, at: int = at, heard: list[Any] = heard) -> None:
            heard.append(event)
            if len(heard) == at + 1:
                raise Broken(at)

        with around(in_time=in_time), pytest.raises((Broken, ExceptionGroup)) as caught:
            await GraphOrchestrator(everything(log)).prepare("goal").execute(listen)

        assert any(isinstance(each, Broken) for each in broken_ones(caught.value))
        begun = [each["agent"] for each in heard[:at] if each["type"] == "agent_start"]
        assert ("forever" in begun) == ("forever ended" in log)


# Tasks that somebody cancels before their first step


async def ended(call: Callable[[], Coroutine[Any, Any, Any]]) -> type[BaseException] | None:
    """Return what a task raises, before which nobody waits for ever."""
    caller = asyncio.create_task(call())
    done, _ = await asyncio.wait([caller], timeout=FIVE)
    assert {caller} == done
    error = caller.exception()
    return None if error is None else type(error)


unbegun = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # anyio's groups leave them so


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@in_time_or_not
@unbegun
async def test_a_spawned_task_that_is_cancelled_before_it_begins_holds_nobody_up(
    anyio_backend: str, *, in_time: bool
) -> None:
    async def child() -> None:
        await anyio.sleep_forever()

    async def plan(ctx: ActorContext) -> None:
        before = asyncio.all_tasks()
        handle = ctx.spawn(child)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await handle

    async def call() -> None:
        with around(in_time=in_time):
            await GraphOrchestrator(Conductor([plan])).prepare("goal").execute()

    assert ActorError is await ended(call)
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@in_time_or_not
@unbegun
async def test_a_worker_that_is_cancelled_before_it_begins_fails_the_run(
    anyio_backend: str, *, in_time: bool
) -> None:
    async def first() -> None: ...

    async def cancel(before: set[asyncio.Task[Any]]) -> None:
        me = asyncio.current_task()
        for _ in range(20):
            new = asyncio.all_tasks() - before - {me}
            if [task.cancel() for task in new]:
                return
            await asyncio.sleep(0)

    async def call() -> None:
        canceller = asyncio.create_task(cancel(asyncio.all_tasks()))
        with around(in_time=in_time):
            await GraphOrchestrator(Conductor([first])).prepare("goal").execute()
        await canceller

    assert ActorError is await ended(call)
    gc.collect()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("passes", range(24))
async def test_a_loop_that_cancels_all_tasks_as_it_ends_is_not_held_up_whenever_that_is(
    anyio_backend: str, passes: int
) -> None:
    """As `asyncio.run` does with what its main function has left running."""
    log: list[str] = []
    before = asyncio.all_tasks()

    async def call() -> None:
        await everything(log).run("goal")

    async def stream() -> None:
        stream = GraphOrchestrator(everything(log)).run_stream("goal")
        _ = [event async for event in stream]

    mine = [asyncio.create_task(call()), asyncio.create_task(stream())]
    for _ in range(passes):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    done, _ = await asyncio.wait(mine, timeout=FIVE)

    assert set(mine) == done
    await asyncio.wait([task for task in asyncio.all_tasks() if task not in before] or mine, timeout=FIVE)
    assert before == asyncio.all_tasks()


# What actors see of what is around


@pytest.mark.anyio
@in_time_or_not
async def test_actors_see_the_deadline_that_is_around(*, in_time: bool) -> None:
    async def first() -> float:
        return anyio.current_effective_deadline()

    async def second(first: float) -> float:
        await checkpoint()
        return anyio.current_effective_deadline()

    async def third(second: float, ctx: ActorContext) -> list[float]:
        async def child() -> float:
            await checkpoint()
            return anyio.current_effective_deadline()

        return [await ctx.call(child), await ctx.spawn(child)]

    inner = Conductor([first, second, third], name="inner")
    with around(in_time=in_time):
        deadline = anyio.current_effective_deadline()
        result = await Conductor([first, second, third, inner]).run("goal")

    assert [deadline, deadline, [deadline] * 2, [deadline] * 2] == list(result["actor_outputs"].values())


@pytest.mark.anyio
async def test_a_deadline_within_reaches_what_is_within_and_no_others() -> None:
    """An actor that gives what it calls some seconds only, and a conductor that has some."""

    async def late() -> None:
        await anyio.sleep_forever()

    async def waits(ctx: ActorContext) -> str:
        with anyio.move_on_after(0.01) as scope:
            await ctx.call(late)
        return f"called {scope.cancelled_caught}"

    async def spawns(ctx: ActorContext) -> str:
        with anyio.move_on_after(0.01) as scope:
            await ctx.call(Conductor([late], name="held"))
        return f"held {scope.cancelled_caught}"

    async def patient() -> float:
        for _ in range(3):
            await anyio.sleep(0.01)
        return anyio.current_effective_deadline()

    result = await Conductor([waits, spawns, patient]).run("goal")

    assert {"waits": "called True", "spawns": "held True", "patient": float("inf")} == result["actor_outputs"]


# Variables

seen = contextvars.ContextVar("seen", default="nothing")


@pytest.mark.anyio
@in_time_or_not
@pytest.mark.parametrize("way", ["fast", "plain", "with ctx", "waits", "prompt", "thread", "stream", "held"])
async def test_each_actor_sees_the_variables_of_the_start_and_sets_its_own(
    way: str, *, in_time: bool
) -> None:
    """Five of a kind, one after the other and side by side; each reads and sets the variable."""
    reads: list[str] = []

    def touch() -> None:
        reads.append(seen.get())
        seen.set("an actor's")
        assert "an actor's" == seen.get()

    actors = [_toucher(way, name, parents, touch) for name, parents in FIVE_NODES.items()]
    token = seen.set("the caller's")
    try:
        run = GraphOrchestrator(Conductor(actors)).prepare("goal")
        with around(in_time=in_time):
            await run.execute()
        assert "the caller's" == seen.get()
    finally:
        seen.reset(token)

    assert {"the caller's"} == set(reads)
    assert len(reads) >= 5


FIVE_NODES: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ("d",)}


def _toucher(way: str, name: str, parents: tuple[str, ...], touch: Callable[[], None]) -> Actor[..., Any]:
    """Return an actor that touches the variable in this way."""

    def check() -> None:
        assert "an actor's" == seen.get()

    def prompt() -> str:
        touch()
        return "?"

    async def ask(_: str) -> str:
        check()  # a prompt is a part of the actor
        return "!"

    if way == "prompt":
        return Actor(name=name, prompt=prompt, call=ask, depends_on=parents)
    call = _calls(touch, check, is_first=not parents)[way]
    return Actor(name=name, call=call, depends_on=parents)


def _calls(touch: Callable[[], None], check: Callable[[], None], *, is_first: bool) -> dict[str, Any]:
    async def fast() -> None:
        touch()

    async def plain(**_: Any) -> None:
        touch()

    async def with_ctx(ctx: ActorContext) -> None:
        touch()
        if not is_first:
            await ctx.call(fast)
            await ctx.spawn(fast)
        check()

    async def waits() -> None:
        await checkpoint()
        touch()
        await checkpoint()
        check()

    def thread() -> None:
        touch()

    async def stream() -> AsyncIterator[str]:
        touch()
        yield "one"
        check()

    held = Conductor([fast, waits], name="held")
    called = {"fast": fast, "plain": plain, "with ctx": with_ctx, "waits": waits, "thread": thread}
    return {**called, "stream": stream, "held": held}
