from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from jotty.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty

COMMANDS = [
    "run",
    "enqueue",
    "worker",
    "status",
    "list",
    "show",
    "tail",
    "answer",
    "accept",
    "cancel",
    "retry",
    "delete",
    "purge",
    "migrate",
    "export",
    "import",
    "graph",
    "backends",
    "conformance",
]


def test_these_are_the_commands() -> None:
    assert COMMANDS == [command.name for command in app.registered_commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_takes_json_and_debug(jotty: Jotty, command: str) -> None:
    ran = jotty(command, "--help")

    assert 0 == ran.exit_code
    assert [] == [option for option in ("--json", "--debug") if option not in ran.stdout]


def test_without_the_extra_the_command_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['typer'] = None; from jotty.cli import main; main()"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (1, "") == (ran.returncode, ran.stdout)
    assert "Error: 'typer' is not installed. Install it with: pip install 'jotty[cli]'\n" == ran.stderr


INTERRUPTED = """
import sys


class Finder:
    def find_spec(name, *_):
        if name == "jotty.cli.app":
            raise KeyboardInterrupt


sys.meta_path.insert(0, Finder)
from jotty.cli import main
main()
"""


def test_an_interrupt_while_the_command_is_being_loaded_ends_it_quietly() -> None:
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)

    assert (130, "", "") == (ran.returncode, ran.stdout, ran.stderr)


def test_importing_the_package_loads_neither_typer_nor_rich() -> None:
    code = "import sys, jotty.cli; sys.exit({'typer', 'rich'} & set(sys.modules) != set())"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


@pytest.mark.parametrize("arguments", ["backends --json", "--help", "tail --help", "nonsense 2>&1"])
def test_a_reader_that_has_seen_enough_ends_the_command_quietly(command: str, arguments: str) -> None:
    """As programs do that die of SIGPIPE: a task that failed has another code."""
    ran = subprocess.run(
        ["sh", "-c", f"(sleep 0.1; {command} {arguments}; echo $? >&3) 3>&2 | true"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "141\n" == ran.stderr


PRINTER = """
from jotty.core.orchestration import Conductor


async def speak(goal):
    print("unheard")


conductor = Conductor([speak])
"""


def test_a_reader_that_has_seen_enough_ends_a_worker_quietly(command: str, tmp_path: Path) -> None:
    """What actors print is in a buffer until the end."""
    (tmp_path / "app.py").write_text(PRINTER)
    enqueue = f"{command} enqueue app.py Speak -q sqlite:///tasks.db >id"
    work = f"{command} worker app.py --drain -q sqlite:///tasks.db 2>log"

    ran = subprocess.run(
        ["sh", "-c", f"{enqueue}; ({work}; echo $? >code) | true; cat code log"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.startswith("141\n")
    assert "Stopped. 1 ended here." in ran.stdout
    assert "BrokenPipeError" not in ran.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_without_anywhere_to_print_to(command: str, tmp_path: Path, closed: str) -> None:
    (tmp_path / "app.py").write_text(FOREIGN)
    queue = "-q sqlite:///tasks.db"
    enqueue = f"{command} enqueue app.py Echo {queue} {closed}"
    work = f"{command} worker app.py --drain {queue} {closed}"
    show = f"{command} list {queue} --status completed --json"

    ran = subprocess.run(
        ["sh", "-ec", f"{enqueue}; {work}; {show}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 0 == ran.returncode, ran.stderr
    assert ["Echo"] == [task["goal"] for task in json.loads(ran.stdout[ran.stdout.index("[") :])]


def test_version_and_no_command(jotty: Jotty) -> None:
    assert f"jotty {version('jotty')}\n" == jotty("--version").stdout
    assert "Run actors towards a goal" in jotty().output
    assert 2 == jotty("frobnicate").exit_code


def test_graph_draws_for_mermaid_and_graphviz_and_as_json(jotty: Jotty, app_file: Path) -> None:
    mermaid = jotty("graph", str(app_file))
    dot = jotty("graph", str(app_file), "--format", "dot")
    document = jotty("graph", str(app_file), "--json")

    assert mermaid.stdout.startswith("flowchart TD\n")
    assert dot.stdout.startswith("digraph {\n")
    assert '"parents": [' in document.stdout
    assert 2 == jotty("graph", str(app_file), "--order", "nobody").exit_code


def test_backends_lists_what_is_installed(jotty: Jotty) -> None:
    lines = [line.split("\t") for line in jotty("backends").stdout.splitlines()]

    assert ["name", "distribution", "state"] == lines[0]
    assert ["memory", "jotty", "ready"] in lines
    assert ["sqlite", "jotty", "ready"] in lines


def test_a_backend_that_cannot_be_used_is_listed_with_the_reason(
    jotty: Jotty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "strange-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[jotty.queues]\nstrange = nowhere.to_be_found:Backend\n")
    monkeypatch.syspath_prepend(tmp_path)

    ran = jotty("backends", "--json")

    rows = {row["name"]: row for row in json.loads(ran.stdout)}
    assert "ready" == rows["memory"]["state"]
    assert "strange" == rows["strange"]["distribution"]
    assert "'nowhere'" in rows["strange"]["state"]


FOREIGN = """
from jotty.core.orchestration import Conductor, WorkflowMode


async def nothing(goal): ...


class Own:
    async def run(self, goal, context, max_iterations):
        return await anext(self.run_stream(goal, context, max_iterations))["result"]

    async def run_stream(self, goal, context, max_iterations):
        result = {"success": True, "final_output": goal, "actor_outputs": {}, "errors": [], "metadata": {}}
        yield {"type": "workflow_start", "run_id": "r", "seq": 1, "time": 0.0, "goal": goal, "agents": []}
        yield {"type": "workflow_complete", "run_id": "r", "seq": 2, "time": 0.0, "result": result}


workflow = WorkflowMode(Conductor([nothing]), orchestrator=Own())
"""


def test_a_strangers_orchestrator_runs_but_has_no_graph(jotty: Jotty, app_file: Path) -> None:
    app_file.write_text(FOREIGN)

    assert "Echo\n" == jotty("run", str(app_file), "Echo").stdout
    assert 1 == jotty("graph", str(app_file)).exit_code
