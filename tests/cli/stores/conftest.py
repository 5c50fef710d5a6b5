from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest

from jotty.core.queue import NewTask, open_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from typer.testing import Result

    from jotty.core.queue import Task, TaskQueue
    from tests.cli.conftest import Jotty

T = TypeVar("T")


class Store:
    """A store that commands work on, and the test beside them."""

    def __init__(self, url: str, jotty: Jotty) -> None:
        self.url = url
        self._jotty = jotty

    def jotty(self, *arguments: str) -> Result:
        """Run a command on this store."""
        return self._jotty(*arguments, "--queue", self.url)

    def read(self, *arguments: str) -> Any:
        """Run a command that must work with --json, and return its document."""
        ran = self.jotty(*arguments, "--json")
        assert 0 == ran.exit_code, ran.stderr
        return json.loads(ran.stdout)

    def do(self, work: Callable[[TaskQueue], Awaitable[T]]) -> T:
        """Do something with the store, on an event loop of its own."""

        async def opened() -> T:
            async with open_queue(self.url) as queue:
                return await work(queue)

        return anyio.run(opened)

    def enqueue(self, *tasks: NewTask) -> list[str]:
        stored = self.do(lambda queue: queue.enqueue_many(tasks))
        return [task.id for task in stored]

    def fail(self, *tasks: NewTask) -> list[str]:
        """Enqueue tasks, and fail each."""

        async def claim_and_fail(queue: TaskQueue) -> None:
            lanes = {task.lane for task in tasks}
            for task in await queue.claim(worker="w", lanes=sorted(lanes), limit=len(tasks)):
                await queue.fail(task, "no use", retry=False)

        ids = self.enqueue(*tasks)
        self.do(claim_and_fail)
        return ids

    def finish(self, *tasks: NewTask) -> list[str]:
        """Enqueue tasks, and complete each."""

        async def claim_and_complete(queue: TaskQueue) -> None:
            for task in await queue.claim(worker="w", limit=len(tasks)):
                await queue.complete(task, "done")

        ids = self.enqueue(*tasks)
        self.do(claim_and_complete)
        return ids

    def get(self, task_id: str) -> Task:
        task = self.do(lambda queue: queue.get(task_id))
        assert task is not None
        return task

    def states(self, *ids: str) -> list[str]:
        """Return the state of each task; "gone" where there is none."""

        async def look(queue: TaskQueue) -> list[str]:
            found = [await queue.get(task_id) for task_id in ids]
            return [str(task.status) if task else "gone" for task in found]

        return self.do(look)


@pytest.fixture(params=["sqlite", "file"])
def queue_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:///{tmp_path / 'store'}"


@pytest.fixture
def store_at(jotty: Jotty) -> Callable[[str], Store]:
    return lambda url: Store(url, jotty)


@pytest.fixture
def store(store_at: Callable[[str], Store], queue_url: str) -> Store:
    return store_at(queue_url)
