"""How long to wait before the next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from .clock import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_RETRY", "Random", "RetryLater", "RetryPolicy"]


class Random(Protocol):
    """What jotty needs of a random generator; `random.Random` is one."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """Return an int of k random bits."""
        ...


class RetryLater(Exception):
    """Raised by an actor or a task's handler: try again after so many seconds, which costs no attempt.

    A wait below 0.1 s is raised to that. A queued task that only postpones itself is failed after
    `RetryPolicy.max_postponements` of them in a row.

    Attributes:
        seconds: How long to wait.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds <= MAX_SECONDS:
            raise ValueError(f"RetryLater takes seconds >= 0 and at most a century, not {seconds!r}.")
        self.seconds = max(float(seconds), 0.1)
        super().__init__(f"Try again in {self.seconds:g} s.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not _is_number(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{attribute.name} must be seconds >= 0 and at most a century, not {value!r}.")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """Exponential backoff with a cap and jitter.

    The wait before attempt n + 1 is `min(cap, delay * factor ** (n - 1))`, of which the share
    `jitter` is random. ("Equal jitter" of M. Brooker, Exponential Backoff And Jitter, AWS
    Architecture Blog 2015, where jitter is 0.5; 1.0 is its "full jitter".)

    Attributes:
        delay: Seconds before the second attempt, jitter apart.
        factor: By how much each wait is longer than the one before; at least 1.
        cap: No wait is longer than this, in seconds.
        jitter: The random share of a wait, from 0.0 (none) to 1.0 (all of it).
        max_postponements: How many `RetryLater` in a row are taken before the task is failed.
    """

    delay: float = attrs.field(default=1.0, validator=_not_negative)
    factor: float = attrs.field(default=2.0)
    cap: float = attrs.field(default=300.0, validator=_not_negative)
    jitter: float = attrs.field(default=0.5)
    max_postponements: int = attrs.field(default=100)

    def __attrs_post_init__(self) -> None:
        """Refuse figures that make no schedule."""
        if not _is_number(self.factor) or not 1 <= self.factor < float("inf"):
            raise ValueError(f"factor must be a finite number >= 1, not {self.factor!r}.")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be between 0.0 and 1.0, not {self.jitter!r}.")
        if type(self.max_postponements) is not int or self.max_postponements < 0:
            raise ValueError(f"max_postponements must be an int >= 0, not {self.max_postponements!r}.")

    def backoff(self, attempt: int, random: Random) -> float:
        """Return the seconds to wait after this attempt (1 is the first) has failed; within [0, cap]."""
        try:
            longest = min(self.cap, self.delay * self.factor ** (attempt - 1))
        except OverflowError:
            longest = self.cap if self.delay else 0.0
        return longest * (1 - self.jitter * random.random())

    def to_json(self) -> Mapping[str, float]:
        """Return what differs from the default policy, to be stored."""
        return {
            field.name: value
            for field in attrs.fields(RetryPolicy)
            if (value := getattr(self, field.name)) != field.default
        }


DEFAULT_RETRY: Final = RetryPolicy()
