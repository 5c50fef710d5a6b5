from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.cli.failing import UsageError
from jotty.cli.options import parse_context, parse_order
from jotty.core.queue import check_json
from jotty.errors import PayloadError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
keys = st.text(min_size=1).filter(lambda key: "=" not in key)


def is_json(text: str) -> bool:
    with suppress(ValueError, PayloadError):
        check_json(json.loads(text))
        return True
    return False


@given(keys, json_values)
def test_a_value_that_is_json_arrives_as_it_was_meant(key: str, value: object) -> None:
    assert {key: value} == parse_context([f"{key}={json.dumps(value)}"])


@given(keys, st.text().filter(lambda text: not is_json(text)))
def test_a_value_that_is_no_json_arrives_as_text(key: str, text: str) -> None:
    assert {key: text} == parse_context([f"{key}={text}"])


@given(st.text())
def test_a_quoted_value_is_always_text(text: str) -> None:
    assert {"key": text} == parse_context([f"key={json.dumps(text)}"])


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "[NaN]",
        "1e999",
        '{"a": [-1e999]}',
        "99999999999999999999",
        '"\\ud800"',
        "[" * 100_000,
        "[" * 101 + "]" * 101,
    ],
)
def test_what_is_no_strict_json_is_text(text: str) -> None:
    context = parse_context([f"key={text}"])

    assert {"key": text} == context
    check_json(context, "context")


def test_an_argument_that_is_no_utf_8_is_refused_with_its_key() -> None:
    with pytest.raises(PayloadError, match=r"context\['name'\]"):
        parse_context([os.fsdecode(b"name=caf\xe9")])


def test_only_the_first_equals_sign_parts_key_from_value_and_the_later_of_two_counts() -> None:
    assert {"a": "b=c", "d": 2} == parse_context(["a=b=c", "d=1", "d=2"])
    assert {} == parse_context(None)


@pytest.mark.parametrize("pair", ["quarter", "=Q4", "", "="])
def test_a_context_without_key_or_value_is_a_usage_error_that_shows_the_form(pair: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_context([pair])


def test_an_order_is_names_with_commas_between_them() -> None:
    assert ["a", "b"] == parse_order("a, b")
    assert parse_order(None) is None
    with pytest.raises(UsageError, match="commas"):
        parse_order("a,,b")
