"""What tells one value from another: in every process the same, and different for what differs."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import os
import subprocess
import sys
from array import array
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty import ActorContext, Conductor, WorkflowMode, actor
from jotty.core.orchestration.identity import digest_of, name_of, recognised


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: Any
    later: Any = field(init=False, repr=False)


@attrs.define
class Source:
    name: str
    day: Any


class Client:
    def __init__(self, url: str) -> None:
        self.url = url


def one(*_: int) -> None: ...


def two(*_: int) -> None: ...


DAY = dt.date(2026, 1, 1)
VALUES: list[Any] = [
    *(None, True, 0, 1.5, "a", "1", [], {}, [1], [[1]]),
    *({"a": 1}, {"a": [1]}, {1: "a"}, {(1, 2): "a"}, {"a": {1: 2}}),
    *(DAY, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.time(1), dt.timedelta(1), dt.timedelta(2)),
    *(Decimal(1), Decimal("1.0"), Fraction(1, 3), 1j, range(3), range(4)),
    *(UUID(int=1), UUID(int=2), PurePosixPath("/a"), PurePosixPath("/b"), ipaddress.ip_address("::1")),
    *(Colour.RED, Colour.BLUE, b"a", b"b", bytearray(b"a")),
    *(array("i", [1]), array("i", [2]), array("q", [1])),
    *({1}, {2}, {1, 2}, frozenset({1}), {DAY}, {(1, 2)}, deque([1]), deque([2])),
    *(SimpleNamespace(x=1), SimpleNamespace(x=2), Point(1), Point(2), Point(DAY), [Point([DAY])]),
    *(Source("a", DAY), Source("a", {DAY}), [DAY], {"k": DAY}, {"k": {"l": [Colour.RED]}}),
    *(one, two, int, str, len, max),
    *(functools.partial(one, 1), functools.partial(one, 2), functools.partial(two, 1)),
]


def test_what_differs_has_another_digest() -> None:
    assert len(VALUES) == len({digest_of(value) for value in VALUES})


def test_all_of_them_are_recognised_exactly() -> None:
    assert [] == [value for value in VALUES if recognised(value) != (digest_of(value), True)]


@pytest.mark.parametrize(
    "value", [Client("a"), [Client("a")], {"k": Client("a")}, Point(Client("a")), {1: Client("a")}, object()]
)
def test_what_has_no_form_counts_by_its_type(value: Any) -> None:
    digest, is_exact = recognised(value)

    assert not is_exact
    assert digest != digest_of("Client")


def test_objects_of_one_type_look_the_same_and_those_of_two_do_not() -> None:
    assert digest_of(Client("a")) == digest_of(Client("b")) != digest_of(object())


def test_a_circle_counts_by_its_type() -> None:
    circle: list[Any] = []
    circle.append(circle)

    assert not recognised(circle)[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
HASHABLE = st.integers() | st.text() | st.dates() | st.binary() | st.tuples(st.integers(), st.text())


@given(JSON | HASHABLE | st.sets(HASHABLE) | st.dictionaries(HASHABLE, JSON, max_size=3))
def test_anything_is_recognised_and_equal_to_itself(value: Any) -> None:
    digest, is_exact = recognised(value)

    assert is_exact
    assert digest == digest_of(value)


@given(st.lists(HASHABLE, min_size=1))
def test_a_set_counts_whatever_the_order_it_was_made_in(members: list[Any]) -> None:
    backwards = dict.fromkeys(reversed(members))
    assert digest_of(set(members)) == digest_of(set(backwards))


def test_digests_are_the_same_in_every_process() -> None:
    told = """
import datetime as dt, pathlib, functools
from jotty.core.orchestration.identity import digest_of
print(digest_of([{"a", "b", "c", ("d", 1)}, dt.date(2026, 1, 1), pathlib.Path("/a"), {1: {2}}, b"x", len]))
"""
    seen = set()
    for seed in ("0", "1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", told], env=env, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a", "a"),
        (1, "1"),
        (DAY, "2026-01-01"),
        (Path("/a"), "/a"),
        (Colour.RED, "RED"),
        ([1], None),
        (b"a", None),
    ],
)
def test_single_values_have_a_name(value: Any, name: str | None) -> None:
    assert name_of(value) == name


# What comes of it in a run


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("items", "keys"),
    [
        ([dt.date(2026, 1, 1), dt.date(2026, 1, 2)], ["2026-01-01", "2026-01-02"]),
        ([Colour.RED, Colour.BLUE], ["RED", "BLUE"]),
    ],
)
async def test_what_is_mapped_is_told_by_its_item(watch: Any, items: list[Any], keys: list[str]) -> None:
    async def fetch(day: Any) -> str:
        return str(day)

    @actor
    async def days(ctx: ActorContext) -> Any:
        return await ctx.map(fetch, items)

    run = await watch(days)

    assert [str(each) for each in items] == run.output
    assert sorted(run.path[1:]) == sorted(f"days/fetch[{key}]" for key in keys)


@pytest.mark.anyio
async def test_what_cannot_be_told_apart_needs_a_key_where_runs_are_durable() -> None:
    async def fetch(client: Any) -> str:
        return str(client.url)

    @actor
    async def pages(ctx: ActorContext) -> Any:
        return await ctx.map(fetch, [Client("a"), Client("b")], key=keyed[-1])

    keyed: list[Any] = [None]
    conductor = Conductor([pages])
    assert (await conductor.run("g"))["final_output"] == ["a", "b"]

    workflow = WorkflowMode(conductor, check_payloads=True)
    with pytest.raises(ValueError, match=r"counts by its type alone\. Give each a key"):
        await workflow.execute("g")

    keyed.append(lambda client: client.url)
    assert (await workflow.execute("g"))["final_output"] == ["a", "b"]
