from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.queue import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Jotty

    Enqueue = Callable[..., str]


@pytest.fixture
def enqueue(jotty: Jotty, app_file: Path, queue_url: str) -> Enqueue:
    def run(goal: str = "Greet", *arguments: str) -> str:
        ran = jotty("enqueue", str(app_file), goal, "--queue", queue_url, *arguments)
        assert 0 == ran.exit_code, ran.stderr
        return ran.stdout.strip()

    return run


@pytest.fixture
def work(jotty: Jotty, app_file: Path, queue_url: str) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        ran = jotty("worker", str(app_file), "--queue", queue_url, "--drain", *arguments)
        assert 0 == ran.exit_code, ran.stderr
        return ran.stderr

    return run


@pytest.fixture
def read(jotty: Jotty, queue_url: str) -> Callable[..., Any]:
    """Run a command with --json, and return its document."""

    def run(*arguments: str) -> Any:
        ran = jotty(*arguments, "--queue", queue_url, "--json")
        assert 0 == ran.exit_code, ran.stderr
        return json.loads(ran.stdout)

    return run


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """Return the URL of a store that is there, and empty."""
    url = f"sqlite:///{tmp_path / 'store.db'}"

    async def create() -> None:
        async with open_queue(url):
            pass

    anyio.run(create)
    return url


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("list",),
        ("show", "nobody"),
        ("tail", "nobody"),
        ("tail", "nobody", "--json"),
        ("cancel", "nobody"),
        ("retry", "nobody"),
        ("retry", "--failed"),
        ("accept", "nobody"),
        ("delete", "nobody"),
        ("purge", "--older-than", "7d"),
        ("export",),
        ("migrate",),
    ],
)
@pytest.mark.parametrize("options", ["", "?busy_timeout=1", "?create=1"])
def test_a_command_that_only_reads_or_changes_a_store_creates_none(
    jotty: Jotty, queue_url: str, tmp_path: Path, command: tuple[str, ...], options: str
) -> None:
    ran = jotty(*command, "-q", f"{queue_url}{options}")

    assert 75 == ran.exit_code
    assert "no store" in ran.stderr
    assert queue_url in ran.stderr
    assert [] == list(tmp_path.iterdir())


def test_a_goal_is_enqueued_worked_on_followed_and_shown(
    jotty: Jotty, enqueue: Enqueue, work: Callable[..., str], queue_url: str
) -> None:
    task_id = enqueue("Greet", "-c", "name=Ada", "-c", "numbers=[1,2,3]")
    log = work()
    tailed = jotty("tail", task_id, "--queue", queue_url)
    shown = jotty("show", task_id, "--queue", queue_url)

    assert f"Task {task_id} is completed." in log
    assert "Stopped. 1 ended here." in log
    assert 0 == tailed.exit_code
    assert "Hello Ada, welcome.\nThe sum is 6.\n" == tailed.stdout
    assert ["status", "completed"] == shown.stdout.splitlines()[1].split()
    assert shown.stdout.endswith("\n\nHello Ada, welcome.\nThe sum is 6.\n")


def test_the_options_of_an_enqueue_reach_the_task(enqueue: Enqueue, read: Callable[..., Any]) -> None:
    first = enqueue()
    options = ["-p", "1", "--delay", "60", "--key", "k", "--lane", "l", "--max-attempts", "5"]
    more = ["--timeout", "9", "--tag", "a", "--tag", "b"]
    task_id = enqueue("Greet", *options, *more, "--depends-on", first, "-c", "name=Ada")

    task = read("show", task_id)

    expected: dict[str, Any] = {
        "goal": "Greet",
        "context": {"name": "Ada"},
        "status": "blocked",
        "depends_on": [first],
    }
    expected |= {
        "priority": 1,
        "key": "k",
        "lane": "l",
        "max_attempts": 5,
        "timeout": 9.0,
        "tags": ["a", "b"],
    }
    assert expected == {name: task[name] for name in expected}
    assert task["created_at"] < task["run_at"]


def test_a_live_key_gives_the_same_task(enqueue: Enqueue) -> None:
    assert enqueue("Greet", "--key", "k") == enqueue("Greet again", "--key", "k")


def test_the_mode_of_an_enqueue_is_the_mode_of_the_run(
    enqueue: Enqueue, work: Callable[..., str], read: Callable[..., Any]
) -> None:
    task_id = enqueue("Greet", "--order", "count,greet")
    work()

    assert ["count", "greet"] == read("show", task_id)["result"]["metadata"]["path"]


def test_enqueue_gives_the_whole_task_as_json(jotty: Jotty, app_file: Path, queue_url: str) -> None:
    ran = jotty("enqueue", str(app_file), "Greet", "--queue", queue_url, "--json")

    assert "pending" == json.loads(ran.stdout)["status"]


def test_the_queue_may_come_from_the_environment(jotty: Jotty, store_url: str) -> None:
    ran = jotty("status", env={"JOTTY_QUEUE": store_url})

    assert (0, "", "The queue is empty.\n") == (ran.exit_code, ran.stdout, ran.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("enqueue", "{app}", "g"), 2, ("--queue", "JOTTY_QUEUE")),
        (("worker", "{app}"), 2, ("--queue", "JOTTY_QUEUE")),
        (("list",), 2, ("--queue", "JOTTY_QUEUE")),
        (("enqueue", "{app}", "g", "-q", "memory:"), 2, ("memory of one process",)),
        (("worker", "{app}", "-q", "memory:named"), 2, ("memory of one process",)),
        (("status", "-q", "tasks.db"), 2, ("like 'sqlite:///tasks.db'",)),
        (("status", "-q", "sqlit:///tasks.db"), 2, ("'sqlit'", "Installed: file, memory, sqlite")),
        (("status", "-q", "{url}?speed=9"), 2, ("no option 'speed'", "Known:")),
        (("status", "-q", "sqlite:////proc/none/tasks.db"), 75, ("/proc/none/tasks.db",)),
        (("worker", "{app}", "-q", "sqlite:////proc/none/tasks.db"), 75, ("/proc/none/tasks.db",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "-p", "0"), 2, ("priority",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "-p", "high"), 2, ("priority",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "--delay", "-1"), 2, ("delay",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "--key", " k "), 2, ("key", "' k '")),
        (("enqueue", "{app}", "g", "-q", "{url}", "-c", "name"), 2, ("KEY=VALUE",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "-c", "goal=reserved"), 2, ("'goal' is a reserved name",)),
        (("enqueue", "{app}", "g", "-q", "{url}", "--depends-on", "nobody"), 3, ("'nobody'",)),
        (("worker", "{app}", "-q", "{url}", "--lease-timeout", "0"), 2, ("--lease-timeout",)),
        (("worker", "{app}", "-q", "{url}", "--lease-timeout", "1e300"), 2, ("--lease-timeout", "a century")),
        (("worker", "{app}", "-q", "{url}", "--grace", "nan"), 2, ("--grace",)),
        (("worker", "{app}", "-q", "{url}", "--grace", "1e300"), 2, ("--grace", "a century")),
        (("worker", "{app}", "-q", "{url}", "--lane", " a"), 2, ("lane must be", "' a'")),
        (("worker", "{app}", "-q", "{url}", "--lane", ""), 2, ("lane must be", "''")),
        (("list", "-q", "{store}", "--lane", ""), 2, ("lane must be", "''")),
        (("list", "-q", "{store}", "--tag", " a"), 2, ("tag must be", "' a'")),
        (("list", "-q", "{store}", "--key", " a"), 2, ("key must be", "' a'")),
        (("list", "-q", "{url}", "--status", "dreaming"), 2, ("dreaming", "pending")),
        (("show", "nobody", "-q", "{store}"), 3, ("'nobody'",)),
        (("tail", "nobody", "-q", "{store}"), 3, ("'nobody'",)),
        (("tail", "nobody", "-q", "{store}", "--json"), 3, ("'nobody'",)),
        (("cancel", "nobody", "-q", "{store}"), 3, ("'nobody'",)),
        (("retry", "nobody", "-q", "{store}"), 3, ("'nobody'",)),
    ],
)
def test_what_cannot_be_done_has_its_exit_code_and_its_reason(
    jotty: Jotty,
    app_file: Path,
    queue_url: str,
    store_url: str,
    arguments: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    ran = jotty(*(each.format(app=app_file, url=queue_url, store=store_url) for each in arguments))

    assert (code, "") == (ran.exit_code, ran.stdout)
    assert [] == [word for word in words if word not in ran.stderr]
    assert "Traceback" not in ran.stderr
    assert "Working on" not in ran.stderr or code == 75


def test_a_wrong_call_writes_nothing(jotty: Jotty, app_file: Path, store_url: str) -> None:
    jotty("enqueue", str(app_file), "g", "-q", store_url, "--delay", "-1")
    jotty("enqueue", str(app_file), "g", "-q", store_url, "-c", "goal=reserved")

    assert "The queue is empty.\n" == jotty("status", "-q", store_url).stderr


def test_status_counts_by_lane_and_state(jotty: Jotty, enqueue: Enqueue, queue_url: str) -> None:
    enqueue()
    enqueue("Greet", "--lane", "other")
    enqueue("Greet", "--lane", "other")

    lines = jotty("status", "-q", queue_url).stdout.splitlines()
    document = json.loads(jotty("status", "-q", queue_url, "--json").stdout)

    assert ["lane", "pending", "oldest ready", "workers"] == lines[0].split("\t")
    assert [["default", "1"], ["other", "2"]] == [line.split("\t")[:2] for line in lines[1:]]
    assert {"default": {"pending": 1}, "other": {"pending": 2}} == document["lanes"]
    assert {"default", "other"} == set(document["oldest"])


def test_list_filters_and_says_when_there_is_more(
    jotty: Jotty, enqueue: Enqueue, work: Callable[..., str], queue_url: str, read: Callable[..., Any]
) -> None:
    done = enqueue()
    work()
    tagged = enqueue("With\ttabs", "--tag", "t")
    keyed = enqueue("Greet", "--key", "k", "--lane", "l")

    listed = jotty("list", "-q", queue_url, "--limit", "2")

    assert [done, tagged] == [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]]
    assert "With tabs" == listed.stdout.splitlines()[2].split("\t")[5]
    assert "There are more" in listed.stderr
    assert [done] == [task["id"] for task in read("list", "--status", "completed")]
    assert [tagged] == [task["id"] for task in read("list", "--tag", "t")]
    assert [keyed] == [task["id"] for task in read("list", "--key", "k")]
    assert [keyed] == [task["id"] for task in read("list", "--lane", "l")]
    assert [] == read("list", "--lane", "nowhere")


def test_cancel_ends_a_waiting_task_and_retry_begins_it_again(
    jotty: Jotty, enqueue: Enqueue, queue_url: str
) -> None:
    task_id = enqueue()

    cancelled = jotty("cancel", task_id, "-q", queue_url)
    again = jotty("cancel", task_id, "-q", queue_url)
    tailed = jotty("tail", task_id, "-q", queue_url)
    retried = jotty("retry", task_id, "-q", queue_url)
    retried_again = jotty("retry", task_id, "-q", queue_url, "--json")

    assert (0, f"{task_id} cancelled\n") == (cancelled.exit_code, cancelled.stdout)
    assert (1, f"Error: Task {task_id} is cancelled already.\n") == (again.exit_code, again.stderr)
    assert (1, "") == (tailed.exit_code, tailed.stdout)
    assert (0, f"{task_id} pending\n") == (retried.exit_code, retried.stdout)
    assert (1, "") == (retried_again.exit_code, retried_again.stdout)
    assert "only failed and cancelled tasks" in retried_again.stderr


def test_a_failed_task_shows_its_error_and_with_debug_its_traceback(
    jotty: Jotty, enqueue: Enqueue, work: Callable[..., str], queue_url: str
) -> None:
    task_id = enqueue("Greet", "-c", "fail=true", "--max-attempts", "1")
    work()

    shown = jotty("show", task_id, "-q", queue_url)
    debugged = jotty("show", task_id, "-q", queue_url, "--debug")
    tailed = jotty("tail", task_id, "-q", queue_url)

    assert "error         KeyError: 'boom'" in shown.stdout
    assert "Traceback" not in shown.output
    assert "--debug" in shown.stderr
    assert "Traceback" in debugged.stdout
    assert 1 == tailed.exit_code
    assert "Error: KeyError: 'boom'" in tailed.stderr


def test_a_text_of_several_lines_is_shown_beside_its_name(
    jotty: Jotty, enqueue: Enqueue, queue_url: str
) -> None:
    task_id = enqueue("Greet\nthem\x1b[2J all", "-c", "name=Ada", "-c", "fail=true")

    shown = jotty("show", task_id, "-q", queue_url).stdout.splitlines()

    assert "goal          Greet" == shown[2]
    assert "              them [2J all" == shown[3]
    assert ["context name  Ada", "context fail  true"] == shown[4:6]


def test_tail_as_json_gives_every_event_and_goes_on_after_any_of_them(
    jotty: Jotty, enqueue: Enqueue, work: Callable[..., str], queue_url: str
) -> None:
    task_id = enqueue()
    work()

    events = [
        json.loads(line) for line in jotty("tail", task_id, "-q", queue_url, "--json").stdout.splitlines()
    ]
    after = str(events[3]["seq"])
    rest = jotty("tail", task_id, "-q", queue_url, "--json", "--after", after).stdout.splitlines()

    assert ["workflow_start", "workflow_complete"] == [events[0]["type"], events[-1]["type"]]
    assert events[4:] == [json.loads(line) for line in rest]


def test_a_worker_logs_json_lines_and_stops_after_max_tasks(
    enqueue: Enqueue, work: Callable[..., str], read: Callable[..., Any]
) -> None:
    enqueue()
    enqueue()
    log = [json.loads(line) for line in work("--json", "--max-tasks", "1").splitlines()]

    assert "Stopped. 1 ended here." == log[-1]["message"]
    assert {"pending": 1, "completed": 1} == read("status")["lanes"]["default"]


def test_a_worker_takes_only_from_the_lanes_it_is_given(
    enqueue: Enqueue, work: Callable[..., str], read: Callable[..., Any]
) -> None:
    enqueue()
    enqueue("Greet", "--lane", "other")
    work("--lane", "other")

    assert {"default": {"pending": 1}, "other": {"completed": 1}} == read("status")["lanes"]
