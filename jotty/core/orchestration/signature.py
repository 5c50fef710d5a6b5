"""What a callable wants to be given, and how it is to be called."""

from __future__ import annotations

import functools
import inspect
from enum import Enum
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ActorKind",
    "Parameter",
    "Signature",
    "derived",
    "is_coroutine_function",
    "kind_of",
    "read_signature",
]

_NOTHING: Any = inspect.Parameter.empty
_AS_IF = frozenset(("__signature__", "__wrapped__"))  # a function with one of these has another's signature


class ActorKind(Enum):
    """How an actor is run.

    Attributes:
        ASYNC: It is awaited.
        SYNC: It runs in a thread.
        STREAM: It is iterated, and its strings are chunks of its output.
        GRAPH: It is a conductor, whose actors run.
    """

    ASYNC = "async"
    SYNC = "sync"
    STREAM = "stream"
    GRAPH = "graph"


def derived(derive: Callable[[Any], Any]) -> Any:
    """Return a field that follows from those before it, once and for all."""
    return attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(derive, takes_self=True))


@attrs.frozen
class Parameter:
    """One parameter of an actor.

    Attributes:
        name: Its name.
        default: Its default, or `inspect.Parameter.empty`.
        positional: Whether it can only be passed by position.
    """

    name: str
    default: Any = _NOTHING
    positional: bool = False

    @property
    def required(self) -> bool:
        """Whether the actor can't run without a value for it."""
        return self.default is _NOTHING


@attrs.frozen
class Signature:
    """The parameters of an actor.

    Attributes:
        parameters: Those with a name, in order.
        takes_more: Whether it has a `**inputs`.
        names: The names of the parameters (derived).
        positional: Those that can only be passed by position (derived).
    """

    parameters: tuple[Parameter, ...]
    takes_more: bool = False
    names: frozenset[str] = derived(lambda made: frozenset([each.name for each in made.parameters]))
    positional: tuple[Parameter, ...] = derived(
        lambda made: tuple([each for each in made.parameters if each.positional])
    )


def read_signature(call: Callable[..., Any]) -> Signature:
    """Inspect a callable; its `*args` are ignored.

    Raises:
        TypeError: Python does not know its signature.
    """
    if isinstance(call, FunctionType) and _AS_IF.isdisjoint(call.__dict__):
        return _read_function(call)
    try:
        found = inspect.signature(call).parameters.values()
    except ValueError as exc:
        raise TypeError(f"{call!r} has no readable signature. Wrap it in a function of your own.") from exc
    named = tuple(
        Parameter(each.name, each.default, each.kind is inspect.Parameter.POSITIONAL_ONLY)
        for each in found
        if each.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    )
    return Signature(named, any(each.kind is inspect.Parameter.VAR_KEYWORD for each in found))


def _read_function(function: FunctionType) -> Signature:
    """Do what `inspect.signature` would, in a fraction of the time; nearly all actors are plain functions."""
    code, defaults = function.__code__, function.__defaults__ or ()
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    values = dict(zip(names[count - len(defaults) : count], defaults, strict=True))
    values |= function.__kwdefaults__ or {}
    parameters = [
        Parameter(name, values.get(name, _NOTHING), at < code.co_posonlyargcount)
        for at, name in enumerate(names)
    ]
    return Signature(tuple(parameters), bool(code.co_flags & inspect.CO_VARKEYWORDS))


def kind_of(call: Callable[..., Any]) -> ActorKind:
    """Tell how a function, method, partial or callable object is to be run.

    Raises:
        TypeError: It is a class, or a generator that is not async.
    """
    if inspect.isclass(call):
        raise TypeError(f"The class {call.__name__} is no actor. Give an instance of it, or a function.")
    if is_coroutine_function(call):
        return ActorKind.ASYNC
    function = _function_of(call)
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{call!r} is a plain generator. Make it an async generator (async def) to stream.")
    if inspect.isasyncgenfunction(function):
        return ActorKind.STREAM
    return ActorKind.ASYNC if inspect.iscoroutinefunction(function) else ActorKind.SYNC


def is_coroutine_function(call: Callable[..., Any]) -> bool:
    """Tell whether to call this runs nothing of it, as it only makes a coroutine."""
    code = getattr(_function_of(call), "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_COROUTINE)


def _function_of(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, functools.partial):
        call = call.func
    if isinstance(call, (FunctionType, MethodType)):
        return call
    is_object = not inspect.isroutine(call) and callable(call)
    return type(call).__call__ if is_object else call
