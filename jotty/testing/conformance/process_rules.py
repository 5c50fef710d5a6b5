"""What the rules with real processes have in common: the store's address and the harness."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from jotty.core.queue import open_queue
from jotty.testing.processes import Harness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jotty.testing.history import Event

__all__ = ["RealRules", "by_task", "of_kind"]


class RealRules:
    """The fixtures of rules that are checked by real processes, in real time.

    Attributes:
        seed: Of what the tests decide by chance: who is killed, and when.
        tuning: Constants of modules that the processes, and this one, change first, by dotted name: to have
            happen soon what is rare otherwise.
    """

    seed: ClassVar[int] = 1
    tuning: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def store_url(self) -> str:
        """Override this one: see `ProcessRules`."""
        pytest.skip(f"left out: {type(self).__name__} does not override the fixture store_url")

    @pytest.fixture
    def random(self) -> Random:
        """What decides by chance, the same in every run."""
        return Random(self.seed)

    @pytest.fixture
    def harness(
        self, store_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Harness]:
        """The processes of a test; none outlives it."""
        if sys.platform == "win32":
            pytest.skip("left out: Windows has no SIGKILL and no SIGSTOP")
        if "processes" not in open_queue(store_url).backend.capabilities:
            pytest.skip(f"left out: {store_url} does not declare the capability 'processes'")
        for constant, value in self.tuning.items():
            monkeypatch.setattr(constant, value)
        with Harness(store_url, tmp_path_factory.mktemp("history"), tuning=self.tuning) as harness:
            yield harness


def of_kind(events: list[Event], kind: str) -> list[Event]:
    """Return the events of a kind."""
    return [event for event in events if event.kind == kind]


def by_task(events: list[Event], kind: str) -> dict[str, list[Event]]:
    """Return the events of a kind by their task."""
    found: dict[str, list[Event]] = {}
    for event in of_kind(events, kind):
        found.setdefault(event.task, []).append(event)
    return found
