from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from threading import Timer
from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.stores.conftest import Store

CLEARED = "\x1b[2J"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


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


ASKS = """
import anyio

from jotty.core.orchestration import Conductor


async def approve(goal, ctx):
    return await ctx.ask("Publish it?", key="ok", options=["yes", 2])


async def review(approve, ctx):
    return await ctx.ask("Any remark?", timeout={timeout}, default="none")


async def last(review, approve):
    await anyio.sleep(0.3)  # the board is drawn again meanwhile
    return [approve, review]


conductor = Conductor([approve, review, last])
"""


@pytest.fixture
def asking(tmp_path: Path, command: str) -> Iterator[Callable[..., Terminal]]:
    """Start a run that asks, up to its first question."""
    started: list[Terminal] = []

    def run(*, timeout: float | None = None) -> Terminal:
        (tmp_path / "asks.py").write_text(ASKS.format(timeout=timeout))
        terminal = Terminal([command, "run", str(tmp_path / "asks.py"), "Publish"])
        started.append(terminal)
        assert "approve asks: Publish it? (yes, 2)" in terminal.read(until="\n> ")
        return terminal

    yield run
    for terminal in started:
        terminal.close()


def test_a_run_asks_until_it_has_an_answer_that_is_one(asking: Callable[..., Terminal]) -> None:
    terminal = asking()
    terminal.type("perhaps\n")
    refused = terminal.read(until="\n> ")
    terminal.type("\n2\n")
    terminal.read(until="review asks: Any remark?")
    terminal.type("mind the gap\n")
    rest = terminal.read()

    assert "'perhaps' is none of: yes, 2" in refused
    assert re.search(r"\[\s*2,\s*\"mind the gap\"\s*\]", rest)
    assert 0 == terminal.process.wait(timeout=20)


def test_the_end_of_the_input_is_no_answer(asking: Callable[..., Terminal]) -> None:
    terminal = asking()
    terminal.type("\x04")
    shown = terminal.read()

    assert 1 == terminal.process.wait(timeout=20)
    assert "Error: An actor asks 'Publish it?' (key 'ok'), and nobody can answer." in shown


def test_a_question_that_expires_is_asked_no_more(asking: Callable[..., Terminal]) -> None:
    terminal = asking(timeout=0.2)
    terminal.type("yes\n")
    shown = terminal.read()

    assert 0 == terminal.process.wait(timeout=20)
    assert re.search(r"\[\s*\"yes\",\s*\"none\"\s*\]", shown)


def test_a_signal_ends_a_run_that_asks(asking: Callable[..., Terminal]) -> None:
    terminal = asking()
    terminal.process.send_signal(signal.SIGINT)
    shown = terminal.read()

    assert 130 == terminal.process.wait(timeout=20)
    assert "Interrupted: the run was cancelled." in shown


def test_steps_have_bars(store: Store, command: str, tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(ASKS.format(timeout=None))
    task_id = store.jotty("enqueue", str(tmp_path / "asks.py"), "Publish").stdout.strip()
    store.jotty("worker", str(tmp_path / "asks.py"), "--drain")
    terminal = Terminal([command, "show", task_id, "--steps", "-q", store.url])

    shown = ESCAPES.sub("", terminal.read())
    terminal.close()

    assert re.search("approve .*waits.*░.*asks ok: Publish it\\?", shown)


def test_who_follows_a_task_that_asks_sees_that_and_how_to_answer(
    store: Store, command: str, tmp_path: Path
) -> None:
    (tmp_path / "asks.py").write_text(ASKS.format(timeout=None))
    task_id = store.jotty("enqueue", str(tmp_path / "asks.py"), "Publish").stdout.strip()
    store.jotty("worker", str(tmp_path / "asks.py"), "--drain")
    terminal = Terminal([command, "tail", task_id, "-q", store.url])

    shown = terminal.read(until="Publish it? (yes, 2)")
    store.jotty("cancel", task_id)
    shown = ESCAPES.sub("", shown + terminal.read())
    terminal.close()

    assert f"Answer it with: jotty answer {task_id} ok VALUE" in shown
    assert re.search(r"\? approve +asking", shown)
    assert re.search("✗ approve +cancelled", shown)
