"""Breaks a queue on purpose, that in memory where nothing else is said, and has the suite find out.

A test here is a mutant. It is named after the rule that it breaks, and passes if a test of that rule fails.
"""

from __future__ import annotations

from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from jotty.testing.contract import rule_of
from jotty.testing.trial import Trial, run_trial
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock

# What a mutant raises that is merely ill made.
BREAKDOWNS: Final = ("AttributeError", "ImportError", "NameError", "TypeError", "RecursionError")


class SuiteCatches(Protocol):
    """Replaces what is there under a name by something worse, and insists that the suite catches it."""

    def __call__(self, owner: object, name: str, worse: Callable[..., Any]) -> None:
        """Insist on it.

        Args:
            owner: A module or a class.
            name: What is to be replaced in it.
            worse: Called in its place, with the original as its first argument.
        """


def open_memory(clock: VirtualClock, directory: Path) -> Callable[[], QueueBackend]:
    return MemoryBackend(clock=clock).clone


@pytest.fixture
def open_store() -> Callable[[VirtualClock, Path], Callable[[], QueueBackend]]:
    """The true backend, which a mutant breaks; to be overridden."""
    return open_memory


@pytest.fixture
def suite_catches(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    open_store: Callable[[VirtualClock, Path], Callable[[], QueueBackend]],
) -> SuiteCatches:
    rule = rule_of(request.node.originalname)
    assert rule, "a mutant's name begins with the rule that it breaks"

    def insist(owner: object, name: str, worse: Callable[..., Any]) -> None:
        monkeypatch.setattr(owner, name, put_before(getattr(owner, name), worse))
        trial = Trial(open_backend=open_store, rules={rule.number}, quick=True, stops_at_failure=True)
        failed = [one for one in run_trial(trial) if one.outcome == "failed"]
        assert failed, f"no test of {rule.number} fails"
        assert not failed[0].text.startswith(BREAKDOWNS), f"the mutant is ill made: {failed[0].text}"

    return insist


def put_before(original: Callable[..., Any], worse: Callable[..., Any]) -> Callable[..., Any]:
    if not iscoroutinefunction(worse):
        return wraps(original)(lambda *args, **options: worse(original, *args, **options))

    @wraps(original)
    async def call(*args: Any, **options: Any) -> Any:
        return await partial(worse, original)(*args, **options)

    return call
