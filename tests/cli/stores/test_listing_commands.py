from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import NewTask

if TYPE_CHECKING:
    from tests.cli.stores.conftest import Store


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ["a", "b", "c"]),
        (["--status", "backlog"], ["b"]),
        (["--status", "backlog", "--status", "pending"], ["a", "b"]),
        (["--status", "suggested", "--status", "pending", "--status", "backlog"], ["a", "b", "c"]),
        (["--status", "suggested", "--status", "pending", "--limit", "1"], ["a"]),
        (["--lane", "other"], ["b"]),
        (["--tag", "t"], ["a"]),
        (["--key", "k"], ["b"]),
        (["--older-than", "0s"], ["a", "b", "c"]),
        (["--older-than", "1h"], []),
        (["--newer-than", "1h", "--lane", "default"], ["a", "c"]),
        (["--newer-than", "0s"], []),
    ],
)
def test_tasks_are_listed_by_what_they_are_like(
    store: Store, conditions: list[str], expected: list[str]
) -> None:
    store.enqueue(
        NewTask("a", tags=["t"]),
        NewTask("b", lane="other", key="k", status="backlog"),
        NewTask("c", status="suggested"),
    )

    assert expected == [task["goal"] for task in store.read("list", *conditions)]


@pytest.mark.parametrize(
    ("conditions", "expected", "is_more"),
    [
        ([], ["c", "b", "a"], False),
        (["--limit", "2"], ["c", "b"], True),
        (["--limit", "1", "--lane", "other"], ["b"], False),
        (["--status", "pending"], ["c", "a"], False),
    ],
)
def test_the_newest_are_listed_first_where_they_are_asked_for(
    store: Store, conditions: list[str], expected: list[str], *, is_more: bool
) -> None:
    store.enqueue(NewTask("a"), NewTask("b", lane="other", status="backlog"), NewTask("c"))

    ran = store.jotty("list", "--newest", *conditions)

    assert expected == [task["goal"] for task in store.read("list", "--newest", *conditions)]
    assert is_more == ("There are more" in ran.stderr)


def test_tasks_are_listed_by_when_they_ended(store: Store) -> None:
    store.finish(NewTask("over"))
    store.enqueue(NewTask("waiting"))

    assert ["over"] == [task["goal"] for task in store.read("list", "--since", "1h")]
    assert [] == store.read("list", "--since", "0s")


def test_times_have_their_zone_and_what_was_before_is_called_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    (task_id,) = store.enqueue(NewTask("a"))
    held = store.do(lambda queue: queue.claim(worker="one"))
    running = names(store.jotty("show", task_id).stdout)
    store.do(lambda queue: queue.release(held[0]))
    waiting = names(store.jotty("show", task_id).stdout)
    listed = store.jotty("list").stdout.splitlines()[1].split("\t")
    monkeypatch.undo()
    time.tzset()

    assert {"worker", "started"} <= running.keys()
    assert {"last worker", "last started"} <= waiting.keys()
    assert not {"worker", "started"} & waiting.keys()
    assert {"-0400", "-0500"} >= {waiting["enqueued"][-5:], listed[4][-5:]}


def names(shown: str) -> dict[str, str]:
    """Return the lines of a task that is shown, by the name that each begins with."""
    found = (re.split(r"\s{2,}", line, maxsplit=1) for line in shown.splitlines())
    return {line[0]: line[1] for line in found if len(line) > 1}


@pytest.mark.parametrize("option", ["--older-than", "--newer-than"])
def test_an_age_that_is_none_is_a_wrong_call(store: Store, option: str) -> None:
    store.enqueue(NewTask("a"))

    ran = store.jotty("list", option, "yesterday")

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert option in ran.stderr
