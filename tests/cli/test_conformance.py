from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty

FORGETFUL = """
import os
import threading
import time

import anyio

from jotty_backends.memory import MemoryBackend


class ForgetfulBackend(MemoryBackend):
    scheme = "forgetful"

    def clone(self):
        twin = super().clone()
        twin.__class__ = ForgetfulBackend
        return twin

    async def append(self, task_id, lease, entries):
        return 1 + await super().append(task_id, lease, entries)

    async def extend(self, leases, us):
        match os.environ.get("HANGING"):
            case "an await":
                await anyio.sleep_forever()
            case "a lock":
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
            case "a thread":
                await anyio.to_thread.run_sync(time.sleep, 3600)
            case "its end":
                os._exit(3)
        return await super().extend(leases, us)
"""


LATE = b"test_c19_a_late_heartbeat_revives_the_lease"


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a stranger's backend that miscounts journal entries."""
    info = tmp_path / "forgetful-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetful\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[jotty.queues]\nforgetful = forgetful:ForgetfulBackend\n")
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_what_keeps_its_rules_passes(jotty: Jotty) -> None:
    ran = jotty("conformance", "memory:", "--rule", "C21", "--rule", "c29")

    assert 0 == ran.exit_code
    assert ["rule\toutcome\ttests\tfailed\tleft out", "C21\tpassed\t2\t0", "C29\tpassed\t2\t0"] == [
        line.partition("\tC21 [K]")[0].rstrip() for line in ran.stdout.splitlines()
    ]
    assert "2 passed, in " in ran.stderr


@pytest.mark.usefixtures("forgetful")
def test_a_broken_rule_is_told_with_its_words_and_exit_code_5(jotty: Jotty) -> None:
    ran = jotty("conformance", "forgetful:", "--rule", "C37", "--rule", "C30", "--quick")

    assert 5 == ran.exit_code
    assert "C30\tpassed\t1\t0" in ran.stdout
    assert "C37\tfailed\t" in ran.stdout
    assert "C37 is broken. It says: Each task has a journal: numbered 1, 2, 3 without holes" in ran.stdout
    assert "test_c37_entries_are_numbered_without_holes fails" in ran.stderr


@pytest.mark.usefixtures("forgetful")
def test_the_verdict_as_json(jotty: Jotty, tmp_path: Path) -> None:
    ran = jotty("conformance", "forgetful:", "--rule", "C37", "--rule", "C46", "--json", str(tmp_path / "v"))
    verdict = json.loads((tmp_path / "v").read_text())
    c37, c46 = verdict["rules"]

    assert (5, False, "forgetful:") == (ran.exit_code, verdict["ok"], verdict["url"])
    assert {
        "name": "forgetful",
        "class": "forgetful.ForgetfulBackend",
        "capabilities": ["event_loops"],
        "distribution": "forgetful",
        "version": "2.5",
    } == verdict["backend"]
    assert (version("jotty"), ".".join(map(str, sys.version_info[:3]))) == (
        verdict["jotty"],
        verdict["python"],
    )
    assert verdict["platform"]
    assert ("C37", "failed", True) == (c37["rule"], c37["outcome"], 0 < c37["failed"] < c37["tests"])
    assert "test_c37_entries_are_numbered_without_holes" in c37["message"]
    assert ("C46", "left out", 0) == (c46["rule"], c46["outcome"], c46["tests"])
    assert "C46 [D] left out: the backend does not declare 'files' and 'processes'" == c46["reason"]


def test_json_may_be_printed(jotty: Jotty) -> None:
    ran = jotty("conformance", "memory:", "--rule", "C29", "--json", "-")

    assert [("C29", "passed")] == [(one["rule"], one["outcome"]) for one in json.loads(ran.stdout)["rules"]]


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_the_store_that_is_named_is_not_touched_and_nothing_is_left_behind(
    jotty: Jotty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").write_text("mine")
    ran = jotty("conformance", f"{scheme}:////{tmp_path}/tasks", "--rule", "C21")

    assert (0, "mine") == (ran.exit_code, (tmp_path / "tasks").read_text())
    assert [tmp_path / "tasks"] == list(tmp_path.iterdir())
    assert "C21\tpassed\t3\t0" in ran.stdout


def test_without_a_path_the_stores_are_in_the_systems_temporary_directory(
    jotty: Jotty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = jotty("conformance", "sqlite:", "--rule", "C29")

    assert 0 == ran.exit_code
    assert [] == list(tmp_path.iterdir())


def test_quick_leaves_out_what_needs_processes(jotty: Jotty) -> None:
    ran = jotty("conformance", "sqlite:", "--rule", "C22", "--rule", "C29", "--quick")

    assert 0 == ran.exit_code
    assert "C22\tleft out\t0\t0\tC22 [M] left out: it takes real processes" in ran.stdout
    assert "C29\tpassed\t1\t0" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch:"], "No queue backend named 'nosuch'"),
        (["tasks.db"], "is like 'sqlite:///tasks.db'"),
        (["sqlite:///no/such/directory/tasks.db"], "is no directory"),
        (["memory:a/b"], "Put {} there"),
        (["memory:", "--rule", "C51"], "There is no rule C51. They are C1 to C50, and seam."),
        (["memory:?colour=red"], "memory: has no option 'colour'. Known: max_payload, max_size."),
        (["sqlite:///tasks.db?busy_timeout=long"], "busy_timeout='long' is wrong"),
        (["sqlite:/tasks.db"], "Write sqlite:///relative.db or sqlite:////absolute.db"),
        (["sqlite:tasks.db"], "Write sqlite:///relative.db or sqlite:////absolute.db"),
        (["file://tasks"], "Write file:///relative or file:////absolute"),
        (["memory://"], "Three slashes make a path relative, four absolute"),
        (["memory:", "--json", "no/such/directory/verdict"], "cannot be written: No such file or directory"),
        (["memory:", "--json", "."], "cannot be written: Is a directory"),
        (["memory:", "--timeout", "0"], "0"),
    ],
)
def test_a_wrong_call_is_told_and_tries_nothing(jotty: Jotty, arguments: list[str], told: str) -> None:
    ran = jotty("conformance", *arguments)

    assert (2, "") == (ran.exit_code, ran.stdout)
    assert told in ran.stderr


def test_what_becomes_of_the_verdict_is_found_out_before_anything_runs(jotty: Jotty, tmp_path: Path) -> None:
    """A file that is there keeps what it holds, and one that is not is not made, until there is a verdict."""
    (tmp_path / "old").write_text("mine")
    for name in ("old", "new"):
        ran = jotty("conformance", "memory:", "--rule", "C51", "--json", str(tmp_path / name))
        assert 2 == ran.exit_code

    assert [("old", "mine")] == [(path.name, path.read_text()) for path in tmp_path.iterdir()]


def test_what_a_backend_promises_beyond_the_rules_is_a_row_of_its_own(jotty: Jotty) -> None:
    ran = jotty("conformance", "memory:", "--rule", "seam", "--quick")

    assert 0 == ran.exit_code
    assert ["rule", "seam"] == [line.split("\t")[0] for line in ran.stdout.splitlines()]


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("hanging", ["an await", "a lock", "a thread"])
def test_a_test_that_hangs_fails_and_the_others_are_run(
    jotty: Jotty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: str
) -> None:
    monkeypatch.setenv("HANGING", hanging)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    rules = ["--rule", "C3", "--rule", "C19", "--rule", "C26"]
    ran = jotty("conformance", "forgetful:", *rules, "--quick", "--timeout", "3")

    assert 5 == ran.exit_code
    assert "C3\tpassed\t" in ran.stdout
    assert "C19\tfailed\t7\t" in ran.stdout
    assert "C26\tpassed\t" in ran.stdout
    assert "test_c19_a_late_heartbeat_revives_the_lease fails" in ran.stderr
    assert "It was not over within 3 s." in ran.stdout
    assert [] == [*(tmp_path / "temporary").iterdir()]


@pytest.mark.usefixtures("forgetful")
def test_a_test_that_ends_the_process_fails(jotty: Jotty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANGING", "its end")
    ran = jotty("conformance", "forgetful:", "--rule", "C19", "--quick")

    assert 5 == ran.exit_code
    assert "It ended the process, with exit code 3." in ran.stdout


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("hanging", "number", "exit_code"),
    [
        ("an await", signal.SIGINT, 130),
        ("a lock", signal.SIGINT, 130),
        ("a thread", signal.SIGINT, 130),
        ("a lock", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_a_test_that_hangs_and_names_it(
    command: str, tmp_path: Path, hanging: str, number: signal.Signals, exit_code: int
) -> None:
    (tmp_path / "temporary").mkdir()
    environment = {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "temporary"), "HANGING": hanging}
    shown, terminal = os.openpty()
    ran = subprocess.Popen(
        [command, "conformance", "forgetful:", "--rule", "C19", "--quick"],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    told = _read_until(shown, LATE)
    ran.send_signal(number)
    code = ran.wait(30)
    told = _read_until(shown, b"Interrupted", told)
    os.close(shown)

    assert exit_code == code
    assert b"Interrupted as this ran: " + LATE in told
    assert [] == [*(tmp_path / "temporary").iterdir()]


def _read_until(descriptor: int, word: bytes, told: bytes = b"") -> bytes:
    while word not in told and select.select([descriptor], [], [], 30)[0]:
        told += os.read(descriptor, 1000)
    return told


def test_the_test_that_runs_is_shown_on_a_terminal(command: str) -> None:
    shown, terminal = os.openpty()
    ran = subprocess.run(
        [command, "conformance", "memory:", "--rule", "C29"],
        env=os.environ | {"COLUMNS": "60"},
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        check=False,
    )
    os.close(terminal)
    told = _read_until(shown, b"1 passed")
    os.close(shown)

    assert 0 == ran.returncode
    assert b"0 of 2 tests: test_c29_" in told
    assert b"1 of 2 tests: test_c29_" in told
    assert max(len(line) for line in told.replace(b"\n", b"\r").split(b"\r")) < 70


def test_without_pytest_the_command_says_which_extra_brings_it() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; sys.argv = ['jotty', 'conformance', 'memory:'];"
        "from jotty.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (1, "") == (ran.returncode, ran.stdout)
    assert "Error: 'pytest' is not installed. Install it with: pip install 'jotty[testing]'\n" == ran.stderr


@pytest.mark.usefixtures("forgetful")
def test_in_a_process_of_its_own_a_failure_shows_the_values_and_nothing_is_left_behind(
    command: str, tmp_path: Path
) -> None:
    for place in ("here", "temporary"):
        (tmp_path / place).mkdir()
    ran = subprocess.run(
        [command, "conformance", "forgetful:", "--rule", "C37", "--rule", "C13", "--quick"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 5 == ran.returncode
    assert "assert [2, 3, 3, 6] == [3, 4, 4, 7]" in ran.stdout
    assert [] == [*(tmp_path / "here").iterdir(), *(tmp_path / "temporary").iterdir()]
