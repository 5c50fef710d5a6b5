"""What a run comes to."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ErrorInfo",
    "Metadata",
    "Result",
    "RunUsage",
    "Timings",
    "Usage",
    "UsageMeter",
    "annotate",
    "attach",
    "blame",
    "describe",
    "result_of",
]

_KEY = "__jotty_result__"
_MAX_TYPE: Final = 200
_MAX_MESSAGE: Final = 2000
_MOST_NAMED: Final = 3


class ErrorInfo(TypedDict):
    """An actor's failure, as plain text: cut where it is long, and escaped where it is no Unicode.

    Attributes:
        agent: The actor, or "" where none is to blame.
        attempt: The attempt that failed, from 1.
        type: The exception's class, with its module unless it is a built-in.
        message: The first 2,000 characters of its text.
    """

    agent: str
    attempt: int
    type: str
    message: str


class Timings(TypedDict):
    """How long things took.

    Attributes:
        started_at: When the run started, in seconds since the Unix epoch.
        seconds: How long it took.
        actors: Seconds by actor, summed over its executions, waits between attempts included.
    """

    started_at: float
    seconds: float
    actors: dict[str, float]


class Usage(TypedDict):
    """What the models of a run consumed.

    Attributes:
        input_tokens: Tokens read.
        output_tokens: Tokens written.
        cost: Money, in whatever unit the actors reported.
    """

    input_tokens: int
    output_tokens: int
    cost: float


class RunUsage(Usage):
    """The sum over a run, and by model.

    Attributes:
        models: The same by name of the model.
    """

    models: dict[str, Usage]


class Metadata(TypedDict):
    """What there is to know about a run besides its outputs.

    Attributes:
        run_id: Names the run; every event carries it.
        iterations: How many executions of actors it took.
        timings: How long they took.
        path: The actors in the order in which they were started.
        usage: What `ctx.usage` reported.
    """

    run_id: str
    iterations: int
    timings: Timings
    path: list[str]
    usage: RunUsage


class Result(TypedDict):
    """What a run came to.

    Attributes:
        success: Whether every actor that had to run did so without failing.
        final_output: The output of the conductor's `output`, or of the actors nothing depends on:
            one, itself; several, a dict by name. That of an `End`, if there was one.
        actor_outputs: Every actor's output, by name; the absent are not in it.
        errors: The failures, in the order in which they happened.
        metadata: The rest.
    """

    success: bool
    final_output: Any
    actor_outputs: dict[str, Any]
    errors: list[ErrorInfo]
    metadata: Metadata


def result_of(exc: BaseException) -> Result | None:
    """Return what was finished when this exception ended a run, or None if no run raised it."""
    return cast("Result | None", vars(exc).get(_KEY))


def attach(exc: BaseException, result: Result) -> None:
    """Have `result_of` find this result."""
    vars(exc)[_KEY] = result  # not setattr, which an exception may forbid


def annotate(exc: BaseException, note: str) -> None:
    """Add a note to an exception, also to one that forbids attributes."""
    vars(exc).setdefault("__notes__", []).append(note)


def blame(exc: BaseException, who: str) -> None:
    """Note on an exception who has raised it; of a group, the first time, also what is in it."""
    if isinstance(exc, BaseExceptionGroup) and not vars(exc).get("__notes__"):
        annotate(exc, f"In it: {_storable(_contents(exc), _MAX_MESSAGE)}")
    annotate(exc, f"Raised by {who}.")


def describe(exc: BaseException, agent: str = "", attempt: int = 1) -> ErrorInfo:
    """Put an exception into words; a group with what is in it."""
    kind = type(exc)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    message = _text(exc)
    if isinstance(exc, BaseExceptionGroup):
        message = f"{message}: {_contents(exc)}"
    return {
        "agent": agent,
        "attempt": attempt,
        "type": _storable(f"{prefix}{kind.__qualname__}", _MAX_TYPE),
        "message": _storable(message, _MAX_MESSAGE),
    }


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001  # a stranger's __str__ must not end the run otherwise
        return f"<its text can't be read: {type(broken).__name__}>"


def _contents(group: BaseExceptionGroup[BaseException]) -> str:
    """Name the exceptions in a group, and in those within it: the first ones, if they are many."""
    found = [each for _, each in zip(range(_MOST_NAMED + 1), _leaves(group), strict=False)]
    named = [f"{type(each).__qualname__}: {_text(each)}".removesuffix(": ") for each in found[:_MOST_NAMED]]
    return "; ".join(named + ["..."] * (len(found) > _MOST_NAMED))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _storable(text: str, most: int) -> str:
    """Return a text that any queue takes, cut to so many characters."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text.encode(errors="backslashreplace").decode()


class UsageMeter:
    """Sums what actors report, from any thread."""

    def __init__(self) -> None:
        self._models: dict[str, Usage] = {}
        self._lock = Lock()

    def add(self, model: str, input_tokens: int, output_tokens: int, cost: float) -> None:
        """Count this in."""
        with self._lock:
            found = self._models.setdefault(model, {"input_tokens": 0, "output_tokens": 0, "cost": 0.0})
            found["input_tokens"] += input_tokens
            found["output_tokens"] += output_tokens
            found["cost"] += cost

    def total(self) -> RunUsage:
        """Return the sum of everything so far."""
        with self._lock:
            models = {name: each.copy() for name, each in self._models.items()}
        return {
            "input_tokens": sum(each["input_tokens"] for each in models.values()),
            "output_tokens": sum(each["output_tokens"] for each in models.values()),
            "cost": sum(each["cost"] for each in models.values()),
            "models": models,
        }
