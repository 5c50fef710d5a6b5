from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jotty
import jotty.core.orchestration
import jotty.core.queue
import jotty.errors

ROOT = Path(jotty.__file__).parent.parent
PACKAGES = [jotty, jotty.core.orchestration, jotty.core.queue, jotty.errors]


def imported_by(path: Path) -> set[str]:
    """Every absolute module that a file imports when it is loaded or used, not only for type checking."""
    tree = ast.parse(path.read_text())
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(_without_type_checking(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.add(".".join([*parent, node.module or ""]).strip("."))
    return {name for name in found if name.split(".")[0] in {"jotty", "jotty_backends"}}


def _without_type_checking(tree: ast.Module) -> ast.Module:
    class Strip(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if is_typing else self.generic_visit(node)

    stripped = Strip().visit(tree)
    assert isinstance(stripped, ast.Module)
    return stripped


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("jotty/core/queue", ("jotty.core.queue", "jotty.errors")),
        ("jotty/core/orchestration", ("jotty.core.orchestration", "jotty.core.queue", "jotty.errors")),
        (
            "backends/jotty_backends",
            ("jotty.core.queue", "jotty.errors", "backends.jotty_backends", "jotty_backends"),
        ),
        ("jotty/errors.py", ()),
        ("jotty/testing", ("jotty",)),
        ("jotty/cli", ("jotty",)),
    ],
)
def test_imports_point_one_way(room: str, allowed: tuple[str, ...]) -> None:
    path = ROOT / room
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))

    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in imported_by(file)
        if not any(name == one or name.startswith(f"{one}.") for one in allowed)
    }

    assert files
    assert wrong == set()


def test_nothing_imports_a_backend() -> None:
    wrong = {
        f"{file}: {name}"
        for file in (ROOT / "jotty").rglob("*.py")
        for name in imported_by(file)
        if name.startswith("jotty_backends")
    }

    assert wrong == set()


def test_the_orchestrator_does_not_know_the_conductor() -> None:
    names = imported_by(ROOT / "jotty/core/orchestration/orchestrator.py")

    assert "jotty.core.orchestration.conductor" not in names


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_public_names_are_there_once(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]

    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(package, name)] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_class_and_function_has_a_docstring(package: object) -> None:
    found = {name: getattr(package, name) for name in package.__all__}  # type: ignore[attr-defined]
    own = {name: one for name, one in found.items() if inspect.isclass(one) or inspect.isfunction(one)}

    assert [name for name, value in own.items() if not value.__doc__] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Conducter"):
        _ = jotty.Conducter
    with pytest.raises(AttributeError, match="SQLTaskQueue"):
        _ = jotty.core.queue.SQLTaskQueue


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import jotty",
        "import jotty.core.queue, jotty.core.orchestration, jotty.errors",
        "from jotty import Conductor, WorkflowMode, actor, TaskQueue, open_queue",
    ],
)
def test_importing_loads_no_backend_no_driver_and_no_tool(statement: str) -> None:
    loaded = modules_after(statement)
    unwanted = {"jotty_backends", "sqlite3", "_sqlite3", "typer", "rich", "pytest", "hypothesis", "trio"}

    assert {name for name in loaded if name.split(".")[0] in unwanted} == set()


def test_a_sync_workflow_loads_no_worker_and_no_log() -> None:
    loaded = modules_after(
        "import jotty; echo = jotty.actor(lambda goal: goal, name='echo');"
        "jotty.WorkflowMode(jotty.Conductor([echo]))"
    )
    heavy = ("jotty.core.queue.worker", "jotty.core.queue.log")

    assert "jotty.core.orchestration.run" in loaded
    assert {name for name in loaded if name.startswith(heavy)} == set()


def test_no_public_name_is_hidden_by_a_module_of_that_name() -> None:
    """A lazily loaded name gives way to a submodule that was imported before it was asked for."""
    names = [
        f"{package.__name__}.{module.name}"
        for package in (jotty.core.queue, jotty.core.orchestration)
        for module in pkgutil.iter_modules(package.__path__)
    ]
    code = (
        f"import importlib; [importlib.import_module(name) for name in {names!r}]\n"
        "import jotty.core.orchestration as o, jotty.core.queue as q, types\n"
        "print(*[n for p in (o, q) for n in p.__all__ if isinstance(getattr(p, n), types.ModuleType)])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "points\n"


def test_a_queue_class_loads_its_own_backend_only() -> None:
    loaded = modules_after("from jotty import MemoryTaskQueue")

    assert "jotty_backends.memory" in loaded
    assert "jotty_backends.sqlite" not in loaded


def test_every_module_can_be_imported_first() -> None:
    """No module depends on another having been imported before it: there is no circle."""
    names = [
        module.name
        for package in (jotty.core.queue, jotty.core.orchestration)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {names!r}:\n"
        "    [sys.modules.pop(one) for one in list(sys.modules) if one.split('.')[0] == 'jotty']\n"
        "    importlib.import_module(name)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""
