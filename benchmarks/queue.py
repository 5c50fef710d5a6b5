"""What the queue costs, beside raw sqlite3, raw files and huey (`pip install -e '.[bench]'`).

Run: python -m benchmarks.queue [--quick] [--only QUESTION] [--json FILE]

See docs/benchmarks.md for the questions and for what the figures do not tell.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Ask the questions."""
    if not __package__:
        # started as a script: then this file is what `import queue` finds, for the standard library too
        sys.path[0] = sys.path[0].removesuffix("benchmarks") or "."
    from benchmarks.command import run

    run()


if __name__ == "__main__":
    main()
