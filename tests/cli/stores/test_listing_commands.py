from __future__ import annotations

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


@pytest.mark.parametrize("option", ["--older-than", "--newer-than"])
def test_an_age_that_is_none_is_a_wrong_call(store: Store, option: str) -> None:
    store.enqueue(NewTask("a"))

    ran = store.jotty("list", option, "yesterday")

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert option in ran.stderr
