"""A backend before another that writes down what is asked of it and what was acknowledged."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING

from jotty.core.queue import Outcome, TaskStatus
from jotty.testing.proxy import BackendProxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jotty.core.queue import Change, Claimed, ClaimRequest, QueueBackend, Record, Swapped
    from jotty.testing.history import Event, History

__all__ = ["RecordedBackend"]


class RecordedBackend(BackendProxy):
    """Passes every call on, and tells a history of claims, heartbeats, settles and journal writes.

    A queue over it (`TaskQueue(RecordedBackend(open_queue(url).backend, history))`) and a worker over that
    tell all that `check_history` judges but for what only their callers know: what was enqueued and begun.

    Args:
        inner: The backend that does the work.
        history: Where to write.
    """

    scheme = "recorded"

    def __init__(self, inner: QueueBackend, history: History, _calls: Iterator[int] | None = None) -> None:
        super().__init__(inner)
        self._history = history
        self._calls = _calls or count()

    def clone(self) -> RecordedBackend:
        """Return another handle that writes to the same history."""
        return RecordedBackend(self.inner.clone(), self._history, self._calls)

    async def claim(self, request: ClaimRequest) -> Claimed:
        """Pass it on, and tell what was given."""
        call = self._claiming(request)
        since = self._history.now()
        claimed = await self.inner.claim(request)
        self._history.tell_all(self._claimed(claimed, request, call, since))
        return claimed

    async def swap(self, changes: Sequence[Change]) -> list[Swapped]:
        """Pass it on, and tell which tasks it takes out of progress."""
        self._history.tell_all(self._settling(changes))
        since = self._history.now()
        swapped = await self.inner.swap(changes)
        self._history.tell_all(self._settled(changes, swapped, since))
        return swapped

    async def turn(self, changes: Sequence[Change], request: ClaimRequest) -> tuple[list[Swapped], Claimed]:
        """Pass it on, and tell both halves of it."""
        self._history.tell_all(self._settling(changes))
        call = self._claiming(request)
        since = self._history.now()
        swapped, claimed = await self.inner.turn(changes, request)
        self._history.tell_all(
            [*self._settled(changes, swapped, since), *self._claimed(claimed, request, call, since)]
        )
        return swapped, claimed

    async def extend(self, leases: Sequence[tuple[str, int]], us: int) -> list[Record | None]:
        """Pass it on, and tell what was renewed, and what is lost."""
        since = self._history.now()
        records = await self.inner.extend(leases, us)
        self._history.tell_all(
            self._history.event("renewed", task, lease, since=since, lease_us=us)
            if record
            else self._history.event("lost", task, lease)
            for (task, lease), record in zip(leases, records, strict=True)
        )
        return records

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        """Pass it on, and tell the numbers."""
        since = self._history.now()
        last = await self.inner.append(task_id, lease, entries)
        self._history.tell("recorded", task_id, lease, since=since, first=last - len(entries) + 1, last=last)
        return last

    async def delete(self, targets: Sequence[tuple[str, int]]) -> list[bool]:
        """Pass it on, and tell which are gone."""
        since = self._history.now()
        done = await self.inner.delete(targets)
        self._history.tell_all(
            self._history.event("deleted", task, since=since)
            for (task, _), is_gone in zip(targets, done, strict=True)
            if is_gone
        )
        return done

    def _claiming(self, request: ClaimRequest) -> int | None:
        if not request.limit:
            return None
        call = next(self._calls)
        self._history.tell("claiming", call=call)
        return call

    def _claimed(
        self, claimed: Claimed, request: ClaimRequest, call: int | None, since: int
    ) -> Iterator[Event]:
        if call is None:
            return
        for head in (record.head for record in claimed.records):
            yield self._history.event(
                "claimed", head.id, head.lease, since=since, lease_us=request.lease_us, attempt=head.attempt
            )
        yield self._history.event("answered", call=call)

    def _settling(self, changes: Sequence[Change]) -> Iterator[Event]:
        for head in (change.record.head for change in changes if _is_settling(change)):
            yield self._history.event(
                "settling", head.id, head.lease, status=head.status, attempt=head.attempt
            )

    def _settled(self, changes: Sequence[Change], swapped: Sequence[Swapped], since: int) -> Iterator[Event]:
        for change, done in zip(changes, swapped, strict=True):
            head, outcome = change.record.head, change.record.outcome
            if done.outcome is Outcome.OK and _is_settling(change):
                told = {"since": since, "status": head.status, "attempt": head.attempt}
                if head.status is TaskStatus.COMPLETED and outcome is not None:
                    told["result"] = json.loads(outcome)["result"]
                yield self._history.event("settled", head.id, head.lease, **told)


def _is_settling(change: Change) -> bool:
    head = change.record.head
    return head.status is not TaskStatus.IN_PROGRESS and (head.lease > 0 or head.status.is_terminal)
