"""The `jotty` command. It needs the extra `cli`; this module does not, so that it can say so."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from jotty.errors import MissingDependency

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

_EXTRA = "cli"
_BROUGHT_BY_EXTRA = ("typer", "rich")
_WORKER_THREAD = "AnyIO worker thread"
_INTERRUPTED = 130
_UNREAD = 141  # what a shell calls a program that dies of SIGPIPE
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
    code = _code_of(lambda: app(prog_name="jotty"))
    _leave_threads_behind(code)
    sys.exit(code)


def _code_of(command: Callable[[], object]) -> str | int | None:
    """Run a command, and return its exit code; one of its own if nobody reads what it prints any more."""
    code = None
    try:
        try:
            command()
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # typer says 1, as for what has failed
                raise end.__context__ from None
            code = end.code
        _flush()
    except BrokenPipeError:
        _print_to_nowhere()
        return code or _UNREAD
    return code


def _flush() -> None:
    """Find out whether what is left in the buffer is read; the interpreter tells of a full disk."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as failure:  # or an actor has closed it
        if isinstance(failure, BrokenPipeError):
            raise


def _print_to_nowhere() -> None:
    """Keep the interpreter from trying to print, at its end, what is left in the buffers."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as the process


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
