from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import jotty.core.queue
from jotty.core.queue import TaskQueue, backends, load_backend, load_queue_class, open_queue
from jotty.errors import BackendBroken, BackendConflict, BackendNotFound, MissingDependency
from jotty.testing import VirtualClock
from jotty_backends.memory import MemoryBackend, MemoryTaskQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

BACKEND = """
from jotty_backends.memory import MemoryBackend

class OtherBackend(MemoryBackend):
    scheme = "other"
    options = {"level": int}
    def __init__(self, name=None, *, clock=None, level=0):
        super().__init__(name, clock=clock)
        self.level = level
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution with one backend, as a stranger would, for the time of a test."""

    def install(distribution: str, name: str, value: str, source: str = BACKEND, *, extra: str = "") -> None:
        root = tmp_path / distribution
        info = root / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata + (f"Provides-Extra: {extra}\n" if extra else ""))
        (info / "entry_points.txt").write_text(f"[jotty.queues]\n{name} = {value}\n")
        module = value.partition(":")[0]
        if source:
            (root / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(root))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def test_the_built_in_backends_are_found_by_entry_point() -> None:
    found = backends()

    assert {"memory": "jotty", "sqlite": "jotty"}.items() <= found.items()
    assert sorted(found) == list(found)
    assert load_backend("memory") is MemoryBackend
    assert load_queue_class("memory") is MemoryTaskQueue


def test_a_strangers_backend_is_as_good(install: Callable[..., None]) -> None:
    install("stranger", "other", "stranger_backend:OtherBackend")
    queue = open_queue("other:name?level=3&max_size=2")

    assert "stranger" == backends()["other"]
    assert ("OtherBackend", 3) == (type(queue.backend).__name__, vars(queue.backend)["level"])


def test_listing_backends_loads_none(install: Callable[..., None]) -> None:
    install("stranger", "other", "unloaded_backend:OtherBackend", "raise RuntimeError('loaded')")

    assert "other" in backends()
    assert load_backend("memory") is MemoryBackend
    with pytest.raises(RuntimeError, match="loaded"):
        load_backend("other")


def test_an_unknown_scheme_lists_the_known() -> None:
    with pytest.raises(BackendNotFound) as caught:
        open_queue("sqlit:///tasks.db")

    assert "sqlit" == caught.value.name
    assert list(backends()) == caught.value.known
    assert all(name in str(caught.value) for name in ("'sqlit'", *backends()))


def test_two_claims_to_one_name_are_a_conflict(install: Callable[..., None]) -> None:
    install("first", "other", "first_backend:OtherBackend")
    install("second", "other", "second_backend:OtherBackend")
    with pytest.raises(BackendConflict) as caught:
        load_backend("other")

    assert ("other", ["first", "second"]) == (caught.value.name, caught.value.distributions)


def test_a_missing_driver_of_jottys_own_says_which_extra_brings_it(install: Callable[..., None]) -> None:
    install("jotty", "other", "driven:OtherBackend", "import a_driver_that_is_not_there", extra="other")
    with pytest.raises(MissingDependency) as caught:
        load_backend("other")

    assert ("a_driver_that_is_not_there", "other") == (caught.value.package, caught.value.extra)


def test_what_no_extra_of_jotty_brings_is_no_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that was built without SQLite, say."""
    for name in [name for name in sys.modules if name.startswith("jotty_backends.sqlite")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    with pytest.raises(BackendBroken, match=r"jotty .* sqlite3 ") as caught:
        load_backend("sqlite")

    assert "jotty[" not in str(caught.value)


def test_a_module_that_jotty_itself_lacks_is_no_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jotty_backends.memory", None)
    with pytest.raises(BackendBroken, match=r"jotty_backends\.memory") as caught:
        load_backend("memory")

    assert "memory" == caught.value.name
    assert "jotty[" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "source", "cause", "said"),
    [
        ("driven:OtherBackend", "import a_driver_that_is_not_there", ModuleNotFoundError, "a_driver_that_is"),
        ("absent.document:OtherBackend", "", ModuleNotFoundError, "No module named 'absent'"),
        ("older:OtherBackend", "from jotty.core.queue import NotAnyMore", ImportError, "NotAnyMore"),
        ("renamed:OtherBackend", "NewBackend = 5", AttributeError, "has no attribute 'OtherBackend'"),
    ],
)
def test_a_strangers_entry_point_that_cannot_be_imported_is_told_as_what_it_is(
    install: Callable[..., None], value: str, source: str, cause: type[Exception], said: str
) -> None:
    install("stranger", "other", value, source)
    with pytest.raises(BackendBroken) as caught:
        open_queue("other:")

    assert ("other", "stranger 1.0") == (caught.value.name, caught.value.distribution)
    assert all(each in str(caught.value) for each in ("stranger 1.0", "'other'", repr(value)))
    assert said in str(caught.value)
    assert "pip install" not in str(caught.value)
    assert cause is type(caught.value.__cause__)


@pytest.mark.parametrize("source", ["OtherBackend = 5", "class OtherBackend: ..."])
def test_what_is_no_backend_is_refused(install: Callable[..., None], source: str) -> None:
    install("stranger", "other", "wrong_backend:OtherBackend", source)
    with pytest.raises(BackendBroken, match=r"stranger 1\.0 .*wrong_backend.* no QueueBackend"):
        load_backend("other")


def test_a_backend_may_have_no_queue_class(install: Callable[..., None]) -> None:
    install("stranger", "other", "bare_backend:OtherBackend")
    with pytest.raises(TypeError, match="open_queue"):
        load_queue_class("other")


def test_the_queue_classes_are_public_names_loaded_when_asked_for() -> None:
    assert jotty.core.queue.MemoryTaskQueue is MemoryTaskQueue
    assert "MemoryTaskQueue" in dir(jotty.core.queue)
    assert set(jotty.core.queue.__all__) <= set(dir(jotty.core.queue))
    with pytest.raises(AttributeError, match="NoSuchQueue"):
        jotty.core.queue.NoSuchQueue  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize("url", ["memory", "", ":", "://x", "tasks.db"])
def test_a_url_needs_a_scheme(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        open_queue(url)


def test_an_unknown_option_lists_the_known() -> None:
    with pytest.raises(ValueError, match="max_payload, max_size") as caught:
        open_queue("memory:?colour=red")

    assert "colour" in str(caught.value)


@pytest.mark.parametrize("option", ["max_size=many", "max_size=", "max_size=0", "max_payload=-1"])
def test_a_wrong_option_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        open_queue(f"memory:?{option}")


async def test_options_reach_the_queue() -> None:
    clock = VirtualClock()
    async with open_queue("memory:?max_size=1&max_payload=50", clock=clock) as queue:
        task = await queue.enqueue("goal")

        assert type(queue) is TaskQueue
        assert clock.now() == task.head.created_at
        with pytest.raises(jotty.errors.QueueFull):
            await queue.enqueue("goal")
        with pytest.raises(jotty.errors.PayloadError):
            await queue.enqueue("x" * 50)


async def test_memory_queues_of_one_name_are_one_store() -> None:
    async with open_queue("memory:shared") as first, open_queue("memory:shared") as second:
        task = await first.enqueue("goal")

        assert task == await second.get(task.id)
        assert "memory:shared" == first.url == second.url
    async with open_queue("memory:") as third, open_queue("memory:") as fourth:
        task = await third.enqueue("goal")

        assert await fourth.get(task.id) is None
        assert third.url != fourth.url
