"""C39 to C48, broken."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import attrs
from anyio.lowlevel import checkpoint

from jotty.core.queue import Query, QueueState, TaskQueue, client, payload, reading, task_queue
from jotty.errors import TaskNotFound
from jotty_backends import memory
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches


def test_c39_asking_for_an_unknown_task_is_an_error(suite_catches: SuiteCatches) -> None:
    async def get(get: Any, self: TaskQueue, task_id: str) -> Any:
        if (found := await get(self, task_id)) is None:
            raise TaskNotFound(task_id)
        return found

    suite_catches(reading.QueueReader, "get", get)


def test_c39_cancelling_an_unknown_task_is_none(suite_catches: SuiteCatches) -> None:
    async def cancel(cancel: Any, self: TaskQueue, task_id: str) -> bool:
        try:
            return bool(await cancel(self, task_id))
        except TaskNotFound:
            return False

    suite_catches(client.QueueClient, "cancel", cancel)


def test_c40_a_closed_queue_that_goes_on(suite_catches: SuiteCatches) -> None:
    async def aclose(_: Any, self: MemoryBackend) -> None:
        del self

    suite_catches(MemoryBackend, "aclose", aclose)


def test_c40_a_wait_that_outlives_its_queue(suite_catches: SuiteCatches) -> None:
    async def aclose(aclose: Any, self: MemoryBackend) -> None:
        self._closed = True

    suite_catches(MemoryBackend, "aclose", aclose)


def test_c40_closing_twice_is_an_error(suite_catches: SuiteCatches) -> None:
    async def aclose(aclose: Any, self: MemoryBackend) -> None:
        self._open_store()
        await aclose(self)

    suite_catches(MemoryBackend, "aclose", aclose)


def test_c41_an_error_of_a_codec_leaves(suite_catches: SuiteCatches) -> None:
    suite_catches(reading, "may_exist", lambda _, task_id: bool(task_id.encode() or True))


def test_c41_an_error_of_a_driver_leaves(suite_catches: SuiteCatches) -> None:
    def find(find: Any, self: QueueState, query: Query) -> Any:
        if query.lane and "'" in query.lane:
            raise LookupError("near OR: syntax error")
        return find(self, query)

    suite_catches(QueueState, "find", find)


def test_c42_a_cancelled_claim_keeps_what_it_took(suite_catches: SuiteCatches) -> None:
    async def claim(claim: Any, self: MemoryBackend, request: Any) -> Any:
        claimed = await claim(self, request)
        await checkpoint()
        return claimed

    suite_catches(MemoryBackend, "claim", claim)


def test_c42_a_cancelled_enqueue_is_half_there(suite_catches: SuiteCatches) -> None:
    async def insert(insert: Any, self: MemoryBackend, records: Any, *, limit: int | None = None) -> Any:
        stored = []
        for record in records:
            stored += await insert(self, [record], limit=limit)
            await checkpoint()
        return stored

    suite_catches(MemoryBackend, "insert", insert)


def test_c42_a_cancelled_call_takes_the_handle_with_it(suite_catches: SuiteCatches) -> None:
    async def insert(insert: Any, self: MemoryBackend, records: Any, **how: Any) -> Any:
        assert not getattr(self, "is_inserting", False)
        self.is_inserting = True  # type: ignore[attr-defined] # the mutant's own
        await checkpoint()
        stored = await insert(self, records, **how)
        self.is_inserting = False  # type: ignore[attr-defined]
        return stored

    suite_catches(MemoryBackend, "insert", insert)


def test_c44_a_level_that_nobody_knows(suite_catches: SuiteCatches) -> None:
    def init(init: Any, self: MemoryBackend, *how: Any, **options: Any) -> None:
        init(self, *how, **options)
        self.durability = "total"  # type: ignore[assignment] # which is the fault

    def clone(clone: Any, self: MemoryBackend) -> Any:
        twin = clone(self)
        twin.durability = "total"
        return twin

    suite_catches(MemoryBackend, "clone", clone)


def test_c45_a_store_that_goes_by_the_wall_clock(suite_catches: SuiteCatches) -> None:
    class Wall:
        def __init__(self, clock: Any) -> None:
            self._clock = clock
            self.now = clock.wall

        def __getattr__(self, name: str) -> Any:
            return getattr(self._clock, name)

    suite_catches(memory._Store, "__init__", lambda init, self, clock: init(self, Wall(clock)))


def test_c45_a_wall_clock_time_that_is_taken_for_the_stores(suite_catches: SuiteCatches) -> None:
    def new_head(new_head: Any, new: Any, ids: Any, *, now: int, wall: int) -> Any:
        del wall
        return new_head(new, ids, now=now, wall=now)

    suite_catches(task_queue, "new_head", new_head)


def test_c47_damage_that_is_taken_for_an_empty_task(suite_catches: SuiteCatches) -> None:
    def decode(decode: Any, data: bytes) -> Any:
        try:
            return decode(data)
        except ValueError:
            return {"goal": None}

    suite_catches(payload, "decode", decode)


def test_c48_a_name_that_is_a_pattern(suite_catches: SuiteCatches) -> None:
    def matches(matches: Any, self: Query, head: Any) -> bool:
        is_there = self.lane is None or fnmatchcase(head.lane, self.lane)
        return is_there and bool(matches(attrs.evolve(self, lane=None), head))

    suite_catches(Query, "matches", matches)


def test_c48_names_that_differ_only_in_case_are_one(suite_catches: SuiteCatches) -> None:
    async def insert(insert: Any, self: MemoryBackend, records: Any, **how: Any) -> Any:
        small = [
            attrs.evolve(one, head=attrs.evolve(one.head, key=one.head.key and one.head.key.lower()))
            for one in records
        ]
        return await insert(self, small, **how)

    suite_catches(MemoryBackend, "insert", insert)
