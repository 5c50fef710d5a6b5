"""One execution of a node: its attempts, one after the other."""

from __future__ import annotations

import json
import sys
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from anyio import current_effective_deadline, get_cancelled_exc_class, to_thread

from jotty.core.queue import RetryLater, Within, encode
from jotty.core.queue.forked import end_if_forked
from jotty.core.queue.lineage import generation
from jotty.errors import ActorError, GraphError, InputRequired, MaxIterationsExceeded, PayloadError

from .attempt import in_thread, iterated, within
from .binding import split_positional
from .context import ActorContext
from .outcome import Done, End, Failed, Goto, Output
from .result import describe
from .signature import ActorKind
from .spawning import Handle
from .stage import Stage
from .timer import Timer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from contextvars import Context

    from anyio import CancelScope

    from .actor import AnyActor
    from .graph import Node
    from .limiter import Limiter
    from .run import Run
    from .state import Work

__all__ = ["Execution", "Performer", "Rest"]

# What was returned, what was raised, or what remains to be awaited.
Rest: TypeAlias = Output | Failed | Within

# Another attempt would only repeat these.
POINTLESS: Final = (GraphError, InputRequired, MaxIterationsExceeded, PayloadError)


class Execution:
    """A node that is being run.

    Attributes:
        node: The node.
        root: The node of the graph that it is, or that has spawned it, however indirectly.
        label: The node's name in the whole run, which events carry.
        round: How often a Goto has reset it before.
        arguments: What was bound.
        started: When it was started.
        inputs: The digest of what it is given, in a durable run.
        scope: That of the branch that runs it, once one does; cancelling it ends the execution.
        attempt: The attempt at which it is, from 1.
        ctx: What the actor sees of this attempt, if it sees anything.
        stage: What carries out what the actor asks for, likewise.
        data: Its output as JSON, in a durable run, once there is one.
        limiter: Whose token it holds, if it holds one.
        lent: Whose token it has given back while it waits for others.
        has_slot: Whether it counts towards `max_parallel`.
        waits: In how many waits for others it is.
        depth: In how many calls of others it runs, on one stack.
        is_idle: Whether it counts as being at work no more.
        timer: That of its timeout, if it has one.
        count: What counts as its work instead of itself, if anything does.
        spawner: The execution that has spawned it, or holds the run of which it is a part.
        rest: What an attempt that was begun at once has come to, or what remains of it.
    """

    # what few executions need stands here, so that the others cost nothing for it
    scope: CancelScope
    attempt = 1
    ctx: ActorContext | None = None
    stage: Stage | None = None
    data: bytes | None = None
    limiter: Limiter | None = None
    lent: Limiter | None = None
    has_slot = True
    waits = 0
    depth = 0
    is_idle = False
    timer: Timer | None = None
    count: Handle | None = None
    spawner: Execution | None = None
    rest: Rest | None = None

    def __init__(  # noqa: PLR0917 - by position it is made twice as fast, once for each node
        self,
        node: Node,
        root: Node,
        label: str,
        number: int,
        arguments: dict[str, Any],
        started: int,
        inputs: str | None,
    ) -> None:
        self.node = node
        self.root = root
        self.label = label
        self.round = number
        self.arguments = arguments
        self.started = started
        self.inputs = inputs

    @property
    def work(self) -> Work:
        """What counts as its work."""
        return self.count or self

    def renew(self) -> None:
        """Forget the attempt before."""
        self.ctx = self.stage = self.data = self.timer = None

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds of the node of the graph that it is, or belongs to, and of those around that."""
        if self.spawner is None:
            return (self.round,)
        if self.node is not self.root:
            return self.spawner.rounds
        return (*self.spawner.rounds, self.round)


def _unawaited(label: str, value: Any) -> TypeError:
    if isinstance(value, CoroutineType):
        value.close()  # or Python would warn of it, much later
    return TypeError(f"Actor {label!r} returns {value!r}. Await it, and return what it gives.")


def _check_awaited(execution: Execution) -> None:
    """Refuse what an actor has come to without what it has asked for."""
    if execution.ctx is not None and (forgotten := execution.ctx.forgotten()):
        call = f"ctx.{forgotten[0]}"
        raise TypeError(
            f"Actor {execution.label!r} calls {call}() and does not await it. Write: await {call}(...)."
        )


def _taken(rest: Output | Failed) -> Any:
    if isinstance(rest, Failed):
        raise rest.error
    return rest.value


def _is_being_cancelled() -> bool:
    """Whether this task is being cancelled by somebody else, be it by asyncio's own ways."""
    if current_effective_deadline() == float("-inf"):
        return True
    asyncio: Any = sys.modules.get("asyncio")
    try:
        task = asyncio and asyncio.current_task()
    except RuntimeError:  # another event loop's
        return False
    return bool(task and task.cancelling())


class Performer:
    """Carries out the executions of one run, each attempt under its own copy of the run's contextvars."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._graph = run.graph
        self._options = run.options
        self._announcer = run.state.announcer
        self._is_coded = run.options.is_coded
        self._context = copy_context()
        self._cancelled = get_cancelled_exc_class()
        self._home = generation()

    def ask(self, actor: AnyActor, positional: list[Any], named: dict[str, Any]) -> Any:
        """Call an actor's `when` at once, as the actor itself would be."""
        when: Any = actor.when
        try:
            return self._context.copy().run(when, *positional, **named)
        except GeneratorExit as exc:  # nothing suspends here, so that it closes no coroutine
            raise ActorError(actor.name, "raised GeneratorExit") from exc

    def begin(self, execution: Execution) -> Done | None:
        """Run a plain actor as far as it goes without waiting; None if `perform` must do the rest.

        Most actors in a benchmark, and many elsewhere, never wait: these need no coroutine but their own.
        """
        rest = execution.rest
        if rest is None:
            rest = self._begun(execution)
        if not isinstance(rest, Output):
            execution.rest = rest
            return None
        execution.rest = None
        try:
            return self._outcome(execution, rest.value)
        except Exception as exc:  # noqa: BLE001 - sorted by `perform`
            execution.rest = Failed(exc)
            return None

    def _begun(self, execution: Execution) -> Rest:
        context = self._context.copy()
        try:
            called = context.run(execution.node.actor.invoke, **execution.arguments)
            suspended = context.run(called.send, None)
        except StopIteration as stop:
            return Output(stop.value)
        except BaseException as exc:  # noqa: BLE001 - sorted by `perform`
            return Failed(exc)
        return Within(context, called, suspended)

    async def perform(self, execution: Execution) -> Done | Failed:
        """Try until it is done, or the retries are used up; raises only when cancelled."""
        postponed = 0
        while True:
            rest: Rest | None = None
            try:
                if not execution.node.is_plain:
                    return await self._attempt(execution)
                rest, execution.rest = execution.rest or self._begun(execution), None
                # awaited right here, as each coroutine in between would be there for as long as the actor
                value = await rest if isinstance(rest, Within) else _taken(rest)
                return self._outcome(execution, value)
            except BaseException as exc:  # sorted here, once and for all
                failure = self._failure_of(execution, exc, rest)
                if failure is None:
                    raise
            postponed = postponed + 1 if isinstance(failure, RetryLater) else 0
            delay = self._delay(execution, failure, postponed)
            if delay is None:
                return Failed(failure)
            self._tell_retry(execution, failure, delay)
            execution.attempt += not postponed
            await self._options.clock.sleep(delay)

    def _failure_of(
        self, execution: Execution, exc: BaseException, rest: Rest | None
    ) -> BaseException | None:
        """Return what an attempt has failed by; None if it was cancelled, or is being closed."""
        end_if_forked(self._home, exc)
        failure: BaseException = exc
        if isinstance(exc, self._cancelled):
            if _is_being_cancelled():
                return None
            failure = ActorError(execution.node.actor.name)
        elif isinstance(exc, SystemExit):  # argparse, say: it must not take the whole process with it
            failure = ActorError(execution.node.actor.name, f"called sys.exit({exc.code!r})")
        elif isinstance(exc, GeneratorExit):
            if rest is None or (isinstance(rest, Within) and rest.is_closed):
                return None
            failure = ActorError(execution.node.actor.name, "raised GeneratorExit")
        if failure is not exc:
            failure.__cause__ = exc
        return failure

    async def _attempt(self, execution: Execution) -> Done | Failed:
        """Try once, with all that the attempt spawns: nothing of it is left when this returns or raises."""
        execution.renew()
        failed: Failed | None = None
        try:
            outcome = self._outcome(execution, await self._limited(execution))
            _check_awaited(execution)
            spawner = None if execution.stage is None else execution.stage.spawner
            if isinstance(outcome, Output) and spawner is not None and spawner.is_used:
                failed = await spawner.settle()
        except BaseException as exc:
            end_if_forked(self._home, exc)
            await self._end(execution)
            raise
        await self._end(execution)
        return failed or outcome

    async def _end(self, execution: Execution) -> None:
        if execution.ctx is not None:
            execution.ctx.is_over = True
            execution.ctx.forgotten()
        if execution.stage is not None and execution.stage.spawner.is_used:
            await execution.stage.spawner.abandon()

    def _outcome(self, execution: Execution, value: Any) -> Done:
        end_if_forked(self._home)
        if isinstance(value, Goto):
            self._graph.check_goto(value)
        if isinstance(value, (Handle, CoroutineType)):
            raise _unawaited(execution.label, value)
        outcome = value if isinstance(value, (Output, Goto, End)) else Output(value)
        return self._coded(execution, outcome) if self._is_coded else outcome

    def _coded(self, execution: Execution, outcome: Done) -> Done:
        """Return what is the same on the first run as after a resume.

        Raises:
            PayloadError: It cannot be stored.
        """
        label, limit = execution.label, self._options.max_payload
        if isinstance(outcome, Goto):
            what = f"what the Goto of actor {label!r} gives: it"
            execution.data = encode(dict(outcome.inputs), what, limit=limit)
            return Goto(outcome.target, **json.loads(execution.data))
        codec = self._options.codecs.of(execution.node.actor)
        value = outcome.value if isinstance(outcome, Output) else outcome.output
        execution.data, value = codec.kept(value, limit)
        return Output(value) if isinstance(outcome, Output) else End(value)

    def _delay(self, execution: Execution, failure: BaseException, postponed: int) -> float | None:
        """Return the seconds until the next attempt, or None if there is to be none."""
        actor, ctx = execution.node.actor, execution.ctx
        if not isinstance(failure, Exception) or isinstance(failure, POINTLESS):
            return None
        if ctx is not None and ctx.has_spoken and not self._options.may_retract:
            return None
        if isinstance(failure, RetryLater):
            return failure.seconds if postponed <= actor.policy.max_postponements else None
        if execution.attempt > actor.retries:
            return None
        return actor.policy.backoff(execution.attempt, self._options.random)

    def _tell_retry(self, execution: Execution, failure: BaseException, delay: float) -> None:
        name, attempt = execution.label, execution.attempt
        error = describe(failure, name, attempt)
        self._announcer.tell("agent_retry", agent=name, attempt=attempt, error=error, delay=delay)

    # These return what is to be awaited, for each coroutine is there as long as the actor

    def _limited(self, execution: Execution) -> Awaitable[Any]:
        """Call the actor under the limit that it shares."""
        limit = execution.node.actor.limit
        if limit is None:
            return self._placed(execution)
        return self._under(self._options.limiters.of(limit), execution)

    async def _under(self, limiter: Limiter, execution: Execution) -> Any:
        """Wait for a limit, which takes no place of others, and call the actor."""
        try:
            if limiter.try_acquire():
                execution.limiter = limiter
            else:
                async with self._run.places.without_slot(execution):
                    await limiter.acquire()
                    execution.limiter = limiter
            return await self._placed(execution)
        finally:
            execution.lent = None
            if execution.limiter is not None:
                execution.limiter = None
                limiter.release()

    def _placed(self, execution: Execution) -> Awaitable[Any]:
        is_sync = execution.node.actor.kind is ActorKind.SYNC
        return self._in_thread(execution) if is_sync else self._timed(execution)

    async def _in_thread(self, execution: Execution) -> Any:
        """Wait for a thread, which is none of the actor's time, and call the actor."""
        async with to_thread.current_default_thread_limiter():
            return await self._timed(execution)

    def _timed(self, execution: Execution) -> Awaitable[Any]:
        actor, context = execution.node.actor, self._context.copy()
        if actor.timeout is not None:
            return self._bounded(actor.timeout, context, execution)
        return within(context, context.run(self._called, execution), actor.name)

    async def _bounded(self, timeout: float, context: Context, execution: Execution) -> Any:
        name, clock = execution.node.actor.name, self._options.clock
        with clock.timeout(timeout) as scope:
            execution.timer = Timer(clock, scope, timeout)
            return await within(context, context.run(self._called, execution), name)
        raise TimeoutError(f"Actor {name!r} took longer than its timeout of {timeout:g} s.")

    def _called(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Call the actor, which runs nothing of it yet but the making of a prompt."""
        node, arguments = execution.node, execution.arguments.copy()
        kind, plan, invoke = node.actor.kind, node.plan, node.actor.invoke
        if kind is ActorKind.GRAPH:
            return self._run.run_within(execution, arguments)
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
        if execution.node.actor.kind is not ActorKind.SYNC:
            execution.stage = Stage(self._run, execution)
        return ActorContext(
            self._announcer,
            actor=execution.node.actor.name,
            agent=execution.label,
            run_id=options.run_id,
            attempt=execution.attempt,
            round=execution.round,
            goal=options.goal,
            context=options.context,
            history=options.history,
            backstage=execution.stage,
        )
