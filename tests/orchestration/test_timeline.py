from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty import ActorContext, Conductor, End, Goto, MemoryTaskQueue, TaskQueue, WorkflowMode, actor
from jotty.core.orchestration import Timeline, stream_run
from jotty.testing import VirtualClock
from jotty.testing.strategies import actor_graphs

if TYPE_CHECKING:
    from jotty.core.orchestration import TimelineRow
    from jotty.core.queue import JournalEntry
    from jotty.testing.strategies.graphs import ActorGraph
    from tests.orchestration.conftest import Watch

pytestmark = pytest.mark.anyio


def told(timeline: Timeline, *names: str) -> list[Any]:
    """Return these attributes of each row; of one, bare."""
    found = [tuple(getattr(row, name) for name in names) for row in timeline.rows]
    return [each[0] for each in found] if len(names) == 1 else found


async def journal_of(queue: TaskQueue, task_id: str) -> list[JournalEntry]:
    return [entry async for entry in queue.events(task_id, follow=False)]


def folded(entries: list[JournalEntry]) -> Timeline:
    timeline = Timeline()
    for entry in entries:
        timeline.add_entry(entry)
    return timeline


class Office:
    """A workflow in a queue, under a clock that jumps."""

    def __init__(self, *actors: Any, **options: Any) -> None:
        self.clock = VirtualClock()
        self.queue = MemoryTaskQueue(clock=self.clock)
        self.flow = WorkflowMode(Conductor(actors, clock=self.clock, **options), "async", self.queue)

    async def begin(self, **options: Any) -> str:
        self.task_id = await self.flow.enqueue_task("goal", **options)
        return self.task_id

    async def work(self) -> None:
        async with self.clock.autojump():
            await self.flow.process_queue(drain=True)

    async def timeline(self) -> Timeline:
        return folded(await journal_of(self.queue, self.task_id))


# Any run


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(graph=actor_graphs())
@settings(max_examples=40, deadline=None)
def test_each_execution_of_any_run_is_a_row_that_ends_within_the_run(backend: str, graph: ActorGraph) -> None:
    clock = VirtualClock()
    events: list[Any] = []

    async def run() -> None:
        async with clock.autojump():
            stream = WorkflowMode(graph.conductor(clock)).execute_stream("goal", max_iterations=60)
            events.extend([event async for event in stream])

    anyio.run(run, backend=backend)
    timeline = Timeline.of(events)
    result, rows = events[-1]["result"], timeline.rows

    assert result["metadata"]["path"] == [row.label for row in rows if row.status != "skipped"]
    assert {"running", "waits"}.isdisjoint(told(timeline, "status"))
    assert all(_is_within(row, timeline) for row in rows)
    assert {error["agent"] for error in result["errors"] if error["agent"]} == {
        row.label for row in rows if row.status == "failed"
    }


def _is_within(row: TimelineRow, timeline: Timeline) -> bool:
    began, ended = timeline.began or 0.0, timeline.ended or 0.0
    return began <= row.began <= (row.ended or 0.0) <= ended


@given(graph=actor_graphs(), cut=st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_a_journal_tells_what_the_events_tell(graph: ActorGraph, cut: int) -> None:
    clock = VirtualClock()
    queue = MemoryTaskQueue(clock=clock)
    flow = WorkflowMode(graph.conductor(clock), "async", queue)

    async def run() -> tuple[list[Any], list[JournalEntry]]:
        async with clock.autojump():
            task_id = await flow.enqueue_task("goal", max_attempts=1, max_iterations=60)
            await flow.process_queue(drain=True)
            return [event async for event in stream_run(queue, task_id)], await journal_of(queue, task_id)

    events, entries = anyio.run(run)
    until = entries[: cut % len(entries) + 1]
    last = until[-1].number
    names = ("label", "status", "round", "attempts", "depth", "began", "ended", "seconds", "note")

    assert told(Timeline.of([each for each in events if each["seq"] <= last]), *names) == told(
        folded(until), *names
    )


# What rows say


async def test_rows_have_their_times_attempts_and_rounds(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def draft(goal: str) -> str:
        await clock.sleep(1)
        return goal

    @actor(retries=1)
    async def check(draft: str, ctx: ActorContext) -> Any:
        await clock.sleep(2)
        if ctx.round == 0 and ctx.attempt == 1:
            raise ValueError("not yet")
        return Goto("draft") if ctx.round == 0 else End("enough")

    @actor(when=lambda goal: False)
    async def unwanted(goal: str) -> None: ...

    timeline = Timeline.of((await watch(draft, check, unwanted)).events)

    assert [
        ("draft", 0, "done", 1, 1.0, ""),
        ("unwanted", 0, "skipped", 0, 0.0, "its condition is not met"),
        ("check", 0, "goto", 2, None, "to draft"),
        ("draft", 1, "done", 1, 1.0, ""),
        ("check", 1, "end", 1, 2.0, ""),
    ] == [
        (*each[:4], None if each[3] == 2 else pytest.approx(each[4]), each[5])
        for each in told(timeline, "label", "round", "status", "attempts", "seconds", "note")
    ]
    assert (3, 3) == (timeline.finished, timeline.known)


async def test_what_is_spawned_or_held_stands_below_who_has_it(watch: Watch) -> None:
    @actor
    async def write(goal: str) -> str:
        return goal

    @actor
    async def proof(write: str, ctx: ActorContext) -> Any:
        return await ctx.call("word", key="x", text=write)

    @actor(on_demand=True)
    async def word(text: str) -> str:
        return text

    @actor
    async def plan(goal: str, ctx: ActorContext) -> Any:
        return await ctx.map("search", ["a", "b/c"], key=str, limit=1)

    @actor(on_demand=True)
    async def search(topic: str) -> str:
        return topic

    report = Conductor([write, proof, word], name="report", output="proof")
    timeline = Timeline.of((await watch(plan, search, report)).events)

    assert [
        (0, "plan"),
        (1, "search[a]"),
        (1, "search[b%2Fc]"),
        (0, "report"),
        (1, "write"),
        (1, "proof"),
        (2, "word[x]"),
    ] == told(timeline, "depth", "name")
    assert {"done"} == set(told(timeline, "status"))


async def test_a_failure_and_what_it_cancels_are_told_apart(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def fails(goal: str) -> None:
        await clock.sleep(1)
        raise ValueError("no use")

    @actor
    async def beside(goal: str) -> None:
        await clock.sleep(5)

    timeline = Timeline.of((await watch(fails, beside)).events)

    assert [("fails", "failed", "ValueError: no use"), ("beside", "cancelled", "")] == told(
        timeline, "label", "status", "note"
    )


def test_nothing_told_is_nothing_known() -> None:
    timeline = Timeline()

    assert ((), (), None, None) == (timeline.rows, timeline.questions, timeline.began, timeline.ended)


async def test_a_run_that_goes_on_is_running(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def sleep(goal: str) -> None:
        await clock.sleep(1)

    events = (await watch(sleep)).events
    timeline = Timeline.of(events[:2])

    assert [("sleep", "running", None, None)] == told(timeline, "label", "status", "ended", "seconds")
    assert timeline.ended is None


async def test_what_another_orchestrator_begins_anew_is_told_anew(watch: Watch) -> None:
    @actor
    async def echo(goal: str) -> str:
        return goal

    events = (await watch(echo)).events
    timeline = Timeline.of([*events, *events])

    assert ["echo"] == told(timeline, "label")


# Questions


@actor
async def approve(goal: str, ctx: ActorContext) -> Any:
    return await ctx.ask("Publish?", key="ok", options=["yes", "no"])


@attrs.frozen
class Asked:
    """How a question stands."""

    key: str
    is_open: bool
    answer: Any = None
    is_default: bool = False


def asked(timeline: Timeline) -> list[Asked]:
    return [Asked(each.key, each.is_open, each.answer, each.is_default) for each in timeline.questions]


async def test_who_waits_for_an_answer_stays_one_row_until_it_has_it() -> None:
    office = Office(approve)
    await office.begin()
    await office.work()
    before = await office.timeline()
    await office.clock.advance(60)
    await office.flow.answer(office.task_id, "ok", "yes")
    answered = await office.timeline()
    await office.work()
    after = await office.timeline()

    assert [("approve", "waits")] == told(before, "label", "status")
    assert [Asked("ok", is_open=True)] == asked(before)
    assert "approve" == before.asker_of(before.questions[0])
    assert [("approve", "waits")] == told(answered, "label", "status")  # until a worker takes it up
    assert [("approve", "done")] == told(after, "label", "status")
    assert [Asked("ok", is_open=False, answer="yes")] == asked(after)
    (row,) = after.rows
    assert row.ended is not None
    assert row.ended - row.began >= 60 > (row.seconds or 0)


async def test_a_caller_waits_with_what_it_called() -> None:
    @actor
    async def plan(goal: str, ctx: ActorContext) -> Any:
        return await ctx.call(approve)

    office = Office(plan)
    await office.begin()
    await office.work()
    before = await office.timeline()
    await office.flow.answer(office.task_id, "ok", "no")
    await office.work()

    assert ["waits", "waits"] == told(before, "status")
    assert ["done", "done"] == told(await office.timeline(), "status")


async def test_an_answer_by_default_is_told_as_such() -> None:
    @actor
    async def hurry(goal: str, ctx: ActorContext) -> Any:
        return await ctx.ask("Well?", key="ok", timeout=5, default="never mind")

    office = Office(hurry)
    await office.begin()
    await office.work()
    before = await office.timeline()
    await office.clock.advance(6)
    await office.work()

    assert before.began is not None
    assert [pytest.approx(before.questions[0].asked + 5)] == [each.until for each in before.questions]
    assert [Asked("ok", is_open=False, answer="never mind", is_default=True)] == asked(
        await office.timeline()
    )


async def test_a_cancelled_task_asks_nothing_and_asks_again_once_it_is_retried() -> None:
    office = Office(approve)
    await office.begin()
    await office.work()
    await office.flow.cancel(office.task_id)
    cancelled = await office.timeline()
    await office.queue.retry(office.task_id)
    await office.work()
    again = await office.timeline()

    assert ["cancelled"] == told(cancelled, "status")
    assert [Asked("ok", is_open=False)] == asked(cancelled)
    assert ["cancelled", "waits"] == told(again, "status")
    assert [Asked("ok", is_open=True)] == asked(again)
    assert again.ended is None


async def test_without_a_journal_an_answer_is_not_known_but_that_nobody_waits_any_more(
    clock: VirtualClock,
) -> None:
    timeline, waiting = Timeline(), None
    async with clock.autojump(), WorkflowMode(Conductor([approve], clock=clock)).execute_stream("g") as run:
        async for event in run:
            timeline.add(event)
            if event["type"] == "input_required":
                waiting = told(timeline, "status")
                run.answer("ok", "yes")

    assert ["waits"] == waiting
    assert ["done"] == told(timeline, "status")
    assert [Asked("ok", is_open=False)] == asked(timeline)


async def test_a_goto_past_who_waits_cancels_it() -> None:
    @actor
    async def impatient(goal: str, ctx: ActorContext) -> Any:
        await office.clock.sleep(3)
        return Goto("approve") if ctx.round == 0 else None

    office = Office(attrs.evolve(approve, depends_on=()), impatient)
    await office.begin()
    await office.work()

    assert ("approve", 0, "cancelled") in told(await office.timeline(), "label", "round", "status")
    assert ("approve", 1, "waits") in told(await office.timeline(), "label", "round", "status")


def test_who_waits_and_is_reset_waits_no_more_and_may_be_skipped_in_the_next_round() -> None:
    def event(kind: str, at: int, /, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "time": float(at), "agent": "ask", "attempt": 1, **fields}

    goto = {"kind": "goto", "target": "ask", "reset": ["ask"], "seconds": 1.0, "agent": "back"}
    timeline = Timeline.of(
        [
            event("agent_start", 0, round=0),
            event("input_required", 1, key="ok", question="?", options=None),
            event("agent_complete", 2, **goto),
            event("agent_cancelled", 3),
        ]
    )
    before = told(timeline, "label", "round", "status")
    timeline.add(event("agent_skipped", 4, reason="not wanted"))

    assert ("ask", 0, "cancelled") in before
    assert ("ask", 1, "skipped") in told(timeline, "label", "round", "status")
    assert [Asked("ok", is_open=False)] == asked(timeline)


# Steps


async def test_steps_within_an_actor_stand_below_it_and_do_not_come_again() -> None:
    async def paid(number: int) -> int:
        await office.clock.sleep(2)
        return number

    @actor
    async def count(goal: str, ctx: ActorContext) -> Any:
        first = await ctx.step("first", paid, 1)
        await ctx.ask("Go on?", key="ok")
        return first + await ctx.step("second", paid, 2)

    office = Office(count)
    await office.begin()
    await office.work()
    await office.flow.answer(office.task_id, "ok", True)
    await office.work()
    timeline = await office.timeline()

    assert [(0, "count", None), (1, "first", "first"), (1, "second", "second")] == told(
        timeline, "depth", "name", "step"
    )
    assert [2.0, 2.0] == [pytest.approx(row.seconds) for row in timeline.rows[1:]]


async def test_what_ran_when_a_worker_was_lost_is_cancelled_and_begins_again() -> None:
    started: list[int] = []

    @actor
    async def work(goal: str) -> str:
        started.append(1)
        if len(started) == 1:
            office.flow.stop_processing(grace=0)
            await office.clock.sleep(60)
        return goal

    office = Office(work)
    await office.begin()
    await office.work()
    await office.work()

    assert ["cancelled", "done"] == told(await office.timeline(), "status")
