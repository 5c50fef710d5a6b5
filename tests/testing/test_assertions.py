from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty import Conductor, actor
from jotty.core.queue import MemoryTaskQueue, Task, TaskQueue
from jotty.testing import (
    Event,
    History,
    VirtualClock,
    assert_completed,
    assert_events,
    assert_failed,
    assert_history_clean,
    check_history,
    run_workflow,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TYPES = ("agent_start", "agent_complete", "text_chunk")
FIELDS = st.fixed_dictionaries({"type": st.sampled_from(TYPES), "agent": st.sampled_from("xy")})


def happened(*names: str, **fields: Any) -> list[dict[str, Any]]:
    """Return events, each written as its type and agent."""
    return [dict(zip(("type", "agent"), name.split(), strict=False)) | fields for name in names]


def failure_of(*arguments: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_events(*arguments, **options)
    return str(caught.value)


@given(st.lists(FIELDS))
def test_what_happened_is_what_is_expected(events: list[dict[str, Any]]) -> None:
    assert_events(events, [event["type"] for event in events])
    assert_events(events, [f"{event['type']} {event['agent']}" for event in events])
    assert_events([{**event, "time": 1} for event in events], events)


@given(st.lists(FIELDS), st.lists(FIELDS, min_size=1))
def test_whatever_differs_is_shown_with_all_that_there_is(actual: list[Any], expected: list[Any]) -> None:
    if actual == expected:
        return
    lines = failure_of(actual, expected, types=TYPES).splitlines()
    shown = [line.split() for line in lines if line.startswith(("  + ", "  - "))]

    assert {"+", "-"} >= {line[0] for line in shown}
    added = [line[1] for line in shown if line[0] == "+"]
    missing = [line[1] for line in shown if line[0] == "-"]
    assert len(actual) - len(expected) == len(added) - len(missing)
    assert added or missing


def test_events_of_other_types_are_passed_over_unless_asked_for() -> None:
    events = happened("start x", "chunk x", "end x")

    assert_events(events, ["start", "end x"])
    assert_events(events, [], types=["error"])
    assert "Event 2 of 3 of 'x' is chunk, not end." in failure_of(
        events, ["start", "end"], types=["start", "chunk", "end"]
    )


def test_a_failure_reads_like_a_sentence_and_shows_both_sides() -> None:
    events = happened("start research", "start write", "start review")

    assert failure_of(events, ["start research", "start review"]) == (
        "Event 2 of 3 of 'write' has agent='write', not 'review'.\n"
        "\n"
        "    start agent='research'\n"
        "  + start agent='write'\n"
        "    start agent='review'\n"
        "\n"
        "(- expected, but did not happen; + happened, but was not expected)"
    )


@pytest.mark.parametrize(
    ("events", "expected", "said"),
    [
        (happened("start x"), ["start x", "end x"], "After 1 events, end of 'x' was expected, but nothing"),
        (happened("start x", "start y"), ["start x"], "After the 1 expected events came start of 'y'."),
        ([], ["agent_start"], "After 0 events, agent_start was expected"),
        (
            happened("end x", output=[1, 2]),
            [{"type": "end", "output": [1]}],
            "has output=[1, 2], not [1].",
        ),
        (happened("end x"), [{"type": "end", "output": 1}], "has no output."),
    ],
)
def test_the_first_difference_is_named(events: Any, expected: Any, said: str) -> None:
    assert said in failure_of(events, expected)


def test_long_values_and_long_stretches_without_difference_are_cut() -> None:
    events = happened(*["chunk x"] * 600, text="long" * 100)

    told = failure_of(events, [*["chunk"] * 599, "start"])

    assert len(told.splitlines()) < 15
    assert max(map(len, told.splitlines())) < 120
    assert "    ...\n" in told


@pytest.mark.parametrize(
    ("expected", "types"),
    [
        (["agent_start fetch", "agent_compleet fetch"], None),
        ([{"type": "agent_compleet", "output": 3}], None),
        ([], ["agent_compleet"]),
        (["agent_start"], ["agent_start", "agent_compleet"]),
    ],
)
@pytest.mark.parametrize("events", [[], happened("agent_start fetch", "agent_complete fetch")])
def test_an_event_type_that_there_is_not_is_told_with_those_there_are(
    events: Any, expected: Any, types: Any
) -> None:
    """Otherwise it would seem that nothing happened, or, worse, that nothing went wrong."""
    with pytest.raises(ValueError, match="'agent_compleet'") as caught:
        assert_events(events, expected, types=types)

    assert "Did you mean 'agent_complete'?" in str(caught.value)
    assert "There are: agent_cancelled, agent_complete, agent_error, " in str(caught.value)


def test_every_event_of_jotty_may_be_expected() -> None:
    told = run_workflow([write], "fine").events

    assert_events(told[:0], [], types={event["type"] for event in told})
    assert_events([], [], types=["agent_selected", "done", "input_required", "tool_call", "workflow_error"])


def test_another_orchestrator_may_have_event_types_of_its_own() -> None:
    events = happened("on_tool_start search", "on_tool_end search")

    assert_events(events, [], types=["on_tool_error"])
    assert "on_tool_error was expected" in failure_of(events, ["on_tool_error"])


def test_an_expected_event_has_a_type() -> None:
    with pytest.raises(ValueError, match=r"needs a type, which \{'agent': 'x'\} has not"):
        assert_events([], [{"agent": "x"}])


@pytest.fixture
async def queue() -> AsyncIterator[TaskQueue]:
    async with MemoryTaskQueue(clock=VirtualClock()) as queue:
        yield queue


async def held(queue: TaskQueue, **options: Any) -> Task:
    await queue.enqueue("Report", **options)
    (task,) = await queue.claim(worker="ada")
    return task


@pytest.mark.anyio
async def test_a_completed_task_gives_its_result(queue: TaskQueue) -> None:
    assert {"a": 1} == assert_completed(await queue.complete(await held(queue), {"a": 1}))


@pytest.mark.anyio
async def test_what_became_of_another_task_is_said(queue: TaskQueue) -> None:
    pending = await queue.enqueue("Later", priority=5)
    blocked = await queue.enqueue("Child", depends_on=[pending.id])
    running = await held(queue)
    again = await queue.fail(running, "busy")
    failed = await queue.fail(await held(queue), ValueError("no"), retry=False)
    said = [
        (None, "There is no task"),
        (pending, r"\('Later'\) is pending, not completed"),
        (blocked, f"blocked: it waits for {pending.id}, not"),
        (running, "in progress, held by 'ada', not"),
        (again, "pending again, after attempt 1 of 3, not"),
        (failed, "failed with ValueError: no, after attempt 1 of 3, not completed"),
    ]

    for task, words in said:
        with pytest.raises(AssertionError, match=words):
            assert_completed(task)


@pytest.mark.anyio
async def test_a_failed_task_gives_its_message(queue: TaskQueue) -> None:
    failed = await queue.fail(await held(queue), ValueError("no facts"), retry=False)

    assert "no facts" == assert_failed(failed) == assert_failed(failed, ValueError, match="facts$")
    with pytest.raises(AssertionError, match="failed with ValueError: no facts, not with KeyError"):
        assert_failed(failed, KeyError)
    with pytest.raises(AssertionError, match="'yes' is not to be found"):
        assert_failed(failed, "ValueError", match="yes")
    with pytest.raises(AssertionError, match=r"\('Later'\) is pending, not failed"):
        assert_failed(await queue.enqueue("Later"))


@actor
async def write(goal: str) -> str:
    return goal


@pytest.mark.parametrize("execution", ["sync", "async"])
def test_runs_are_judged_like_tasks(execution: Any) -> None:
    script = {"write": KeyError("x")}
    good = run_workflow([write], "fine", execution=execution)
    bad = run_workflow([write], script=script, execution=execution, check=False)
    continued = run_workflow(
        Conductor([write], on_error="continue"), script=script, execution=execution, check=False
    )

    assert "fine" == assert_completed(good)
    assert "'x'" == assert_failed(bad, KeyError) == assert_failed(continued, "KeyError")
    with pytest.raises(AssertionError, match="The workflow did not fail: it gave 'fine'"):
        assert_failed(good)
    with pytest.raises(AssertionError, match=r"The workflow raised .*'x'.* in this order: write") as raised:
        assert_completed(bad)
    assert ".." not in str(raised.value)
    if bad.task is not None:
        assert "'x'" == assert_failed(bad.task, match="'x'")
        with pytest.raises(
            AssertionError, match=r"KeyError: 'x' \(raised by actor 'write', attempt 1, of run .*\)"
        ):
            assert_completed(bad.task)
    with pytest.raises(AssertionError, match="not without errors: KeyError: 'x' of 'write', attempt 1"):
        assert_completed(continued)


def test_a_clean_history_gives_its_verdict(tmp_path: Path) -> None:
    history = History(tmp_path, "client")
    history.tell("enqueued", "t", is_new=True)
    history.tell("final", "t", status="pending", attempt=0, entries=0)
    history.close()

    assert 1 == assert_history_clean(tmp_path).figures.tasks
    assert assert_history_clean(str(tmp_path)).ok


def test_a_history_that_breaks_a_rule_says_which() -> None:
    events = [Event(1, "client", "enqueued", "t", details={"is_new": True})]

    for history in (events, check_history(events)):
        with pytest.raises(AssertionError, match=r"breaks the contract 1 time\.\n(.|\n)*C6"):
            assert_history_clean(history)
