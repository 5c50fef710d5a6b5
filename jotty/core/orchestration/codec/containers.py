"""The shapes of tuples, sets, lists and dicts of what is not JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue.payload import dumps

from .shape import Misfit, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from .shape import Slot

__all__ = ["Dict", "Items", "Pairs", "Tuple"]


def _encoded(slot: Slot, value: Any, step: str) -> Any:
    try:
        return slot.encode(value)
    except Misfit as misfit:
        misfit.where.append(step)
        raise


@attrs.frozen(eq=False)
class Items:
    """Any number of items of one slot: a list, tuple, set or frozenset.

    Attributes:
        name: As annotated.
        kind: The class.
        item: Where each of them fits.
    """

    name: str
    kind: type
    item: Slot
    form = list

    def encode(self, value: Any) -> list[Any]:
        """Return a list; that of a set is sorted by the items' JSON."""
        if self.kind is list or self.kind is tuple:
            return [_encoded(self.item, each, f"[{number}]") for number, each in enumerate(value)]
        return sorted((self.item.encode(each) for each in value), key=dumps)

    def decode(self, data: list[Any]) -> Any:
        """Return the collection."""
        make: Callable[[Any], Any] = self.kind
        return make([self.item.decode(each) for each in data])


@attrs.frozen(eq=False)
class Tuple:
    """A tuple of a certain length.

    Attributes:
        name: As annotated.
        items: Where its items fit, each of them.
    """

    name: str
    items: tuple[Slot, ...]
    kind = tuple
    form = list

    def encode(self, value: tuple[Any, ...]) -> list[Any]:
        """Return a list."""
        if len(value) != len(self.items):
            raise Misfit(
                f"is a tuple of {len(value)}, not of {len(self.items)} as annotated. Mend the annotation."
            )
        return [
            _encoded(item, each, f"[{number}]")
            for number, (item, each) in enumerate(zip(self.items, value, strict=True))
        ]

    def decode(self, data: list[Any]) -> tuple[Any, ...]:
        """Return the tuple."""
        return tuple(item.decode(each) for item, each in zip(self.items, data, strict=True))


@attrs.frozen(eq=False)
class Dict:
    """A dict with strings as keys.

    Attributes:
        name: As annotated.
        item: Where its values fit.
    """

    name: str
    item: Slot
    kind = dict
    form = dict

    def encode(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a dict."""
        checked(dict.fromkeys(value))
        return {key: _encoded(self.item, each, f"[{key!r}]") for key, each in value.items()}

    def decode(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the dict."""
        return {key: self.item.decode(each) for key, each in data.items()}


@attrs.frozen(eq=False)
class Pairs:
    """A dict with keys that are no strings.

    Attributes:
        name: As annotated.
        key: Where its keys fit.
        item: Where its values fit.
    """

    name: str
    key: Slot
    item: Slot
    kind = dict
    form = list

    def encode(self, value: dict[Any, Any]) -> list[Any]:
        """Return a list of pairs."""
        return [
            [_encoded(self.key, key, f"[{key!r}]"), _encoded(self.item, each, f"[{key!r}]")]
            for key, each in value.items()
        ]

    def decode(self, data: list[Any]) -> dict[Any, Any]:
        """Return the dict."""
        return {self.key.decode(key): self.item.decode(each) for key, each in data}
