"""Where a value may stand, and what shape its JSON has there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import attrs

from jotty.core.queue import check_json
from jotty.core.queue.payload import MAX_DEPTH
from jotty.errors import PayloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "JSON_KINDS",
    "Choice",
    "Kinds",
    "Misfit",
    "Plain",
    "Shape",
    "Slot",
    "checked",
    "holds_objects",
]

Kinds: TypeAlias = frozenset[type]
JSON_KINDS: Final[Kinds] = frozenset({type(None), bool, int, float, str, list, dict})
TAG: Final = "$type"
TAGGED: Final = frozenset({TAG, "value"})


class Misfit(Exception):
    """A value cannot be made JSON.

    Attributes:
        problem: What is wrong, after the path.
        where: The steps to it, innermost first.
        is_foreign: Whether another annotation could help.
    """

    def __init__(self, problem: str, *where: str, is_foreign: bool = False) -> None:
        self.problem = problem
        self.where = list(where)
        self.is_foreign = is_foreign
        super().__init__(problem)


class Slot(Protocol):
    """A place for values, as one annotation describes it."""

    def encode(self, value: Any) -> Any:
        """Return strict JSON, which may share parts with the value.

        Raises:
            Misfit: The value fits in no way.
        """
        ...

    def decode(self, data: Any) -> Any:
        """Return the value, which may share parts with its JSON; raises anything if it is not such JSON."""
        ...


class Shape(Protocol):
    """The JSON of the values of one class.

    Attributes:
        name: Tells it apart in a tag.
        kind: The class that its values have, exactly.
        form: The kind of JSON that it usually makes.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see Attributes

    @property
    def kind(self) -> type: ...  # noqa: D102 - see Attributes

    @property
    def form(self) -> type: ...  # noqa: D102 - see Attributes

    def encode(self, value: Any) -> Any:
        """Return the JSON of a value of this kind.

        Raises:
            Misfit: Something in it fits nowhere.
        """
        ...

    def decode(self, data: Any) -> Any:
        """Return the value; raises anything if that is not its JSON."""
        ...


def checked(value: Any) -> Any:
    """Return a value that is strict JSON.

    Raises:
        Misfit: It is not.
    """
    try:
        check_json(value, "")
    except PayloadError as error:
        raise Misfit(error.problem, error.path, is_foreign=holds_objects(value)) from None
    return value


def holds_objects(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Tell whether there is something in it that is no JSON of any kind, so that an annotation could help."""
    kind = type(value)
    if kind is list or kind is dict:
        if kind is dict and any(type(key) is not str for key in value):
            return True
        items = value.values() if kind is dict else value
        return depth > 0 and any(holds_objects(item, depth - 1) for item in items)
    return kind not in JSON_KINDS


@attrs.frozen
class Plain:
    """A place for JSON, whatever of it is really there.

    Attributes:
        kinds: The kinds of JSON that are annotated.
    """

    kinds: Kinds

    def encode(self, value: Any) -> Any:
        """Return the value itself, if it is strict JSON."""
        return checked(value)

    def decode(self, data: Any) -> Any:
        """Return the JSON itself."""
        return data


class Choice:
    """A place for values of certain shapes, and for JSON.

    A shape needs no tag if no other one has its form, and no JSON of that form is annotated.

    Args:
        kinds: The kinds of JSON that are annotated beside.
        shapes: The shapes.
    """

    def __init__(self, kinds: Kinds, shapes: Iterable[Shape]) -> None:
        self._kinds = kinds
        self._by_name = _named(shapes)
        self._names = {shape: name for name, shape in self._by_name.items()}
        self._by_kind: dict[type, list[Shape]] = {}
        for shape in self._names:
            self._by_kind.setdefault(shape.kind, []).append(shape)
        forms = [shape.form for shape in self._names]
        self._bare: Mapping[type, Shape] = {
            shape.form: shape
            for shape in self._names
            if forms.count(shape.form) == 1 and shape.form not in kinds
        }

    def encode(self, value: Any) -> Any:
        """Return the JSON of a value, tagged if it must be."""
        shapes = self._by_kind.get(type(value), ())
        if not shapes or type(value) in self._kinds:
            try:
                return self._as_json(value)
            except Misfit as misfit:
                if not shapes:
                    raise self._stranger(value, misfit) from None
        for shape in shapes[:-1]:
            try:
                return self._as_shape(value, shape)
            except Misfit:
                continue
        return self._as_shape(value, shapes[-1])

    def decode(self, data: Any) -> Any:
        """Return the value of a JSON."""
        if not _is_tagged(data):
            shape = self._bare.get(type(data))
            return data if shape is None else shape.decode(data)
        tag, inner = data[TAG], data["value"]
        return inner if tag is None else self._by_name[tag].decode(inner)

    def _as_json(self, value: Any) -> Any:
        checked(value)
        if type(value) in self._bare or _is_tagged(value):
            return {TAG: None, "value": value}
        return value

    def _as_shape(self, value: Any, shape: Shape) -> Any:
        data = shape.encode(value)
        if self._bare.get(type(data)) is shape and not _is_tagged(data):
            return data
        return {TAG: self._names[shape], "value": data}

    def _stranger(self, value: Any, misfit: Misfit) -> Misfit:
        if type(value) in JSON_KINDS:
            return misfit
        found, meant = type(value).__qualname__, " | ".join(self._by_name)
        return Misfit(
            f"is of type {found}, neither JSON nor what is annotated ({meant}). Annotate {found}, too, "
            "if it is a type that can be stored, or return JSON."
        )


def _named(shapes: Iterable[Shape]) -> dict[str, Shape]:
    """Give each shape a name of its own: its module's and a number are added only where they must be."""
    found: dict[str, Shape] = {}
    for shape in dict.fromkeys(shapes):
        name = shape.name if shape.name not in found else f"{shape.kind.__module__}.{shape.name}"
        number = 2
        while name in found:
            name, number = f"{shape.name}#{number}", number + 1
        found[name] = shape
    return found


def _is_tagged(data: Any) -> bool:
    return type(data) is dict and data.keys() == TAGGED
