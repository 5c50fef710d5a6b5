from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.cli.steps import Axis, bar
from jotty.core.orchestration import TimelineQuestion, TimelineRow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty

APP = """
from jotty.core.orchestration import Conductor, Goto, actor


@actor(on_demand=True)
async def search(topic):
    return topic


@actor(retries=1, backoff=0.001)
async def plan(goal, ctx):
    async def paid(topic) -> str:
        return topic

    if ctx.attempt == 1:
        raise ValueError("not\\tyet")
    return [await ctx.step("price", paid, "a"), await ctx.call(search, key="a/b, 5%", topic="x")]


async def check(plan, ctx):
    return Goto("check") if ctx.round == 0 else await ctx.ask("Fine?", key="ok")


conductor = Conductor([plan, search, check], output="check")
"""


@pytest.fixture
def task_id(jotty: Jotty, app_file: Path, queue_url: str) -> str:
    """Return a task that waits for an answer."""
    app_file.write_text(APP)
    task_id = jotty("enqueue", str(app_file), "Go", "-q", queue_url).stdout.strip()
    jotty("worker", str(app_file), "--drain", "-q", queue_url)
    return task_id


def finish(jotty: Jotty, app_file: Path, queue_url: str, task_id: str) -> None:
    jotty("answer", task_id, "ok#2", "yes", "-q", queue_url)
    jotty("worker", str(app_file), "--drain", "-q", queue_url)


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines() if "\t" in line]


def test_a_pipe_gets_a_line_for_each_execution_and_step(
    jotty: Jotty, app_file: Path, queue_url: str, task_id: str
) -> None:
    waiting = jotty("show", task_id, "--steps", "-q", queue_url)
    finish(jotty, app_file, queue_url, task_id)
    finished = jotty("show", task_id, "--steps", "-q", queue_url)

    header, *found = rows(waiting.stdout)
    assert ["step", "round", "state", "attempts", "began", "took", "note"] == header
    assert [
        ["plan", "1", "done", "2", ""],
        ["plan: price", "1", "done", "1", ""],
        ["plan/search[a/b, 5%]", "1", "done", "1", ""],
        ["check", "1", "goto", "1", "to check"],
        ["check", "2", "waits", "1", "asks ok#2: Fine?"],
    ] == [[*row[:4], row[6]] for row in found]
    assert waiting.stderr == "2 of 3 known nodes are settled.\n"
    assert ["check", "2", "done", "1"] == rows(finished.stdout)[-1][:4]
    assert "ok#2: 'yes'" == rows(finished.stdout)[-1][6]
    assert "" == finished.stderr


def test_the_document_has_the_rows(jotty: Jotty, queue_url: str, task_id: str) -> None:
    document = json.loads(jotty("show", task_id, "--steps", "--json", "-q", queue_url).stdout)

    steps = document["steps"]
    assert (2, 3, None) == (steps["finished"], steps["known"], steps["ended"])
    assert ["plan", "plan", "plan/search[a%2Fb, 5%25]", "check", "check"] == [
        row["label"] for row in steps["rows"]
    ]
    assert [0, 1, 1, 0, 0] == [row["depth"] for row in steps["rows"]]
    assert "price" == steps["rows"][1]["step"]
    assert "ok#2" == steps["rows"][-1]["questions"][0]["key"]


def test_of_a_task_that_has_not_begun_there_is_nothing_to_show(
    jotty: Jotty, app_file: Path, queue_url: str
) -> None:
    task_id = jotty("enqueue", str(app_file), "Go", "-q", queue_url).stdout.strip()

    ran = jotty("show", task_id, "--steps", "-q", queue_url)

    assert (0, "Nothing of it has run yet.\n") == (ran.exit_code, ran.stderr)


# Bars


def row(began: float, ended: float | None, *questions: tuple[float, float | None]) -> TimelineRow:
    asked = [
        TimelineQuestion("k", "q", None, at, answered=answered, is_open=answered is None)
        for at, answered in questions
    ]
    made = TimelineRow("a", 0, began, questions=asked)
    if ended is not None:
        made.end("done", ended)
    return made


def drawn(now: float, *rows: TimelineRow, width: int = 10) -> list[str]:
    axis = Axis.of(rows, now, width)
    return [bar(each, axis, now) for each in rows]


def test_bars_stand_beside_each_other_in_time() -> None:
    assert ["█████", "     █████", "██████████"] == drawn(9.0, row(0, 5), row(5, 10), row(0, 10))


def test_what_goes_on_reaches_to_now() -> None:
    assert ["██████████", "     █████"] == drawn(8.0, row(0, 8), row(4, None))


def test_a_wait_for_an_answer_takes_no_room_unless_something_runs_meanwhile() -> None:
    alone = drawn(0.0, row(0, 1_000_010, (5, 1_000_005)))
    beside = drawn(0.0, row(0, 10, (2, 8)), row(2, 8))

    assert ["█████░████"] == alone
    assert ["██░░░░░░██", "  ██████"] == beside


def test_a_wait_that_lasts_is_seen() -> None:
    assert ["█████████░"] == drawn(500.0, row(0, None, (10, None)))


def test_no_time_is_a_bar_all_the_same() -> None:
    assert ["█"] == drawn(5.0, row(5, 5))
    assert [] == drawn(5.0)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_each_bar_is_within_its_axis_and_in_the_order_of_time(
    spans: list[tuple[float, float]], width: int
) -> None:
    found = [row(start, start + length) for start, length in spans]
    axis = Axis.of(found, 200.0, width)
    bars = [bar(each, axis, 200.0) for each in found]

    assert all(1 <= len(each) <= width and "█" in each for each in bars)
    begins = [len(each) - len(each.lstrip()) for each in bars]
    in_time = sorted(range(len(spans)), key=lambda at: spans[at][0])
    assert sorted(begins) == [begins[at] for at in in_time]


def test_a_state_that_does_not_touch_another_takes_its_share() -> None:
    spans: Any = Axis.of([row(0, 5), row(100, 105)], 0.0, 10).spans

    assert ((0, 5), (100, 105)) == spans
