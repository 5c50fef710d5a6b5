"""From `module:attribute` or `path.py[:attribute]` to the workflow it names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jotty
from jotty.core.orchestration import Conductor, GraphOrchestrator, WorkflowMode

from .failing import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from jotty.core.queue import TaskQueue

__all__ = ["App", "background_workflow", "load_app", "workflow_now"]

_FORM = "APP is module:attribute, or path.py[:attribute]."

App: TypeAlias = Conductor | WorkflowMode


def load_app(address: str, *, debug: bool = False) -> App:
    """Import what APP names, and return the Conductor or WorkflowMode there.

    What the import prints goes to stderr, so that stdout stays the command's own.

    Raises:
        UsageError: It can't be imported, or there is none, or more than one to choose from.
    """
    place, attribute = _split(address)
    try:
        with redirect_stdout(sys.stderr):
            module = _import_file(Path(place)) if _is_file(place) else _import_module(place)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        if debug:
            traceback.print_exception(error)
        raise UsageError(_import_failure(place, error)) from error
    return _pick(module, place, attribute)


def _split(address: str) -> tuple[str, str]:
    place, _, attribute = address.rpartition(":")
    if not place or "/" in attribute or "\\" in attribute:  # no colon, or that of a drive letter
        return address, ""
    return place, attribute


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} names no module. {_FORM}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
            raise
        raise UsageError(f"No module named {missing.name!r} here or in the environment. {_FORM}") from None


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"No file {str(path)!r}. {_FORM}")
    sys.path.insert(0, str(path.resolve().parent))
    name = _free_name(path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is no Python file: its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _free_name(stem: str) -> str:
    """Return the file's own name, unless that is the name of a module which others may import."""
    is_taken = stem in sys.modules or stem in sys.stdlib_module_names
    return f"jotty_app_{stem}" if is_taken else stem


def _import_failure(place: str, error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SystemExit):
        what = "it calls sys.exit(). Put that under: if __name__ == '__main__'"
    # what it took to import the app is no place of an error in it; a syntax error names its own
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    theirs = [frame for frame in frames if not _is_of_library(frame.filename)]
    place_of_error = f" (line {theirs[-1].lineno} of {theirs[-1].filename})" if theirs else ""
    return f"{place!r} can't be imported{place_of_error}: {what}"


def _is_of_library(filename: str) -> bool:
    """Whether code is nothing that who runs an app has written: Python's, what is installed, and jotty."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places.append(str(Path(jotty.__file__).parent))
    return filename.startswith("<") or any(Path(filename).is_relative_to(place) for place in places)


def _pick(module: ModuleType, place: str, attribute: str) -> App:
    found = _apps_in(module)
    if attribute:
        return _named(module, place, attribute, found)
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise UsageError(f"{place!r} holds no Conductor or WorkflowMode. Make one at the top of the module.")
    raise UsageError(f"{place!r} holds several. Name one: {_listed(place, found)}.")


def _named(module: ModuleType, place: str, attribute: str, found: dict[str, App]) -> App:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UsageError(f"{place!r} has no {attribute!r}. There is: {_listed(place, found)}.")
        value = getattr(value, part)
    if not isinstance(value, (Conductor, WorkflowMode)):
        raise UsageError(
            f"{place}:{attribute} is no Conductor or WorkflowMode, but {value!r:.80}. "
            f"There is: {_listed(place, found)}."
        )
    return value


def _listed(place: str, found: dict[str, App]) -> str:
    return ", ".join(f"{place}:{name}" for name in found) or "nothing to run"


def _apps_in(module: ModuleType) -> dict[str, App]:
    """Return what can be run; not a second name of it, nor a conductor that is a part of another app."""
    apps: dict[int, tuple[str, App]] = {}
    for name, value in vars(module).items():
        if isinstance(value, (Conductor, WorkflowMode)):
            apps.setdefault(id(value), (name, value))
    for _, app in list(apps.values()):
        for part in _parts_of(app):
            apps.pop(id(part), None)
    return dict(apps.values())


def _parts_of(app: App) -> Iterator[Conductor]:
    """Yield the conductor of a workflow, and those that are actors of a conductor, however deep."""
    if isinstance(app, WorkflowMode):
        yield app.conductor
    conductor = app.conductor if isinstance(app, WorkflowMode) else app
    for actor in conductor.actors:
        if isinstance(actor.call, Conductor):
            yield actor.call
            yield from _parts_of(actor.call)


def workflow_now(app: App, *, mode: str | None = None, order: Sequence[str] | None = None) -> WorkflowMode:
    """Return a workflow that runs at once, in the app's own way or in the given mode and order.

    Raises:
        UsageError: There is no such mode or actor, or the app's orchestrator is a stranger's.
    """
    return _rebuilt(app, None, mode, order)


def background_workflow(
    app: App, queue: TaskQueue, *, mode: str | None = None, order: Sequence[str] | None = None
) -> WorkflowMode:
    """Return a workflow that runs from this queue, whichever the app may have; see `workflow_now`."""
    return _rebuilt(app, queue, mode, order)


def _rebuilt(
    app: App, queue: TaskQueue | None, mode: str | None, order: Sequence[str] | None
) -> WorkflowMode:
    workflow = app if isinstance(app, WorkflowMode) else WorkflowMode(app)
    workflow.conductor.task_queue = None  # this process uses no queue but the one it was told
    make = partial(
        WorkflowMode,
        workflow.conductor,
        "sync" if queue is None else "async",
        queue,
        max_concurrent=workflow.max_concurrent,
        poll_interval=workflow.poll_interval,
        check_payloads=workflow.check_payloads,
    )
    own = workflow.orchestrator
    if mode is None and order is None:
        return make(mode=workflow.mode, orchestrator=own)
    if not isinstance(own, GraphOrchestrator):
        raise UsageError("--mode and --order are for jotty's own orchestrator, and this app has another.")
    try:
        return make(mode=mode or "static", agent_order=order)
    except ValueError as wrong:
        raise UsageError(str(wrong)) from wrong
