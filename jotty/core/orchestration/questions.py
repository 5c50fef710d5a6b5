"""The questions that actors ask a person, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import attrs

from jotty.core.queue import encode
from jotty.errors import InputRequired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

__all__ = ["NO_DEFAULT", "OnAsk", "Question", "Questions", "answering", "check_answer", "key_in_rounds"]

NO_DEFAULT: Final[Any] = object()


@attrs.frozen(kw_only=True)
class Question:
    """What an actor asks.

    Attributes:
        key: Names the question, for the answer.
        agent: The node that asks.
        question: The question, for a person to read.
        options: The answers to choose from, or None for any.
        until: When it expires, in microseconds of the run's clock, or None.
    """

    key: str
    agent: str
    question: str
    options: Sequence[Any] | None = None
    until: int | None = None


OnAsk: TypeAlias = "Callable[[Question], Awaitable[Any] | Any] | Mapping[str, Any]"


def answering(on_ask: OnAsk) -> Callable[[Question], Any]:
    """Return what answers questions; a mapping does by their keys.

    Raises:
        TypeError: This is nothing that can.
    """
    if callable(on_ask):
        return on_ask
    if not isinstance(on_ask, Mapping):
        raise TypeError(
            f"on_ask must be a function of a Question, or a mapping of answers by key, not {on_ask!r:.200}."
        )
    answers = on_ask

    def answer(question: Question) -> Any:
        if question.key not in answers:
            raise InputRequired(question.key, question.question, answers)
        return answers[question.key]

    return answer


def key_in_rounds(key: str, rounds: Sequence[int]) -> str:
    """Return the key of a question in a round, so that each round asks anew: `key`, `key#2`, `key#3`...

    Within a conductor that is an actor, the round of that comes first: `key#2.1`.
    """
    return f"{key}#{'.'.join(str(number + 1) for number in rounds)}" if any(rounds) else key


def check_answer(key: str, value: Any, options: Sequence[Any] | None) -> None:
    """Refuse an answer that is none of the options.

    Raises:
        ValueError: It is none of them; names them.
    """
    if options is not None and value not in options:
        offered = ", ".join(repr(each) for each in options)
        raise ValueError(f"{value!r:.200} is no answer to {key!r}. The options are: {offered}.")


class Questions:
    """What one run has asked, and what it was told.

    Args:
        answers: What is known already, by key.
        asked: When each question that was asked before expires, by key.

    Attributes:
        answers: All answers so far, by key.
        waiting: The questions that somebody waits for, by key.
        asked: When each question that was ever asked expires, in microseconds, or None.
    """

    def __init__(
        self,
        answers: Mapping[str, Any] | None = None,
        asked: Mapping[str, int | None] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        self.answers = dict(answers or {})
        self.asked = dict(asked or {})
        self._limit = limit
        self.waiting: dict[str, Question] = {}
        self._texts: dict[str, tuple[str, str]] = {}
        self._news: dict[str, anyio.Event] = {}
        self._wakes: dict[str, Callable[[], object]] = {}

    def claim(self, key: str, agent: str, question: str) -> None:
        """Take note of who asks what under a key.

        Raises:
            ValueError: Another one has asked something else under it.
        """
        other, text = self._texts.setdefault(key, (agent, question))
        if other != agent and text != question:
            raise ValueError(
                f"{agent!r} asks {question!r:.100} under the key {key!r}, under which {other!r} has asked "
                f"{text!r:.100}. Give each question a key of its own: ctx.ask(..., key=...)."
            )

    def open_key(self, key: str, options: Sequence[Any] | None, default: Any) -> str:
        """Return the key under which to ask: `key~2` and so on where an answer is none of the options.

        It came before its question, when nobody could refuse it, or to another one; and the first answer
        stands. What counts when nobody answers needs to be no option.
        """
        number, found = 1, key
        while options is not None and found in self.answers:
            answer = self.answers[found]
            if answer in options or answer == default:
                break
            number += 1
            found = f"{key}~{number}"
        return found

    def check(self, key: str, value: Any) -> None:
        """Refuse what cannot be an answer now.

        Raises:
            PayloadError: It could not be stored in a queue, and is held to that.
            ValueError: The question has its answer, or this is none of its options.
        """
        if key in self.answers:
            raise ValueError(f"The question {key!r} has its answer already: {self.answers[key]!r:.200}.")
        question = self.waiting.get(key)
        check_answer(key, value, None if question is None else question.options)
        if self._limit is not None:
            encode(value, f"the answer to {key!r}: it", limit=self._limit)

    def answer(self, key: str, value: Any) -> None:
        """Take an answer; whoever waits for it goes on. It may come before its question.

        Raises:
            PayloadError, ValueError: See `check`; nothing has changed.
        """
        self.check(key, value)
        self.take(key, value)

    def take(self, key: str, value: Any) -> None:
        """Take an answer that was stored; what the options are is for the asking actor to check."""
        self.answers[key] = value
        if key in self._news:
            self._wakes[key]()
            self._news[key].set()

    @contextmanager
    def opened(self, question: Question, wake: Callable[[], object]) -> Iterator[anyio.Event]:
        """Let a question wait for its answer meanwhile.

        Args:
            question: The question.
            wake: Called at once when there is an answer; the event that this gives is then set, too.

        Raises:
            ValueError: Another actor waits for an answer under this key.
        """
        if question.key in self.waiting:
            other = self.waiting[question.key].agent
            raise ValueError(
                f"{question.agent!r} asks under the key {question.key!r}, under which {other!r} waits. "
                "Give each question a key of its own: ctx.ask(..., key=...)."
            )
        self.waiting[question.key] = question
        news = self._news[question.key] = anyio.Event()
        self._wakes[question.key] = wake
        if question.key in self.answers:
            news.set()
        try:
            yield news
        finally:
            del self.waiting[question.key], self._news[question.key], self._wakes[question.key]

    @property
    def next_expiry(self) -> int | None:
        """When the first of the waiting questions expires, in microseconds, or None."""
        return min((each.until for each in self.waiting.values() if each.until is not None), default=None)
