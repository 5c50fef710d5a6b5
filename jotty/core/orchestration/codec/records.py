"""The shapes of objects with named fields."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from jotty.core.queue.payload import dumps

from .shape import Misfit, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .shape import Slot

__all__ = ["Keys", "Model", "Record", "attrs_record", "dataclass_record", "named_tuple"]

_NOTHING: Final = object()


@attrs.define(eq=False)
class Record:
    """An object with fields.

    Attributes:
        kind: Its class.
        annotated: What is annotated of each of the fields.
        make: Makes an object of the values of those that are kept.
        late: The fields that no constructor takes, of those that tell two objects apart: they are kept only
            where an object that is made anew has another value.
        slots: Where the fields fit; filled in later, as a class may hold itself.
    """

    kind: type
    annotated: Mapping[str, Any]
    make: Callable[[dict[str, Any]], Any]
    late: frozenset[str] = frozenset()
    slots: Mapping[str, Slot] = attrs.field(factory=dict)
    form = dict

    @property
    def name(self) -> str:
        """Its class's name."""
        return self.kind.__name__

    def encode(self, value: Any) -> dict[str, Any]:
        """Return a dict of the fields."""
        data = {name: self._encoded(name, value) for name in self.slots if name not in self.late}
        if self.late:
            data.update(self._lost(value, self._made_anew(data)))
        return data

    def _encoded(self, name: str, value: Any) -> Any:
        try:
            return self.slots[name].encode(getattr(value, name))
        except AttributeError as exc:
            raise Misfit(f"cannot be read: {exc}.", f".{name}") from exc
        except Misfit as misfit:
            misfit.where.append(f".{name}")
            raise

    def _made_anew(self, data: dict[str, Any]) -> Any:
        try:
            return self.decode(data)
        except Exception as exc:  # whatever a class raises
            raise Misfit(f"cannot be made again: {type(exc).__name__}: {exc}.") from exc

    def _lost(self, value: Any, anew: Any) -> Iterator[tuple[str, Any]]:
        """Yield the fields that do not come back by themselves."""
        for name in sorted(self.late):
            found, now = getattr(value, name, _NOTHING), getattr(anew, name, _NOTHING)
            if found is _NOTHING:
                continue
            try:
                data = self._encoded(name, value)
            except Misfit:
                if not _is_as_good(found, now):
                    raise
            else:
                if now is _NOTHING or dumps(data) != self._dumped(name, anew):
                    yield name, data

    def _dumped(self, name: str, anew: Any) -> bytes | None:
        try:
            return dumps(self._encoded(name, anew))
        except Misfit:
            return None

    def decode(self, data: dict[str, Any]) -> Any:
        """Return an object; fields that its class has got since have their default.

        Raises:
            TypeError: Its class has lost one of the fields, which may have another name now.
        """
        for name in data:
            if name not in self.slots:
                raise TypeError(f"{self.name} has no field {name!r}")
        return self.make({name: slot.decode(data[name]) for name, slot in self.slots.items() if name in data})


def _is_as_good(found: Any, now: Any) -> bool:
    """Tell whether what cannot be kept is the same when it is made anew, or is told apart by no value."""
    if type(found) is not type(now):
        return False
    kind: Any = found.__class__
    try:
        return kind.__eq__ is object.__eq__ or bool(found == now)
    except Exception:  # noqa: BLE001 - whatever a comparison raises: it does not say that they are equal
        return False


@attrs.frozen
class _Field:
    """A field of a dataclass or an attrs class.

    Attributes:
        name: Its name.
        parameter: What the constructor calls it; None if it takes none for it.
        annotated: Its type.
        default: Makes its default for an object, if it has one.
        is_compared: Whether it tells two objects apart.
    """

    name: str
    parameter: str | None
    annotated: Any
    default: Callable[[Any], Any] | None
    is_compared: bool

    @classmethod
    def of(cls, field: Any, parameter: str, hints: Mapping[str, Any], default: Any, *, eq: bool) -> Self:
        """Return a field, given what dataclasses or attrs say of it."""
        name = field.name
        return cls(name, parameter if field.init else None, hints.get(name, field.type), default, eq)


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
        _Field.of(each, each.name, hints, default(each), eq=each.compare)
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
        _Field.of(each, str(each.alias), hints, default(each), eq=bool(each.eq)) for each in attrs.fields(cls)
    ]
    is_converting = any(each.converter is not None for each in attrs.fields(cls))
    return _record(cls, fields, is_converting=is_converting)


def named_tuple(cls: type, hints: Mapping[str, Any]) -> Record:
    """Return the shape of a NamedTuple, its slots still to be filled in."""
    names: tuple[str, ...] = getattr(cls, "_fields", ())
    return Record(cls, {name: hints.get(name, Any) for name in names}, lambda values: cls(**values))


def _record(cls: type, fields: list[_Field], *, is_converting: bool) -> Record:
    late = frozenset(each.name for each in fields if each.parameter is None and each.is_compared)
    kept = {each.name: each.annotated for each in fields if each.parameter is not None or each.name in late}
    parameters = {each.name: each.parameter for each in fields if each.parameter is not None}
    if is_converting or not _takes(cls, parameters.values()):
        return Record(cls, kept, partial(_assembled, cls, fields), late)
    return Record(cls, kept, partial(_constructed, cls, parameters), late)


def _takes(cls: type, parameters: Iterable[str]) -> bool:
    """Tell whether a class is made of its fields, and of nothing else."""
    try:
        return set(inspect.signature(cls).parameters) == set(parameters)
    except (TypeError, ValueError):
        return False


def _constructed(cls: type, parameters: Mapping[str, str], values: dict[str, Any]) -> Any:
    made = cls(**{parameters[name]: value for name, value in values.items() if name in parameters})
    for name, value in values.items():
        now = getattr(made, name, _NOTHING)
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
