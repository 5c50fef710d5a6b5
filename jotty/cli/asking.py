"""What actors ask during `jotty run`: asked on the terminal, one question at a time."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from jotty.core.orchestration.labels import readable
from jotty.errors import InputRequired

from .answers import meant, told_options
from .printing import say, visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from jotty.core.orchestration import Question

__all__ = ["Asker"]

_MOST_BYTES = 65536


class Asker:
    """Answers the questions of a run by asking whoever sits at the terminal.

    Attributes:
        aside: Keeps the terminal free for a question of the given agent, while its block lasts.
    """

    def __init__(self) -> None:
        self.aside: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
        self._turn = anyio.Lock()

    async def __call__(self, question: Question) -> Any:
        """Ask, and return the answer.

        Raises:
            InputRequired: Nobody is there: stdin or stderr is no terminal, or the input has ended.
        """
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise InputRequired(question.key, question.question)
        async with self._turn:
            with self.aside(question.agent):
                return await _answer_to(question)


async def _answer_to(question: Question) -> Any:
    options = question.options
    choice = "" if options is None else f" ({told_options(options)})"
    say(visible(f"{readable(question.agent)} asks: {question.question}{choice}"))
    while True:
        sys.stderr.write("> ")
        sys.stderr.flush()
        line = await _line()
        if not line:
            say("")
            raise InputRequired(question.key, question.question)
        if not (text := line.strip()):
            continue
        answer = meant(text, options)
        if options is None or answer in options:
            return answer
        say(visible(f"{text!r:.200} is none of: {told_options(options)}"))


async def _line() -> str:
    """Wait for a line; an empty text at the end of the input. Nobody else reads meanwhile."""
    if os.name == "nt":
        return await to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    # no thread, which would go on to read when the question has expired
    descriptor = sys.stdin.fileno()
    await anyio.wait_readable(descriptor)
    return os.read(descriptor, _MOST_BYTES).decode(sys.stdin.encoding or "utf-8", "replace")
