"""Assertions on events, tasks and histories, whose failures say what there is instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from jotty.core.queue import Task, TaskStatus

from .workflows import WorkflowRun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from .history import Event as HistoryEvent
    from .verdict import Verdict

__all__ = ["assert_completed", "assert_events", "assert_failed", "assert_history_clean"]

SHOWN: Final = 80  # characters of a value
AROUND: Final = 3  # events before and after those that differ
MANY: Final = 500  # events that are compared pair by pair; of more, only the ends are
NOTE: Final = "\nRaised by "  # how what is noted of an actor's exception begins, below its text

Fields = Mapping[str, Any]


def assert_events(
    events: Iterable[Any], expected: Iterable[str | Fields], *, types: Collection[str] | None = None
) -> None:
    """Assert that these events happened, in this order.

    Args:
        events: What a run told: those of a `WorkflowRun`, a stream, or `WorkflowMode.stream`.
        expected: For each event its type, with the agent if it matters (`"agent_start"`,
            `"agent_start write"`), or the fields that matter (`{"type": "agent_complete", "output": 3}`).
        types: Which types to look at; None for those that stand in `expected`. To assert that something
            did not happen: `assert_events(events, [], types=["agent_error"])`.

    Raises:
        AssertionError: Others happened; shows where.
        ValueError: An expected event has no type, or one that no event of jotty has; lists those there are.
            (Where another orchestrator tells events of its own types, any type may be expected.)
    """
    wanted = [_fields(each) for each in expected]
    named = {each["type"] for each in wanted}
    looked_at = named if types is None else set(types)
    told = list(events)
    _check_types(named | looked_at, told)
    actual = [event for event in told if event["type"] in looked_at]
    if len(actual) == len(wanted) and all(map(_fits, wanted, actual)):
        return
    raise AssertionError(_told(wanted, actual))


def _fields(expected: str | Fields) -> Fields:
    if isinstance(expected, str):
        kind, _, agent = expected.partition(" ")
        return {"type": kind, "agent": agent} if agent else {"type": kind}
    if "type" not in expected:
        raise ValueError(f"An expected event needs a type, which {dict(expected)!r} has not.")
    return expected


def _check_types(asked: Collection[str], told: Sequence[Fields]) -> None:
    known = _event_types()
    if any(event["type"] not in known for event in told):
        return
    for name in sorted(set(asked) - known):
        similar = get_close_matches(name, known, n=1)
        meant = f" Did you mean {similar[0]!r}?" if similar else ""
        raise ValueError(f"No event has the type {name!r}.{meant} There are: {', '.join(sorted(known))}.")


@cache
def _event_types() -> frozenset[str]:
    """Return the types of all events, of a run or of a chat."""
    from jotty.core.orchestration import AgentSelectedEvent, DoneEvent, Event

    hidden = {"ErrorInfo": Any, "Result": Any}  # which DoneEvent's module imports for type checkers only
    kinds = (*get_args(Event), AgentSelectedEvent, DoneEvent)
    types = [get_type_hints(kind, localns=hidden)["type"] for kind in kinds]
    return frozenset(name for one in types for name in get_args(one))


def _fits(expected: Fields, event: Fields) -> bool:
    return not _differences(expected, event)


def _differences(expected: Fields, event: Fields) -> list[str]:
    return [
        f"{name}={_shown(event[name])}, not {_shown(value)}" if name in event else f"no {name}"
        for name, value in expected.items()
        if name not in event or event[name] != value
    ]


def _told(wanted: Sequence[Fields], actual: Sequence[Fields]) -> str:
    """Put in words what is other than expected, and show both side by side."""
    names = {name: None for each in wanted for name in each} | {"agent": None}
    lines = [
        _line(sign, each if event is None else event, names) for sign, each, event in _aligned(wanted, actual)
    ]
    return "\n".join([_summary(wanted, actual), "", *_around_differences(lines), "", _LEGEND])


_LEGEND: Final = "(- expected, but did not happen; + happened, but was not expected)"


def _summary(wanted: Sequence[Fields], actual: Sequence[Fields]) -> str:
    for number, (expected, event) in enumerate(zip(wanted, actual, strict=False), start=1):
        if found := _differences(expected, event):
            is_same = expected["type"] == event["type"]
            other = f"has {'; '.join(found)}" if is_same else f"is {event['type']}, not {expected['type']}"
            return f"Event {number} of {len(actual)}{_of_agent(event)} {other}."
    if len(wanted) > len(actual):
        return (
            f"After {len(actual)} events, {_named(wanted[len(actual)])} was expected, but nothing followed."
        )
    return f"After the {len(wanted)} expected events came {_named(actual[len(wanted)])}."


def _named(event: Fields) -> str:
    return f"{event['type']}{_of_agent(event)}"


def _of_agent(event: Fields) -> str:
    return f" of {event['agent']!r}" if "agent" in event else ""


def _line(sign: str, event: Fields, names: Iterable[str]) -> str:
    fields = [f"{name}={_shown(event[name])}" for name in names if name in event and name != "type"]
    return " ".join([f"  {sign} {event['type']}", *fields])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _aligned(
    wanted: Sequence[Fields], actual: Sequence[Fields]
) -> Iterator[tuple[str, Fields, Fields | None]]:
    """Pair what was expected with what happened, so that as much as possible fits.

    Gives a sign, what was expected (or what happened instead), and what fitted it.
    """
    lengths = _common(wanted, actual) if max(len(wanted), len(actual)) <= MANY else None
    at = there = 0
    while at < len(wanted) or there < len(actual):
        if at < len(wanted) and there < len(actual) and _fits(wanted[at], actual[there]):
            yield " ", wanted[at], actual[there]
            at, there = at + 1, there + 1
        elif at < len(wanted) and (lengths is None or lengths[at + 1][there] >= lengths[at][there]):
            yield "-", wanted[at], None
            at += 1
        else:
            yield "+", actual[there], None
            there += 1


def _common(wanted: Sequence[Fields], actual: Sequence[Fields]) -> list[list[int]]:
    """Return, for each pair of places, how many events fit from there on at most."""
    lengths = [[0] * (len(actual) + 1) for _ in range(len(wanted) + 1)]
    for at in range(len(wanted) - 1, -1, -1):
        for there in range(len(actual) - 1, -1, -1):
            if _fits(wanted[at], actual[there]):
                lengths[at][there] = lengths[at + 1][there + 1] + 1
            else:
                lengths[at][there] = max(lengths[at + 1][there], lengths[at][there + 1])
    return lengths


def _around_differences(lines: Sequence[str]) -> Iterator[str]:
    """Leave out what is far from any difference."""
    differing = [at for at, line in enumerate(lines) if line[2] != " "]
    is_left_out = False
    for at, line in enumerate(lines):
        if any(abs(at - other) <= AROUND for other in differing):
            is_left_out = False
            yield line
        elif not is_left_out:
            is_left_out = True
            yield "    ..."


def assert_completed(ended: Task | WorkflowRun | None) -> Any:
    """Assert that a task, or a run of a workflow, ended well, and return its result, or its final output.

    Args:
        ended: What `TaskQueue.get` or `run_workflow(..., check=False)` returned.

    Raises:
        AssertionError: It did not; says what became of it, and why.
    """
    if isinstance(ended, WorkflowRun):
        if ended.error is not None:
            raise AssertionError(f"The workflow raised {_described(ended.error)}.{_path(ended)}")
        if not ended.result["success"]:
            errors = "; ".join(_text(each) for each in ended.result["errors"])
            raise AssertionError(f"The workflow went on to its end, but not without errors: {errors}.")
        return ended.final_output
    task = _there(ended)
    if task.status is not TaskStatus.COMPLETED:
        raise AssertionError(f"{_task(task)} is {_state(task)}, not completed.{_trace(task)}")
    return task.result


def assert_failed(
    ended: Task | WorkflowRun | None, error: str | type[BaseException] = "", *, match: str = ""
) -> str:
    """Assert that a task, or a run of a workflow, failed, and return the error's message.

    The note on which actor raised it is no part of that.

    Args:
        ended: What `TaskQueue.get` or `run_workflow(..., check=False)` returned.
        error: What class of error it must be, or its name without the module; any, if left out.
        match: A regular expression that must be found in the error's message.

    Raises:
        AssertionError: It did not fail, or with another error.
    """
    if isinstance(ended, WorkflowRun):
        what, errors = "The workflow", list(ended.result["errors"] if ended.result else [])
        if ended.error is None and not errors:
            raise AssertionError(f"The workflow did not fail: it gave {_shown(ended.final_output)}.")
        if ended.error is not None and not errors:
            errors = [
                {"agent": "", "attempt": 1, "type": type(ended.error).__name__, "message": str(ended.error)}
            ]
        found: Fields = errors[-1]
    else:
        task = _there(ended)
        what = _task(task)
        if task.status is not TaskStatus.FAILED or task.error is None:
            raise AssertionError(f"{what} is {_state(task)}, not failed.")
        found = task.error
    name = error if isinstance(error, str) else error.__name__
    if name and found["type"].rpartition(".")[2] != name:
        raise AssertionError(f"{what} failed with {_text(found)}, not with {name}.")
    if not re.search(match, found["message"]):
        raise AssertionError(f"{what} failed with {_text(found)}, where {match!r} is not to be found.")
    return str(found["message"]).partition(NOTE)[0]


def _there(task: Task | None) -> Task:
    if task is None:
        raise AssertionError("There is no task: None was given. It was deleted, or never stored.")
    return task


def _task(task: Task) -> str:
    return f"Task {task.id} ({_shown(task.goal)})"


def _state(task: Task) -> str:
    """Say where a task stands, and why."""
    if task.status is TaskStatus.FAILED and task.error is not None:
        return f"failed with {_text(task.error)}, after attempt {task.attempt} of {task.max_attempts}"
    if task.status is TaskStatus.BLOCKED:
        return f"blocked: it waits for {', '.join((*task.awaiting, *task.depends_on))}"
    if task.status is TaskStatus.IN_PROGRESS:
        return f"in progress, held by {task.worker!r}"
    if task.status is TaskStatus.PENDING and task.attempt:
        return f"pending again, after attempt {task.attempt} of {task.max_attempts}"
    return task.status.value


def _trace(task: Task) -> str:
    trace = (task.error or {}).get("traceback", "")
    return f"\n\n{trace}" if trace else ""


def _text(error: Fields) -> str:
    where = f" of {error['agent']!r}, attempt {error['attempt']}" if error.get("agent") else ""
    return _in_a_sentence(f"{error['type']}: {error['message']}{where}")


def _described(error: BaseException) -> str:
    return _in_a_sentence(f"{type(error).__name__}: {error}")


def _in_a_sentence(text: str) -> str:
    """Put notes behind what they are about, and leave the end of the sentence to who goes on."""
    what, _, note = text.rstrip(".").partition(NOTE)
    return f"{what} (raised by {note})" if note else what


def _path(run: WorkflowRun) -> str:
    return f" Its actors were started in this order: {', '.join(run.path)}." if run.result else ""


def assert_history_clean(history: str | Path | Iterable[HistoryEvent] | Verdict) -> Verdict:
    """Assert that a history of several processes breaks no rule, and return the verdict on it.

    Args:
        history: A directory of histories, their events, or what `check_history` returned.

    Raises:
        AssertionError: It breaks some; tells of each, with the events that show it.
    """
    from .history import read_history
    from .verdict import Verdict, check_history

    if isinstance(history, (str, Path)):
        history = read_history(history)
    verdict = history if isinstance(history, Verdict) else check_history(history)
    if not verdict.ok:
        number = len(verdict.violations)
        raise AssertionError(f"The history breaks the contract {number} time{'s' * (number > 1)}.\n{verdict}")
    return verdict
