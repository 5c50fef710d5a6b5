"""From an annotation to the slot that its values fit in."""

from __future__ import annotations

import collections.abc
import types
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NewType, TypeVar, is_typeddict

import attrs

from jotty.core.orchestration.outcome import End, Goto, Output

from .annotation import Names, hints_of
from .containers import Dict, Items, Pairs, Tuple
from .records import Keys, Model, Record, attrs_record, dataclass_record, named_tuple
from .shape import JSON_KINDS, Choice, Plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .annotation import Returned
    from .shape import Kinds, Shape, Slot

__all__ = ["Variants", "either", "variants_of"]

_OUTCOMES: Final = (End, Goto, Output)
_STREAMS: Final = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_UNIONS: Final = (typing.Union, types.UnionType)
# These say more of a field, but nothing of its values.
_WRAPPERS: Final = (
    typing.ClassVar,
    typing.Final,
    typing.Required,
    typing.NotRequired,
)
_KINDS: Final[Mapping[Any, Kinds]] = {
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
    bool: frozenset({bool}),
    int: frozenset({int}),
    float: frozenset({float, int}),
    str: frozenset({str}),
}
# What an abstract class may turn out to be.
_CONCRETE: Final[Mapping[Any, tuple[type, ...]]] = {
    collections.abc.Sequence: (list, tuple),
    collections.abc.MutableSequence: (list,),
    collections.abc.Mapping: (dict,),
    collections.abc.MutableMapping: (dict,),
    collections.abc.Set: (set, frozenset),
    collections.abc.MutableSet: (set,),
    collections.abc.Collection: (list, tuple, set, frozenset),
    collections.abc.Iterable: (list, tuple, set, frozenset),
}


@attrs.frozen
class Variants:
    """What values of one annotation may be.

    Attributes:
        kinds: JSON of these kinds.
        shapes: Or of these shapes.
    """

    kinds: Kinds = frozenset()
    shapes: tuple[Shape, ...] = ()

    def slot(self) -> Slot:
        """Return where such values fit."""
        return Choice(self.kinds, self.shapes) if self.shapes else Plain(self.kinds)


_ANYTHING: Final = Variants(JSON_KINDS)


def variants_of(returned: Returned) -> Variants:
    """Return what an actor's outputs may be; never raises.

    Awaitables are what they give, an async generator's output is a string, and `Output`, Goto and End are
    none. What is not understood stands for any JSON.
    """
    try:
        return _Reader(returned.names).variants(_output_of(returned.annotation))
    except Exception:  # noqa: BLE001 - annotations may hold anything, and its classes run code of their own
        return _ANYTHING


def either(all_variants: Iterable[Variants]) -> Variants:
    """Return what a value may be that is one of these, or holds several of them in a dict by name."""
    one = _joined(all_variants)
    return _joined([one, _dict_of("dict", one.slot())])


def _output_of(annotation: Any) -> Any:
    while True:
        origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin in _STREAMS:
            return str
        if origin is collections.abc.Coroutine and len(args) == 3:  # noqa: PLR2004 - the last is returned
            annotation = args[2]
        elif origin is collections.abc.Awaitable and args:
            annotation = args[0]
        else:
            return annotation


def _joined(all_variants: Iterable[Variants]) -> Variants:
    found = list(all_variants)
    kinds: Kinds = frozenset().union(*(each.kinds for each in found))
    return Variants(kinds, tuple(shape for each in found for shape in each.shapes))


def _dict_of(name: str, item: Slot) -> Variants:
    if isinstance(item, Plain):
        return Variants(frozenset({dict}))
    return Variants(shapes=(Dict(name, item),))


class _Reader:
    """Reads one annotation, with all that it names.

    Args:
        names: What names mean, besides their module's.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[Any, Variants] = {}

    def variants(self, annotation: Any) -> Variants:
        """Return what values of an annotation may be."""
        if annotation in _KINDS:
            return Variants(_KINDS[annotation])
        origin, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin in _WRAPPERS:
            return self.variants(args[0]) if args else _ANYTHING
        if origin in _UNIONS:
            return self._union([each for each in args if each not in _OUTCOMES])
        if origin is typing.Literal:
            return self._union([type(each) for each in args])
        if origin in _CONCRETE:
            return _joined(self._container(each, args, annotation) for each in _CONCRETE[origin])
        if isinstance(origin, type):
            return self._class(origin, args, annotation)
        return self._named(origin)

    def _union(self, members: Iterable[Any]) -> Variants:
        members = list(dict.fromkeys(members))
        return _joined(self.variants(each) for each in members) if members else _ANYTHING

    def _named(self, annotation: Any) -> Variants:
        """Read what has a name of its own: a NewType, a type variable, a `type X = ...`."""
        if isinstance(annotation, NewType):
            return self.variants(annotation.__supertype__)
        if isinstance(annotation, TypeVar):
            return self._union(annotation.__constraints__ or filter(None, [annotation.__bound__]))
        meaning = getattr(annotation, "__value__", None)
        if meaning is None or annotation in self._known:
            return self._known.get(annotation, _ANYTHING)
        self._known[annotation] = _ANYTHING  # if it names itself
        self._known[annotation] = self.variants(meaning)
        return self._known[annotation]

    def _class(self, cls: type, args: tuple[Any, ...], annotation: Any) -> Variants:
        if cls in _OUTCOMES or cls is object:
            return _ANYTHING
        if cls in {list, tuple, set, frozenset, dict}:
            return self._container(cls, args, annotation)
        if annotation not in self._known:
            self._read_class(cls, args, annotation)
        return self._known[annotation]

    def _container(self, cls: type, args: tuple[Any, ...], annotation: Any) -> Variants:
        name = _name_of(cls, args)
        if cls is dict:
            return self._dict(name, *(args or (str, Any)))
        if typing.get_origin(annotation) is tuple and args[-1:] != (...,):
            if _is_fixed(annotation, args):
                return Variants(shapes=(Tuple(name, tuple(self.variants(each).slot() for each in args)),))
            args = ()
        item = self.variants(args[0] if args else Any).slot()
        if cls is list and isinstance(item, Plain):
            return Variants(frozenset({list}))
        return Variants(shapes=(Items(name, cls, item),))

    def _dict(self, name: str, key: Any, value: Any) -> Variants:
        keys, item = self.variants(key), self.variants(value).slot()
        if keys.shapes or str not in keys.kinds:
            return Variants(shapes=(Pairs(name, keys.slot(), item),))
        return _dict_of(name, item)

    def _read_class(self, cls: type, args: tuple[Any, ...], annotation: Any) -> None:
        shape = self._shape_of(cls, args)
        self._known[annotation] = _ANYTHING if shape is None else Variants(shapes=(shape,))
        if isinstance(shape, (Record, Keys)):
            shape.slots = {name: self.variants(each).slot() for name, each in shape.annotated.items()}
            if isinstance(shape, Keys) and all(isinstance(each, Plain) for each in shape.slots.values()):
                self._known[annotation] = Variants(frozenset({dict}))

    def _shape_of(self, cls: type, args: tuple[Any, ...]) -> Shape | None:
        if issubclass(cls, Enum):
            from .scalars import enum_shape

            return enum_shape(cls)
        if hasattr(cls, "model_dump") and hasattr(cls, "model_validate"):
            return Model(cls)
        if attrs.has(cls):
            return attrs_record(cls, self._hints(cls, args))
        if hasattr(cls, "__dataclass_fields__"):
            return dataclass_record(cls, self._hints(cls, args))
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return named_tuple(cls, self._hints(cls, args))
        if is_typeddict(cls):
            return Keys(cls.__name__, self._hints(cls, args))
        from .scalars import scalars

        return scalars().get(cls)

    def _hints(self, cls: type, args: tuple[Any, ...]) -> dict[str, Any]:
        """Return the types of a class's fields, those of a generic one with what stands for its variables."""
        hints, variables = hints_of(cls, self._names), getattr(cls, "__parameters__", ())
        if not variables:
            return hints
        meaning = dict(zip(variables, args or [Any] * len(variables), strict=True))
        return {name: _substituted(hint, meaning) for name, hint in hints.items()}


def _substituted(annotation: Any, meaning: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        return meaning.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if isinstance(annotation, type) or not variables:
        return annotation
    return annotation[tuple(meaning.get(each, each) for each in variables)]


def _is_fixed(annotation: Any, args: tuple[Any, ...]) -> bool:
    """Tell whether a tuple is annotated item by item; a bare typing.Tuple is not, tuple[()] is."""
    is_unpacked = any(
        getattr(each, "__unpacked__", False) or typing.get_origin(each) is typing.Unpack for each in args
    )
    return hasattr(annotation, "__args__") and not is_unpacked


def _name_of(cls: type, args: tuple[Any, ...]) -> str:
    inside = ", ".join("..." if each is ... else getattr(each, "__name__", str(each)) for each in args)
    return f"{cls.__name__}[{inside}]" if args else cls.__name__
