from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Jotty, Start

REPORT = """
from pathlib import Path

import anyio

from jotty.core.orchestration import Conductor


async def draft(goal):
    yield "a draft\\n"


async def report(draft):
    yield "# Report\\n\\nIn half a li"
    await anyio.sleep(0.1)
    if not Path("first").exists():
        Path("first").touch()
        raise ValueError("not\\nyet")
    yield "ne."


async def check(goal):
    await anyio.sleep(0.05)
    return "unused"


async def last(check, report):
    return "unused"


conductor = Conductor([draft, report, check, last], output="report")
"""
TEXT = "# Report\n\nIn half a line.\n"


@pytest.fixture
def enqueued(jotty: Jotty, app_file: Path, queue_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(app_file.parent)
    app_file.write_text(REPORT)
    return jotty("enqueue", str(app_file), "Report", "-q", queue_url).stdout.strip()


@pytest.fixture
def work(jotty: Jotty, app_file: Path, queue_url: str) -> Callable[[], object]:
    return lambda: jotty("worker", str(app_file), "-q", queue_url, "--drain")


def test_a_pipe_gets_the_text_of_the_output_once_as_from_a_run(
    jotty: Jotty, enqueued: str, work: Callable[[], object], app_file: Path, queue_url: str
) -> None:
    work()

    tailed = jotty("tail", enqueued, "-q", queue_url)

    assert (0, TEXT) == (tailed.exit_code, tailed.stdout)
    assert TEXT == jotty("run", str(app_file), "Report").stdout


def test_a_pipe_is_told_what_a_task_that_nobody_runs_waits_for(
    app_file: Path, queue_url: str, jotty: Jotty, start: Start
) -> None:
    def waits(*options: str) -> str:
        task_id = jotty("enqueue", str(app_file), "Hello", "-q", queue_url, *options).stdout.strip()
        follower = start("tail", task_id, "-q", queue_url)
        assert follower.stderr is not None
        line = follower.stderr.readline()
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate(timeout=20)
        assert ("", "", 130) == (out, err, follower.returncode)
        return line

    parent = jotty("enqueue", str(app_file), "Hello", "-q", queue_url).stdout.strip()

    assert "Waiting for a worker: there is none for lane odd.\n" == waits("--lane", "odd")
    assert waits("--delay", "3600").startswith("Waiting: it is not to run before 20")
    assert "Waiting: the task is blocked.\n" == waits("--depends-on", parent)


def test_a_follower_gets_the_whole_text_once_and_is_told_what_starts_again(
    jotty: Jotty, enqueued: str, start: Start, app_file: Path, queue_url: str
) -> None:
    follower = start("tail", enqueued, "-q", queue_url)
    start("worker", str(app_file), "-q", queue_url, "--drain").communicate(timeout=20)
    out, err = follower.communicate(timeout=20)

    assert 0 == follower.returncode
    assert TEXT == out
    assert [1, 2] == [err.splitlines().count(f"{agent}: started") for agent in ("draft", "report")]
    assert "report: failed in" in err
    assert "(ValueError: not yet)" in err


def test_what_came_before_the_given_event_is_told_no_more(
    jotty: Jotty, enqueued: str, work: Callable[[], object], queue_url: str
) -> None:
    work()
    events = [
        json.loads(line) for line in jotty("tail", enqueued, "-q", queue_url, "--json").stdout.splitlines()
    ]
    chunk = max(event["seq"] for event in events if event["type"] == "text_chunk")

    rest = jotty("tail", enqueued, "-q", queue_url, "--after", str(chunk - 1))
    nothing = jotty("tail", enqueued, "-q", queue_url, "--after", str(events[-1]["seq"]))
    beyond = jotty("tail", enqueued, "-q", queue_url, "--after", "1000", "--json")

    assert (0, TEXT) == (rest.exit_code, rest.stdout)
    assert "draft" not in rest.stderr
    assert (0, "", "") == (nothing.exit_code, nothing.stdout, nothing.stderr)
    assert (0, "") == (beyond.exit_code, beyond.stdout)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_follower_that_is_sent_away_says_nothing_and_has_its_exit_code(
    jotty: Jotty,
    enqueued: str,
    start: Start,
    queue_url: str,
    app_file: Path,
    number: signal.Signals,
    code: int,
) -> None:
    app_file.write_text(REPORT.replace("sleep(0.1)", "sleep(60)"))
    start("worker", str(app_file), "-q", queue_url)
    follower = start("tail", enqueued, "-q", queue_url)
    assert follower.stderr is not None
    while ": started" not in (line := follower.stderr.readline()):
        assert line  # else it has ended

    follower.send_signal(number)
    out, err = follower.communicate(timeout=20)

    assert "" == out
    assert code == follower.returncode
    assert "Traceback" not in err
    assert "cancelled" not in err
