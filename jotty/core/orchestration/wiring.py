"""How an actor is tied into a graph: what each of its parameters gets, and whom it follows for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from jotty.errors import GraphError

from .binding import RESERVED, Names, Plan, among, listed, make_plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .actor import AnyActor

__all__ = ["Wiring", "check_known", "foresee", "sources_of", "wire"]

NOTHING: Final[frozenset[str]] = frozenset()


@attrs.frozen(eq=False)
class Wiring:
    """How one actor is tied into a graph.

    Attributes:
        plan: How its parameters are bound.
        when: How the parameters of its `when` are bound, if it has one.
        needs: The nodes that must be settled before it in dynamic mode.
        takes_more: Whether it takes whatever is in the context.
    """

    plan: Plan
    when: Plan | None
    needs: frozenset[str]
    takes_more: bool


def wire(actor: AnyActor, names: Names, nodes: Mapping[str, str], *, may_be_open: bool = False) -> Wiring:
    """Find out how an actor is tied into a graph.

    Args:
        actor: The actor.
        names: What there is.
        nodes: By name of an actor, the node whose output stands for it.
        may_be_open: Whether required parameters may be left to the inputs of a Goto.

    Raises:
        GraphError: A parameter can't be bound, or an unknown actor or parameter is named.
    """
    check_known(f"depends_on of actor {actor.name!r}", actor.depends_on, names.actors)
    _check_renames(actor)
    plan = make_plan(actor, actor.signature, names, nodes, may_be_open=may_be_open)
    wanted = actor.when_signature
    when = None if wanted is None else make_plan(actor, wanted, names, nodes, of_when=True)
    needs = [*plan.sources, *(when.sources if when else ()), *actor.depends_on]
    takes_more = plan.accepts is None or (when is not None and when.accepts is None)
    return Wiring(plan, when, frozenset(needs), takes_more)


def foresee(actor: AnyActor) -> Wiring | None:
    """Wire an actor for any dynamic graph that has all it needs, and nothing in the context for `**inputs`.

    Returns:
        That, or None if there is no such graph; it is not refused yet, since nobody may ask for one.
    """
    needed = frozenset([*sources_of(actor), *actor.depends_on]).difference(RESERVED)
    try:
        return wire(actor, Names(needed, NOTHING, NOTHING), dict(zip(needed, needed, strict=True)))
    except GraphError:
        return None


def sources_of(actor: AnyActor) -> list[str]:
    """Return the name of what each parameter of an actor is bound to, then each of its `when`."""
    bind, when = actor.bind, actor.when_signature
    wanted = actor.signature.parameters if when is None else actor.signature.parameters + when.parameters
    return [bind.get(each.name, each.name) for each in wanted]


def check_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse a name that no actor has.

    Raises:
        GraphError: There is one; `what` says where.
    """
    for name in names:
        if name not in known:
            raise GraphError(f"{what} names {name!r}, which is no actor here. {among(name, known)}")


def _check_renames(actor: AnyActor) -> None:
    if not actor.bind or actor.signature.takes_more:
        return
    when = actor.when_signature
    wanted = actor.signature.names if when is None else actor.signature.names | when.names
    unknown = [name for name in actor.bind if name not in wanted]
    if unknown:
        raise GraphError(
            f"bind of actor {actor.name!r} renames {unknown[0]!r}, which it does not take. "
            f"It takes: {listed(sorted(wanted))}."
        )
