"""Lines reach the journal with fields and the terminal without secrets, and nobody waits for either."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import systemd.journal

from appliance.care import logs
from appliance.care.logs import Logs, message_id, secrets_in
from appliance.settings import Secret

room = logging.getLogger("appliance.calls.test")


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("appliance", "hw")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(level: str = "info", **options: object) -> tuple[Logs, io.StringIO]:
    stream = io.StringIO()
    return Logs(level, stream=stream, environ={}, **options).install(), stream  # type: ignore[arg-type]


def test_a_line_has_time_level_room_and_text() -> None:
    handler, stream = written()
    room.warning("the %s is missing", "camera")
    room.debug("not at this level")
    handler.close()
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("WARNING appliance.calls.test: the camera is missing")


def test_libraries_stay_at_info_when_our_rooms_debug() -> None:
    handler, stream = written("debug")
    room.debug("ours")
    logging.getLogger("aiortc.ice").debug("theirs")
    handler.close()
    assert "ours" in stream.getvalue()
    assert "theirs" not in stream.getvalue()


def test_no_secret_is_written_neither_in_text_nor_in_a_traceback() -> None:
    handler, stream = written(secrets=["hunter2-hunter2", "hunter2"])
    try:
        Path("/nowhere/hunter2-hunter2").read_bytes()
    except FileNotFoundError:
        room.exception("login with %s", "hunter2")
    handler.close()
    assert "hunter2" not in stream.getvalue()
    assert "login with ***" in stream.getvalue()
    assert "/nowhere/***" in stream.getvalue()


def test_the_secrets_of_a_tree_of_settings_are_found() -> None:
    @dataclass
    class Token:
        token: Secret

    @dataclass
    class Tree:
        password: Secret
        name: str = "door"
        tokens: tuple[Token, ...] = field(default_factory=lambda: (Token(Secret("token-1")), Token(Secret("token-2"))))

    assert secrets_in(Tree(Secret("password"))) == {"password", "token-1", "token-2"}


class StoppedTerminal(io.StringIO):
    """Takes nothing until let go, as a terminal after Ctrl-S or a pipe whose reader hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str, /) -> int:
        self.go.wait(10)
        return super().write(text)


def test_a_terminal_that_takes_nothing_stops_nobody_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_LIMIT", 10)
    stream = StoppedTerminal()
    handler = Logs(stream=stream, environ={}).install()
    for number in range(50):
        room.info("line %d", number)  # would hang here
    stream.go.set()
    handler.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1].endswith("line 49")
    assert handler.dropped >= 39
    assert any(f"{handler.dropped} log records were dropped" in line for line in lines)


def test_closing_gives_up_on_a_terminal_that_never_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CLOSE_S", 0.05)
    stream = StoppedTerminal()
    handler = Logs(stream=stream, environ={}).install()
    room.info("nobody will read this")
    handler.close()
    handler.close()
    stream.go.set()


@pytest.fixture(scope="module", autouse=True)
def journal_socket() -> None:
    """libsystemd opens its socket to the journal once per process and keeps it: before anything counts descriptors."""
    systemd.journal.send("tests of the log begin")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[dict[str, str], io.TextIOWrapper]]:
    """A stream that the environment says goes to the journal."""
    with (tmp_path / "stderr").open("w+") as stream:
        status = os.fstat(stream.fileno())
        yield {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream


def test_the_journal_gets_fields(
    journal: tuple[dict[str, str], io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[dict[str, object]] = []
    monkeypatch.setattr("systemd.journal.send", lambda message, **fields: sent.append({"MESSAGE": message} | fields))
    environ, stream = journal
    handler = Logs(stream=stream, environ=environ, secrets=["s3cr3t-token"]).install()
    room.error("call %s ended", 7, extra={"event": "call.ended", "call_id": "c-1", "by": "s3cr3t-token", "peer": None})
    handler.close()
    (entry,) = sent
    assert entry["MESSAGE"] == "call 7 ended"
    assert entry["PRIORITY"] == "3"
    assert entry["CALL_ID"] == "c-1"
    assert entry["EVENT"] == "call.ended"
    assert entry["MESSAGE_ID"] == message_id("call.ended")
    assert entry["BY"] == "***"
    assert entry["CODE_FUNC"] == "test_the_journal_gets_fields"
    assert "PEER" not in entry


def test_the_journals_own_call_takes_what_is_sent(journal: tuple[dict[str, str], io.TextIOWrapper]) -> None:
    """With the real systemd-python: its argument types are its own, and where no journal listens it says nothing."""
    environ, stream = journal
    handler = Logs(stream=stream, environ=environ).install()
    room.info("hello", extra={"event": "call.ended"})
    handler.close()
    assert handler.unwritten == 0


def test_a_journal_without_systemd_python_still_gets_priorities(
    journal: tuple[dict[str, str], io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "systemd.journal", None)
    environ, stream = journal
    handler = Logs(stream=stream, environ=environ).install()
    room.error("two\nlines")
    handler.close()
    stream.seek(0)
    assert "install edgecall[systemd]" in stream.readline()
    assert stream.read() == "<3>two\n<3>lines\n"


def test_an_event_has_the_same_message_id_in_every_version() -> None:
    assert message_id("call.ended") == "3810d61db57d5fb196eb500cc91578a9"
