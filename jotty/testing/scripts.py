"""Actors whose outputs a test has written down beforehand."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import Parameter, Signature, isawaitable
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.orchestration import WorkflowMode
from jotty.core.orchestration.actor import Actor, actor
from jotty.core.orchestration.attempt import iterated
from jotty.core.orchestration.signature import ActorKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from jotty.core.orchestration import ActorContext, Conductor
    from jotty.core.orchestration.actor import AnyActor

__all__ = ["Raising", "Returning", "StandIn", "UnscriptedCall", "raising", "replace_actor", "returning"]

_REST: Final = "inputs"


class UnscriptedCall(AssertionError):
    """An actor was called more often than its script has answers.

    Attributes:
        actor: The actor's name.
        answers: How many there were.
    """

    def __init__(self, actor: str, answers: int) -> None:
        self.actor = actor
        self.answers = answers
        many = f"{answers} answer{'' if answers == 1 else 's'}"
        super().__init__(
            f"The script has {many} for {actor!r}, which was called once more. "
            "Add one, or give a single answer instead of a list: it holds for every call."
        )


@attrs.frozen
class Raising:
    """An answer that is raised; see `raising`.

    Attributes:
        error: An exception, or the class of one.
    """

    error: BaseException | type[BaseException]


@attrs.frozen
class Returning:
    """An answer that is returned whatever it is; see `returning`.

    Attributes:
        value: The answer.
    """

    value: Any


def raising(error: BaseException | type[BaseException]) -> Raising:
    """Return the answer of an actor that fails: an attempt that raises this.

    The actor's own retries follow, each of which is another call.
    """
    return Raising(error)


def returning(value: Any) -> Returning:
    """Return the answer of an actor whose output is this: a list, say, a function or an exception.

    Anything else may stand in a script as it is.
    """
    return Returning(value)


class StandIn:
    """Takes the place of an actor, and answers as its script says.

    It follows the same actors as the true one, with the same retries, timeout and condition.

    Args:
        true: The actor.
        script: A list, of which each call (each attempt is one) takes the next; or one answer for every
            call. An answer is an output, a Goto or an End; an exception, or `raising(...)`; a function or
            agent, which is called with those of the actor's arguments that it asks for, and with whatever
            else it asks for by name. `returning(...)` is for outputs that would be taken for one of these.

    Attributes:
        actor: What to put in the true actor's place.
        calls: The arguments of each call so far, by parameter; without the ActorContext.
        problem: What there is to say of the script, once it has not sufficed.
    """

    def __init__(self, true: AnyActor, script: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self.problem: UnscriptedCall | None = None
        self._name = true.name
        self._is_list = isinstance(script, list)
        self._answers = [self._answer(each) for each in (script if self._is_list else [script])]
        asked = [each.signature for each in self._answers if isinstance(each, Actor)]
        self._context = next((name for name, source in true.bind.items() if source == "ctx"), "ctx")
        self._signature = _signature_of(true, asked, self._context)
        self.actor: AnyActor = attrs.evolve(true, call=self._as_function(), prompt=None)

    def _answer(self, given: Any) -> Any:
        """Return an answer with its functions made actors, and all else Raising or Returning."""
        is_error = isinstance(given, type) and issubclass(given, BaseException)
        if isinstance(given, BaseException) or is_error:
            return Raising(given)
        if isinstance(given, (Raising, Returning, Actor)):
            return given
        if callable(given) or callable(getattr(given, "run", None)):
            return actor(given, name=self._name)
        return Returning(given)

    def _as_function(self) -> Any:
        async def stand_in(**inputs: Any) -> Any:
            return await self._called(inputs.pop(self._context), inputs)

        vars(stand_in)["__signature__"] = self._signature
        return stand_in

    async def _called(self, ctx: ActorContext, inputs: dict[str, Any]) -> Any:
        number = len(self.calls) if self._is_list else 0
        self.calls.append(inputs)
        if number >= len(self._answers):
            self.problem = UnscriptedCall(self._name, len(self._answers))
            raise self.problem
        answer = self._answers[number]
        if isinstance(answer, Raising):
            raise answer.error
        if isinstance(answer, Returning):
            return answer.value
        return await _called(answer, {**inputs, "ctx": ctx}, ctx)


async def _called(fake: AnyActor, inputs: Mapping[str, Any], ctx: ActorContext) -> Any:
    """Call a function with what it asks for, as a run would; a plain one without a thread."""
    wanted = fake.signature
    positional = [inputs.get(each.name, each.default) for each in wanted.parameters if each.positional]
    by_position = {each.name for each in wanted.parameters if each.positional}
    named = {
        name: value
        for name, value in inputs.items()
        if name not in by_position and (name in wanted.names or (wanted.takes_more and name != "ctx"))
    }
    value = fake.invoke(*positional, **named)
    if fake.kind is ActorKind.STREAM:
        return await iterated(value, ctx)
    return await value if isawaitable(value) else value


def _signature_of(true: AnyActor, asked: Iterable[Any], context: str) -> Signature:
    """Return the parameters of an actor, and those that its fakes ask for besides."""
    found = {each.name: each.default for each in true.signature.parameters}
    for signature in asked:
        for each in signature.parameters:
            found.setdefault(each.name, each.default)
    found.setdefault(context, Parameter.empty)
    if context != "ctx":
        found.pop("ctx", None)
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=each) for name, each in found.items()]
    if true.signature.takes_more:
        parameters.append(Parameter(_REST, Parameter.VAR_KEYWORD))
    return Signature(parameters)


@contextmanager
def replace_actor(
    workflow: Conductor | WorkflowMode, actor: AnyActor | str, script: Any
) -> Iterator[StandIn]:
    """Put a stand-in in an actor's place, and the actor back at the end.

    Runs that begin meanwhile have it, in this process.

    Args:
        workflow: A conductor, or a workflow, whose conductor is meant.
        actor: The actor, or its name.
        script: What it answers; see `StandIn`.

    Raises:
        LookupError: There is no such actor; lists those that there are.
        UnscriptedCall: At the end: it was called more often than the script has answers.
    """
    conductor = workflow.conductor if isinstance(workflow, WorkflowMode) else workflow
    (true,) = chosen(conductor.actors, [actor])
    stand_in = StandIn(true, script)
    conductor.actors = _replaced(conductor.actors, {true.name: stand_in.actor})
    try:
        yield stand_in
    finally:
        conductor.actors = _replaced(conductor.actors, {true.name: true})
    if stand_in.problem is not None:
        raise stand_in.problem


def stand_ins(actors: Iterable[AnyActor], script: Mapping[Any, Any]) -> dict[str, StandIn]:
    """Return a stand-in for each actor that a script is for, by name.

    Raises:
        LookupError: There is no such actor; lists those that there are.
    """
    true = chosen(list(actors), script)
    return {each.name: StandIn(each, given) for each, given in zip(true, script.values(), strict=True)}


def chosen(actors: Iterable[AnyActor], wanted: Iterable[AnyActor | str]) -> list[AnyActor]:
    """Return the actors of these names.

    Raises:
        LookupError: There is no such actor; lists those that there are.
    """
    known = {each.name: each for each in actors}
    names = [each.name if isinstance(each, Actor) else each for each in wanted]
    for name in names:
        if name not in known:
            raise LookupError(f"There is no actor {name!r}. There are: {', '.join(known)}.")
    return [known[name] for name in names]


def _replaced(actors: Iterable[AnyActor], by_name: Mapping[str, AnyActor]) -> tuple[AnyActor, ...]:
    return tuple(by_name.get(each.name, each) for each in actors)
