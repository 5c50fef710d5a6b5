"""`jotty export` and `jotty import`: tasks as lines of JSON, out of one store and into another."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import attrs
import typer
from anyio import to_thread

from jotty.core.queue import export_tasks as exported
from jotty.core.queue import import_tasks as imported

from .failing import ExitCode, UsageError, called_rightly, perform
from .options import AsJson, Debug, QueueUrl  # noqa: TC001 - typer reads them from the signatures
from .printing import print_json, say
from .selection import ByKey, ByLane, ByStatus, ByTag  # noqa: TC001 - as above
from .store import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.core.queue import Imported
    from jotty.errors import PayloadError, StoreCorrupt

__all__ = ["export_tasks", "import_tasks"]

_READ_AT_ONCE = 1024 * 1024
_MOST_TOLD = 20


def export_tasks(
    *,
    queue: QueueUrl = None,
    states: ByStatus = None,
    lane: ByLane = None,
    tag: ByTag = None,
    key: ByKey = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines, which it does anyway.", show_default=False)
    ] = True,
    debug: Debug = False,
) -> None:
    """Print tasks with all that belongs to them, one JSON object a line, for `jotty import`."""
    del as_json
    perform(lambda: _export(queue, states, lane=lane, tag=tag, key=key), debug=debug)


async def _export(
    url: str | None, states: ByStatus, *, lane: str | None, tag: str | None, key: str | None
) -> ExitCode:
    number = 0
    damaged: list[StoreCorrupt] = []
    async with opened(url) as queue:
        with called_rightly():
            documents = exported(
                queue, statuses=states or None, lane=lane, tag=tag, key=key, on_damage=damaged.append
            )
        async for document in documents:
            typer.echo(json.dumps(document))  # in ASCII, which no terminal, pipe or encoding spoils
            number += 1
    say(f"{number} exported.")
    for damage in damaged:
        say(f"Not exported: {damage.problem}")
    return ExitCode.FAILED if damaged else ExitCode.OK


def import_tasks(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `jotty export` printed; - for stdin.")],
    *,
    queue: QueueUrl = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only check the lines, and count; the store must be there."),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Store the tasks that `jotty export` printed, as they were; those that are there already are left."""
    perform(lambda: _import(file, queue, dry_run=dry_run, as_json=as_json), debug=debug)


async def _import(file: str, url: str | None, *, dry_run: bool, as_json: bool) -> ExitCode:
    refusals = _Refusals()
    with ExitStack() as files:
        source = sys.stdin.buffer if file == "-" else files.enter_context(_opened(file))
        async with opened(url, creates=not dry_run) as queue:
            done = await imported(queue, _lines(source), dry_run=dry_run, on_refused=refusals.tell)
    if as_json:
        print_json({**attrs.asdict(done), "dry_run": dry_run})
    else:
        _print_done(done, dry_run=dry_run)
    if not done.refused:
        return ExitCode.OK
    refusals.conclude(done.refused, dry_run=dry_run)
    return ExitCode.FAILED


class _Refusals:
    """Says what is wrong with lines, up to a number of them."""

    def __init__(self) -> None:
        self._told = 0

    def tell(self, refused: PayloadError) -> None:
        self._told += 1
        if self._told <= _MOST_TOLD:
            say(f"Error: {refused}")

    def conclude(self, number: int, *, dry_run: bool) -> None:
        lines = "1 line" if number == 1 else f"{number} lines"
        if number > _MOST_TOLD:
            lines = f"{lines}, of which the first {_MOST_TOLD} are named here,"
        if dry_run:
            say(f"{lines} would be refused.")
        else:
            say(f"{lines} refused. Mend them, and import the file again: tasks that are there are left.")


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as refusal:
        raise UsageError(f"{file!r} cannot be read: {refusal.strerror}.") from refusal


async def _lines(source: BinaryIO) -> AsyncIterator[bytes]:
    # in a thread, so that Ctrl-C is heard while a pipe is silent
    while lines := await to_thread.run_sync(source.readlines, _READ_AT_ONCE, abandon_on_cancel=True):
        for line in lines:
            yield line


def _print_done(done: Imported, *, dry_run: bool) -> None:
    typer.echo(f"{done.imported} {'would be imported' if dry_run else 'imported'}")
    if done.left:
        say(f"{done.left} {'was' if done.left == 1 else 'were'} there already, and left.")
