"""What the query parameters of our stores' URLs may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jotty.core.queue import check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from jotty.core.queue import Durability

__all__ = ["OPTIONS", "as_durability"]


def as_durability(text: str) -> Durability:
    """Return what a returned write of a store of files is to survive.

    Raises:
        ValueError: It is neither "process" nor "power".
    """
    levels: dict[str, Durability] = {"process": "process", "power": "power"}
    if text not in levels:
        raise ValueError(f"durability must be 'process' or 'power', not {text!r}.")
    return levels[text]


def _as_create(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(f"create must be 1 (make the store if there is none) or 0, not {text!r}.")
    return text == "1"


def _as_busy_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"busy_timeout must be a number of seconds, not {text!r}.") from None
    check_seconds("busy_timeout", seconds)
    return seconds


# see `QueueBackend.options`
OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "durability": as_durability,
    "busy_timeout": _as_busy_timeout,
    "create": _as_create,
}
