"""The simulation: the same seed gives the same history, true stores pass, broken ones are found out."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.testing import Event, SimulatedFaults, Simulation, check_history, simulate
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock

loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])
HARSH = SimulatedFaults(errors=0.15, crashes=6, pauses=6, clock_jumps=3, naps=2)


def digest(simulation: Simulation) -> str:
    return hashlib.sha256(simulation.to_jsonl().encode()).hexdigest()


@loops
@settings(max_examples=10, deadline=None)
@given(seed=st.integers())
def test_no_seed_finds_a_broken_promise(seed: int, loop: str) -> None:
    simulation = simulate(seed, workers=3, tasks=40, loop=loop)

    assert simulation.ok, simulation


@loops
def test_no_promise_is_broken_however_harsh_the_world(loop: str) -> None:
    simulation = simulate(1, faults=HARSH, loop=loop)

    assert simulation.ok, simulation


@loops
def test_the_same_seed_gives_the_same_history_and_another_one_another(loop: str) -> None:
    first, again, other = (simulate(seed, tasks=40, loop=loop) for seed in (5, 5, 6))

    assert first.history == again.history
    assert first.to_jsonl() == again.to_jsonl()
    assert first.to_jsonl() != other.to_jsonl()


PROGRAM = """
import hashlib, sys
from jotty.testing import simulate
history = simulate(7, tasks=60, loop=sys.argv[1]).to_jsonl()
print(hashlib.sha256(history.encode()).hexdigest())
"""


@loops
def test_the_history_is_the_same_in_every_process(loop: str) -> None:
    """Whatever the order of sets and the addresses of objects are there."""
    expected = digest(simulate(7, tasks=60, loop=loop))
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, loop],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "4711")
    }

    assert {expected} == found


def test_all_that_was_asked_for_happens() -> None:
    faults = SimulatedFaults(errors=0.05, crashes=4, pauses=4)
    simulation = simulate(3, tasks=150, faults=faults)
    kinds = Counter(event.kind for event in simulation.history)
    figures = simulation.verdict.figures

    assert (4, 4) == (kinds["killed"], kinds["stopped"])
    assert figures.redeliveries > 0
    assert kinds["claiming"] > kinds["answered"]  # a killed one, or an answer that was lost
    assert kinds["settling"] > kinds["settled"]
    assert sum(figures.final.values()) == kinds["final"] >= figures.tasks > 0


def test_in_a_perfect_world_nothing_is_done_twice() -> None:
    simulation = simulate(0, faults=SimulatedFaults.none())
    figures = simulation.verdict.figures

    assert simulation.ok, simulation
    assert (0, 0, 0) == (figures.kills, figures.stops, figures.redeliveries)


def test_every_event_has_an_instant_of_its_own() -> None:
    times = [event.time for event in simulate(2, tasks=40).history]

    assert sorted(set(times)) == times


def test_its_history_is_one_that_anybody_can_judge() -> None:
    simulation = simulate(4, tasks=40)
    lines = simulation.to_jsonl().splitlines()

    assert simulation.history == tuple(Event.from_json(line) for line in lines)
    assert check_history(simulation.history).figures == simulation.verdict.figures


def test_hours_take_a_moment() -> None:
    """Leases of ten minutes expire, and nobody sleeps."""
    begun = time.process_time()
    simulation = simulate(0, tasks=30, lease_timeout=600)

    assert simulation.seconds > 600
    assert time.process_time() - begun < 10


@loops
def test_it_works_over_a_store_with_threads(tmp_path: Path, loop: str) -> None:
    def new_store(clock: VirtualClock) -> Callable[[], QueueBackend]:
        return partial(SQLiteBackend, tmp_path / "tasks.db", clock=clock)

    simulation = simulate(0, workers=2, tasks=20, new_store=new_store, loop=loop)

    assert simulation.ok, simulation


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(ValueError, match="errors"):
        SimulatedFaults(errors=share)
