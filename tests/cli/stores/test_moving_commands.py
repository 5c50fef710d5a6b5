from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import NewTask, Ref, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.stores.conftest import Store

GOALS = (NewTask("a"), NewTask("b"), NewTask("c"))


def test_several_tasks_are_cancelled_and_one_that_cannot_be_stops_no_other(store: Store) -> None:
    first, second, third = store.enqueue(*GOALS)
    store.jotty("cancel", second)

    ran = store.jotty("cancel", first, second, "nobody", third)

    assert 1 == ran.exit_code
    assert [f"{first} cancelled", f"{third} cancelled"] == ran.stdout.splitlines()
    assert f"Error: Task {second} is cancelled already.\n" in ran.stderr
    assert "'nobody'" in ran.stderr
    assert ran.stderr.endswith("2 cancelled, 2 not.\n")
    assert ["cancelled"] * 3 == store.states(first, second, third)


@pytest.mark.parametrize("command", [["cancel", "--all"], ["retry", "--failed"]])
def test_a_task_whose_payload_is_damaged_stops_no_other(
    store_at: Callable[[str], Store], tmp_path: Path, command: list[str]
) -> None:
    store = store_at(f"file:///{tmp_path / 'store'}")
    ids = store.enqueue(*GOALS) if command[0] == "cancel" else store.fail(*GOALS)
    (payload,) = tmp_path.rglob(f"*{ids[0]}.payload.json")
    payload.write_bytes(b"garbage")

    ran = store.jotty(*command)
    states = {head["id"]: head["status"] for head in store.read("list")}

    assert 0 == ran.exit_code
    assert dict.fromkeys(ids, "cancelled" if command[0] == "cancel" else "pending") == states


def test_where_none_of_several_tasks_is_known_the_exit_code_says_so(store: Store) -> None:
    store.enqueue(*GOALS)

    assert 3 == store.jotty("cancel", "nobody", "nobody else").exit_code


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["--lane", "other"], ["pending", "cancelled", "backlog"]),
        (["--tag", "t"], ["cancelled", "pending", "backlog"]),
        (["--key", "k"], ["pending", "cancelled", "backlog"]),
        (["--status", "backlog"], ["pending", "pending", "cancelled"]),
        (["--status", "backlog", "--status", "pending"], ["cancelled"] * 3),
        (["--status", "pending", "--lane", "default"], ["cancelled", "pending", "backlog"]),
        (["--all"], ["cancelled"] * 3),
        (["--all", "--lane", "nowhere"], ["pending", "pending", "backlog"]),
    ],
)
def test_tasks_are_cancelled_by_what_they_are_like(
    store: Store, conditions: list[str], expected: list[str]
) -> None:
    ids = store.enqueue(
        NewTask("a", tags=["t"]), NewTask("b", lane="other", key="k"), NewTask("c", status="backlog")
    )
    before = store.states(*ids)

    tried = store.jotty("cancel", *conditions, "--dry-run")
    after_trial = store.states(*ids)
    ran = store.jotty("cancel", *conditions)

    assert expected == store.states(*ids)
    assert before == after_trial
    number = sum(before != after for before, after in zip(before, expected, strict=True))
    assert (0, f"{number} would be cancelled.\n") == (tried.exit_code, tried.stderr)
    assert (0, f"{number} cancelled.\n") == (ran.exit_code, ran.stderr)
    assert number == len(ran.stdout.splitlines()) == len(tried.stdout.splitlines())


def test_a_task_is_cancelled_before_those_it_waits_for_so_that_it_does_not_fail(store: Store) -> None:
    ids = store.enqueue(NewTask("a"), NewTask("b", depends_on=[Ref(0)]))

    ran = store.jotty("cancel", "--all")

    assert 0 == ran.exit_code
    assert ["cancelled", "cancelled"] == store.states(*ids)


def test_a_running_task_is_asked_to_stop(store: Store) -> None:
    (task_id,) = store.enqueue(NewTask("a"))
    store.do(lambda queue: queue.claim(worker="w"))

    ran = store.jotty("cancel", "--status", "in_progress")

    assert f"{task_id} asked to stop\n" == ran.stdout
    assert store.get(task_id).cancel_requested


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["--failed"], ["pending", "pending", "cancelled"]),
        (["--cancelled"], ["failed", "failed", "pending"]),
        (["--failed", "--cancelled"], ["pending", "pending", "pending"]),
        (["--all"], ["pending", "pending", "pending"]),
        (["--failed", "--lane", "other"], ["failed", "pending", "cancelled"]),
        (["--failed", "--tag", "t"], ["pending", "failed", "cancelled"]),
        (["--failed", "--key", "k"], ["failed", "pending", "cancelled"]),
        (["--all", "--since", "1h"], ["pending", "pending", "pending"]),
        (["--all", "--since", "0s"], ["failed", "failed", "cancelled"]),
    ],
)
def test_tasks_are_retried_by_what_they_are_like(
    store: Store, conditions: list[str], expected: list[str]
) -> None:
    failed = store.fail(NewTask("a", tags=["t"]), NewTask("b", lane="other", key="k"))
    (cancelled,) = store.enqueue(NewTask("c"))
    store.jotty("cancel", cancelled)

    ran = store.jotty("retry", *conditions)

    assert expected == store.states(*failed, cancelled)
    assert (0, f"{expected.count('pending')} retried.\n") == (ran.exit_code, ran.stderr)


def test_a_failed_task_and_those_that_failed_with_it_are_retried_together(store: Store) -> None:
    ids = store.fail(NewTask("a"), NewTask("b", depends_on=[Ref(0)]))
    failed = store.states(*ids)

    ran = store.jotty("retry", "--failed")

    assert ["failed", "failed"] == failed
    assert 0 == ran.exit_code
    assert ["pending", "blocked"] == store.states(*ids)


def test_a_task_that_cannot_be_retried_is_said_and_stops_no_other(store: Store) -> None:
    ids = store.fail(
        NewTask("a", lane="other"),
        NewTask("b", lane="other"),
        NewTask("c", depends_on=[Ref(0)]),
        NewTask("d"),
    )

    ran = store.jotty("retry", "--failed", "--lane", "default")
    document = store.jotty("retry", "--failed", "--lane", "default", "--json")

    assert 1 == ran.exit_code
    assert f"it depends on {ids[0]}, which is failed" in ran.stderr
    assert f"{ids[3]} pending\n" == ran.stdout
    assert ["failed", "failed", "failed", "pending"] == store.states(*ids)
    assert 1 == document.exit_code
    assert f'"id": "{ids[2]}"' in document.stdout.partition('"failed"')[2]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["--all"], ["pending", "pending", "blocked"]),
        (["--all", "--lane", "default"], ["suggested", "pending", "blocked"]),
        (["--lane", "other"], ["pending", "backlog", "backlog"]),
        (["--tag", "t"], ["suggested", "pending", "backlog"]),
        (["--backlog", "--all"], ["backlog", "backlog", "backlog"]),
        (["--backlog", "--tag", "t"], ["suggested", "backlog", "backlog"]),
    ],
)
def test_tasks_are_accepted_by_what_they_are_like(
    store: Store, conditions: list[str], expected: list[str]
) -> None:
    ids = store.enqueue(
        NewTask("a", status=TaskStatus.SUGGESTED, lane="other"),
        NewTask("b", status=TaskStatus.BACKLOG, tags=["t"]),
        NewTask("c", status=TaskStatus.BACKLOG, depends_on=[Ref(1)]),
    )

    ran = store.jotty("accept", *conditions)

    assert 0 == ran.exit_code
    assert expected == store.states(*ids)


def test_a_suggested_task_is_accepted_to_the_backlog_and_then_to_run(store: Store) -> None:
    (task_id,) = store.enqueue(NewTask("a", status="suggested"))

    to_backlog = store.jotty("accept", task_id, "--backlog")
    to_run = store.jotty("accept", task_id)
    again = store.jotty("accept", task_id)

    assert (0, f"{task_id} backlog\n", "") == (to_backlog.exit_code, to_backlog.stdout, to_backlog.stderr)
    assert (0, f"{task_id} pending\n") == (to_run.exit_code, to_run.stdout)
    assert (1, "") == (again.exit_code, again.stdout)
    assert "only suggested and backlog tasks" in again.stderr


def test_only_tasks_that_are_over_are_deleted(store: Store) -> None:
    live, gone, other = store.enqueue(*GOALS)
    store.jotty("cancel", gone, other)

    ran = store.jotty("delete", gone, live, other)
    alone = store.jotty("delete", live)

    assert 1 == ran.exit_code
    assert [f"{gone} deleted", f"{other} deleted"] == ran.stdout.splitlines()
    assert f"Cannot delete task {live}" in ran.stderr
    assert ["pending", "gone", "gone"] == store.states(live, gone, other)
    assert (1, "") == (alone.exit_code, alone.stdout)
    assert 3 == store.jotty("delete", gone).exit_code


def test_what_was_done_is_told_as_json(store: Store) -> None:
    first, second, _ = store.enqueue(*GOALS)

    tried = store.read("cancel", first, "--dry-run")
    done = store.read("cancel", first)
    both = store.jotty("cancel", first, second, "--json")

    expected = {"id": first, "status": "pending", "cancel_requested": False}
    assert {"tasks": [expected], "failed": [], "dry_run": True} == tried
    assert {"tasks": [{**expected, "status": "cancelled"}], "failed": [], "dry_run": False} == done
    assert 1 == both.exit_code
    assert f'"id": "{second}"' in both.stdout.partition('"failed"')[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cancel"], "--all"),
        (["retry"], "--all"),
        (["accept"], "--all"),
        (["delete"], "Missing argument"),
        (["cancel", "id", "--all"], "not both"),
        (["retry", "id", "--failed"], "not both"),
        (["accept", "id", "--lane", "l"], "not both"),
        (["retry", "--lane", "l"], "--failed"),
        (["cancel", "--status", "failed"], "failed are over"),
        (["cancel", "--lane", " l"], "lane must be"),
        (["retry", "--failed", "--since", "yesterday"], "7d"),
        (["retry", "--failed", "--since", "99999d"], "a century"),
    ],
)
def test_nothing_is_done_where_it_is_not_clear_with_what(
    store: Store, arguments: list[str], words: str
) -> None:
    ids = store.enqueue(NewTask("a"), NewTask("b", status="backlog"))

    ran = store.jotty(*arguments)

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert words in ran.stderr
    assert ["pending", "backlog"] == store.states(*ids)
