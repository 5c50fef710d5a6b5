"""The events of a run in words, and as plain lines in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jotty.core.orchestration.labels import readable
from jotty.errors import InputRequired

from .answers import told_options
from .printing import say, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["ENDS", "asked", "described", "named", "tell_line", "tell_lines_of_another", "waits_for"]

NOTE: Final = 300  # characters of an error that are shown before the run is over
ENDS: Final = {
    "agent_complete": "done",
    "agent_error": "failed",
    "agent_skipped": "skipped",
    "agent_cancelled": "cancelled",
}
_NOBODY: Final = f"{InputRequired.__module__}.{InputRequired.__qualname__}"
_TOLD: Final = {"agent_start", "agent_retry", "input_required", *ENDS}


def described(event: Mapping[str, Any]) -> str:
    """Return in one line what an event of an actor adds to its state, for a person."""
    kind = event["type"]
    if kind == "agent_complete":
        return {"goto": f"goes to {event.get('target')}", "end": "ends the run"}.get(event["kind"], "")
    if kind == "agent_skipped":
        return _short(str(event["reason"]))
    if kind == "agent_error":
        return _error(event)
    if kind == "agent_retry":
        return f"attempt {event['attempt']} failed ({_error(event)}), again in {event['delay']:.1f} s"
    if kind == "input_required":
        return asked(event["question"], event["options"])
    return ""


def asked(question: str, options: Sequence[Any] | None) -> str:
    """Return a question in one line, with the answers to choose from."""
    choice = "" if options is None else f" ({told_options(options)})"
    return _short(f"{question}{choice}")


def named(label: str) -> str:
    """Return what an execution is called, in one line, for a person."""
    return _in_one_line(readable(label))


def _error(event: Mapping[str, Any]) -> str:
    kind, message = event["error"]["type"], event["error"]["message"]
    if kind == _NOBODY:  # the command has a remedy of its own
        kind, message = InputRequired.__name__, message.partition(" Pass on_ask=")[0]
    return _short(f"{kind}: {message}" if message else kind)


def _in_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def _short(text: str) -> str:
    line = _in_one_line(text)
    return line if len(line) <= NOTE else f"{line[: NOTE - 1]}…"


def _line(event: Mapping[str, Any]) -> str | None:
    """Return the line that tells an event, or None if it is not told."""
    kind = event["type"]
    if kind not in _TOLD:
        return None
    agent, note = named(event["agent"]), described(event)
    if kind == "agent_start":
        return f"{agent}: started"
    if kind == "agent_retry":
        return f"{agent}: {note}"
    if kind == "input_required":
        return f"{agent}: asks {event['key']}: {note}"
    seconds = f" in {event['seconds']:.2f} s" if "seconds" in event else ""
    return f"{agent}: {ENDS[kind]}{seconds}{f' ({note})' if note else ''}"


def tell_line(event: Mapping[str, Any]) -> None:
    """Tell an event on stderr, in a line of its own, if it is worth one."""
    line = _line(event)
    if line is not None:
        say(line)


def tell_lines_of_another() -> Callable[[Mapping[str, Any]], None]:
    """Tell events as `tell_line` does, but not that who asks makes room until there is an answer."""
    asking: set[str] = set()

    def take(event: Mapping[str, Any]) -> None:
        if event["type"] == "input_required":
            asking.add(event["agent"])
        elif event["type"] == "agent_cancelled" and waits_for(event["agent"], asking):
            return
        elif "agent" in event:
            asking.discard(event["agent"])
        tell_line(event)

    return take


def waits_for(label: str, asking: Iterable[str]) -> bool:
    """Whether an execution is one of those that ask, or has spawned or holds one of them."""
    return any(each == label or each.startswith(f"{label}/") for each in asking)
