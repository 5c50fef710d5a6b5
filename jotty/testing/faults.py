"""Faults on purpose: a store that fails before or after a call took effect, and awaits that are cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import attrs
from anyio.lowlevel import checkpoint

from jotty.errors import StorageError

from .proxy import BackendProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

    from jotty.core.queue import QueueBackend

__all__ = ["FAULTS", "Fault", "FaultyBackend"]

T = TypeVar("T")
FAULTS: Final = ("error before", "error after", "cancel before", "cancel during", "cancel after")


@attrs.frozen
class Fault:
    """What is to go wrong with one call of a backend.

    - "error before": a StorageError, and the call is not made
    - "error after": the call is made, and its answer lost: a StorageError
    - "cancel before": the await is cancelled, and the call is not made
    - "cancel during": the await is cancelled as soon as the call waits for anything
    - "cancel after": the call returns, and whatever is awaited next is cancelled

    Attributes:
        kind: One of these.
        call: Which call it strikes: how many go before it.
    """

    kind: str = attrs.field(validator=attrs.validators.in_(FAULTS))
    call: int = 0


class FaultyBackend(BackendProxy):
    """Passes every call on, but for one that a fault strikes.

    Args:
        inner: The backend that does the work.

    Attributes:
        has_struck: Whether the fault that was armed last has struck.
    """

    def __init__(self, inner: QueueBackend) -> None:
        super().__init__(inner)
        self._fault: Fault | None = None
        self._scope: anyio.CancelScope | None = None
        self._calls = 0
        self.has_struck = False

    def arm(self, fault: Fault | None, scope: anyio.CancelScope | None = None) -> None:
        """Have a fault strike one of the next calls; None disarms it.

        Args:
            fault: The fault.
            scope: What it cancels, if that is its kind.

        Raises:
            ValueError: It is to cancel, and there is no scope.
        """
        if fault is not None and scope is None and fault.kind.startswith("cancel"):
            raise ValueError(f"{fault!r} needs the scope that it cancels.")
        self._fault, self._scope = fault, scope
        self._calls, self.has_struck = 0, False

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call, unless this is the one that the fault strikes."""
        fault, number = self._fault, self._calls
        self._calls += 1
        if fault is None or fault.call != number:
            return await call()
        self.has_struck = True
        if self._scope is not None and fault.kind in {"cancel before", "cancel during"}:
            self._scope.cancel()
        if fault.kind == "cancel before":
            await checkpoint()
        # what was not acknowledged as open is opened again, which no handle needs to bear that is open
        if fault.kind == "error before" or (fault.kind == "error after" and name == "open"):
            raise StorageError(self.url, f"{name} was to fail.")
        value = await call()
        if fault.kind == "error after":
            raise StorageError(self.url, f"the answer to {name} was to be lost.")
        if self._scope is not None and fault.kind == "cancel after":
            self._scope.cancel()
        return value
