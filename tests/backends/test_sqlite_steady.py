"""The SQLite store has a time of its own, whatever becomes of the wall clock."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import (
    MICROSECONDS,
    SAVE_EVERY,
    ClaimRequest,
    Head,
    Record,
    SteadyClock,
    TaskStatus,
)
from jotty.core.queue.steady import Machine
from jotty.testing import VirtualClock
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

S = TaskStatus
SECOND = MICROSECONDS
HOUR = 3600 * SECOND
ONE = ClaimRequest(("default",), 1, "w", 30 * SECOND)


def new(task_id: str, **fields: Any) -> Record:
    return Record(Head(id=task_id, **fields), b"{}")


class FakeMachine(Machine):
    def __init__(self, boot: str, wall: int, uptime: int) -> None:
        self.boot, self.at, self.up = boot, wall, uptime

    def boot_id(self) -> str:
        return self.boot

    def wall(self) -> int:
        return self.at

    def uptime(self) -> int:
        return self.up


async def opened(path: Path, machine: Machine) -> SQLiteBackend:
    backend = SQLiteBackend(path, clock=SteadyClock(machine))
    await backend.open()
    return backend


async def test_processes_of_one_boot_agree_on_the_time_whatever_the_wall_clock_says(path: Path) -> None:
    one = await opened(path, FakeMachine("boot", wall=1000 * HOUR, uptime=HOUR))
    two = await opened(path, FakeMachine("boot", wall=999 * HOUR, uptime=HOUR + 7))

    assert (1000 * HOUR, 1000 * HOUR + 7) == (one.now(), two.now())
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize(
    ("wall", "expected"),
    [(1001 * HOUR, 1001 * HOUR), (2 * HOUR, 1000 * HOUR + 5 * SECOND + SAVE_EVERY)],
    ids=["forth", "back"],
)
@pytest.mark.parametrize("boot", ["another", ""])
async def test_the_time_of_a_new_boot_is_never_before_what_was_seen(
    path: Path, boot: str, wall: int, expected: int
) -> None:
    machine = FakeMachine("boot" if boot else "", wall=1000 * HOUR, uptime=HOUR)
    one = await opened(path, machine)
    machine.up += 5 * SECOND
    await one.insert([new("a")])
    await one.aclose()
    two = await opened(path, FakeMachine(boot, wall=wall, uptime=3))

    assert expected == two.now()
    await two.aclose()


async def test_a_jump_of_the_wall_clock_moves_no_lease(path: Path) -> None:
    machine = FakeMachine("boot", wall=1000 * HOUR, uptime=HOUR)
    backend = await opened(path, machine)
    await backend.insert([new("a")])
    machine.at += HOUR
    machine.up += SECOND
    (held,) = (await backend.claim(ONE)).records

    assert 1000 * HOUR + 31 * SECOND == held.head.lease_until
    await backend.aclose()


def test_the_machine_tells_the_time() -> None:
    machine = Machine()

    assert abs(machine.wall() - time.time_ns() // 1000) < SECOND
    assert 0 < machine.uptime() <= machine.uptime()
    assert machine.boot_id() == Machine().boot_id()


async def test_a_look_at_an_empty_store_commits_nothing(path: Path) -> None:
    """Else idle workers would wake each other, each look of one being news to the others."""
    clock = VirtualClock()
    backend = SQLiteBackend(path, clock=clock)
    await backend.open()
    with closing(sqlite3.connect(path)) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        for _ in range(3):
            await clock.advance(10 * SAVE_EVERY / SECOND)
            await backend.claim(ONE)

        assert before == other.execute("PRAGMA data_version").fetchone()
        await backend.insert([new("a")])
        assert before != other.execute("PRAGMA data_version").fetchone()
    await backend.aclose()
