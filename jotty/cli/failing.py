"""What ends a command: its exit code, and what it says when something went wrong."""

from __future__ import annotations

import traceback
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import anyio
import typer

from jotty.core.orchestration import result_of
from jotty.errors import (
    BackendNotFound,
    GraphError,
    JottyError,
    PayloadError,
    StorageError,
    TaskNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["CommandError", "ExitCode", "UsageError", "perform"]


class ExitCode(IntEnum):
    """What a command's exit code means; part of the command's interface."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 75
    INTERRUPTED = 130
    TERMINATED = 143


class CommandError(Exception):
    """The command could not do what was asked.

    Attributes:
        code: The exit code.
    """

    code = ExitCode.FAILED


class UsageError(CommandError):
    """The command was called wrongly; nothing was done."""

    code = ExitCode.USAGE


# The first that fits counts.
_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode], ...] = (
    (StorageError, ExitCode.UNREACHABLE),
    (TaskNotFound, ExitCode.NOT_FOUND),
    ((BackendNotFound, GraphError, PayloadError), ExitCode.USAGE),
)


def perform(work: Callable[[], ExitCode | Awaitable[ExitCode]], *, debug: bool) -> NoReturn:
    """Do a command's work (on an event loop, if it is async), tell its failure in words, and exit.

    Args:
        work: Gives the exit code, or raises.
        debug: Tell a failure by its traceback.

    Raises:
        typer.Exit: Always, with the exit code.
        BrokenPipeError: Whoever read the output has seen enough; typer ends quietly.
    """
    try:
        code = work()
        if not isinstance(code, ExitCode):
            code = anyio.run(_awaited, code)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, a person is to read it
        code = _report(error, debug=debug)
    raise typer.Exit(code)


async def _awaited(work: Awaitable[ExitCode]) -> ExitCode:
    return await work


def _report(error: Exception, *, debug: bool) -> ExitCode:
    """Say on stderr what went wrong, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    else:
        told = _told(error)
        typer.echo("\n".join(["Error: " + told[0], *told[1:]]), err=True)
    return _code_of(error)


def _told(error: Exception) -> list[str]:
    if isinstance(error, CommandError):
        return [str(error)]
    if isinstance(error, JottyError) and result_of(error) is None:
        return [str(error)]
    return [_named(error), *getattr(error, "__notes__", []), "Run it again with --debug for the traceback."]


def _named(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {error}".rstrip(": ")


def _code_of(error: Exception) -> ExitCode:
    if isinstance(error, CommandError):
        return error.code
    if result_of(error) is not None:
        return ExitCode.FAILED  # an actor's own failure, whatever its kind
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
