"""Kills at random, while producers and workers share a store: a short run always, a long one on request.

The long one is `pytest -m chaos -s tests/chaos`. JOTTY_CHAOS_KILLS, JOTTY_CHAOS_TASKS, JOTTY_CHAOS_WORKERS
and JOTTY_CHAOS_SEED change its measure. A seed decides who is harmed, but not how fast the machine is.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.testing.processes import Harness
from jotty.testing.processes.chaos import Chaos

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL and no SIGSTOP")

BACKENDS = {"sqlite": "sqlite:///{}/tasks.db", "file": "file:///{}/tasks"}

# What is rare is to happen often: the file backend's snapshots, and directories that have become empty.
TUNING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "file": {"jotty_backends.file.log._SMALL": 5_000, "jotty_backends.file.contents._SHARD": 5},
}


@attrs.frozen
class Store:
    harness: Harness
    points: tuple[str, ...]

    def chaos(self, **measure: Any) -> None:
        chaos = Chaos(harness=self.harness, points=self.points, **measure)
        verdict = chaos.run()
        print(verdict)  # noqa: T201 - the figures of a run that takes minutes

        assert verdict.ok, verdict
        assert chaos.kills <= verdict.figures.kills
        assert chaos.tasks <= verdict.figures.tasks
        assert set(verdict.figures.final) <= {"completed", "failed", "cancelled"}


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    url = BACKENDS[request.param].format(tmp_path)
    history = tmp_path / "history"
    history.mkdir()
    points = import_module(f"jotty_backends.{request.param}").POINTS
    for constant, value in TUNING[request.param].items():
        monkeypatch.setattr(constant, value)
    with Harness(url, history, tuning=TUNING[request.param]) as harness:
        yield Store(harness, points)


def test_a_little_chaos_loses_and_repeats_nothing(store: Store) -> None:
    store.chaos(random=Random(1), tasks=60, kills=10, workers=4)


def wanted(name: str, default: int) -> int:
    return int(os.environ.get(f"JOTTY_CHAOS_{name}", default))


@pytest.mark.chaos
def test_much_chaos_loses_and_repeats_nothing(store: Store) -> None:
    seed = wanted("SEED", SystemRandom().randrange(1_000_000))
    print(f"JOTTY_CHAOS_SEED={seed}")  # noqa: T201 - what it takes to repeat it
    store.chaos(
        random=Random(seed),
        tasks=wanted("TASKS", 4000),
        kills=wanted("KILLS", 400),
        workers=wanted("WORKERS", 8),
    )
