"""Backends before another: whatever is asked of them is asked of the one behind."""

from __future__ import annotations

from inspect import isfunction
from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import Head, Migration, Query, QueueBackend, Record
from jotty.testing import History
from jotty.testing.conformance.interposed import InterposedBackend
from jotty.testing.faults import FaultyBackend
from jotty.testing.processes import RecordedBackend
from jotty.testing.proxy import BackendProxy
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

MIGRATION = Migration(1, 2, ("add a column",))


class Older(MemoryBackend):
    """A store that is to be migrated."""

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        return MIGRATION


@pytest.fixture(params=[BackendProxy, FaultyBackend, InterposedBackend, RecordedBackend])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[QueueBackend], BackendProxy]:
    """What puts a proxy of each kind before a backend."""
    if request.param is RecordedBackend:
        return lambda inner: RecordedBackend(inner, History(tmp_path, "process"))
    made: Callable[[QueueBackend], BackendProxy] = request.param
    return made


def test_a_proxy_has_each_call_of_a_backend() -> None:
    """What a proxy lacks it would answer by the default, whatever stands behind."""
    calls = {name for name, value in vars(QueueBackend).items() if isfunction(value)}

    assert set() == calls - set(vars(BackendProxy))


async def test_what_has_a_default_is_asked_of_the_backend_behind(
    before: Callable[[QueueBackend], BackendProxy],
) -> None:
    inner = Older()
    proxy = before(inner)
    await proxy.open()
    await proxy.announce("worker", b"data", 10**9)

    assert [("worker", b"data")] == [(one.worker, one.data) for one in await inner.workers()]
    assert await inner.workers() == await proxy.workers()
    assert MIGRATION == await proxy.migrate(dry_run=True)


async def test_something_happens_before_and_after_a_call_by_its_name() -> None:
    backend = InterposedBackend(MemoryBackend())
    told: list[str] = []

    async def tell(what: str) -> None:
        told.append(what)

    for name in ("insert", "find", "find_finished", "workers"):
        backend.before[name] = lambda name=name: tell(f"before {name}")  # type: ignore[misc] # a default is bound
        backend.after[name] = lambda name=name: tell(f"after {name}")  # type: ignore[misc] # as above
    await backend.open()
    await backend.insert([Record(Head(id="task"), b"{}")])
    found = await backend.find(Query()), await backend.find(Query(finished_before=1))
    await backend.workers()

    assert ["insert", "find", "find_finished", "workers"] == [line.split()[1] for line in told[::2]]
    assert [line.replace("before", "after") for line in told[::2]] == told[1::2]
    assert (1, 0) == tuple(map(len, found))
