"""B. Enqueue: C7, what may go in."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings

from jotty.core.queue import TaskStatus
from jotty.errors import PayloadError
from jotty.testing.strategies import RefusedPayload, json_values, payloads_refused

from .rules import Rules, claim_one, collect, current, everything

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jotty.core.queue import TaskQueue

    from .rules import QueueFactory

__all__ = ["EXAMPLES", "PayloadRules"]

# The store stays the same from example to example, and the classes that inherit these tests differ.
EXAMPLES: Final = settings(
    max_examples=20,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


# What has been lost on the way through one store or another.
DELICATE: Final = {
    "b": [-0.0, 0.0, 0, 1, 1.0, True, False, None, 5e-324, 1.7976931348623157e308, 0.1 + 0.2],
    "a": [2**63 - 1, -(2**63), 2**53 + 1, 1e16, "", " ", [], {}, [[]], {"": {}}],
    "\0": "NUL \0, astral \U0001f40d, combining e\u0301, \u2028, \ufeff, \x7f, \ufffe, \"'\\/",
}


# What a copy through JSON, or a lenient encoder, makes something else of.
ALIKE: Final[list[Any]] = [
    *((), (1, 2), {1}, frozenset(), b"bytes", bytearray(b"b"), range(2), float("nan"), float("-inf"), 2**63),
    *({1: "a"}, {None: 1}, {True: 1}, TaskStatus.PENDING, OrderedDict(a=1), defaultdict(int), "\ud800", 1j),
]


async def _as_goal(queue: TaskQueue, value: Any) -> Any:
    return (await current(queue, await queue.enqueue(value, lane="asleep"))).goal


async def _in_context(queue: TaskQueue, value: Any) -> Any:
    return (await current(queue, await queue.enqueue("goal", {"v": value}, lane="asleep"))).context["v"]


async def _in_metadata(queue: TaskQueue, value: Any) -> Any:
    task = await queue.enqueue("goal", metadata={"v": value}, lane="asleep")
    return (await current(queue, task)).metadata["v"]


async def _as_result(queue: TaskQueue, value: Any) -> Any:
    task = await queue.complete(await _held(queue), value)
    assert repr(value) == repr(await queue.result(task.id))
    return (await current(queue, task)).result


async def _in_journal(queue: TaskQueue, value: Any) -> Any:
    held = await _held(queue)
    await queue.record(held, [{"kind": "event", "v": value}])
    return (await collect(queue.events(held.id, follow=False)))[-1].data["v"]


async def _as_answer(queue: TaskQueue, value: Any) -> Any:
    held = await _held(queue)
    await queue.answer(held.id, "question", value)
    return (await collect(queue.events(held.id, follow=False)))[-1].data["value"]


async def _held(queue: TaskQueue) -> Any:
    """Return a task in progress: the one that an earlier example left so, or a new one."""
    for task in await collect(queue.tasks(status=TaskStatus.IN_PROGRESS)):
        if "question" not in task.answered:
            return task
    await queue.enqueue("goal")
    return await claim_one(queue, lease_timeout=1e6)


DOORS: Final[Mapping[str, Callable[[TaskQueue, Any], Awaitable[Any]]]] = {
    "goal": _as_goal,
    "context['v']": _in_context,
    "metadata['v']": _in_metadata,
    "result": _as_result,
    "entry['v']": _in_journal,
    "value": _as_answer,
}


def nested(depth: int) -> list[Any]:
    """Return that many lists in each other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


class PayloadRules(Rules):
    """C7: strict JSON, which comes back type-identical or is refused with its path."""

    @pytest.mark.parametrize("door", DOORS)
    @EXAMPLES
    @given(value=json_values())
    @example(value=DELICATE)
    async def test_c07_json_comes_back_type_identical(self, queue: TaskQueue, door: str, value: Any) -> None:
        """C7: goal, context, result, journal data come back type-identical (NUL, astral, -0.0, key order)."""
        assert repr(value) == repr(await DOORS[door](queue, value))

    @pytest.mark.parametrize("door", DOORS)
    @EXAMPLES
    @given(refused=payloads_refused())
    @example(refused=RefusedPayload({"a": [1, (2,)]}, "['a'][1]"))
    @example(refused=RefusedPayload([0, {"b": 2**63}], "[1]['b']"))
    async def test_c07_what_is_no_json_is_refused_with_its_path(
        self, queue: TaskQueue, door: str, refused: RefusedPayload
    ) -> None:
        """C7: PayloadError before any write, naming the path of the offending value."""
        if door in {"result", "entry['v']", "value"}:
            await _held(queue)
        before = await everything(queue)
        with pytest.raises(PayloadError) as caught:
            await DOORS[door](queue, refused.value)

        assert door + refused.path == caught.value.path
        assert before == await everything(queue)

    @pytest.mark.parametrize("wrong", ALIKE, ids=repr)
    async def test_c07_what_would_come_back_as_another_type_is_refused(
        self, queue: TaskQueue, wrong: Any
    ) -> None:
        """C7: PayloadError for tuples, sets, bytes, other objects, subclasses of JSON types."""
        for value, path in ((wrong, ""), ([wrong], "[0]"), ({"a": [1, wrong]}, "['a'][1]")):
            with pytest.raises(PayloadError) as caught:
                await queue.enqueue(value)
            assert f"goal{path}" == caught.value.path

        assert {} == await everything(queue)

    @pytest.mark.parametrize("door", DOORS)
    async def test_c07_depth_is_bounded_at_one_hundred(self, queue: TaskQueue, door: str) -> None:
        """C7: depth > 100 is refused; the dict that a door puts around the value is a level of its own."""
        deepest = 99 if "[" in door else 100

        assert nested(deepest) == await DOORS[door](queue, nested(deepest))
        with pytest.raises(PayloadError):
            await DOORS[door](queue, nested(deepest + 1))

    @pytest.mark.parametrize("door", DOORS)
    async def test_c07_cycles_are_refused(self, queue: TaskQueue, door: str) -> None:
        """C7: cycles are refused."""
        cycle: dict[str, Any] = {"a": [1]}
        cycle["a"].append(cycle)
        with pytest.raises(PayloadError) as caught:
            await DOORS[door](queue, cycle)

        assert caught.value.path.startswith(f"{door}['a'][1]")

    @pytest.mark.parametrize("name", ["context", "metadata", "headers"])
    async def test_c07_subclasses_of_dict_are_refused_even_if_empty(
        self, queue: TaskQueue, name: str
    ) -> None:
        """C7: subclasses of JSON types are refused."""
        empty: Any = type("Options", (dict,), {})()
        with pytest.raises(PayloadError) as caught:
            await queue.enqueue("goal", **{name: empty})

        assert name == caught.value.path

    @pytest.mark.parametrize("headers", [{"a": 1}, {"a": None}, {1: "a"}, {"a": ["b"]}], ids=repr)
    async def test_c07_headers_are_text(self, queue: TaskQueue, headers: Any) -> None:
        """C7: headers are text by name."""
        with pytest.raises(PayloadError) as caught:
            await queue.enqueue("goal", headers=headers)

        assert caught.value.path.startswith("headers")
        assert {} == await everything(queue)

    async def test_c07_max_payload_bounds_what_is_written(self, factory: QueueFactory) -> None:
        """C7: anything over `max_payload` is refused, and nothing is written."""
        async with factory.open(max_payload=1000) as queue:
            await queue.enqueue("x" * 900)
            held = await claim_one(queue)
            before = await everything(queue)
            large = "\U0001f40d" * 251
            with pytest.raises(PayloadError):
                await queue.enqueue(large)
            with pytest.raises(PayloadError) as caught:
                await queue.enqueue("goal", {"small": 1, "large": large})
            with pytest.raises(PayloadError):
                await queue.record(held, [{"kind": "event", "v": large}])
            with pytest.raises(PayloadError):
                await queue.answer(held.id, "question", large)
            after = await everything(queue)

        assert "context" == caught.value.path
        assert before == after

    async def test_c07_the_default_max_payload_is_one_mebibyte(self, queue: TaskQueue) -> None:
        """C7: `max_payload` is 1 MiB by default."""
        task = await queue.enqueue("x" * (2**20 - 100))
        with pytest.raises(PayloadError):
            await queue.enqueue("x" * 2**20)

        assert 2**20 - 100 == len((await current(queue, task)).goal)
