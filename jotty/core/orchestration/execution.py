"""One execution of a node: its attempts, one after the other."""

from __future__ import annotations

import os
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import attrs
from anyio import current_effective_deadline, get_cancelled_exc_class, to_thread

from jotty.core.queue import RetryLater
from jotty.core.queue.forked import end_if_forked
from jotty.errors import ActorError, GraphError

from .attempt import in_thread, iterated, within
from .binding import split_positional
from .context import ActorContext
from .outcome import Done, End, Failed, Goto, Output
from .result import describe
from .signature import ActorKind

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from anyio import CancelScope

    from .actor import AnyActor
    from .announcer import Announcer
    from .graph import Graph, Node
    from .options import RunOptions

__all__ = ["Execution", "Performer"]


@attrs.define(eq=False)
class Execution:
    """A node that is being run.

    Attributes:
        node: The node.
        round: How often a Goto has reset it before.
        arguments: What was bound.
        started: When it was started.
        scope: That of the branch that runs it, once one does; cancelling it ends the execution.
        attempt: The attempt at which it is, from 1.
        ctx: What the actor sees of this attempt, if it sees anything.
    """

    node: Node
    round: int
    arguments: dict[str, Any]
    started: int
    scope: CancelScope = attrs.field(init=False)
    attempt: int = 1
    ctx: ActorContext | None = None


class Performer:
    """Carries out the executions of one run, each attempt under its own copy of the run's contextvars."""

    def __init__(self, graph: Graph, options: RunOptions, announcer: Announcer) -> None:
        self._graph = graph
        self._options = options
        self._announcer = announcer
        self._context = copy_context()
        self._cancelled = get_cancelled_exc_class()
        self._home = os.getpid()

    def ask(self, actor: AnyActor, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call an actor's `when` at once, as the actor itself would be."""
        when: Any = actor.when
        try:
            return self._context.copy().run(when, *positional, **named)
        except GeneratorExit as exc:  # nothing suspends here, so that it closes no coroutine
            raise ActorError(actor.name, "raised GeneratorExit") from exc

    async def perform(self, execution: Execution) -> Done | Failed:
        """Try until it is done, or the retries are used up; raises only when cancelled."""
        postponed = 0
        while True:
            try:
                value = await self._attempt(execution)
                end_if_forked(self._home)
                return self._outcome(value)
            except SystemExit as exc:  # argparse, say: it must not take the whole process with it
                end_if_forked(self._home, exc)
                failure: BaseException = ActorError(
                    execution.node.actor.name, f"called sys.exit({exc.code!r})"
                )
                failure.__cause__ = exc
            except BaseException as exc:  # sorted here, once and for all
                end_if_forked(self._home, exc)
                if isinstance(exc, (self._cancelled, GeneratorExit)):
                    raise
                failure = exc
            finally:
                if execution.ctx is not None:
                    execution.ctx.is_over = True
            postponed = postponed + 1 if isinstance(failure, RetryLater) else 0
            delay = self._delay(execution, failure, postponed)
            if delay is None:
                return Failed(failure)
            self._tell_retry(execution, failure, delay)
            execution.attempt += not postponed
            await self._options.clock.sleep(delay)

    def _outcome(self, value: Any) -> Done:
        if isinstance(value, Goto):
            self._graph.check_goto(value)
        return value if isinstance(value, (Output, Goto, End)) else Output(value)

    def _delay(self, execution: Execution, failure: BaseException, postponed: int) -> float | None:
        """Return the seconds until the next attempt, or None if there is to be none."""
        actor, ctx = execution.node.actor, execution.ctx
        if not isinstance(failure, Exception) or isinstance(failure, GraphError):
            return None
        if ctx is not None and ctx.has_spoken and not self._options.may_retract:
            return None
        if isinstance(failure, RetryLater):
            return failure.seconds if postponed <= actor.policy.max_postponements else None
        if execution.attempt > actor.retries:
            return None
        return actor.policy.backoff(execution.attempt, self._options.random)

    def _tell_retry(self, execution: Execution, failure: BaseException, delay: float) -> None:
        name, attempt = execution.node.name, execution.attempt
        error = describe(failure, name, attempt)
        self._announcer.tell("agent_retry", agent=name, attempt=attempt, error=error, delay=delay)

    async def _attempt(self, execution: Execution) -> Any:
        actor = execution.node.actor
        try:
            if actor.kind is not ActorKind.SYNC:
                return await self._timed(execution)
            # the wait for a thread is none of the actor's time
            async with to_thread.current_default_thread_limiter():
                return await self._timed(execution)
        except self._cancelled as exc:
            if current_effective_deadline() == float("-inf"):
                raise
            raise ActorError(actor.name) from exc

    async def _timed(self, execution: Execution) -> Any:
        actor, context = execution.node.actor, self._context.copy()
        if actor.timeout is None:
            return await within(context, context.run(self._called, execution), actor.name)
        with self._options.clock.timeout(actor.timeout):
            return await within(context, context.run(self._called, execution), actor.name)
        raise TimeoutError(f"Actor {actor.name!r} took longer than its timeout of {actor.timeout:g} s.")

    def _called(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Call the actor, which runs nothing of it yet but the making of a prompt."""
        node, arguments = execution.node, execution.arguments.copy()
        kind, plan, invoke = node.actor.kind, node.plan, node.actor.invoke
        ctx = None
        if plan.context is not None or kind is not ActorKind.ASYNC:
            ctx = self._context_of(execution)
        if plan.context is not None:
            arguments[plan.context] = ctx
        execution.ctx = ctx
        positional = split_positional(plan, arguments) if plan.positional else ()
        if ctx is None or kind is ActorKind.ASYNC:
            return invoke(*positional, **arguments)  # type: ignore[no-any-return]  # an async function's
        if kind is ActorKind.STREAM:
            return iterated(invoke(*positional, **arguments), ctx)
        options = self._options
        return in_thread(
            lambda: invoke(*positional, **arguments), ctx, clock=options.clock, grace=options.thread_grace
        )

    def _context_of(self, execution: Execution) -> ActorContext:
        options = self._options
        return ActorContext(
            self._announcer,
            actor=execution.node.actor.name,
            agent=execution.node.name,
            run_id=options.run_id,
            attempt=execution.attempt,
            round=execution.round,
            goal=options.goal,
            context=options.context,
            history=options.history,
        )
