from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from typer.testing import CliRunner, Result

from jotty.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

APP = """
from __future__ import annotations

from jotty.core.orchestration import Conductor, actor


@actor
async def greet(goal: str, name: str = "nobody"):
    print("an actor prints")
    yield f"Hello {name}, "
    yield "welcome.\\n"


@actor
async def count(goal: str, numbers: list[int] | None = None) -> int:
    return sum(numbers or [])


@actor
async def reply(greet: str, count: int, fail: bool = False):
    if fail:
        raise KeyError("boom")
    yield greet
    yield f"The sum is {count}."


conductor = Conductor([greet, count, reply])
"""


class Jotty(Protocol):
    """Runs a command line in this process."""

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result: ...


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what a command imported, so that the next test's app is a fresh one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("JOTTY_QUEUE", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(sys.executable).parent.parent not in Path(file).parents:
            del sys.modules[name]


@pytest.fixture
def jotty() -> Jotty:
    runner = CliRunner()

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
        return runner.invoke(app, list(arguments), env=env)

    return run


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    path = tmp_path / "greeting.py"
    path.write_text(APP)
    return path


@pytest.fixture
def queue_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def command() -> str:
    """Return the installed command, for what only a process of its own can show."""
    return str(Path(sys.executable).with_name("jotty"))


@pytest.fixture
def start(command: str, tmp_path: Path) -> Iterator[Start]:
    """Start a command as a process of its own, which is gone when the test is over."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [command, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


class Start(Protocol):
    """Starts a command line in a process of its own."""

    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...
