"""`jotty conformance`: whether a backend keeps the queue contract, rule by rule."""

from __future__ import annotations

import platform
import signal
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import attrs
import typer

from jotty.core.queue import backends, load_backend
from jotty.errors import MissingDependency

from .failing import ExitCode, UsageError, called_rightly, perform
from .options import Debug  # noqa: TC001 - typer reads it from the signatures
from .printing import console, is_terminal, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import TextIO

    from jotty.testing.findings import RuleVerdict
    from jotty.testing.trial import Finding

__all__ = ["conformance"]

STDOUT: Final = "-"


def conformance(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="A backend, like memory: or sqlite:///tasks.db; the store itself is not touched.",
        ),
    ],
    *,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Only this rule, like C18, or seam: what the queue needs of a backend beyond the rules. "
            "Repeat it for more.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out what needs real processes, and try on asyncio only.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Fail a test that takes longer."),
    ] = 300.0,
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the verdict as JSON; - prints it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Try a backend on fresh stores, and tell which rules of the queue contract it keeps."""
    perform(
        lambda: _conformance(url, rules or [], quick=quick, timeout=timeout, as_json=as_json), debug=debug
    )


def _conformance(
    url: str, rules: Collection[str], *, quick: bool, timeout: float, as_json: str | None
) -> ExitCode:
    try:
        from jotty.testing.findings import by_rule
        from jotty.testing.fresh import FreshStores
        from jotty.testing.guarded import GuardedTrial, run_guarded
    except ModuleNotFoundError as missing:
        raise MissingDependency(missing.name or "pytest", "testing") from missing
    asked = _asked(rules)
    with called_rightly():
        stores = FreshStores.beside(url)
    if as_json is not None and as_json != STDOUT:
        _check_writable(Path(as_json))
    began = time.monotonic()
    progress = _Progress(sys.stderr)
    try:
        with progress, _ended_by_sigterm():
            findings = run_guarded(
                GuardedTrial(url=url, rules=asked or None, quick=quick, timeout=timeout), progress
            )
    except KeyboardInterrupt as end:
        say(f"Interrupted as this ran: {progress.test or 'nothing yet'}")
        if isinstance(end, _Terminated):
            return ExitCode.TERMINATED
        raise
    verdicts = by_rule(findings)
    document = _document(url, stores.scheme, verdicts, time.monotonic() - began)
    if as_json == STDOUT:
        print_json(document)
    else:
        _print(verdicts)
        if as_json is not None:
            _write(Path(as_json), document)
    say(_sentence(document, verdicts))
    return ExitCode.OK if document["ok"] else ExitCode.NONCONFORMING


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have the first SIGTERM end the block as Ctrl-C does, so that nothing is left behind."""

    def handle(number: int, _: object) -> None:
        signal.signal(number, before)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, handle) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _asked(rules: Collection[str]) -> list[str]:
    from jotty.testing.contract import RULES
    from jotty.testing.findings import SEAM

    asked = [SEAM if name.lower() == SEAM else name.upper() for name in rules]
    if unknown := sorted({*asked} - {*RULES, SEAM}):
        raise UsageError(f"There is no rule {', '.join(unknown)}. They are C1 to C{len(RULES)}, and {SEAM}.")
    return asked


class _Progress:
    """Tells on a terminal which test runs, and anywhere what fails.

    Attributes:
        test: The test that runs, or that ran last.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_watched = is_terminal(stream)
        self._width = console(stream).width - 1
        self._done = 0
        self._failed: set[str] = set()
        self.test = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def begin(self, test: str, number: int) -> None:
        self.test = test
        if self._is_watched:
            self._clear()
            typer.echo(f"{self._done} of {number} tests: {test}"[: self._width], file=self._stream, nl=False)
            self._stream.flush()

    def tell(self, finding: Finding) -> None:
        self._done += 1
        name = finding.test.partition("[")[0]
        if finding.outcome == "failed" and name not in self._failed:
            self._failed.add(name)
            self._clear()
            typer.echo(f"{name} fails", file=self._stream)

    def _clear(self) -> None:
        if self._is_watched:
            typer.echo("\r\x1b[2K", file=self._stream, nl=False)


def _document(url: str, scheme: str, verdicts: Sequence[RuleVerdict], seconds: float) -> dict[str, Any]:
    backend = load_backend(scheme)
    distribution = backends()[scheme]
    return {
        "url": url,
        "ok": all(one.outcome != "failed" for one in verdicts),
        "backend": {
            "name": scheme,
            "class": f"{backend.__module__}.{backend.__qualname__}",
            "capabilities": sorted(backend.capabilities),
            "distribution": distribution,
            "version": version(distribution),
        },
        "jotty": version("jotty"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "seconds": round(seconds, 3),
        "rules": [attrs.asdict(one) for one in verdicts],
    }


def _print(verdicts: Sequence[RuleVerdict]) -> None:
    rows = [[one.rule, one.outcome, str(one.tests), str(one.failed), one.reason] for one in verdicts]
    print_table(["rule", "outcome", "tests", "failed", "left out"], rows)
    for one in verdicts:
        if one.message:
            typer.echo(f"\n{one.message}")


def _sentence(document: dict[str, Any], verdicts: Sequence[RuleVerdict]) -> str:
    outcomes = [one.outcome for one in verdicts]
    told = [f"{outcomes.count(kind)} {kind}" for kind in ("passed", "failed", "left out") if kind in outcomes]
    return f"{', '.join(told)}, in {document['seconds']:.0f} s."


def _check_writable(path: Path) -> None:
    """Find out, without a trace, whether a file can be written; of a pipe, its reader would notice."""
    is_new = not path.exists()
    if not (is_new or path.is_file() or path.is_dir()):
        return
    with _writing(path):
        path.open("ab").close()
        if is_new:
            path.unlink()


def _write(path: Path, document: dict[str, Any]) -> None:
    import json

    with _writing(path):
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise UsageError(f"{path} cannot be written: {failure.strerror}.") from failure
