"""The rules marked [D], for stores that are files: a disk that is full, read-only or damaged."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from jotty.testing.processes.caller import ALL_CALLS
from jotty.testing.processes.tracing import SYNCS, is_traceable, traced

from .process_points import go_on
from .process_rules import RealRules, of_kind, with_option
from .terms import leave_out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from jotty.core.queue import TaskQueue
    from jotty.testing.history import Event
    from jotty.testing.processes import Harness

__all__ = ["DiskRules"]

SOON: Final = 5.0  # seconds
HOSTILE: Final = (
    "../../../../hostile",
    "a/b",
    "..",
    "'; DROP TABLE tasks; --",
    "%2e%2e%2fhostile",
    "nul",
)
# As arguments of sh, before the directory and the command.
TINY_DISK: Final = (
    'mount -t tmpfs -o size=2m none "$0" && head -c 500000 /dev/zero > "$0/ballast" && exec "$@"'
)
READ_ONLY: Final = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
# The calls that change a disk, and what strace prints of them: a path, and the name of what is made there.
CHANGES: Final = ("write", "pwrite64", "writev", "?pwritev", "?open", "openat", "?mkdir", "mkdirat")
SYNC: Final = re.compile(r"sync\w*\(\d+<([^>]*)>")
WRITE: Final = re.compile(r"write\w*\(\d+<([^>]*)>")
MAKING: Final = re.compile(r'(?:openat|mkdirat)\(\w+(?:<([^>]*)>)?, "([^"]*)", (?:\w+\|)*(?:O_CREAT|0\d)')
OPEN_TO_ALL: Final = 'umask 0 && exec "$@"'


class DiskRules(RealRules):
    """C41, C44 and C46 to C48 for a store in files, by real processes and real faults.

    For backends that declare the capability `files`: all that the store is stands below `store_directory`.

    Attributes:
        is_checked: Whether the store finds out every damage to what it reads (by checksums).
        damages: How many damaged copies to look at.
    """

    requires = frozenset({"processes", "files"})
    is_checked: ClassVar[bool] = False
    damages: ClassVar[int] = 25

    @pytest.mark.parametrize(("limit", "size"), [(40_000, 50_000), (60_000, 10), (250_000, 10)])
    def test_c46_a_full_disk_is_told_and_loses_nothing(self, harness: Harness, limit: int, size: int) -> None:
        """C46, C41: disk full: StorageError within 5 s, nothing lost, the same handle works later."""
        harness.finish(harness.start("filler", limit=limit, size=size))
        verdict = harness.verdict()

        _told_soon_and_lost_nothing(harness.events())
        assert verdict.ok, verdict
        go_on(harness)

    def test_c46_a_disk_without_room_is_told_and_loses_nothing(
        self, request: pytest.FixtureRequest, harness: Harness, store_directory: Path
    ) -> None:
        """C46, C41: the same on a file system of 2 MiB, which is given room again."""
        if not _has_mounts():
            leave_out(request, "no private mounts")
        ballast = store_directory / "ballast"
        through = _in_mounts_of_its_own(TINY_DISK, store_directory)
        harness.finish(harness.start("filler", through=through, ballast=str(ballast)))

        _told_soon_and_lost_nothing(harness.events())

    def test_c46_a_read_only_directory_is_told_and_nothing_is_written(
        self, request: pytest.FixtureRequest, harness: Harness, store_directory: Path
    ) -> None:
        """C46, C41: read-only: StorageError within 5 s, nothing lost."""
        if not _has_mounts():
            leave_out(request, "no private mounts")
        harness.finish(harness.start("caller", calls=ALL_CALLS))
        before = contents(store_directory)
        calls = ["enqueue", "claim", "enqueue_many"]
        through = _in_mounts_of_its_own(READ_ONLY, store_directory)
        process = harness.start("caller", through=through, calls=calls)
        harness.finish(process)
        told = [event for event in harness.events() if event.process == process.name]
        begun, refused = of_kind(told, "calling"), of_kind(told, "error")

        assert (3, []) == (len(refused), of_kind(told, "called"))
        assert all(error.time - call.time < SOON * 1e6 for call, error in zip(begun, refused, strict=True))
        assert before == contents(store_directory)
        go_on(harness)

    @pytest.mark.parametrize("call", ["enqueue", "claim", "turn", "record", "complete"])
    def test_c44_power_means_a_sync_before_the_return(
        self, request: pytest.FixtureRequest, harness: Harness, store_directory: Path, call: str
    ) -> None:
        """C44: level "power": fsync of file and directory before return.

        Of each file that the call wrote, after its last byte, and of each directory in which it made one.
        """
        if not is_traceable():
            leave_out(request, "no strace")
        before = {"enqueue": ["stats"], "claim": ["enqueue"]}.get(call, ["enqueue_many", "claim"])
        process = harness.start(
            "caller",
            url=with_option(harness.url, "durability=power"),
            before=before,
            calls=[call],
            waits=True,
        )
        harness.until("ready", process)
        was_there = set(store_directory.rglob("*"))
        with traced(process, (*SYNCS, *CHANGES)) as trace:
            process.send("go")
            harness.finish(process)
        made = {str(path) for path in set(store_directory.rglob("*")) - was_there}
        lines = _during(call, trace.lines)

        assert set() != _paths(SYNC, lines)
        assert set() == _unsynced(lines, store_directory, made)

    def test_c44_power_means_a_sync_of_the_directory_of_a_new_store(
        self, request: pytest.FixtureRequest, harness: Harness, store_directory: Path
    ) -> None:
        """C44: level "power": fsync of file and directory before return."""
        if not is_traceable():
            leave_out(request, "no strace")
        url = with_option(harness.url, "durability=power")
        process = harness.start("caller", url=url, calls=["enqueue"], waits=True)
        harness.until("ready", process)
        with traced(process, (*SYNCS, "writev")) as trace:
            process.send("go")
            harness.finish(process)

        assert str(store_directory) in _paths(SYNC, _during("enqueue", trace.lines))

    def test_c47_damage_is_told_and_never_taken_for_a_new_store(
        self, harness: Harness, store_directory: Path, tmp_path: Path, random: Random
    ) -> None:
        """C47: damage: StoreCorrupt, never silently recreated."""
        harness.finish(
            harness.start("caller", calls=["enqueue_many", "claim", "record", "complete"], times=15)
        )
        goals = harness.ask(_goals)
        before: dict[str, dict[str, bytes]] = {}
        for number in range(self.damages):
            copy = tmp_path / f"damaged-{number}"
            shutil.copytree(store_directory, copy, symlinks=True)
            damage(copy, random)
            before[harness.url.replace(str(store_directory), str(copy))] = contents(copy)
        reader = harness.start("reader", urls=list(before), goals=goals)
        harness.finish(reader, timeout=60)
        told = of_kind(harness.events(), "read")

        assert list(before) == [event.details["url"] for event in told]
        for event in told:
            self._check_reading(event, len(goals))
            if event.details["opened"] != "opened":
                copy = tmp_path / event.details["url"].split(str(tmp_path))[1].split("/")[1]
                assert _without_locks(before[event.details["url"]]) == _without_locks(contents(copy))

    def _check_reading(self, event: Event, number: int) -> None:
        found, opened, stored = (event.details[name] for name in ("found", "opened", "stored"))
        errors = {*found, opened, stored} - {"same", "other", "missing", "opened", "stored"}

        assert errors <= {"StorageError", "StoreCorrupt", "SchemaError"}, event
        assert found.get("missing", 0) < number or errors, f"taken for a new store: {event}"
        if self.is_checked:
            assert 0 == found.get("other", 0), event

    def test_c48_only_the_owner_may_read_and_write_the_store(
        self, harness: Harness, store_directory: Path
    ) -> None:
        """C48: modes 0700 and 0600, whatever the umask."""
        process = harness.start(
            "caller", through=["sh", "-c", OPEN_TO_ALL, "sh"], calls=ALL_CALLS, before=["enqueue"], waits=True
        )
        harness.until("ready", process)
        modes = _modes(store_directory)
        process.send("go")
        harness.finish(process)
        modes |= _modes(store_directory)

        assert {"file": {0o600}, "directory": {0o700}} == {"directory": {0o700}} | modes

    def test_c48_no_symbolic_link_is_followed(
        self, harness: Harness, store_directory: Path, tmp_path: Path
    ) -> None:
        """C48: nothing outside the store's root, no symlink followed."""
        harness.finish(harness.start("caller", calls=["enqueue_many", "claim", "record", "complete"]))
        outside = tmp_path / "outside"
        for file in _files(store_directory):
            outside.write_bytes(content := file.read_bytes())
            file.unlink()
            file.symlink_to(outside)
            process = harness.start("caller", calls=["enqueue", "claim", "record", "complete"])
            harness.outlast(process)
            told = [event.kind for event in harness.events() if event.process == process.name]

            assert content == outside.read_bytes(), f"{file} was followed, after {told}"
            file.unlink()
            file.write_bytes(content)
            file.chmod(0o600)
        go_on(harness)

    def test_c48_no_name_leads_out_of_the_store(
        self, harness: Harness, store_directory: Path, tmp_path: Path
    ) -> None:
        """C48: no name reaches SQL or a path unescaped."""
        before = set(tmp_path.rglob("*"))

        async def live(queue: TaskQueue) -> list[str]:
            for name in HOSTILE:
                await queue.enqueue(name, lane=name, key=name, tags=[name], headers={name: name})
                (task,) = await queue.claim(worker=name, lanes=[name])
                await queue.record(task, [{"kind": name}])
                await queue.complete(task, {name: name})
            return [task.key or "" async for task in queue.tasks()]

        assert list(HOSTILE) == harness.ask(live)
        assert [] == [
            path for path in set(tmp_path.rglob("*")) - before if store_directory not in path.parents
        ]


# Faults


def damage(directory: Path, random: Random) -> None:
    """Spoil a file, most often the largest: garbage somewhere, zeros for a page, or the end cut off."""
    files = sorted(_files(directory), key=lambda one: one.stat().st_size)
    file = random.choice([files[-1], random.choice([one for one in files if one.stat().st_size > 100])])
    content = bytearray(file.read_bytes())
    kinds: Mapping[str, Callable[[bytearray], bytes]] = {
        "garbage": lambda whole: _overwritten(whole, random.randrange(len(whole)), random.randbytes(100)),
        "zeros": lambda whole: _overwritten(whole, random.randrange(len(whole)) & ~4095, bytes(4096)),
        "cut": lambda whole: bytes(whole[: random.randrange(len(whole))]),
    }
    file.write_bytes(kinds[random.choice(list(kinds))](content))


def _overwritten(whole: bytearray, at: int, what: bytes) -> bytes:
    end = min(at + len(what), len(whole))
    whole[at:end] = what[: end - at]
    return bytes(whole)


def _in_mounts_of_its_own(script: str, directory: Path) -> list[str]:
    return ["unshare", "-rm", "sh", "-c", script, str(directory)]


@cache
def _has_mounts() -> bool:
    """Whether a process here may have mounts of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - see above


# What is looked at


def contents(directory: Path) -> dict[str, bytes]:
    """Return what the files below a directory hold, but for that by which SQLite's readers meet."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in _files(directory)
        if not file.name.endswith("-shm")
    }


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


def _without_locks(found: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if "lock" not in name}


def _modes(directory: Path) -> dict[str, set[int]]:
    modes: dict[str, set[int]] = {}
    for path in directory.rglob("*"):
        kind = "directory" if path.is_dir() else "file"
        modes.setdefault(kind, set()).add(stat.S_IMODE(path.stat().st_mode))
    return modes


def _told_soon_and_lost_nothing(events: list[Event]) -> None:
    (full,), (went_on,) = of_kind(events, "full"), of_kind(events, "went on")
    stored = {event.task for event in of_kind(events, "enqueued")}
    slow = [event for event in [full, *of_kind(events, "tried")] if event.details["took"] > SOON]

    assert "NoneType" != full.details["cause"], "the driver's error must be the cause"
    assert [] == slow
    assert "completed" == went_on.details["status"]
    assert set() == stored - set(went_on.details["stored"])


def _during(call: str, lines: list[str]) -> list[str]:
    """Return what is between the two lines of history that a call has around it."""
    during: list[str] = []
    is_under_way = False
    for line in lines:
        if f'\\"call\\": \\"{call}\\"' in line and "calling" in line:
            is_under_way = True
        elif f'\\"call\\": \\"{call}\\"' in line and "called" in line:
            return during
        elif is_under_way:
            during.append(line)
    raise AssertionError(f"{call} is not in the trace: {os.linesep.join(lines)[-2000:]}")


def _paths(kind: re.Pattern[str], lines: list[str]) -> set[str]:
    return {found[1] for line in lines if (found := kind.search(line))}


def _unsynced(lines: list[str], directory: Path, made: set[str]) -> set[str]:
    """Return what was changed below a directory, and not synced since.

    Of a lock file nothing needs to last, nor of that by which SQLite's readers meet.
    """
    unsynced = {str(Path(path).parent) for path in made}
    for line in lines:
        if found := SYNC.search(line):
            unsynced.discard(found[1])
        elif found := WRITE.search(line):
            unsynced.add(found[1])
        elif (found := MAKING.search(line)) and str(path := Path(found[1] or "/", found[2])) in made:
            unsynced.add(str(path.parent))
    return {
        path
        for path in unsynced
        if Path(path).is_relative_to(directory)
        and "lock" not in Path(path).name
        and not path.endswith("-shm")
    }


async def _goals(queue: TaskQueue) -> dict[str, object]:
    return {task.id: task.goal async for task in queue.tasks()}
