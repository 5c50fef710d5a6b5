"""The bundles of the machine, and what its rules are called with."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import Bundle

from jotty.core.queue import RetryPolicy, Task
from jotty.testing.faults import FAULTS, Fault
from jotty.testing.model import MAX_POSTPONEMENTS

__all__ = [
    "KEYS",
    "LANES",
    "MAX_SIZE",
    "RETRY",
    "TAGS",
    "claims",
    "durations",
    "faults",
    "handles",
    "lanes",
    "limits",
    "questions",
    "several_lanes",
    "tasks",
    "waits",
    "workers",
]

RETRY: Final = RetryPolicy(delay=2, factor=2, cap=1e6, jitter=0, max_postponements=MAX_POSTPONEMENTS)
LANES: Final = ["default", "other"]
KEYS: Final = ["k", "l"]
TAGS: Final = ["red", "blue"]
MAX_SIZE: Final = 12  # of the second handle; the first has no bound

tasks: Bundle[str] = Bundle("tasks")
claims: Bundle[Task] = Bundle("claims")

handles = st.integers(0, 1)
lanes = st.sampled_from(LANES)
several_lanes = st.sampled_from([["default"], ["other"], LANES])
limits = st.integers(1, 3)
workers = st.sampled_from(["ann", "bob"])
questions = st.sampled_from(["a", "b"])
durations = st.sampled_from([30, 1, 5000])
waits = st.sampled_from([0, 1, 30])
_struck: Final = [Fault(kind, call) for call in range(3) for kind in FAULTS]
# mostly none: each one that strikes leaves less of what came before it to be built upon
faults = st.sampled_from([None] * 3 * len(_struck) + _struck)
