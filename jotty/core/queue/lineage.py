"""Whether this process is the one that made something, or a forked child with a copy of it."""

from __future__ import annotations

import os
from functools import cache
from random import Random

__all__ = ["ProcessRandom", "generation"]

_forks = 0


def generation() -> int:
    """Return a number that differs between a process and its forked children; cheaper than a pid."""
    _watch()
    return _forks


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_count)


def _count() -> None:
    global _forks  # noqa: PLW0603 - a process has one
    _forks += 1


class ProcessRandom:
    """A random generator of its own, seeded by the system, and anew in a forked child.

    Neither `random.seed` nor a fork makes two processes draw the same. Not for secrets.
    """

    def __init__(self) -> None:
        self._random = Random()
        self._generation = generation()

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._here().random()

    def getrandbits(self, k: int, /) -> int:
        """Return an int of k random bits."""
        return self._here().getrandbits(k)

    def _here(self) -> Random:
        if self._generation != generation():
            self._random = Random()
            self._generation = generation()
        return self._random
