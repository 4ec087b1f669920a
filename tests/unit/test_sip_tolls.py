"""Which numbers may be called, and how often."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers.sip.provider import _number
from appliance.providers.sip.tolls import HOUR_S, TARGET, TollGuard
from appliance.providers.sip.uri import Uri
from appliance.settings import SipSettings
from tests.unit.test_settings_file import faults_of


class At:
    """A guard of a device in Germany, what it told, and the time in the test's hand."""

    def __init__(self, **settings: Any) -> None:
        self.now = 100.0
        self.told: list[tuple[str, str]] = []
        self.kept = "[]"
        self._settings = settings
        self.restart()

    def restart(self) -> None:
        """As the device does; its time begins anew."""
        self.guard = TollGuard(
            SipSettings(**self._settings), number=partial(_number, country="DE"), monotonic=lambda: self.now,
            told=lambda *what: self.told.append(what), keep=self._keep)
        self.guard.recall(self.kept)

    def _keep(self, kept: str) -> None:
        self.kept = kept

    def call(self, uri: str) -> str:
        """Why not; empty for a call that goes out."""
        before = len(self.told)
        try:
            self.guard.admit(Uri.parse(uri))
        except Refused as error:
            assert self.told[before:] == [(error.sub_code, str(Uri.parse(uri).bare()))]
            assert error.message
            return error.key
        assert len(self.told) == before
        return ""


@pytest.mark.parametrize(("uri", "allowed"), [
    ("tel:+4930123456", True), ("tel:+49-30-123456", True), ("tel:030123456", True),
    ("sip:+4930123456@pbx.test", True), ("sip:030123456@pbx.test;user=phone", True),
    ("sip:%2B4930123456@pbx.test", True), ("sip:reception@pbx.test", True),
    ("sip:pbx.test", True), ("tel:110", True), ("sip:21@pbx.test", True),
    ("tel:+442079460000", False), ("tel:00442079460000", False), ("sip:+44-207-946-0000@pbx.test", False),
    ("sip:00442079460000@elsewhere.test", False), ("sip:%2B442079460000@pbx.test", False),
    ("sip:900442079460000@pbx.test", False), ("sip:+442079460000;phone-context=x@pbx.test", False),
    ("sip:030.12.34.56@pbx.test", True), ("tel:112", False), ("sip:31@pbx.test", False),
    ("sip:*21*00442079460000#@pbx.test", False)])
def test_numbers_by_their_prefix_however_they_are_written(uri: str, allowed: bool) -> None:
    assert At(allowed_prefixes=("+49", "110", "21")).call(uri) == ("" if allowed else "403/numberBarred")


def test_without_prefixes_every_number_may_be_called() -> None:
    assert At().call("tel:+442079460000") == ""


def test_so_many_within_any_hour() -> None:
    at = At(calls_per_hour=3, calls_per_target=3)
    for number in range(3):
        assert at.call(f"tel:+493012345{number}") == ""
        at.now += 600
    assert at.call("tel:+4930999999") == "429/callLimit"
    at.now = 100 + HOUR_S
    assert at.call("tel:+4930999999") == "", "the first one is an hour ago"
    assert at.call("tel:+4930999998") == "429/callLimit"


def test_so_many_to_one_number_however_it_is_written() -> None:
    at = At(calls_per_hour=100, calls_per_target=2)
    assert at.call("tel:+4930123456") == ""
    assert at.call("sip:030123456@pbx.test") == ""
    assert at.call("sip:+49-30-123456@other.test") == "429/callLimit"
    assert at.call("tel:+4930123457") == ""


def test_a_refused_call_is_not_counted() -> None:
    at = At(calls_per_hour=1, allowed_prefixes=("+49",))
    for _ in range(5):
        assert at.call("tel:+442079460000") == "403/numberBarred"
    assert at.call("tel:+4930123456") == ""


def test_what_is_remembered_is_bounded() -> None:
    at = At(calls_per_hour=50)
    for number in range(100):
        at.call(f"sip:{'x' * 5000}{number}@pbx.test")
        at.now += 100
    assert len(at.kept) < 50 * (TARGET + 20)


def test_a_restart_forgets_no_call() -> None:
    at = At(calls_per_hour=3, calls_per_target=2)
    for _ in range(2):
        assert at.call("tel:+4930123456") == ""
        at.now += 600
    at.now = 5.0
    at.restart()
    assert at.call("tel:+4930123456") == "429/callLimit"
    assert at.call("tel:+4930123457") == ""
    assert at.call("tel:+4930123458") == "429/callLimit"
    at.restart()
    at.now += HOUR_S - 600.5
    assert at.call("tel:+4930123458") == "429/callLimit", "the time that it was off does not count"
    at.now += 601
    assert at.call("tel:+4930123458") == ""


@pytest.mark.parametrize("kept", ["", "{", "7", "[1]", '[[1]]', '[["a", "b"]]', '[[-1, "b"]]', "[[1e9, 2]]", "null"])
def test_what_was_kept_and_cannot_be_read_is_left_out(kept: str, caplog: pytest.LogCaptureFixture) -> None:
    at = At(calls_per_hour=1)
    at.kept = kept
    at.restart()
    assert "cannot be read" in caplog.text
    assert at.call("tel:+4930123456") == ""


@pytest.mark.parametrize(("text", "fault"), [
    ("allowed_prefixes = ['+49 30']", "digits, best with '+'"), ("calls_per_hour = 0", "1 to 3600")])
def test_what_is_wrong_with_the_settings_is_said(text: str, fault: str) -> None:
    found = faults_of(f"[sip]\n{text}\n")
    assert any(fault in one for one in found), found
