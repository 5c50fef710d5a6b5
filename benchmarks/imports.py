"""How long `import jotty` takes beside the packages that it needs anyway.

Run: python benchmarks/imports.py [rounds]
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

BASE = "import asyncio, anyio, attrs"
STATEMENTS = {
    "the interpreter alone": "pass",
    BASE: BASE,
    "import jotty": "import jotty",
    "+ the base": f"import jotty; {BASE}",
    "the usual names": "from jotty import Conductor, WorkflowMode, TaskQueue, actor",
}


def seconds(statement: str) -> float:
    """Return the wall time of a fresh interpreter that runs a statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)  # noqa: S603 - the statements above
    return time.perf_counter() - started


def main() -> None:
    """Take turns, so that a noisy machine is noisy for all, and print medians and ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(rounds + 1):
        for name, statement in STATEMENTS.items():
            taken = seconds(statement)
            if number:  # the first round only warms the caches
                times[name].append(taken)
    base = statistics.median(times[BASE])
    print(f"{platform.machine()}, Python {platform.python_version()}, {rounds} rounds, whole processes")
    print(f"{'':32} {'median':>9} {'min':>9} {'max':>9}  of the base")
    for name, all_taken in times.items():
        median = statistics.median(all_taken)
        row = "".join(f"{1000 * value:7.1f}ms " for value in (median, min(all_taken), max(all_taken)))
        print(f"{name:32} {row} {median / base:6.2f}")


if __name__ == "__main__":
    main()
