from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import RetryLater, RetryPolicy

seconds = st.floats(min_value=0, max_value=1e6)
policies = st.builds(
    RetryPolicy,
    delay=seconds,
    cap=seconds,
    factor=st.floats(1, 10),
    jitter=st.floats(min_value=0, max_value=1),
)


@given(policies, st.integers(min_value=1, max_value=10**6), st.integers())
def test_c32_backoff_stays_within_its_cap_at_any_attempt(
    policy: RetryPolicy, attempt: int, seed: int
) -> None:
    assert 0 <= policy.backoff(attempt, Random(seed)) <= policy.cap


def test_c32_backoff_doubles_and_its_jitter_comes_from_the_injected_generator() -> None:
    steady = RetryPolicy(delay=1.0, jitter=0.0)
    jittered = RetryPolicy(delay=1.0, jitter=0.5)

    assert [1.0, 2.0, 4.0] == [steady.backoff(n, Random(0)) for n in (1, 2, 3)]
    assert jittered.backoff(1, Random(0)) == 1 - 0.5 * Random(0).random()


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": -1},
        {"delay": True},
        {"cap": float("inf")},
        {"factor": 0.5},
        {"jitter": 1.1},
        {"max_postponements": -1},
    ],
)
def test_a_policy_that_makes_no_schedule_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_retry_later_waits_at_least_a_tenth_of_a_second() -> None:
    assert RetryLater(0).seconds == 0.1
    with pytest.raises(ValueError, match="-1"):
        RetryLater(-1)
