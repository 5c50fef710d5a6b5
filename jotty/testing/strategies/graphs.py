"""Graphs of actors that can be run, and what is needed to judge a run of them."""

from __future__ import annotations

import inspect
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import attrs
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Conductor, End, Goto
from jotty.core.queue import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jotty.core.orchestration import Result
    from jotty.core.orchestration.actor import AnyActor
    from jotty.core.queue import Clock, TaskQueue

__all__ = ["ActorGraph", "ActorPlan", "actor_graphs"]

NAMES: Final = ("ann", "bob", "cem", "dan", "eve", "fay")
END: Final = "end"
PAUSE: Final = RetryPolicy(delay=1, factor=1, jitter=0)
_P: Final = inspect.Parameter


@attrs.frozen(kw_only=True)
class ActorPlan:
    """How one actor of a graph behaves.

    Attributes:
        name: Its name.
        needs: Whose outputs it cannot do without.
        uses: Whose outputs it takes if they are there.
        delay: How many seconds each attempt takes.
        failures: How many of its first attempts fail, over all its executions.
        retries: How many attempts it has beyond the first, in each execution; a second lies between two.
        is_wanted: What its `when` says.
        on_demand: Whether it runs only if another goes to it.
        moves: What its first executions return instead of an output: whom to go to, or "end".
    """

    name: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    delay: int = 0
    failures: int = 0
    retries: int = 0
    is_wanted: bool = True
    on_demand: bool = False
    moves: tuple[str, ...] = ()

    @property
    def feeds(self) -> tuple[str, ...]:
        """Whom it follows."""
        return (*self.needs, *self.uses)

    @property
    def may_fail(self) -> bool:
        """Whether an execution of it may use up its retries."""
        return self.failures > self.retries

    def actor(self, clock: Clock) -> AnyActor:
        """Return it as an actor that has not run yet.

        Its output says who made it, in which of its executions that had one, and of which outputs:
        `{"by": "bob", "number": 1, "of": {"ann": 1}}`.
        """
        failures, moves, numbers = iter(range(self.failures)), iter(self.moves), count(1)

        async def call(**inputs: Any) -> Any:
            await clock.sleep(self.delay)
            if next(failures, None) is not None:
                raise RuntimeError(f"{self.name} was to fail")
            of = {name: one["number"] for name, one in inputs.items() if one is not None}
            move = next(moves, None)
            if move not in {None, END}:
                return Goto(move)
            output = {"by": self.name, "number": next(numbers), "of": of}
            return output if move is None else End(output)

        parameters = [_P(name, _P.KEYWORD_ONLY) for name in self.needs]
        parameters += [_P(name, _P.KEYWORD_ONLY, default=None) for name in self.uses]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # see inspect.signature
        return Actor(
            name=self.name,
            call=call,
            when=None if self.is_wanted else _never,
            retries=self.retries,
            backoff=PAUSE,
            on_demand=self.on_demand,
        )


def _never() -> bool:
    return False


@attrs.frozen(kw_only=True)
class ActorGraph:
    """A plain description of actors, of which conductors are made.

    Attributes:
        plans: The actors, in the order in which they are given to the conductor.
        on_error: "continue" or "raise", as `Conductor` has it.
        max_parallel: As there.
    """

    plans: tuple[ActorPlan, ...]
    on_error: str = "continue"
    max_parallel: int | None = None

    def conductor(self, clock: Clock, *, task_queue: TaskQueue | None = None) -> Conductor:
        """Return a conductor of new actors: for one run, as they count how often they were called."""
        return Conductor(
            [plan.actor(clock) for plan in self.plans],
            task_queue=task_queue,
            clock=clock,
            on_error="continue" if self.on_error == "continue" else "raise",
            max_parallel=self.max_parallel,
        )

    @property
    def is_routed(self) -> bool:
        """Whether an actor goes elsewhere, ends the run, or waits for being asked."""
        return any(plan.moves or plan.on_demand for plan in self.plans)

    def outputs(self) -> dict[str, Any]:
        """Return what every actor's output must be.

        Raises:
            ValueError: The graph is routed: then it depends on who is faster.
        """
        if self.is_routed:
            raise ValueError("A routed graph has no outputs that are known beforehand. Use problems().")
        found: dict[str, Any] = {}
        for plan in sorted(self.plans, key=lambda each: NAMES.index(each.name)):
            if plan.is_wanted and not plan.may_fail and set(plan.needs) <= set(found):
                of = {name: 1 for name in plan.feeds if name in found}
                found[plan.name] = {"by": plan.name, "number": 1, "of": of}
        return found

    def problems(self, result: Result) -> list[str]:
        """Return what a result cannot be, each as a sentence; empty if there is nothing to be said.

        Args:
            result: What a run came to, or `result_of` what it raised.
        """
        found = [*self._misfits(result["actor_outputs"]), *self._wrong_errors(result)]
        is_whole = result["success"] or self.on_error == "continue"
        if not self.is_routed and is_whole and self.outputs() != result["actor_outputs"]:
            found.append(f"the outputs must be {self.outputs()}, and are {result['actor_outputs']}")
        if result["success"] == bool(result["errors"]):
            found.append(f"its success is {result['success']}, and its errors are {result['errors']}")
        return found

    def _misfits(self, outputs: Mapping[str, Any]) -> Iterator[str]:
        """Outputs must be made of those that are there."""
        for plan in self.plans:
            if plan.name not in outputs:
                continue
            of = {name: outputs[name]["number"] for name in plan.feeds if name in outputs}
            if of != outputs[plan.name]["of"]:
                yield f"{plan.name} was made of {outputs[plan.name]['of']}, and there is {of}"
            for name in plan.needs:
                if name not in outputs:
                    yield f"{plan.name} needs {name}, which is absent"

    def _wrong_errors(self, result: Result) -> Iterator[str]:
        plans = {plan.name: plan for plan in self.plans}
        for error in result["errors"]:
            if not plans[error["agent"]].may_fail:
                yield f"{error['agent']} has retries enough, and is said to have failed"


def _routing(names: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    moves: st.SearchStrategy[tuple[str, ...]] = st.lists(st.sampled_from([END, *names]), max_size=2).map(
        tuple
    )
    return st.fixed_dictionaries(
        {
            "moves": st.just(()) | st.just(()) | moves,
            "on_demand": st.sampled_from([False, False, False, True]),
        }
    )


@st.composite
def _graphs(draw: st.DrawFn, size: int, *, is_routed: bool) -> ActorGraph:
    names = NAMES[: draw(st.integers(1, size))]
    plans = []
    for at, name in enumerate(names):
        feeds = {each: draw(st.sampled_from(["", "needs", "uses"])) for each in names[:at]}
        plan = ActorPlan(
            name=name,
            needs=tuple(each for each in feeds if feeds[each] == "needs"),
            uses=tuple(each for each in feeds if feeds[each] == "uses"),
            delay=draw(st.integers(0, 4)),
            failures=draw(st.sampled_from([0, 0, 0, 1, 2])),
            retries=draw(st.integers(0, 2)),
            is_wanted=draw(st.sampled_from([True, True, True, False])),
        )
        plans.append(attrs.evolve(plan, **draw(_routing(names))) if is_routed else plan)
    return ActorGraph(
        plans=tuple(draw(st.permutations(plans))),
        on_error=draw(st.sampled_from(["continue", "raise"])),
        max_parallel=draw(st.sampled_from([None, 1, 2])),
    )


def actor_graphs(*, max_actors: int = 6, routing: bool = True) -> st.SearchStrategy[ActorGraph]:
    """Generate graphs of actors that depend on each other, fail, retry, take their time and go elsewhere.

    The smallest is one actor that gives its output at once. A run needs a clock that jumps.

    Args:
        max_actors: How many actors there are at most, up to six.
        routing: Whether actors may return Goto or End, or run on demand only.

    Example:
        @given(actor_graphs())
        def test_outputs_fit_each_other(graph):
            async def run():
                clock = VirtualClock()
                async with clock.autojump():
                    try:
                        return await graph.conductor(clock).run("goal", max_iterations=1000)
                    except RuntimeError as error:
                        return result_of(error)

            assert graph.problems(anyio.run(run)) == []

    Raises:
        ValueError: There are more names than that.
    """
    if not 1 <= max_actors <= len(NAMES):
        raise ValueError(f"max_actors must be from 1 to {len(NAMES)}, not {max_actors!r}.")
    plain = _graphs(max_actors, is_routed=False)
    return plain | _graphs(max_actors, is_routed=True) if routing else plain
