"""What running a graph costs, beside plain asyncio, LangGraph, pydantic-graph, burr and hamilton.

Run: python -m benchmarks.graph [--quick] [--only QUESTION] [--json FILE]

A peer that is not installed is left out, by name. See benchmarks/README.md.
"""

from __future__ import annotations

from benchmarks.graphs.command import run

if __name__ == "__main__":
    run()
