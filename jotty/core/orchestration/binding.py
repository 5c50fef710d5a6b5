"""How parameters get their values: planned once for a graph, carried out for each execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.errors import GraphError

from .signature import Parameter, derived

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .actor import AnyActor
    from .signature import Signature

__all__ = ["RESERVED", "Absent", "Names", "Plan", "bind", "make_plan"]

RESERVED = ("ctx", "goal", "history")
NO_INPUTS: Mapping[str, Any] = {}


def listed(names: Iterable[str]) -> str:
    """Put names in a row, for an error."""
    return ", ".join(names) or "none"


def among(wanted: object, known: Iterable[str]) -> str:
    """Say, for an error about a name that there is not, what names there are, and which is like it."""
    names = list(known)
    return f"There are: {listed(names)}.{guess(wanted, names)}"


def guess(wanted: object, known: Iterable[str]) -> str:
    """Say which of these names may have been meant, after a blank; nothing if none is like it."""
    from difflib import get_close_matches

    close = get_close_matches(wanted, sorted(known), n=1) if isinstance(wanted, str) else ()
    return f" Did you mean {close[0]!r}?" if close else ""


@attrs.frozen
class Names:
    """Every name that a parameter may be bound to, by where it comes from.

    Attributes:
        actors: The names of the actors.
        resources: The names of the resources.
        context: The keys of the context, or None where they are not known yet: then any may be one.
    """

    actors: frozenset[str]
    resources: frozenset[str]
    context: frozenset[str] | None

    def check(self) -> None:
        """Refuse a name that stands for two things.

        Raises:
            GraphError: There is one.
        """
        sources = {
            "a reserved name": frozenset(RESERVED),
            "an actor": self.actors,
            "a resource": self.resources,
            "a context key": self.context or frozenset(),
        }
        if len(frozenset().union(*sources.values())) == sum(map(len, sources.values())):
            return
        owners: dict[str, str] = {}
        for source, names in sources.items():
            for name in sorted(names):
                if name in owners:
                    raise GraphError(
                        f"{name!r} is {owners[name]} and {source} at once.", "Rename one of them."
                    )
                owners[name] = source

    def __str__(self) -> str:
        context = "any" if self.context is None else listed(sorted(self.context))
        return (
            f"actors {listed(sorted(self.actors))}; context {context}; "
            f"resources {listed(sorted(self.resources))}; reserved {listed(RESERVED)}"
        )


@attrs.frozen
class Plan:
    """Where each parameter of one node gets its value from.

    Attributes:
        given: (parameter, name) of what is there when the run starts.
        outputs: (parameter, node, required) of what other nodes make.
        own: The parameter that gets the actor's own previous output, and the actor's name.
        context: The parameter that gets the ActorContext.
        more_given: Names of the context that go into `**inputs`.
        more_outputs: (parameter, node) of outputs that go into `**inputs`.
        positional: The parameters that can only be passed by position.
        open: Required parameters that only the inputs of a Goto can supply.
        accepts: The names such inputs may have; None for any.
        is_named: Whether all is passed by name, and no ActorContext (derived).
        is_simple: Whether only what is given and outputs are bound (derived).
    """

    given: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str, bool], ...]
    own: tuple[str, str] | None
    context: str | None
    more_given: tuple[str, ...]
    more_outputs: tuple[tuple[str, str], ...]
    positional: tuple[Parameter, ...]
    open: tuple[str, ...]
    accepts: frozenset[str] | None
    is_named: bool = derived(lambda plan: plan.context is None and not plan.positional)
    is_simple: bool = derived(
        lambda plan: not (plan.own or plan.open or plan.more_given or plan.more_outputs)
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes whose outputs are bound, each once."""
        return tuple(dict.fromkeys([node for _, node, _ in self.outputs]))


@attrs.frozen
class Absent:
    """Why a node can't run: a required output is not there, and never will be in this round.

    Attributes:
        name: The node whose output is missing, or the parameter that nothing supplied.
    """

    name: str


class _Planner:
    """Finds a source for each parameter of one signature."""

    def __init__(
        self,
        actor: AnyActor,
        signature: Signature,
        names: Names,
        nodes: Mapping[str, str],
        *,
        may_be_open: bool,
    ) -> None:
        self.may_be_open = may_be_open
        self.actor = actor
        self.signature = signature
        self.names = names
        self.nodes = nodes
        self.given: list[tuple[str, str]] = []
        self.outputs: list[tuple[str, str, bool]] = []
        self.own: tuple[str, str] | None = None
        self.context: str | None = None
        self.open: list[str] = []

    def place(self, parameter: Parameter) -> None:
        """Find where this parameter gets its value from.

        Raises:
            GraphError: From nowhere, and it needs one.
        """
        name, source = parameter.name, self.actor.bind.get(parameter.name, parameter.name)
        if source == self.actor.name:
            self._place_own(parameter)
        elif source == "ctx":
            self.context = name
        elif source in self.names.actors:
            self._place_output(parameter, source)
        elif source in RESERVED or source in self.names.resources or self._in_context(source, parameter):
            self.given.append((name, source))
        elif parameter.required:
            self._leave_open(parameter, source)

    def _in_context(self, source: str, parameter: Parameter) -> bool:
        if self.names.context is None:
            return parameter.required
        return source in self.names.context

    def _place_own(self, parameter: Parameter) -> None:
        if parameter.required:
            raise GraphError(
                f"{self._where(parameter)} is the actor's own previous output, which the first run has not.",
                "Give it a default.",
            )
        self.own = (parameter.name, self.actor.name)

    def _place_output(self, parameter: Parameter, source: str) -> None:
        if source in self.nodes:
            self.outputs.append((parameter.name, self.nodes[source], parameter.required))
        elif parameter.required:
            raise GraphError(
                f"{self._where(parameter)} needs the output of {source!r}, which is not in agent_order.",
                "Add it, or give the parameter a default.",
            )

    def _leave_open(self, parameter: Parameter, source: str) -> None:
        if self.may_be_open:
            self.open.append(parameter.name)
            return
        as_what = "" if source == parameter.name else f" (bound to {source!r})"
        raise GraphError(
            f"{self._where(parameter)}{as_what} can't be bound. "
            f"There are: {self.names}.{self._guess(source)}",
            "Pass it in the context, rename it with bind=, or give it a default. "
            "Is the actor only to be spawned, called or mapped? Give it on_demand=True, or leave it out.",
        )

    def _guess(self, source: str) -> str:
        known = {*self.names.actors, *self.names.resources, *(self.names.context or ()), *RESERVED}
        return guess(source, known)

    def _where(self, parameter: Parameter) -> str:
        return f"The parameter {parameter.name!r} of actor {self.actor.name!r}"

    def plan(self) -> Plan:
        """Put together what was found."""
        signature = self.signature
        more_given, more_outputs = self._more() if signature.takes_more else ((), ())
        return Plan(
            given=tuple(self.given),
            outputs=tuple(self.outputs),
            own=self.own,
            context=self.context,
            more_given=more_given,
            more_outputs=more_outputs,
            positional=signature.positional,
            open=tuple(self.open),
            accepts=None if signature.takes_more else signature.names,
        )

    def _more(self) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Collect for `**inputs`: the context and the outputs of depends_on, each unless bound."""
        taken = {*self.signature.names, *(source for _, source in self.given)}
        given = tuple(sorted(name for name in self.names.context or () if name not in taken))
        bound = {node for _, node, _ in self.outputs}
        outputs = {name: self.nodes[name] for name in self.actor.depends_on if name in self.nodes}
        return given, tuple(
            (name, node) for name, node in outputs.items() if name not in taken and node not in bound
        )


def make_plan(
    actor: AnyActor,
    signature: Signature,
    names: Names,
    nodes: Mapping[str, str],
    *,
    may_be_open: bool = False,
    of_when: bool = False,
) -> Plan:
    """Plan how to bind a signature of an actor, its own or that of its `when`.

    Args:
        actor: The actor, for its name and its renames.
        signature: What is wanted.
        names: What there is.
        nodes: By name of an actor, the node whose output stands for it.
        may_be_open: Whether required parameters may be left to the inputs of a Goto.
        of_when: Whether this is the signature of `when`.

    Raises:
        GraphError: A parameter can't be bound.
    """
    planner = _Planner(actor, signature, names, nodes, may_be_open=may_be_open)
    for parameter in signature.parameters:
        planner.place(parameter)
    for name, source in actor.bind.items() if signature.takes_more and not of_when else ():
        if name not in signature.names:
            planner.place(_extra(name, source, names))
    if of_when and planner.context:
        raise GraphError(
            f"when of actor {actor.name!r} wants {planner.context!r}, which it can't get.",
            "It may bind the goal, the history, the context, resources and outputs.",
        )
    return planner.plan()


def _extra(name: str, source: str, names: Names) -> Parameter:
    """Return a parameter that `**inputs` takes; an output may be absent, anything else must be there."""
    return Parameter(name, default=None) if source in names.actors else Parameter(name)


def bind(
    plan: Plan,
    given: Mapping[str, Any],
    outputs: Mapping[str, Any],
    previous: Mapping[str, Any],
    inputs: Mapping[str, Any] = NO_INPUTS,
) -> dict[str, Any] | Absent:
    """Carry out a plan; everything but the ActorContext is put in its place.

    Args:
        plan: Where each parameter gets its value from.
        given: The goal, the history, the context and the resources, by name.
        outputs: The outputs that there are, by node.
        previous: The last output of each actor, by its name.
        inputs: Those of a Goto, which win.

    Returns:
        The arguments by parameter, or what is missing.
    """
    arguments = {parameter: given[name] for parameter, name in plan.given}
    for parameter, node, required in plan.outputs:
        if node in outputs:
            arguments[parameter] = outputs[node]
        elif required and parameter not in inputs:
            return Absent(node)
    if plan.more_given or plan.more_outputs:
        arguments.update((name, given[name]) for name in plan.more_given)
        arguments.update((name, outputs[node]) for name, node in plan.more_outputs if node in outputs)
    if plan.own is not None and plan.own[1] in previous:
        arguments[plan.own[0]] = previous[plan.own[1]]
    if inputs:
        arguments.update(inputs)
    if plan.open:
        missing = [name for name in plan.open if name not in arguments]
        return Absent(missing[0]) if missing else arguments
    return arguments


def split_positional(plan: Plan, arguments: dict[str, Any]) -> list[Any]:
    """Take those arguments out that can only be passed by position, in their order."""
    return [arguments.pop(each.name, each.default) for each in plan.positional]
