"""From a URL to an open queue: backends are found by entry point, and only the asked one is loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from jotty.errors import BackendBroken, BackendConflict, BackendNotFound, MissingDependency

from .backend import QueueBackend
from .task_queue import TaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint, EntryPoints

    from .clock import Clock
    from .retry import Random

__all__ = ["GROUP", "backends", "load_backend", "load_queue_class", "open_queue"]

GROUP: Final = "jotty.queues"
_OURS: Final = "jotty"


def backends() -> dict[str, str]:
    """Return the installed backends by name, each with the distribution that brings it; loads none."""
    return {point.name: _distribution(point) for point in sorted(_entry_points())}


def load_backend(name: str) -> type[QueueBackend]:
    """Return the backend class of this name, importing only its module.

    Raises:
        BackendNotFound: No installed distribution offers it; lists the known names.
        BackendConflict: Two distributions do; names both.
        MissingDependency: Its driver, which an extra of jotty brings, is not installed; says which extra.
        BackendBroken: What a distribution offers under this name cannot be imported, or is no QueueBackend.
    """
    found = _find(name)
    try:
        backend = found.load()
    except (ImportError, AttributeError) as failure:
        raise _unimportable(found, failure) from failure
    if not (isinstance(backend, type) and issubclass(backend, QueueBackend)):
        raise _broken(found, f"{found.value!r} is {backend!r}, no QueueBackend")
    return backend


def _unimportable(point: EntryPoint, failure: ImportError | AttributeError) -> Exception:
    """Return what tells of a failed import: whose it is to mend, and how."""
    package = failure.name if isinstance(failure, ModuleNotFoundError) else None
    if package and package.partition(".")[0] != point.module.partition(".")[0] and _is_extra(point):
        return MissingDependency(package, point.name)
    return _broken(point, f"{point.value!r} can't be imported: {failure}")


def _broken(point: EntryPoint, problem: str) -> BackendBroken:
    of = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
    return BackendBroken(point.name, of, problem)


def _is_extra(point: EntryPoint) -> bool:
    """Whether this is a backend of jotty's own, for which there is an extra."""
    if point.dist is None or point.dist.name != _OURS:
        return False
    return point.name in (point.dist.metadata.get_all("Provides-Extra") or ())


def _find(name: str) -> EntryPoint:
    points = {point.value: point for point in _entry_points().select(name=name)}
    if not points:
        raise BackendNotFound(name, backends())
    if len(points) > 1:
        raise BackendConflict(name, {_distribution(point) for point in points.values()})
    return next(iter(points.values()))


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # costs more than the rest of this package

    return entry_points(group=GROUP)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "?"


def load_queue_class(name: str) -> type[TaskQueue]:
    """Return the TaskQueue class that stands beside a backend: for `sqlite`, `SQLiteTaskQueue`.

    Raises:
        BackendNotFound, BackendConflict, BackendBroken, MissingDependency: As `load_backend`.
        TypeError: There is none beside it.
    """
    backend = load_backend(name)
    wanted = backend.__name__.removesuffix("Backend") + "TaskQueue"
    queue = getattr(sys.modules[backend.__module__], wanted, None)
    if not (isinstance(queue, type) and issubclass(queue, TaskQueue)):
        raise TypeError(f"{backend.__module__} has no {wanted}. Use open_queue({name + ':...'!r}) instead.")
    return queue


def open_queue(url: str, *, clock: Clock | None = None, random: Random | None = None) -> TaskQueue:
    """Return a queue for a URL, like `sqlite:///tasks.db?max_size=1000`; it opens itself at first use.

    Three slashes make a path relative, four absolute. Query parameters are the options of the backend, and
    `max_size` and `max_payload` of `TaskQueue`.

    Args:
        url: The scheme is the backend's name; what follows is the backend's own.
        clock: Another source of time, for tests.
        random: Where ids and jitter come from.

    Raises:
        BackendNotFound: The scheme is unknown; lists the known ones.
        BackendConflict, BackendBroken, MissingDependency: See `load_backend`.
        ValueError: The URL has no scheme, or an option is unknown or has no such value; lists the known.
        TypeError: The URL is no text.
    """
    if not isinstance(url, str):
        raise TypeError(f"A queue's URL is a text, like 'sqlite:///tasks.db', not {url!r}.")
    scheme, colon, rest = url.partition(":")
    if not colon or not scheme:
        shown = url.rpartition("@")[2]  # what may be a password stands before it
        raise ValueError(f"A queue's URL is like 'sqlite:///tasks.db' or 'memory:', not {shown!r}.")
    backend_class = load_backend(scheme)
    location, _, query = rest.partition("?")
    known: dict[str, Callable[[str], Any]] = {**backend_class.options, "max_size": int, "max_payload": int}
    options = _parse_options(scheme, query, known)
    of_queue = {name: options.pop(name) for name in ("max_size", "max_payload") if name in options}
    backend = backend_class.from_url(location, clock=clock, **options)
    return TaskQueue(backend, clock=clock, random=random, **of_queue)


def _parse_options(scheme: str, query: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    from urllib.parse import parse_qsl  # as above

    options = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"{scheme}: has no option {name!r}. Known: {', '.join(sorted(known))}.")
        try:
            options[name] = known[name](text)
        except ValueError as wrong:
            raise ValueError(f"{scheme}: option {name}={text!r} is wrong: {wrong}") from wrong
    return options
