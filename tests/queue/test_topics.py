"""Waking those who wait for a change: never too late, and seldom too early."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import Topics, topics
from jotty.testing import VirtualClock

pytestmark = pytest.mark.anyio

HOUR = 3600.0
changes = st.lists(st.sets(st.sampled_from("abc")), max_size=12)


async def is_at_once(told: Topics, topic: str, mark: int) -> bool:
    """Whether a wait from this mark returns without waiting."""
    clock = VirtualClock()
    before = clock.now()
    async with clock.autojump():
        await told.wait(topic, mark, HOUR, clock)
    return clock.now() == before


@given(changes=changes, mark=st.integers(0, 12), topic=st.sampled_from("abc"))
def test_a_wait_returns_at_once_if_its_topic_has_changed_since(
    changes: list[set[str]], mark: int, topic: str
) -> None:
    told = Topics()
    for changed in changes:
        told.bump(changed)

    assert (topic in set().union(*changes[mark:])) == anyio.run(is_at_once, told, topic, mark)


@given(changes=changes, mark=st.integers(0, 12), topic=st.sampled_from("abc"))
def test_a_wait_is_never_late_though_changes_are_forgotten(
    changes: list[set[str]], mark: int, topic: str
) -> None:
    told = Topics()
    for at, changed in enumerate(changes):
        told.bump({*changed, *(f"{at} {number}" for number in range(topics.MAX_REMEMBERED // 3))})

    assert topic not in set().union(*changes[mark:]) or anyio.run(is_at_once, told, topic, mark)
    assert len(told._changes) <= 3


async def test_anything_may_have_changed() -> None:
    told = Topics()
    told.bump({"a"})
    mark = told.mark
    told.bump_all()

    assert await is_at_once(told, "b", mark)
    assert not await is_at_once(told, "b", told.mark)
