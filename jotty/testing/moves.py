"""The moves of C1, written down a second time: so that policy is judged by the contract, not by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jotty.core.queue import TaskStatus as S

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIVE", "MOVES", "TERMINAL"]

MOVES: Final[Mapping[S, frozenset[S]]] = {
    S.SUGGESTED: frozenset({S.BACKLOG, S.PENDING, S.BLOCKED, S.CANCELLED}),
    S.BACKLOG: frozenset({S.PENDING, S.BLOCKED, S.CANCELLED}),
    S.BLOCKED: frozenset({S.PENDING, S.FAILED, S.CANCELLED}),
    S.PENDING: frozenset({S.IN_PROGRESS, S.CANCELLED}),
    S.IN_PROGRESS: frozenset({S.COMPLETED, S.PENDING, S.BLOCKED, S.FAILED, S.CANCELLED}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset({S.PENDING, S.BLOCKED}),
    S.CANCELLED: frozenset({S.PENDING, S.BLOCKED}),
}
TERMINAL: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED})
LIVE: Final = frozenset(S) - TERMINAL
