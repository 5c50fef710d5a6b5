"""New tasks, with all their options."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import strategies as st

from jotty.core.queue import NewTask, RetryPolicy

from .payloads import contexts, goals

__all__ = ["retry_policies", "tasks"]

FIRST = datetime(2026, 1, 1)  # noqa: DTZ001 - the strategy adds the timezone
LAST = datetime(2026, 12, 31)  # noqa: DTZ001
_LEFT_OUT: Final = object()


def retry_policies() -> st.SearchStrategy[RetryPolicy]:
    """Generate ways to wait between attempts: the default one, without jitter, with a cap below all waits.

    Example:
        @given(retry_policies(), st.integers(1, 10**6), st.randoms())
        def test_no_wait_is_longer_than_the_cap(policy, attempt, random):
            assert policy.backoff(attempt, random) <= policy.cap
    """
    return st.just(RetryPolicy()) | st.builds(
        RetryPolicy,
        delay=st.just(1.0) | st.floats(0, 3600),
        factor=st.just(2.0) | st.floats(1, 10),
        cap=st.just(300.0) | st.floats(0, 1e6),
        jitter=st.just(0.5) | st.floats(0, 1),
        max_postponements=st.just(100) | st.integers(0, 100),
    )


def tasks(*, lanes: tuple[str, ...] = ("default", "other")) -> st.SearchStrategy[NewTask]:
    """Generate tasks for `TaskQueue.enqueue_many`; they depend on nothing, and none waits beyond 2026.

    The smallest has a goal and no option.

    Args:
        lanes: The lanes that they are in.

    Example:
        @given(st.lists(tasks()))
        def test_a_queue_keeps_their_order(batch):
            ...  # await queue.enqueue_many(batch)
    """
    return st.builds(_new, goals(), _options(lanes))


def _new(goal: Any, options: dict[str, Any]) -> NewTask:
    return NewTask(goal, **options)


def _options(lanes: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "red tape", "k-1", "Ünïcode", "'; --", "x" * 200])
    options: dict[str, st.SearchStrategy[Any]] = {
        "context": contexts(),
        "priority": st.integers(1, 5),
        "lane": st.sampled_from(lanes),
        "delay": st.floats(0, 1e6),
        "run_at": st.datetimes(FIRST, LAST, timezones=st.just(UTC)),
        "key": names,
        "on_dependency": st.sampled_from(["fail", "cancel", "run"]),
        "max_attempts": st.integers(1, 100),
        "retry": retry_policies(),
        "timeout": st.floats(0.001, 1e6),
        "status": st.sampled_from(["pending", "backlog", "suggested"]),
        "tags": st.lists(names, max_size=3, unique=True),
        "metadata": st.dictionaries(names, st.booleans() | st.text(), max_size=2),
        "headers": st.dictionaries(names, st.text(), max_size=2),
    }
    # an option that is left out is the simplest one, which an optional key of a dict is not
    given = st.fixed_dictionaries({name: st.just(_LEFT_OUT) | one for name, one in options.items()})
    return given.map(_chosen)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: value for name, value in options.items() if value is not _LEFT_OUT}
    if "delay" in chosen:
        chosen.pop("run_at", None)
    return chosen
