"""On what a benchmark ran."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring import MICROSECONDS, Figures

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe", "load"]

PACKAGES: Final = ("jotty", "anyio", "attrs", "huey")
PAGE: Final = b"x" * 4096
SYNCS: Final = 200


def describe(directory: Path) -> dict[str, Any]:
    """Return machine, versions, and what it takes to write 4 KiB to this directory and sync them."""
    synced = _syncs(directory)
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load at the start": load(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, on asyncio",
        "sqlite": sqlite3.sqlite_version,
        **{package: _version(package) for package in PACKAGES},
        "fsync": f"4 KiB and fsync: {synced.median:.0f} µs median,"
        f" {min(synced.samples):.0f} min, {max(synced.samples):.0f} max",
    }


def load() -> str:
    """Return how many processes wanted a core in the last minute, ours included: more than cores is noise."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _syncs(directory: Path) -> Figures:
    path = directory / "synced"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return Figures(tuple(_timed_syncs(descriptor)))
    finally:
        os.close(descriptor)
        path.unlink()


def _timed_syncs(descriptor: int) -> Iterator[float]:
    for _ in range(SYNCS):
        started = time.perf_counter()
        os.write(descriptor, PAGE)
        os.fsync(descriptor)
        yield (time.perf_counter() - started) * MICROSECONDS
