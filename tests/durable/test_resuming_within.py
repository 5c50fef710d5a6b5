"""What within a run is kept for its next claim: steps, what is spawned, rounds, orders and graphs within."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty import Conductor, Goto, actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jotty import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Counted, Store

pytestmark = pytest.mark.anyio


# Steps within an actor


async def test_a_step_may_call_anything(store: Store) -> None:
    async def fetch(text: str) -> str:
        return text

    class Fetcher:
        async def __call__(self, text: str) -> str:
            return text

    @actor
    async def ann(ctx: ActorContext) -> Any:
        return [
            await ctx.step("class", str, 5),
            await ctx.step("lambda", lambda: fetch("lambda")),
            await ctx.step("partial", partial(fetch, "partial")),
            await ctx.step("object", Fetcher(), "object"),
            await ctx.step("method", "METHOD".lower),
        ]

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()

    assert await store.output(task_id) == ["5", "lambda", "partial", "object", "method"]


async def test_a_step_runs_once_and_again_only_with_other_arguments(store: Store) -> None:
    calls: list[str] = []

    async def paid(text: str) -> str:
        calls.append(text)
        return text.upper()

    def sync(text: str) -> tuple[str, ...]:
        calls.append(text)
        return (text, "b")

    async def broken() -> None:
        calls.append("broken")
        raise ValueError("no")

    def actors(suffix: str, act: Callable[[], Any] | None) -> list[Any]:
        @actor(version=suffix)
        async def ann(ctx: ActorContext) -> Any:
            found = [await ctx.step("same", paid, "same"), await ctx.step("other", paid, suffix)]
            found.append(await ctx.step("sync", sync, "sync") == ("sync", "b"))
            with pytest.raises(ValueError, match="no"):
                await ctx.step("broken", broken)
            with pytest.raises(ValueError, match="has a step"):
                await ctx.step("same", paid, "same")
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return found

        return [ann]

    first = store.process(*actors("a", store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert calls == ["same", "a", "sync", "broken"]
    calls.clear()
    await store.process(*actors("b", None)).work()

    assert calls == ["b", "broken"]
    assert await store.output(task_id) == ["SAME", "B", True]


async def test_a_step_is_kept_when_its_actor_is_tried_again_and_taken_anew_in_each_round(
    store: Store,
) -> None:
    calls: list[int] = []

    async def paid(number: int) -> int:
        calls.append(number)
        return number

    @actor(retries=1, backoff=1)
    async def ann(ctx: ActorContext) -> Any:
        found = await ctx.step("paid", paid, 7)
        if ctx.attempt == 1:
            raise ConnectionError("again")
        return Goto("ann") if ctx.round < 2 else found

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()

    assert calls == [7, 7, 7]
    assert await store.output(task_id) == 7


async def test_a_step_is_kept_though_its_actor_is_cancelled_while_it_is_being_written(
    store: Store, clock: VirtualClock
) -> None:
    calls: list[int] = []

    async def paid(number: int) -> int:
        await clock.sleep(number)
        calls.append(number)
        return number

    @actor
    async def item(number: int, ctx: ActorContext) -> int:
        return int(await ctx.step("paid", paid, number))

    @actor(retries=1, backoff=1)
    async def ann(ctx: ActorContext) -> Any:
        handle = ctx.spawn(item, number=2)
        await clock.sleep(2)
        if ctx.attempt == 1:
            raise ConnectionError("again")
        return await handle

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()

    steps = [entry for entry in await store.journal(task_id, "step") if "key" in entry.data]
    assert len(calls) == len(steps) == 1


# What is spawned


@pytest.mark.parametrize("seed", range(5))
async def test_what_was_spawned_is_known_whatever_the_order_of_the_calls(
    store: Store, clock: VirtualClock, seed: int
) -> None:
    calls: list[int] = []

    async def item(number: int) -> int:
        await clock.sleep(number)
        calls.append(number)
        return number * number

    def actors(random: Random, act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def ann(ctx: ActorContext) -> Any:
            numbers = list(range(6))
            random.shuffle(numbers)
            handles = {number: ctx.spawn(item, number=number) for number in numbers}
            if act is not None:
                clock.call_later(3.5, act)
            return [await handles[number] for number in range(6)]

        return [ann]

    first = store.process(*actors(Random(seed), store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert calls == [0, 1, 2, 3]
    await store.process(*actors(Random(seed + 100), None)).work()

    assert sorted(calls) == [0, 1, 2, 3, 4, 5]
    assert await store.output(task_id) == [0, 1, 4, 9, 16, 25]


async def test_something_spawned_runs_again_if_its_inputs_or_its_version_changed(store: Store) -> None:
    calls: list[str] = []

    def actors(text: str, version: int, act: Callable[[], Any] | None) -> list[Any]:
        async def item(text: str) -> str:
            calls.append(f"item {text}")
            return text

        @actor(version=version)
        async def versioned() -> str:
            calls.append("versioned")
            return "v"

        @actor
        async def ann(ctx: ActorContext) -> Any:
            found = [
                await ctx.call(item, key="same", text="same"),
                await ctx.call(item, key="other", text=text),
                await ctx.call(versioned),
            ]
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return found

        return [ann]

    first = store.process(*actors("a", 1, store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    calls.clear()
    await store.process(*actors("b", 2, None)).work()

    assert calls == ["item b", "versioned"]
    assert await store.output(task_id) == ["same", "b", "v"]


async def test_a_spawner_that_is_tried_again_finds_what_was_finished(store: Store) -> None:
    calls: list[int] = []

    async def item(number: int) -> int:
        calls.append(number)
        return number

    @actor(retries=2, backoff=1)
    async def ann(ctx: ActorContext) -> Any:
        found = await ctx.map(item, range(3))
        if ctx.attempt < 3:
            raise ConnectionError("again")
        return found

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()

    assert sorted(calls) == [0, 1, 2]
    assert await store.output(task_id) == [0, 1, 2]


async def test_another_round_spawns_everything_anew(store: Store) -> None:
    calls: list[int] = []

    async def item(number: int) -> int:
        calls.append(number)
        return number

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def ann(ctx: ActorContext) -> Any:
            found = await ctx.map(item, range(2))
            if ctx.round == 0:
                return Goto("ann")
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return found

        return [ann]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert sorted(calls) == [0, 0, 1, 1]
    await store.process(*actors(None)).work()

    assert sorted(calls) == [0, 0, 1, 1]
    assert await store.output(task_id) == [0, 1]


# Other ways to run


async def test_a_static_order_goes_on_where_it_was(store: Store, counted: Counted) -> None:
    order = ["ann", "bob", "ann", "cem"]

    def process(act: Callable[[], Any] | None) -> Any:
        cem = counted.made("cem", "ann", "bob", act=act)
        return store.process(counted.made("ann"), counted.made("bob", "ann"), cem, mode="static", order=order)

    first = process(store.die)
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert counted.taken() == ["ann", "bob", "ann", "cem"]
    await process(None).work()

    assert counted.taken() == ["cem"]
    assert await store.output(task_id) == "cem(ann(),bob(ann()))"


async def test_a_graph_within_the_graph_goes_on_where_it_was(store: Store, counted: Counted) -> None:
    def process(act: Callable[[], Any] | None) -> Any:
        inner = Conductor(
            [counted.made("ivo"), counted.made("jan", "ivo"), counted.made("kim", "jan", act=act)],
            name="inner",
        )
        return store.process(counted.made("ann"), inner, counted.made("bob", "inner"))

    first = process(store.die)
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    counted.taken()
    await process(None).work()

    assert counted.taken() == ["kim", "bob"]
    assert (await store.output(task_id))["bob"] == "bob(kim(jan(ivo())))"


async def test_a_graph_within_the_graph_that_had_ended_is_not_begun_again(
    store: Store, clock: VirtualClock, counted: Counted
) -> None:
    class Slow:
        """Takes its time to close: by then, what used it is in the journal."""

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None:
            await clock.sleep(1)
            if not is_second:
                store.die()

    is_second = False

    def process() -> Any:
        inner = Conductor(
            [counted.made("ivo"), counted.made("jan", "ivo")], resources={"slow": Slow}, name="inner"
        )
        return store.process(inner, counted.made("bob", "inner"))

    first = process()
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert counted.taken() == ["ivo", "jan"]
    is_second = True
    async with clock.autojump():
        with clock.timeout(600):
            await process().work()

    assert counted.taken() == ["bob"]
    assert await store.output(task_id) == "bob(jan(ivo()))"


async def test_an_actor_that_streams_begins_anew_and_what_it_had_told_is_told_to_be_void(
    store: Store, clock: VirtualClock
) -> None:
    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def talk(goal: str) -> AsyncIterator[str]:
            for number in range(3):
                yield f"{number} "
                await clock.sleep(1)
                if act is not None and number == 1:
                    act()

        return [talk]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    assert await store.output(task_id) == "0 1 2 "
    events = [(event["type"], event.get("text")) for event in await store.events(task_id)]
    assert events[1:-1] == [
        ("agent_start", None),
        *(("text_chunk", "0 "), ("text_chunk", "1 ")),
        ("agent_cancelled", None),
        ("agent_start", None),
        *(("text_chunk", "0 "), ("text_chunk", "1 "), ("text_chunk", "2 ")),
        ("agent_complete", None),
    ]


async def test_an_actor_in_a_thread_is_not_called_again(store: Store, counted: Counted) -> None:
    calls: list[str] = []

    @actor
    def threaded(goal: str) -> str:
        calls.append(goal)
        return goal

    def process(act: Callable[[], Any] | None) -> Any:
        return store.process(threaded, counted.made("bob", "threaded", act=act))

    first = process(store.die)
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await process(None).work()

    assert calls == ["g"]
    assert await store.output(task_id) == "bob(g)"


async def test_a_loop_goes_on_in_its_round_with_what_it_was_given_and_its_own_last_output(
    store: Store,
) -> None:
    seen: list[Any] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def draft(ctx: ActorContext, feedback: str = "", draft: str = "") -> str:
            seen.append((ctx.round, feedback, draft))
            if ctx.round == 2 and act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return f"{draft}{ctx.round}"

        @actor
        async def judge(draft: str, ctx: ActorContext) -> Any:
            return draft if ctx.round == 3 else Goto("draft", feedback=f"more than {draft}")

        return [draft, judge]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    seen.clear()
    await store.process(*actors(None)).work()

    assert seen == [(2, "more than 01", "01"), (3, "more than 012", "012")]
    assert await store.output(task_id) == "0123"


async def test_a_failure_that_was_continued_from_is_not_tried_again(store: Store, counted: Counted) -> None:
    def broken() -> Any:
        raise ValueError("no")

    def process(act: Callable[[], Any] | None) -> Any:
        bad = counted.made("bad", act=broken, on_error="continue")
        return store.process(
            bad, counted.made("ann"), counted.made("bob", "ann", act=act, depends_on=["bad"])
        )

    first = process(store.die)
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert counted.taken() == ["bad", "ann", "bob"]
    await process(None).work()

    assert counted.taken() == ["bob"]
    result = await store.queue.result(task_id)
    assert [(error["agent"], error["message"]) for error in result["errors"]] == [("bad", "no")]
    assert not result["success"]


@attrs.frozen
class Fact:
    text: str


async def test_several_outputs_of_a_graph_within_come_back_as_they_were(store: Store) -> None:
    async def one() -> Fact:
        return Fact("one")

    async def two() -> tuple[str, ...]:
        return ("two",)

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def use(inner: dict[str, Any]) -> str:
            if act is not None:
                act()
                await anyio.lowlevel.checkpoint()
            return repr(inner)

        return [actor(Conductor([actor(one), actor(two)], name="inner")), use]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    assert await store.output(task_id) == repr({"one": Fact("one"), "two": ("two",)})
    starts = [event["agent"] for event in await store.events(task_id, "agent_start")]
    assert starts == ["inner", "inner/one", "inner/two", "use", "use"]
