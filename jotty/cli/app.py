"""The command line as a whole; importing it needs the extra `cli`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from .answers import answer
from .background import enqueue, worker
from .conformance import conformance
from .looking import backends, graph
from .moves import accept, cancel, delete, retry
from .overview import status
from .run import run
from .tail import tail
from .tasks import list_tasks, show
from .transfer import export_tasks, import_tasks
from .upkeep import migrate, purge

__all__ = ["app"]

# Plain help and errors: they can be piped, searched and quoted.
app = typer.Typer(
    help="Run actors towards a goal: now, or from a queue.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer calls it by position
    if value:
        typer.echo(f"jotty {version('jotty')}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("run")(run)
app.command("enqueue")(enqueue)
app.command("worker")(worker)
app.command("status")(status)
app.command("list")(list_tasks)
app.command("show")(show)
app.command("tail")(tail)
app.command("answer")(answer)
app.command("accept")(accept)
app.command("cancel")(cancel)
app.command("retry")(retry)
app.command("delete")(delete)
app.command("purge")(purge)
app.command("migrate")(migrate)
app.command("export")(export_tasks)
app.command("import")(import_tasks)
app.command("graph")(graph)
app.command("backends")(backends)
app.command("conformance")(conformance)
