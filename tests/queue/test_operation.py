"""Operations on their way to the thread of a store."""

from __future__ import annotations

import logging
import threading
from typing import Self

import anyio
import pytest
from anyio import to_thread

from jotty.core.queue import Inbox, Operation, deliver
from jotty.errors import StorageError

pytestmark = pytest.mark.anyio


class Store:
    """A thread that takes one group of operations when it is told to, and then ends or goes on."""

    def __init__(self, *, ends: bool = False) -> None:
        self.inbox: Inbox[list[str]] = Inbox()
        self.done: list[str] = []
        self.groups: list[int] = []
        self.is_taken = threading.Event()
        self.may_go_on = threading.Event()
        self._ends = ends
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self.may_go_on.set()
        self.inbox.wake()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            self.inbox.sleep(None)
            operations = self.inbox.take_writes()
            self.is_taken.set()
            self.may_go_on.wait(10)
            if operations:
                self.groups.append(len(operations))
            for operation in operations:
                operation.run(self.done)
            if self._ends:
                left = self.inbox.end(StorageError("test:", "it is gone"))
                for operation in left:
                    operation.error = StorageError("test:", "it is gone")
                deliver([*operations, *left])
                return
            deliver(operations)


def doing(what: str) -> Operation[list[str], str]:
    def step(done: list[str]) -> str:
        done.append(what)
        return what

    return Operation(step)


async def test_what_is_submitted_in_one_round_is_taken_as_one_group() -> None:
    with Store() as store:
        store.may_go_on.set()
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(store.inbox.perform, doing(str(number)))

    assert [20] == store.groups
    assert list(map(str, range(20))) == sorted(store.done, key=int)


async def test_what_has_not_begun_is_withdrawn_by_its_cancelled_caller() -> None:
    with Store() as store:
        async with anyio.create_task_group() as group:
            group.start_soon(store.inbox.perform, doing("first"))
            await to_thread.run_sync(store.is_taken.wait)
            with anyio.move_on_after(0.01) as scope:
                await store.inbox.perform(doing("never"))
            assert scope.cancelled_caught
            store.may_go_on.set()

    assert ["first"] == store.done


async def test_what_a_cancelled_call_took_is_given_back() -> None:
    with Store() as store:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancelled_while_begun, store)
            await to_thread.run_sync(store.is_taken.wait)
            await anyio.sleep(0.05)
            store.may_go_on.set()

    assert ["taken", "given back"] == store.done


async def test_a_cancelled_call_ends_cancelled_though_the_store_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Store(ends=True) as store, caplog.at_level(logging.WARNING, "jotty.queue"):
        async with anyio.create_task_group() as group:
            group.start_soon(_cancelled_while_begun, store)
            await to_thread.run_sync(store.is_taken.wait)
            await anyio.sleep(0.05)
            store.may_go_on.set()

    assert ["taken"] == store.done
    assert "cannot be given back" in caplog.text


async def _cancelled_while_begun(store: Store) -> None:
    def undo(done: list[str], _: str) -> None:
        done.append("given back")

    with anyio.move_on_after(0.02) as scope:
        await store.inbox.take(doing("taken").step, undo=undo)
    assert scope.cancelled_caught


async def test_an_ended_thread_refuses_with_what_it_ended_with() -> None:
    with Store(ends=True) as store:
        store.may_go_on.set()
        await store.inbox.perform(doing("last"))
        with pytest.raises(StorageError, match="it is gone"):
            await store.inbox.perform(doing("late"))


async def test_no_loop_waits_for_the_round_of_another() -> None:
    """A handle may be used from two event loops; one of them is blocked just after it has submitted."""
    may_go_on = threading.Event()

    async def submit_and_block() -> None:
        store.inbox.submit(doing("of the blocked loop"))
        is_blocked.set()
        may_go_on.wait(10)

    async def on_another_loop() -> None:
        await to_thread.run_sync(anyio.run, submit_and_block)

    is_blocked = threading.Event()
    with Store() as store:
        store.may_go_on.set()
        async with anyio.create_task_group() as group:
            group.start_soon(on_another_loop)
            await to_thread.run_sync(is_blocked.wait)
            try:
                with anyio.fail_after(5):
                    await store.inbox.perform(doing("mine"))
            finally:
                may_go_on.set()

    assert "mine" in store.done


async def test_patience_is_counted_from_the_first_try() -> None:
    """Not from the call: that the caller's event loop is late is no fault of the store."""
    inbox: Inbox[list[str]] = Inbox()
    patient: Operation[list[str], list[str]] = Operation(list.copy, 5.0)
    hasty: Operation[list[str], list[str]] = Operation(list.copy, 0.0)
    inbox.submit(patient)
    inbox.submit(hasty)

    assert [hasty] == inbox.take_late(1000.0)
    assert [] == inbox.take_late(1004.9)
    assert [patient] == inbox.take_late(1005.0)
    assert [] == inbox.take_writes()
