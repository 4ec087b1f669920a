"""What may not fit into one packet goes by a connection, or as a datagram where there is none (RFC 3261 18.1.1)."""

from __future__ import annotations

import pytest

from appliance.providers.sip.agent import DATAGRAM, REFUSED_S
from appliance.providers.sip.events import Answered, Closed
from appliance.providers.sip.message import Request
from tests.support.sip_world import ANSWER, PROXY, TO, A, B, Script, Sent, World

LARGE = b"v=0 " + bytes(DATAGRAM)


def of(world: World, word: str) -> list[Sent]:
    return [one for one in world.network.sent if one.word == word]


def ways(world: World, word: str) -> list[str]:
    return [one.to.transport for one in of(world, word)]


def call(world: World, offer: bytes, answer: bytes = ANSWER) -> None:
    world.call.start(TO, offer)
    world.clock.pass_time(0.01)
    world.bob.calls[-1].accept(answer)
    world.clock.pass_time(0.01)
    assert world.of(Answered)


def test_what_is_large_goes_by_a_connection_and_says_so() -> None:
    world = World()
    call(world, LARGE)
    (invite,) = of(world, "INVITE")
    assert isinstance(invite.message, Request)
    assert (invite.to.transport, invite.message.via.transport) == ("tcp", "TCP")
    assert "rport" not in invite.message.via.params
    (contact,) = invite.message.addresses("contact")
    assert contact.uri.transport == "", "we are still reached by UDP"
    assert ways(world, "200 INVITE") == ["tcp"], "it is answered where it came from"
    assert ways(world, "ACK") == ["udp"]
    world.call.end()
    world.clock.pass_time(0.01)
    assert ways(world, "BYE") == ["udp"]
    world.nothing_left()


def test_no_datagram_is_larger_than_1300_bytes_and_none_of_1200_is_a_connection() -> None:
    found = set()
    for body in range(500, 1300, 20):
        world = World()
        call(world, bytes(body))
        (invite,) = of(world, "INVITE")
        size = len(invite.message.serialise())
        assert size <= DATAGRAM if invite.to.transport == "udp" else size > DATAGRAM - 100
        found.add(invite.to.transport)
    assert found == {"udp", "tcp"}


def test_where_no_connection_is_taken_it_is_a_datagram_and_for_ten_minutes_at_once() -> None:
    world = World()
    world.network.deaf.add((B.host, B.port))
    call(world, LARGE)
    (invite,) = of(world, "INVITE")
    assert isinstance(invite.message, Request)
    assert (invite.to.transport, invite.message.via.transport) == ("udp", "UDP")
    assert len(invite.message.headers.all("via")) == 1
    assert invite.message.cseq.number == 1
    world.network.deaf.clear()
    assert world.anna.agent.way_of(invite.message, B) == B
    world.clock.pass_time(REFUSED_S)
    assert world.anna.agent.way_of(invite.message, B).transport == "tcp"


def test_a_cancel_goes_the_way_of_its_invite() -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.call.start(TO, LARGE)
    world.clock.pass_time(0.01)
    (invite,) = script.requests("INVITE")
    script.say(invite, 180, "b")
    world.call.end()
    world.clock.pass_time(0.01)
    (cancel,) = script.requests("CANCEL")
    assert str(cancel.via) == str(invite.via)
    assert ways(world, "CANCEL") == ["tcp"]


def test_who_hangs_up_before_the_refusal_does_not_call_after_it() -> None:
    world = World()
    world.network.deaf.add((B.host, B.port))
    world.call.start(TO, LARGE)
    world.call.end()
    world.clock.pass_time(0.01)
    assert world.network.sent == []
    assert world.of(Closed) == [Closed(487, by_peer=False)]
    world.nothing_left()


def test_a_challenge_is_answered_by_a_connection_too() -> None:
    world = World(server=PROXY, password="secret")
    script = Script(world)
    world.call.start(TO, LARGE)
    world.clock.pass_time(0.01)
    script.say(script.requests("INVITE")[0], 407, "p", ("Proxy-Authenticate", 'Digest realm="r", nonce="1"'))
    first, second = script.requests("INVITE")
    assert second.cseq.number == first.cseq.number + 1
    assert [one.via.transport for one in (first, second)] == ["TCP", "TCP"]
    assert second.body == LARGE


@pytest.mark.parametrize("deaf", [False, True])
def test_an_acknowledgement_with_a_large_answer(deaf: bool) -> None:
    world = World()
    world.connect()
    if deaf:
        world.network.deaf.add((A.host, A.port))
    request = Request(method="ACK", target=f"sip:anna@{A.host}", body=LARGE)
    for name, value in (("From", "<sip:b@example.org>;tag=1"), ("To", "<sip:a@example.org>;tag=2"),
                        ("Call-ID", "c"), ("CSeq", "1 ACK"), ("Max-Forwards", "70")):
        request.headers.add(name, value)
    again = world.bob.agent.send_ack(request)
    world.clock.pass_time(0.01)
    again()
    world.clock.pass_time(0.01)
    sent = [one for one in of(world, "ACK") if one.source.host == B.host]
    assert [one.to.transport for one in sent] == ["udp" if deaf else "tcp"] * 2
    assert all(len(one.message.headers.all("via")) == 1 for one in sent)
