"""What ends a command: its exit code, and what it says when something went wrong."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import anyio
import typer

from jotty.core.orchestration import result_of
from jotty.core.orchestration.labels import readable
from jotty.errors import (
    ActorError,
    BackendNotFound,
    GraphError,
    InputRequired,
    JottyError,
    PayloadError,
    StorageError,
    TaskNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = [
    "CommandError",
    "ExitCode",
    "Interrupted",
    "UsageError",
    "called_rightly",
    "ended_by",
    "perform",
]


class ExitCode(IntEnum):
    """What a command's exit code means; part of the command's interface."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NONCONFORMING = 5
    UNREACHABLE = 75
    INTERRUPTED = 130
    TERMINATED = 143


class CommandError(Exception):
    """The command could not do what was asked.

    Attributes:
        code: The exit code.
    """

    code = ExitCode.FAILED


class Interrupted(CommandError):
    """What ran in the process has interrupted it."""

    code = ExitCode.INTERRUPTED


class UsageError(CommandError):
    """The command was called wrongly; nothing was done."""

    code = ExitCode.USAGE


@contextmanager
def called_rightly() -> Iterator[None]:
    """Take a wrong argument within the block for the fault of who called the command.

    Raises:
        UsageError: In place of a ValueError or TypeError.
    """
    try:
        yield
    except (ValueError, TypeError) as wrong:
        raise UsageError(str(wrong)) from wrong


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
        BrokenPipeError: Whoever read the output has seen enough.
    """
    try:
        code = work()
        if not isinstance(code, ExitCode):
            code = anyio.run(_awaited, code)
    except BaseException as error:  # noqa: BLE001 - whatever it is, a person is to read it
        code = _ended(error, debug=debug)
    raise typer.Exit(code)


def _ended(error: BaseException, *, debug: bool) -> ExitCode:
    is_actors_own = result_of(error) is not None
    if isinstance(error, BrokenPipeError) and not is_actors_own:
        raise error
    if isinstance(error, KeyboardInterrupt) and not is_actors_own:
        return ExitCode.INTERRUPTED
    return _report(error, debug=debug)


async def _awaited(work: Awaitable[ExitCode]) -> ExitCode:
    return await work


def _report(error: BaseException, *, debug: bool) -> ExitCode:
    """Say on stderr what went wrong, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    else:
        told = _told(error)
        typer.echo("\n".join(["Error: " + told[0], *told[1:]]), err=True)
    return _code_of(error)


_ASKING = (
    "Run it on a terminal, which asks you.",
    "Or put it into a queue with jotty enqueue, and answer with jotty answer.",
)


def _told(error: BaseException) -> list[str]:
    if isinstance(error, (CommandError, ActorError)):
        return [str(error)]
    if isinstance(error, InputRequired):
        return [f"An actor asks {error.question!r} (key {error.key!r}), and nobody can answer.", *_ASKING]
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return [ended_by(error, "run")]
    if isinstance(error, JottyError) and result_of(error) is None:
        return [str(error)]
    return [_named(error), *getattr(error, "__notes__", []), "Run it again with --debug for the traceback."]


def ended_by(error: SystemExit | KeyboardInterrupt, what: str) -> str:
    """Say which actor tried to end the process, as far as that is known, and what of it did end."""
    result = result_of(error)
    agents = [each["agent"] for each in result["errors"] if each["agent"]] if result else []
    who = f"Actor {readable(agents[-1])!r}" if agents else f"Something in this {what}"
    deed = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else "raised KeyboardInterrupt"
    return f"{who} {deed}, which ended the {what}. Raise an ordinary exception to fail."


def _named(error: BaseException) -> str:
    return f"{type(error).__qualname__}: {error}".rstrip(": ")


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, CommandError):
        return error.code
    if result_of(error) is not None:
        return ExitCode.FAILED  # an actor's own failure, whatever its kind
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
