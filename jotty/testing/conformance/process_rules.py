"""What the rules with real processes have in common: the store's address and the harness."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from jotty.testing.processes import Harness

from .terms import Terms, leave_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jotty.core.queue import QueueBackend
    from jotty.testing.history import Event

__all__ = ["RealRules", "by_task", "of_kind", "with_option"]


class RealRules(Terms):
    """The fixtures of rules that are checked by real processes, in real time.

    The processes open the store by the `url` of the backend that the test's factory makes.

    Attributes:
        seed: Of what the tests decide by chance: who is killed, and when.
        tuning: Constants of modules that the processes, and this one, change first, by dotted name: to have
            happen soon what is rare otherwise.
        is_quick: Whether to leave these rules out, as they take real time.
    """

    requires = frozenset({"processes"})
    seed: ClassVar[int] = 1
    tuning: ClassVar[Mapping[str, Any]] = {}
    is_quick: ClassVar[bool] = False

    @pytest.fixture
    def store_url(self, open_backend: Callable[[], QueueBackend]) -> str:
        """The address by which other processes open the store."""
        return open_backend().url

    @pytest.fixture
    def random(self) -> Random:
        """What decides by chance, the same in every run."""
        return Random(self.seed)

    @pytest.fixture
    def harness(
        self,
        request: pytest.FixtureRequest,
        store_url: str,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[Harness]:
        """The processes of a test; none outlives it."""
        if self.is_quick:
            leave_out(request, "it takes real processes, and only what is quick was asked for")
        if sys.platform == "win32":
            leave_out(request, "Windows has no SIGKILL and no SIGSTOP")
        for constant, value in self.tuning.items():
            monkeypatch.setattr(constant, value)
        with Harness(store_url, tmp_path_factory.mktemp("history"), tuning=self.tuning) as harness:
            yield harness


def with_option(url: str, option: str) -> str:
    """Return a URL with one option more."""
    return f"{url}{'&' if '?' in url else '?'}{option}"


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of a kind."""
    return [event for event in events if event.kind == kind]


def by_task(events: list[Event], kind: str) -> dict[str, list[Event]]:
    """Return the events of a kind by their task."""
    found: dict[str, list[Event]] = {}
    for event in of_kind(events, kind):
        found.setdefault(event.task, []).append(event)
    return found
