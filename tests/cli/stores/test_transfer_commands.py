from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import NewTask, Ref

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.stores.conftest import Store

    Exported = Callable[[str], Path]


@pytest.fixture
def new(store_at: Callable[[str], Store], tmp_path: Path) -> Store:
    """Return a store that is not there yet."""
    return store_at(f"sqlite:///{tmp_path / 'new.db'}")


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    def write(text: str) -> Path:
        path = tmp_path / "tasks.jsonl"
        path.write_text(text)
        return path

    return write


def test_what_was_exported_can_be_imported_elsewhere_and_exported_again(
    store: Store, new: Store, exported: Exported
) -> None:
    done = store.finish(NewTask("é\u2028", {"n": 1}), NewTask("b"))
    waiting = store.enqueue(NewTask("c", key="k"), NewTask("d", depends_on=[Ref(0)], tags=["t"]))

    out = store.jotty("export")
    ran = new.jotty("import", str(exported(out.stdout)))
    again = new.jotty("export")

    assert (0, "4 exported.\n") == (out.exit_code, out.stderr)
    assert out.stdout.isascii()
    assert [1] * 4 == [json.loads(line)["jotty"] for line in out.stdout.splitlines()]
    assert (0, "4 imported\n", "") == (ran.exit_code, ran.stdout, ran.stderr)
    assert without_versions(out.stdout) == without_versions(again.stdout)
    assert ["completed", "completed", "pending", "blocked"] == new.states(*done, *waiting)


def without_versions(lines: str) -> list[Any]:
    found = [json.loads(line) for line in lines.splitlines()]
    for one in found:
        del one["head"]["version"]
    return found


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ["a", "b", "c"]),
        (["--status", "backlog"], ["c"]),
        (["--status", "backlog", "--status", "pending"], ["a", "b", "c"]),
        (["--lane", "other"], ["b"]),
        (["--tag", "t"], ["a"]),
        (["--key", "k"], ["b"]),
        (["--key", "nobody", "--json"], []),
    ],
)
def test_tasks_are_exported_by_what_they_are_like(
    store: Store, conditions: list[str], expected: list[str]
) -> None:
    store.enqueue(
        NewTask("a", tags=["t"]), NewTask("b", lane="other", key="k"), NewTask("c", status="backlog")
    )

    ran = store.jotty("export", *conditions)

    assert 0 == ran.exit_code
    assert expected == [json.loads(line)["goal"] for line in ran.stdout.splitlines()]


def test_tasks_that_are_there_are_left_and_counted(store: Store, exported: Exported) -> None:
    ids = store.enqueue(NewTask("a"), NewTask("b"))
    path = str(exported(store.jotty("export").stdout))
    store.jotty("cancel", *ids)
    store.jotty("delete", ids[1])

    tried = store.read("import", path, "--dry-run")
    ran = store.jotty("import", path)

    assert {"imported": 1, "left": 1, "refused": 0, "dry_run": True} == tried
    assert (0, "1 imported\n") == (ran.exit_code, ran.stdout)
    assert "1 was there already" in ran.stderr
    assert ["cancelled", "pending"] == store.states(*ids)


def test_broken_lines_are_named_and_the_others_imported(store: Store, new: Store, exported: Exported) -> None:
    ids = store.enqueue(NewTask("a"), NewTask("b"), NewTask("c"))
    lines = store.jotty("export").stdout.splitlines()
    newer = json.dumps({**json.loads(lines[2]), "jotty": 9})
    file = str(exported("\n".join(["{broken", lines[0], newer, lines[1][:-1], ""])))

    tried = store.jotty("import", file, "--dry-run")
    broken = new.jotty("import", file)
    mended = new.jotty("import", str(exported("\n".join([*lines, ""]))))

    assert (1, "0 would be imported\n") == (tried.exit_code, tried.stdout)
    assert (1, "1 imported\n") == (broken.exit_code, broken.stdout)
    named = [line.split(":")[1].split()[:2] for line in broken.stderr.splitlines()[:3]]
    assert [["line", "1"], ["line", "3"], ["line", "4"]] == named
    assert "3 lines refused. Mend them, and import the file again" in broken.stderr
    assert "3 lines would be refused." in tried.stderr
    assert "Traceback" not in broken.stderr
    assert (0, "2 imported\n") == (mended.exit_code, mended.stdout)
    assert ["pending"] * 3 == new.states(*ids)


def test_of_very_many_broken_lines_the_first_are_named_and_all_counted(
    store: Store, exported: Exported
) -> None:
    store.enqueue(NewTask("a"))
    good = store.jotty("export").stdout
    file = str(exported("{broken\n" * 500 + good))

    ran = store.jotty("import", file)
    told = store.jotty("import", file, "--json")

    assert 20 == ran.stderr.count("is no JSON")
    assert "500 lines, of which the first 20 are named here, refused." in ran.stderr
    assert {"imported": 0, "left": 1, "refused": 500, "dry_run": False} == json.loads(told.stdout)
    assert (1, 1) == (ran.exit_code, told.exit_code)


def test_a_trial_creates_no_store(store: Store, new: Store, exported: Exported, tmp_path: Path) -> None:
    store.enqueue(NewTask("a"))
    path = exported(store.jotty("export").stdout)

    ran = new.jotty("import", str(path), "--dry-run")

    assert 75 == ran.exit_code
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("file", ["nowhere.jsonl", ""])
def test_a_file_that_cannot_be_read_is_a_wrong_call(new: Store, tmp_path: Path, file: str) -> None:
    ran = new.jotty("import", str(tmp_path / file))

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert "cannot be read" in ran.stderr
    assert [] == list(tmp_path.iterdir())


def test_export_and_import_work_in_a_pipe(store: Store, new: Store, command: str) -> None:
    (task_id,) = store.enqueue(NewTask("é"))

    ran = subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            f"{command} export -q {store.url} | {command} import - -q {new.url}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "1 imported\n", "1 exported.\n") == (ran.returncode, ran.stdout, ran.stderr)
    assert "é" == new.get(task_id).goal


def test_an_import_that_waits_for_its_lines_can_be_interrupted(new: Store, command: str) -> None:
    arguments = [command, "import", "-", "-q", new.url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"\n" * 200_000)  # more than a pipe holds, so that it has begun to read
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=20)
        told = process.stderr.read()

    assert (130, b"") == (code, told)


def test_an_import_that_was_killed_is_completed_by_the_next(
    store: Store, store_at: Callable[[str], Store], exported: Exported, command: str
) -> None:
    target = store_at(f"{store.url}-new")
    ids = store.enqueue(*(NewTask(number, depends_on=[Ref(0)] if number else []) for number in range(250)))
    lines = store.jotty("export").stdout
    arguments = [command, "import", "-", "-q", target.url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        process.stdin.write(lines.encode() + b"\n" * 200_000)  # more than a pipe holds: it has begun to read
        process.kill()

    ran = target.jotty("import", str(exported(lines)))

    assert 0 == ran.exit_code
    assert ["pending"] + ["blocked"] * 249 == target.states(*ids)
    assert 250 == sum(target.read("status")["total"].values())
