"""Fixtures for tests of workflows and queues; pytest loads this in every project that has jotty installed.

So it imports nothing but pytest: what a fixture needs is loaded when the fixture is first used.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jotty.core.orchestration import Conductor, WorkflowMode
    from jotty.core.orchestration.actor import AnyActor
    from jotty.core.queue import TaskQueue

    from .clock import VirtualClock
    from .scripts import StandIn
    from .workflows import WorkflowRun

__all__ = [
    "jotty_queue_url",
    "pytest_addoption",
    "replace_actor",
    "run_workflow",
    "task_queue",
    "virtual_clock",
]

IN_MEMORY = "memory:"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--jotty-queue URL`, and the setting `jotty_queue_url`."""
    text = "URL of the queue that the fixture task_queue opens; {tmp_path} is the test's own directory"
    parser.getgroup("jotty").addoption("--jotty-queue", metavar="URL", default=None, help=text)
    parser.addini("jotty_queue_url", text, default=IN_MEMORY)


@pytest.fixture
def jotty_queue_url(request: pytest.FixtureRequest) -> str:
    """What `task_queue` opens: `--jotty-queue`, else the setting, else `memory:`; to be overridden."""
    found: str = request.config.getoption("--jotty-queue") or request.config.getini("jotty_queue_url")
    if "{tmp_path}" not in found:
        return found
    from urllib.parse import quote

    return found.replace("{tmp_path}", quote(str(request.getfixturevalue("tmp_path"))))


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that passes only when the test says so, and on which a worker may idle for weeks at no cost."""
    from .clock import VirtualClock

    return VirtualClock(idle=3600)


@pytest.fixture
def task_queue(
    request: pytest.FixtureRequest, jotty_queue_url: str, virtual_clock: VirtualClock
) -> Iterator[TaskQueue]:
    """A queue of the test's own, in memory and on `virtual_clock` unless `jotty_queue_url` says otherwise."""
    from random import Random

    from jotty.core.queue import open_queue

    # its ids are the same in each run of the test; in a store that outlives the test they must not be
    random = Random(request.node.nodeid) if jotty_queue_url == IN_MEMORY else None
    queue = open_queue(jotty_queue_url, clock=virtual_clock, random=random)
    yield queue
    # in a thread: the event loop of an async fixture may be asleep in this one
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        portal.call(queue.aclose)


@pytest.fixture
def run_workflow(task_queue: TaskQueue, virtual_clock: VirtualClock) -> Callable[..., WorkflowRun]:
    """`jotty.testing.run_workflow`, on the test's clock, and on its queue where a goal goes through one."""
    from jotty.core.queue import TaskQueue

    from . import workflows
    from .clock import VirtualClock

    _check("task_queue", task_queue, TaskQueue)
    _check("virtual_clock", virtual_clock, VirtualClock)
    return partial(workflows.run_workflow, clock=virtual_clock, queue=task_queue)


@pytest.fixture
def replace_actor() -> Iterator[Callable[[Conductor | WorkflowMode, AnyActor | str, Any], StandIn]]:
    """A function that puts a stand-in in an actor's place until the end of the test, and returns it."""
    from . import scripts

    with ExitStack() as replaced:
        yield lambda workflow, actor, script: replaced.enter_context(
            scripts.replace_actor(workflow, actor, script)
        )


def _check(name: str, value: object, wanted: type) -> None:
    """Refuse a fixture of the project's own that happens to have the name of one of these."""
    if not isinstance(value, wanted):
        pytest.fail(
            f"A fixture {name!r} of this project hides that of jotty, and gives no {wanted.__name__} "
            f"but {value!r:.100}. Rename it, or import run_workflow from jotty.testing.",
            pytrace=False,
        )
