"""What a callable is annotated to return, as far as that can be told at run time."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Names", "Returned", "hints_of", "read_return"]


@attrs.define
class Names:
    """The names that an annotation may use besides those of its module.

    Attributes:
        known: Those of the functions around it.
        unknown: Those that were asked for, and nobody knows; each stood for Any.
    """

    known: Mapping[str, Any]
    unknown: set[str] = attrs.field(factory=set)

    def look_up(self, name: str) -> Any:
        """Return what a name means: Any if nobody knows."""
        if name not in self.known:
            self.unknown.add(name)
        return self.known.get(name, Any)


@attrs.frozen
class Returned:
    """A return annotation.

    Attributes:
        annotation: What it says; Any without one.
        names: For the annotations of the classes that it names.
    """

    annotation: Any
    names: Names

    @property
    def unknown(self) -> set[str]:
        """The names in it that mean nothing at run time."""
        return self.names.unknown


def read_return(call: Callable[..., Any]) -> Returned:
    """Return what a function, method, partial or callable object is annotated to return; never raises."""
    function = _function_of(call)
    names = Names(_closure_of(function))
    annotation = _annotations_of(function, names).get("return", Any)

    def returning() -> None: ...

    returning.__annotations__ = {"return": annotation}
    read = functools.partial(get_type_hints, returning, getattr(function, "__globals__", {}))
    hints = _tolerantly(read, names, dict(names.known), {})
    return Returned(hints.get("return", Any), names)


def hints_of(cls: type, names: Names) -> dict[str, Any]:
    """Return the annotations of a class and its bases; those that can't be read are Any, or missing."""
    own = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    return _tolerantly(functools.partial(get_type_hints, cls), names, None, own)


def _tolerantly(
    read: Callable[..., dict[str, Any]], names: Names, local: dict[str, Any] | None, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Read annotations, finding out the meaning of one missing name after the other."""
    while True:
        try:
            return read(localns=local)
        except NameError as exc:
            if not exc.name or exc.name in (local or ()):
                return {}
            meaning = own[exc.name] if exc.name in own else names.look_up(exc.name)
            local = {**(local or {}), exc.name: meaning}
        except Exception:  # noqa: BLE001 - an annotation may be any expression, and lies do no harm
            return {}


def _function_of(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, functools.partial):
        call = call.func
    if not inspect.isroutine(call):
        call = type(call).__call__
    try:
        function: Callable[..., Any] = inspect.unwrap(call)
    except ValueError:  # it wraps itself
        return call
    return function


def _annotations_of(function: Callable[..., Any], names: Names) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = getattr(function, "__annotations__", None) or {}
    except NameError as exc:  # since Python 3.14 they are made when they are looked at
        names.unknown.add(str(exc.name))
        return {}
    return found


def _closure_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function sees of those around it: a class that it returns, say, if that is local."""
    function = getattr(function, "__func__", function)
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    found = {}
    for name, cell in zip(code.co_freevars, cells, strict=True) if code and cells else ():
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it is not there yet
            continue
    return found
