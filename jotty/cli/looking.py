"""`jotty graph` and `jotty backends`: what there is to run, and what to run it from."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from jotty.core.orchestration import GraphOrchestrator, WorkflowMode
from jotty.core.orchestration.ticket import read_ticket
from jotty.core.queue import backends as installed_backends
from jotty.core.queue import load_backend
from jotty.errors import TaskNotFound, Unhandled

from .failing import CommandError, ExitCode, UsageError, perform
from .loading import load_app, workflow_now
from .options import AppAddress, AsJson, Debug, Mode, Order, QueueUrl, parse_order
from .printing import print_json, print_table
from .steps import steps_document, timeline_of
from .store import answering, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from jotty.core.orchestration import Graph, Timeline

    from .loading import App

__all__ = ["backends", "graph"]


class GraphFormat(StrEnum):
    """What a graph is drawn for."""

    MERMAID = "mermaid"
    DOT = "dot"


def graph(
    app: AppAddress,
    *,
    form: Annotated[
        GraphFormat, typer.Option("--format", help="What to print it for; dot is that of Graphviz.")
    ] = GraphFormat.MERMAID,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="ID", help="Draw the run of this task, with states and times."),
    ] = None,
    queue: QueueUrl = None,
    mode: Mode = None,
    order: Order = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print an app's graph for Mermaid or Graphviz, alone or as a run has gone through it."""

    def work() -> Awaitable[ExitCode]:
        if task is not None and (mode is not None or order is not None):
            raise UsageError("A task has its own mode and order. Leave out --mode and --order.")
        found = load_app(app, debug=debug)
        way = _Run(mode, parse_order(order))
        return _draw(found, app, way, task, queue, form=None if as_json else form)

    perform(work, debug=debug)


async def _draw(
    app: App, address: str, run: _Run, task_id: str | None, url: str | None, *, form: GraphFormat | None
) -> ExitCode:
    if task_id is not None:
        run = await _run_of(task_id, url, app)
    drawn = _graph_of(app, address, run)
    if form is None:
        print_json(_as_document(drawn, run.timeline))
    else:
        draw = drawn.to_dot if form is GraphFormat.DOT else drawn.to_mermaid
        typer.echo(draw(run.timeline), nl=False)
    return ExitCode.OK


@attrs.frozen
class _Run:
    """In which mode and order an app runs, and what has happened in one run of it, if one is meant."""

    mode: str | None
    order: Sequence[str] | None
    timeline: Timeline | None = None


async def _run_of(task_id: str, url: str | None, app: App) -> _Run:
    conductor = app.conductor if isinstance(app, WorkflowMode) else app
    async with opened(url) as queue:
        with answering(queue.url):
            task = await queue.get(task_id)
        if task is None:
            raise TaskNotFound(task_id)
        try:
            ticket = read_ticket(task, [actor.name for actor in conductor.actors])
        except Unhandled as other:
            raise UsageError(f"Task {task_id} is none of this app's: {other}") from other
        return _Run(ticket.mode, ticket.agent_order, await timeline_of(queue, task_id))


def _graph_of(app: App, address: str, run: _Run) -> Graph:
    workflow = workflow_now(app, mode=run.mode, order=run.order)
    if not isinstance(workflow.orchestrator, GraphOrchestrator):
        raise CommandError(f"{address} has an orchestrator of its own, which tells no graph.")
    return workflow.orchestrator.graph()


def _as_document(drawn: Graph, timeline: Timeline | None) -> dict[str, Any]:
    nodes = [
        {"name": name, "actor": node.actor.name, "parents": node.parents, "on_demand": node.actor.on_demand}
        for name, node in drawn.nodes.items()
    ]
    run = {} if timeline is None else {"run": steps_document(timeline)}
    return {"mode": drawn.mode, "nodes": nodes, **run}


def backends(*, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the queue backends that are installed."""
    perform(lambda: _backends(as_json=as_json), debug=debug)


def _backends(*, as_json: bool) -> ExitCode:
    rows = [_row(name, distribution) for name, distribution in installed_backends().items()]
    if as_json:
        print_json(rows)
    else:
        print_table(["name", "distribution", "state"], [list(row.values()) for row in rows])
    return ExitCode.OK


def _row(name: str, distribution: str) -> dict[str, str]:
    row = {"name": name, "distribution": distribution, "state": "ready"}
    try:
        load_backend(name)
    except Exception as error:  # noqa: BLE001 - one broken backend must not hide the others
        row["state"] = str(error)
    return row
