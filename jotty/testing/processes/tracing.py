"""Watching a process's system calls by strace, and killing it at one of them (Linux)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Process

__all__ = ["SYNCS", "WRITES", "Trace", "is_traceable", "traced"]

# What changes a disk, or who may. The question mark is for those that not every machine has.
WRITES: Final = (
    *("write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync", "flock"),
    *("?unlink", "unlinkat", "?rename", "?renameat", "?renameat2", "?link", "?linkat", "?mkdir", "mkdirat"),
)
SYNCS: Final = ("fsync", "fdatasync", "sync_file_range", "?sync", "syncfs")
_PATIENCE: Final = 10.0


def is_traceable() -> bool:
    """Whether this machine has strace, and lets us use it."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return False
    tried = subprocess.run(["strace", "-qq", "true"], capture_output=True, check=False)  # noqa: S607 - see above
    return tried.returncode == 0


class Trace:
    """What strace has written.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def lines(self) -> list[str]:
        """The system calls in their order, each with the thread before it and the paths of its files."""
        return self._path.read_text(errors="replace").splitlines()

    def places(self) -> list[tuple[str, int]]:
        """Return each call by its name and its number among those of that name and thread, in their order."""
        counts: Counter[tuple[str, str]] = Counter()
        places: dict[tuple[str, int], None] = {}
        for line in self.lines:
            if found := re.match(r"(\d+) +([a-z_0-9]+)\(", line):
                counts[found[1], found[2]] += 1
                places[found[2], counts[found[1], found[2]]] = None
        return list(places)


@contextmanager
def traced(
    process: Process, calls: tuple[str, ...], *, kill_at: tuple[str, int] | None = None
) -> Iterator[Trace]:
    """Trace a process's calls within the block, until the process ends.

    Args:
        process: The process; it must end within the block.
        calls: Which system calls.
        kill_at: The process is killed as one of its threads makes its n-th call of this name.
    """
    path = process.errors.with_suffix(".trace")
    names = ",".join(calls)
    command = ["strace", "-f", "-qq", "-y", "-s", "200", "-o", str(path), "-e", f"trace={names}"]
    if kill_at is not None:
        command += ["-e", f"inject={kill_at[0]}:signal=KILL:when={kill_at[1]}"]
    tracer = subprocess.Popen([*command, "-p", str(process.popen.pid)], stderr=subprocess.PIPE)  # noqa: S603
    try:
        _wait_until_attached(process, tracer)
        yield Trace(path)
        tracer.wait(_PATIENCE)
    finally:
        tracer.kill()
        tracer.communicate()


def _wait_until_attached(process: Process, tracer: subprocess.Popen[bytes]) -> None:
    """Return when each thread is traced, or when one that was has ended the process already."""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive and not _is_traced(process.popen.pid):
        assert tracer.poll() is None or not process.is_alive, "strace could not attach itself"
        assert time.monotonic() < deadline, "strace did not attach itself"
        time.sleep(0.005)


def _is_traced(pid: int) -> bool:
    try:
        states = [status.read_text() for status in Path(f"/proc/{pid}/task").glob("*/status")]
    except OSError:  # a thread ended as it was looked at
        return False
    return not any("TracerPid:\t0" in state for state in states)
