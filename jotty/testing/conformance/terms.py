"""On what terms a rule is checked: what it needs of a backend, what is known to fail, what a failure says."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import pytest

from jotty.testing.clock import VirtualClock
from jotty.testing.contract import RULES, rule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jotty.core.queue import QueueBackend
    from jotty.testing.contract import Rule

__all__ = ["Terms", "leave_out", "needs"]

Test = TypeVar("Test", bound="Callable[..., Any]")


def needs(*capabilities: str) -> Callable[[Test], Test]:
    """Check a rule only where the backend declares these capabilities; elsewhere it is left out by name."""

    def declare(test: Test) -> Test:
        test.__dict__["needs"] = frozenset(capabilities)
        return test

    return declare


class Terms:
    """What every group of rules stands on: the store under test, and the terms on which it is tested.

    A group names what all its tests take by `requires`; a single test, by the decorator `needs`.

    Attributes:
        requires: The capabilities that a backend must declare for the tests of a group.
        expected_failures: By rule ("C18", for all its tests) or by the name of a test, why it is known to
            fail; it must fail indeed.
    """

    pytestmark = pytest.mark.anyio
    requires: ClassVar[frozenset[str]] = frozenset()
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        """Have each test of a group say its rule where it fails, and know what it needs."""
        super().__init_subclass__()
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and callable(test):
                needed = cls.requires | vars(test).get("needs", frozenset())
                made = _telling(test, rule) if (rule := rule_of(name)) else test
                vars(made).update(needs=needed)
                setattr(cls, name, made)
        for name in cls.expected_failures:
            if name not in RULES and not hasattr(cls, name.partition("[")[0]):
                raise TypeError(
                    f"{cls.__name__} expects {name!r} to fail: that is no rule, and no test of it."
                )

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """The time of the store and of all its handles, but for those of other processes."""
        return VirtualClock()

    @pytest.fixture
    def store_directory(self, tmp_path: Path) -> Path:
        """An empty directory for a store that is made of files, and for nothing else."""
        directory = tmp_path / "store"
        directory.mkdir()
        return directory

    @pytest.fixture
    def open_backend(self) -> Callable[[], QueueBackend]:
        """Override this one: see `TaskQueueConformance`."""
        pytest.fail(f"{type(self).__name__} must override the fixture open_backend")

    @pytest.fixture(autouse=True)
    def _terms(self, request: pytest.FixtureRequest) -> None:
        """Leave a test out where the backend does not declare what it needs, or expect it to fail."""
        names = [request.node.name, request.node.originalname]
        rule = rule_of(request.node.originalname)
        for name in [*names, rule.number] if rule else names:
            if reason := self.expected_failures.get(name):
                expected = pytest.mark.xfail(reason=f"{name} is expected to fail: {reason}", strict=True)
                request.applymarker(expected)
                break
        needed: frozenset[str] = getattr(request.function, "needs", frozenset())
        if needed:
            missing = needed - request.getfixturevalue("open_backend")().capabilities
            if missing:
                named = " and ".join(repr(one) for one in sorted(missing))
                leave_out(request, f"the backend does not declare {named}")


def leave_out(request: pytest.FixtureRequest, why: str) -> NoReturn:
    """Leave a test out, naming its rule and how that is checked by it."""
    rule = rule_of(request.node.originalname)
    if rule is None:
        pytest.skip(f"The seam left out: {why}")
    marks = [mark for mark in rule.marks if mark != "1"] if "harness" in request.fixturenames else ["1"]
    pytest.skip(f"{rule.number} [{','.join(marks)}] left out: {why}")


def _telling(test: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """Return the test, such that its failure says what the rule promises."""
    if (handle := getattr(test, "hypothesis", None)) is not None:
        handle.inner_test = _telling(handle.inner_test, rule)
        return test
    if not iscoroutinefunction(test):

        @wraps(test)
        def tell(*args: Any, **options: Any) -> None:
            __tracebackhide__ = True
            with _noted(rule):
                test(*args, **options)

        return tell

    @wraps(test)
    async def tell_later(*args: Any, **options: Any) -> None:
        __tracebackhide__ = True
        with _noted(rule):
            await test(*args, **options)

    return tell_later


@contextmanager
def _noted(rule: Rule) -> Iterator[None]:
    try:
        yield
    except (Exception, pytest.fail.Exception) as failure:
        failure.add_note(f"{rule.number} is broken. It says: {rule.text}")
        raise
