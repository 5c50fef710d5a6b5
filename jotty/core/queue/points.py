"""Named points just before and after each effect on a store: where a test may kill the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["listen", "reached"]


def _nobody(_: str) -> None:
    pass


_listener: Callable[[str], object] = _nobody


def reached(point: str) -> None:
    """Tell that an effect is about to begin, or has just ended; nobody listens outside of tests.

    Args:
        point: The backend, the effect, and which side of it: `file.append.before`.
    """
    _listener(point)


def listen(listener: Callable[[str], object] | None) -> None:
    """Have every point of this process told, in the thread that reached it; None ends that."""
    global _listener  # noqa: PLW0603 - one process, one listener: points are reached far below any handle
    _listener = listener or _nobody
