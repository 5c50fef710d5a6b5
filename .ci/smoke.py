"""What the built wheel promises, in an environment that has nothing beside it but its two dependencies."""  # noqa: INP001 - a script, in no package

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution, distributions
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
Check = Callable[[Path], None]


def run(*command: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command, and insist on its exit code."""
    ran = subprocess.run(  # noqa: S603 - the commands are this script's own
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    if ran.returncode != code:
        raise AssertionError(f"{command} exited with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran


def expect(expected: object, actual: object) -> None:
    """Insist on a value."""
    if expected != actual:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


def needs_only_anyio_and_attrs(_: Path) -> None:
    """The runtime requirements are exactly anyio and attrs."""
    required = [each for each in distribution("jotty").requires or () if "extra ==" not in each]
    names = sorted(each.split(">")[0].strip() for each in required)
    expect(["anyio", "attrs"], names)
    installed = {each.metadata["Name"].lower() for each in distributions()}
    expect(set(), installed & {"typer", "rich", "pytest", "hypothesis", "trio"})


def is_the_wheel(_: Path) -> None:
    """The wheel is what is imported, and not the checkout beside this script."""
    import jotty

    expect(False, Path(__file__).resolve().parents[1] in Path(jotty.__file__).resolve().parents)


def is_typed(_: Path) -> None:
    """Both packages say that they are typed."""
    expect([True, True], [files(name).joinpath("py.typed").is_file() for name in ("jotty", "jotty_backends")])


def imports_lightly(cwd: Path) -> None:
    """Importing jotty loads no backend, no sqlite3 and no command line."""
    heavy = {"jotty_backends", "sqlite3", "typer", "rich", "jotty.cli", "jotty.testing"}
    code = f"import jotty, sys; print(sorted({heavy!r} & set(sys.modules)))"
    expect("[]\n", run(sys.executable, "-c", code, cwd=cwd).stdout)


def has_every_public_name(_: Path) -> None:
    """Each name in __all__ is there."""
    import jotty
    import jotty.core.orchestration
    import jotty.core.queue

    for module in (jotty, jotty.core.orchestration, jotty.core.queue):
        expect([], [name for name in module.__all__ if not hasattr(module, name)])


def tells_how_to_install_the_command_line(cwd: Path) -> None:
    """Without its extra, `jotty` says how to install it, and exits with 1."""
    ran = run(str(Path(sys.executable).with_name("jotty")), "run", cwd=cwd, code=1)
    expect(True, "pip install 'jotty[cli]'" in ran.stderr)
    expect(False, "Traceback" in ran.stderr)


def runs_a_goal(_: Path) -> None:
    """A goal runs at once."""
    from jotty import Conductor, WorkflowMode

    async def double(number: int) -> int:
        return number * 2

    async def tell(goal: str, double: int) -> str:
        return f"{goal} {double}"

    result = anyio.run(WorkflowMode(Conductor([double, tell])).execute, "Twice:", {"number": 21})
    expect("Twice: 42", result["final_output"])


def runs_a_goal_from_each_store(cwd: Path) -> None:
    """A goal is enqueued, processed, and read back through another handle, in a SQLite file and in files."""
    from jotty import Conductor, WorkflowMode, open_queue

    async def upper(goal: str) -> str:
        return goal.upper()

    async def cycle(url: str) -> Any:
        async with open_queue(url) as queue, open_queue(url) as other:
            workflow = WorkflowMode(Conductor([upper]), execution="async", queue=queue)
            task_id = await workflow.enqueue_task("hello")
            expect(1, await workflow.process_queue(drain=True))
            return await other.result(task_id, timeout=10)

    for url in (f"sqlite:///{cwd / 'smoke.db'}", f"file:///{cwd / 'smoke'}"):
        expect("HELLO", anyio.run(cycle, url)["final_output"])


def runs_the_examples(cwd: Path) -> None:
    """The examples run as scripts, the report over a repository of its own."""
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    run("git", "init", "--quiet", cwd=cwd)
    (cwd / "engine.py").write_text("print('hello')\n")
    run("git", "add", "engine.py", cwd=cwd)
    run("git", *author, "commit", "--quiet", "-m", "Start the engine", cwd=cwd)
    report = run(sys.executable, str(EXAMPLES / "quarterly_report.py"), cwd=cwd).stdout
    expect(True, "**1 person** made **1 commit**" in report)
    expect(2, run(sys.executable, str(EXAMPLES / "background.py"), cwd=cwd).stdout.count("findings"))


CHECKS: tuple[Check, ...] = (
    is_the_wheel,
    needs_only_anyio_and_attrs,
    is_typed,
    imports_lightly,
    has_every_public_name,
    tells_how_to_install_the_command_line,
    runs_a_goal,
    runs_a_goal_from_each_store,
    runs_the_examples,
)


def main() -> None:
    """Make every check, each in a directory of its own, and print a line for it."""
    for check in CHECKS:
        with tempfile.TemporaryDirectory() as directory:
            check(Path(directory))
        print("ok:", (check.__doc__ or "").splitlines()[0])  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
