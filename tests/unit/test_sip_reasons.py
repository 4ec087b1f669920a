"""Why a call ended, in our words, and what the network is told."""

from __future__ import annotations

import json

import pytest

from appliance.providers.sip.events import Cause, Closed, causes_of
from appliance.providers.sip.message import Headers, Request
from appliance.providers.sip.reasons import header_of, reason_of, status_of
from appliance.vocabulary import END_REASONS


@pytest.mark.parametrize(("status", "key"), [
    (401, "401/credentials"), (403, "403/forbidden"), (404, "404/notFound"), (408, "487/noAnswer"),
    (480, "480/unreachable"), (484, "404/notFound"), (486, "486/busy"), (487, "487/cancelled"), (488, "488/noCodec"),
    (500, "503/provider"), (503, "503/provider"), (600, "486/busy"), (603, "603/declined"), (699, "503/provider")])
def test_refusals_of_a_call_of_ours(status: int, key: str) -> None:
    assert reason_of(Closed(status, by_peer=True), answered=False, incoming=False).key == key


@pytest.mark.parametrize(("closed", "answered", "key"), [
    (Closed(487, by_peer=True), False, "487/cancelled"),
    (Closed(487, by_peer=True, causes=(Cause("SIP", 200, "elsewhere"),)), False, "487/answeredElsewhere"),
    (Closed(487, by_peer=True), True, "487/cancelled"),
    (Closed(200, by_peer=True), True, "0/remote"), (Closed(481, by_peer=True), True, "0/remote"),
    (Closed(408, by_peer=True), True, "410/mediaLost")])
def test_ends_of_a_call_of_theirs(closed: Closed, answered: bool, key: str) -> None:
    assert reason_of(closed, answered=answered, incoming=True).key == key


def test_what_the_network_said_is_kept() -> None:
    closed = Closed(480, by_peer=True, causes=(Cause("Q.850", 20, "Subscriber absent"),))
    kept = reason_of(closed, answered=False, incoming=False)
    assert kept.message.endswith("(Q.850 20)")
    assert (kept.payload()["sipReason"], kept.payload()["q850"]) == ('Q.850;cause=20;text="Subscriber absent"', 20)
    assert "sipReason" not in reason_of(Closed(480, by_peer=True), answered=False, incoming=False).payload()
    assert "(SIP 502)" in reason_of(Closed(502, by_peer=True), answered=False, incoming=False).message


def test_several_causes_of_one_end_and_what_is_no_text() -> None:
    headers = Headers([("Reason", 'SIP;cause=200;text="Call completed elsewhere", q.850 ;cause=26'),
                       ("Reason", 'X;cause=none'), ("Reason", 'SIP;cause=487;text="\udcff\\"x"')])
    closed = Closed(487, by_peer=True, causes=causes_of(Request(headers, b"", "CANCEL", "sip:a@b")))
    kept = reason_of(closed, answered=False, incoming=True)
    assert kept.key == "487/answeredElsewhere"
    assert kept.q850 == 26
    assert kept.sip_reason == ('SIP;cause=200;text="Call completed elsewhere", Q.850;cause=26, '
                               'SIP;cause=487;text="?\\"x"')
    assert json.loads(json.dumps(kept.payload()))["sipReason"].encode("utf-8")


def test_what_the_network_is_told() -> None:
    assert header_of(END_REASONS["0/local"]) == ""
    assert header_of(END_REASONS["487/answeredElsewhere"]) == 'SIP;cause=200;text="Call completed elsewhere"'
    assert header_of(END_REASONS["410/mediaLost"]) == 'SIP;cause=410;text="mediaLost"'
    assert [status_of(END_REASONS[key]) for key in (
        "486/busy", "603/declined", "480/doNotDisturb", "403/notAllowed", "503/shutdown", "0/removed")] == [
        486, 603, 480, 403, 503, 480]
