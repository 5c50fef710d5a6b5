from __future__ import annotations

import os
import pty
import signal
import subprocess
from threading import Timer
from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import NewTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.stores.conftest import Store

CLEARED = "\x1b[2J"


class Terminal:
    """A command on a terminal."""

    def __init__(self, arguments: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        self.process = subprocess.Popen(
            arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._watchdog = Timer(30, self.process.kill)
        self._watchdog.start()

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def read(self, until: str = "", times: int = 1) -> str:
        """Read until the words have come so often, or to the end."""
        shown = b""
        while not (until and shown.count(until.encode()) >= times):
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # so Linux tells that the other end is closed
                break
            if not part:
                break
            shown += part
        return shown.decode()


@pytest.fixture
def queue_url(tmp_path: object) -> str:
    return f"sqlite:///{tmp_path}/store"


@pytest.fixture
def failed(store: Store) -> list[str]:
    return store.fail(NewTask("a"), NewTask("b"))


@pytest.fixture
def retrying(store: Store, failed: list[str], command: str) -> Iterator[Terminal]:
    """Start to retry all that failed, up to the question whether to go on."""
    terminal = Terminal([command, "retry", "--failed", "-q", store.url])
    assert "2 tasks would be retried. Go on? [y/N]: " in terminal.read("[y/N]: ")
    yield terminal
    terminal.close()


def test_many_tasks_are_moved_when_a_person_says_yes(
    retrying: Terminal, store: Store, failed: list[str]
) -> None:
    retrying.type("y\n")
    shown = retrying.read()

    assert 0 == retrying.process.wait(timeout=20)
    assert "2 retried." in shown
    assert ["pending", "pending"] == store.states(*failed)


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_nothing_is_done_when_a_person_does_not_say_yes(
    retrying: Terminal, store: Store, failed: list[str], answer: str
) -> None:
    retrying.type(answer)
    shown = retrying.read()

    assert 1 == retrying.process.wait(timeout=20)
    assert "Nothing was done." in shown
    assert ["failed", "failed"] == store.states(*failed)


def test_the_question_can_be_interrupted(retrying: Terminal, store: Store, failed: list[str]) -> None:
    retrying.process.send_signal(signal.SIGINT)

    assert 130 == retrying.process.wait(timeout=20)
    assert ["failed", "failed"] == store.states(*failed)


def test_nobody_is_asked_who_has_said_yes_before(store: Store, failed: list[str], command: str) -> None:
    terminal = Terminal([command, "retry", "--failed", "--yes", "-q", store.url])
    shown = terminal.read()
    terminal.close()

    assert "Go on?" not in shown
    assert ["pending", "pending"] == store.states(*failed)


def test_a_watched_status_is_redrawn(store: Store, command: str) -> None:
    store.enqueue(NewTask("a"))
    terminal = Terminal([command, "status", "--watch", "0.1", "-q", store.url])

    shown = terminal.read(CLEARED, times=3)
    terminal.process.send_signal(signal.SIGINT)
    code = terminal.process.wait(timeout=20)
    terminal.close()

    assert 130 == code
    assert shown.count("oldest ready") >= 2
