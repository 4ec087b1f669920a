"""The words of WHIP and WHEP: header fields, fragments, addresses and statuses, without a network."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from appliance.errors import SignalingError
from appliance.media.api import IceFragment, IceServers
from appliance.providers.whip import protocol as wire

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BASE = URL("https://media.example.org:8443/whip/door?key=1")
OFFER = "\r\n".join([
    "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0 1", "a=ice-options:trickle",
    "m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=mid:0", "a=setup:actpass", "a=ice-ufrag:old1", "a=candidate:1 1 udp 1 ::1 9",
    "m=video 9 UDP/TLS/RTP/SAVPF 97", "a=mid:1", "a=ice-ufrag:old1", ""])
CANDIDATE = "candidate:1 1 udp 2130706431 192.0.2.1 39132 typ host"


# --- Link -------------------------------------------------------------------------------------------------------------


def test_links_with_quotes_commas_and_several_in_one_field() -> None:
    found = list(wire.links([
        '<stun:a.example>; rel="ice-server", <turn:b.example?transport=udp>;rel=ice-server ; username="us,er;1";'
        'credential="say \\"hi\\", \\\\o/"; credential-type=password',
        '</sse>; rel="urn:ietf:params:whep:ext:core:server-sent-events" ; events="active,inactive"']))
    assert [one.target for one in found] == ["stun:a.example", "turn:b.example?transport=udp", "/sse"]
    assert found[1].parameters["username"] == "us,er;1"
    assert found[1].parameters["credential"] == 'say "hi", \\o/'
    assert found[2].parameters["events"] == "active,inactive"


@pytest.mark.parametrize(("field", "relations"), [
    ("<stun:a>; REL=ICE-Server", ["ice-server"]),
    ('<stun:a>; rel="next ice-server"; rel="first"', ["next", "ice-server"]),
    ("<stun:a>", []),
    ("<stun:a>;;; rel = ice-server", ["ice-server"]),
])
def test_the_relation_of_a_link(field: str, relations: list[str]) -> None:
    assert [one.relations for one in wire.links([field])] == [relations]


@pytest.mark.parametrize("field", ["", "stun:a", "<stun:a", '<stun:a>; username="open', ", , ", '"<stun:a>"'])
def test_what_is_no_link_is_left_out(field: str) -> None:
    assert wire.ice_servers([field]) is None


def test_rubbish_behind_a_link_ends_at_the_next_comma() -> None:
    field = '<stun:a.example>; rel=ice-server (what "a, b" is) , <stun:b.example>; rel=ice-server'
    assert wire.ice_servers([field]) == IceServers(("stun:a.example", "stun:b.example"))


def test_ice_servers_with_the_login_of_the_first() -> None:
    login = 'rel="ice-server"; username="u"; credential="c"'
    assert wire.ice_servers([
        '<stun:s.example>; rel="ice-server"', f"<turn:t.example?transport=udp>; {login}",
        f'<turns:t.example:443?transport=tcp>; {login}; credential-type="password"',
        f'<turn:oauth.example>; {login}; credential-type="oauth"',
        '<turn:other.example>; rel="ice-server"; username="x"; credential="y"',
        '<turn:nologin.example>; rel="ice-server"', '<https://a.example>; rel="ice-server"',
        '<turns:t.example?transport=udp>; rel="ice-server"; username="u"; credential="c"',
    ]) == IceServers(("stun:s.example",), ("turn:t.example?transport=udp", "turns:t.example:443?transport=tcp"),
                     "u", "c")


def test_a_server_may_name_many_servers_and_few_are_taken() -> None:
    servers = wire.ice_servers([", ".join(f"<stun:s{n}.example>; rel=ice-server" for n in range(200))])
    assert servers is not None
    assert len(servers.stun) == 8


@given(st.lists(st.text(alphabet='<>;,="\\ stunr:elaic-v', max_size=60), max_size=4))
def test_any_link_field_at_all_is_taken_apart(values: list[str]) -> None:
    wire.ice_servers(values)


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "seconds"), [
    ("120", 120.0), (" 0 ", 0.0), ("999999999", 86_400.0),
    ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0), ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
    ("Sunday, 01-Mar-26 12:00:10 GMT", 10.0), ("Mon, 01 Mar 9999 12:00:00 GMT", 86_400.0),
    (None, None), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("1" * 4000, None),
])
def test_how_long_to_wait(value: str | None, seconds: float | None) -> None:
    assert wire.retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_at_all_is_read(value: str) -> None:
    wire.retry_after(value, NOW)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("location", "found"), [
    ("/session/7", "https://media.example.org:8443/session/7"),
    ("7?x=1", "https://media.example.org:8443/whip/7?x=1"),
    ("../session/7", "https://media.example.org:8443/session/7"),
    ("//edge.example.org/7", "https://edge.example.org/7"),
    ("https://edge.example.org/7#part", "https://edge.example.org/7"),
])
def test_a_relative_location(location: str, found: str) -> None:
    assert str(wire.located(BASE, location)) == found


@pytest.mark.parametrize("location", ["ftp://a/b", "http://[::1", "https://u:p@a.example/", "javascript:1"])
def test_a_location_that_is_none(location: str) -> None:
    with pytest.raises(SignalingError):
        wire.located(BASE, location)


@pytest.mark.parametrize(("url", "token", "goes"), [
    ("https://media.example.org:8443/other", True, True),
    ("https://media.example.org/other", False, True),
    ("https://media.example.net:8443/", False, True),
    ("http://media.example.org:8443/", False, False),
    ("http://127.0.0.1/", False, False),
])
def test_where_the_token_goes_and_where_we_go(url: str, token: bool, goes: bool) -> None:
    assert (wire.may_have_token(BASE, URL(url)), wire.may_go_to(BASE, URL(url))) == (token, goes)


def test_unencrypted_only_on_this_machine() -> None:
    here = URL("http://127.0.0.1:7080/whip")
    assert wire.may_go_to(here, URL("http://localhost:9/"))
    assert not wire.may_go_to(here, URL("http://192.0.2.1/"))


# --- descriptions -----------------------------------------------------------------------------------------------------


def test_who_leaves_the_role_open_offers() -> None:
    assert wire.is_offer(OFFER)
    assert not wire.is_offer(OFFER.replace("actpass", "active"))


def test_a_fragment_stands_for_the_first_line() -> None:
    text = wire.text_of(IceFragment("newU", "p" * 22, (CANDIDATE,)), OFFER)
    assert text.split("\r\n") == [
        "a=group:BUNDLE 0 1", "a=ice-options:trickle", "m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=mid:0",
        "a=ice-ufrag:newU", f"a=ice-pwd:{'p' * 22}", f"a={CANDIDATE}", "a=end-of-candidates", ""]


def test_a_fragment_of_the_server() -> None:
    text = (f"a=ice-lite\na=ice-ufrag:abcd\r\na=ice-pwd:{'q' * 24}\r\na={CANDIDATE}\r\n"
            f"m=video 9 X 1\r\na={CANDIDATE}\r\n")
    assert wire.fragment_of(text) == IceFragment("abcd", "q" * 24, (CANDIDATE,), lite=True)
    assert wire.fragment_of(wire.text_of(IceFragment("newU", "p" * 22, (CANDIDATE,)), OFFER)).candidates == (CANDIDATE,)


@pytest.mark.parametrize("text", ["", "a=ice-ufrag:abcd", f"a=ice-pwd:{'q' * 24}", "a=ice-ufrag:ab\r\na=ice-pwd:short",
                                  f"a=ice-ufrag:{'a' * 300}\r\na=ice-pwd:{'q' * 24}"])
def test_a_fragment_without_a_session_is_refused(text: str) -> None:
    with pytest.raises(SignalingError):
        wire.fragment_of(text)


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "key", "final"), [
    (400, "400/badOffer", True), (401, "401/token", True), (403, "403/notPermitted", True),
    (404, "404/noSuchEndpoint", False), (405, "404/noSuchEndpoint", True), (406, "406/offerRefused", True),
    (409, "409/endpointTaken", False), (415, "415/noSdp", True), (422, "422/offerNotProcessed", True),
    (429, "429/tooManyRequests", False), (503, "503/serverBusy", False),
    (418, "503/provider", True), (408, "503/provider", False), (500, "503/provider", False),
    (302, "503/provider", False),
])
def test_what_a_status_means(status: int, key: str, final: bool) -> None:
    setback = wire.refusal(status, plays=False)
    assert (setback.reason.key, setback.final, setback.status) == (key, final, status)
    assert setback.reason.advice
    if key == "503/provider":
        assert str(status) in setback.reason.message


def test_a_redirect_that_loses_the_offer_is_told_as_such() -> None:
    assert "loses the offer" in wire.refusal(301, plays=False).reason.message
    assert "307" in wire.refusal(303, plays=True).reason.advice


def test_a_player_is_told_that_nobody_publishes_and_when_to_come_again() -> None:
    setback = wire.refusal(409, plays=True, wait_s=30)
    assert setback.reason.key == "409/nothingPublished"
    assert "30 s" in setback.reason.message
