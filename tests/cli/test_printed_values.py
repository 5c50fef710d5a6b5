from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from datetime import UTC, datetime

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from jotty.cli.printing import to_plain, visible

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
anything = st.recursive(
    json_values | st.floats() | st.binary() | st.dates() | st.complex_numbers(),
    lambda inner: st.tuples(inner) | st.frozensets(st.integers()) | st.dictionaries(st.integers(), inner),
    max_leaves=10,
)


@attrs.frozen
class Point:
    x: int
    y: object


@dataclasses.dataclass
class Pair:
    left: Point
    right: set[int]


@given(json_values)
def test_json_is_printed_as_it_is(value: object) -> None:
    assert value == to_plain(value)


def likeness(value: object) -> object:
    """Return what is to be printed of one of these values."""
    if isinstance(value, dict):
        return {str(key): likeness(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, frozenset)):
        return [likeness(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (str, int)) else str(value)


@given(anything)
@example([float("nan"), float("inf"), -float("inf")])
@example(({1: frozenset({2})}, b"raw"))
def test_whatever_an_actor_returns_is_printed_as_strict_json(value: object) -> None:
    printed = json.dumps(to_plain(value), allow_nan=False)

    assert likeness(value) == json.loads(printed)


def test_values_of_attrs_and_dataclasses_are_printed_by_their_fields() -> None:
    at = datetime(2026, 10, 1, tzinfo=UTC)

    assert {"left": {"x": 1, "y": at.isoformat()}, "right": [2]} == to_plain(Pair(Point(1, at), {2}))
    assert str(Point) == to_plain(Point)
    assert str(b"raw") == to_plain(b"raw")


@given(st.text())
@example("\x1b[2J\x9b0m\x7f")
def test_a_text_made_visible_has_as_many_characters_and_none_that_controls_a_terminal(text: str) -> None:
    made = visible(text)

    assert len(text) == len(made)
    assert set() == {each for each in made if unicodedata.category(each) == "Cc"} - {"\t", "\n"}
