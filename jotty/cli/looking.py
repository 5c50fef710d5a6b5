"""`jotty graph` and `jotty backends`: what there is to run, and what to run it from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jotty.core.orchestration import GraphOrchestrator
from jotty.core.queue import backends as installed_backends
from jotty.core.queue import load_backend

from .failing import CommandError, ExitCode, perform
from .loading import load_app, workflow_now
from .options import AppAddress, AsJson, Debug, Mode, Order, parse_order
from .printing import print_json, print_table

if TYPE_CHECKING:
    from jotty.core.orchestration import Graph

__all__ = ["backends", "graph"]


def graph(
    app: AppAddress,
    *,
    as_dot: Annotated[bool, typer.Option("--dot", help="Print it for Graphviz instead.")] = False,
    mode: Mode = None,
    order: Order = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print an app's graph for Mermaid."""

    def work() -> ExitCode:
        drawn = _graph_of(app, mode, order, debug=debug)
        if as_json:
            print_json(_as_document(drawn))
        else:
            typer.echo(drawn.to_dot() if as_dot else drawn.to_mermaid(), nl=False)
        return ExitCode.OK

    perform(work, debug=debug)


def _graph_of(address: str, mode: str | None, order: str | None, *, debug: bool) -> Graph:
    workflow = workflow_now(load_app(address, debug=debug), mode=mode, order=parse_order(order))
    if not isinstance(workflow.orchestrator, GraphOrchestrator):
        raise CommandError(f"{address} has an orchestrator of its own, which tells no graph.")
    return workflow.orchestrator.graph()


def _as_document(drawn: Graph) -> dict[str, Any]:
    nodes = [
        {"name": name, "actor": node.actor.name, "parents": node.parents, "on_demand": node.actor.on_demand}
        for name, node in drawn.nodes.items()
    ]
    return {"mode": drawn.mode, "nodes": nodes}


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
