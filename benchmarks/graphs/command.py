"""The command line of the graph's benchmark."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from benchmarks import machine
from benchmarks.graphs import building, durable, events, memory, running, skew
from benchmarks.graphs.contenders import missing
from benchmarks.graphs.setting import SIZES, Setting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.graphs.setting import Size
    from benchmarks.measuring import Say
    from benchmarks.reporting import Answer

__all__ = ["run"]

QUIET: Final = 1.0
PACKAGES: Final = ("langgraph", "pydantic-graph", "apache-burr", "sf-hamilton")

QUESTIONS: Final[dict[str, Callable[[Setting], Awaitable[Answer]]]] = {
    "chain": running.ask_chain,
    "layers": running.ask_layers,
    "fan-out": running.ask_fan_out,
    "loop": running.ask_loop,
    "events": events.ask,
    "skew": skew.ask,
    "build": building.ask,
    "memory": memory.ask,
    "durable": durable.ask,
}


def run() -> None:
    """Ask the questions that the command line names, and print the answers."""
    given = _parsed()
    size = SIZES[given.size] if not given.rounds else attrs.evolve(SIZES[given.size], rounds=given.rounds)
    with tempfile.TemporaryDirectory(prefix="jotty-benchmark-", dir=given.directory) as made:
        found = _described(Path(made), size)
        found["questions"] = {name: _asked(name, Path(made), size) for name in given.only or QUESTIONS}
    found["machine"]["load at the end"] = machine.load()
    print(f"\nLoad at the end: {machine.load()}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graph", description="What running a graph costs, beside its peers."
    )
    sizes = parser.add_mutually_exclusive_group()
    for name, told in (
        ("quick", "a minute or two"),
        ("smoke", "seconds; too few samples to tell anything but that all runs"),
    ):
        sizes.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=told)
    parser.set_defaults(size="full")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="one question; may be repeated")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    parser.add_argument("--directory", type=Path, help="where the stores are made, and removed again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    return parser.parse_args()


def _described(directory: Path, size: Size) -> dict[str, Any]:
    described = {**machine.describe(directory), **{package: _version(package) for package in PACKAGES}}
    print("\n".join(f"- {name}: {value}" for name, value in described.items()))
    print(f"- size: {', '.join(f'{name} {value:g}' for name, value in attrs.asdict(size).items())}")
    if missing():
        print(f"- left out, since they are not installed: {', '.join(missing())}")
    return {"machine": described, "size": attrs.asdict(size)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _asked(name: str, directory: Path, size: Size) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=directory) as made:
        answer = anyio.run(QUESTIONS[name], Setting(Path(made), size, _progress(name)))
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
