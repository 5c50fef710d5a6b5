"""Runs that wait for a person: parked without a worker, woken by the answer, and nothing done twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from jotty import Conductor, Goto, TaskQueue, TaskStatus, WorkflowMode, actor
from jotty.errors import InvalidState, PayloadError, TaskCancelled, TaskFailed
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from pathlib import Path

    from jotty import ActorContext
    from jotty.testing import VirtualClock

    from .conftest import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def approval(calls: list[str]) -> list[Any]:
    """A draft, a person's word on it, and what follows."""

    @actor
    async def draft(goal: str) -> str:
        calls.append("draft")
        return f"draft of {goal}"

    @actor
    async def review(draft: str, ctx: ActorContext) -> str:
        calls.append("review")
        await ctx.step("paid", calls.append, "paid")
        answer = await ctx.ask(f"Is {draft} fine?", key="fine", options=["yes", "no"])
        return f"{draft}: {answer}"

    @actor
    async def publish(review: str) -> str:
        calls.append("publish")
        return f"{review}!"

    return [draft, review, publish]


async def test_a_run_that_waits_is_parked_and_goes_on_with_the_answer(
    store: Store, approval: list[Any], calls: list[str]
) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g", max_attempts=1)
    await process.work()  # which ends, as nothing is left to do

    task = await store.task(task_id)
    assert (task.status, task.attempt, tuple(task.head.awaiting)) == (TaskStatus.BLOCKED, 0, ("fine",))
    assert process.flow.unsettled == ()
    assert calls == ["draft", "review", "paid"]

    await process.flow.answer(task_id, "fine", "yes")
    assert (await store.task(task_id)).status is TaskStatus.PENDING
    await process.work()

    assert calls == ["draft", "review", "paid", "review", "publish"]
    assert await store.output(task_id) == "draft of g: yes!"
    assert (await store.task(task_id)).attempt == 1
    events = [(event["type"], event["agent"]) for event in await store.events(task_id) if "agent" in event]
    assert events == [
        *(("agent_start", "draft"), ("agent_complete", "draft")),
        *(("agent_start", "review"), ("input_required", "review"), ("agent_cancelled", "review")),
        *(("agent_start", "review"), ("agent_complete", "review")),
        *(("agent_start", "publish"), ("agent_complete", "publish")),
    ]
    (asked,) = await store.events(task_id, "input_required")
    assert (asked["key"], asked["question"], asked["options"]) == (
        "fine",
        "Is draft of g fine?",
        ["yes", "no"],
    )


async def test_a_parked_run_takes_no_place_of_others(store: Store, approval: list[Any]) -> None:
    process = store.process(*approval)
    ids = [await process.flow.enqueue_task(f"g{number}") for number in range(3)]
    await process.work(max_concurrent=1)

    assert [(await store.task(each)).status for each in ids] == [TaskStatus.BLOCKED] * 3


async def test_a_parked_run_survives_everyone_and_goes_on_elsewhere(
    store: Store, clock: VirtualClock, approval: list[Any], calls: list[str], tmp_path: Path
) -> None:
    def opened() -> Any:
        backend = SQLiteBackend(tmp_path / "tasks.db", clock=clock)
        return attrs.evolve(store, backend=backend, queue=TaskQueue(backend, clock=clock))

    before = opened()
    process = before.process(*approval)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert (await before.task(task_id)).status is TaskStatus.BLOCKED
    await process.queue.aclose()
    await before.queue.aclose()

    after = opened()
    await after.process(*approval).flow.answer(task_id, "fine", "no")
    process = after.process(*approval)
    await process.work()

    assert calls == ["draft", "review", "paid", "review", "publish"]
    assert await after.output(task_id) == "draft of g: no!"
    await process.queue.aclose()
    await after.queue.aclose()


async def test_an_answer_may_come_before_its_question(
    store: Store, approval: list[Any], calls: list[str]
) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g")
    with pytest.raises(PayloadError, match="the answer to 'fine': it"):
        await process.flow.answer(task_id, "fine", {1})
    await process.flow.answer(task_id, "fine", "yes")
    await process.work()

    assert calls == ["draft", "review", "paid", "publish"]
    assert await store.output(task_id) == "draft of g: yes!"
    assert await store.events(task_id, "input_required") == []


async def test_an_early_answer_that_is_no_option_is_asked_for_again_under_a_key_of_its_own(
    store: Store, approval: list[Any], calls: list[str]
) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g", max_attempts=1)
    await process.flow.answer(task_id, "fine", "maybe")
    await process.work()

    assert tuple((await store.task(task_id)).head.awaiting) == ("fine~2",)
    with pytest.raises(ValueError, match="'perhaps' is no answer"):
        await process.flow.answer(task_id, "fine~2", "perhaps")
    await process.flow.answer(task_id, "fine~2", "no")
    await process.work()

    assert await store.output(task_id) == "draft of g: no!"
    assert [each["key"] for each in await store.events(task_id, "input_required")] == ["fine~2"]
    assert calls.count("paid") == 1


async def test_a_default_that_is_no_option_stands_when_the_actor_runs_again(
    store: Store, clock: VirtualClock
) -> None:
    @actor
    async def ask_twice(ctx: ActorContext) -> Any:
        first = await ctx.ask("?", key="one", options=["yes", "no"], timeout=5, default=None)
        return [first, await ctx.ask("?", key="two")]

    process = store.process(ask_twice)
    task_id = await process.flow.enqueue_task("g")
    async with clock.autojump():
        await process.work()
        await clock.sleep(6)
        await process.work()
        await process.flow.answer(task_id, "two", 2)
        await process.work()

    assert await store.output(task_id) == [None, 2]


async def test_an_answer_while_the_run_is_at_work_before_it_asks_is_not_overlooked(
    store: Store, clock: VirtualClock
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> str:
        await clock.sleep(10)
        await ctx.step("a", dict)  # the journal goes on after the answer
        return str(await ctx.ask("?", key="word", timeout=100, default="nobody"))

    @actor
    async def busy(goal: str) -> None:
        await clock.sleep(1000)

    process = store.process(ann, busy, output="ann")
    task_id = await process.flow.enqueue_task("g")

    async with clock.autojump(), anyio.create_task_group() as group:

        async def answer() -> None:
            await clock.sleep(5)
            await process.flow.answer(task_id, "word", "somebody")

        group.start_soon(answer)
        await process.work()

    assert await store.output(task_id) == "somebody"


async def test_an_answer_between_two_questions_is_not_overlooked(store: Store, clock: VirtualClock) -> None:
    @actor
    async def ann(ctx: ActorContext) -> list[str]:
        found = [await ctx.ask("?", key="one")]
        await clock.sleep(10)
        await ctx.step("a", dict)
        return [*found, await ctx.ask("?", key="two", timeout=100, default="nobody")]

    @actor
    async def busy(goal: str) -> None:
        await clock.sleep(1000)

    process = store.process(ann, busy, output="ann")
    task_id = await process.flow.enqueue_task("g")

    async with clock.autojump(), anyio.create_task_group() as group:

        async def answer() -> None:
            await clock.sleep(5)
            await process.flow.answer(task_id, "one", "first")
            await clock.sleep(5)
            await process.flow.answer(task_id, "two", "second")

        group.start_soon(answer)
        await process.work()

    assert await store.output(task_id) == ["first", "second"]


async def test_a_wrong_answer_is_refused_and_changes_nothing(store: Store, approval: list[Any]) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g")
    await process.work()

    with pytest.raises(ValueError, match="'maybe' is no answer to 'fine'"):
        await process.flow.answer(task_id, "fine", "maybe")
    with pytest.raises(ValueError, match=r"No question waits under the key 'other'.*'fine'"):
        await process.flow.answer(task_id, "other", "no")
    assert (await store.task(task_id)).status is TaskStatus.BLOCKED

    await process.flow.answer(task_id, "fine", "no")
    with pytest.raises(InvalidState, match="has its answer"):
        await process.flow.answer(task_id, "fine", "yes")
    await process.work()
    assert await store.output(task_id) == "draft of g: no!"
    with pytest.raises(InvalidState, match="over"):
        await process.flow.answer(task_id, "more", "yes")


async def test_several_questions_wait_together_and_are_answered_in_any_order(
    store: Store, calls: list[str]
) -> None:
    async def asking(ctx: ActorContext, word: str) -> str:
        calls.append(word)
        return f"{word}={await ctx.ask('?', key=word)}"

    @actor
    async def ann(ctx: ActorContext) -> list[str]:
        return await ctx.map(asking, ["a", "b", "c"])

    process = store.process(ann)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert sorted((await store.task(task_id)).head.awaiting) == ["a", "b", "c"]

    for key in ("c", "a", "b"):
        await process.flow.answer(task_id, key, key.upper())
        calls.clear()
        await process.work()

    assert calls == ["b"]  # the others had their answers, and have finished
    assert await store.output(task_id) == ["a=A", "b=B", "c=C"]
    assert sorted(event["key"] for event in await store.events(task_id, "input_required")) == ["a", "b", "c"]


async def test_an_answer_is_taken_at_once_while_others_are_at_work(
    store: Store, clock: VirtualClock, calls: list[str]
) -> None:
    answered_at: list[int] = []

    @actor
    async def ann(ctx: ActorContext) -> str:
        calls.append("ann")
        found = await ctx.ask("?", key="word")
        answered_at.append(clock.now())
        return str(found)

    @actor
    async def bob(ann: str) -> str:
        calls.append("bob")
        return f"bob({ann})"

    @actor
    async def busy(goal: str) -> str:
        calls.append("busy")
        await clock.sleep(100)
        return "busy"

    process = store.process(ann, bob, busy)
    task_id = await process.flow.enqueue_task("g")
    begun = clock.now()

    async with clock.autojump(), anyio.create_task_group() as group:

        async def answer() -> None:
            await clock.sleep(20)
            await process.flow.answer(task_id, "word", "yes")

        group.start_soon(answer)
        await process.work()

    assert (answered_at[0] - begun) / 1e6 == pytest.approx(20, abs=1)
    assert sorted(calls) == ["ann", "bob", "busy"]
    assert await store.output(task_id) == {"bob": "bob(yes)", "busy": "busy"}
    assert (await store.task(task_id)).lease == 1


async def test_the_run_parks_when_the_others_have_finished(
    store: Store, clock: VirtualClock, calls: list[str]
) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        calls.append("ann")
        return await ctx.ask("?")

    @actor
    async def busy(goal: str) -> str:
        calls.append("busy")
        await clock.sleep(100)
        return "busy"

    @actor
    async def both(ann: str, busy: str) -> list[str]:
        return [ann, busy]

    process = store.process(ann, busy, both)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert (await store.task(task_id)).status is TaskStatus.BLOCKED
    await process.flow.answer(task_id, "ann", "yes")
    await process.work()

    assert sorted(calls) == ["ann", "ann", "busy"]
    assert await store.output(task_id) == ["yes", "busy"]


async def test_an_answer_as_the_run_is_being_parked_wakes_it(store: Store, clock: VirtualClock) -> None:
    """It comes at every instant around the park; a blocked task whose answer is there always wakes."""

    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="word")

    @actor
    async def busy(goal: str) -> str:
        await clock.sleep(1)
        return "busy"

    process = store.process(ann, busy, output="ann")
    ids = [await process.flow.enqueue_task(f"g{number}") for number in range(60)]

    async with clock.autojump(), anyio.create_task_group() as group:

        async def answer() -> None:
            await clock.sleep(0.9)
            for task_id in ids:
                await clock.sleep(0.004)
                await process.flow.answer(task_id, "word", "yes")

        group.start_soon(answer)
        await process.work(max_concurrent=60)

    await process.work()
    assert [await store.output(each) for each in ids] == ["yes"] * 60


# Loops, cancels, retries


async def test_each_round_of_a_loop_asks_anew(store: Store, calls: list[str]) -> None:
    @actor
    async def draft(ctx: ActorContext, feedback: str = "") -> str:
        calls.append(f"draft {ctx.round}")
        return f"{ctx.round}{feedback}"

    @actor
    async def judge(draft: str, ctx: ActorContext) -> Any:
        answer = await ctx.ask(f"Is {draft} fine?", key="fine", options=["yes", "no"])
        return draft if answer == "yes" else Goto("draft", feedback="!")

    process = store.process(draft, judge)
    task_id = await process.flow.enqueue_task("g")
    for key, value in (("fine", "no"), ("fine#2", "no"), ("fine#3", "yes")):
        await process.work()
        assert tuple((await store.task(task_id)).head.awaiting) == (key,)
        await process.flow.answer(task_id, key, value)
    await process.work()

    assert await store.output(task_id) == "2!"
    assert calls == ["draft 0", "draft 1", "draft 2"]
    assert [event["key"] for event in await store.events(task_id, "input_required")] == [
        "fine",
        "fine#2",
        "fine#3",
    ]


async def test_a_parked_run_is_cancelled_at_once(store: Store, approval: list[Any]) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    assert await process.flow.cancel(task_id)

    with pytest.raises(TaskCancelled):
        await process.flow.result(task_id)
    last = (await store.events(task_id))[-1]
    assert (last["type"], last["error"]["type"]) == ("workflow_error", "TaskCancelled")


async def test_a_cancelled_run_that_is_retried_waits_for_its_question_still(
    store: Store, approval: list[Any], calls: list[str]
) -> None:
    process = store.process(*approval)
    task_id = await process.flow.enqueue_task("g")
    await process.work()
    await process.flow.cancel(task_id)
    await store.queue.retry(task_id)
    await process.work()
    assert (await store.task(task_id)).status is TaskStatus.BLOCKED
    await process.flow.answer(task_id, "fine", "yes")
    await process.work()

    assert await store.output(task_id) == "draft of g: yes!"
    assert calls == ["draft", *["review", "paid"], "review", "review", "publish"]
    assert len(await store.events(task_id, "input_required")) == 1


async def test_a_failed_run_that_is_retried_has_its_answer_still(store: Store, calls: list[str]) -> None:
    @actor
    async def ann(ctx: ActorContext) -> Any:
        return await ctx.ask("?", key="word")

    @actor
    async def bob(ann: str) -> str:
        calls.append("bob")
        if len(calls) == 1:
            raise ValueError("not yet")
        return ann

    process = store.process(ann, bob)
    task_id = await process.flow.enqueue_task("g", max_attempts=1)
    await process.work()
    await process.flow.answer(task_id, "word", "yes")
    await process.work()
    assert (await store.task(task_id)).status is TaskStatus.FAILED
    await store.queue.retry(task_id)
    await process.work()

    assert await store.output(task_id) == "yes"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"options": ["a", {1}]}, "the options of the question 'k' of actor 'ask': it[1] is of type set"),
        ({"timeout": 1, "default": {1}}, "the default of the question 'k' of actor 'ask': it is of type set"),
    ],
)
async def test_what_is_asked_must_be_such_as_can_be_stored(
    store: Store, asked: dict[str, Any], told: str
) -> None:
    @actor(retries=2)
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Which?", key="k", **asked)

    process = store.process(ask)
    task_id = await process.flow.enqueue_task("g", max_attempts=2)
    await process.work()

    with pytest.raises(TaskFailed, match=re.escape(told)):
        await store.output(task_id)
    with pytest.raises(PayloadError, match=re.escape(told)):
        await WorkflowMode(Conductor([ask]), check_payloads=True).execute("g", on_ask={"k": "a"})
