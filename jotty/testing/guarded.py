"""Runs the suite in a process of its own, which is ended when a test hangs; the others are run in another."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from jotty.core.queue import load_backend

from .fresh import FreshStores
from .trial import Finding, Trial, run_trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

__all__ = ["GuardedTrial", "Progress", "run_guarded", "serve", "trial_of"]

# The path first: it may be what leads to jotty, and to a backend. Then pytest, which explains assertions.
PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])["path"]
import pytest
from jotty.testing.guarded import serve
serve()
"""
GONE: Final = 2.0  # seconds that what was killed has for vanishing


@attrs.frozen(kw_only=True)
class GuardedTrial:
    """What to try, and for how long.

    Attributes:
        url: A backend: see `FreshStores.beside`.
        rules: Only these ("C18", "seam"); None for all.
        quick: As of `Trial`.
        timeout: Seconds after which a test has failed that is not over, with all its fixtures.
    """

    url: str
    rules: Sequence[str] | None = None
    quick: bool = False
    timeout: float = 300.0


class Progress(Protocol):
    """Is told how far it is."""

    def begin(self, test: str, number: int) -> object:
        """Hear that a test begins, and how many there are in all."""
        ...

    def tell(self, finding: Finding) -> object:
        """Hear what a test came to."""
        ...


def run_guarded(trial: GuardedTrial, progress: Progress) -> list[Finding]:
    """Run the suite, and return what each test came to.

    A test that is not over in time, or that ends its process, has failed. Nothing is left behind but what
    the backend leaves outside of the directory that it was given. An interrupt ends all of it at once.

    Raises:
        RuntimeError: The suite could not be run; says why.
        KeyboardInterrupt: It was interrupted.
    """
    directory = FreshStores.beside(trial.url).directory
    findings: list[Finding] = []
    with TemporaryDirectory(prefix="jotty-conformance-", dir=directory) as made:
        run = _Run(trial, Path(made).resolve(), progress, findings)
        while not run.is_over:
            run.go_on()
    return findings


class _Run:
    """A run of the suite, by one process after the other."""

    def __init__(
        self, trial: GuardedTrial, directory: Path, progress: Progress, findings: list[Finding]
    ) -> None:
        self.is_over = False
        self._trial = trial
        self._directory = directory
        self._progress = progress
        self._findings = findings
        self._test = ""
        self._began = 0.0
        self._number = 0

    def go_on(self) -> None:
        """Run what is left, until the end or until a test ends the process."""
        done = sorted({one.test for one in self._findings})
        order = attrs.asdict(self._trial) | {
            "directory": str(self._directory),
            "done": done,
            "path": sys.path,
        }
        self._test = ""
        with _process([sys.executable, "-c", PROGRAM, json.dumps(order)]) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self._hear(json.loads(line))
            code = process.wait()
        if not self.is_over:
            self._note_ended(code)

    def _hear(self, told: dict[str, Any]) -> None:
        match told:
            case {"begins": test, "number": number}:
                self._test, self._number, self._began = test, number, time.monotonic()
                self._progress.begin(test, number)
            case {"finding": finding}:
                self._note(Finding(**finding))
            case {"error": text}:
                raise RuntimeError(text)
            case _:
                self.is_over = True

    def _note(self, finding: Finding) -> None:
        self._findings.append(finding)
        self._progress.tell(finding)

    def _note_ended(self, code: int) -> None:
        if not self._test:
            raise RuntimeError(
                f"The process of the suite ended before its first test, with exit code {code}."
            )
        took = time.monotonic() - self._began
        text = f"It ended the process, with exit code {code}."
        if took >= self._trial.timeout:
            text = f"It was not over within {self._trial.timeout:g} s."
        self._note(Finding(self._test, "failed", text, took))
        self.is_over = len({one.test for one in self._findings}) == self._number


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process that an interrupt of this one does not reach; it, and all it started, are gone then."""
    process = subprocess.Popen(  # noqa: S603 - it is this Python
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if not hasattr(os, "killpg"):
        process.kill()
        return
    deadline = time.monotonic() + GONE
    with suppress(ProcessLookupError, PermissionError):  # which macOS raises for what is dead already
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < deadline:  # what it had started, and could write where all is to be removed
            os.killpg(process.pid, 0)
            time.sleep(0.01)


# In the other process


def serve() -> None:
    """Run the trial that the only argument tells of, and tell on standard output what becomes of it."""
    order = json.loads(sys.argv[1])
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is for people
    sys.stdout = sys.stderr
    with Path(os.devnull).open("w", encoding="ascii") as nowhere:
        try:
            run_trial(trial_of(order, channel, nowhere))
        except RuntimeError as failure:
            _tell(channel, error=str(failure))
        else:
            _tell(channel, over=True)
    os._exit(0)  # a thread that a backend has left may wait for ever


def trial_of(order: dict[str, Any], channel: TextIO, nowhere: TextIO) -> Trial:
    """Return the trial that is to be run in this process, which a test that takes too long is to end.

    Args:
        order: What was ordered.
        channel: Where to tell of it.
        nowhere: A file for what Python then says of its threads.
    """
    stores = FreshStores.beside(order["url"])
    timeout = order["timeout"]

    def begin(test: str, number: int) -> None:
        _tell(channel, begins=test, number=number)
        faulthandler.dump_traceback_later(timeout, exit=True, file=nowhere)

    return Trial(
        open_backend=stores.opener,
        directory=Path(order["directory"]),
        rules=order["rules"],
        quick=order["quick"],
        points=load_backend(stores.scheme).points,
        done=order["done"],
        begins=begin,
        progress=lambda finding, _: _tell(channel, finding=attrs.asdict(finding)),
    )


def _tell(channel: TextIO, **what: Any) -> None:
    try:
        channel.write(json.dumps(what) + "\n")
    except BrokenPipeError:
        os._exit(1)  # whoever asked is gone
