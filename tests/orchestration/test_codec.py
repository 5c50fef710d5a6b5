from __future__ import annotations

import collections
import enum
import functools
import json
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import End, Goto, Output, actor
from jotty.core.orchestration.codec import Codec, codec_of, codec_of_any
from jotty.core.queue import payload
from jotty.errors import PayloadError
from jotty.testing import json_values

if TYPE_CHECKING:
    from fractions import Fraction

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Mood(str, enum.Enum):  # noqa: UP042  # the old way is in use, too
    GOOD = "good"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    at: date


@dataclass
class Line:
    start: Point
    tags: set[str]
    length: float = 0.0
    count: int = field(init=False, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    when: datetime | None = None
    children: tuple[Node, ...] = ()


@dataclass
class Box(Generic[T]):
    inside: T
    more: list[T]


@attrs.frozen
class Report:
    title: str
    day: date
    _secret: bytes = b""
    lines: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    length: int = attrs.field(init=False, default=0)


def _split(text: str) -> list[str]:
    return text.split()


@attrs.define
class Words:
    words: list[str] = attrs.field(converter=_split)
    number: int = attrs.field(
        init=False, default=attrs.Factory(lambda made: len(made.words), takes_self=True)
    )


@attrs.frozen
class Kept:
    _number: int


@attrs.define
class Counted:
    parts: tuple[int, ...] = attrs.field(converter=tuple)
    total: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.total = sum(self.parts)


@attrs.define
class Twice:
    number: int

    def __attrs_post_init__(self) -> None:
        self.number *= 2


@dataclass
class Summed:
    parts: InitVar[list[int]]
    total: int = 0

    def __post_init__(self, parts: list[int]) -> None:
        self.total = sum(parts)


@dataclass
class Scored:
    number: int
    factor: InitVar[int] = 2
    product: int = field(init=False, default=0)

    def __post_init__(self, factor: int) -> None:
        self.product = self.number * factor


@attrs.define
class Rated:
    number: int
    on: date | None = attrs.field(init=False, default=None)


def rated(number: int, on: date | None) -> Rated:
    found = Rated(number)
    found.on = on
    return found


class Plan(TypedDict):
    title: str
    due: date


class Note(TypedDict, total=False):
    text: str
    tags: list[str]


UserId = NewType("UserId", UUID)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
zones = (
    st.none()
    | st.just(UTC)
    | st.timezones()
    | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
)
datetimes = st.datetimes(timezones=zones)
points = st.builds(Point, numbers, st.dates())
lines = st.builds(Line, points, st.sets(texts), floats)
reports = st.builds(Report, texts, st.dates(), st.binary(max_size=9), st.lists(texts, max_size=3))
nodes = st.recursive(
    st.builds(Node, name=texts, when=st.none() | datetimes),
    lambda inner: st.builds(Node, name=texts, children=st.lists(inner, max_size=3).map(tuple)),
    max_leaves=6,
)
decimals = st.decimals(allow_nan=False)
paths = st.lists(st.text("ab. ", min_size=1, max_size=4), max_size=4).map("/".join)

# Annotations with what an actor that has them may return; all are combined with each other below.
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    None: st.none(),
    bool: st.booleans(),
    int: numbers,
    float: floats,
    str: texts,
    datetime: datetimes,
    date: st.dates(),
    time: st.times(timezones=zones),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    UserId: st.uuids(),
    Decimal: decimals,
    Path: paths.map(Path),
    PureWindowsPath: paths.map(PureWindowsPath),
    bytes: st.binary(max_size=20),
    Colour: st.sampled_from(Colour),
    Mood: st.sampled_from(Mood),
    Rights: st.sampled_from([Rights(0), Rights.READ, Rights.READ | Rights.WRITE]),
    Literal["a", 1, Colour.RED]: st.sampled_from(["a", 1, Colour.RED]),
    Point: points,
    Line: lines,
    Node: nodes,
    Report: reports,
    Words: texts.map(Words),
    Kept: st.builds(Kept, numbers),
    Counted: st.builds(Counted, st.lists(st.integers(0, 9), max_size=3)),
    Twice: st.builds(Twice, st.integers(0, 9)),
    Summed: st.builds(Summed, st.lists(st.integers(0, 9), max_size=3)),
    Scored: st.builds(Scored, st.integers(0, 9), st.integers(0, 9)),
    Rated: st.builds(rated, st.integers(0, 9), st.none() | st.dates()),
    Plan: st.fixed_dictionaries({"title": texts, "due": st.dates()}),
    Note: st.fixed_dictionaries({}, optional={"text": texts, "tags": st.lists(texts, max_size=2)}),
    Box[date]: st.builds(Box, st.dates(), st.lists(st.dates(), max_size=2)),
    Box[Any]: st.builds(Box, json_values(max_leaves=3), st.just([])),
    Any: json_values(max_leaves=5),
    dict[str, Any]: st.dictionaries(texts, json_values(max_leaves=3), max_size=2),
}
HASHABLE = [str, int, date, UUID, Colour, Point, bytes, Decimal]
Case = tuple[Any, st.SearchStrategy[Any]]


def of(generic: Any, *args: Any) -> Any:
    """An annotation that is put together at run time."""
    return generic[args]


def union(annotations: list[Any]) -> Any:
    """The union of these; of nothing but None, None."""
    return functools.reduce(lambda one, other: None if one is other is None else one | other, annotations)


def containers(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    """Annotations around others."""
    keys = st.sampled_from(HASHABLE)
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        inner.map(lambda one: (of(list, one[0]), st.lists(one[1], max_size=3))),
        inner.map(lambda one: (of(tuple, one[0], ...), st.lists(one[1], max_size=3).map(tuple))),
        inner.map(lambda one: (of(Sequence, one[0]), st.lists(one[1], max_size=3).map(tuple))),
        inner.map(lambda one: (of(dict, str, one[0]), st.dictionaries(texts, one[1], max_size=3))),
        inner.map(lambda one: (of(Mapping, str, one[0]), st.dictionaries(texts, one[1], max_size=3))),
        inner.map(lambda one: (union([one[0], None]), st.none() | one[1])),
        some.map(lambda them: (of(tuple, *(one[0] for one in them)), st.tuples(*(one[1] for one in them)))),
        some.map(lambda them: (union([one[0] for one in them]), st.one_of(*(one[1] for one in them)))),
        keys.map(lambda key: (of(set, key), st.sets(KINDS[key], max_size=4))),
        keys.map(lambda key: (of(frozenset, key), st.frozensets(KINDS[key], max_size=4))),
        st.tuples(keys, inner).map(
            lambda pair: (
                of(dict, pair[0], pair[1][0]),
                st.dictionaries(KINDS[pair[0]], pair[1][1], max_size=3),
            )
        ),
    )


leaves: st.SearchStrategy[Case] = st.sampled_from(list(KINDS.items()))
cases: st.SearchStrategy[Case] = st.recursive(leaves, containers, max_leaves=4)


def returning(annotation: Any, name: str = "it") -> Codec:
    """The codec of an actor with this return annotation."""

    def call() -> None: ...

    call.__annotations__ = {"return": annotation}
    return codec_of(call, name)


def passed(codec: Codec, value: Any) -> Any:
    """What comes of a value, whichever way it goes."""
    encoded = codec.encode(value)
    stored = codec.dump(value)
    by_json = codec.decode(json.loads(json.dumps(encoded)))
    assert payload.encode(encoded) == stored
    assert by_json == codec.load(stored)
    data, kept = codec.kept(value)
    assert data == stored
    assert same(by_json, kept)
    return by_json


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same types throughout (1 is no True, a list no tuple)."""
    return type(one) is type(other) and one == other and _parts_are_same(one, other)


def _parts_are_same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return repr(one) == repr(other) if isinstance(one, (int, float, str)) else True


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(data=st.data())
def test_each_kind_comes_back_as_it_was(kind: Any, data: st.DataObject) -> None:
    value = data.draw(KINDS[kind])

    assert same(value, passed(returning(kind), value))


@given(cases, st.data())
def test_kinds_come_back_from_within_each_other(case: Case, data: st.DataObject) -> None:
    annotation, values = case
    value = data.draw(values)

    assert same(value, passed(returning(annotation), value))


@given(st.lists(cases, min_size=2, max_size=3), st.data())
def test_of_several_each_output_comes_back_alone_and_in_a_dict(
    several: list[Case], data: st.DataObject
) -> None:
    codec = codec_of_any([returning(annotation) for annotation, _ in several], "it")
    values = [data.draw(values) for _, values in several]
    deeper = codec_of_any([codec, returning(date)], "outer")

    for value in (*values, {str(number): value for number, value in enumerate(values)}):
        assert same(value, passed(codec, value))
        assert same({"in": value, "on": date.min}, passed(deeper, {"in": value, "on": date.min}))


@given(cases, json_values(max_leaves=8))
def test_json_comes_back_though_the_annotation_lies(case: Case, value: Any) -> None:
    assert same(value, passed(returning(case[0]), value))


@given(json_values())
def test_without_an_annotation_it_is_the_queues_json(value: Any) -> None:
    codec = codec_of(lambda: None, "it")

    assert payload.encode(value) == codec.dump(value)
    assert same(value, passed(codec, value))


@given(cases, st.data())
def test_equal_values_have_equal_json(case: Case, data: st.DataObject) -> None:
    value = data.draw(case[1])
    codec = returning(case[0])

    assert codec.dump(value) == codec.dump(codec.load(codec.dump(value)))


@pytest.mark.parametrize("annotation", [Any, list[Any], Note, list[dict[str, int]], Box[Any]], ids=str)
def test_nothing_is_shared_with_what_was_returned(annotation: Any) -> None:
    inner: dict[str, Any] = {"a": [1]}
    value: Any = [inner]
    codec = returning(annotation)

    encoded = codec.encode(value)
    decoded = codec.decode(encoded)
    _, kept = codec.kept(value)
    inner["a"].append(2)
    encoded_before, encoded[0] = json.loads(json.dumps(encoded)), None

    assert [{"a": [1]}] == encoded_before
    assert [{"a": [1]}] == decoded == kept


TAGS: list[tuple[Any, Any, Any]] = [
    (date | None, date(2026, 1, 2), "2026-01-02"),
    (date | None, None, None),
    (date | int, 3, 3),
    (date | str, "2026-01-02", "2026-01-02"),
    (date | str, date(2026, 1, 2), {"$type": "date", "value": "2026-01-02"}),
    (date | datetime, date(2026, 1, 2), {"$type": "date", "value": "2026-01-02"}),
    (date, "2026-01-02", {"$type": None, "value": "2026-01-02"}),
    (date, 3, 3),
    (Plan | Report, {"title": "a", "due": 1}, {"$type": "Plan", "value": {"title": "a", "due": 1}}),
    (Words, Words("a b"), {"words": ["a", "b"]}),
    (set[str], {"b", "a", "c"}, ["a", "b", "c"]),
    (dict[int, date], {1: date(2026, 1, 2)}, [[1, "2026-01-02"]]),
    (Colour, Colour.RED, "RED"),
    (Rights, Rights.READ | Rights.WRITE, 3),
    (timedelta, timedelta(1, 2, 3), [1, 2, 3]),
    (bytes, b"\xff", "/w=="),
    (Plan, {"$type": 1, "value": 2}, {"$type": "Plan", "value": {"$type": 1, "value": 2}}),
    (date, {"$type": None, "value": 1}, {"$type": None, "value": {"$type": None, "value": 1}}),
    (Plan | Words, Words("a"), {"$type": "Words", "value": {"words": ["a"]}}),
    (list[str] | list[date], ["a"], ["a"]),
    (list[date] | list[UUID], [date.min], {"$type": "list[date]", "value": ["0001-01-01"]}),
    (list[date] | list[UUID], [UUID(int=1)], {"$type": "list[UUID]", "value": [str(UUID(int=1))]}),
    (date | Goto | End, date.min, "0001-01-01"),
    (Note | Words, {"text": "a"}, {"text": "a"}),
    (float | Rights, 1, 1),
    (str, {"$type": None, "value": 1}, {"$type": None, "value": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "encoded"), TAGS, ids=range(len(TAGS)))
def test_a_tag_is_there_only_where_it_must_be(annotation: Any, value: Any, encoded: Any) -> None:
    codec = returning(annotation)

    assert encoded == codec.encode(value)
    assert same(value, codec.decode(encoded))


def test_what_annotated_adds_is_passed_over() -> None:
    codec = returning(Annotated[list[Annotated[date, ["no", "hash"]]], "a list"])

    assert [date.min] == passed(codec, [date.min])


def _same_name() -> type:
    @dataclass
    class Report:
        day: date

    return Report


def test_classes_of_one_name_are_told_apart() -> None:
    first, second = _same_name(), _same_name()
    codec = returning(Report | first | second)

    for made in (first(date.min), second(date.min), Report("a", date.min)):
        assert same(made, passed(codec, made))


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("day", [date(2026, 10, 25), date(2026, 3, 29)], ids=["twice", "never"])
def test_an_hour_that_a_zone_has_twice_or_never_is_kept(day: date, fold: int) -> None:
    value = datetime.combine(day, time(2, 30, fold=fold), ZoneInfo("Europe/Berlin"))
    codec = returning(datetime)

    restored = codec.decode(codec.encode(value))

    assert (value, fold, value.utcoffset()) == (restored, restored.fold, restored.utcoffset())
    assert value.tzinfo is restored.tzinfo


class Odd(tzinfo):
    """A zone with two offsets for one hour, as those of other libraries may be."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=when.fold if when else 0)

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "odd"


def test_a_zone_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(PayloadError, match="zoneinfo"):
        returning(datetime).dump(datetime(2026, 1, 1, tzinfo=Odd(), fold=1))


# What is read of an annotation.
async def coroutine() -> tuple[int, str]: ...  # type: ignore[empty-body]


def plain() -> Awaitable[tuple[int, str]]: ...  # type: ignore[empty-body]


def plainer() -> Coroutine[Any, Any, tuple[int, str]]: ...  # type: ignore[empty-body]


async def stopping() -> tuple[int, str] | Goto | End | Output: ...  # type: ignore[empty-body]


async def quoted() -> tuple[int, str]: ...  # type: ignore[empty-body]


class Callable_:  # noqa: N801
    async def __call__(self, prompt: str) -> tuple[int, str]: ...  # type: ignore[empty-body]

    async def run(self, prompt: str) -> tuple[int, str]: ...  # type: ignore[empty-body]


@functools.wraps(coroutine)
def wrapper(*args: Any) -> Any: ...


@actor
async def decorated() -> tuple[int, str]: ...  # type: ignore[empty-body]


async def partly(a: Fraction, b: str) -> tuple[int, str]: ...  # type: ignore[empty-body]


partly.__annotations__["b"] = "no annotation at all"


CALLS: list[Callable[..., Any]] = [
    coroutine,
    plain,
    plainer,
    stopping,
    quoted,
    Callable_(),
    Callable_().run,
    wrapper,
    decorated.target,
    functools.partial(coroutine),
    functools.partial(functools.partial(Callable_().run), "a"),
    partly,
]


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_the_annotation_is_found(call: Callable[..., Any]) -> None:
    assert (1, "a") == passed(codec_of(call, "it"), (1, "a"))


async def iterating() -> AsyncIterator[str]:
    yield "a"


async def generating() -> AsyncGenerator[str, None]:
    yield "a"


@pytest.mark.parametrize("call", [iterating, generating], ids=["iterator", "generator"])
def test_a_streams_output_is_text(call: Callable[..., Any]) -> None:
    codec = codec_of(call, "it")

    assert "ab" == passed(codec, "ab")
    assert b'"ab"' == codec.dump("ab")


def test_a_local_class_is_found_where_the_actor_uses_it() -> None:
    @dataclass
    class Local:
        day: date

    async def make() -> Local:
        return Local(date.min)

    assert Local(date.min) == passed(codec_of(make, "it"), Local(date.min))


def test_a_local_class_hides_one_of_the_module() -> None:
    @dataclass
    class Point:
        day: date

    async def make() -> Point:
        made: Any = Point(date.min)
        return made  # type: ignore[no-any-return]  # pyright takes the module's Point to be meant

    assert Point(date.min) == passed(codec_of(make, "it"), Point(date.min))


def test_names_are_looked_up_where_a_wrapped_function_was_written() -> None:
    space: dict[str, Any] = {"wraps": functools.wraps}
    exec("def wrapped(call): return wraps(call)(lambda: call())", space)  # noqa: S102  # another module
    call = space["wrapped"](coroutine_of_point)

    assert Point(1, date.min) == passed(codec_of(call, "it"), Point(1, date.min))


async def coroutine_of_point() -> Point: ...  # type: ignore[empty-body]


def test_a_class_may_be_defined_after_the_actor() -> None:
    space: dict[str, Any] = {}
    exec("async def make() -> 'Later': ...", space)  # noqa: S102  # a module of its own
    codec = codec_of(space["make"], "it")
    space["Later"] = Point

    assert Point(1, date.min) == passed(codec, Point(1, date.min))


def misleading() -> Fraction | date | Goto: ...  # type: ignore[empty-body]


def test_an_annotation_is_of_use_though_part_of_it_is_not_there_at_run_time() -> None:
    assert date.min == passed(codec_of(misleading, "it"), date.min)
    assert "a" == passed(codec_of(misleading, "it"), "a")


def for_checkers_only() -> Fraction: ...  # type: ignore[empty-body]


def test_a_type_that_is_not_there_at_run_time_is_named() -> None:
    with pytest.raises(PayloadError, match=r"'Fraction'.*TYPE_CHECKING"):
        codec_of(for_checkers_only, "it").dump(date.min)


SENSELESS: list[Any] = ["1 +", "some words", 3, "nowhere.Thing", [], object(), "1/0", Generic, print]


@pytest.mark.parametrize("annotation", SENSELESS, ids=range(len(SENSELESS)))
def test_a_senseless_annotation_stands_for_json(annotation: Any) -> None:
    codec = returning(annotation)

    assert [1, "a"] == passed(codec, [1, "a"])
    with pytest.raises(PayloadError):
        codec.dump(date.min)


STRANGE: list[Any] = [print, len, int, "text", None, functools.partial(print)]


@pytest.mark.parametrize("call", STRANGE, ids=range(len(STRANGE)))
def test_making_a_codec_never_raises(call: Any) -> None:
    assert 1 == passed(codec_of(call, "it"), 1)


class Thing:
    pass


class Dog(Node):
    pass


@dataclass
class Holder:
    things: list[Any]


REFUSED: list[tuple[Any, Any, str]] = [
    (Any, {"a": [1, 2, 3, {1}]}, "['a'][3]"),
    (Any, (1,), ""),
    (Any, float("nan"), ""),
    (str, "\udc80", ""),
    (list[date], [date.min, Thing()], "[1]"),
    (dict[str, list[date]], {"a": [date.min, {"b": Thing()}]}, "['a'][1]['b']"),
    (dict[str, date], {1: date.min}, ""),
    (Box[dict[str, date]], Box({1: date.min}, []), ".inside"),
    (Box[Plan], Box({1: date.min}, []), ".inside"),
    (tuple[int, str], (1, "a", 2), ""),
    (tuple[date, float], (date.min, float("inf")), "[1]"),
    (Node, Dog(name="a"), ""),
    (Holder, Holder([1, Thing()]), ".things[1]"),
    (list[Holder], [Holder([]), Holder([date.min])], "[1].things[0]"),
    (Node, Node(name="a", when=3 + 4j), ".when"),  # type: ignore[arg-type]
    (Plan, {"title": Thing(), "due": date.min}, "['title']"),
    (dict[int, date], {1: Thing()}, "[1]"),
    (Path, Path("\udc80"), ""),
    (list[str], collections.OrderedDict(), ""),
    (date | str, datetime(2026, 1, 1), ""),  # noqa: DTZ001
]


@pytest.mark.parametrize(("annotation", "value", "path"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_stored_is_named_with_its_path(annotation: Any, value: Any, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        returning(annotation, "writer").dump(value)

    assert f"the output of actor 'writer': it{path}" == caught.value.path


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(Any, date.min), (list[str], ("a",)), (Node, 1j), (Holder, Holder([1j]))],
    ids=str,
)
def test_the_error_says_what_to_do(annotation: Any, value: Any) -> None:
    with pytest.raises(PayloadError, match=r"(?i)annotate.*JSON|JSON.*annotate"):
        returning(annotation).dump(value)


@pytest.mark.parametrize("value", [("a",), collections.OrderedDict(), date.min, [("a",)]], ids=str)
def test_the_error_says_once_what_to_do(value: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        returning(Any).dump(value)

    _, remedy = caught.value.problem.split(". ")
    assert remedy.startswith("Return JSON")


def test_what_another_annotation_of_a_dict_would_take_says_so() -> None:
    with pytest.raises(PayloadError, match=r"has the key 1, which is no string\. Return JSON.*annotate"):
        returning(Any).dump([{1: "a"}])


def test_within_an_annotated_output_it_is_what_holds_it_that_must_be_annotated() -> None:
    with pytest.raises(PayloadError, match=r"things\[0\] is of type complex.*Annotate what holds it"):
        returning(Holder).dump(Holder([1j]))


def test_the_error_of_a_step_names_it() -> None:
    with pytest.raises(PayloadError, match="the output of actor 'writer', step 'pay': it is") as caught:
        codec_of(lambda: None, "writer", step="pay").dump(date.min)
    assert "the actor" not in caught.value.problem


def test_a_number_that_json_has_not_is_no_matter_of_annotations() -> None:
    with pytest.raises(PayloadError) as caught:
        returning(Any).dump([float("nan")])

    assert "nnotate" not in caught.value.problem


def test_what_contains_itself_is_refused() -> None:
    itself: Any = Holder([])
    itself.things = [itself]
    deep = Node(name="a")
    for _ in range(5000):
        deep = Node(name="a", children=(deep,))

    for annotation, value in ((Holder, itself), (Node, deep)):
        with pytest.raises(PayloadError):
            returning(annotation).dump(value)


@pytest.mark.parametrize("annotation", [Any, tuple[str, ...]], ids=str)
def test_an_output_that_is_too_large_is_refused(annotation: Any) -> None:
    value: Any = ["a" * 40] if annotation is Any else ("a" * 40,)
    codec = returning(annotation)

    assert codec.dump(value, 44)
    with pytest.raises(PayloadError) as caught:
        codec.dump(value, 43)
    assert caught.value.is_too_large


@pytest.mark.parametrize(
    ("annotation", "stored"),
    [
        (date, '"yesterday"'),
        (Node, '{"children": []}'),
        (Node, '{"name": "a", "colour": "red"}'),
        (date | str, '{"$type": "Gone", "value": 1}'),
    ],
    ids=str,
)
def test_what_does_not_fit_any_more_is_an_error_that_names_the_actor(annotation: Any, stored: str) -> None:
    with pytest.raises(PayloadError, match=r"'writer'.*version="):
        returning(annotation, "writer").load(stored.encode())


def test_a_class_may_gain_fields_with_a_default() -> None:
    assert Node(name="a") == returning(Node).load(b'{"name": "a"}')


def test_a_field_that_makes_itself_anew_is_not_kept() -> None:
    @dataclass
    class Guarded:
        number: int
        twice: int = field(init=False)
        lock: Any = field(init=False, default_factory=threading.Lock)
        cache: dict[int, Any] = field(init=False, default_factory=dict, compare=False)

        def __post_init__(self) -> None:
            self.twice = self.number * 2

    value = Guarded(2)
    value.cache[1] = value
    codec = returning(Guarded)

    assert codec.dump(value) == b'{"number":2}'
    assert codec.load(b'{"number":2}').twice == 4


def test_a_field_that_cannot_be_kept_is_refused() -> None:
    @dataclass
    class Late:
        found: Any = field(init=False, default=None)

    value = Late()
    value.found = {1, 2}

    with pytest.raises(PayloadError, match=r"it\.found"):
        returning(Late).dump(value)


def test_what_an_annotation_may_need_is_loaded_when_the_first_value_passes() -> None:
    code = (
        "import sys, anyio, attrs; before = set(sys.modules);"
        "from jotty.core.orchestration.codec import codec_of; codec_of(print, 'it');"
        "print(*(set(sys.modules) - before))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert "jotty.core.orchestration.codec" in loaded
    assert {name for name in loaded if name.startswith("jotty.core.orchestration.codec.")} == set()
    assert {"base64", "dataclasses", "decimal", "uuid", "zoneinfo"} & loaded == set()


# Objects with model_dump and model_validate, of whichever library.
class Duck:
    """The least that such an object is: no __eq__, no other way to dump."""

    def __init__(self, day: date) -> None:
        self.day = day

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {"day": self.day.isoformat() if mode == "json" else self.day}

    @classmethod
    def model_validate(cls, data: Any) -> Duck:
        return cls(date.fromisoformat(data["day"]))


@given(st.dates())
def test_an_object_that_dumps_and_validates_comes_back(day: date) -> None:
    for annotation, value in ((Duck, Duck(day)), (list[Duck | None], [None, Duck(day)])):
        codec = returning(annotation)

        restored = codec.load(codec.dump(value))
        first = restored[1] if isinstance(restored, list) else restored

        assert day == first.day


def test_an_object_that_dumps_less_than_it_holds_is_refused() -> None:
    class Forgetful(Duck):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Duck) and self.day == other.day

        __hash__ = None  # type: ignore[assignment]  # as that of a mutable model

        def model_dump(self, *, mode: str) -> dict[str, Any]:
            return {"day": "2026-01-01"}

    with pytest.raises(PayloadError, match="model_validate"):
        returning(Forgetful).dump(Forgetful(date.min))


@pytest.fixture(scope="module")
def models() -> Any:
    """Models of pydantic's, if it is installed."""
    pydantic = pytest.importorskip("pydantic")

    make = pydantic.create_model
    inner = make("Inner", day=(date, ...), price=(Decimal, Decimal("1.10")))
    strict = {
        "__module__": __name__,
        "__annotations__": {"words": tuple[str, ...]},
        "model_config": {"extra": "forbid"},
        "number": pydantic.computed_field(property(_number)),
    }
    found = {
        "Inner": inner,
        "Renamed": make("Renamed", name=(str, pydantic.Field(alias="theName"))),
        "Strict": type("Strict", (pydantic.BaseModel,), strict),
        "Many": pydantic.RootModel[of(list, inner)],
        "Hidden": make("Hidden", key=(pydantic.SecretStr, ...)),
        "Checked": pydantic.dataclasses.dataclass(type("Checked", (), {"__annotations__": {"day": date}})),
    }
    return type("Models", (), found)


def _number(model: Any) -> int:
    return len(model.words)


def test_pydantic_models_come_back(models: Any) -> None:
    inner = models.Inner(day=date.min)
    values = [
        inner,
        models.Renamed(theName="a"),
        models.Strict(words=("a", "b")),
        models.Many([inner, inner]),
        models.Checked(day=date.min),
    ]

    for value in values:
        for annotation, whole in (
            (type(value), value),
            (of(list, union([type(value), None])), [value, None]),
            (union([models.Inner, type(value), str]), value),
            (of(dict, str, of(tuple, type(value), int)), {"a": (value, 1)}),
        ):
            assert same(whole, passed(returning(annotation), whole))


def test_a_model_that_hides_what_it_holds_is_refused(models: Any) -> None:
    with pytest.raises(PayloadError, match="Hidden"):
        returning(models.Hidden).dump(models.Hidden(key="secret"))


def test_a_model_without_an_annotation_is_told_to_dump(models: Any) -> None:
    with pytest.raises(PayloadError, match="model_dump"):
        returning(Any).dump(models.Inner(day=date.min))
