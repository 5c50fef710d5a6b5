from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import MAX_PAYLOAD, check_json, payload
from jotty.errors import PayloadError
from jotty.testing import RefusedPayload, contexts, goals, json_values, payloads_refused


def nested(depth: int, innermost: Any = None) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@given(json_values() | goals() | contexts())
def test_c07_strict_json_comes_back_type_identical(value: Any) -> None:
    assert repr(value) == repr(payload.decode(payload.encode(value)))


@given(json_values())
def test_c07_what_is_stored_is_plain_json_in_utf_8(value: Any) -> None:
    encoded = payload.encode(value)

    assert repr(value) == repr(json.loads(encoded.decode("utf-8")))


@given(payloads_refused())
def test_c07_what_is_no_json_is_refused_with_its_path(refused: RefusedPayload) -> None:
    with pytest.raises(PayloadError) as caught:
        check_json(refused.value, "context")

    assert f"context{refused.path}" == caught.value.path


@given(payloads_refused(), st.lists(json_values(max_leaves=3), max_size=4), st.text())
def test_c07_the_path_is_found_among_what_is_fine(
    refused: RefusedPayload, fine: list[Any], name: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        check_json([{name: [*fine, refused.value]}, *fine], "goal")

    assert f"goal[0][{name!r}][{len(fine)}]{refused.path}" == caught.value.path


def test_c07_the_path_reads_like_python() -> None:
    with pytest.raises(PayloadError) as caught:
        check_json({"frame": [0, 1, 2, float("nan")]}, "context")

    assert "context['frame'][3]" == caught.value.path


@pytest.mark.parametrize("key", [1, None, True, 1.5, ("a",), b"a"])
def test_c07_a_dict_with_a_key_that_is_no_string_is_what_is_named(key: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        check_json({"a": [{"fine": 1, key: 2}]})

    assert "value['a'][0]" == caught.value.path
    assert repr(key) in caught.value.problem


def test_c07_a_lone_surrogate_in_a_key_is_named() -> None:
    with pytest.raises(PayloadError) as caught:
        check_json({"a": {"\udc80": 1}})

    assert "value['a']['\\udc80']" == caught.value.path


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
def test_c07_integers_beyond_64_bits_are_refused(number: int) -> None:
    check_json([2**63 - 1, -(2**63)])
    with pytest.raises(PayloadError) as caught:
        check_json([number])

    assert "value[0]" == caught.value.path


@pytest.mark.parametrize("innermost", [None, {}, [], {"a": 1}])
def test_c07_depth_is_bounded_at_one_hundred(innermost: Any) -> None:
    depth = 100 - isinstance(innermost, (dict, list))
    check_json(nested(depth, innermost))
    with pytest.raises(PayloadError):
        check_json(nested(depth + 1, innermost))


def test_c07_cycles_are_refused() -> None:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    with pytest.raises(PayloadError) as caught:
        check_json(cycle)

    assert caught.value.path.startswith("value[1]['again'][1]['again']")


class Text(str):
    __slots__ = ()


class Number(int): ...


class Items(list[int]): ...


class Pairs(dict[str, int]): ...


@pytest.mark.parametrize("value", [Text("a"), Number(1), Items(), Pairs(), (1, 2), (), {1}, b"", object()])
def test_c07_the_remedy_names_the_type(value: Any) -> None:
    with pytest.raises(PayloadError, match=type(value).__name__):
        check_json(value)


@given(json_values(), st.integers(0, 40))
def test_c07_the_limit_counts_bytes_of_json(value: Any, limit: int) -> None:
    size = len(payload.encode(value))
    if size <= limit:
        assert size == len(payload.encode(value, limit=limit))
    else:
        with pytest.raises(PayloadError) as caught:
            payload.encode(value, "goal", limit=limit)
        assert "goal" == caught.value.path


def test_c07_the_default_limit_is_one_mebibyte() -> None:
    assert 2**20 == MAX_PAYLOAD
