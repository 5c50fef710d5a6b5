"""Runs the suite in this process, without a file of tests, and gives what each test came to."""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import pytest

from .fresh import Opener

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from jotty.core.queue import QueueBackend, TaskQueue

    from .clock import VirtualClock
    from .conformance import TaskQueueConformance

__all__ = ["Finding", "Trial", "run_trial"]

SUITE: Final = f"{__package__}.conformance"
# Neither the user's settings nor the user's plugins: a verdict is about the backend.
ENVIRONMENT: Final = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
OPTIONS: Final = (
    *("-p", "anyio.pytest_plugin", "-p", "_hypothesis_pytestplugin"),
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-s", "--tb=short"),
)


@attrs.frozen
class Finding:
    """What one test came to.

    Attributes:
        test: Its name, with its parameters.
        outcome: What became of it.
        text: Why it failed, or was left out.
        seconds: How long it took.
    """

    test: str
    outcome: Literal["passed", "failed", "left out"]
    text: str = ""
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Trial:
    """What to try, and how far.

    Attributes:
        open_backend: Gives, for a clock and an empty directory, what opens a fresh store again and again.
        queue_class: What is made of the backends.
        directory: Where to make all that the run takes, which is removed at its end; None for the system's
            own place for such files.
        rules: Only these, "seam" among them; None for all.
        points: The named points of the backend at which to kill processes.
        quick: Leave out what needs real processes, and try on one event loop only.
        stops_at_failure: Whether the first failure is enough.
        done: Tests, by the names of their findings, that are not to be run (again).
        begins: Told the name of each test that is about to run, with the number of all, those done included.
        progress: Told each finding as it is made, with that number.
    """

    open_backend: Callable[[VirtualClock, Path], Callable[[], QueueBackend]]
    queue_class: type[TaskQueue] | None = None
    directory: Path | None = None
    rules: Collection[str] | None = None
    points: Sequence[str] = ()
    quick: bool = False
    stops_at_failure: bool = False
    done: Collection[str] = ()
    begins: Callable[[str, int], object] = lambda test, number: None  # noqa: ARG005
    progress: Callable[[Finding, int], object] = lambda finding, number: None  # noqa: ARG005


def run_trial(trial: Trial) -> list[Finding]:
    """Run the suite in this process, and return what each test came to.

    Nothing is left behind but what the backend leaves outside of the directory that it was given.

    Raises:
        RuntimeError: pytest itself came to grief; says how.
        KeyboardInterrupt: It was interrupted.
    """
    said = io.StringIO()
    with TemporaryDirectory(prefix="jotty-conformance-", dir=trial.directory) as made:
        place = Path(made).resolve()
        plugin = _Plugin(trial)
        settings, suite = place / "pytest.ini", place / f"backend{_Plugin.suffix}"
        settings.write_text("[pytest]\n")
        suite.touch()
        where = ["-c", str(settings), f"--rootdir={place}", f"--basetemp={place}/tests", str(suite)]
        stop = ["-x"] if trial.stops_at_failure else []
        environment = dict(ENVIRONMENT)
        if "hypothesis" not in sys.modules:  # which looks once, and remembers
            environment["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{place}/hypothesis"
        with _environment(environment), redirect_stdout(said), redirect_stderr(said):
            code = _exit_code(plugin, [*OPTIONS, *stop, *where])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise RuntimeError(f"The suite could not be run (pytest gave {code}):\n{said.getvalue()[-4000:]}")
    return plugin.findings


def _exit_code(plugin: _Plugin, arguments: list[str]) -> int | pytest.ExitCode:
    try:
        return pytest.main(arguments, plugins=[plugin])
    finally:  # pytest may stumble over a fixture that the interrupt has left half made
        if plugin.is_interrupted:
            raise KeyboardInterrupt


class _Suite(pytest.Module):
    """A module of tests that is made, not read."""

    made: ModuleType

    def _getobj(self) -> ModuleType:
        return self.made


class _Plugin:
    """Gives pytest the suite, and keeps what it says of it."""

    suffix: Final = ".conformance"

    def __init__(self, trial: Trial) -> None:
        self.findings: list[Finding] = []
        self.is_interrupted = False
        self._trial = trial
        self._number = 0

    def pytest_keyboard_interrupt(self) -> None:
        self.is_interrupted = True

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        if file_path.suffix != self.suffix:
            return None
        if SUITE not in sys.modules:  # else it was asked for before, by whoever runs this within pytest
            pytest.register_assert_rewrite(SUITE)
        module = ModuleType("conformance")
        module.TestBackend = _made_suite(self._trial)  # type: ignore[attr-defined] # what is collected
        suite = _Suite.from_parent(parent, path=file_path)
        suite.made = module
        return suite

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put last what takes longest to fail, as hypothesis then looks for the least example."""
        self._number = len(items)
        items[:] = [item for item in items if item.name not in self._trial.done]
        items.sort(key=lambda item: hasattr(getattr(item, "function", None), "hypothesis"))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._trial.begins(_name(nodeid), self._number)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if finding := _finding(report):
            self.findings.append(finding)
            self._trial.progress(finding, self._number)


def _name(nodeid: str) -> str:
    return nodeid.partition("::TestBackend::")[2]


def _finding(report: pytest.TestReport) -> Finding | None:
    """Return what a report says; that of a test's fixtures only counts if they fail."""
    test = _name(report.nodeid)
    if report.failed:
        return Finding(test, "failed", _message(report), report.duration)
    if report.skipped:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return Finding(test, "left out", why.removeprefix("Skipped: "), report.duration)
    return Finding(test, "passed", "", report.duration) if report.when == "call" else None


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr)


def _made_suite(trial: Trial) -> type[TaskQueueConformance]:
    """Return the suite for a trial, without the tests of other rules."""
    from .conformance import TaskQueueConformance
    from .contract import rule_of
    from .findings import SEAM

    def open_backend(self: Any, clock: VirtualClock, store_directory: Path) -> Callable[[], QueueBackend]:
        del self
        return trial.open_backend(clock, store_directory)

    members: dict[str, Any] = {
        "open_backend": pytest.fixture(open_backend),
        "store_url": pytest.fixture(_address),
        "is_quick": trial.quick,
        "points": trial.points,
    }
    if trial.queue_class:
        members["queue_class"] = trial.queue_class
    if trial.quick:
        members["anyio_backend"] = pytest.fixture(_on_asyncio)
    for name in dir(TaskQueueConformance):
        rule = rule_of(name)
        is_asked = trial.rules is None or (rule.number if rule else SEAM) in trial.rules
        if name.startswith("test_") and not is_asked:
            members[name] = None
    return type("TestBackend", (TaskQueueConformance,), members)


def _address(self: Any, open_backend: Callable[[], QueueBackend]) -> str:
    """Return a store's address with all its options, where it is known."""
    del self
    return open_backend.url if isinstance(open_backend, Opener) else open_backend().url


def _on_asyncio(self: Any) -> str:
    del self
    return "asyncio"


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
