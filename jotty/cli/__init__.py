"""The `jotty` command. It needs the extra `cli`; this module does not, so that it can say so."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from jotty.errors import MissingDependency

__all__ = ["main"]

_EXTRA = "cli"
_BROUGHT_BY_EXTRA = ("typer", "rich")
_WORKER_THREAD = "AnyIO worker thread"
_INTERRUPTED = 130
_SECONDS_TO_END = 1.0  # what a thread without work needs at most to notice that it is not needed any more


def main() -> None:
    """Run the command line and exit with its code; without the extra, say how to install it and exit 1."""
    try:
        _run()
    except KeyboardInterrupt:  # before a command has begun, as it hears the signals itself
        sys.exit(_INTERRUPTED)


def _run() -> None:
    try:
        from .app import app
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in _BROUGHT_BY_EXTRA:
            raise
        sys.exit(f"Error: {MissingDependency(package, _EXTRA)}")
    _have_streams()
    _accept_any_text()
    try:
        app(prog_name="jotty")
    except SystemExit as end:
        _leave_threads_behind(end.code)
        raise


def _have_streams() -> None:
    """Read nothing and print to nowhere if the process was started with closed streams, as daemons are."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for as long as the process


def _accept_any_text() -> None:
    """Print a question mark where a terminal's encoding lacks a character, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _leave_threads_behind(code: object) -> None:
    """End the process now if an actor's thread goes on although its run is over: it can't be stopped."""
    for thread in threading.enumerate():
        if thread.name != _WORKER_THREAD:
            continue
        thread.join(_SECONDS_TO_END)
        if thread.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)
