"""C6 to C11, broken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
from anyio.lowlevel import checkpoint

from jotty.core.queue import LIVE, MAX_PAYLOAD, QueueState, lifecycle, payload, task
from jotty.errors import PayloadError
from jotty_backends import memory
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches


def test_c06_each_handle_has_a_store_of_its_own(suite_catches: SuiteCatches) -> None:
    def clone(clone: Any, self: MemoryBackend) -> MemoryBackend:
        twin: MemoryBackend = clone(self)
        twin._store = memory._Store(self._store.clock)
        return twin

    suite_catches(MemoryBackend, "clone", clone)


def test_c06_tags_are_lost_on_the_way(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle, "inserted", lambda inserted, head, **how: inserted(attrs.evolve(head, tags=()), **how)
    )


def test_c07_payloads_that_come_back_as_another_type(suite_catches: SuiteCatches) -> None:
    """A deep copy through JSON makes a list of a tuple."""
    other = payload._check_other
    suite_catches(
        payload, "_check_other", lambda _, value: None if isinstance(value, tuple) else other(value)
    )


def test_c07_keys_that_are_sorted(suite_catches: SuiteCatches) -> None:
    suite_catches(payload, "dumps", lambda dumps, value: json.dumps(value, sort_keys=True).encode())


def test_c07_zeros_without_their_sign(suite_catches: SuiteCatches) -> None:
    suite_catches(payload, "dumps", lambda dumps, value: dumps(value).replace(b"-0.0", b"0.0"))


def test_c07_text_that_ends_at_nul(suite_catches: SuiteCatches) -> None:
    suite_catches(payload, "dumps", lambda dumps, value: dumps(value).replace(b"\\u0000", b""))


def test_c07_an_error_that_does_not_say_where(suite_catches: SuiteCatches) -> None:
    def check_json(check_json: Any, value: Any, path: str = "value", **how: Any) -> None:
        try:
            check_json(value, path, **how)
        except PayloadError as error:
            raise PayloadError(path, "is wrong somewhere") from error

    suite_catches(payload, "check_json", check_json)


def test_c07_integers_of_any_size(suite_catches: SuiteCatches) -> None:
    def value(value: Any, self: Any, one: Any, depth: int) -> Any:
        return None if type(one) is int else value(self, one, depth)

    suite_catches(payload._Check, "value", value)


def test_c08_a_half_written_batch(suite_catches: SuiteCatches) -> None:
    def insert(insert: Any, self: QueueState, records: Any, now: int, limit: int | None = None) -> Any:
        return [insert(self, [record], now, limit)[0] for record in records]

    suite_catches(QueueState, "insert", insert)


def test_c08_a_batch_that_is_stored_from_its_end(suite_catches: SuiteCatches) -> None:
    def insert(insert: Any, self: QueueState, records: Any, now: int, limit: int | None = None) -> Any:
        return insert(self, records[::-1], now, limit)[::-1]

    suite_catches(QueueState, "insert", insert)


def test_c09_dedupe_that_races(suite_catches: SuiteCatches) -> None:
    async def insert(insert: Any, self: MemoryBackend, records: Any, *, limit: int | None = None) -> Any:
        keys = self._store.state._keys
        if all(record.head.key in keys for record in records):
            return await self.get([keys[record.head.key] for record in records])
        await checkpoint()
        self._store.state._keys = {}
        try:
            return await insert(self, records, limit=limit)
        finally:
            self._store.state._keys = keys | self._store.state._keys

    suite_catches(MemoryBackend, "insert", insert)


def test_c09_a_key_that_its_task_takes_to_the_grave(suite_catches: SuiteCatches) -> None:
    def move(move: Any, self: QueueState, old: Any, head: Any) -> None:
        move(self, old, head)
        if head.key and head.status not in LIVE:
            self._keys[head.key] = head.id

    suite_catches(QueueState, "_move", move)


def test_c09_a_retry_that_takes_the_key_from_another(suite_catches: SuiteCatches) -> None:
    def swap(swap: Any, self: QueueState, change: Any, now: int) -> Any:
        if change.record.head.key:
            self._keys[change.record.head.key] = change.record.head.id
        return swap(self, change, now)

    suite_catches(QueueState, "_swap", swap)


def test_c10_true_is_the_most_urgent_priority(suite_catches: SuiteCatches) -> None:
    suite_catches(
        task, "check_priority", lambda check, priority: None if priority is True else check(priority)
    )


def test_c10_a_delay_may_be_negative(suite_catches: SuiteCatches) -> None:
    suite_catches(
        task,
        "check_seconds",
        lambda check, kind, seconds, **how: None if kind == "delay" else check(kind, seconds, **how),
    )


def test_c10_names_may_have_space_at_their_ends(suite_catches: SuiteCatches) -> None:
    suite_catches(
        task,
        "check_name",
        lambda check, kind, name: check(kind, name.strip() if isinstance(name, str) else name),
    )


def test_c11_one_more_than_the_store_may_hold(suite_catches: SuiteCatches) -> None:
    def insert(insert: Any, self: QueueState, records: Any, now: int, limit: int | None = None) -> Any:
        return insert(self, records, now, limit and limit + 1)

    suite_catches(QueueState, "insert", insert)


def test_c11_what_is_over_takes_room(suite_catches: SuiteCatches) -> None:
    def insert(insert: Any, self: QueueState, records: Any, now: int, limit: int | None = None) -> Any:
        over = len(self._heads) - self._live
        return insert(self, records, now, limit and max(limit - over, 0))

    suite_catches(QueueState, "insert", insert)


def test_c07_a_payload_of_any_size(suite_catches: SuiteCatches) -> None:
    def encode(encode: Any, value: Any, path: str = "value", *, limit: int | None = None) -> Any:
        return encode(value, path, limit=limit and MAX_PAYLOAD)

    suite_catches(payload, "encode", encode)
