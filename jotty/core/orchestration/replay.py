"""Folding what earlier claims of a durable run have noted: nothing runs, and what is missing is ready."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from jotty.core.queue.payload import dumps

from .identity import digest
from .outcome import End, Failed, Goto, Output, Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .codec import Codec
    from .memory import Record
    from .outcome import Done
    from .run import Run
    from .state import RunState

__all__ = ["kept_of", "outcome_of", "replay", "restore", "routed"]

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())


def kept_of(outcome: Done, data: bytes | None, prefix: str = "") -> dict[str, Any]:
    """Return what is kept of an outcome, as it is read from the journal in a later claim."""
    if isinstance(outcome, Goto):
        return {"goto": prefix + outcome.target, "given": dict(outcome.inputs)}
    kept: dict[str, Any] = {"output": None if data is None else json.loads(data)}
    return {**kept, "end": True} if isinstance(outcome, End) else kept


def outcome_of(record: Record, codec: Codec, prefix: str = "") -> tuple[Done | Failed, str | None] | None:
    """Return what a node came to, with the digest of its output; None if it cannot be read any more."""
    data = record.data
    if record.kind == "error":
        return Failed(RuntimeError(data["error"]["message"])), None
    if "goto" in data:
        return Goto(data["goto"].removeprefix(prefix), **data.get("given", {})), None
    stored = dumps(data["output"])
    try:
        value = codec.load(stored)
    except Exception as error:  # noqa: BLE001 - a stranger's type has changed since, and says so in its own way
        logger.warning(
            "The output of %r does not fit its actor any more, which runs again: %s", record.label, error
        )
        return None
    return End(value) if data.get("end") else Output(value), digest(stored)


def restore(state: RunState, records: Sequence[Record]) -> list[tuple[str, int]]:
    """Count what earlier claims have done; return the executions they have left open, with their attempts."""
    left: dict[str, int] = {}
    parked: set[str] = set()
    for record in records:
        label, data = record.label, record.data
        if record.kind == "retried":
            state.iterations = 0
        elif record.kind == "parked":
            parked.update(left)
        elif record.kind == "start":
            if label in parked:  # the same execution goes on
                parked.remove(label)
            else:
                state.path.append(label)
                state.iterations += 1
            left[label] = 1
            if "/" in label:
                state.know(label)
        elif record.kind != "route" and "key" not in data:
            if left.pop(label, None) and "seconds" in data:
                state.seconds[label] = state.seconds.get(label, 0.0) + data["seconds"]
            state.finish(label)
        if record.kind == "error" and data.get("continued"):
            state.errors.append(data["error"])
        state.recall.add(record)
    state.parked = parked
    return list(left.items())


def replay(run: Run, records: Sequence[Record]) -> None:
    """Fold the records of one level of a run, in order, as far as they still fit.

    A step fits if its node is ready in its round, and is given what it was given then.
    """
    started: set[str] = set()
    unknown: set[str] = set()
    for record in records:
        name = record.label.rpartition("/")[2]
        if name not in run.graph.nodes:
            unknown.add(record.label)
            continue
        run.flow.rest()
        if record.kind == "route":
            if name in started:
                _keep_end(run, record)
                run.flow.route(_route(record.data))
        elif not run.flow.is_ready(name, record.round):
            started.discard(name)
        elif record.kind in {"start", "skip"}:
            _begin(run, name, record, started)
        elif name in started:
            _fold(run, name, record)
    if unknown:
        names = ", ".join(sorted(unknown))
        logger.warning("The run has steps of %s, no actors here any more: they are ignored.", names)


def _begin(run: Run, name: str, record: Record, started: set[str]) -> None:
    node = run.graph.nodes[name]
    started.discard(name)
    if record.data.get("inputs") != run.digests.inputs_of(node, run.flow):
        return
    if record.kind == "skip":
        run.flow.fold(name, Skipped(record.data["reason"]))
    else:
        started.add(name)


def _fold(run: Run, name: str, record: Record) -> None:
    if not record.is_outcome:
        return
    node = run.graph.nodes[name]
    found = outcome_of(record, run.options.codecs.of(node.actor), run.prefix)
    if found is None:
        return
    outcome, output = found
    if output is not None:
        run.digests.keep(node, output)
    _keep_end(run, record)
    run.flow.fold(name, outcome)


def _keep_end(run: Run, record: Record) -> None:
    if record.data.get("end"):
        run.ended_data = json.dumps(record.data["output"]).encode()


def routed(outcome: Goto | End, data: bytes | None) -> dict[str, Any]:
    """Return what is noted of the Goto or End of something spawned."""
    if isinstance(outcome, Goto):
        return {"goto": outcome.target, "given": dict(outcome.inputs)}
    return {"end": True, "output": None if data is None else json.loads(data)}


def _route(data: Mapping[str, Any]) -> Goto | End:
    return Goto(data["goto"], **data["given"]) if "goto" in data else End(data["output"])
