from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.cli.answers import meant, open_questions, told_options
from jotty.cli.options import parse_value
from jotty.cli.steps import timeline_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    from tests.cli.stores.conftest import Store

APP = """
from jotty.core.orchestration import Conductor


async def draft(goal):
    return "a draft"


async def approve(draft, ctx):
    return await ctx.ask("Publish it?", key="ok", options=["yes", "no", 3])


async def review(draft, ctx):
    return await ctx.ask("Any remark?", key="any remark", timeout={timeout}, default="none")


conductor = Conductor([draft, approve, review])
"""


@pytest.fixture
def work(store: Store, tmp_path: Path) -> Callable[[], Result]:
    path = tmp_path / "approval.py"
    path.write_text(APP.format(timeout=None))
    return lambda: store.jotty("worker", str(path), "--drain")


@pytest.fixture
def asking(store: Store, tmp_path: Path, work: Callable[[], Result]) -> str:
    """Return a task that waits for two answers."""
    task_id = store.jotty("enqueue", str(tmp_path / "approval.py"), "Publish").stdout.strip()
    work()
    return task_id


def test_answers_let_a_task_go_on_where_it_was(store: Store, asking: str, work: Callable[[], Result]) -> None:
    first = store.jotty("answer", asking, "ok", "yes")
    second = store.jotty("answer", asking, "any remark", '["mind", 2]', "--json")
    work()

    assert (0, f"{asking} pending\n") == (first.exit_code, first.stdout)
    assert {"id": asking, "status": "pending", "key": "any remark", "value": ["mind", 2]} == json.loads(
        second.stdout
    )
    assert {"approve": "yes", "review": ["mind", 2]} == store.get(asking).result["final_output"]


def test_an_answer_is_what_its_options_make_of_it(store: Store, asking: str) -> None:
    ran = store.jotty("answer", asking, "ok", "3", "--json")

    assert 3 == json.loads(ran.stdout)["value"]


@pytest.mark.parametrize(
    ("key", "value", "code", "words"),
    [
        ("nope", "yes", 2, "does not ask 'nope'. It asks: ok (Publish it?); any remark (Any remark?)."),
        ("ok", "perhaps", 2, "'perhaps' is no answer to 'ok'. The options are: 'yes', 'no', 3."),
    ],
)
def test_what_is_no_answer_is_refused_and_changes_nothing(
    store: Store, asking: str, key: str, value: str, code: int, words: str
) -> None:
    before = store.get(asking)
    ran = store.jotty("answer", asking, key, value)

    assert (code, "") == (ran.exit_code, ran.stdout)
    assert words in ran.stderr
    assert before == store.get(asking)


def test_the_first_answer_stands(store: Store, asking: str) -> None:
    store.jotty("answer", asking, "ok", "yes")

    ran = store.jotty("answer", asking, "ok", "no")

    assert (1, "") == (ran.exit_code, ran.stdout)
    assert "asks 'ok' no more. It was answered with: 'yes'" in ran.stderr


def test_a_task_that_is_over_or_unknown_is_not_answered(store: Store, asking: str) -> None:
    store.jotty("cancel", asking)

    over = store.jotty("answer", asking, "ok", "yes")
    unknown = store.jotty("answer", "nobody", "ok", "yes")

    assert (1, 3) == (over.exit_code, unknown.exit_code)
    assert f"Task {asking} is cancelled: it waits for no answer any more." in over.stderr


def test_a_task_that_has_not_begun_asks_nothing(store: Store, tmp_path: Path, asking: str) -> None:
    fresh = store.jotty("enqueue", str(tmp_path / "approval.py"), "Publish").stdout.strip()

    ran = store.jotty("answer", fresh, "ok", "yes")

    assert 2 == ran.exit_code
    assert f"Task {fresh} does not ask 'ok'. It asks nothing now." in ran.stderr


def test_show_tells_what_is_asked_and_the_command_that_answers(store: Store, asking: str) -> None:
    ran = store.jotty("show", asking)
    document = store.read("show", asking)
    store.jotty("answer", asking, "ok", "yes")
    after = store.jotty("show", asking)

    lines = [line.split(None, 2) for line in ran.stdout.splitlines()[-9:]]
    assert ["question", "Publish", "it?"] == lines[0]
    assert [["key", "ok"], ["asked", "by", "approve"], ["options", "yes,", "no, 3"]] == lines[1:4]
    assert f"jotty answer {asking} ok VALUE --queue {store.url}\n" in ran.stdout
    assert f"jotty answer {asking} 'any remark' VALUE --queue {store.url}\n" in ran.stdout
    assert ["ok", "any remark"] == [each["key"] for each in document["questions"]]
    assert " ok VALUE" not in after.stdout


def test_a_default_that_was_taken_is_told_to_who_comes_too_late(
    store: Store, tmp_path: Path, work: Callable[[], Result]
) -> None:
    (tmp_path / "approval.py").write_text(APP.format(timeout=1e-6))
    task_id = store.jotty("enqueue", str(tmp_path / "approval.py"), "Publish").stdout.strip()
    work()

    ran = store.jotty("answer", task_id, "any remark", "late")

    assert 1 == ran.exit_code
    assert "Nobody answered in time, and it went on with: 'none'" in ran.stderr


def test_show_tells_when_a_question_expires(store: Store, tmp_path: Path, work: Callable[[], Result]) -> None:
    (tmp_path / "approval.py").write_text(APP.format(timeout=3600))
    task_id = store.jotty("enqueue", str(tmp_path / "approval.py"), "Publish").stdout.strip()
    work()

    (line,) = [line for line in store.jotty("show", task_id).stdout.splitlines() if "expires" in line]
    until = datetime.strptime(line.partition("expires")[2].strip(), "%Y-%m-%d %H:%M:%S %z")
    assert 3000 < (until - datetime.now(UTC)).total_seconds() <= 3600


def test_tasks_that_wait_for_an_answer_are_pointed_out(store: Store, asking: str) -> None:
    listed = store.jotty("list", "--status", "blocked")
    status = store.jotty("status")
    document = store.read("status")

    hint = f"1 task waits for an answer. See what is asked: jotty show {asking} --queue {store.url}\n"
    assert hint == listed.stderr
    assert hint in status.stderr
    assert [{"id": asking, "lane": "default", "keys": ["ok", "any remark"]}] == [
        {**each, "keys": sorted(each["keys"], reverse=True)} for each in document["asking"]
    ]


def test_a_drained_worker_names_what_waits_for_an_answer_and_the_command(
    store: Store, asking: str, work: Callable[[], Result]
) -> None:
    waiting = work().stderr
    store.jotty("answer", asking, "ok", "yes")
    half = work().stderr
    store.jotty("answer", asking, "any remark", "none")
    done = work().stderr

    assert f"Task {asking} waits for an answer to 'any remark'." in half
    command = f"Answer it with: jotty answer {asking} {{}} VALUE --queue {store.url}\n"
    assert f"Task {asking} asks: Publish it? (yes, no, 3) {command.format('ok')}" in waiting
    assert f"Task {asking} asks: Any remark? {command.format(repr('any remark'))}" in waiting
    assert ["Any remark?"] == re.findall(r"asks: (.*?\?)", half)
    assert "asks" not in done


def test_a_drained_worker_says_how_many_more_wait_and_nothing_of_other_lanes(
    store: Store, tmp_path: Path, asking: str, work: Callable[[], Result]
) -> None:
    app = str(tmp_path / "approval.py")
    for _ in range(12):
        store.jotty("enqueue", app, "Publish")
    waiting = work().stderr
    elsewhere = store.jotty("worker", app, "--drain", "--lane", "other").stderr

    assert 20 == waiting.count("jotty answer")
    assert f"3 more tasks wait for answers: jotty list --status blocked --queue {store.url}\n" in waiting
    assert "wait" not in elsewhere


def test_a_follower_is_told_how_to_answer_what_is_still_open(store: Store, asking: str) -> None:
    store.jotty("answer", asking, "ok", "yes")
    store.jotty("cancel", asking)
    over = store.jotty("tail", asking)

    assert "approve: asks ok: Publish it? (yes, no, 3)\n" in over.stderr
    assert "approve: cancelled" not in over.stderr
    assert "Answer it with" not in over.stderr


def test_an_answer_that_came_since_the_task_was_looked_at_is_asked_for_no_more(
    store: Store, asking: str
) -> None:
    before = store.get(asking)
    store.jotty("answer", asking, "ok", "yes")

    timeline = store.do(lambda queue: timeline_of(queue, asking))

    assert {"ok", "any remark"} == set(before.awaiting)
    assert ["any remark"] == [each.key for each in open_questions(before, timeline)]


def test_a_text_that_is_an_option_is_no_number() -> None:
    assert ["1", 1, 1] == [meant("1", ["1", "2"]), meant("1", [1, "1"]), meant("1", None)]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1) | st.integers(-9, 9) | st.booleans()))
def test_an_option_that_is_typed_as_it_is_told_is_meant(options: list[Any]) -> None:
    for option in options:
        told = told_options([option])

        assert option == meant(told, options) or told in options


@given(st.text())
def test_without_options_an_answer_is_what_a_value_of_the_context_is(text: str) -> None:
    assert parse_value(text) == meant(text, None)
