"""Logs, snapshots and files cut off, damaged or lost: the rest is served, and nothing is made up."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import (
    MICROSECONDS,
    ClaimRequest,
    Head,
    Query,
    QueueBackend,
    Record,
    TaskStatus,
    lifecycle,
)
from jotty.core.queue.record import change
from jotty.errors import StorageError, StoreCorrupt, TaskFailed
from jotty.testing import VirtualClock
from jotty_backends.file import FileBackend, FileTaskQueue, log
from jotty_backends.file.envelope import read_batches, sealed_batch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

S = TaskStatus
TWO = ClaimRequest(("default",), 2, "w", 30 * MICROSECONDS)
Image = dict[str, tuple[Record, list[tuple[int, bytes]]]]


async def image(backend: QueueBackend) -> Image:
    """Return all that a store holds."""
    records = await backend.find(Query(payload=True))
    return {record.head.id: (record, await backend.read(record.head.id)) for record in records}


async def image_at(path: Path) -> Image:
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    found = await image(backend)
    await backend.aclose()
    return found


def has_chore(backend: FileBackend) -> bool:
    session = backend._writer._session if backend._writer else None
    return session is not None and session.has_chore()


async def write_snapshot(backend: FileBackend) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_SMALL", -(10**9))
        await backend.announce("who writes", b"{}", 1)
        while has_chore(backend):  # noqa: ASYNC110 - it is another thread that is waited for
            await anyio.sleep(0.001)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def fill(path: Path) -> list[Image]:
    """Make a store in some steps; return what it held after each of them."""
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    images = [await image(backend)]
    parent, child = Head(id="parent", key="k"), Head(id="child", status=S.BLOCKED, depends_on=("parent",))
    await backend.insert([Record(parent, b'{"goal":"x"}'), Record(child, b"\xff")])
    images.append(await image(backend))
    await backend.insert([Record(Head(id="other"), b"{}")])
    images.append(await image(backend))
    claimed = await backend.claim(TWO)
    images.append(await image(backend))
    await backend.append("parent", 1, [b'{"kind":"x"}'])
    images.append(await image(backend))
    done = [lifecycle.completed(record.head, backend.now()) for record in claimed.records]
    await backend.swap(
        [
            change(record.head, head, outcome=b'{"result":1}')
            for record, head in zip(claimed.records, done, strict=True)
        ]
    )
    images.append(await image(backend))
    await backend.delete([("other", done[1].version)])
    images.append(await image(backend))
    await backend.insert(
        [Record(Head(id=f"last {at}", key="k" if at == 1 else None), b"{}") for at in range(3)]
    )
    images.append(await image(backend))
    await backend.aclose()
    return images


# Cut off


async def test_a_log_cut_off_anywhere_shows_whole_batches_and_goes_on(tmp_path: Path) -> None:
    images = await fill(tmp_path / "tasks")
    whole = (tmp_path / "tasks" / "tasks.log").read_bytes()
    begin = whole.rindex(b'"part":[1,')
    begin = whole.rindex(b"\n", 0, begin) + 1
    backend = FileBackend(tmp_path / "tasks", clock=VirtualClock())
    for length in range(begin, len(whole), 7):
        (tmp_path / "tasks" / "tasks.log").write_bytes(whole[:length])
        (tmp_path / "tasks" / "lock").write_text(f"1 {begin}")
        backend = FileBackend(tmp_path / "tasks", clock=VirtualClock())
        await backend.open()

        assert images[-2] == await image(backend)
        await backend.insert([Record(Head(id="next"), b"{}")])
        await backend.aclose()
        log_file = (tmp_path / "tasks" / "tasks.log").read_bytes()

        assert whole[:begin] == log_file[:begin]
        assert 1 == log_file[begin:].count(b"\n")
        assert images[-2].keys() | {"next"} == (await image_at(tmp_path / "tasks")).keys()


batches = st.lists(
    st.lists(st.from_regex(r'\{"[a-z]+":[0-9]{1,4}\}', fullmatch=True), min_size=1, max_size=4)
)


@given(batches, st.data())
def test_of_what_was_written_in_one_piece_all_is_read_or_nothing(
    batches: list[list[str]], data: st.DataObject
) -> None:
    written = [sealed_batch(batch) for batch in batches]
    ends = [sum(map(len, written[:number])) for number in range(len(written) + 1)]
    length = data.draw(st.integers(0, ends[-1]))
    read = read_batches(b"".join(written)[:length])
    number = max(number for number, end in enumerate(ends) if end <= length)

    assert ends[number] == read.length
    assert [line for batch in batches[:number] for line in batch] == read.lines
    assert [] == read.damaged


# Damaged


async def test_a_log_damaged_anywhere_shows_what_it_held_once_or_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Never a task that was not there, nor one in a state in which it was not."""
    template = tmp_path_factory.mktemp("store") / "tasks"
    images = await fill(template)
    known = {record.head for image in images for record, _ in image.values()}
    whole = (template / "tasks.log").read_bytes()
    header = whole.index(b"\n")

    for place in range(0, len(whole), 11):
        path = tmp_path_factory.mktemp("damaged") / "tasks"
        shutil.copytree(template, path)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (path / "tasks.log").write_bytes(damaged)
        backend = FileBackend(path, clock=VirtualClock())
        if place <= header:
            with pytest.raises(StorageError):
                await backend.open()
            assert bytes(damaged) == (path / "tasks.log").read_bytes()
            await backend.aclose()
            continue
        await backend.open()
        heads = {record.head for record in await backend.find(Query())}
        await backend.insert([Record(Head(id="next"), b"{}")])
        ids = {record.head.id for record in await backend.find(Query())}
        await backend.aclose()

        assert heads <= known
        assert {head.id for head in heads} | {"next"} == ids
        shutil.rmtree(path)


def flip(path: Path, of: bytes) -> None:
    """Change a letter of a text that a file holds."""
    held = path.read_bytes()

    assert of in held
    path.write_bytes(held.replace(of, bytes([of[0] ^ 1]) + of[1:], 1))


async def test_a_damaged_line_is_set_aside_told_of_and_left_out_of_the_next_snapshot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tasks"
    await fill(path)
    flip(path / "tasks.log", b'last 1"')
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    ids = {record.head.id for record in await backend.find(Query())}
    await backend.announce("who writes", b"{}", 1)
    while has_chore(backend):  # noqa: ASYNC110 - it is another thread that is waited for
        await anyio.sleep(0.001)
    await backend.aclose()
    caplog.clear()
    again = await image_at(path)
    (aside,) = (path / "damaged").iterdir()

    assert {"parent", "child", "last 0", "last 2"} == ids == again.keys()
    assert b'mast 1"' in aside.read_bytes()
    assert [] == caplog.records
    assert b"mast" not in (path / "tasks.log").read_bytes()
    assert [] != list(path.glob("tasks/000/000/*last%201.payload.json")), "it may be all that is left of it"


async def test_a_later_line_makes_up_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    images = await fill(path)
    flip(path / "tasks.log", b'"id":"parent"')  # where it was inserted

    assert images[-1] == await image_at(path)


async def test_a_follower_meets_a_damaged_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    writer, follower = (FileBackend(path, clock=VirtualClock()) for _ in range(2))
    await writer.open()
    await follower.open()
    await writer.insert([Record(Head(id="damaged"), b"{}")])
    flip(path / "tasks.log", b"damaged")
    await writer.insert([Record(Head(id="sound"), b"{}")])

    assert {"sound"} == (await image(follower)).keys()
    await follower.insert([Record(Head(id="next"), b"{}")])

    assert {"sound", "next"} <= (await image(writer)).keys()
    await writer.aclose()
    await follower.aclose()


async def test_a_damaged_snapshot_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    await fill(path)
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    await write_snapshot(backend)
    await backend.aclose()
    (snapshot,) = path.glob("snapshot-*")
    whole = snapshot.read_bytes()
    for damaged in (whole.replace(b"parent", b"parens"), whole[:-20], whole[: whole.rindex(b'{"crc')], b""):
        snapshot.write_bytes(damaged)
        before = contents(path)
        with pytest.raises(StoreCorrupt):
            await image_at(path)

        assert before == contents(path)
    snapshot.unlink()
    with pytest.raises(StoreCorrupt, match="missing"):
        await image_at(path)


@pytest.mark.parametrize("at", [b'"id":"last 0"', b'{"crc32', b'"outcome"'])
async def test_a_log_that_became_shorter_is_told_of_and_nothing_of_it_swept_away(
    tmp_path: Path, at: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Unlike one that a process left in the middle of a write."""
    path = tmp_path / "tasks"
    await fill(path)
    payloads = contents(path / "tasks").keys()
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    log_file = (path / "tasks.log").read_bytes()
    os.truncate(path / "tasks.log", max(log_file.index(at), log_file.index(b"\n") + 1))
    with pytest.raises(StoreCorrupt, match="shorter"):
        await backend.count()
    await backend.insert([Record(Head(id=f"next {at}"), b"{}") for at in range(9)])
    await write_snapshot(backend)
    ids = (await image(backend)).keys()
    await backend.aclose()
    again = await image_at(path)

    assert ids == again.keys()
    assert {f"next {at}" for at in range(9)} <= ids
    assert payloads <= contents(path / "tasks").keys()
    assert 1 == caplog.text.count("has lost its last")
    assert 1 == len(list(path.glob("damaged/tasks.log-1-*-lost")))


# Damaged files of tasks


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete"])
async def test_a_task_whose_payload_is_damaged_fails_and_the_others_are_served(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FileTaskQueue(tmp_path / "tasks") as queue:
        lost, fine = await queue.enqueue("lost"), await queue.enqueue("fine")
    (payload,) = (tmp_path / "tasks").rglob(f"*{lost.id}.payload.json")
    if damage == "flip":
        flip(payload, b"lost")
    elif damage == "delete":
        payload.unlink()
    else:
        os.truncate(payload, 0 if damage == "empty" else 20)
    async with FileTaskQueue(tmp_path / "tasks") as queue:
        (claimed,) = await queue.claim(worker="w", limit=2)
        with pytest.raises(StoreCorrupt):
            await queue.get(lost.id)
        with pytest.raises((TaskFailed, StoreCorrupt)):
            await queue.result(lost.id, timeout=0)

        assert fine.id == claimed.id
        assert 1 == (await queue.stats()).total[S.FAILED]
    aside = [file.name for file in (tmp_path / "tasks").glob("damaged/*")]

    assert ([] if damage == "delete" else [payload.name]) == aside
    assert lost.id in caplog.text


async def test_a_damaged_result_is_told_of(tmp_path: Path) -> None:
    async with FileTaskQueue(tmp_path / "tasks") as queue:
        task = await queue.enqueue("goal")
        (claimed,) = await queue.claim(worker="w")
        await queue.complete(claimed, "result")
        (outcome,) = (tmp_path / "tasks").rglob("*.outcome-1.json")
        flip(outcome, b"result")
        for _ in range(2):
            with pytest.raises(StoreCorrupt):
                await queue.result(task.id, timeout=0)

        assert [outcome.name] == [file.name for file in (tmp_path / "tasks").glob("damaged/*")]


async def test_a_damaged_entry_of_a_journal_is_told_of_and_those_before_it_are_there(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    await fill(path)
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    (journal,) = path.rglob("*parent.journal.jsonl")
    flip(journal, b"end")

    assert [(1, b'{"kind":"x"}')] == await backend.read("parent", limit=1)
    for after in (0, 1):
        with pytest.raises(StoreCorrupt, match="entry 2"):
            await backend.read("parent", after)
    journal.unlink()
    with pytest.raises(StoreCorrupt, match="missing"):
        await backend.read("parent")
    await backend.aclose()


async def test_what_a_process_left_behind_in_a_journal_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    await backend.insert([Record(Head(id="a"), b"{}")])
    await backend.claim(TWO)
    await backend.append("a", 1, [b"1"])
    (journal,) = path.rglob("*.journal.jsonl")
    journal.write_bytes(journal.read_bytes() + b'{"crc32":"00000000","n":2,"entry":"never was"}\n' * 9)
    await backend.append("a", 1, [b"2"])
    read = await backend.read("a")
    await backend.aclose()

    assert [(1, b"1"), (2, b"2")] == read
    assert b"never" not in journal.read_bytes()


# Following


async def test_followers_need_no_snapshot_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    writer, close, behind = (FileBackend(path, clock=VirtualClock()) for _ in range(3))
    for backend in (writer, close, behind):
        await backend.open()
    for at in range(3):
        await writer.insert([Record(Head(id=f"before {at}"), b"{}")])
        if at == 1:
            await image(close)
    await write_snapshot(writer)
    (snapshot,) = path.glob("snapshot-*")
    snapshot.rename(path / "hidden")
    await writer.insert([Record(Head(id="after"), b"{}")])
    expected = await image(writer)

    assert expected == await image(close)
    assert expected == await image(behind)
    (path / "hidden").rename(snapshot)
    for backend in (writer, close, behind):
        await backend.aclose()
    assert expected == await image_at(path)


async def test_who_missed_a_whole_generation_reads_the_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    writer, behind = (FileBackend(path, clock=VirtualClock()) for _ in range(2))
    await writer.open()
    await behind.open()
    for at in range(3):
        await writer.insert([Record(Head(id=f"task {at}"), b"{}")])
        await write_snapshot(writer)

    assert await image(writer) == await image(behind)
    assert ["snapshot-4.jsonl"] == [file.name for file in path.glob("snapshot-*")]
    await writer.aclose()
    await behind.aclose()


async def test_what_belongs_to_no_task_is_swept_away_with_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    images = await fill(path)
    shard = path / "tasks" / "000" / "000"
    left = ("3-other.payload.json", "3-other.outcome-1.json", "1-never.payload.json")
    for name in left:
        (shard / name).write_bytes(b"{}")
    (shard / "999-of one who writes now.payload.json").write_bytes(b"{}")
    (shard / "a note of mine").write_bytes(b"")
    backend = FileBackend(path, clock=VirtualClock())
    await backend.open()
    await write_snapshot(backend)
    names = {file.name for file in shard.iterdir()}

    assert set(left).isdisjoint(names)
    assert {"999-of one who writes now.payload.json", "a note of mine"} <= names
    assert images[-1] == await image(backend)
    await backend.aclose()
