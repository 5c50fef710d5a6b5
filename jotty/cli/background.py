"""`jotty enqueue` and `jotty worker`: a goal for later, and the process that takes it up."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
import typer

from jotty.core.queue import NewTask, check_seconds, heartbeat_of
from jotty.errors import StorageError

from .deadline import Deadline, deadline
from .documents import as_document
from .failing import ExitCode, Interrupted, called_rightly, ended_by, perform
from .loading import background_workflow, load_app
from .logs import logged
from .options import (
    AppAddress,
    AsJson,
    Context,
    Debug,
    Goal,
    Mode,
    Order,
    QueueUrl,
    parse_context,
    parse_order,
    parse_retention,
)
from .printing import is_terminal, print_json, say
from .signals import Signals, heard
from .store import answering, opened
from .waiting import log_questions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from jotty.core.orchestration import WorkflowMode
    from jotty.core.queue import EnqueueOptions, TaskQueue

    from .loading import App

__all__ = ["enqueue", "worker"]

logger = logging.getLogger("jotty.cli")

TO_RELEASE: Final = 0.6  # seconds after the grace time, within which everything is given back


def enqueue(
    app: AppAddress,
    goal: Goal,
    *,
    queue: QueueUrl = None,
    context: Context = None,
    priority: Annotated[
        int, typer.Option("--priority", "-p", min=1, max=5, help="From 1, the most urgent, to 5.")
    ] = 3,
    delay: Annotated[
        float | None, typer.Option("--delay", metavar="SECONDS", help="Not to be run before so many seconds.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="While a task with this key is live, print that one's id and add nothing."
        ),
    ] = None,
    lane: Annotated[
        str | None, typer.Option("--lane", help="Another lane of the queue than the conductor's name.")
    ] = None,
    depends_on: Annotated[
        list[str] | None,
        typer.Option("--depends-on", metavar="ID", help="Run only after this task. Repeat it for more."),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option("--max-attempts", min=1, help="How often it may be tried.")
    ] = 3,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="How long an attempt may take.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="A name to filter by when reading. Repeat it for more."),
    ] = None,
    mode: Mode = None,
    order: Order = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Store a goal for a worker to run, and print its id."""
    options: EnqueueOptions = {
        "delay": delay,
        "key": key,
        "depends_on": depends_on or (),
        "max_attempts": max_attempts,
        "timeout": timeout,
        "tags": tag or (),
    }
    if lane is not None:
        options["lane"] = lane

    def work() -> Coroutine[Any, Any, ExitCode]:
        found, values = load_app(app, debug=debug), parse_context(context)
        rebuilt = partial(background_workflow, found, mode=mode, order=parse_order(order))
        return _enqueue(rebuilt, queue, goal, values, priority=priority, options=options, as_json=as_json)

    perform(work, debug=debug)


async def _enqueue(
    rebuilt: Callable[[TaskQueue], WorkflowMode],
    url: str | None,
    goal: str,
    context: Mapping[str, Any],
    *,
    priority: int,
    options: EnqueueOptions,
    as_json: bool,
) -> ExitCode:
    async with opened(url, creates=True) as queue:
        workflow = rebuilt(queue)
        with answering(queue.url), called_rightly():
            task_id = await workflow.enqueue_task(goal, context, priority, **options)
        if as_json:
            task = await queue.get(task_id)
            print_json({"id": task_id} if task is None else as_document(task))
        else:
            typer.echo(task_id)
        if is_terminal(sys.stdout):
            say(f"Follow it with: jotty tail {task_id} --queue {queue.url}")
    return ExitCode.OK


def worker(
    app: AppAddress,
    *,
    queue: QueueUrl = None,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            "--max-concurrent", min=1, help="How many goals to run at once, instead of the app's own number."
        ),
    ] = None,
    max_tasks: Annotated[
        int | None, typer.Option("--max-tasks", min=1, help="Stop after so many goals.")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Stop when nothing is ready or running.")] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0,
            help="How long running goals may take to finish when stopped.",
        ),
    ] = 25.0,
    lease_timeout: Annotated[
        float,
        typer.Option(
            "--lease-timeout",
            metavar="SECONDS",
            min=1,
            help="When others take a goal over, if this process dies.",
        ),
    ] = 30.0,
    heartbeat: Annotated[
        float | None,
        typer.Option(
            "--heartbeat",
            metavar="SECONDS",
            help="How often the leases are renewed: a third of --lease-timeout, or oftener.",
        ),
    ] = None,
    retention: Annotated[
        str,
        typer.Option(
            "--retention",
            metavar="AGE",
            help="How long finished tasks are kept in the store, like 12h or 7d; never deletes none.",
        ),
    ] = "7d",
    lane: Annotated[
        list[str] | None,
        typer.Option("--lane", help="A lane to take from, instead of the conductor's name. Repeat for more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Log JSON lines.")] = False,
    debug: Debug = False,
) -> None:
    """Run the goals of a queue until it is stopped.

    The first SIGINT or SIGTERM lets running goals finish within the grace time. What did not is given back
    to the queue, and the worker exits with 0. The second gives all back at once, and it exits with 130 or
    143.
    """

    def work() -> Coroutine[Any, Any, ExitCode]:
        with called_rightly():
            check_seconds("--grace", grace)
            check_seconds("--lease-timeout", lease_timeout, above_zero=True)
            heartbeat_of(lease_timeout, heartbeat)
            lanes = [NewTask(None, lane=name).lane for name in lane or ()] or None
        found = load_app(app, debug=debug)
        options = {
            "max_tasks": max_tasks,
            "max_concurrent": max_concurrent,
            "lease_timeout": lease_timeout,
            "heartbeat": heartbeat,
            "grace": grace,
            "retention": parse_retention(retention),
            "drain": drain,
            "lanes": lanes,
        }
        return _work(found, queue, options, as_json=as_json)

    perform(work, debug=debug)


async def _work(app: App, url: str | None, options: Mapping[str, Any], *, as_json: bool) -> ExitCode:
    ending = _Ending(options["grace"])
    with deadline(ending.begin, ending.conclude) as ending.deadline, logged(logging.INFO, as_json=as_json):
        async with opened(url, creates=True) as queue:
            ending.workflow = workflow = background_workflow(app, queue)
            with heard(ending.hear, enough=3) as signals:
                lanes = options["lanes"] or [workflow.conductor.name]
                logger.info("Working on %s, lane %s. Ctrl-C to stop.", queue.url, ", ".join(lanes))
                try:
                    ended = await workflow.process_queue(**options)
                except KeyboardInterrupt as error:  # an actor's: signals are heard otherwise
                    raise Interrupted(ended_by(error, "worker")) from error
                except StorageError:
                    ending.say_stopped("Stopped.")
                    raise
                if options["drain"] and not signals.count:
                    await log_questions(queue, lanes)
                ending.say_stopped(f"Stopped. {ended} ended here.")
    return signals.code if signals.count > 1 else ExitCode.OK


@attrs.define(eq=False)
class _Ending:
    """How a worker ends when it is told to: in time, and not without a word.

    Attributes:
        grace: How many seconds what runs has to finish.
        deadline: Ends the process, at last.
        workflow: What works.
    """

    grace: float
    deadline: Deadline = attrs.field(init=False)
    workflow: WorkflowMode = attrs.field(init=False)
    _has_stopped: bool = attrs.field(init=False, default=False)

    def hear(self, signals: Signals) -> None:
        if signals.count == 1:
            self.deadline.set(self.grace + TO_RELEASE, self._code_of(ExitCode.OK))
            self.workflow.stop_processing()
        else:
            # nothing is cancelled from here: that would wait for threads before it gave anything back
            self.deadline.set(TO_RELEASE, self._code_of(signals.code))
            self.workflow.stop_processing(grace=0)

    def _code_of(self, code: ExitCode) -> Callable[[], ExitCode]:
        return lambda: ExitCode.UNREACHABLE if self.workflow.unsettled else code

    def begin(self) -> None:
        logger.info("Stopping: what runs has %g s to finish. Again to stop now.", self.grace)

    def conclude(self) -> None:
        for task_id in self.workflow.unsettled:
            logger.warning(
                "Task %s could not be given back in time; others have it when its lease ends, "
                "at the cost of an attempt.",
                task_id,
            )
        if not self._has_stopped:
            self.say_stopped("Stopped.")

    def say_stopped(self, words: str) -> None:
        self._has_stopped = True
        logger.info(words)
