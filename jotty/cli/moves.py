"""`jotty accept`, `cancel`, `retry` and `delete`: tasks set on another way, one by one or many at once."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import attrs
import typer
from anyio import to_thread

from jotty.core.queue import LIVE, TaskStatus
from jotty.errors import InvalidState, KeyInUse, StoreCorrupt, TaskNotFound

from .failing import CommandError, ExitCode, UsageError, perform
from .options import AsJson, Debug, QueueUrl  # noqa: TC001 - typer reads them from the signatures
from .printing import print_json, say
from .selection import ByKey, ByLane, ByStatus, ByTag, Selection, Since, heads
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from jotty.core.queue import Head, Task, TaskQueue

__all__ = ["accept", "cancel", "delete", "retry"]

TaskIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="The tasks, as `enqueue` printed them.")
]
Everything = Annotated[bool, typer.Option("--all", help="All tasks for which it can be done.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list the tasks.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal, either.")]

_RETRIED: Final = (TaskStatus.FAILED, TaskStatus.CANCELLED)
_ACCEPTED: Final = (TaskStatus.SUGGESTED, TaskStatus.BACKLOG)


@attrs.frozen
class _Moved:
    """A task that was set on another way.

    Attributes:
        id: The task.
        status: Its state now, or "deleted".
        cancel_requested: Whether its worker has been asked to stop.
    """

    id: str
    status: str
    cancel_requested: bool = False

    @property
    def told(self) -> str:
        is_asked = self.cancel_requested and self.status == TaskStatus.IN_PROGRESS
        return "asked to stop" if is_asked else self.status


@attrs.frozen(kw_only=True)
class _Order:
    """What is to be done, and with which tasks.

    Attributes:
        done: What it is called when it is done, like "retried".
        move: Does it with one.
        ids: The tasks; none if they are chosen.
        chosen: What they are like.
        children_first: Whether tasks that were enqueued later come first, as those that depend on others.
        dry_run: Whether only to list them.
        is_sure: Whether to ask nobody.
        as_json: Whether to print JSON.
    """

    done: str
    move: Callable[[TaskQueue, str], Awaitable[_Moved]]
    ids: Sequence[str]
    chosen: Selection | None = None
    children_first: bool = False
    dry_run: bool = False
    is_sure: bool = False
    as_json: bool = False


def cancel(
    ids: TaskIds = None,
    *,
    queue: QueueUrl = None,
    states: ByStatus = None,
    lane: ByLane = None,
    tag: ByTag = None,
    key: ByKey = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Cancel tasks, also those that a worker is running."""

    def work() -> Awaitable[ExitCode]:
        over = [state for state in states or () if state not in LIVE]
        if over:
            raise UsageError(f"Tasks that are {over[0]} are over, so they cannot be cancelled.")
        asked = Selection(statuses=states, lane=lane, tag=tag, key=key)
        order = _Order(
            done="cancelled",
            move=_cancel,
            ids=ids or (),
            chosen=_chosen(ids, asked, LIVE, everything=everything),
            children_first=True,
            dry_run=dry_run,
            is_sure=yes,
            as_json=as_json,
        )
        return _carry_out(order, queue)

    perform(work, debug=debug)


async def _cancel(queue: TaskQueue, task_id: str) -> _Moved:
    was_live = await queue.cancel(task_id)
    record = (await queue.backend.get([task_id], payload=False))[0]  # be the payload damaged or not
    if record is None:
        raise TaskNotFound(task_id)
    if not was_live:
        raise CommandError(f"Task {task_id} is {record.head.status} already.")
    return _moved(record.head)


def retry(
    ids: TaskIds = None,
    *,
    queue: QueueUrl = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Those that were cancelled.")] = False,
    lane: ByLane = None,
    tag: ByTag = None,
    key: ByKey = None,
    since: Since = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start failed or cancelled tasks afresh, with all their attempts."""

    def work() -> Awaitable[ExitCode]:
        states = [state for state, is_meant in zip(_RETRIED, (failed, cancelled), strict=True) if is_meant]
        asked = Selection(statuses=states or None, lane=lane, tag=tag, key=key, since=since)
        chosen = _chosen(ids, asked, _RETRIED, everything=everything)
        if chosen and not states and not everything:
            raise UsageError("Which of them? Add --failed, --cancelled, or --all for both.")
        order = _Order(
            done="retried",
            move=_retry,
            ids=ids or (),
            chosen=chosen,
            dry_run=dry_run,
            is_sure=yes,
            as_json=as_json,
        )
        return _carry_out(order, queue)

    perform(work, debug=debug)


async def _retry(queue: TaskQueue, task_id: str) -> _Moved:
    return _moved(await queue.retry(task_id))


def accept(
    ids: TaskIds = None,
    *,
    queue: QueueUrl = None,
    backlog: Annotated[
        bool, typer.Option("--backlog", help="Only move suggested tasks to the backlog.")
    ] = False,
    lane: ByLane = None,
    tag: ByTag = None,
    key: ByKey = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let suggested tasks and those of the backlog run."""

    def work() -> Awaitable[ExitCode]:
        asked = Selection(lane=lane, tag=tag, key=key)
        states = _ACCEPTED[:1] if backlog else _ACCEPTED
        order = _Order(
            done="accepted",
            move=partial(_accept, run=not backlog),
            ids=ids or (),
            chosen=_chosen(ids, asked, states, everything=everything),
            dry_run=dry_run,
            is_sure=yes,
            as_json=as_json,
        )
        return _carry_out(order, queue)

    perform(work, debug=debug)


async def _accept(queue: TaskQueue, task_id: str, *, run: bool) -> _Moved:
    return _moved(await queue.accept(task_id, run=run))


def delete(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The tasks, as `enqueue` printed them.")],
    *,
    queue: QueueUrl = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete tasks that are over, with all that is known of them."""
    order = _Order(done="deleted", move=_delete, ids=ids, as_json=as_json)
    perform(lambda: _carry_out(order, queue), debug=debug)


async def _delete(queue: TaskQueue, task_id: str) -> _Moved:
    if not await queue.delete(task_id):
        raise TaskNotFound(task_id)
    return _Moved(task_id, "deleted")


def _moved(task: Task | Head) -> _Moved:
    return _Moved(task.id, task.status, task.cancel_requested)


def _chosen(
    ids: Sequence[str] | None, asked: Selection, states: Collection[TaskStatus], *, everything: bool
) -> Selection | None:
    """Return what the tasks are like that are meant, in one of these states if no other; None with ids.

    Raises:
        UsageError: There are ids and conditions, or neither.
    """
    is_asked = everything or asked != Selection()
    if ids and is_asked:
        raise UsageError("Name tasks by their ids, or choose them by what they are like, but not both.")
    if not ids and not is_asked:
        raise UsageError("Which tasks? Name their ids, choose them by what they are like, or take --all.")
    return None if ids else attrs.evolve(asked, statuses=asked.statuses or states)


async def _carry_out(order: _Order, url: str | None) -> ExitCode:
    async with opened(url) as queue:
        ids = order.ids
        if order.dry_run or order.chosen:
            found = await _found(order, queue)
            if order.dry_run:
                _print_found(order, found)
                return ExitCode.OK
            ids = [one.id for one in found]
            if not await _is_confirmed(order, len(ids)):
                say("Nothing was done.")
                return ExitCode.FAILED
        return await _move_all(order, queue, ids)


async def _found(order: _Order, queue: TaskQueue) -> list[_Moved]:
    """Return the tasks as they are, in the order in which they are to be moved."""
    if order.chosen is None:
        return [_moved(await _existing(queue, task_id)) for task_id in order.ids]
    found = [_moved(head) for head in await heads(queue, order.chosen)]
    return found[::-1] if order.children_first else found


async def _existing(queue: TaskQueue, task_id: str) -> Task:
    with answering(queue.url):
        task = await queue.get(task_id)
    if task is None:
        raise TaskNotFound(task_id)
    return task


async def _is_confirmed(order: _Order, number: int) -> bool:
    """Ask, if there is a person to ask and something to ask about."""
    is_asked = number and not order.is_sure and sys.stdin.isatty() and sys.stderr.isatty()
    if not is_asked:
        return True
    question = f"{number} {_tasks(number)} would be {order.done}. Go on?"
    try:
        # in a thread, so that Ctrl-C is heard
        return await to_thread.run_sync(partial(typer.confirm, question, err=True), abandon_on_cancel=True)
    except typer.Abort:  # the end of the input
        return False


async def _move_all(order: _Order, queue: TaskQueue, ids: Sequence[str]) -> ExitCode:
    """Move each task; one that cannot be moved is said, and stops no other."""
    moved: list[_Moved] = []
    failed: dict[str, Exception] = {}
    for task_id in ids:
        try:
            with answering(queue.url):
                moved.append(await order.move(queue, task_id))
        except (CommandError, InvalidState, KeyInUse, StoreCorrupt, TaskNotFound) as error:
            if len(order.ids) == 1:
                raise
            failed[task_id] = error
            say(f"Error: {error}")
        else:
            _print_moved(order, moved[-1])
    if order.as_json:
        told = [{"id": task_id, "error": str(error)} for task_id, error in failed.items()]
        print_json({"tasks": moved, "failed": told, "dry_run": False})
    elif len(order.ids) != 1:
        say(f"{len(moved)} {order.done}{f', {len(failed)} not' if failed else ''}.")
    return _code_of(list(failed.values()))


def _print_moved(order: _Order, moved: _Moved) -> None:
    if not order.as_json:
        typer.echo(f"{moved.id} {moved.told}")


def _print_found(order: _Order, found: Sequence[_Moved]) -> None:
    if order.as_json:
        print_json({"tasks": found, "failed": [], "dry_run": True})
        return
    for one in found:
        _print_moved(order, one)
    say(f"{len(found)} would be {order.done}.")


def _code_of(failures: Sequence[Exception]) -> ExitCode:
    if not failures:
        return ExitCode.OK
    is_unknown = all(isinstance(failure, TaskNotFound) for failure in failures)
    return ExitCode.NOT_FOUND if is_unknown else ExitCode.FAILED


def _tasks(number: int) -> str:
    return "task" if number == 1 else "tasks"
