"""Actors: what a conductor conducts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import attrs

from jotty.core.queue import RetryPolicy

from .binding import among
from .signature import (
    ActorKind,
    Parameter,
    Signature,
    derived,
    is_coroutine_function,
    kind_of,
    read_signature,
)
from .wiring import Wiring, foresee

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Actor",
    "ActorLike",
    "ActorOptions",
    "AgentObject",
    "AnyActor",
    "ErrorPolicy",
    "Limit",
    "actor",
    "as_actor",
]

P = ParamSpec("P")
R = TypeVar("R")

ErrorPolicy: TypeAlias = Literal["raise", "continue"]
ERROR_POLICIES = ("raise", "continue")
_USUAL = RetryPolicy()


def is_count(value: Any, least: int) -> bool:
    """Tell whether this is an int, no bool, of at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_seconds(value: Any) -> bool:
    """Tell whether this is a finite number of seconds above zero."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def is_storable(text: str) -> bool:
    """Tell whether a text has a form in UTF-8, which lone surrogates have not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@attrs.frozen(kw_only=True)
class Limit:
    """How much of something scarce the actors that share it may use.

    Attributes:
        concurrent: How many of them may run at once, or None for any number.
        per_minute: How many of them may start within a minute, or None for any number.

    Raises:
        ValueError: A bound is no int of at least 1, or there is none.
    """

    concurrent: int | None = None
    per_minute: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a limit that limits nothing, or lets nothing run."""
        bounds = {"concurrent": self.concurrent, "per_minute": self.per_minute}
        for name, bound in bounds.items():
            if bound is not None and not is_count(bound, 1):
                raise ValueError(f"{name} must be an int of at least 1, or None, not {bound!r}.")
        if not any(bounds.values()):
            raise ValueError("A Limit needs concurrent= or per_minute=.")


def _name_of(call: Any) -> str:
    while isinstance(call, functools.partial):
        call = call.func
    name = getattr(call, "name", None) or getattr(call, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"{call!r} has no name of its own. Give it one: actor(..., name='...').")
    return name


def name_of(value: Any) -> str:
    """Return the name that stands for an actor: a name itself, or that of an actor.

    Raises:
        TypeError: It is neither.
    """
    name = value.name if isinstance(value, Actor) else value
    if not isinstance(name, str):
        raise TypeError(f"Expected an actor or the name of one, not {value!r}.")
    return name


def _names(values: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"depends_on takes a list of names. Write depends_on=[{values!r}].")
    return tuple(name_of(value) for value in values)


def _renames(values: Mapping[str, Any] | None) -> dict[str, str]:
    if values is not None and not isinstance(values, Mapping):
        raise TypeError(f"bind must be a mapping of parameters to names, not {values!r}.")
    return {parameter: name_of(source) for parameter, source in (values or {}).items()}


def _policy(made: Actor[..., Any]) -> RetryPolicy:
    given = made.backoff
    if given is None:
        return _USUAL
    if isinstance(given, RetryPolicy):
        return given
    try:
        return RetryPolicy(delay=given)
    except ValueError:
        raise ValueError(
            f"backoff of {made.name!r} must be seconds >= 0, or a RetryPolicy, not {given!r}."
        ) from None


def is_conductor(call: Any) -> bool:
    """Tell whether this is a conductor, which runs as a graph within the graph."""
    return bool(getattr(type(call), "conducts", False))


def _is_agent(call: Any) -> bool:
    """Tell whether this is an object of an agent library rather than a function."""
    if isinstance(call, FunctionType) or inspect.isroutine(call) or inspect.isclass(call):
        return False
    return hasattr(call, "run") or isinstance(getattr(call, "name", None), str)


def _target_of(call: Any) -> Callable[..., Any]:
    """Return what is really called."""
    if isinstance(call, Actor):
        raise TypeError(f"{call!r} is an actor already. Change it by attrs.evolve(actor, ...).")
    if is_conductor(call):
        run: Callable[..., Any] = call.run
        return run
    if not _is_agent(call):
        if callable(call):
            function: Callable[..., Any] = call
            return function
        raise TypeError(f"{call!r} is no actor: it can't be called. Give a function, or an agent object.")
    methods: tuple[Callable[..., Any] | None, ...] = (getattr(call, "run", None), call)
    for method in methods:
        if callable(method) and kind_of(method) is not ActorKind.SYNC:
            return method
    raise TypeError(f"The agent {call!r} has neither an async run() nor an async __call__().")


def _kind_of(made: Actor[..., Any]) -> ActorKind:
    return ActorKind.GRAPH if is_conductor(made.call) else kind_of(made.target)


def _prompt_of(made: Actor[..., Any]) -> str | Callable[..., Any] | None:
    if made.prompt is not None:
        return made.prompt
    return "goal" if _is_agent(made.call) and not is_conductor(made.call) else None


def _invoked(made: Actor[..., Any]) -> Callable[..., Any]:
    """Return the callable that takes what was bound."""
    make, target = _prompt_of(made), made.target
    if not callable(make):
        return target

    def prompted(*positional: Any, **named: Any) -> Any:
        return target(make(*positional, **named))

    return prompted


def _wanted(made: Actor[..., Any]) -> Signature:
    call: Any = made.call
    if is_conductor(call):
        found: Signature = call.signature()
        return found
    prompt = _prompt_of(made)
    if prompt is None:
        return read_signature(made.target)
    if isinstance(prompt, str):
        return Signature((Parameter(prompt, positional=True),))
    return read_signature(prompt)


def _wanted_by_when(made: Actor[..., Any]) -> Signature | None:
    if made.when is not None and not callable(made.when):
        raise TypeError(f"when of {made.name!r} must be a plain function, not {made.when!r}.")
    return None if made.when is None else read_signature(made.when)


def _is_awaited(made: Actor[..., Any]) -> bool:
    return made.kind is ActorKind.ASYNC and made.timeout is None and made.limit is None


def _is_direct(made: Actor[..., Any]) -> bool:
    return made.invoke is made.target and is_coroutine_function(made.target)


@attrs.frozen(kw_only=True, eq=False, repr=False, slots=False)
class Actor(Generic[P, R]):
    """Something that can be run towards a goal, with its name and its rules.

    Made by `actor`, or directly. It stays callable as the plain function that it wraps.
    Actors compare by identity; `attrs.evolve(actor, retries=2)` makes a changed copy.

    Attributes:
        name: What others bind to. Not empty, and without a '#' or '/'.
        call: An async or plain function, an async generator, an object with a `name` and an async
            `run` or `__call__`, or a Conductor, whose actors then run as a graph within the graph.
        bind: Renames: parameter to the name of what it gets.
        depends_on: Actors that must be settled first, although nothing of them is bound.
        when: A plain function, bound like the actor, that tells whether to run it. It is called on
            the event loop, so it must be quick.
        retries: How often a failed attempt is repeated.
        backoff: How long to wait before that: a policy, or the seconds of the first wait.
        timeout: Seconds that an attempt may take, or None. Waits for a place, a limit or an answer do not
            count, nor does what it has spawned and does not await, which has timeouts of its own.
        on_demand: Run only when another actor returns `Goto(name)`, or spawns it.
        limit: The name of the conductor's limit that this actor shares, or None. While it waits for others,
            or for an answer, its place under the limit is theirs.
        on_error: "raise" or "continue"; None leaves it to the conductor.
        version: In a run from a queue, finished steps of another version run again after a restart.
        prompt: For callables that take one positional prompt: the name of what it is, or a
            function, bound like the actor, that makes it. The default for objects is the goal.
        target: The function or method that is called in the end (derived).
        kind: How it is run (derived).
        signature: What it wants to be given (derived).
        when_signature: What its `when` wants to be given (derived).
        policy: The backoff as a policy (derived).
        invoke: The callable that takes what was bound (derived).
        is_awaited: Whether nothing is to be done but to await it: it has no timeout and no limit (derived).
        is_direct: Whether calling it runs nothing of it, as that only makes a coroutine (derived).
        wiring: How it is tied into a graph whose actors are all that it needs (derived).

    Raises:
        TypeError: It is nothing that can be run, or an option has the wrong type.
        ValueError: An option is out of its range.
    """

    name: str
    call: Callable[P, R]
    bind: Mapping[str, str] = attrs.field(default=None, converter=_renames)
    depends_on: tuple[str, ...] = attrs.field(default=(), converter=_names)
    when: Callable[..., Any] | None = None
    retries: int = 0
    backoff: RetryPolicy | float | None = None
    timeout: float | None = None
    on_demand: bool = False
    limit: str | None = None
    on_error: ErrorPolicy | None = None
    version: str | int | None = None
    prompt: str | Callable[..., Any] | None = None
    target: Callable[P, R] = derived(lambda made: _target_of(made.call))
    kind: ActorKind = derived(_kind_of)
    signature: Signature = derived(_wanted)
    when_signature: Signature | None = derived(_wanted_by_when)
    policy: RetryPolicy = derived(_policy)
    invoke: Callable[..., Any] = derived(_invoked)
    is_awaited: bool = derived(_is_awaited)
    is_direct: bool = derived(_is_direct)
    wiring: Wiring | None = derived(foresee)

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be meant, and take on the looks of the function."""
        self._check()
        looks = ("__doc__", "__module__", "__name__", "__qualname__")
        self.__dict__.update({each: getattr(self.call, each) for each in looks if hasattr(self.call, each)})
        self.__dict__["__wrapped__"] = self.target

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function, as if it were not decorated."""
        return self.target(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Actor({self.name!r})"

    def _check(self) -> None:
        if not isinstance(self.name, str) or not self.name or "#" in self.name or "/" in self.name:
            raise ValueError(f"An actor's name must be a text without '#' and '/', not {self.name!r}.")
        if not is_storable(self.name):
            raise ValueError(f"An actor's name must be Unicode without lone surrogates, not {self.name!r}.")
        if not is_count(self.retries, 0):
            raise ValueError(f"retries of {self.name!r} must be an int >= 0, not {self.retries!r}.")
        if self.timeout is not None and not is_seconds(self.timeout):
            raise ValueError(f"timeout of {self.name!r} must be seconds > 0, or None, not {self.timeout!r}.")
        if self.limit is not None and not isinstance(self.limit, str):
            raise TypeError(
                f"limit of actor {self.name!r} must be a name, not {self.limit!r}. "
                "Write limit='model', and Conductor(..., limits={...}) with what that is."
            )
        if self.on_error not in (None, *ERROR_POLICIES):
            raise ValueError(
                f"on_error of {self.name!r} must be 'raise' or 'continue', not {self.on_error!r}."
            )
        if self.when is not None and kind_of(self.when) is not ActorKind.SYNC:
            raise TypeError(
                f"when of {self.name!r} must be a plain function. Make it an actor, and bind its output."
            )


AnyActor: TypeAlias = Actor[..., Any]
ActorLike: TypeAlias = Any  # an Actor, a function, or an agent object of any library


class AgentObject(Protocol):
    """An object of an agent library: it has a name and an async `run` that takes a prompt."""

    @property
    def name(self) -> Any:
        """Its name, a text; else give the actor one."""
        ...

    @property
    def run(self) -> Callable[..., Any]:
        """Called with one positional prompt."""
        ...


class ActorOptions(TypedDict, total=False):
    """The options of `actor`, as `Actor` describes them; wherever a name stands, an actor may, too."""

    name: str
    bind: Mapping[str, Any]
    depends_on: Iterable[Any]
    when: Callable[..., Any] | None
    retries: int
    backoff: RetryPolicy | float | None
    timeout: float | None
    on_demand: bool
    limit: str | None
    on_error: ErrorPolicy | None
    version: str | int | None
    prompt: str | Callable[..., Any] | None


@overload
def actor(call: Callable[P, R], /, **options: Unpack[ActorOptions]) -> Actor[P, R]: ...


@overload
def actor(call: AgentObject, /, **options: Unpack[ActorOptions]) -> AnyActor: ...


@overload
def actor(**options: Unpack[ActorOptions]) -> Callable[[Callable[P, R]], Actor[P, R]]: ...


def actor(call: Any = None, /, **options: Unpack[ActorOptions]) -> Any:
    """Make an actor of a function or an agent object: `@actor`, `@actor(retries=2)` or `actor(agent)`.

    Its parameters are bound by name: to the goal, the context, resources, and the outputs of
    other actors, which it then follows. The options are those of `Actor`.

    Raises:
        TypeError: It is nothing that can be run, has no name, or an option has the wrong type.
        ValueError: An option is out of its range.
    """

    def make(found: Any) -> AnyActor:
        named: Any = options if "name" in options else {"name": _name_of(found), **options}
        unknown = sorted(named.keys() - ActorOptions.__annotations__.keys())
        if unknown:
            known = among(unknown[0], sorted(ActorOptions.__annotations__))
            raise TypeError(f"Actor {named['name']!r} has no option {unknown[0]!r}. {known}")
        return Actor(call=found, **named)

    return make if call is None else make(call)


def as_actor(value: ActorLike) -> AnyActor:
    """Return an actor as it is, and make one of anything else that can be run.

    Raises:
        TypeError: It is nothing that can be run, or has no name.
    """
    if isinstance(value, str):
        raise TypeError(f"{value!r} is a name, no actor. Give the function or agent itself.")
    return value if isinstance(value, Actor) else actor(value)
