from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import typer

from jotty.cli.failing import ExitCode, perform

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty, Start

RESULT = "Hello Ada, welcome.\nThe sum is 6.\n"


def test_the_result_stands_alone_on_stdout_and_the_progress_on_stderr(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "-c", "name=Ada", "-c", "numbers=[1,2,3]")

    assert RESULT == ran.stdout
    assert 0 == ran.exit_code
    assert {"greet: started", "an actor prints", "count: started"} <= set(ran.stderr.splitlines())
    assert "reply: done in" in ran.stderr


def test_json_gives_the_whole_result_as_one_document(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "-c", "name=Ada", "--json")

    result = json.loads(ran.stdout)
    assert result["success"] is True
    assert {"greet", "count", "reply"} == set(result["actor_outputs"])
    assert "Hello Ada, welcome.\nThe sum is 0." == result["final_output"]


def test_an_output_that_is_no_text_is_printed_as_json(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "--order", "count", "-c", "numbers=[1]")

    assert 1 == json.loads(ran.stdout)


def test_an_actors_failure_is_told_with_its_note_and_without_a_traceback(
    jotty: Jotty, app_file: Path
) -> None:
    ran = jotty("run", str(app_file), "Greet", "-c", "fail=true")

    assert 1 == ran.exit_code
    assert "" == ran.stdout
    assert "Error: KeyError: 'boom'\nRaised by actor 'reply', attempt 1, of run" in ran.stderr
    assert "--debug" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_debug_shows_the_traceback_of_a_failure(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "-c", "fail=true", "--debug")

    assert 1 == ran.exit_code
    assert "Traceback" in ran.stderr
    assert 'raise KeyError("boom")' in ran.stderr


def test_the_json_of_a_failed_run_holds_what_was_finished(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "-c", "fail=true", "--json")

    result = json.loads(ran.stdout)
    assert 1 == ran.exit_code
    assert result["success"] is False
    assert ["greet", "count"] == list(result["actor_outputs"])
    assert "boom" in result["errors"][0]["message"]


def test_a_failure_that_the_app_continues_from_is_a_warning(jotty: Jotty, app_file: Path) -> None:
    app_file.write_text(app_file.read_text().replace("reply])", "reply], on_error='continue')"))

    ran = jotty("run", str(app_file), "Greet", "-c", "fail=true")

    assert 0 == ran.exit_code
    assert "Warning: actor 'reply' failed with KeyError" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing argument 'APP'"),
        (("{app}",), "Missing argument 'GOAL'"),
        (("{app}", "g", "-c", "name"), "KEY=VALUE"),
        (("{app}", "g", "--max-iterations", "0"), "--max-iterations"),
        (("{app}", "g", "--mode", "sideways"), "sideways"),
        (("{app}", "g", "--order", "nobody"), "'nobody', which is no actor here"),
        (("{app}", "g", "-c", "goal=x"), "'goal' is a reserved name and a context key at once"),
        (("nowhere.py", "g"), "No file"),
    ],
)
def test_what_is_wrong_with_the_call_is_said_before_anything_runs(
    jotty: Jotty, app_file: Path, arguments: tuple[str, ...], words: str
) -> None:
    ran = jotty("run", *(each.format(app=app_file) for each in arguments))

    assert 2 == ran.exit_code
    assert words in ran.stderr
    assert "started" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_parameter_that_nothing_provides_is_named_with_its_actor(jotty: Jotty, app_file: Path) -> None:
    app_file.write_text(app_file.read_text().replace('name: str = "nobody"', "name: str"))

    ran = jotty("run", str(app_file), "Greet")

    assert 2 == ran.exit_code
    assert "'name' of actor 'greet'" in ran.stderr


def test_a_run_beyond_its_bounds_fails(jotty: Jotty, app_file: Path) -> None:
    ran = jotty("run", str(app_file), "Greet", "--max-iterations", "2")

    assert 1 == ran.exit_code
    assert "max_iterations=2" in ran.stderr


SLOW = """
import anyio

from jotty.core.orchestration import Conductor


async def sleep(goal):
    try:
        await anyio.sleep(60)
    finally:
        print("cleaned up", flush=True)


conductor = Conductor([sleep])
"""


QUITTER = """
import sys

from jotty.core.orchestration import Conductor


async def before(goal):
    return goal


async def quit(before):
    {statement}


conductor = Conductor([before, quit])
"""


@pytest.mark.parametrize(
    "statement",
    ["sys.exit(5)", "sys.exit(0)", "raise KeyboardInterrupt", "raise GeneratorExit"],
)
def test_an_actor_that_ends_the_process_has_failed(jotty: Jotty, app_file: Path, statement: str) -> None:
    app_file.write_text(QUITTER.format(statement=statement))

    ran = jotty("run", str(app_file), "Quit", "--json")

    assert 1 == ran.exit_code
    assert "\nError: Actor 'quit' " in ran.stderr
    assert statement.removeprefix("raise ") in ran.stderr
    assert "Traceback" not in ran.stderr
    assert {"before": "Quit"} == json.loads(ran.stdout)["actor_outputs"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("BaseException('x')", "BaseException: x"),
        ("BrokenPipeError(32, 'Broken pipe')", "BrokenPipeError: [Errno 32] Broken pipe"),
        (
            "BaseExceptionGroup('g', [KeyboardInterrupt()])",
            "BaseExceptionGroup: g (1 sub-exception)\nIn it: KeyboardInterrupt",
        ),
    ],
)
def test_whatever_an_actor_raises_is_told_in_words(
    jotty: Jotty, app_file: Path, raised: str, told: str
) -> None:
    app_file.write_text(QUITTER.format(statement=f"raise {raised}"))

    ran = jotty("run", str(app_file), "Quit", "--json")

    assert 1 == ran.exit_code
    assert f"\nError: {told}\nRaised by actor 'quit', attempt 1," in ran.stderr
    assert "Traceback" not in ran.stderr
    assert {"before": "Quit"} == json.loads(ran.stdout)["actor_outputs"]


def test_an_interrupt_of_nobody_in_particular_ends_the_command_quietly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt() -> ExitCode:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as end:
        perform(interrupt, debug=False)

    assert 130 == end.value.exit_code
    assert ("", "") == capsys.readouterr()


def test_a_sys_exit_of_nobody_in_particular_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as end:
        perform(sys.exit, debug=False)

    assert 1 == end.value.exit_code
    assert "Error: Something in this run called sys.exit(None)" in capsys.readouterr().err


def test_a_run_that_takes_longer_than_its_timeout_is_cancelled(jotty: Jotty, app_file: Path) -> None:
    app_file.write_text(SLOW)

    ran = jotty("run", str(app_file), "Sleep", "--timeout", "0.01")

    assert 1 == ran.exit_code
    assert "cleaned up" in ran.stderr
    assert "--timeout 0.01 s" in ran.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_the_run_and_gives_its_exit_code(
    start: Start, app_file: Path, number: signal.Signals, code: int
) -> None:
    app_file.write_text(SLOW)
    process = start("run", str(app_file), "Sleep")
    assert process.stderr is not None
    assert "sleep: started\n" == process.stderr.readline()

    process.send_signal(number)
    out, err = process.communicate(timeout=20)

    assert ("", "cleaned up\nInterrupted: the run was cancelled.\n") == (out, err)
    assert code == process.returncode


STUCK = SLOW.replace("async def sleep(goal):", "def sleep(goal):").replace("await anyio.sleep", "time.sleep")


def test_a_thread_that_cannot_be_stopped_does_not_keep_the_command_from_ending(
    start: Start, app_file: Path
) -> None:
    stubborn = "WorkflowMode(conductor, orchestrator=GraphOrchestrator(conductor, thread_grace=0.1))"
    text = STUCK.replace("import anyio", "import time").replace(
        "Conductor\n", "Conductor, GraphOrchestrator, WorkflowMode\n", 1
    )
    app_file.write_text(f"{text}\nworkflow = {stubborn}\n")

    process = start("run", str(app_file), "Sleep", "--timeout", "0.1")
    _, err = process.communicate(timeout=20)

    assert 1 == process.returncode
    assert "The thread of actor 'sleep' goes on" in err


def test_a_second_signal_ends_a_run_that_cannot_be_cancelled(start: Start, app_file: Path) -> None:
    app_file.write_text(STUCK.replace("import anyio", "import time"))
    process = start("run", str(app_file), "Sleep")
    assert process.stderr is not None
    process.stderr.readline()

    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=4)

    assert process.returncode in {130, 143}


ASKS = """
from jotty.core.orchestration import Conductor


async def before(goal):
    return goal


async def approve(before, ctx):
    return await ctx.ask("Publish it?", key="ok", options=["yes", 2])


conductor = Conductor([before, approve])
"""


def test_where_nobody_can_be_asked_a_question_fails_the_run_and_says_what_to_do(
    jotty: Jotty, app_file: Path
) -> None:
    app_file.write_text(ASKS)

    ran = jotty("run", str(app_file), "Publish", "--json")

    assert 1 == ran.exit_code
    assert "approve: asks ok: Publish it? (yes, 2)\n" in ran.stderr
    assert (
        "\nError: An actor asks 'Publish it?' (key 'ok'), and nobody can answer.\nRun it on a" in ran.stderr
    )
    assert "on_ask=" not in ran.stderr.partition("\nError: ")[2]
    assert {"before": "Publish"} == json.loads(ran.stdout)["actor_outputs"]


def test_where_nobody_can_be_asked_a_question_with_a_default_has_that(jotty: Jotty, app_file: Path) -> None:
    app_file.write_text(ASKS.replace('key="ok"', 'key="ok", timeout=3600, default="no"'))

    ran = jotty("run", str(app_file), "Publish")

    assert (0, "no\n") == (ran.exit_code, ran.stdout)
