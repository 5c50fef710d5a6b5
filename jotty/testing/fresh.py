"""Fresh stores of the kind that a URL names, to be tried: never the one that it names itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, unquote
from uuid import uuid4

import attrs

from jotty.core.queue import load_backend, open_queue

if TYPE_CHECKING:
    from jotty.core.queue import QueueBackend

    from .clock import VirtualClock

__all__ = ["FreshStores", "Opener"]

ROOT: Final = "///"  # after it, a path follows


@attrs.frozen
class Opener:
    """Opens one store again and again, each time as another handle.

    Attributes:
        url: The store.
        clock: The time of all the handles.
    """

    url: str
    clock: VirtualClock
    _first: list[QueueBackend] = attrs.field(factory=list, init=False)

    def __call__(self) -> QueueBackend:
        """Return another handle, not yet open."""
        backend = open_queue(self.url, clock=self.clock).backend
        self._first[1:] = []
        self._first.append(backend)  # a store in memory lives as long as a handle on it
        return backend


@attrs.frozen(kw_only=True)
class FreshStores:
    """Where fresh stores are made.

    Attributes:
        scheme: The backend's name.
        location: As in the URL that was given.
        query: The options, which every store gets.
        directory: For stores that are a path, the one below which they are made; None for the system's own.
    """

    scheme: str
    location: str
    query: str
    directory: Path | None

    @classmethod
    def beside(cls, url: str) -> Self:
        """Take a URL apart.

        A path's stores are made beside it, or below it if it ends with a slash, each in a directory of its
        own; without one, in the system's directory for temporary files. Elsewhere `{}` stands for the name
        of a store; a location without slashes is itself the beginning of a name, as in `memory:`.

        Raises:
            BackendNotFound, BackendConflict, BackendBroken, MissingDependency: As `load_backend`.
            ValueError: It is no URL of the backend, there is no place for a fresh store in it, or the
                directory is not there.
        """
        scheme, colon, rest = url.partition(":")
        if not colon:
            raise ValueError(f"A queue's URL is like 'sqlite:///tasks.db' or 'memory:', not {url!r}.")
        location, _, query = rest.partition("?")
        if not location and "files" in load_backend(scheme).capabilities:
            location = ROOT
            url = f"{scheme}:{ROOT}store?{query}"
        open_queue(url.replace("{}", "store"))  # which makes a handle, or says what is wrong
        directory = None
        if location.startswith(ROOT) and (path := unquote(location.removeprefix(ROOT))):
            directory = Path(path) if path.endswith("/") else Path(path).parent
            if not directory.is_dir():
                raise ValueError(f"{str(directory)!r} is no directory; fresh stores would be made below it.")
        elif "/" in location and location != ROOT and "{}" not in rest:
            raise ValueError(
                f"Where does the name of a fresh store go in {scheme}:...? Put {{}} there. "
                "Or was a path meant? Three slashes make a path relative, four absolute."
            )
        return cls(scheme=scheme, location=location, query=query, directory=directory)

    def opener(self, clock: VirtualClock, store_directory: Path) -> Opener:
        """Return what opens a store that is not there yet; a path is taken below the directory given."""
        query = f"?{self.query}" if self.query else ""
        if self.location.startswith(ROOT):
            path = store_directory / (Path(unquote(self.location)).name or "store")
            return Opener(f"{self.scheme}:{ROOT}{quote(str(path))}{query}", clock)
        name = f"conformance-{uuid4().hex}"
        if "{}" in self.location + query:
            return Opener(f"{self.scheme}:{self.location}{query}".replace("{}", name), clock)
        return Opener(f"{self.scheme}:{self.location}{name}{query}", clock)
