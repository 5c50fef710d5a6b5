"""Which codec each actor's output passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .codec import Codec, codec_of
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

        That of a conductor is the codec of the one actor that makes its output; if several may, it is that
        of plain JSON.
        """
        found = self._made.get(actor)
        if found is None:
            found = self._made[actor] = self._make(actor)
        return found

    def _make(self, actor: AnyActor) -> Codec:
        if actor.kind is not ActorKind.GRAPH:
            return codec_of(actor.target, actor.name)
        conductor: Any = actor.call
        graph = conductor.graph()
        makers = graph.output_nodes(conductor.output)
        return self.of(graph.nodes[makers[0]].actor) if len(makers) == 1 else codec_of(_anything, actor.name)


def _anything() -> Any: ...
