"""The entries that make up a journal stand for the events that they were made of, to the microsecond."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration.entries import entry_of, event_of
from jotty.core.queue.journal import parse
from jotty.testing import json_values

if TYPE_CHECKING:
    from jotty.core.queue import EncodedEntry

LIMIT = 2**20
INSTANTS = st.integers(0, 2**52).map(lambda microseconds: microseconds / 1e6)
COUNTS = st.integers(0, 2**31)
EVENTS = st.fixed_dictionaries(
    {
        "run_id": st.just("r"),
        "seq": st.just(7),
        "time": INSTANTS,
        "agent": st.text(st.characters(codec="utf-8"), min_size=1),
    }
)


def told_again(entry: EncodedEntry) -> dict[str, Any] | None:
    return event_of(parse(7, entry.data), "r")


@given(event=EVENTS, number=COUNTS)
def test_a_start_is_told_again_as_it_was(event: dict[str, Any], number: int) -> None:
    event |= {"type": "agent_start", "attempt": 1, "round": number}

    entry = entry_of(event, {"inputs": "0123456789abcdef", "round": number}, LIMIT)

    assert event == told_again(entry)
    assert parse(7, entry.data).data["inputs"] == "0123456789abcdef"


@given(
    event=EVENTS,
    number=COUNTS,
    attempt=st.integers(1, 99),
    seconds=INSTANTS,
    progress=st.tuples(COUNTS, COUNTS),
    output=json_values(),
)
def test_a_step_is_told_again_as_it_was(
    event: dict[str, Any],
    number: int,
    attempt: int,
    seconds: float,
    progress: tuple[int, int],
    output: Any,
) -> None:
    finished, known = progress
    event |= {"type": "agent_complete", "attempt": attempt, "kind": "output", "output": output}
    event |= {"target": None, "reset": [], "seconds": seconds, "finished": finished, "known": known}

    entry = entry_of(event, {"round": number, "output": json.dumps(output).encode()}, LIMIT)

    assert event == told_again(entry)
    assert parse(7, entry.data).data.get("round", 0) == number
