"""Bodies that hold a session description, alone or beside something else, and those that hold none."""

from __future__ import annotations

import pytest

from appliance.providers.sip.body import description_of, sdp_of
from appliance.providers.sip.events import Answered, Closed
from appliance.providers.sip.message import Headers, Request, Response
from tests.support.sip_world import ANSWER, OFFER, PROXY, B, Script, World

SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n"
MIXED = (b"preamble\r\n--x y\r\nContent-Type: application/isup;version=nxv3\r\n"
         b"Content-Disposition: signal;handling=optional\r\n\r\n\x01\x00\x49\x00--x\r\n"
         b"\r\n--x y\r\nContent-Type: application/SDP\r\n\r\n" + SDP + b"\r\n--x y--\r\n")
TYPE = 'multipart/mixed; boundary="x y"'


def message(kind: str, body: bytes, *fields: tuple[str, str]) -> Request:
    headers = Headers([("Content-Type", kind)] if kind else [])
    for name, value in fields:
        headers.add(name, value)
    return Request(headers, body, "INVITE", "sip:a@b")


@pytest.mark.parametrize(("kind", "body", "found"), [
    ("application/sdp", SDP, SDP), ("Application/SDP;x=y", SDP, SDP), ("", SDP, SDP), ("text/plain", b"", b""),
    (TYPE, MIXED, SDP + b"\r\n"), (TYPE.replace("mixed", "alternative"), MIXED, SDP + b"\r\n"),
    ("multipart/mixed;boundary=b", b"--b\r\nc: application/sdp\r\n\r\nv=0\r\n--b--", b"v=0\r\n"),
    ("text/plain", b"hello", None), ("multipart/mixed", MIXED, None), ("multipart/mixed;boundary=z", MIXED, None),
    ('multipart/mixed;boundary="', MIXED, None),
    ("multipart/mixed;boundary=b", b"--b\r\nContent-Type: text/plain\r\n\r\nv=0\r\n--b--", None),
    ("multipart/mixed;boundary=b", b"--b\r\nno end of the head", None)])
def test_which_part_is_the_description(kind: str, body: bytes, found: bytes | None) -> None:
    assert description_of(message(kind, body)) == found
    assert sdp_of(message(kind, body)) == (found or b"")


def test_what_need_not_be_understood_is_nothing() -> None:
    optional = ("Content-Disposition", "icon ; handling = optional")
    assert description_of(message("image/png", b"x", optional)) == b""
    assert description_of(message("image/png", b"x", ("Content-Disposition", "session"))) is None


def test_what_is_packed_is_not_understood() -> None:
    assert description_of(message("application/sdp", SDP, ("Content-Encoding", "gzip"))) is None
    assert description_of(message("application/sdp", SDP, ("Content-Encoding", "Identity"))) == SDP


def test_not_more_parts_than_anybody_needs() -> None:
    part = b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n"
    sdp = b"--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--"
    assert description_of(message("multipart/mixed;boundary=b", 15 * part + sdp)) == b"v=0\r\n"
    assert description_of(message("multipart/mixed;boundary=b", 16 * part + sdp)) is None


def test_an_answer_beside_something_else() -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 200, "x", ("Content-Type", TYPE), body=MIXED)
    assert [one.sdp for one in world.of(Answered)] == [SDP + b"\r\n"]


@pytest.mark.parametrize(("kind", "status"), [("text/plain", 415), (TYPE, 100), ("application/sdp", 100)])
def test_a_call_with_it(kind: str, status: int) -> None:
    world = World()
    script = Script(world)
    invite = message(kind, MIXED if kind == TYPE else OFFER,
                     ("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bKx;rport"), ("From", "<sip:c@example.org>;tag=1"),
                     ("To", "<sip:bob@example.org>"), ("Call-ID", "c9"), ("CSeq", "1 INVITE"),
                     ("Contact", f"<sip:c@{PROXY.host}>"))
    invite.target = "sip:secret-bob@192.0.2.2"
    world.network.carry(invite.serialise(), PROXY, B)
    world.clock.pass_time(0.01)
    (said,) = [one for one in script.got if isinstance(one, Response)]
    assert said.status == status
    if status == 415:
        assert said.headers.get("accept") == "application/sdp"
        assert not world.bob.calls
    else:
        (call,) = world.bob.calls
        assert call.offer_of_peer == (SDP + b"\r\n" if kind == TYPE else OFFER)
        call.accept(ANSWER)
        assert not world.bob.of(Closed)
