"""The pages on the kit: each block is run, or is a file of the example; what fails there really does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_backend"
TESTING = (ROOT / "docs" / "testing.md").read_text()
BACKENDS = (ROOT / "docs" / "custom-backends.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120)


def test_each_block_is_a_test_file_that_passes(tmp_path: Path) -> None:
    blocks = [code for language, code in BLOCK.findall(TESTING) if language == "python"]
    for number, code in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(code)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    ran = run_pytest(tmp_path)

    assert 0 == ran.returncode, ran.stdout
    assert [] == [
        number for number, code in enumerate(blocks) if "\ndef test_" not in code.replace("async ", "")
    ]


def test_a_failed_assertion_reads_as_the_page_says() -> None:
    from jotty.testing import assert_events

    happened = [{"type": "agent_start", "agent": name} for name in ("research", "write", "review")]
    with pytest.raises(AssertionError) as caught:
        assert_events(happened, ["agent_start research", "agent_start review"])

    assert f"```text\n{caught.value}\n```\n" in TESTING


@pytest.mark.parametrize(
    ("name", "code"), FILE.findall(BACKENDS), ids=lambda value: value[:40].partition("\n")[0]
)
def test_each_file_on_the_page_is_that_of_the_example(name: str, code: str) -> None:
    assert (EXAMPLE / name).read_text() == code


def installed(tmp_path: Path, files: dict[str, str]) -> Path:
    """Lay the files out as an installed distribution, entry points and all."""
    site = tmp_path / "site"
    about = site / "jotty_plain-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jotty-plain\nVersion: 0.1.0\n")
    points = re.findall(
        r'^(\w+) = "([\w.:]+)"$', files["pyproject.toml"].partition("jotty.queues")[2], re.MULTILINE
    )
    lines = "".join(f"{name} = {value}\n" for name, value in points)
    (about / "entry_points.txt").write_text(f"[jotty.queues]\n{lines}")
    for name, code in files.items():
        path = (site if name.startswith("src/") else tmp_path) / name.removeprefix("src/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return site


def test_who_copies_the_files_off_the_page_gets_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(FILE.findall(BACKENDS))
    monkeypatch.setenv("PYTHONPATH", str(installed(tmp_path, files)))
    some = "c13 or c18 or (c42 and claim) or c06_what_was"

    ran = run_pytest(tmp_path, "tests/test_lines.py", "-k", some)

    assert 0 == ran.returncode, ran.stdout
    assert " failed" not in ran.stdout


def test_the_failure_on_the_page_is_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.py")]
    files = {str(name): (EXAMPLE / name).read_text() for name in [*names, Path("pyproject.toml")]}
    told, _, rest = files["src/jotty_plain/document.py"].partition(
        "        try:\n            await checkpoint_if"
    )
    assert rest
    _, _, rest = rest.partition("        return value\n")
    files["src/jotty_plain/document.py"] = f"{told}        return value\n{rest}"
    monkeypatch.setenv("PYTHONPATH", str(installed(tmp_path, files)))

    ran = run_pytest(tmp_path, "tests/test_document.py", "-k", "c42_a_cancelled_claim and asyncio")

    (shown,) = (text for language, text in BLOCK.findall(BACKENDS) if language == "text" and "E  " in text)
    assert 1 == ran.returncode
    for line in shown.splitlines():
        assert line in ran.stdout
