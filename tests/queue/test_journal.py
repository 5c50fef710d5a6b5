from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import Head, JournalEntry, TaskStatus, journal
from jotty.errors import PayloadError
from jotty.testing import contexts, json_values

RESERVED = ["answer", "call", "end"]
kinds = st.text().filter(lambda kind: kind not in RESERVED)


@given(kinds, contexts(), st.integers(1, 10**9))
def test_an_entry_comes_back_as_it_was_written(kind: str, data: dict[str, Any], number: int) -> None:
    data = {name: value for name, value in data.items() if name != "kind"}
    written = journal.entry({**data, "kind": kind}, 2**20)

    assert repr(JournalEntry(number, kind, data)) == repr(journal.parse(number, written))


@pytest.mark.parametrize("kind", RESERVED)
def test_only_the_queue_writes_its_own_kinds(kind: str) -> None:
    with pytest.raises(PayloadError) as caught:
        journal.entry({"kind": kind}, 1000)

    assert "entry['kind']" == caught.value.path
    assert frozenset(RESERVED) == journal.RESERVED_KINDS


@pytest.mark.parametrize("wrong", [{}, {"kind": None}, {"kind": 1}, [], "kind", None])
def test_an_entry_is_a_dict_with_a_kind(wrong: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        journal.entry(wrong, 1000)

    assert "entry" == caught.value.path


def test_an_entry_has_its_limit_and_its_path() -> None:
    fine = {"kind": "event", "text": "x" * 10}
    size = len(journal.entry(fine, 1000))
    with pytest.raises(PayloadError) as too_long:
        journal.entry(fine, size - 1)
    with pytest.raises(PayloadError) as no_json:
        journal.entry({"kind": "event", "a": [set()]}, 1000)

    assert size == len(journal.entry(fine, size))
    assert ["entry", "entry['a'][0]"] == [too_long.value.path, no_json.value.path]


@given(st.sampled_from(sorted(TaskStatus)), st.integers(0, 2**62), st.integers(0, 10**6))
def test_the_end_tells_status_time_and_attempt(status: TaskStatus, time: int, attempt: int) -> None:
    head = attrs.evolve(Head(id="a"), status=status, finished_at=time, attempt=attempt)
    expected = {"status": status.value, "time": time, "attempt": attempt}

    assert JournalEntry(7, "end", expected) == journal.parse(7, journal.ended(head))


@given(json_values(), st.integers(0, 2**62))
def test_an_answer_tells_key_value_and_time(value: Any, now: int) -> None:
    entry = journal.parse(1, journal.answer("question", value, now, 2**20))

    assert "answer" == entry.kind
    assert repr({"key": "question", "value": value, "time": now}) == repr(entry.data)


def test_an_answer_has_its_limit_and_its_path() -> None:
    with pytest.raises(PayloadError) as too_long:
        journal.answer("question", "x" * 10, 0, 11)
    with pytest.raises(PayloadError) as no_json:
        journal.answer("question", [b"a"], 0, 1000)

    assert ["value", "value[0]"] == [too_long.value.path, no_json.value.path]


def test_a_client_call_tells_what_was_asked_for_and_when() -> None:
    entry = journal.parse(3, journal.client_call("reprioritise", 5, priority=1))

    assert JournalEntry(3, "call", {"action": "reprioritise", "time": 5, "priority": 1}) == entry
