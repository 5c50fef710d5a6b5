"""How an actor's output becomes JSON and comes back as it was: by what the actor is annotated to return."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import encode
from jotty.core.queue.payload import MAX_DEPTH, decode, dumps
from jotty.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .annotation import Returned
    from .reading import Variants
    from .shape import Slot

__all__ = ["Codec", "codec_of", "codec_of_any"]

SINGLE: Final = frozenset({type(None), bool, int, float, str})
HINT = (
    "Return JSON (of a model, its model_dump(mode='json')), or annotate the function with what it returns: "
    "dataclasses, attrs classes, models, tuples, sets, dates and the like then come back as they were."
)


HINT_WITHIN = (
    "Annotate what holds it (a field, say, or a list's items) with its own type, or put JSON there; "
    "in a dataclass or attrs class, too, a field that is not annotated so is JSON."
)


def codec_of(call: Callable[..., Any], actor_name: str, *, step: str | None = None) -> Codec:
    """Return the codec of an actor's output; its annotation is read when the first value passes.

    So this is cheap, never raises, and names may be annotated that are defined further below.

    Args:
        call: What is called in the end: a function, method, partial or callable object.
        actor_name: How errors name the actor.
        step: The key of the step of that actor whose output it is, if it is one's.
    """
    return Codec(call, f"actor {actor_name!r}" if step is None else f"actor {actor_name!r}, step {step!r}")


def codec_of_any(codecs: Sequence[Codec], actor_name: str) -> Codec:
    """Return the codec of what one of these makes of a value, or several of them in a dict by name.

    Args:
        codecs: Those of who may have made it.
        actor_name: How errors name who hands it on.
    """
    return Codec(_anything, f"actor {actor_name!r}", codecs)


def _anything() -> Any: ...


class Codec:
    """Makes JSON of the outputs of one actor, and the outputs of it again, equal to what they were.

    Without an annotation, or with one that is JSON, that is strict JSON as the queue has it. Else:

    - tuples, sets and frozensets, and dicts whose keys are no strings, are lists; a set's is sorted, so
      that equal sets have equal JSON;
    - dataclasses, attrs classes and NamedTuples are dicts of their fields. Those with `init=False` are made
      anew, and are kept only where that gives another value; a converter is not asked again;
    - an Enum's member is its name, a Flag its number; a timedelta is `[days, seconds, microseconds]`; bytes
      are base64; datetimes, times, dates, UUIDs, Decimals and Paths are strings. A `ZoneInfo` is kept;
    - objects with `model_dump` and `model_validate` are what the first of these gives.

    In a union the value's exact class decides, and among several of one class (`list[date] | list[UUID]`)
    the first that fits. It is tagged, `{"$type": "Report", "value": ...}`, only where its JSON would not
    tell it apart: where two members are kept as dicts, say, or a `date` stands beside a `str`. JSON that is
    there against the annotation passes as well, tagged with null if it might be taken for what is annotated.
    """

    def __init__(self, call: Callable[..., Any], maker: str, parts: Sequence[Codec] = ()) -> None:
        self._call = call
        self._maker = maker
        self._path = f"the output of {maker}: it"
        self._parts = parts

    def dump(self, value: Any, limit: int | None = None) -> bytes:
        """Return the value's JSON in UTF-8, as the queue would encode it.

        Args:
            value: What the actor returned.
            limit: The most bytes that it may have; None for no bound.

        Raises:
            PayloadError: It does not fit the annotation and is no strict JSON either, or is too long;
                names the actor and the path within its output.
        """
        slot, path = self._slot, self._path
        if slot is None:
            try:
                return encode(value, path, limit=limit)
            except PayloadError as error:
                from .shape import holds_objects

                if error.is_too_large or not holds_objects(value):
                    raise
                raise PayloadError(error.path, self._hinted(error.problem)) from None
        return encode(self._shaped(slot, value, path), path, limit=limit)

    def kept(self, value: Any, limit: int | None = None) -> tuple[bytes, Any]:
        """Return the value's JSON, and what `load` makes of that.

        Args:
            value: What the actor returned.
            limit: The most bytes that its JSON may have; None for no bound.

        Raises:
            PayloadError: As `dump`.
        """
        data = self.dump(value, limit)
        # a single value of JSON's comes back as itself, and there is nothing in it to share
        return data, value if type(value) in SINGLE and self._slot is None else self.load(data)

    def load(self, data: bytes) -> Any:
        """Return the value that was dumped: a fresh one, which shares nothing with any other.

        Raises:
            PayloadError: What is stored does not fit the annotation, which must have changed since.
        """
        return self._restored(decode(data))

    def encode(self, value: Any) -> Any:
        """Return the value as JSON that shares nothing with it.

        Raises:
            PayloadError: As `dump`.
        """
        return decode(self.dump(value))

    def decode(self, data: Any) -> Any:
        """Return the value that was encoded; it shares nothing with its JSON.

        Raises:
            PayloadError: As `load`.
        """
        return self.load(dumps(data))

    @cached_property
    def _returned(self) -> Returned:
        from .annotation import read_return

        return read_return(self._call)

    @cached_property
    def _variants(self) -> Variants:
        from .reading import either, variants_of

        if self._parts:
            return either(part._variants for part in self._parts)  # noqa: SLF001 - its own kind
        return variants_of(self._returned)

    @cached_property
    def _slot(self) -> Slot | None:
        """What the output fits in; None where that is JSON."""
        from .shape import Plain

        slot = self._variants.slot()
        return None if isinstance(slot, Plain) else slot

    @property
    def _unknown(self) -> set[str]:
        """The names in the annotations that mean nothing at run time."""
        if self._parts:
            return {name for part in self._parts for name in part._unknown}  # noqa: SLF001 - as above
        return self._returned.unknown

    def _hinted(self, problem: str, hint: str = HINT) -> str:
        """Put a better remedy in the place of the one that JSON alone has."""
        if self._unknown:
            names = ", ".join(repr(name) for name in sorted(self._unknown))
            hint = (
                f"Its annotation names {names}, which is not there at run time: "
                "import that outside of `if TYPE_CHECKING`, or define it at the top of the module."
            )
        what = problem.partition(". ")[0].removesuffix(".")
        return f"{what}. {hint}"

    def _shaped(self, slot: Slot, value: Any, path: str) -> Any:
        from .shape import Misfit

        try:
            return slot.encode(value)
        except Misfit as misfit:
            path += "".join(reversed(misfit.where))
            problem = misfit.problem
            if misfit.is_foreign:
                problem = self._hinted(problem, HINT_WITHIN if misfit.where else HINT)
            raise PayloadError(path, problem) from misfit.__cause__
        except RecursionError:
            problem = f"is nested more than {MAX_DEPTH} levels deep, or contains itself."
            raise PayloadError(path, problem) from None

    def _restored(self, data: Any) -> Any:
        if self._slot is None:
            return data
        try:
            return self._slot.decode(data)
        except Exception as exc:
            problem = (
                f"does not fit what is annotated: {type(exc).__name__}: {exc}. "
                "Give the actor another version= when its type changes."
            )
            raise PayloadError(f"the stored output of {self._maker}", problem) from exc
