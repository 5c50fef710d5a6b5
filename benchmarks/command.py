"""The command line of the queue's benchmark."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from benchmarks import claiming, enqueueing, idling, life_cycle, machine, start_latency, working
from benchmarks.setting import EFFORTS, Setting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.measuring import Say
    from benchmarks.reporting import Answer
    from benchmarks.setting import Effort

__all__ = ["run"]

QUIET: Final = 1.0

QUESTIONS: Final[dict[str, Callable[[Setting], Awaitable[Answer]]]] = {
    "life-cycle": life_cycle.ask,
    "enqueue": enqueueing.ask,
    "claim": claiming.ask,
    "start": start_latency.ask,
    "idle": idling.ask,
    "worker": working.ask,
}


def run() -> None:
    """Ask the questions that the command line names, and print the answers."""
    given = _parsed()
    effort = _effort(given)
    with tempfile.TemporaryDirectory(prefix="jotty-benchmark-", dir=given.directory) as made:
        directory = Path(made)
        found: dict[str, Any] = {"machine": machine.describe(directory), "effort": attrs.asdict(effort)}
        print("\n".join(f"- {name}: {value}" for name, value in found["machine"].items()))
        print(f"- effort: {', '.join(f'{name} {value}' for name, value in found['effort'].items())}")
        found["questions"] = {name: _asked(name, directory, effort) for name in given.only or QUESTIONS}
    found["machine"]["load at the end"] = machine.load()
    print(f"\nLoad at the end: {machine.load()}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queue", description="What the queue costs, beside raw loops and huey."
    )
    effort = parser.add_mutually_exclusive_group()
    for name, told in (
        ("quick", "half a minute"),
        ("smoke", "seconds; too few samples to tell anything but that all runs"),
    ):
        effort.add_argument(f"--{name}", dest="effort", action="store_const", const=name, help=told)
    parser.set_defaults(effort="full")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="one question; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    parser.add_argument(
        "--depth", type=int, help="how many tasks are queued at most when claims are measured"
    )
    parser.add_argument("--directory", type=Path, help="where the stores are made, and removed again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    return parser.parse_args()


def _effort(given: argparse.Namespace) -> Effort:
    effort = EFFORTS[given.effort]
    if given.rounds:
        effort = attrs.evolve(effort, rounds=given.rounds)
    if given.depth:
        effort = attrs.evolve(effort, depth=given.depth, depth_in_memory=given.depth)
    return effort


def _asked(name: str, directory: Path, effort: Effort) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=directory) as made:
        answer = anyio.run(QUESTIONS[name], Setting(Path(made), effort, _progress(name)))
    print(f"\n### {name}\n\n{answer.markdown()}", flush=True)
    return answer.json()


def _progress(name: str) -> Say:
    """Return what tells of the progress on stderr, once a second at most."""
    started = time.perf_counter()
    told = started - QUIET

    def say(text: str) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - told >= QUIET:
            print(f"{now - started:6.1f} s  {name}: {text}", file=sys.stderr, flush=True)
            told = now

    return say
