"""C37, C38 and C50 among processes: journals and runs whose workers are killed."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

from jotty.testing.processes.conductor import PARENTS

from .process_rules import RealRules, by_task, of_kind

if TYPE_CHECKING:
    from random import Random

    from jotty.testing.processes import Harness

__all__ = ["ProcessJournalRules"]

# two followers, on both event loops where both are there
LOOPS = ("asyncio", "trio" if find_spec("trio") else "asyncio")


class ProcessJournalRules(RealRules):
    """Journals among processes."""

    def test_c37_a_follower_sees_every_entry_once_though_workers_are_killed(self, harness: Harness) -> None:
        """C37: numbered 1, 2, 3... without holes, across leases; reading after N gives what came later."""
        harness.finish(harness.start("producer", tasks=3, max_attempts=20))
        tasks = list(by_task(harness.events(), "enqueued"))
        followers = [harness.start("follower", tasks=tasks, loop=loop) for loop in LOOPS]
        for _ in range(3):
            worker = harness.start("worker", records=60, lease_timeout=0.3, limit=3)
            harness.until("recorded", worker, number=5)
            harness.kill(worker)
        harness.start("worker", records=20, tasks=3)
        harness.finish(*followers)
        verdict = harness.verdict()
        stored = {event.task: event.details["entries"] for event in of_kind(harness.events(), "final")}
        seen = by_task(harness.events(), "seen")

        assert verdict.ok, verdict
        for task in tasks:
            for follower in followers:
                numbers = [event.details["number"] for event in seen[task] if event.process == follower.name]
                assert list(range(1, stored[task] + 1)) == numbers

    def test_c38_what_was_journaled_survives_and_a_killed_append_is_whole_or_absent(
        self, harness: Harness, random: Random
    ) -> None:
        """C38: what was journaled survives kill -9; what was written at once is there at once, or not."""
        harness.finish(harness.start("producer", tasks=2, max_attempts=100))
        for _ in range(4):
            worker = harness.start("worker", records=100_000, lease_timeout=0.2, limit=2)
            harness.until("recorded", worker)
            time.sleep(random.uniform(0, 0.05))
            harness.kill(worker)
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert 4 <= len(of_kind(harness.events(), "recorded"))

    def test_c50_an_actor_begins_only_after_those_it_depends_on(
        self, harness: Harness, random: Random
    ) -> None:
        """C50: a goal's actors run only after those they depend on, whatever worker was killed meanwhile."""
        harness.finish(harness.start("conductor", goals=6))
        for _ in range(3):
            worker = harness.start("conductor", lease_timeout=0.4)
            harness.until("began", worker)
            time.sleep(random.uniform(0, 0.3))
            harness.kill(worker)
        harness.finish(harness.start("conductor"), harness.start("conductor"))
        verdict = harness.verdict()

        assert verdict.ok, verdict
        assert {"completed": 6} == verdict.figures.final
        for task, begun in by_task(harness.events(), "began").items():
            finished = by_task(harness.events(), "finished")[task]
            for event in begun:
                before = {one.details["actor"] for one in finished if one.time <= event.time}
                assert before.issuperset(PARENTS[event.details["actor"]]), f"{event} began too early"
