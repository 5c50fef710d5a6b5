"""The shapes of objects with named fields."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from .shape import Misfit, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .shape import Slot

__all__ = ["Keys", "Model", "Record", "attrs_record", "dataclass_record", "named_tuple"]


@attrs.define(eq=False)
class Record:
    """An object with fields.

    Attributes:
        kind: Its class.
        annotated: What is annotated of each of the fields that are kept.
        make: Makes an object of their values.
        slots: Where the fields fit; filled in later, as a class may hold itself.
    """

    kind: type
    annotated: Mapping[str, Any]
    make: Callable[[dict[str, Any]], Any]
    slots: Mapping[str, Slot] = attrs.field(factory=dict)
    form = dict

    @property
    def name(self) -> str:
        """Its class's name."""
        return self.kind.__name__

    def encode(self, value: Any) -> dict[str, Any]:
        """Return a dict of the fields."""
        data = {}
        for name, slot in self.slots.items():
            try:
                data[name] = slot.encode(getattr(value, name))
            except AttributeError as exc:
                raise Misfit(f"cannot be read: {exc}.", f".{name}") from exc
            except Misfit as misfit:
                misfit.where.append(f".{name}")
                raise
        return data

    def decode(self, data: dict[str, Any]) -> Any:
        """Return an object; fields that its class has no more are dropped, new ones have their default."""
        return self.make({name: slot.decode(data[name]) for name, slot in self.slots.items() if name in data})


@attrs.frozen
class _Field:
    """A field of a dataclass or an attrs class.

    Attributes:
        name: Its name.
        parameter: What the constructor calls it; None if it takes none for it.
        annotated: Its type.
        default: Makes its default for an object, if it has one.
    """

    name: str
    parameter: str | None
    annotated: Any
    default: Callable[[Any], Any] | None


def dataclass_record(cls: type, hints: Mapping[str, Any]) -> Record:
    """Return the shape of a dataclass, its slots still to be filled in."""
    import dataclasses

    def default(field: dataclasses.Field[Any]) -> Callable[[Any], Any] | None:
        if field.default is not dataclasses.MISSING:
            return lambda _: field.default
        make = field.default_factory
        return None if make is dataclasses.MISSING else lambda _: make()

    found: Any = cls
    fields = [
        _Field(each.name, each.name if each.init else None, hints.get(each.name, each.type), default(each))
        for each in dataclasses.fields(found)
    ]
    return _record(cls, fields, is_converting=False)


def attrs_record(cls: type, hints: Mapping[str, Any]) -> Record:
    """Return the shape of an attrs class, its slots still to be filled in."""

    def default(field: attrs.Attribute[Any]) -> Callable[[Any], Any] | None:
        made: Any = field.default
        if not isinstance(made, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            return None if made is attrs.NOTHING else lambda _: made
        return made.factory if made.takes_self else lambda _: made.factory()

    fields = [
        _Field(each.name, each.alias if each.init else None, hints.get(each.name, each.type), default(each))
        for each in attrs.fields(cls)
    ]
    is_converting = any(each.converter is not None for each in attrs.fields(cls))
    return _record(cls, fields, is_converting=is_converting)


def named_tuple(cls: type, hints: Mapping[str, Any]) -> Record:
    """Return the shape of a NamedTuple, its slots still to be filled in."""
    names: tuple[str, ...] = getattr(cls, "_fields", ())
    return Record(cls, {name: hints.get(name, Any) for name in names}, lambda values: cls(**values))


def _record(cls: type, fields: list[_Field], *, is_converting: bool) -> Record:
    kept = {each.name: each.annotated for each in fields if each.parameter is not None}
    parameters = {each.name: each.parameter for each in fields if each.parameter is not None}
    if is_converting or not _takes(cls, parameters.values()):
        return Record(cls, kept, partial(_assembled, cls, fields))
    return Record(cls, kept, partial(_constructed, cls, parameters))


def _takes(cls: type, parameters: Iterable[str]) -> bool:
    """Tell whether a class is made of its fields, and of nothing else."""
    try:
        return set(inspect.signature(cls).parameters) == set(parameters)
    except (TypeError, ValueError):
        return False


def _constructed(cls: type, parameters: Mapping[str, str], values: dict[str, Any]) -> Any:
    made = cls(**{parameters[name]: value for name, value in values.items()})
    for name, value in values.items():
        now = getattr(made, name)
        if now is not value and now != value:  # what comes after __init__ has done its work a second time
            object.__setattr__(made, name, value)
    return made


def _assembled(cls: Any, fields: Iterable[_Field], values: dict[str, Any]) -> Any:
    """Make an object without its constructor, which would convert again or asks for what nobody has kept."""
    made = cls.__new__(cls)
    for field in fields:
        if field.name in values:
            object.__setattr__(made, field.name, values[field.name])
        elif field.default is not None:
            object.__setattr__(made, field.name, field.default(made))
        elif field.parameter is not None:
            raise TypeError(f"{cls.__name__} has no {field.name!r}")
    finish = getattr(made, "__attrs_post_init__", None)
    if finish is not None:
        finish()
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


@attrs.define(eq=False)
class Keys:
    """A TypedDict.

    Attributes:
        kind: Always dict.
        name: That of the TypedDict.
        annotated: What is annotated of its keys.
        slots: Where their values fit; filled in later. Values of other keys must be JSON.
    """

    name: str
    annotated: Mapping[str, Any]
    slots: Mapping[str, Slot] = attrs.field(factory=dict)
    kind = dict
    form = dict

    def encode(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a dict."""
        checked(dict.fromkeys(value))
        data = {}
        for key, each in value.items():
            try:
                data[key] = self.slots[key].encode(each) if key in self.slots else checked(each)
            except Misfit as misfit:
                misfit.where.append(f"[{key!r}]")
                raise
        return data

    def decode(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the dict."""
        return {
            key: self.slots[key].decode(each) if key in self.slots else each for key, each in data.items()
        }


# Aliases and computed fields keep some models from reading what they write, unless it is written another way.
_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"round_trip": True},
    {"round_trip": True, "by_alias": True},
)


@attrs.frozen(eq=False)
class Model:
    """An object with `model_dump` and `model_validate`.

    Attributes:
        kind: Its class.
    """

    kind: Any
    form = dict

    @property
    def name(self) -> str:
        """Its class's name."""
        return str(self.kind.__name__)

    def encode(self, value: Any) -> Any:
        """Return what the model makes of itself, once that is known to be read again."""
        problem: Exception | None = None
        for way in _WAYS:
            try:
                data = value.model_dump(mode="json", **way)
                checked(data)
                if self._is_same(self.kind.model_validate(data), value):
                    return data
            except Exception as exc:  # noqa: BLE001 - whatever a model raises, another way may do
                problem = problem or exc
        if isinstance(problem, Misfit):
            raise problem
        why = f"{type(problem).__name__}: {problem}" if problem else "it is another one"
        raise Misfit(
            f"is of type {self.name}, which does not come back from model_validate(model_dump(mode='json')): "
            f"{why}. Mend the model, or return JSON."
        ) from problem

    def decode(self, data: Any) -> Any:
        """Return the object."""
        return self.kind.model_validate(data)

    def _is_same(self, restored: Any, value: Any) -> bool:
        if self.kind.__eq__ is not object.__eq__:
            return bool(restored == value)
        return bool(restored.model_dump(mode="json") == value.model_dump(mode="json"))
