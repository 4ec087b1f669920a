"""The address that makes its opener admin is for the person who starts the appliance, and never for the journal."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from appliance.__main__ import _announce

ADDRESS = "http://127.0.0.1:8080/enter?token=sEcReT-0123456789"


def _stream(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def _announced(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        _announce(ADDRESS)


@pytest.mark.parametrize("named", ["output", "errors"])
def test_the_journal_is_told_the_command_and_not_the_address(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, journal = socket.socketpair()
    errors, other = socket.socketpair()
    with ours, journal, errors, other:
        monkeypatch.setenv("JOURNAL_STREAM", _stream((ours if named == "output" else errors).fileno()))
        _announced(ours.fileno(), monkeypatch)
        text = journal.recv(4096).decode()
    assert "token" not in text
    assert "edgecall address" in text


@pytest.mark.parametrize("inherited", [True, False])
def test_a_pipe_is_told_the_address_also_below_a_service(inherited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if inherited:
        monkeypatch.setenv("JOURNAL_STREAM", "9:12345")
    read, write = os.pipe()
    _announced(write, monkeypatch)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        assert ADDRESS in pipe.read()


def test_a_file_is_told_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "9:12345")
    with (tmp_path / "out").open("wb") as file:
        _announced(file.fileno(), monkeypatch)
    assert ADDRESS in (tmp_path / "out").read_text()
