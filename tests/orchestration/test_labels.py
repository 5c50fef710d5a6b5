"""Labels, and how a person reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration.labels import label_of, readable

KEYS = st.text() | st.text("a/%2F5[]")


@given(KEYS, KEYS)
def test_a_person_reads_the_keys_that_were_given(first: str, second: str) -> None:
    label = label_of(label_of("plan", "search", first), "read", second)

    assert 3 == len(label.split("/"))
    assert f"plan/search[{first}]/read[{second}]" == readable(label)


@given(KEYS, KEYS)
def test_other_keys_make_other_labels(first: str, second: str) -> None:
    assert (first == second) == (label_of("a", "b", first) == label_of("a", "b", second))


def test_the_names_of_actors_are_read_as_they_are() -> None:
    assert "100%25/a%2Fb" == readable("100%25/a%2Fb")
