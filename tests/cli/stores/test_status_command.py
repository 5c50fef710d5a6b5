from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import NewTask, QueueBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue import TaskQueue
    from tests.cli.stores.conftest import Store


def announce(store: Store, name: str, **changes: Any) -> None:
    """Have a worker tell of itself, as those of this jotty do."""

    async def tell(queue: TaskQueue) -> None:
        told: dict[str, Any] = {
            "host": "here",
            "pid": 7,
            "lanes": ["default"],
            "max_concurrent": 3,
            "running": 0,
            "started_at": queue.backend.now() - 90_000_000,
            "ended": 20,
            "per_minute": 5,
            "unhandled": {"count": 0, "ids": []},
            "blocked": 0.0,
        }
        await queue.backend.announce(name, json.dumps({**told, **changes}).encode(), 60_000_000)

    store.do(tell)


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_workers_are_shown_with_what_they_do(store: Store) -> None:
    store.enqueue(NewTask("a"), NewTask("b"), NewTask("c", lane="other"))
    announce(store, "one", lanes=["default", "other"])
    announce(store, "two", per_minute=7, ended=8)
    store.do(lambda queue: queue.claim(worker="two"))

    ran = store.jotty("status")

    assert [
        ["lane", "pending", "in_progress", "oldest ready", "workers"],
        ["default", "1", "1", "0.0 s", "2"],
        ["other", "1", "0", "0.0 s", "1"],
        [""],
        ["worker", "lanes", "running", "a minute", "ended", "since"],
        ["one", "default, other", "0 of 3", "5", "20", "1.5 min"],
        ["two", "default", "1 of 3", "7", "8", "1.5 min"],
    ] == [[cell if not cell.endswith(" s") else "0.0 s" for cell in row] for row in rows(ran.stdout)[:7]]
    assert "12 tasks ended with these workers within the last minute.\n" == ran.stderr


def test_running_tasks_are_shown_with_how_far_they_have_come(store: Store) -> None:
    fresh, far = store.enqueue(NewTask("a"), NewTask("b"))

    async def work(queue: TaskQueue) -> None:
        _, task = await queue.claim(worker="one", limit=2)
        await queue.record(task, [{"kind": "step", "of": [3, 7]}, {"kind": "event"}])

    store.do(work)
    ran = store.jotty("status")
    document = store.read("status")

    assert [
        ["running task", "lane", "nodes settled", "since", "worker"],
        [fresh, "default", "", "one"],
        [far, "default", "3 of 7", "one"],
    ] == [row if row[0] == "running task" else [*row[:3], row[4]] for row in rows(ran.stdout)[-3:]]
    assert [(None, None), (3, 7)] == [(each["finished"], each["known"]) for each in document["running"]]


def test_a_lane_without_a_worker_is_pointed_out_if_tasks_wait_there(store: Store) -> None:
    store.enqueue(NewTask("a"), NewTask("b", lane="other"), NewTask("c", lane="idle", status="backlog"))
    announce(store, "one")

    ran = store.jotty("status")
    document = store.read("status")

    assert {"default": "1", "idle": "0", "other": "no worker"} == {
        row[0]: row[-1] for row in rows(ran.stdout)[1:4]
    }
    assert "Warning: tasks wait in lane other, and there is no worker for it.\n" in ran.stderr
    assert "idle" not in ran.stderr
    assert ["other"] == document["unserved"]


def test_what_a_worker_cannot_run_or_keeps_it_from_running_is_pointed_out(store: Store) -> None:
    (task_id,) = store.enqueue(NewTask("a"))
    announce(store, "one", unhandled={"count": 1, "ids": [task_id]}, blocked=12.5)

    ran = store.jotty("status")
    document = store.read("status")

    assert f"Warning: worker one cannot run waiting task {task_id}.\n" in ran.stderr
    assert "Warning: worker one is blocked by an actor, for 12.5 s.\n" in ran.stderr
    assert [task_id] == document["unhandled"]


def test_of_many_tasks_that_a_worker_cannot_run_three_are_named(store: Store) -> None:
    announce(store, "one", unhandled={"count": 60, "ids": [f"task-{at}" for at in range(10)]}, per_minute=1)

    ran = store.jotty("status")

    assert "worker one cannot run 60 waiting tasks, like task-0, task-1, task-2.\n" in ran.stderr
    assert "1 task ended with these workers" in ran.stderr


def test_a_lane_whose_tasks_are_only_scheduled_has_no_age_and_misses_no_worker(store: Store) -> None:
    store.enqueue(NewTask("a", delay=3600))

    ran = store.jotty("status")

    assert [["lane", "pending", "oldest ready", "workers"], ["default", "1", "", "0"]] == rows(ran.stdout)
    assert "" == ran.stderr


def test_a_task_whose_worker_was_lost_is_pointed_out(store: Store) -> None:
    held, lost = store.enqueue(NewTask("a"), NewTask("b"))
    store.do(lambda queue: queue.claim(worker="there"))
    store.do(lambda queue: queue.claim(worker="gone", lease_timeout=1e-6))

    ran = store.jotty("status")
    document = store.read("status")

    assert f"Warning: task {lost} lost its worker gone " in ran.stderr
    assert held not in ran.stderr
    assert [(lost, "default", "gone")] == [
        (each["id"], each["lane"], each["worker"]) for each in document["expired"]
    ]


def test_the_document_has_it_all(store: Store) -> None:
    store.finish(NewTask("a"))
    announce(store, "one")

    document = store.read("status")

    assert {"queue", "durability", "time", "oldest"} <= set(document)
    assert {"default": {"completed": 1}} == document["lanes"]
    assert 1 == document["total"]["completed"]
    assert 5 == document["per_minute"]
    assert ("one", "here", 7, 20) == tuple(
        document["workers"][0][name] for name in ("name", "host", "pid", "ended")
    )


def test_where_workers_cannot_announce_themselves_none_is_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.enqueue(NewTask("a"))
    backend = store.do(_backend_of)
    monkeypatch.setattr(backend, "announce", QueueBackend.announce)

    ran = store.jotty("status")
    document = store.read("status")

    assert ["lane", "pending", "oldest ready"] == rows(ran.stdout)[0]
    assert "" == ran.stderr
    assert (None, None, []) == (document["workers"], document["per_minute"], document["unserved"])


async def _backend_of(queue: TaskQueue) -> type[QueueBackend]:
    return type(queue.backend)


def watched(store: Store, command: str, *options: str) -> tuple[int, Sequence[str]]:
    """Return the exit code of a status that is watched until its second line, and these lines."""
    arguments = [command, "status", "--watch", "0.1", "-q", store.url, *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        return process.wait(timeout=20), lines


def test_a_watched_status_is_a_line_each_time(store: Store, command: str) -> None:
    store.enqueue(NewTask("a"), NewTask("b"))

    code, lines = watched(store, command)
    json_code, json_lines = watched(store, command, "--json")

    assert (130, 130) == (code, json_code)
    assert ["pending=2 workers=0 per_minute=0 expired=0\n"] * 2 == [line.partition(" ")[2] for line in lines]
    assert [2, 2] == [json.loads(line)["total"]["pending"] for line in json_lines]


@pytest.mark.parametrize("seconds", ["0", "-1", "often"])
def test_an_interval_that_is_none_is_a_wrong_call(store: Store, seconds: str) -> None:
    store.enqueue(NewTask("a"))

    ran = store.jotty("status", "--watch", seconds)

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert "--watch" in ran.stderr
