"""Which codec each actor's output passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from jotty.core.queue import check_json
from jotty.errors import PayloadError

from .codec import Codec, codec_of, codec_of_any
from .signature import ActorKind

if TYPE_CHECKING:
    from .actor import AnyActor

__all__ = ["Codecs"]


class Codecs:
    """The codecs of actors, each made once."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[AnyActor, Codec] = WeakKeyDictionary()

    def of(self, actor: AnyActor) -> Codec:
        """Return an actor's codec.

        That of a conductor is the codec of the one actor that makes its output; if several may, it takes the
        output of any, and a dict of several by name.
        """
        found = self._made.get(actor)
        if found is None:
            found = self._made[actor] = self._make(actor)
        return found

    def supplied(self, name: str, actor: AnyActor, value: Any) -> Any:
        """Return the JSON of an output that somebody supplies, who may have it as JSON already.

        Args:
            name: The node.
            actor: Its actor.
            value: What the actor might return, or what a result has of that.

        Raises:
            PayloadError: It is neither; names it as one of `outputs`.
        """
        codec = self.of(actor)
        try:
            check_json(value)
            codec.decode(value)
        except PayloadError:
            pass  # an object, or JSON that does not fit the annotation, as an actor might return it
        else:
            return value
        try:
            return codec.encode(value)
        except PayloadError as error:
            inside = error.path.partition(": it")[2]
            raise PayloadError(f"outputs[{name!r}]{inside}", error.problem) from None

    def _make(self, actor: AnyActor) -> Codec:
        if actor.kind is not ActorKind.GRAPH:
            return codec_of(actor.target, actor.name)
        conductor: Any = actor.call
        graph = conductor.graph()
        makers = [self.of(graph.nodes[name].actor) for name in graph.output_nodes(conductor.output)]
        return makers[0] if len(makers) == 1 else codec_of_any(makers, actor.name)
