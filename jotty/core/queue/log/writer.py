"""The thread that follows and writes a log: callers hand it operations, and it appends them in groups."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from jotty.core.queue.operation import Inbox, Operation, deliver
from jotty.errors import QueueClosed, StorageError

from .contents import Vanished
from .session import InDoubt, LogSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue.clock import Clock
    from jotty.core.queue.topics import Topics

    from .seam import Log
    from .state import LoggedState

__all__ = ["LogWriter", "Opener"]

T = TypeVar("T")

_TICK: Final = 0.01  # seconds between two looks at what other processes have appended; under 1 % of a core
_SLICE: Final = 0.05  # seconds to wait for the lock before the readers get their turn


class Opener(Protocol):
    """A handle of which the thread asks for the log; it may die before the thread does."""

    def open_log(self, *, create: bool) -> Log:
        """See `LogBackend.open_log`."""
        ...


class LogWriter(Inbox["LoggedState"]):
    """A thread with a log; all the operations that wait are appended as one.

    The thread ends when the last handle has left, or was dropped.

    Args:
        url: The store's address, for errors.
        topics: Told what was changed.
        clock: The store's time.
        patience: Seconds after which an operation that could not begin fails.
        create: Whether the log may be made if it is not there.
    """

    def __init__(self, *, url: str, topics: Topics, clock: Clock, patience: float, create: bool) -> None:
        super().__init__(patience)
        self._url = url
        self._topics = topics
        self._clock = clock
        self._openers: dict[int, weakref.ref[Opener]] = {}
        self._create = create
        self._session: LogSession | None = None
        self._problem: Exception | None = None
        self._begun: Sequence[Operation[LoggedState, Any]] = ()
        self._farewells: list[Operation[LoggedState, None]] = []
        self._looked_at = 0.0
        self._has_asked = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._main, name=f"jotty {url}", daemon=True)

    def start(self) -> None:
        """Start the thread; the first handle has joined."""
        self._thread.start()

    # For the handles, on their event loops

    def join(self, handle: Opener) -> bool:
        """Count a handle in; False if the thread is about to end."""
        with self._guard:
            if self._is_closing or self.is_ended:
                return False
            self._openers[id(handle)] = weakref.ref(handle)
        weakref.finalize(handle, self._drop, id(handle)).atexit = False
        return True

    def _drop(self, number: int) -> None:
        # takes no lock: the collector calls it anywhere, also where one is held
        self._openers.pop(number, None)
        self.wake()

    async def leave(self, handle: Opener) -> None:
        """Count a handle out; with the last one, return when all is done and the thread has ended."""
        farewell: Operation[LoggedState, None] = Operation(lambda _: None)
        with self._guard:
            is_last = not self.is_ended and not self._openers.keys() - {id(handle)}
            if is_last:
                self._is_closing = True
                self._farewells.append(farewell)
        self._drop(id(handle))
        if is_last:
            await farewell.done.wait()
        if is_last or self.is_ended:
            self._thread.join()

    # In the thread

    def _main(self) -> None:
        error: Exception = QueueClosed(self._url)
        try:
            while self._turn():
                pass
        except Exception as exc:  # noqa: BLE001 - all who wait are told
            error = exc
        finally:
            self._let_go()
            left = [*self.end(error), *self._begun]
            for operation in left:
                operation.error = error
            deliver([*left, *self._farewells])
            self._topics.bump_all()  # who waits for a change is to find out

    def _turn(self) -> bool:
        """Do what there is to do, or wait for it; False if this was the last."""
        if not (self.has_reads() or self.has_writes()):
            if self._is_over():
                return False
            self._pass_on()
            if not self._do_chore():
                self.sleep(_TICK if self._watchers else None)
        if self._watchers:
            self._look()
        if reads := self.take_reads():
            self._read(reads)
        if self.has_writes():
            self._write()
            self._do_chore()
        return True

    def _is_over(self) -> bool:
        """Whether no handle is left; then none can join any more."""
        with self._guard:
            self._is_closing = self._is_closing or not self._openers
            return self._is_closing

    def _do_chore(self) -> bool:
        """Use a moment in which nobody waits, or was made to wait; whether there is more to do."""
        if self._session is not None:
            self._session.do_chore()
        return self._session is not None and self._session.has_chore()

    def _connected(self) -> LogSession:
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        if self._session is None:
            session = LogSession(self._open_log(), url=self._url, topics=self._topics, clock=self._clock)
            try:
                session.catch_up()
                session.anchor(self._patience)
            except BaseException:
                session.close()
                raise
            self._session = session
            self._create = False
        return self._session

    def _open_log(self) -> Log:
        for opener in self._openers.copy().values():
            if (handle := opener()) is not None:
                return handle.open_log(create=self._create)
        raise QueueClosed(self._url)

    def _let_go(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _look(self) -> None:
        """Wake who waits if another process has changed what it waits for."""
        now = time.monotonic()
        if self._session is None or now - self._looked_at < _TICK:
            return
        self._looked_at = now
        try:
            if self._session.has_news():
                self._session.catch_up()
        except (StorageError, OSError) as exc:
            self._problem = self._told(exc)  # for who next uses the store
            self._let_go()
            self._topics.bump_all()

    def _read(self, reads: Sequence[Operation[LoggedState, Any]]) -> None:
        self._begun = reads
        try:
            session = self._connected()
            session.catch_up()
        except (StorageError, OSError) as exc:
            self._let_go()
            self._fail(reads, exc)
            return
        for operation in reads:
            self._answer(operation, session)
        self._finish(reads)

    def _answer(self, operation: Operation[LoggedState, Any], session: LogSession) -> None:
        try:
            operation.run(session.state)
        except Vanished:
            try:
                session.state.contents.is_certain = not session.catch_up()
                self._answer(operation, session)
            except (StorageError, OSError) as exc:
                operation.error = self._told(exc)
        except Exception as exc:  # noqa: BLE001 - its caller is told
            operation.error = self._told(exc)
        finally:
            session.state.contents.is_certain = False

    def _write(self) -> None:
        with ExitStack() as held:
            try:
                session = self._connected()
                held.enter_context(session.log.lock(_SLICE))
            except TimeoutError:
                self._has_asked = True
                self._expire()
                return
            except (StorageError, OSError) as exc:
                self._let_go()
                self._fail(self.take_writes(), exc)
                return
            self._has_asked = False
            try:
                session.prepare()
            except (StorageError, OSError) as exc:
                self._let_go()
                self._fail(self.take_writes(), exc)
                return
            # only now, so that those who came while we waited for our turn are in the group
            batch = self._begun = self.take_writes()
            self._run(session, batch)
        if session.is_lost:
            self._let_go()
        else:
            session.begin_chore()
        self._finish(batch)

    def _run(self, session: LogSession, batch: Sequence[Operation[LoggedState, Any]]) -> None:
        """Run operations, and append what they have changed."""
        session.state.contents.is_certain = True
        try:
            for operation in batch:
                self._attempt(operation, session.state)
            topics = session.commit()
        except InDoubt as doubt:
            if not doubt.is_void:
                self.undo([operation for operation in batch if operation.error is None])
            for operation in batch:
                operation.error = self._told(doubt.__cause__ or doubt)
        except Exception as exc:  # noqa: BLE001 - its callers are told
            session.state.take_back()
            if len(batch) == 1:
                batch[0].error = self._told(exc)
                return
            for operation in batch:
                operation.error = self._told(exc)
                if not session.is_lost:
                    self._run(session, [operation])
        else:
            self._topics.bump(topics)
        finally:
            session.state.contents.is_certain = False

    def _attempt(self, operation: Operation[LoggedState, Any], state: LoggedState) -> None:
        mark = state.mark()
        try:
            operation.run(state)
        except Exception as exc:  # noqa: BLE001 - its caller is told
            state.take_back(mark)
            operation.error = self._told(exc)

    def _expire(self) -> None:
        """Fail the operations that could not begin in time."""
        late = self.take_late(time.monotonic())
        problem = f"others kept it locked for more than {self._patience:g} s."
        self._fail(late, StorageError(self._url, problem))

    def _pass_on(self) -> None:
        """Let go of a lock that was asked for, once nobody needs it any more."""
        if self._has_asked and self._session is not None:
            with suppress(StorageError, OSError), self._session.log.lock(0):
                pass
        self._has_asked = False

    def _fail(self, operations: Sequence[Operation[LoggedState, Any]], cause: Exception) -> None:
        for operation in operations:
            operation.error = self._told(cause)
        self._finish(operations)

    def _finish(self, batch: Sequence[Operation[LoggedState, Any]]) -> None:
        self._begun = ()
        deliver(batch)

    def _told(self, exc: BaseException) -> Exception:
        """Return what a caller is told of an error in the thread."""
        if isinstance(exc, Exception) and not isinstance(exc, OSError):
            return exc
        error = StorageError(self._url, f"{exc}.")
        error.__cause__ = exc
        return error
