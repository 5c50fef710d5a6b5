"""`jotty purge` and `jotty migrate`: what a store needs as the years go by."""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003 - typer reads it from the signatures
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from .durations import parse_duration
from .failing import ExitCode, perform
from .options import AsJson, Debug, QueueUrl  # noqa: TC001 - typer reads them from the signatures
from .printing import print_json, say
from .store import PATIENCE, opened, queue_at

if TYPE_CHECKING:
    from jotty.core.queue import Migration

__all__ = ["migrate", "purge"]


def purge(
    *,
    queue: QueueUrl = None,
    older_than: Annotated[
        timedelta,
        typer.Option(
            "--older-than",
            metavar="AGE",
            parser=parse_duration,
            help="How long they have been over: 30s, 15m, 12h or 7d.",
        ),
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete the tasks that have been over for so long, with all that is known of them."""
    perform(lambda: _purge(queue, older_than, as_json=as_json), debug=debug)


async def _purge(url: str | None, older_than: timedelta, *, as_json: bool) -> ExitCode:
    async with opened(url) as queue:
        deleted = await queue.purge(older_than)
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"{deleted} deleted")
    return ExitCode.OK


def migrate(
    *,
    queue: QueueUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring a store that an older jotty wrote up to date, while nobody else uses it."""
    perform(lambda: _migrate(queue, dry_run=dry_run, as_json=as_json), debug=debug)


async def _migrate(url: str | None, *, dry_run: bool, as_json: bool) -> ExitCode:
    queue = queue_at(url, creates=False)  # not opened, as an older store cannot be
    try:
        migration = await queue.backend.migrate(dry_run=dry_run)
    finally:
        with anyio.move_on_after(PATIENCE, shield=True):
            await queue.aclose()
    if as_json:
        about = {"queue": queue.url, "found": migration.found, "wanted": migration.wanted}
        print_json({**about, "steps": migration.steps, "dry_run": dry_run})
    else:
        _print_migration(migration, dry_run=dry_run)
    return ExitCode.OK


def _print_migration(migration: Migration, *, dry_run: bool) -> None:
    if not migration.steps:
        say(f"Nothing is to be done: the store has schema {migration.wanted}.")
        return
    for step in migration.steps:
        typer.echo(step)
    what = "would be brought" if dry_run else "was brought"
    say(f"The store {what} from schema {migration.found} to {migration.wanted}.")
