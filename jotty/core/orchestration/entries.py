"""How the events of a durable run stand in its task's journal: shorter than they are told, and told again.

Kinds of entries, and what each holds besides; `time` is in seconds, what is not given has its usual value:

- "run": the run began: `goal`, `agents`, `output`, `graph` (the fingerprint),
  `supplied` (the outputs that were given)
- "start": an execution began: `agent`, `inputs` (their digest), `round` (0)
- "step": it ended: `agent`, `attempt` (1), `round` (0), `seconds`, `of` (finished and known nodes), and
  `output`; with `end` true that of an End; or with `goto` its target, `given` and `reset`.
  With `key`: a step within an actor, with `inputs`.
- "skip": a node does not run: `agent`, `reason`, `inputs`, `round`, `of`
- "error": its last attempt failed: `agent`, `error`, `seconds`, `of`; with `continued` true the run went on
- "question": an actor asks: `agent`, `key`, `question`, `options`, `until` (microseconds, or None)
- "route": something that `agent` has spawned came to a Goto (`goto`, `given`) or an End (`end`, `output`)
- "parked": nothing but an answer lets the run go on; what is under way goes on then as the same execution
- "expired": nobody answered in time: `key`, `value`
- "usage": what a model consumed
- "event": any other event, as it was told; of an execution that was cancelled, `seconds` as well
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import ROOM, EncodedEntry, encode, encode_entry
from jotty.core.queue.payload import dumps
from jotty.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jotty.core.queue import JournalEntry

__all__ = ["KINDS", "entry_of", "event_of", "plain_entry", "start_entry", "step_entry"]

# Entries that stand for an event.
KINDS: Final = frozenset({"run", "start", "step", "skip", "error", "question", "event"})


def plain_entry(event: Mapping[str, Any], limit: int, note: Mapping[str, Any] | None = None) -> EncodedEntry:
    """Return the entry that holds an event as it is.

    Args:
        event: The event.
        limit: The most bytes of JSON that an output may have.
        note: What the entry holds besides.

    Raises:
        PayloadError: It holds what is not strict JSON, or too much; names the actor that made it.
    """
    agent = event.get("agent", "")
    told = {name: value for name, value in event.items() if name not in {"run_id", "seq"}}
    try:
        return encode_entry({"kind": "event", "event": told, **(note or {})}, limit + ROOM)
    except PayloadError as error:
        inside = error.path.removeprefix("entry").removeprefix("['event']")
        raise PayloadError(
            f"the event {event['type']!r} of actor {agent!r}: it{inside}", error.problem
        ) from None


def entry_of(event: Mapping[str, Any], note: Mapping[str, Any], limit: int) -> EncodedEntry:
    """Return the entry of an event that tells of the course of a run.

    Args:
        event: The event.
        note: What the entry holds besides; `output` are the bytes of its JSON.
        limit: The most bytes of JSON that an output may have.

    Raises:
        PayloadError: A name in it cannot be stored.
    """
    told = event["type"]
    if told == "agent_start":
        return start_entry(event["agent"], event["time"], note["inputs"], note["round"])
    if told == "agent_complete" and event["kind"] == "output":
        return step_entry(
            event["agent"],
            event["time"],
            event["seconds"],
            (event["finished"], event["known"]),
            note["output"],
            attempt=event["attempt"],
            number=note["round"],
        )
    if told not in _WRITERS:
        return plain_entry(event, limit, note)
    kind, fields = _WRITERS[told](event)
    output = note.get("output")
    rest = {name: value for name, value in note.items() if name != "output" and value}
    entry = {"kind": kind, "agent": event.get("agent", ""), "time": event["time"], **fields, **rest}
    if kind == "run":
        del entry["agent"]
    encoded = encode(entry, "entry", limit=limit + ROOM)
    if output is not None:
        encoded = b'%s,"output":%s}' % (encoded[:-1], output)
    return EncodedEntry(encoded)


# These two make up nearly all of a journal, and are written by hand: that takes a twentieth of the time.
# Times are whole microseconds, so that six decimals tell them exactly.


def start_entry(agent: str, time: float, inputs: str, number: int = 0) -> EncodedEntry:
    """Return the entry of an execution that begins.

    Args:
        agent: Its label.
        time: When, in seconds.
        inputs: The digest of what it is given.
        number: Its round.
    """
    given = b',"round":%d' % number if number else b""
    entry = b'{"kind":"start","agent":%s,"time":%.6f,"inputs":"%s"%s}'
    return EncodedEntry(entry % (_quoted(agent), time, inputs.encode(), given))


def step_entry(
    agent: str,
    time: float,
    seconds: float,
    progress: tuple[int, int],
    output: bytes,
    *,
    attempt: int = 1,
    number: int = 0,
) -> EncodedEntry:
    """Return the entry of an execution that has come to an output.

    Args:
        agent: Its label.
        time: When, in seconds.
        seconds: How long it took.
        progress: How many nodes are settled, and how many known.
        output: As JSON.
        attempt: Which attempt it was.
        number: Its round.
    """
    given = b',"attempt":%d' % attempt if attempt > 1 else b""
    if number:
        given += b',"round":%d' % number
    entry = b'{"kind":"step","agent":%s,"time":%.6f,"seconds":%.6f,"of":[%d,%d]%s,"output":%s}'
    return EncodedEntry(entry % (_quoted(agent), time, seconds, *progress, given, output))


@lru_cache(maxsize=4096)
def _quoted(text: str) -> bytes:
    return dumps(text)


def _started(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return "run", {name: event[name] for name in ("goal", "agents", "output")}


def _completed(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {"seconds": event["seconds"], "of": [event["finished"], event["known"]]}
    if event["attempt"] > 1:
        fields["attempt"] = event["attempt"]
    if event["kind"] == "goto":
        fields.update(goto=event["target"], reset=event["reset"])
    elif event["kind"] == "end":
        fields["end"] = True
    return "step", fields


def _skipped(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return "skip", {"reason": event["reason"], "of": [event["finished"], event["known"]]}


def _failed(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    names = ("error", "seconds")
    return "error", {**{name: event[name] for name in names}, "of": [event["finished"], event["known"]]}


def _asked(event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    names = ("attempt", "key", "question", "options")
    return "question", {name: event[name] for name in names}


_WRITERS: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]]] = {
    "workflow_start": _started,
    "agent_complete": _completed,
    "agent_skipped": _skipped,
    "agent_error": _failed,
    "input_required": _asked,
}


def event_of(entry: JournalEntry, run_id: str) -> dict[str, Any] | None:
    """Return the event that an entry stands for, with the entry's number as its `seq`; None if for none.

    Args:
        entry: The entry.
        run_id: The task.
    """
    data = entry.data
    if entry.kind not in KINDS or ("key" in data and entry.kind == "step"):
        return None
    if entry.kind == "event":
        return {"run_id": run_id, **data["event"], "seq": entry.number}
    kind, fields = _READERS[entry.kind](data)
    common = {"type": kind, "run_id": run_id, "seq": entry.number, "time": data["time"]}
    if entry.kind == "run":
        return {**common, **fields}
    return {**common, "agent": data["agent"], **fields}


def _run(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return "workflow_start", {name: data[name] for name in ("goal", "agents", "output")}


def _start(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return "agent_start", {"attempt": 1, "round": data.get("round", 0)}


def _step(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = "goto" if "goto" in data else "end" if data.get("end") else "output"
    finished, known = data["of"]
    return "agent_complete", {
        "attempt": data.get("attempt", 1),
        "kind": kind,
        "output": data.get("output"),
        "target": data.get("goto"),
        "reset": data.get("reset", []),
        "seconds": data["seconds"],
        "finished": finished,
        "known": known,
    }


def _skip(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    finished, known = data["of"]
    return "agent_skipped", {"reason": data["reason"], "finished": finished, "known": known}


def _error(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    error, (finished, known) = data["error"], data["of"]
    return "agent_error", {
        "attempt": error["attempt"],
        "error": error,
        "seconds": data["seconds"],
        "finished": finished,
        "known": known,
    }


def _question(data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    names = ("attempt", "key", "question", "options")
    return "input_required", {name: data[name] for name in names}


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]]] = {
    "run": _run,
    "start": _start,
    "step": _step,
    "skip": _skip,
    "error": _error,
    "question": _question,
}
