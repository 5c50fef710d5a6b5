"""What may be said of a task besides its goal, context and priority."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .retry import RetryPolicy
    from .task import OnDependency, TaskStatus

__all__ = ["DEFAULT_RETENTION", "EnqueueOptions"]

DEFAULT_RETENTION: Final = timedelta(days=7)  # how long workers keep what is over


class EnqueueOptions(TypedDict, total=False):
    """The keyword options of `TaskQueue.enqueue`, for those that pass them on; `NewTask` documents each."""

    lane: str
    delay: float | None
    run_at: datetime | None
    key: str | None
    depends_on: Sequence[str]
    on_dependency: OnDependency
    max_attempts: int
    retry: RetryPolicy
    timeout: float | None
    status: TaskStatus | str
    tags: Sequence[str]
    metadata: dict[str, Any] | None
    headers: dict[str, str] | None
