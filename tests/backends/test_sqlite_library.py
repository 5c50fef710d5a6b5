"""What is said of the SQLite library."""

from __future__ import annotations

import logging

import pytest

from jotty_backends.sqlite.library import has_wal_reset_bug, tell_of_wal_reset_bug


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: tuple[int, ...], expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert expected == has_wal_reset_bug(version)


def test_the_bug_is_told_once_a_process(caplog: pytest.LogCaptureFixture) -> None:
    tell_of_wal_reset_bug.cache_clear()
    with caplog.at_level(logging.INFO, "jotty.queue.sqlite"):
        tell_of_wal_reset_bug((3, 40, 1))
        tell_of_wal_reset_bug((3, 40, 1))
        tell_of_wal_reset_bug((3, 51, 3))

    assert 1 == len(caplog.records)
    assert "SQLite 3.40.1 has the WAL-reset bug" in caplog.text
