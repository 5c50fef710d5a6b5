"""What one attempt of an actor asks its run for: other actors, steps, answers."""

from __future__ import annotations

import json
from inspect import isawaitable, isclass
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from jotty.core.queue import MICROSECONDS, check_name, check_seconds, encode, microseconds
from jotty.errors import InputRequired

from .codec import codec_of
from .identity import digest_of
from .questions import NO_DEFAULT, Question, key_in_rounds
from .signature import ActorKind, kind_of
from .spawning import Handle, Spawner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jotty.core.queue import Clock

    from .actor import ActorLike
    from .execution import Execution
    from .run import Run

__all__ = ["Stage"]


class Stage:
    """Carries out what the attempt of an actor asks for.

    Args:
        run: The run.
        execution: Whose attempt it is.

    Attributes:
        spawner: What it spawns with.
    """

    def __init__(self, run: Run, execution: Execution) -> None:
        self.spawner = Spawner(run, execution)
        self._run = run
        self._execution = execution
        self._steps: set[str] = set()
        self._named: set[str] = set()  # the keys of its questions
        self._unnamed = 0  # the questions without one

    def spawn(
        self, actor: ActorLike, key: str | None, after: Iterable[Handle], inputs: Mapping[str, Any]
    ) -> Handle:
        """See `ActorContext.spawn`."""
        return self.spawner.spawn(actor, key, after, inputs)

    async def call(self, actor: ActorLike, key: str | None, inputs: Mapping[str, Any]) -> Any:
        """See `ActorContext.call`."""
        return await self.spawner.call(actor, key, inputs)

    async def map(
        self,
        actor: ActorLike,
        items: Iterable[Any],
        key: Callable[[Any], str] | None,
        limit: int | None,
        inputs: Mapping[str, Any],
    ) -> list[Any]:
        """See `ActorContext.map`."""
        return await self.spawner.map(actor, items, key, limit, inputs)

    # Steps

    async def step(self, key: str, call: Callable[..., Any], args: Sequence[Any]) -> Any:
        """See `ActorContext.step`."""
        if not isinstance(key, str) or not key:
            raise ValueError(f"The key of a step must be a text that is not empty, not {key!r}.")
        if key in self._steps:
            raise ValueError(f"{self._execution.label!r} has a step {key!r} already. Give each its own key.")
        self._steps.add(key)
        run, label = self._run, self._execution.label
        memory = run.state.memory
        if memory is None:
            return await _called(call, args, run.options.clock)
        inputs = digest_of(args)
        codec = codec_of(call, label, step=key)
        found = run.state.recall.at(label).steps.get(key)
        if found is not None and found.data.get("inputs") == inputs:
            return codec.decode(found.data["output"])
        started = run.options.clock.now()
        value = await _called(call, args, run.options.clock)
        data = codec.dump(value, memory.limit)
        seconds = (run.options.clock.now() - started) / MICROSECONDS
        noted = {"agent": label, "key": key, "inputs": inputs, "seconds": seconds, "output": json.loads(data)}
        run.state.note("step", **noted)
        run.state.remember("step", label, noted)  # first: what cancels the flush does not call it back
        await memory.flush()
        return codec.load(data)

    # Questions

    async def ask(
        self,
        question: str,
        key: str | None,
        options: Sequence[Any] | None,
        timeout: float | None,
        default: Any,
    ) -> Any:
        """See `ActorContext.ask`."""
        execution, questions = self._execution, self._run.state.questions
        if timeout is not None:
            check_seconds("timeout", timeout)
        if options is not None and (isinstance(options, str) or not options):
            raise ValueError(f"options must be a list of at least one answer, or None, not {options!r}.")
        key = key_in_rounds(self._question_key(key), execution.rounds)
        check_name("key", key)
        questions.claim(key, execution.label, question)
        self._check_storable(key, options, default)
        while (current := questions.open_key(key, options, default)) not in questions.answers:
            try:
                await self._wait(self._asked(current, question, options, timeout))
            except InputRequired:  # there is nobody to wait for
                if timeout is None or default is NO_DEFAULT:
                    raise
            if current not in questions.answers:
                return self._expired(current, default)
        return questions.answers[current]

    def _check_storable(self, key: str, options: Sequence[Any] | None, default: Any) -> None:
        given = self._run.options
        if self._run.state.memory is None and not given.check_payloads:
            return
        of = f"of the question {key!r} of actor {self._execution.label!r}: it"
        if options is not None:
            encode(list(options), f"the options {of}", limit=given.max_payload)
        if default is not NO_DEFAULT:
            encode(default, f"the default {of}", limit=given.max_payload)

    def _question_key(self, key: str | None) -> str:
        """Return the key that was given, or one of the actor's own, by the order in which it asks."""
        label = self._execution.label
        if key is None:
            self._unnamed += 1
            return label if self._unnamed == 1 else f"{label}.{self._unnamed}"
        if key in self._named:
            raise ValueError(
                f"{label!r} has asked under the key {key!r} already. Give each question its own key."
            )
        self._named.add(key)
        return key

    def _asked(
        self, key: str, question: str, options: Sequence[Any] | None, timeout: float | None
    ) -> Question:
        """Ask, unless that was done before."""
        execution, run = self._execution, self._run
        questions = run.state.questions
        is_new = key not in questions.asked
        if is_new and not run.options.can_ask:
            raise InputRequired(key, question)
        if is_new:
            questions.asked[key] = (
                None if timeout is None else run.options.clock.now() + microseconds(timeout)
            )
        asked = Question(
            key=key,
            agent=execution.label,
            question=question,
            options=None if options is None else list(options),
            until=questions.asked[key],
        )
        if is_new:
            told = {"key": key, "question": question, "options": asked.options}
            run.state.tell(
                "input_required", {"until": asked.until}, agent=asked.agent, attempt=execution.attempt, **told
            )
        return asked

    async def _wait(self, question: Question) -> None:
        """Return when there is an answer, or nobody is waited for any more."""
        run, questions = self._run, self._run.state.questions
        clock = run.options.clock
        left = None if question.until is None else max((question.until - clock.now()) / MICROSECONDS, 0.0)
        if left == 0.0:
            return
        try:
            with questions.opened(question, self.spawner.wake) as answered:
                run.state.parking.follow_answers()
                async with run.places.waiting(self._execution, is_timed=False):
                    with clock.timeout(left):
                        if run.options.on_ask is not None:
                            await self._answered_by(run.options.on_ask, question)
                        else:
                            await answered.wait()
        finally:
            run.state.parking.unfollow_answers()

    async def _answered_by(self, on_ask: Callable[[Question], Any], question: Question) -> None:
        answer = on_ask(question)
        if isawaitable(answer):
            answer = await answer
        if question.key not in self._run.state.questions.answers:
            self._run.state.questions.answer(question.key, answer)

    def _expired(self, key: str, default: Any) -> Any:
        if default is NO_DEFAULT:
            raise TimeoutError(f"Nobody has answered the question {key!r} in time.")
        state = self._run.state
        state.questions.answers[key] = default
        state.note("expired", key=key, value=default)
        return default


async def _called(call: Callable[..., Any], args: Sequence[Any], clock: Clock) -> Any:
    if not isclass(call) and kind_of(call) is not ActorKind.SYNC:
        return await call(*args)
    with clock.hold():
        (value,) = await to_thread.run_sync(lambda: [call(*args)])  # trio lets no thread return an awaitable
    return await value if isawaitable(value) else value  # `lambda: fetch(url)` is a plain function
