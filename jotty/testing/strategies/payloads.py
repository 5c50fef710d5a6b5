"""Values that go into a queue, and ones that must not."""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum
from pathlib import PurePosixPath
from string import ascii_lowercase
from typing import Any, Final

import attrs
from hypothesis import strategies as st

__all__ = ["RefusedPayload", "contexts", "goals", "json_values", "payloads_refused"]

INT64: Final = 2**63
MAX_DEPTH: Final = 100


@attrs.frozen
class RefusedPayload:
    """A value that no queue may take.

    Attributes:
        value: The value.
        path: Where in it the offending part stands, as subscripts: `['frame'][3]`; empty for itself.
    """

    value: Any
    path: str


class _Text(str):
    __slots__ = ()


class _Number(IntEnum):
    ONE = 1


def json_values(*, max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Generate strict JSON: None, bools, 64-bit ints, finite floats, text, lists and string-keyed dicts.

    Example:
        `@given(json_values())` over a round trip through a queue.
    """
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-INT64, INT64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.sampled_from(["", "\0", "\u2028", "\U0001f40d", "e\u0301", -0.0, 0, -INT64, INT64 - 1, 5e-324])
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=max_leaves
    )


def contexts() -> st.SearchStrategy[dict[str, Any]]:
    """Generate contexts: values by the names of parameters, like `{"quarter": "Q4"}`.

    Example:
        `@given(contexts())`, then enqueue a goal with it, and expect to find it unchanged.
    """
    names = st.text(ascii_lowercase, min_size=1, max_size=8)
    return st.dictionaries(names, json_values(max_leaves=8), max_size=4)


def goals() -> st.SearchStrategy[Any]:
    """Generate goals: most often text, like `"Generate quarterly report"`, and any other JSON.

    Example:
        `@given(st.lists(goals()))`, then enqueue them all, and claim them in that order.
    """
    return st.text(min_size=1) | json_values(max_leaves=5)


def payloads_refused() -> st.SearchStrategy[RefusedPayload]:
    """Generate values that are refused wherever JSON is asked for, each with the path of what is wrong.

    Example:
        `@given(payloads_refused())`, then expect a `PayloadError` whose `path` ends with `refused.path`.
    """
    return st.builds(_nested, _refused_alone(), st.lists(_places(), max_size=4))


def _refused_alone() -> st.SearchStrategy[RefusedPayload]:
    values: st.SearchStrategy[Any] = st.one_of(
        st.sampled_from([float("nan"), float("inf"), float("-inf")]),
        st.sampled_from(["\ud800", "a\udfff", _Text("text"), _Number.ONE, OrderedDict(a=1), object, 1j]),
        st.integers(min_value=INT64) | st.integers(max_value=-INT64 - 1),
        st.binary() | st.tuples(st.text()) | st.sets(st.integers()),
        st.datetimes() | st.decimals() | st.uuids() | st.builds(PurePosixPath),
        st.dictionaries(st.integers() | st.none() | st.booleans(), st.none(), min_size=1),
    )
    return values.map(lambda value: RefusedPayload(value, ""))


def _places() -> st.SearchStrategy[int | str]:
    return st.integers(0, 3) | st.text(max_size=3)


def _nested(refused: RefusedPayload, places: list[int | str]) -> RefusedPayload:
    """Put a refused value into lists (at an index) and dicts (under a key), the last place outermost."""
    for place in places:
        outer: Any = [None] * place + [refused.value] if isinstance(place, int) else {place: refused.value}
        refused = RefusedPayload(outer, f"[{place!r}]{refused.path}")
    return refused
