from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import typer

from jotty.cli.durations import parse_duration
from jotty.core.queue import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Jotty
    from tests.cli.stores.conftest import Store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text: str, expected: timedelta) -> None:
    assert expected == parse_duration(text)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7w", "7 d", "1d12h", "1e9d", "nan s", "99999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_purge_deletes_what_has_been_over_for_so_long_and_says_how_many(store: Store) -> None:
    done = store.finish(NewTask("a"), NewTask("b"))
    (waiting,) = store.enqueue(NewTask("c"))

    early = store.jotty("purge", "--older-than", "1h")
    after_early = store.states(*done)
    ran = store.jotty("purge", "--older-than", "0s")

    assert (0, "0 deleted\n") == (early.exit_code, early.stdout)
    assert ["completed", "completed"] == after_early
    assert (0, "2 deleted\n") == (ran.exit_code, ran.stdout)
    assert ["gone", "gone", "pending"] == store.states(*done, waiting)
    assert {"deleted": 0} == store.read("purge", "--older-than", "0s")


@pytest.mark.parametrize("arguments", [[], ["--older-than", "7"], ["--older-than", "forever"]])
def test_purge_must_be_told_an_age(store: Store, arguments: list[str]) -> None:
    done = store.finish(NewTask("a"))

    ran = store.jotty("purge", *arguments)

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert "--older-than" in ran.stderr
    assert ["completed"] == store.states(*done)


def test_a_store_of_this_version_needs_no_migration(store: Store) -> None:
    ids = store.enqueue(NewTask("a"))

    ran = store.jotty("migrate")
    document = store.read("migrate", "--dry-run")

    assert (0, "") == (ran.exit_code, ran.stdout)
    assert "Nothing is to be done" in ran.stderr
    assert ([], True) == (document["steps"], document["dry_run"])
    assert document["found"] == document["wanted"]
    assert ["pending"] == store.states(*ids)


@pytest.fixture
def older(store_at: Callable[[str], Store], tmp_path: Path) -> Store:
    """Return a SQLite store whose file a test may make older."""
    return store_at(f"sqlite:///{tmp_path / 'older.db'}")


def test_an_older_store_is_refused_with_the_remedy_and_migrated_by_it(older: Store, tmp_path: Path) -> None:
    ids = older.enqueue(NewTask("a"))
    with closing(sqlite3.connect(tmp_path / "older.db")) as database:
        database.executescript("DROP TABLE workers; PRAGMA user_version = 1")

    refused = older.jotty("list")
    tried = older.jotty("migrate", "--dry-run")
    still_refused = older.jotty("list")
    migrated = older.jotty("migrate")
    again = older.jotty("migrate")

    assert 75 == refused.exit_code
    assert "jotty migrate" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (0, "add the table of workers\n") == (tried.exit_code, tried.stdout)
    assert "would be brought from schema 1 to 2" in tried.stderr
    assert 75 == still_refused.exit_code
    assert (0, "add the table of workers\n") == (migrated.exit_code, migrated.stdout)
    assert "was brought from schema 1 to 2" in migrated.stderr
    assert (0, "") == (again.exit_code, again.stdout)
    assert ["pending"] == older.states(*ids)


def test_a_newer_store_is_left_alone(older: Store, tmp_path: Path) -> None:
    older.enqueue(NewTask("a"))
    with closing(sqlite3.connect(tmp_path / "older.db")) as database:
        database.execute("PRAGMA user_version = 999")
        database.commit()
    before = (tmp_path / "older.db").read_bytes()

    ran = older.jotty("migrate")

    assert (75, "") == (ran.exit_code, ran.stdout)
    assert "999" in ran.stderr
    assert "matching jotty" in ran.stderr
    assert before == (tmp_path / "older.db").read_bytes()


def test_migrate_creates_no_store(jotty: Jotty, queue_url: str, tmp_path: Path) -> None:
    ran = jotty("migrate", "-q", queue_url)

    assert 75 == ran.exit_code
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "JOTTY_QUEUE"),
        (["-q", "memory:"], "memory of one process"),
        (["-q", "tasks.db"], "like 'sqlite:"),
    ],
)
def test_migrate_must_be_told_a_store_that_is_kept(jotty: Jotty, arguments: list[str], words: str) -> None:
    ran = jotty("migrate", *arguments)

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert words in ran.stderr
