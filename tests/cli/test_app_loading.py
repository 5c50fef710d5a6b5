from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from jotty.cli.failing import UsageError
from jotty.cli.loading import background_workflow, load_app, workflow_now
from jotty.core.orchestration import Conductor, GraphMode, WorkflowMode
from jotty.core.queue import MemoryTaskQueue
from jotty.errors import GraphError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
from jotty.core.orchestration import Conductor, WorkflowMode, actor
from jotty.core.queue import MemoryTaskQueue


async def first(goal): return goal
async def second(goal): return goal


"""
ONE = "conductor = Conductor([first, second], name='one')"
TWO = """
class holder:
    inner = Conductor([first])

one = Conductor([first])
two = Conductor([second])
number = 7
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    return lambda name, text: (tmp_path / name).write_text(HEAD + text)


if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str], int]


@pytest.mark.parametrize(
    "address", ["one_app.py", "./one_app.py", "one_app.py:conductor", "one_app", "one_app:conductor"]
)
def test_the_only_conductor_is_found_by_file_or_module_with_or_without_its_name(
    write: Write, address: str
) -> None:
    write("one_app.py", ONE)

    app = load_app(address)

    assert isinstance(app, Conductor)
    assert "one" == app.name


def test_an_absolute_path_and_a_dotted_attribute_work(write: Write, tmp_path: Path) -> None:
    write("two_apps.py", TWO)

    assert isinstance(load_app(f"{tmp_path / 'two_apps.py'}:holder.inner"), Conductor)


def test_a_workflow_stands_for_its_conductor_and_a_second_name_is_no_second_app(write: Write) -> None:
    write("flow_app.py", f"{ONE}\nworkflow = WorkflowMode(conductor)\nagain = workflow")

    assert isinstance(load_app("flow_app.py"), WorkflowMode)


NESTED = """
deep = Conductor([first], name='deep')
section = Conductor([actor(deep, bind={'goal': 'second'}), second], name='section')
conductor = Conductor([Conductor([section], name='middle')], name='whole')
"""


@pytest.mark.parametrize("more", ["", "workflow = WorkflowMode(conductor)"])
def test_a_conductor_within_another_one_is_no_second_app_but_can_be_named(write: Write, more: str) -> None:
    write("nested_app.py", NESTED + more)
    app, section = load_app("nested_app.py"), load_app("nested_app.py:section")

    assert "whole" == (app.conductor if isinstance(app, WorkflowMode) else app).name
    assert isinstance(section, Conductor)
    assert "section" == section.name


def test_a_file_finds_its_neighbours_and_what_it_prints_is_kept_from_stdout(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("neighbour_app.py", ONE)
    write("asking_app.py", "from neighbour_app import conductor\nprint('loading')")

    load_app("asking_app.py")

    assert ("", "loading\n") == capsys.readouterr()


@pytest.mark.parametrize("name", ["json", "attrs"])
def test_a_file_named_like_another_module_takes_nothing_from_it(write: Write, name: str) -> None:
    write(f"{name}.py", ONE)
    other = sys.modules[name]

    assert isinstance(load_app(f"{name}.py"), Conductor)
    assert other is sys.modules[name]


def test_of_several_apps_the_error_names_each_as_it_must_be_written(write: Write) -> None:
    write("two_apps.py", TWO)

    with pytest.raises(UsageError, match=r"two_apps\.py:one, two_apps\.py:two"):
        load_app("two_apps.py")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("absent.py", "No file 'absent.py'"),
        ("absent/", "No file 'absent'"),
        ("absent_module", "No module named 'absent_module'"),
        ("absent_module.inner:x", "No module named 'absent_module'"),
        ("two_apps.py:three", r"has no 'three'. There is: two_apps\.py:one"),
        ("two_apps.py:number", "is no Conductor or WorkflowMode, but 7"),
        ("empty_app.py", "holds no Conductor or WorkflowMode"),
        (
            "broken_app.py",
            r"line 10 of .*broken_app\.py.*ModuleNotFoundError: No module named 'pandas_of_mine'",
        ),
        ("wrong_app.py", r"line 10 of .*wrong_app\.py.*ZeroDivisionError"),
        (
            "unfinished_app.py",
            r"'unfinished_app.py' can't be imported: SyntaxError: .*unfinished_app.py, line 10",
        ),
        (
            "neighbour_of_unfinished.py",
            r"line 10 of .*neighbour_of_unfinished\.py.*unfinished_app.py, line 10",
        ),
        (".", "'.' names no module. APP is module:attribute, or path.py"),
        ("", "'' names no module. APP is module:attribute, or path.py"),
        (":conductor", "':conductor' names no module"),
        ("..above:conductor", "'..above' names no module"),
        ("script_app.py", "it calls sys.exit"),
        ("graphless_app.py", r"line 10 of .*graphless_app\.py.*GraphError: Two actors are named 'first'"),
        ("unparsed_app.py", r"line 12 of .*unparsed_app\.py.*JSONDecodeError"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_a_usage_error_that_says_why(
    write: Write, address: str, words: str
) -> None:
    write("two_apps.py", TWO)
    write("empty_app.py", "")
    write("broken_app.py", "import pandas_of_mine")
    write("wrong_app.py", "1 / 0")
    write("unfinished_app.py", "def f(:")
    write("neighbour_of_unfinished.py", "import unfinished_app")
    write("script_app.py", "raise SystemExit(3)")
    write("graphless_app.py", "Conductor([first, first])")
    write("unparsed_app.py", "import json\n\njson.loads('{')")

    with pytest.raises(UsageError, match=words):
        load_app(address)


def test_with_debug_the_traceback_of_an_import_is_shown(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("wrong_app.py", "1 / 0")

    with pytest.raises(UsageError):
        load_app("wrong_app.py", debug=True)

    assert "Traceback" in capsys.readouterr().err


def test_a_workflow_is_rebuilt_over_another_queue_in_its_own_mode(write: Write) -> None:
    write(
        "queued_app.py",
        "c = Conductor([first, second])\n"
        "w = WorkflowMode(c, 'async', MemoryTaskQueue(), 'static', ['second', 'first'], max_concurrent=7)",
    )
    app, queue = load_app("queued_app.py"), MemoryTaskQueue()

    rebuilt = background_workflow(app, queue)

    assert queue is rebuilt.queue
    assert 7 == rebuilt.max_concurrent
    assert ["second", "first"] == [*rebuilt.orchestrator.graph().nodes]
    assert "sync" == workflow_now(app).execution


def test_mode_and_order_of_the_command_line_win(write: Write) -> None:
    write("one_app.py", ONE)
    app = load_app("one_app.py")

    assert GraphMode.STATIC is workflow_now(app, mode="static").mode
    assert ["second"] == [*workflow_now(app, order=["second"]).orchestrator.graph().nodes]
    with pytest.raises(UsageError, match="sideways"):
        workflow_now(app, mode="sideways")
    with pytest.raises(UsageError, match="dynamic"):
        workflow_now(app, mode="dynamic", order=["first"])
    with pytest.raises(GraphError, match="third"):
        workflow_now(app, order=["third"])


def test_a_strangers_orchestrator_is_kept_and_takes_no_mode(write: Write) -> None:
    write(
        "own_app.py",
        "class Own:\n    async def run(self, *_): ...\n    def run_stream(self, *_): ...\n"
        "w = WorkflowMode(Conductor([first]), orchestrator=Own())",
    )
    app = load_app("own_app.py")

    assert isinstance(app, WorkflowMode)
    assert app.orchestrator is workflow_now(app).orchestrator
    with pytest.raises(UsageError, match="--mode"):
        workflow_now(app, mode="static")
