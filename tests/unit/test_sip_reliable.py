"""Provisional responses that must arrive (RFC 3262), and descriptions that change before and after the answer by UPDATE
(RFC 3311)."""

from __future__ import annotations

import pytest

from appliance.providers.sip.events import Answered, Closed, Offered, Refused
from appliance.providers.sip.message import Headers, Request, Response
from tests.support.sip_world import ANSWER, OFFER, PROXY, TO, A, B, Script, World

REQUIRED = ("Require", "100rel")


def ring_reliably(world: World) -> None:
    world.call.start(TO, OFFER, REQUIRED)
    world.clock.pass_time(0.01)
    world.bob.calls[0].ring()


def responses(world: World, word: str) -> list[Response]:
    return [one.message for one in world.network.sent if one.word == word and isinstance(one.message, Response)]


class Caller:
    """Somebody at the proxy's address who calls Bob with what the test writes."""

    def __init__(self, world: World, body: bytes = b"", *fields: tuple[str, str]) -> None:
        self.world = world
        self.script = Script(world)
        self.invite = Request(Headers([
            ("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bK1;rport"), ("From", "<sip:c@example.org>;tag=1"),
            ("To", "<sip:bob@example.org>"), ("Call-ID", "c9"), ("CSeq", "1 INVITE"), ("Max-Forwards", "70"),
            ("Contact", f"<sip:c@{PROXY.host}>"), *fields]), body, "INVITE", "sip:secret-bob@192.0.2.2")
        self.carry(self.invite)
        self.call = world.bob.calls[-1]

    def carry(self, request: Request) -> None:
        self.world.network.carry(request.serialise(), PROXY, B)
        self.world.clock.pass_time(0.01)

    def ask(self, method: str, cseq: int, *fields: tuple[str, str], body: bytes = b"") -> None:
        """A request in the dialog."""
        request = self.invite.copy()
        request.method, request.body = method, body
        request.headers.drop("require")
        tag = next(one.to.tag for one in self.script.got if isinstance(one, Response) and one.to.tag)
        for name, value in (("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bK{method}{cseq};rport"),
                            ("CSeq", f"{1 if method == 'ACK' else cseq} {method}"),
                            ("To", f"<sip:bob@example.org>;tag={tag}"), *fields):
            request.headers.set(name, value)
        if body:
            request.headers.set("Content-Type", "application/sdp")
        self.carry(request)

    def said(self, status: int, method: str) -> list[Response]:
        return [one for one in self.script.got if isinstance(one, Response)
                and (one.status, one.cseq.method) == (status, method)]


# --- they call -------------------------------------------------------------------------------------------------------


def test_ringing_that_must_arrive_is_acknowledged() -> None:
    world = World()
    ring_reliably(world)
    world.clock.pass_time(0.01)
    world.bob.calls[0].accept(ANSWER)
    world.clock.pass_time(0.01)
    assert world.network.words() == ["INVITE", "100 INVITE", "180 INVITE", "PRACK", "200 PRACK", "200 INVITE", "ACK"]
    (ringing,) = responses(world, "180 INVITE")
    assert ringing.headers.get("require") == "100rel"
    assert 0 < (ringing.number("rseq") or 0) < 1 << 31
    assert [one.sdp for one in world.of(Answered)] == [ANSWER]
    world.call.end()
    world.nothing_left()


@pytest.mark.parametrize("lost", ["180 INVITE", "PRACK", "200 PRACK"])
def test_it_is_made_good_when_lost(lost: str) -> None:
    world = World()
    world.lose(lost)
    ring_reliably(world)
    world.clock.pass_time(3)
    numbers = {one.number("rseq") for one in responses(world, "180 INVITE")}
    assert len(numbers) == 1, "copies, and no second response"
    copies = len(responses(world, "180 INVITE"))
    world.clock.pass_time(20)
    assert len(responses(world, "180 INVITE")) == copies, "acknowledged"
    world.call.end()
    world.nothing_left()


def test_each_minute_it_rings_again_under_the_next_number() -> None:
    world = World()
    ring_reliably(world)
    world.clock.pass_time(125)
    numbers = [one.number("rseq") or 0 for one in responses(world, "180 INVITE")]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert world.network.words().count("200 PRACK") == 3
    world.call.end()
    world.nothing_left()


def test_a_caller_that_never_acknowledges_is_refused() -> None:
    caller = Caller(World(), OFFER, REQUIRED)
    caller.call.ring()
    caller.world.clock.pass_time(31.9)
    assert not caller.said(504, "INVITE")
    assert [one.at for one in caller.world.network.sent if one.word == "180 INVITE"] == pytest.approx(
        [1000.01 + after for after in (0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5)])
    caller.world.clock.pass_time(0.3)
    assert caller.said(504, "INVITE")
    assert caller.world.bob.of(Closed) == [Closed(408, by_peer=True)]


def test_an_answer_need_not_wait_for_it() -> None:
    caller = Caller(World(), OFFER, REQUIRED)
    caller.call.ring()
    caller.call.accept(ANSWER)
    caller.world.clock.pass_time(0.01)
    assert caller.said(200, "INVITE")[0].body == ANSWER
    number = caller.said(180, "INVITE")[0].number("rseq")
    caller.ask("PRACK", 2, ("RAck", f"{number} 1 INVITE"))
    assert caller.said(200, "PRACK"), "it is on its way all the same"
    caller.ask("ACK", 1)
    caller.world.clock.pass_time(5)
    assert len(caller.said(180, "INVITE")) == 1


@pytest.mark.parametrize("rack", ["1 1 INVITE", "{} 2 INVITE", "{} 1 UPDATE", "", "x"])
def test_an_acknowledgement_of_something_else_is_none(rack: str) -> None:
    caller = Caller(World(), OFFER, REQUIRED)
    caller.call.ring()
    caller.world.clock.pass_time(0.01)
    number = caller.said(180, "INVITE")[0].number("rseq")
    caller.ask("PRACK", 2, ("RAck", rack.format(number)))
    assert caller.said(481, "PRACK")
    caller.ask("PRACK", 3, ("RAck", f"{number} 1 INVITE"))
    assert caller.said(200, "PRACK")
    caller.ask("PRACK", 4, ("RAck", f"{number} 1 INVITE"))
    assert len(caller.said(481, "PRACK")) == 2, "once"


def test_a_call_without_an_offer_has_ours_while_it_rings() -> None:
    """RFC 3262 5: the first response that must arrive has it, its PRACK the answer; the 200 waits for that."""
    caller = Caller(World(), b"", REQUIRED)
    assert caller.call.wants_early_offer
    caller.call.ring(OFFER)
    caller.call.accept(b"not told again")
    caller.world.clock.pass_time(0.01)
    assert caller.said(180, "INVITE")[0].body == OFFER
    assert not caller.said(200, "INVITE")
    caller.ask("UPDATE", 2, body=b"too soon")
    assert caller.said(491, "UPDATE"), "our offer has no answer yet"
    number = caller.said(180, "INVITE")[0].number("rseq")
    caller.ask("PRACK", 3, ("RAck", f"{number} 1 INVITE"), body=ANSWER)
    assert caller.said(200, "INVITE")[0].body == b""
    assert [one.sdp for one in caller.world.bob.of(Answered)] == [ANSWER]
    caller.ask("ACK", 1)
    caller.world.clock.pass_time(40)
    assert not caller.world.bob.of(Closed)
    assert len(caller.said(200, "INVITE")) == 1


def test_a_cancel_ends_the_ringing() -> None:
    world = World()
    world.network.lose = lambda sent: sent.word == "PRACK"
    ring_reliably(world)
    world.clock.pass_time(0.1)
    world.call.end()
    world.clock.pass_time(0.1)
    copies = len(responses(world, "180 INVITE"))
    world.clock.pass_time(20)
    assert len(responses(world, "180 INVITE")) == copies
    assert [one.status for one in world.bob.of(Closed)] == [487]
    world.nothing_left()


# --- UPDATE ----------------------------------------------------------------------------------------------------------


def test_a_description_while_theirs_is_not_answered_has_to_wait() -> None:
    caller = Caller(World(), OFFER)
    caller.call.ring()
    caller.world.clock.pass_time(0.01)
    caller.ask("UPDATE", 2, body=b"changed")
    assert 0 <= (caller.said(500, "UPDATE")[0].number("retry-after") or 0) <= 10
    caller.ask("UPDATE", 3)
    assert caller.said(200, "UPDATE"), "without a description it is a sign of life"
    caller.ask("INVITE", 4, body=b"changed")
    assert caller.said(500, "INVITE")[0].number("retry-after") is not None
    assert not caller.world.bob.of(Offered)


def test_a_description_while_ours_is_not_answered_crosses_it() -> None:
    caller = Caller(World())
    caller.call.accept(OFFER)
    caller.world.clock.pass_time(0.01)
    caller.ask("UPDATE", 2, body=b"changed")
    assert caller.said(491, "UPDATE")


def early(world: World, script: Script, *fields: tuple[str, str], body: bytes = b"") -> None:
    """A request of who rings and has not answered yet."""
    invite = script.requests("INVITE")[0]
    update = Request(Headers([
        ("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bK{len(script.got)};rport"), ("From", f"{invite.to};tag=x"),
        ("To", str(invite.sender)), ("Call-ID", invite.call_id), ("Max-Forwards", "70"),
        ("CSeq", f"{len(script.got)} UPDATE"), ("Content-Type", "application/sdp"), *fields]), body, "UPDATE",
        "sip:secret-anna@192.0.2.1")
    world.network.carry(update.serialise(), PROXY, A)
    world.clock.pass_time(0.01)


def answers(script: Script, method: str) -> list[Response]:
    return [one for one in script.got if isinstance(one, Response) and one.cseq.method == method]


def test_who_rings_may_change_its_early_media() -> None:
    """A network that forwards a call does."""
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    (invite,) = script.requests("INVITE")
    script.say(invite, 180, "x", REQUIRED, ("RSeq", "7"))
    early(world, script, body=b"too soon")
    assert [one.status for one in answers(script, "UPDATE")] == [491]
    script.say(invite, 183, "x", REQUIRED, ("RSeq", "8"), body=ANSWER)
    early(world, script, body=b"elsewhere")
    assert [one.sdp for one in world.of(Offered)] == [b"elsewhere"]
    world.call.answer(b"fine")
    world.clock.pass_time(0.01)
    assert [(one.status, one.body) for one in answers(script, "UPDATE")][1:] == [(200, b"fine")]
    script.say(invite, 200, "x")
    assert [one.sdp for one in world.of(Answered)] == [b""]
    assert not world.of(Closed)


def test_a_stranger_s_early_request_has_no_call() -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 183, "y", REQUIRED, ("RSeq", "8"), body=ANSWER)
    early(world, script, body=b"elsewhere")
    assert [one.status for one in answers(script, "UPDATE")] == [481]


def refresh(world: World, script: Script) -> Request:
    """Connected for so long that it is for us to give a sign of life."""
    world.dial()
    script.say(script.requests("INVITE")[0], 200, "x", ("Allow", "INVITE, UPDATE"),
               ("Session-Expires", "90;refresher=uac"), body=ANSWER)
    world.clock.pass_time(45)
    return script.requests("UPDATE")[-1]


def test_signs_of_life_that_cross_are_given_again() -> None:
    world = World(server=PROXY)
    script = Script(world)
    script.say(refresh(world, script), 491, "x")
    world.clock.pass_time(2.0)
    assert len(script.requests("UPDATE")) == 1, "the Call-ID is ours: who has made it waits longer"
    world.clock.pass_time(2.1)
    again = script.requests("UPDATE")[-1]
    assert again.cseq.number > script.requests("UPDATE")[0].cseq.number
    script.say(again, 200, "x", ("Session-Expires", "90;refresher=uac"))
    world.clock.pass_time(40)
    assert len(script.requests("UPDATE")) == 2
    assert not script.requests("INVITE")[1:]


@pytest.mark.parametrize(("fields", "seconds"), [((("Retry-After", "3"),), 3.0), ((("Retry-After", "3600"),), 10.0)])
def test_a_description_that_comes_at_a_bad_time_is_offered_again(
    fields: tuple[tuple[str, str], ...], seconds: float,
) -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 200, "x", body=ANSWER)
    world.call.offer(lambda: b"hold")
    world.clock.pass_time(0.01)
    script.say(script.requests("INVITE")[-1], 500, "x", *fields)
    world.clock.pass_time(seconds - 0.1)
    assert len(script.requests("INVITE")) == 2
    world.clock.pass_time(0.2)
    script.say(script.requests("INVITE")[-1], 200, "x", body=b"held")
    assert [one.sdp for one in world.of(Answered)] == [ANSWER, b"held"]
    assert not world.of(Refused)


def test_a_peer_that_never_has_time_is_no_loop() -> None:
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 200, "x", body=ANSWER)
    world.call.offer(lambda: b"hold")
    for _ in range(20):
        world.clock.pass_time(5)
        script.say(script.requests("INVITE")[-1], 491, "x")
    assert [one.status for one in world.of(Refused)] == [491]
    assert len(script.requests("INVITE")) == 10
