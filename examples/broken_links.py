"""Finds the links in a folder's Markdown pages that lead nowhere, and asks before it writes a list of them.

    jotty run examples/broken_links.py "Check the pages" -c folder=docs

asks on the terminal. From a queue, the goal waits for the answer, without a worker, as long as it takes:

    export JOTTY_QUEUE=sqlite:///tasks.db
    id=$(jotty enqueue examples/broken_links.py "Check the pages" -c folder=docs)
    jotty worker examples/broken_links.py --drain
    jotty answer "$id" write yes
    jotty worker examples/broken_links.py --drain
"""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import anyio

from jotty import ActorContext, Conductor, Question, WorkflowMode, actor

LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)[^)]*\)")
LIST = "broken-links.txt"


@actor
def pages(folder: str) -> list[str]:
    """Find the pages."""
    if not Path(folder).is_dir():
        raise NotADirectoryError(f"{folder!r} is no folder.")
    return sorted(str(path) for path in Path(folder).rglob("*.md"))


def check(page: str) -> list[str]:
    """Return the links of one page that lead nowhere."""
    folder, text = Path(page).parent, Path(page).read_text(encoding="utf-8")
    return [f"{page}: {link}" for link in LINK.findall(text) if not (folder / link).exists()]


@actor
async def broken(pages: list[str], ctx: ActorContext) -> list[str]:
    """Check every page, eight at a time."""
    found = await ctx.map(check, pages, limit=8)
    return [line for lines in found for line in lines]


@actor
async def report(folder: str, pages: list[str], broken: list[str], ctx: ActorContext) -> str:
    """Tell what was found; write it down if that is wanted."""
    if not broken:
        return f"All links of {len(pages)} pages lead somewhere."
    told = f"Broken links in {len(pages)} pages: {len(broken)}"
    answer = await ctx.ask(f"{told}. Write them to {LIST}?", key="write", options=["yes", "no"])
    if answer == "no":
        return f"{told}."
    return f"{told}, written to {await ctx.step('write', save, str(Path(folder, LIST)), broken)}."


def save(path: str, lines: list[str]) -> str:
    """Write the list, and return where it is."""
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


conductor = Conductor(actors=[pages, broken, report], name="links")


# Without the command line


def answer_on_terminal(question: Question) -> str:
    """Ask the person who has started this."""
    return input(f"{question.question} (yes/no) ").strip()


if __name__ == "__main__":
    run = partial(WorkflowMode(conductor).execute, "Check the pages", on_ask=answer_on_terminal)
    folder = sys.argv[1] if len(sys.argv) > 1 else "."
    print(anyio.run(run, {"folder": folder})["final_output"])
