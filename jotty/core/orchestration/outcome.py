"""What an execution of an actor may come to; plain values, which the dataflow folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Done", "End", "Failed", "Goto", "Outcome", "Output", "Skipped"]


@attrs.frozen
class Output:
    """An actor's output, told apart from its chunks.

    The last thing an async generator yields may be one; without it, the output is the join of the
    strings. Any other actor may return its value as it is.

    Attributes:
        value: The output.
    """

    value: Any


@attrs.frozen(init=False)
class Goto:
    """Returned by an actor to have another run again, with everything that descends from it.

    The round of the target and of its descendants advances: those that run are cancelled and
    awaited, their outputs are forgotten. The target then starts as soon as its parents are
    settled, its `when` not asked. The returning actor runs again if it descends from the
    target; else it counts as skipped. A Goto is never an output.

    Attributes:
        target: The name of the actor to go to (in static mode that of the node, like `write#2`).
        inputs: Arguments for the target's next execution; they win over everything else.
    """

    target: str
    inputs: Mapping[str, Any]

    def __init__(self, target: Any, /, **inputs: Any) -> None:
        object.__setattr__(self, "target", getattr(target, "name", target))
        object.__setattr__(self, "inputs", inputs)


@attrs.frozen
class End:
    """Returned by an actor to finish the run at once; what still runs is cancelled and awaited.

    Attributes:
        output: The run's final output, and this actor's own.
    """

    output: Any = None


@attrs.frozen
class Skipped:
    """The actor did not run: its `when` was false, or an output it needs is absent.

    Attributes:
        reason: Why, for a person to read.
    """

    reason: str


@attrs.frozen
class Failed:
    """The actor's last attempt failed.

    Attributes:
        error: What it raised.
    """

    error: BaseException


Done: TypeAlias = Output | Goto | End
Outcome: TypeAlias = Done | Skipped | Failed
