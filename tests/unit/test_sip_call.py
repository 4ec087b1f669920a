"""Calls between user agents on a network in memory: what the peer gets, in good times and in races."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from appliance.providers.sip.agent import FROM_ONE, TRANSACTIONS, Hop
from appliance.providers.sip.events import Answered, Closed, Keyed, Offered, Progress, Refused
from appliance.providers.sip.message import Headers, Request, Response
from appliance.providers.sip.uri import NameAddr, Uri
from tests.support.sip_world import ANSWER, OFFER, PROXY, TO, A, B, Script, World


@pytest.fixture
def scripted() -> Script:
    world = World(server=PROXY, password="secret")
    script = Script(world)
    world.dial()
    return script


def test_a_call_from_ringing_to_hang_up() -> None:
    world = World()
    world.connect()
    assert [one.status for one in world.of(Progress)] == [180]
    assert [one.sdp for one in world.of(Answered)] == [ANSWER]
    assert world.bob.calls[0].offer_of_peer == OFFER
    assert world.network.words() == ["INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK"]
    world.call.end()
    world.clock.pass_time(0.01)
    assert world.network.words()[-2:] == ["BYE", "200 BYE"]
    assert world.of(Closed) == [Closed(200, by_peer=False)]
    assert world.bob.of(Closed) == [Closed(200, by_peer=True)]
    world.nothing_left()


def test_the_callee_hangs_up_with_a_reason() -> None:
    world = World()
    world.connect()
    world.bob.calls[0].end('Q.850;cause=16;text="Terminated"')
    world.clock.pass_time(0.01)
    (closed,) = world.of(Closed)
    assert (closed.by_peer, closed.causes[0].protocol, closed.causes[0].code) == (True, "Q.850", 16)
    world.nothing_left()


@pytest.mark.parametrize("lost", ["INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"])
def test_a_lost_message_is_made_good(lost: str) -> None:
    world = World()
    world.lose(lost)
    world.dial()
    world.clock.pass_time(0.6)
    world.bob.calls[0].ring()
    world.bob.calls[0].accept(ANSWER)
    world.clock.pass_time(2)
    assert len(world.of(Answered)) == 1, "copies are no second answer"
    world.call.end()
    world.clock.pass_time(2)
    assert world.bob.of(Closed) == [Closed(200, by_peer=True)]
    world.nothing_left()


def test_a_200_that_nobody_acknowledges_ends_the_call_with_a_bye() -> None:
    world = World()
    world.network.lose = lambda sent: sent.word == "ACK"
    world.connect()
    world.clock.pass_time(31.9)
    assert not world.bob.of(Closed)
    world.clock.pass_time(5)
    assert world.bob.of(Closed) == [Closed(408, by_peer=True)]
    assert "BYE" in world.network.words(B)
    assert world.network.words(B).count("200 INVITE") == 11
    world.nothing_left()


def test_a_refusal_and_its_status() -> None:
    world = World()
    world.dial()
    world.bob.calls[0].reject(486)
    world.clock.pass_time(0.01)
    assert [(one.status, one.by_peer) for one in world.of(Closed)] == [(486, True)]
    assert world.network.words()[-1] == "ACK"
    world.nothing_left()


def test_a_cancel_before_anything_is_heard_waits_for_it() -> None:
    world = World()
    world.lose("100 INVITE")
    world.dial()
    world.call.end()
    world.clock.pass_time(0.1)
    assert world.of(Closed) == [Closed(487, by_peer=False)]
    assert "CANCEL" not in world.network.words()
    world.clock.pass_time(0.5)  # the INVITE again, and its 100
    assert world.network.words().count("CANCEL") == 1
    assert [one.status for one in world.bob.of(Closed)] == [487]
    assert world.network.words()[-3:] == ["200 CANCEL", "487 INVITE", "ACK"]
    assert len({one.message.to.tag for one in world.network.sent[-3:]}) == 1, "one dialog (RFC 3261 9.2)"
    world.nothing_left()


def test_a_cancel_that_crosses_the_200_becomes_a_bye(scripted: Script) -> None:
    world = scripted.world
    (invite,) = scripted.requests("INVITE")
    scripted.say(invite, 180, "x")
    world.call.end('SIP;cause=200;text="Call completed elsewhere"')
    world.clock.pass_time(0.01)
    assert scripted.requests("CANCEL")[0].headers.get("reason").startswith("SIP;cause=200")
    scripted.say(invite, 200, "x", body=ANSWER)
    assert [one.cseq.number for one in scripted.requests("ACK")] == [invite.cseq.number]
    (bye,) = scripted.requests("BYE")
    assert (bye.to.tag, bye.target) == ("x", f"sip:x@{PROXY.host}")
    assert not world.of(Answered)
    scripted.say(bye, 200, "x")
    world.nothing_left()


def test_a_cancel_that_nobody_answers_is_given_up() -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 180, "x")
    world.call.end()
    world.clock.pass_time(80)
    assert world.anna.agent.busy == 0


def test_two_answers_from_a_fork_one_is_taken_the_other_hung_up(scripted: Script) -> None:
    world = scripted.world
    (invite,) = scripted.requests("INVITE")
    scripted.say(invite, 183, "one", body=b"early")
    scripted.say(invite, 180, "two")
    scripted.say(invite, 200, "two", body=ANSWER)
    scripted.say(invite, 200, "one", body=b"late")
    assert [one.sdp for one in world.of(Answered)] == [ANSWER]
    assert [one.sdp for one in world.of(Progress)] == [b"early", b""]
    assert sorted(one.to.tag for one in scripted.requests("ACK")) == ["one", "two"]
    assert [one.to.tag for one in scripted.requests("BYE")] == ["one"]
    scripted.say(invite, 200, "one", body=b"late")
    scripted.say(invite, 200, "two", body=ANSWER)
    assert [one.to.tag for one in scripted.requests("ACK")].count("one") == 2, "a copy has its ACK again"
    assert len(scripted.requests("BYE")) == 1
    assert not world.of(Closed)


def test_a_challenge_is_answered_and_a_stale_nonce_too(scripted: Script) -> None:
    world = scripted.world
    (first,) = scripted.requests("INVITE")
    scripted.say(first, 407, "p", ("Proxy-Authenticate", 'Digest realm="r", nonce="1", qop="auth", algorithm=SHA-256'),
                 ("Proxy-Authenticate", 'Digest realm="r", nonce="1", qop="auth", algorithm=MD5'))
    second = scripted.requests("INVITE")[-1]
    assert 'algorithm=SHA-256' in second.headers.get("proxy-authorization")
    assert second.cseq.number == first.cseq.number + 1
    assert second.via.branch != first.via.branch
    assert (second.call_id, second.sender.tag) == (first.call_id, first.sender.tag)
    scripted.say(second, 407, "p", ("Proxy-Authenticate", 'Digest realm="r", nonce="2", qop="auth", stale=true'))
    third = scripted.requests("INVITE")[-1]
    assert 'nonce="2"' in third.headers.get("proxy-authorization")
    scripted.say(third, 407, "p", ("Proxy-Authenticate", 'Digest realm="r", nonce="3", qop="auth"'))
    assert len(scripted.requests("INVITE")) == 3, "a wrong password is not tried for ever"
    assert [one.status for one in world.of(Closed)] == [407]


@pytest.mark.parametrize("status", [300, 302, 404, 480, 500, 503, 600, 603])
def test_every_refusal_ends_the_call_with_its_status(scripted: Script, status: int) -> None:
    scripted.say(scripted.requests("INVITE")[0], status, "p", ("Contact", "<sip:elsewhere@example.org>"),
                 ("Reason", 'Q.850;cause=1;text="Unallocated"'))
    (closed,) = scripted.world.of(Closed)
    assert (closed.status, closed.causes[0].code) == (status, 1)
    assert len(scripted.requests("ACK")) == 1


def test_requests_in_the_dialog_go_by_the_recorded_route(scripted: Script) -> None:
    world = scripted.world
    (invite,) = scripted.requests("INVITE")
    near: list[Any] = []
    world.network.taps["near.example", 5060] = lambda message, _: near.append(message)
    scripted.say(invite, 200, "x", ("Record-Route", "<sip:far.example;lr>"), ("Record-Route", "<sip:near.example;lr>"),
                 body=ANSWER)
    world.call.end()
    world.clock.pass_time(0.01)
    assert [one.method for one in near] == ["ACK", "BYE"]
    for one in near:
        assert one.headers.all("route") == ["<sip:near.example;lr>", "<sip:far.example;lr>"]
        assert one.target == f"sip:x@{PROXY.host}"


def test_a_router_of_before_rfc_3261_gets_what_is_addressed_to_it(scripted: Script) -> None:
    world = scripted.world
    (invite,) = scripted.requests("INVITE")
    near: list[Any] = []
    world.network.taps["near.example", 5060] = lambda message, _: near.append(message)
    scripted.say(invite, 200, "x", ("Record-Route", "<sip:far.example;lr>"), ("Record-Route", "<sip:near.example>"),
                 body=ANSWER)
    world.call.end()
    world.clock.pass_time(0.01)
    assert [one.method for one in near] == ["ACK", "BYE"]
    for one in near:
        assert one.target == "sip:near.example"
        assert one.headers.all("route") == ["<sip:far.example;lr>", f"<sip:x@{PROXY.host}>"]


def test_provisional_responses_that_must_arrive_are_acknowledged_in_order(scripted: Script) -> None:
    (invite,) = scripted.requests("INVITE")
    assert "100rel" in invite.headers.tokens("supported")
    reliable = ("Require", "100rel")
    scripted.say(invite, 183, "x", reliable, ("RSeq", "7"), body=b"early")
    scripted.say(invite, 183, "x", reliable, ("RSeq", "7"), body=b"early")
    scripted.say(invite, 180, "x", reliable, ("RSeq", "9"))
    scripted.say(invite, 180, "x", reliable, ("RSeq", "8"))
    pracks = scripted.requests("PRACK")
    assert [one.headers.get("rack") for one in pracks] == ["7 1 INVITE", "8 1 INVITE"]
    assert [one.status for one in scripted.world.of(Progress)] == [183, 180], "copies and gaps are no news"
    for one in pracks:
        scripted.say(one, 200, "x")
    scripted.say(invite, 200, "x")
    (ack,) = scripted.requests("ACK")
    assert ack.cseq.number == 1
    scripted.world.call.end()
    scripted.world.clock.pass_time(0.01)
    assert scripted.requests("BYE")[0].cseq.number == pracks[-1].cseq.number + 1
    assert [one.sdp for one in scripted.world.of(Answered)] == [b""]


def test_an_answer_without_a_contact_ends_the_call(scripted: Script) -> None:
    response = scripted.requests("INVITE")[0].response(200, "OK", tag="x")
    response.headers.add("Contact", "<tel:110>")
    scripted.world.network.carry(response.serialise(), PROXY, A)
    scripted.world.clock.pass_time(0.01)
    assert [one.status for one in scripted.world.of(Closed)] == [503]


def test_a_number_that_is_withheld_is_told_to_the_network_alone() -> None:
    world = World()
    world.anna.agent.identity = replace(world.anna.agent.identity, withheld=True)
    world.connect()
    invite = world.bob.calls[0].request
    assert str(invite.sender.uri) == "sip:anonymous@anonymous.invalid"
    assert invite.headers.get("privacy") == "id"
    assert invite.headers.get("p-preferred-identity") == "<sip:anna@example.org>"
    world.call.end()
    world.nothing_left()
    for one in world.network.sent:
        if one.source == A:
            assert "anna@example.org" not in str(one.message.sender), "nor later in the dialog"
    register = world.anna.agent.request("REGISTER", TO, NameAddr(TO), "c", "t")
    assert str(register.sender.uri) == "sip:anna@example.org"
    assert "privacy" not in register.headers


# --- in the call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_caller", [True, False])
def test_a_new_description_and_its_answer(by_caller: bool) -> None:
    world = World()
    world.connect()
    bobs = world.bob.calls[0]
    offering, answering = (world.call, bobs) if by_caller else (bobs, world.call)
    told_offering, told_answering = (world.told, world.bob.told) if by_caller else (world.bob.told, world.told)
    offering.offer(lambda: b"hold")
    world.clock.pass_time(0.01)
    assert [one.sdp for one in told_answering if isinstance(one, Offered)] == [b"hold"]
    answering.answer(b"held")
    world.clock.pass_time(0.01)
    assert [one.sdp for one in told_offering if isinstance(one, Answered)][-1] == b"held"
    offering.offer(lambda: b"resume")
    world.clock.pass_time(0.01)
    answering.refuse("not now")
    world.clock.pass_time(0.01)
    assert [one.status for one in told_offering if isinstance(one, Refused)] == [488]
    assert not world.of(Closed)
    world.call.end()
    world.nothing_left()


def test_descriptions_that_cross_are_offered_again() -> None:
    """Both get 491; the one that owns the Call-ID waits longer."""
    world = World()
    world.connect()
    world.call.offer(lambda: b"of anna")
    world.bob.calls[0].offer(lambda: b"of bob")
    world.clock.pass_time(0.02)
    assert world.network.words().count("491 INVITE") == 2
    world.clock.pass_time(2.05)
    assert [one.sdp for one in world.of(Offered)] == [b"of bob"]
    world.call.answer(b"fine")
    world.clock.pass_time(4)
    assert [one.sdp for one in world.bob.of(Offered)] == [b"of anna"]


def test_of_wishes_that_pile_up_the_latest_is_offered() -> None:
    world = World()
    world.connect()
    for text in (b"1", b"2", b"3"):
        world.call.offer(lambda text=text: text)  # type: ignore[misc]
    world.clock.pass_time(0.01)
    world.bob.calls[0].answer(b"fine")
    world.clock.pass_time(0.01)
    assert [one.sdp for one in world.bob.of(Offered)] == [b"1", b"3"]


def test_a_peer_that_knows_of_no_call_any_more_ends_it() -> None:
    world = World()
    world.connect()
    world.bob.agent.close()
    world.call.offer(lambda: b"hold")
    world.clock.pass_time(0.01)
    assert [one.status for one in world.of(Closed)] == [481]


def test_a_peer_that_is_gone_ends_it_too() -> None:
    world = World()
    world.connect()
    world.network.lose = lambda sent: sent.source == A
    world.call.offer(lambda: b"hold")
    world.clock.pass_time(33)
    assert [one.status for one in world.of(Closed)] == [408]


def test_a_call_without_an_offer_gets_ours_and_answers_in_the_ack() -> None:
    world = World()
    script = Script(world)
    invite = Request(Headers([
        ("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bKx;rport"), ("From", "<sip:c@example.org>;tag=1"),
        ("To", "<sip:bob@example.org>"), ("Call-ID", "c9"), ("CSeq", "1 INVITE"), ("Contact", f"<sip:c@{PROXY.host}>"),
        ("Max-Forwards", "70")]), b"", "INVITE", "sip:secret-bob@192.0.2.2")
    world.network.carry(invite.serialise(), PROXY, B)
    world.clock.pass_time(0.01)
    (call,) = world.bob.calls
    assert call.offer_of_peer == b""
    call.accept(OFFER)
    world.clock.pass_time(0.01)
    ok = next(one for one in script.got if isinstance(one, Response) and one.status == 200)
    assert ok.body == OFFER
    ack = invite.copy()
    ack.method, ack.body = "ACK", ANSWER
    for name, value in (("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bKy"), ("CSeq", "1 ACK"),
                        ("To", ok.headers.get("to")), ("Content-Type", "application/sdp")):
        ack.headers.set(name, value)
    world.network.carry(ack.serialise(), PROXY, B)
    world.clock.pass_time(0.01)
    assert [one.sdp for one in world.bob.of(Answered)] == [ANSWER]


@pytest.mark.parametrize(("kind", "body", "digit"), [
    ("application/dtmf-relay", b"Signal=5\r\nDuration=160", "5"), ("application/dtmf-relay", b"Signal= #\r\n", "#"),
    ("application/dtmf", b"a", "A"), ("application/dtmf-relay", b"Signal=55", ""), ("text/plain", b"5", "")])
def test_digits_by_info(kind: str, body: bytes, digit: str) -> None:
    world = World()
    world.connect()
    assert world.call.dialog is not None
    info = world.call.dialog.request("INFO")
    info.headers.add("Content-Type", kind)
    info.body = body
    answers: list[int] = []
    world.anna.agent.exchange(info, on_response=lambda one: answers.append(one.status), on_failure=lambda _: None,
                              in_dialog=True)
    world.clock.pass_time(0.01)
    assert answers == [200]
    assert [one.digit for one in world.bob.of(Keyed)] == ([digit] if digit else [])


def ask(world: World, change: Callable[[Request], None], method: str = "OPTIONS") -> int:
    """The status of an answer to a request in the dialog."""
    assert world.call.dialog is not None
    request = world.call.dialog.request(method)
    change(request)
    answers: list[int] = []
    world.anna.agent.exchange(request, on_response=lambda one: answers.append(one.status), on_failure=lambda _: None,
                              in_dialog=True)
    world.clock.pass_time(0.01)
    return answers[0]


@pytest.mark.parametrize(("method", "change", "status"), [
    ("OPTIONS", lambda one: None, 200),
    ("SUBSCRIBE", lambda one: None, 405),
    ("UPDATE", lambda one: None, 200),
    ("OPTIONS", lambda one: one.headers.add("Require", "magic"), 420),
    ("OPTIONS", lambda one: one.headers.set("CSeq", "1 OPTIONS"), 500),
    ("OPTIONS", lambda one: one.headers.set("To", "<sip:bob@example.org>;tag=stranger"), 481),
    ("INVITE", lambda one: (one.headers.add("Content-Type", "text/plain"), setattr(one, "body", b"x")), 415)])
def test_what_is_answered_in_a_dialog(method: str, change: Callable[[Request], None], status: int) -> None:
    world = World()
    world.connect()
    assert ask(world, change, method) == status
    assert not world.bob.of(Closed)


def test_an_update_with_a_description_is_answered_like_a_re_invite() -> None:
    world = World()
    world.connect()
    assert world.call.dialog is not None
    update = world.call.dialog.request("UPDATE")
    update.headers.add("Content-Type", "application/sdp")
    update.headers.add("Contact", "<sip:anna@192.0.2.77>")
    update.body = b"moved"
    bodies: list[bytes] = []
    world.anna.agent.exchange(update, on_response=lambda one: bodies.append(one.body), on_failure=lambda _: None,
                              in_dialog=True)
    world.clock.pass_time(0.01)
    world.bob.calls[0].answer(b"fine")
    world.clock.pass_time(0.01)
    assert bodies == [b"fine"]
    dialog = world.bob.calls[0].dialog
    assert dialog is not None
    assert dialog.target.host == "192.0.2.77", "the peer is where it says now"


# --- strangers -------------------------------------------------------------------------------------------------------


def test_a_call_to_an_address_that_nobody_has_registered_is_left_without_a_word() -> None:
    world = World()
    world.bob.trusted = False
    world.dial()
    world.clock.pass_time(40)
    assert set(world.network.words()) == {"INVITE"}
    assert world.bob.agent.unwanted == 7
    assert [one.status for one in world.of(Closed)] == [408]
    assert not world.bob.calls


def test_a_call_to_our_own_contact_is_taken_from_anywhere() -> None:
    world = World()
    world.bob.trusted = False
    world.call.start(Uri("sip", "secret-bob", "192.0.2.2"), OFFER)
    world.clock.pass_time(0.01)
    assert len(world.bob.calls) == 1


def test_what_is_no_sip_is_counted_and_nothing_else() -> None:
    world = World()
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 500, b"SIP/2.0 200 OK\r\n\r\n"):
        world.bob.agent.receive(data, A)
    assert world.bob.agent.malformed == 3
    world.connect()
    assert world.of(Answered)


@pytest.mark.parametrize(("method", "change", "status"), [
    ("OPTIONS", lambda one: None, 200), ("REGISTER", lambda one: None, 405), ("BYE", lambda one: None, 481),
    ("INVITE", lambda one: one.headers.add("Require", "precondition"), 420),
    ("INVITE", lambda one: None, 400), ("INVITE", lambda one: one.headers.add("Contact", "<sip\">"), 400),
    ("OPTIONS", lambda one: setattr(one, "target", "urn:service:sos"), 416),
    ("BYE", lambda one: one.headers.set("To", "<sip:bob@example.org>;tag=gone"), 481)])
def test_what_is_answered_outside_dialogs(method: str, change: Callable[[Request], None], status: int) -> None:
    world = World()
    request = world.anna.agent.request(method, TO, NameAddr(TO), "c1", "t1")
    change(request)
    answers: list[int] = []
    world.anna.agent.exchange(request, on_response=lambda one: answers.append(one.status), on_failure=lambda _: None)
    world.clock.pass_time(0.01)
    assert answers == [status]
    world.nothing_left()


def test_a_flood_of_strangers_is_not_even_read() -> None:
    world = World()
    world.bob.trusted = False
    invite = world.anna.agent.request("INVITE", TO, NameAddr(TO), "c1", "t1")
    for number in range(1000):
        invite.headers.set("Via", f"SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK{number}")
        world.bob.agent.receive(invite.serialise() if number % 2 else b"\xff" * 1400, Hop("udp", "203.0.113.9", 5060))
    agent = world.bob.agent
    assert (agent.unwanted, agent.malformed, agent.busy) == (1000, 0, 0)
    assert not world.network.sent


def test_a_flood_of_one_leaves_the_others_room_and_is_over_with_it() -> None:
    world = World()
    bob = world.bob
    for number in range(300):
        ask = world.anna.agent.request("OPTIONS", TO, NameAddr(TO), f"flood{number}", "t1")
        ask.headers.add("Via", f"SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKflood{number}")
        bob.agent.receive(ask.serialise(), Hop("udp", "203.0.113.9", 5060))
    assert bob.agent.busy == FROM_ONE
    assert bob.agent.flooded == 300 - FROM_ONE
    for number in range(600):  # and many peers together
        ask.headers.set("Via", f"SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKmany{number}")
        ask.headers.set("Call-ID", f"many{number}")
        bob.agent.receive(ask.serialise(), Hop("udp", f"198.51.100.{number % 250}", 5060))
    assert bob.agent.busy == TRANSACTIONS
    world.clock.pass_time(33)
    assert bob.agent.busy == 0
    world.connect()
    assert world.of(Answered)


def test_keep_alives_are_nothing() -> None:
    world = World()
    for data in (b"\r\n\r\n", b"\r\n", b"\0\0\0\0", b" "):
        world.bob.agent.receive(data, A)
    assert (world.bob.agent.malformed, world.bob.agent.unwanted) == (0, 0)


def test_the_same_request_by_two_ways_is_a_loop() -> None:
    world = World()
    world.dial()
    invite = next(one.message for one in world.network.sent if one.word == "INVITE")
    assert isinstance(invite, Request)
    other = invite.copy()
    other.headers.set("Via", str(invite.via).replace("branch=z9hG4bK", "branch=z9hG4bKother"))
    world.network.carry(other.serialise(), A, B)
    world.clock.pass_time(0.01)
    assert "482 INVITE" in world.network.words(B)
    assert len(world.bob.calls) == 1


def test_responses_go_to_where_the_request_came_from() -> None:
    """RFC 3581: a translator has changed address and port."""
    world = World()
    seen: list[Response] = []
    world.network.taps["203.0.113.5", 40_000] = lambda message, _: seen.append(message)  # type: ignore[arg-type]
    world.dial()
    invite = next(one.message for one in world.network.sent if one.word == "INVITE")
    assert isinstance(invite, Request)
    other = invite.copy()
    other.headers.set("Call-ID", "another")
    other.headers.set("Via", "SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bKnat")
    world.network.carry(other.serialise(), Hop("udp", "203.0.113.5", 40_000), B)
    world.clock.pass_time(0.01)
    assert seen[0].status == 100
    assert (seen[0].via.params["received"], seen[0].via.params["rport"]) == ("203.0.113.5", "40000")
