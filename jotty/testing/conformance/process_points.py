"""C4 at chosen places: killed at each named point of a backend, and at the n-th system call of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from jotty.testing.processes.caller import ALL_CALLS
from jotty.testing.processes.tracing import WRITES, is_traceable, traced

from .process_rules import RealRules
from .terms import leave_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.testing.processes import Harness, Process

__all__ = ["PointRules", "SystemCallRules", "go_on"]

SAMPLES: Final = 5
# By the call in which the process is killed, what is called before.
TRACED: Final = {
    "enqueue": ["stats"],
    "enqueue_many": ["stats"],
    "turn": ["enqueue_many", "claim"],
    "record": ["enqueue", "claim"],
    "delete": ["enqueue", "claim", "complete"],
}


class PointRules(RealRules):
    """C4: killed at each named point, the call is whole or absent, and nothing acknowledged is lost.

    Attributes:
        points: The names of the points (see `jotty.core.queue.points`), as `QueueBackend.points` has them;
            each must be reached.
        visits: At which visits of a point to kill, one after the other; only the first must happen.
    """

    points: ClassVar[Sequence[str]] = ()
    visits: ClassVar[Sequence[int]] = (1, 5)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each point."""
        if "point" in metafunc.fixturenames:
            metafunc.parametrize("point", self.points or [None], ids=lambda point: point or "none")

    @pytest.fixture(autouse=True)
    def _points(self, request: pytest.FixtureRequest, _terms: None) -> None:
        """Say why there is no point to be killed at: a class is made before its backends are."""
        if "point" not in request.fixturenames or request.getfixturevalue("point") is not None:
            return
        backend = type(request.getfixturevalue("open_backend")())
        if backend.points:
            leave_out(request, f"this class does not say points = {backend.__name__}.points")
        leave_out(request, "the backend names no points to be killed at")

    def prepare(self, point: str, harness: Harness) -> dict[str, Any]:
        """Make ready for a point that the calls do not come by in an empty store; return further options.

        This default has nothing to do.
        """
        del point, harness
        return {}

    def test_c04_killed_at_a_point_a_call_is_whole_or_absent(self, harness: Harness, point: str) -> None:
        """C4, C44: whole effect or none; nothing acknowledged is lost; the store goes on."""
        killed = [self._killed(point, visit, harness) for visit in self.visits]

        assert killed[0], f"{point} was not reached"
        go_on(harness)

    def _killed(self, point: str, visit: int, harness: Harness) -> bool:
        options = self.prepare(point, harness)
        process = harness.start("caller", calls=ALL_CALLS, times=20, kill_at=point, visit=visit, **options)
        return harness.outlive(process)


class SystemCallRules(RealRules):
    """C4: killed at the n-th system call that writes, a call is whole or absent (Linux, with strace).

    Attributes:
        samples: How many of the system calls to choose; None for each.
    """

    samples: ClassVar[int | None] = SAMPLES

    @pytest.mark.parametrize("call", TRACED)
    def test_c04_killed_at_a_system_call_it_is_whole_or_absent(
        self, request: pytest.FixtureRequest, harness: Harness, call: str
    ) -> None:
        """C4, C44: whole effect or none, at whatever write; nothing acknowledged is lost."""
        if not is_traceable():
            leave_out(request, "no strace")
        whole = _start(harness, call)
        with traced(whole, WRITES) as trace:
            whole.send("go")
            harness.finish(whole)
        places = trace.places()
        killed = 0
        for place in _chosen(places, self.samples):
            process = _start(harness, call)
            with traced(process, WRITES, kill_at=place):
                process.send("go")
                killed += harness.outlive(process)

        assert len(places) > 1
        assert killed > 0
        go_on(harness)


def _start(harness: Harness, call: str) -> Process:
    process = harness.start(
        "caller", before=TRACED[call], calls=[call], waits=True, size=10_000, lease_timeout=0.2
    )
    harness.until("ready", process)
    return process


def _chosen(places: Sequence[tuple[str, int]], samples: int | None) -> list[tuple[str, int]]:
    if samples is None or len(places) <= samples:
        return list(places)
    return [places[at * (len(places) - 1) // (samples - 1)] for at in range(samples)]


def go_on(harness: Harness) -> None:
    """Insist that the store goes on after a kill, and that all in it is whole."""
    after = harness.start("caller", calls=ALL_CALLS)
    harness.finish(after)
    told = [event.details["call"] for event in harness.until("called", after, number=len(ALL_CALLS))]
    verdict = harness.verdict()

    assert list(ALL_CALLS) == told
    assert verdict.ok, verdict
