"""A run that goes on in another claim: what it keeps, what it does again, and what it tells of that."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

import anyio
import attrs
import pytest

from jotty import Conductor, End, Goto, Limit, Resource, TaskStatus, actor
from jotty.errors import TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Counted, Store

pytestmark = pytest.mark.anyio


# What is done, and by whom it is done again


async def test_after_a_crash_only_what_was_not_finished_runs(store: Store, counted: Counted) -> None:
    first = store.process(
        counted.made("ann"), counted.made("bob", "ann"), counted.made("cem", "bob", act=store.die)
    )
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    assert counted.taken() == ["ann", "bob", "cem"]

    await store.process(counted.made("ann"), counted.made("bob", "ann"), counted.made("cem", "bob")).work()

    assert counted.taken() == ["cem"]
    assert await store.output(task_id) == "cem(bob(ann()))"
    task = await store.task(task_id)
    assert (task.lease, task.attempt) == (2, 2)
    assert [(event["type"], event["agent"]) for event in await store.events(task_id) if "agent" in event] == [
        *(
            ("agent_start", "ann"),
            ("agent_complete", "ann"),
            ("agent_start", "bob"),
            ("agent_complete", "bob"),
        ),
        *(("agent_start", "cem"), ("agent_cancelled", "cem")),
        *(("agent_start", "cem"), ("agent_complete", "cem")),
    ]


async def test_an_actor_of_another_version_runs_again_with_all_that_descends_from_it(
    store: Store, counted: Counted
) -> None:
    def actors(version: int, act: Callable[[], Any] | None = None) -> list[Any]:
        return [
            counted.made("ann"),
            counted.made("bob", "ann", version=version),
            counted.made("cem", "bob"),
            counted.made("dan", "ann"),
            counted.made("eve", "cem", "dan", act=act),
        ]

    first = store.process(*actors(1, store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    counted.taken()
    await store.process(*actors(2)).work()

    assert counted.taken() == ["bob", "cem", "eve"]  # though what bob gives is the same
    assert await store.output(task_id) == "eve(cem(bob(ann())),dan(ann()))"


async def test_an_actor_runs_again_if_what_it_is_given_has_changed(store: Store, counted: Counted) -> None:
    first = store.process(
        counted.made("ann"), counted.made("bob", "ann"), counted.made("cem", "bob", act=store.die)
    )
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    counted.taken()
    second = store.process(
        counted.made("ann"),
        counted.made("ada"),
        counted.made("bob", "ann", bind={"ann": "ada"}),
        counted.made("cem", "bob"),
    )
    await second.work()

    assert sorted(counted.taken()) == ["ada", "bob", "cem"]
    assert await store.output(task_id) == {"ann": "ann()", "cem": "cem(bob(ada()))"}


async def test_steps_of_actors_that_are_gone_are_ignored_and_new_actors_run(
    store: Store, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    first = store.process(counted.made("old"), counted.made("ann"), counted.made("bob", "ann", act=store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    counted.taken()
    with caplog.at_level(logging.WARNING, "jotty"):
        await store.process(
            counted.made("ann"), counted.made("bob", "ann"), counted.made("new", "ann")
        ).work()

    assert sorted(counted.taken()) == ["bob", "new"]
    assert await store.output(task_id) == {"bob": "bob(ann())", "new": "new(ann())"}
    assert "old" in caplog.text
    assert "began with other actors" in caplog.text


async def test_without_a_change_nothing_is_said_of_one(
    store: Store, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    first = store.process(counted.made("ann"), counted.made("bob", "ann", act=store.die))
    await first.flow.enqueue_task("g")
    await first.work()
    caplog.clear()
    await store.process(counted.made("ann"), counted.made("bob", "ann")).work()

    assert "actors" not in caplog.text


async def test_a_changed_workflow_may_leave_the_run_to_workers_that_have_the_old_one(
    store: Store, counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    first = store.process(counted.made("ann"), counted.made("bob", "ann", act=store.die))
    task_id = await first.flow.enqueue_task("g", max_attempts=2)
    await first.work()
    counted.taken()
    changed = store.process(counted.made("ann", version=2), counted.made("bob", "ann"), on_change="raise")
    with store.clock.timeout(60), caplog.at_level(logging.WARNING, "jotty"):
        await changed.work()

    assert counted.taken() == []
    assert (await store.task(task_id)).status is TaskStatus.PENDING
    assert "it began with other actors" in caplog.text

    await store.clock.advance(10)  # it is left for a while to those who can run it
    await store.process(counted.made("ann"), counted.made("bob", "ann"), on_change="raise").work()

    assert counted.taken() == ["bob"]
    assert await store.output(task_id) == "bob(ann())"


# What stays the same


@attrs.frozen
class Note:
    text: str
    at: datetime


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Page:
    notes: list[Note]
    size: tuple[int, int]
    colour: Colour


PAGE = Page([Note("hello", datetime(2026, 1, 2, tzinfo=UTC))], (3, 4), Colour.RED)


@pytest.mark.parametrize("crash", [True, False])
async def test_who_follows_gets_the_same_value_on_the_first_run_as_after_a_restart(
    store: Store, *, crash: bool
) -> None:
    seen: list[Any] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def page(goal: str) -> Page:
            return PAGE

        @actor
        async def numbers(ctx: ActorContext) -> dict[str, tuple[int, ...]]:
            return {"a": (1, 2)}

        @actor
        async def plain(ctx: ActorContext) -> Any:
            return [1, 2.0, None, {"a": -0.0}]

        @actor
        async def use(page: Page, numbers: Any, plain: Any) -> str:
            seen.append((page, numbers, plain))
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return "ok"

        return [page, numbers, plain, use]

    first = store.process(*actors(store.die if crash else None))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    assert seen == [(PAGE, {"a": (1, 2)}, [1, 2.0, None, {"a": -0.0}])] * (1 + crash)
    assert await store.output(task_id) == "ok"


async def test_a_pydantic_model_is_the_same_after_a_restart(store: Store) -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("Model", text=(str, ...), number=(int, 1))
    seen: list[Any] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        async def made(goal: str) -> Any:
            return model(text=goal)

        made.__annotations__["return"] = model

        @actor
        async def use(made: Any) -> str:
            seen.append(made)
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return "ok"

        return [made, use]

    first = store.process(*actors(store.die))
    await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    assert seen == [model(text="g")] * 2


@pytest.mark.parametrize("where", ["actor", "spawned", "step", "goto", "end", "inner"])
async def test_what_is_no_json_fails_the_run_at_once_and_says_where(store: Store, where: str) -> None:
    calls: list[str] = []

    @actor(retries=2)
    async def odd(ctx: ActorContext, hint: Any = None) -> Any:
        calls.append("odd")
        if where == "spawned":
            return await ctx.call(bad)
        if where == "step":
            return await ctx.step("bad", bad)
        if where == "goto":
            return Goto("odd", hint={1})
        return End({1}) if where == "end" else {1}

    async def bad() -> Any:
        calls.append("bad")
        return {1}

    process = store.process(Conductor([odd], name="inner") if where == "inner" else odd)
    task_id = await process.flow.enqueue_task("g", max_attempts=5)
    await process.work()

    with pytest.raises(TaskFailed) as failed:
        await process.flow.result(task_id)
    assert failed.value.error["type"] == "PayloadError"
    assert ("bad" if where == "spawned" else "odd") in failed.value.error["message"]
    assert "set" in failed.value.error["message"]
    assert len(calls) == (2 if where in {"spawned", "step"} else 1)


async def test_supplied_outputs_stay_supplied(store: Store, counted: Counted) -> None:
    first = store.process(counted.made("ann"), counted.made("bob", "ann", act=store.die))
    task_id = await first.flow.enqueue_task("g", outputs={"ann": "given"})
    await first.work()
    await store.process(counted.made("ann"), counted.made("bob", "ann")).work()

    assert counted.taken() == ["bob", "bob"]
    assert await store.output(task_id) == "bob(given)"


async def test_resources_are_opened_by_each_worker_and_a_change_of_theirs_repeats_nothing(
    store: Store,
) -> None:
    opened: list[str] = []

    class Opened:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __aenter__(self) -> Self:
            opened.append(self.name)
            return self

        async def __aexit__(self, *_: object) -> None: ...

    calls: list[str] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def read(http: Opened) -> str:
            calls.append("read")
            return http.name

        @actor
        async def write(read: str, http: Opened, run: Opened) -> str:
            calls.append("write")
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return f"{read} {http.name} {run.name}"

        return [read, write]

    def resources(name: str) -> dict[str, Any]:
        return {"http": lambda: Opened(name), "run": Resource(lambda: Opened(f"run {name}"), scope="run")}

    first = store.process(*actors(store.die), resources=resources("one"))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None), resources=resources("two")).work()

    assert opened == ["one", "run one", "two", "run two"]
    assert calls == ["read", "write", "write"]
    assert await store.output(task_id) == "one two run two"


async def test_limits_hold_for_all_runs_of_a_worker(store: Store, clock: VirtualClock) -> None:
    most = at_work = 0

    @actor(limit="few")
    async def item(number: int) -> int:
        nonlocal most, at_work
        at_work += 1
        most = max(most, at_work)
        await clock.sleep(1)
        at_work -= 1
        return number

    @actor
    async def all_items(ctx: ActorContext) -> list[int]:
        return await ctx.map(item, range(5))

    process = store.process(all_items, limits={"few": Limit(concurrent=2)})
    ids = [await process.flow.enqueue_task(f"g{number}") for number in range(3)]
    await process.work(max_concurrent=3)

    assert most == 2
    assert [await store.output(each) for each in ids] == [[0, 1, 2, 3, 4]] * 3


@pytest.mark.parametrize("dies_in", range(6))
async def test_a_loop_sees_the_same_spent_after_a_crash(store: Store, dies_in: int) -> None:
    seen: list[tuple[int, float]] = []

    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def think(ctx: ActorContext) -> Any:
            seen.append((ctx.round, ctx.spent["cost"]))
            if act is not None and ctx.round == dies_in:
                act()
                await anyio.lowlevel.checkpoint()
            if ctx.spent["cost"] >= 2.5:
                return ctx.spent["cost"]
            ctx.usage(model="m", cost=0.5)
            return Goto("think")

        return [think]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    assert await store.output(task_id) == 2.5
    assert sorted(set(seen)) == [(number, number / 2) for number in range(6)]
    assert len(seen) == 7


async def test_usage_is_the_sum_over_all_claims(store: Store) -> None:
    def actors(act: Callable[[], Any] | None) -> list[Any]:
        @actor
        async def ann(ctx: ActorContext) -> str:
            ctx.usage(model="m", input_tokens=10, output_tokens=1, cost=0.5)
            return "ann"

        @actor
        async def bob(ann: str, ctx: ActorContext) -> str:
            ctx.usage(model="m", input_tokens=100)
            await ctx.step("a", dict)
            if act is not None:
                act()
            await anyio.lowlevel.checkpoint()
            return "bob"

        return [ann, bob]

    first = store.process(*actors(store.die))
    task_id = await first.flow.enqueue_task("g")
    await first.work()
    await store.process(*actors(None)).work()

    usage = (await store.queue.result(task_id))["metadata"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost"]) == (210, 1, 0.5)


async def test_iterations_count_over_all_claims_and_from_0_again_after_a_retry(
    store: Store, counted: Counted
) -> None:
    task_id = ""
    for _ in range(2):
        dying = store.process(counted.made("ann"), counted.made("bob", "ann", act=store.die))
        task_id = task_id or await dying.flow.enqueue_task("g", max_iterations=3, max_attempts=9)
        await dying.work()
    assert counted.taken() == ["ann", "bob", "bob"]
    last = store.process(counted.made("ann"), counted.made("bob", "ann"))
    await last.work()

    with pytest.raises(TaskFailed) as failed:
        await last.flow.result(task_id)
    assert failed.value.error["type"] == "MaxIterationsExceeded"
    assert counted.taken() == []

    await store.queue.retry(task_id)
    await last.work()

    assert counted.taken() == ["bob"]
    assert await store.output(task_id) == "bob(ann())"
    assert (await store.queue.result(task_id))["metadata"]["iterations"] == 1


async def test_a_failed_attempt_and_a_retry_by_hand_keep_what_was_finished(
    store: Store, counted: Counted
) -> None:
    is_broken = True

    def act() -> Any:
        if is_broken:
            raise ValueError("not yet")
        return None

    process = store.process(counted.made("ann"), counted.made("bob", "ann", act=act))
    task_id = await process.flow.enqueue_task("g", max_attempts=2)
    await process.work()
    assert counted.taken() == ["ann", "bob", "bob"]
    is_broken = False
    await store.queue.retry(task_id)
    await process.work()

    assert counted.taken() == ["bob"]
    assert await store.output(task_id) == "bob(ann())"
    events = await store.events(task_id)
    assert [event["type"] for event in events].count("workflow_start") == 1
    assert events[-1]["type"] == "workflow_complete"
    assert [event["type"] for event in events].count("workflow_complete") == 1


async def test_a_stopped_worker_gives_its_run_back_and_the_next_one_goes_on(
    store: Store, clock: VirtualClock, counted: Counted
) -> None:
    steps: list[str] = []

    @actor
    async def bob(ann: str, ctx: ActorContext) -> str:
        await ctx.step("paid", steps.append, "paid")
        await clock.sleep(100)
        return f"bob({ann})"

    process = store.process(counted.made("ann"), bob)
    task_id = await process.flow.enqueue_task("g")
    clock.call_later(30, lambda: process.flow.stop_processing(grace=0))
    await process.work()

    task = await store.task(task_id)
    assert (task.status, task.attempt) == (TaskStatus.PENDING, 0)
    await store.process(counted.made("ann"), bob).work()

    assert counted.taken() == ["ann"]
    assert steps == ["paid"]
    assert await store.output(task_id) == "bob(ann())"
    kinds = [(event["type"], event["agent"]) for event in await store.events(task_id) if "agent" in event]
    assert kinds[2:] == [
        *(("agent_start", "bob"), ("agent_cancelled", "bob")),
        *(("agent_start", "bob"), ("agent_complete", "bob")),
    ]


async def test_what_was_finished_just_before_the_grace_was_over_is_kept(
    store: Store, clock: VirtualClock
) -> None:
    calls: list[str] = []

    @actor
    async def quick(goal: str) -> str:
        calls.append("quick")
        await clock.sleep(29.99)
        return "quick"

    @actor
    async def slow(goal: str) -> str:
        calls.append("slow")
        await clock.sleep(100)
        return "slow"

    process = store.process(quick, slow)
    await process.flow.enqueue_task("g")
    clock.call_later(30, lambda: process.flow.stop_processing(grace=0))
    await process.work()
    await store.process(quick, slow).work()

    assert calls == ["quick", "slow", "slow"]
