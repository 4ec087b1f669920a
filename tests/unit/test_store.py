"""The store: what was awaited is there after a crash; a bad medium is answered and told."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from appliance.errors import StoreError
from appliance.store import Entry, JournalState, Notes, OutboxLimits, Store
from appliance.store import disk as disk_module
from appliance.store import service as service_module
from appliance.store import tables as tables_module


def entry(command_id: str, reply: str | None = None) -> Entry:
    return Entry(command_id, "call.mute", "d", "{}", "mqtt", "", "admin", 1.0, None, reply=reply)


@pytest.fixture
async def troubles():
    return []


@pytest.fixture
async def store(tmp_path, troubles):
    made = Store(tmp_path / "data", ballast=4096)
    made.on_trouble(troubles.append)
    await made.open()
    yield made
    await made.close()


async def reopened(store: Store, folder) -> Store:
    await store.close()
    again = Store(folder, ballast=4096)
    await again.open()
    return again


async def test_the_journal_remembers_over_a_restart(store, tmp_path):
    assert await store.admit(entry("1")) is None
    await store.start("1")
    await store.finish("1", b"answer")
    await store.finish("1", b"another")  # the first one is the answer
    await store.admit(entry("2"))
    again = await reopened(store, tmp_path / "data")
    found = await again.admit(entry("1"))
    assert found is not None and (found.answer, found.state, found.args) == (b"answer", JournalState.FINAL, "")
    assert [open_.id for open_ in await again.unfinished()] == ["2"]
    await again.close()


async def test_answers_enter_the_outbox_in_the_journals_transaction(store):
    told = []
    store.on_enqueue(lambda: told.append(1))
    await store.admit(entry("1", "t"), b"accepted")
    await store.finish("1", b"done")
    rows, gap = await store.outbox(10)
    assert [row.payload for row in rows] == [b"accepted", b"done"] and gap is None and len(told) == 2
    await store.sent([rows[0].seq])
    assert [row.payload for row in (await store.outbox(10))[0]] == [b"done"]


async def test_the_journal_keeps_a_bounded_number(tmp_path, monkeypatch):
    monkeypatch.setattr(tables_module, "KEEP_COMMANDS", 30)
    monkeypatch.setattr(tables_module, "KEEP_ALWAYS", 20)
    monkeypatch.setattr(tables_module, "PRUNE_EVERY", 10)
    now = [0.0]
    store = Store(tmp_path, wall=lambda: now[0], ballast=0)
    await store.open()
    for n in range(50):
        await store.admit(entry(str(n)))
        if n != 3:
            await store.finish(str(n), b"a")
    assert await store.command("19") is None and await store.command("20") is not None
    assert await store.command("3") is not None  # never one that runs
    now[0] = tables_module.KEEP_COMMANDS_S + 1
    for n in range(50, 60):
        await store.admit(entry(str(n)))
    assert await store.command("39") is None and await store.command("40") is not None  # age spares the newest
    await store.close()


@pytest.mark.parametrize("limits", [OutboxLimits(count=3), OutboxLimits(size=30)])
async def test_a_full_outbox_drops_the_oldest_events_first_and_marks_the_gap(tmp_path, limits):
    now = [0.0]
    store = Store(tmp_path, wall=lambda: now[0], limits=limits, ballast=0)
    await store.open()
    for n in range(6):
        now[0] = float(n)
        await store.enqueue("t", b"%010d" % n, precious=n in (0, 1))
    rows, gap = await store.outbox(10)
    assert [int(row.payload) for row in rows] == [0, 1, 5]
    assert gap is not None and (gap.dropped, gap.first, gap.last) == (3, 2.0, 4.0)
    await store.enqueue("t", b"%010d" % 6)
    await store.gap_told(3)
    _, gap = await store.outbox(10)
    assert gap is not None and gap.dropped == 1
    await store.gap_told(1)
    assert (await store.outbox(10))[1] is None
    await store.close()


async def test_a_poison_row_is_set_aside(store):
    await store.enqueue("t", b"poison")
    await store.enqueue("t", b"good")
    seq = (await store.outbox(1))[0][0].seq
    assert [await store.cut(seq), await store.cut(seq)] == [1, 2]
    await store.quarantine(seq, "ended two connections")
    assert [row.payload for row in (await store.outbox(10))[0]] == [b"good"]
    assert await store.backlog() == (1, 1)


async def test_calls_and_small_values(store, monkeypatch, tmp_path):
    monkeypatch.setattr(tables_module, "KEEP_CALLS", 3)
    for n in range(5):
        await store.add_call({"n": n, "wer": "ä"})
    assert [call["n"] for call in await store.calls()] == [4, 3, 2] and (await store.calls(1))[0]["wer"] == "ä"
    monkeypatch.setattr(tables_module, "KEEP_SUMMARIES", 2)
    assert await store.summary() is None
    for call in ("a", "b", "c"):
        await store.add_summary(call, {"callId": call, "wer": "ä"})
    assert await store.summary() == await store.summary("c") == {"callId": "c", "wer": "ä"}
    assert [await store.summary(call) for call in ("a", "b")] == [None, {"callId": "b", "wer": "ä"}]
    assert [await store.count("boot"), await store.count("boot")] == [1, 2]
    await store.set("contact", "x")
    assert await store.get("contact") == "x" and await store.get("none", "d") == "d"
    again = await reopened(store, tmp_path / "data")
    assert await again.count("boot") == 3
    await again.close()


@pytest.mark.parametrize("damage", ["header", "page"])
async def test_a_damaged_database_is_kept_aside_and_told(store, tmp_path, troubles, damage):
    folder = tmp_path / "data"
    for _n in range(200):
        await store.enqueue("t", os.urandom(200))
    await store.close()
    content = bytearray((folder / "edgecall.db").read_bytes())
    where = slice(0, 64) if damage == "header" else slice(4096 * 3, 4096 * 6)
    content[where] = b"\xa5" * len(content[where])
    (folder / "edgecall.db").write_bytes(content)
    again = Store(folder, ballast=4096)
    again.on_trouble(troubles.append)
    await again.open()
    await asyncio.sleep(0)
    assert again.persistent and "damaged-1" in troubles[0].message
    assert (folder / "edgecall.db.damaged-1").read_bytes() == content
    await again.enqueue("t", b"x")
    await again.close()


async def test_a_folder_that_cannot_be_written_is_told_and_everything_works_in_memory(tmp_path, troubles):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "data")
    store.on_trouble(troubles.append)
    await store.open()
    assert await store.count("boot") == 1 and await store.admit(entry("1")) is None
    assert not store.persistent and str(tmp_path / "file") in troubles[0].message
    assert "writable" in troubles[0].message and store.trouble is troubles[0]
    store.on_trouble(troubles.append)  # who asks later is told at once
    assert troubles[-1] is troubles[0]
    await store.close()


async def test_what_was_kept_in_memory_is_written_when_the_folder_works_again(tmp_path, troubles, monkeypatch):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file", ballast=0)
    store.on_trouble(troubles.append)
    await store.open()
    await store.enqueue("t", b"kept")
    (tmp_path / "file").unlink()
    monkeypatch.setattr(disk_module.time, "monotonic", lambda: 1e12)
    await store.enqueue("t", b"after")
    await asyncio.sleep(0)
    assert store.persistent and troubles[-1] is None
    again = await reopened(store, tmp_path / "file")
    assert [row.payload for row in (await again.outbox(9))[0]] == [b"kept", b"after"]
    await again.close()


async def test_a_second_process_is_told_who_has_the_folder(store, tmp_path):
    await store.set("a", "b")
    code = textwrap.dedent("""
        import asyncio, pathlib, sys
        from appliance.store import Store
        async def main():
            await Store(pathlib.Path(sys.argv[1])).open()
        asyncio.run(main())
    """)
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(tmp_path / "data")],
                                   capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0 and "StoreError: Another process uses the data folder" in done.stderr


async def test_a_full_disk_costs_the_ballast_first_then_goes_on_in_memory(tmp_path):
    """In a child whose files may not grow: SQLite's own errors, the kernel's own refusal."""
    code = textwrap.dedent("""
        import asyncio, pathlib, sqlite3, sys
        from appliance.store import Store, disk
        troubles = []
        async def main():
            folder = pathlib.Path(sys.argv[1])
            store = Store(folder, ballast=65536)
            store.on_trouble(lambda t: troubles.append(str(t)))
            await store.open()
            assert (folder / "ballast").stat().st_size == 65536
            await store._ask(lambda: store._disk._tables.db.execute("PRAGMA max_page_count=40").fetchall())
            for n in range(100):
                await store.enqueue("t", b"x" * 4000)
            await asyncio.sleep(0)
            rows, _ = await store.outbox(1000)
            assert not (folder / "ballast").exists()
            assert "full" in troubles[0] and "in memory" in troubles[1], troubles
            assert len(rows) == 100 and not store.persistent
            await store.close()
        asyncio.run(main())
    """)
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(tmp_path)],
                                   capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_disk_that_has_room_again_gets_its_reserve_back_and_the_trouble_ends(store, tmp_path, troubles,
                                                                                     monkeypatch):
    ballast, free, now = tmp_path / "data" / "ballast", 4096, 1e9
    monkeypatch.setattr(disk_module.os, "statvfs", lambda _folder: SimpleNamespace(f_frsize=1, f_bavail=free))
    monkeypatch.setattr(disk_module, "time", SimpleNamespace(monotonic=lambda: now))
    (limit,) = await store._ask(lambda: store._disk._tables.db.execute("PRAGMA page_count").fetchone())
    await store._ask(lambda: store._disk._tables.db.execute(f"PRAGMA max_page_count={limit}").fetchall())
    with monkeypatch.context() as pruned:  # old rows thrown away are room enough here
        pruned.setattr(disk_module.Tables, "prune", lambda tables, _keep: tables.db.execute(
            "PRAGMA max_page_count=100000").fetchall())
        await store.enqueue("t", b"x" * 40_000)
    await asyncio.sleep(0)
    assert store.persistent and not ballast.exists() and "full" in store.trouble.message
    now += disk_module.RETURN_EVERY_S + 1
    await store.backlog()
    await asyncio.sleep(0)
    assert not ballast.exists() and store.trouble is not None, "the room is not enough to spare any"
    free = 3 * 4096
    await store.backlog()
    assert not ballast.exists(), "it is not looked at with each row"
    now += disk_module.RETURN_EVERY_S + 1
    await store.backlog()
    await asyncio.sleep(0)
    assert ballast.stat().st_size == 4096 and troubles[-1] is None and store.trouble is None


async def test_a_folder_that_hangs_fails_fast_and_recovers(store, monkeypatch):
    monkeypatch.setattr(service_module, "WAIT_S", 0.05)
    release = threading.Event()
    hung = asyncio.create_task(store._ask(release.wait))
    with pytest.raises(StoreError, match="does not answer"):
        await hung
    with pytest.raises(StoreError, match="does not answer"):
        await store.count("boot")
    release.set()
    monkeypatch.setattr(service_module, "WAIT_S", 5)
    while store._stuck:  # noqa: ASYNC110 - the thread tells the loop, nothing to await
        await asyncio.sleep(0.001)
    assert await store.count("boot") == 1


async def test_a_hang_is_told_and_what_was_given_up_is_told_when_it_was_written_after_all(store, troubles, monkeypatch):
    monkeypatch.setattr(service_module, "WAIT_S", 0.05)
    release, enqueued = threading.Event(), asyncio.Event()
    store.on_enqueue(enqueued.set)
    hung = asyncio.create_task(store._ask(release.wait))
    both = await asyncio.gather(hung, store.enqueue("t", b"late"), return_exceptions=True)
    assert all(isinstance(one, StoreError) for one in both), both
    assert len(troubles) == 1 and "does not answer" in troubles[0].message and store.trouble is troubles[0]
    assert not enqueued.is_set()
    release.set()
    async with asyncio.timeout(20):
        await enqueued.wait()
    assert troubles[1:] == [None] and store.trouble is None
    monkeypatch.setattr(service_module, "WAIT_S", 20)
    assert [row.payload for row in (await store.outbox(9))[0]] == [b"late"]


async def test_a_folder_that_hangs_at_the_start_is_left_alone_and_memory_serves(tmp_path, troubles, monkeypatch):
    release, opened, real = threading.Event(), threading.Event(), disk_module.Disk._open_file

    def hang(disk):
        release.wait()
        try:
            return real(disk)
        finally:
            opened.set()

    monkeypatch.setattr(disk_module.Disk, "_open_file", hang)
    monkeypatch.setattr(disk_module, "RETURN_EVERY_S", 0.0)
    store = Store(tmp_path / "data", ballast=0)
    store.on_trouble(troubles.append)
    with monkeypatch.context() as short:
        short.setattr(service_module, "WAIT_S", 0.5)
        await store.open()
    assert await store.count("boot") == 1 and not store.persistent
    assert "in memory" in troubles[-1].message
    given_up = [thread for thread in threading.enumerate() if thread.name == "store" and thread is not store._thread]
    release.set()
    await asyncio.to_thread(given_up[0].join, 20)
    assert opened.is_set() and await store.count("boot") == 2 and not store.persistent
    await store.close()
    monkeypatch.undo()
    again = Store(tmp_path / "data", ballast=0)
    await again.open()  # nobody holds the file
    assert again.persistent and await again.count("boot") == 1
    await again.close()


async def test_a_newer_database_is_still_read(store, tmp_path):
    await store.set("a", "b")
    await store.close()
    with sqlite3.connect(tmp_path / "data" / "edgecall.db") as db:
        db.execute("CREATE TABLE of_tomorrow (x)")
        db.execute("PRAGMA user_version=99")
    db.close()
    again = await reopened(store, tmp_path / "data")
    assert await again.get("a") == "b" and again.persistent
    await again.close()


def test_each_step_of_the_schema_only_adds():
    """The version before writes into it too, after an update that was taken back."""
    for step in tables_module._SCHEMA:
        for statement in filter(None, map(str.strip, step.split(";"))):
            assert re.match(r"CREATE (TABLE|INDEX) |ALTER TABLE \w+ ADD COLUMN ", statement), statement
            assert not statement.startswith("ALTER") or "NOT NULL" not in statement or "DEFAULT" in statement, statement


async def test_the_thread_is_named_and_gone_after_close(store):
    assert "store" in {thread.name for thread in threading.enumerate()}
    await store.close()
    await store.close()
    assert "store" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(StoreError, match="not open"):
        await store.count("boot")


async def test_notes_are_there_after_a_restart_and_the_latest_holds(store, tmp_path, monkeypatch):
    written = []
    keep = Store.set

    async def watched(self, name, value):
        written.append((name, value))
        await keep(self, name, value)

    monkeypatch.setattr(Store, "set", watched)
    notes = Notes(store)
    assert await notes.remember("a", "first") == "first"
    assert await notes.remember("a", "other") == "first"
    for number in range(100):
        notes.write("a", str(number))
        notes.write("b", str(-number))
    await notes.close()
    await notes.close()
    assert written == [("a", "first"), ("a", "99"), ("b", "-99")], "what came in between costs no write"
    again = await reopened(store, tmp_path / "data")
    assert (await again.get("a"), await again.get("b")) == ("99", "-99")
    await again.close()


async def test_notes_that_cannot_be_kept_are_told_and_nobody_waits(store, monkeypatch, caplog):
    async def broken(self, name, value=None):
        raise StoreError("the card is gone")

    monkeypatch.setattr(Store, "set", broken)
    monkeypatch.setattr(Store, "get", broken)
    notes = Notes(store)
    assert await notes.remember("a", "made") == "made"
    notes.write("a", "1")
    notes.write("b", "2")
    await notes.close()
    assert caplog.text.count("is not kept over a restart: the card is gone") == 3
