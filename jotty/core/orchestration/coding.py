"""Which codec each actor's output passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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

    def _make(self, actor: AnyActor) -> Codec:
        if actor.kind is not ActorKind.GRAPH:
            return codec_of(actor.target, actor.name)
        conductor: Any = actor.call
        graph = conductor.graph()
        makers = [self.of(graph.nodes[name].actor) for name in graph.output_nodes(conductor.output)]
        return makers[0] if len(makers) == 1 else codec_of_any(makers, actor.name)
