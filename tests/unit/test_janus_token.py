"""The token for rooms: from settings or by command, kept, and its end told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import StoreError
from appliance.providers.janus.protocol import token_end
from appliance.providers.janus.token import Token
from appliance.settings import Secret

NOW = 1_800_000_000.0


class Wall:
    """A wall clock in the test's hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.known = True

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def synchronised(self) -> bool:
        return self.known


class Desk:
    def __init__(self, configured: str = "") -> None:
        self.wall = Wall()
        self.flags: dict[str, bool] = {}
        self.invalid = asyncio.Event()
        self.changes = 0
        self.token = Token(Secret(configured), self.wall, kept=None, flag=self._flag)
        self.token.on_change = self._changed
        self.token.start()

    def _flag(self, name: str, active: bool, *, cause: str = "", **_: Any) -> None:
        self.flags[name] = active
        if self.flags.get("tokenInvalid"):
            self.invalid.set()

    def _changed(self) -> None:
        self.changes += 1

    def look(self) -> tuple[bool, bool]:
        self.token.start()
        return self.flags["tokenExpiring"], self.flags["tokenInvalid"]


def signed(ends: float) -> str:
    return f"{ends:.0f},janus,janus.plugin.videoroom:c2lnbmF0dXJl"


@pytest.mark.parametrize(("text", "ends"), [
    (signed(NOW), NOW), ("opaque", None), ("", None), ("12,janus", None), (":", None), ("x,janus:y", None),
    ("-5,janus:y", None), ("99999999999999999999,janus:y", None), ("²,janus:y", None),
    (signed(253_402_300_799), 253_402_300_799.0), (signed(253_402_300_800), None), (signed(999_999_999_999), None),
])
def test_when_a_token_ends(text: str, ends: float | None) -> None:
    assert token_end(text) == ends


async def test_its_end_is_told_before_and_then() -> None:
    desk = Desk(signed(NOW + 3600))
    assert desk.look() == (False, False)
    desk.wall.now = NOW + 2999
    assert desk.look() == (False, False)
    desk.wall.now = NOW + 3001  # ten minutes
    assert desk.look() == (True, False)
    assert not desk.token.expired
    desk.wall.now = NOW + 3600
    assert desk.look() == (False, True)
    assert desk.token.expired
    await desk.token.put(signed(NOW + 7200), None)
    assert desk.look() == (False, False)
    assert desk.changes == 1
    desk.token.stop()


async def test_a_short_one_is_told_of_at_a_fifth_of_its_life() -> None:
    desk = Desk()
    await desk.token.put("opaque", 60)
    desk.wall.now += 47
    assert desk.look() == (False, False)
    desk.wall.now += 2
    assert desk.look() == (True, False)
    desk.token.stop()


async def test_it_is_told_without_being_asked() -> None:
    desk = Desk()
    await desk.token.put("opaque", 0.05)
    desk.wall.now += 0.05
    async with asyncio.timeout(2):
        await desk.invalid.wait()
    desk.token.stop()


async def test_with_a_clock_that_nobody_vouches_for_the_server_judges() -> None:
    desk = Desk(signed(NOW - 5))
    desk.wall.known = False
    assert desk.look() == (False, False)
    assert not desk.token.expired
    desk.token.judged("Unauthorized request")
    assert desk.look() == (False, True)
    assert desk.token.state()["isValid"] is False
    desk.token.judged("")
    assert desk.look() == (False, False)
    desk.token.stop()


async def test_what_was_set_outlives_a_restart_until_the_settings_name_another(tmp_path: Path) -> None:
    kept = tmp_path / "janus.token"
    desk = Desk()
    desk.token = await asyncio.to_thread(Token, Secret("configured"), desk.wall, kept=kept, flag=lambda *_, **__: None)
    await desk.token.put("set", None)
    assert kept.stat().st_mode & 0o077 == 0
    for configured, text in (("configured", "set"), ("another", "another")):
        again = await asyncio.to_thread(Token, Secret(configured), desk.wall, kept=kept, flag=lambda *_, **__: None)
        assert again.text == text
    desk.token.configure(Secret("configured"))  # read again, and the same as before
    assert desk.token.text == "set"
    desk.token.configure(Secret("another"))
    assert desk.token.text == "another"
    desk.token.stop()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"text": "x", "ends": "soon"}', b'{"strange": 1}', b"\xff"])
def test_a_damaged_file_is_no_token(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / "janus.token"
    kept.write_bytes(content)
    token = Token(Secret("configured"), Wall(), kept=kept, flag=lambda *_, **__: None)
    assert token.text == "configured"


KEY = Secret("0123456789abcdef" * 4)


def reader(kept: Path, key: Secret) -> Token:
    return Token(Secret("configured"), Wall(), kept=kept, key=key, flag=lambda *_, **__: None)


async def test_where_there_is_a_key_nobody_reads_it_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = tmp_path / "janus.token"
    token = await asyncio.to_thread(reader, kept, Secret())
    await token.put("t0p-secret", None)
    assert b"t0p-secret" in kept.read_bytes()  # in plain, as it was before there was a key
    token = await asyncio.to_thread(reader, kept, KEY)
    assert token.text == "t0p-secret"
    assert b"t0p-secret" not in kept.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0
    await token.put("t0p-secret-2", 60)
    assert b"t0p-secret" not in kept.read_bytes()
    assert (await asyncio.to_thread(reader, kept, KEY)).text == "t0p-secret-2"
    token.stop()
    for key, words in ((Secret(), "janus.token_key_file is not set"), (Secret("f" * 64), "another key")):
        caplog.clear()
        assert (await asyncio.to_thread(reader, kept, key)).text == "configured"
        assert words in caplog.text
    assert (await asyncio.to_thread(reader, kept, KEY)).text == "t0p-secret-2"  # and nothing of it was lost


async def test_one_that_cannot_be_kept_holds_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk = Desk("")
    desk.token = await asyncio.to_thread(Token, Secret(), desk.wall, kept=tmp_path / "file" / "janus.token",
                                         flag=lambda *_, **__: None)
    with pytest.raises(StoreError, match="restart"):
        await desk.token.put("set", None)
    assert desk.token.text == "set"
    desk.token.stop()


async def test_nothing_of_it_is_shown() -> None:
    desk = Desk()
    await desk.token.put("verysecret", 60)
    assert "verysecret" not in repr(desk.token.state()) + repr(vars(desk.token))
    desk.token.stop()


async def test_an_end_that_no_calendar_knows_stops_nothing() -> None:
    """Neither the start of the appliance nor its state."""
    desk = Desk(signed(999_999_999_999))
    assert desk.token.state() == {"isSet": True, "expires": None, "isValid": True}
