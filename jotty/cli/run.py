"""`jotty run`: a goal, now."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from jotty.core.orchestration import GraphOrchestrator, result_of
from jotty.core.queue import EventLoop

from .asking import Asker
from .failing import CommandError, ExitCode, perform
from .loading import load_app, workflow_now
from .logs import logged
from .options import (
    AppAddress,
    AsJson,
    Context,
    Debug,
    Goal,
    Mode,
    Order,
    parse_context,
    parse_order,
)
from .printing import is_terminal, print_json, print_output, say, say_failures
from .progress import watching
from .signals import Signals, heard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jotty.core.orchestration import Event, Result, RunStream

    from .loading import App

__all__ = ["run"]


def run(
    app: AppAddress,
    goal: Goal,
    *,
    context: Context = None,
    mode: Mode = None,
    order: Order = None,
    max_iterations: Annotated[
        int, typer.Option("--max-iterations", min=1, help="How many executions of actors it may take.")
    ] = 100,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long it may take.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a goal now, showing how it goes, and print what it comes to.

    What actors ask is asked on the terminal.
    """
    perform(
        lambda: _run(
            load_app(app, debug=debug),
            goal,
            parse_context(context),
            mode=mode,
            order=parse_order(order),
            max_iterations=max_iterations,
            timeout=timeout,
            as_json=as_json,
        ),
        debug=debug,
    )


def _run(
    app: App,
    goal: str,
    context: Mapping[str, Any],
    *,
    mode: str | None,
    order: Sequence[str] | None,
    max_iterations: int,
    timeout: float | None,
    as_json: bool,
) -> ExitCode:
    workflow = workflow_now(app, mode=mode, order=order)
    asker = Asker()
    on_ask = asker if isinstance(workflow.orchestrator, GraphOrchestrator) else None
    stream = workflow.execute_stream(goal, context, max_iterations, on_ask=on_ask)
    try:
        with redirect_stdout(sys.stderr):  # what actors print must not mix with the result
            result = anyio.run(_follow, stream, asker, timeout)
    except BaseException as error:
        partial = result_of(error)
        if as_json and partial is not None:
            print_json(partial)
        raise
    if isinstance(result, ExitCode):
        return result
    _print(result, as_json=as_json)
    return ExitCode.OK


async def _follow(stream: RunStream[Event], asker: Asker, timeout: float | None) -> Result | ExitCode:
    """Show a run until it is over, or until a signal or the timeout cancels it."""
    loop, scope = EventLoop(), anyio.move_on_after(timeout)

    def stop(_: Signals) -> None:
        loop.call_soon(scope.cancel)

    with (
        heard(stop, enough=2) as signals,
        watching() as watcher,
        logged(logging.WARNING, screen=watcher.screen),
        scope,
    ):
        asker.aside = watcher.aside
        async with stream:
            async for event in stream:
                watcher.take(event)
            return await stream.result()
    if signals.count:
        say("Interrupted: the run was cancelled.")
        return signals.code
    raise CommandError(f"The run was cancelled: it took longer than --timeout {timeout:g} s.")


def _print(result: Result, *, as_json: bool) -> None:
    if is_terminal(sys.stderr):
        say("")  # apart from the progress above
    say_failures(result["errors"])
    if as_json:
        print_json(result)
    else:
        print_output(result["final_output"])
