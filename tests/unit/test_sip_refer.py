"""Calls that are handed on (RFC 3515, 3891, 3892): what both sides say, and what nobody may make us do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.providers.sip.events import Closed, Moved, Sent
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import Headers, Request, Response
from appliance.providers.sip.refer import Asked, Replaces
from appliance.providers.sip.uri import NameAddr, Uri
from tests.support.sip_world import ANSWER, OFFER, PROXY, TO, A, Script, World

THIRD = Uri("sip", "carol", "example.org")


def referred() -> tuple[World, Asked]:
    """Anna wants Bob to call Carol."""
    world = World()
    world.connect()
    assert world.call.refer(THIRD)
    world.clock.pass_time(0.01)
    return world, world.bob.of(Sent)[0].asked


def connected() -> tuple[World, Script]:
    """Anna talks with whom the test writes."""
    world = World(server=PROXY)
    script = Script(world)
    world.dial()
    script.say(script.requests("INVITE")[0], 200, "x", body=ANSWER)
    return world, script


def ask(world: World, script: Script, method: str, *fields: tuple[str, str], body: bytes = b"") -> Response:
    """The peer of ``connected`` asks in the dialog."""
    invite = script.requests("INVITE")[0]
    number = len(script.got)
    request = Request(Headers([
        ("Via", f"SIP/2.0/UDP {PROXY.host};branch=z9hG4bKask{number};rport"), ("From", f"{invite.to};tag=x"),
        ("To", str(invite.sender)), ("Call-ID", invite.call_id), ("Max-Forwards", "70"),
        ("CSeq", f"{number} {method}"), *fields]), body, method, "sip:secret-anna@192.0.2.1")
    world.network.carry(request.serialise(), PROXY, A)
    world.clock.pass_time(0.01)
    return next(one for one in script.got if isinstance(one, Response) and one.cseq.number == number
                and one.cseq.method == method)


def notify(world: World, script: Script, status: int, state: str = "active") -> Response:
    return ask(world, script, "NOTIFY", ("Event", "refer"), ("Subscription-State", state),
               ("Content-Type", "message/sipfrag"), body=f"SIP/2.0 {status} said\r\n".encode())


# --- we hand on ------------------------------------------------------------------------------------------------------


def test_a_call_is_handed_on_and_told_of_until_it_is_answered() -> None:
    world, asked = referred()
    assert (asked.target, asked.replaces) == (THIRD, None)
    assert asked.fields == [("Referred-By", "<sip:anna@example.org>")]
    asked.take()
    for status in (180, 180, 183, 200, 486):
        asked.progress(status)
    world.clock.pass_time(0.01)
    assert world.of(Moved) == [Moved(100), Moved(180), Moved(183), Moved(200, final=True)]
    assert world.network.words()[-10:] == ["REFER", "202 REFER", *["NOTIFY"] * 4, *["200 NOTIFY"] * 4]
    last = [one.message for one in world.network.sent if one.word == "NOTIFY"][-1]
    assert last.headers.get("subscription-state") == "terminated;reason=noresource"
    assert last.headers.get("event") == "refer"
    assert (last.content_type, last.body) == ("message/sipfrag", b"SIP/2.0 200 OK\r\n")
    world.call.end()
    world.nothing_left()


def test_who_does_not_want_to_says_so() -> None:
    world, asked = referred()
    asked.refuse(603)
    world.clock.pass_time(70)
    assert world.of(Moved) == [Moved(603, final=True)]
    assert not world.call.handing_over
    assert not world.of(Closed), "the call goes on"


def test_whoever_tells_nothing_more_is_waited_for_a_minute() -> None:
    world, asked = referred()
    asked.take()
    world.clock.pass_time(59.9)
    assert world.of(Moved) == [Moved(100)]
    world.clock.pass_time(0.2)
    assert world.of(Moved)[1:] == [Moved(408, final=True)]


@pytest.mark.parametrize("lost", ["REFER", "202 REFER", "NOTIFY", "200 NOTIFY"])
def test_lost_messages_are_made_good(lost: str) -> None:
    world = World()
    world.connect()
    world.lose(lost)
    world.call.refer(THIRD)
    world.clock.pass_time(1)
    (sent,) = world.bob.of(Sent)
    sent.asked.take()
    world.clock.pass_time(2)
    sent.asked.progress(200)
    world.clock.pass_time(2)
    assert world.of(Moved) == [Moved(100), Moved(200, final=True)]


def test_news_may_overtake_the_answer() -> None:
    world, script = connected()
    world.call.refer(THIRD)
    world.clock.pass_time(0.01)
    assert notify(world, script, 100).status == 200
    assert world.call.handing_over
    script.say(script.requests("REFER")[0], 202, "x")
    notify(world, script, 486, "terminated;reason=noresource")
    assert world.of(Moved) == [Moved(100), Moved(486, final=True)]


def test_news_that_end_without_a_result_are_none() -> None:
    world, script = connected()
    world.call.refer(THIRD)
    world.clock.pass_time(0.01)
    script.say(script.requests("REFER")[0], 202, "x")
    ask(world, script, "NOTIFY", ("Event", "refer"), ("Subscription-State", "terminated;reason=timeout"))
    assert world.of(Moved) == [Moved(487, final=True)]


def test_who_will_tell_nothing_is_believed() -> None:
    world, script = connected()
    world.call.refer(THIRD)
    world.clock.pass_time(0.01)
    script.say(script.requests("REFER")[0], 200, "x", ("Refer-Sub", "false"))
    assert world.of(Moved) == [Moved(200, final=True)]


def test_a_peer_that_is_gone_ends_the_call() -> None:
    world, script = connected()
    world.call.refer(THIRD)
    world.clock.pass_time(0.01)
    script.say(script.requests("REFER")[0], 481, "x")
    assert [one.status for one in world.of(Closed)] == [481]


def test_a_call_in_place_of_another_names_it() -> None:
    world, script = connected()
    dialog = world.call.dialog
    assert dialog is not None
    world.call.refer(THIRD, Replaces.of(dialog))
    world.clock.pass_time(0.01)
    (refer,) = script.requests("REFER")
    uri = NameAddr.parse(refer.headers.get("refer-to")).uri
    assert str(uri) == (f"sip:carol@example.org?Replaces={dialog.call_id}%3Bto-tag%3Dx"
                        f"%3Bfrom-tag%3D{dialog.local.tag}")
    assert refer.headers.get("referred-by") == "<sip:anna@example.org>"


def test_before_the_answer_there_is_nobody_to_be_asked() -> None:
    world = World()
    world.dial()
    assert not world.call.refer(THIRD)
    world.bob.calls[0].accept(ANSWER)
    world.clock.pass_time(0.01)
    world.call.end()
    assert not world.call.refer(THIRD)


# --- we are handed on ------------------------------------------------------------------------------------------------


def test_in_place_of_one_of_their_calls() -> None:
    world, script = connected()
    ask_(world, script, ("Refer-To", "<sip:carol@example.org;method=INVITE?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2"
                                     "&Require=replaces>"), ("Referred-By", "<sip:x@example.org>"))
    asked = world.of(Sent)[0].asked
    assert str(asked.target) == "sip:carol@example.org"
    assert asked.replaces == Replaces("a@b", "1", "2")
    assert asked.fields == [("Replaces", "a@b;to-tag=1;from-tag=2"), ("Require", "replaces"),
                            ("Referred-By", "<sip:x@example.org>")]


def ask_(world: World, script: Script, *fields: tuple[str, str]) -> None:
    """A REFER, which is not answered before somebody has decided."""
    with pytest.raises(StopIteration):
        ask(world, script, "REFER", *fields)


def test_the_second_wish_is_told_of_by_its_number() -> None:
    world, script = connected()
    for _ in range(2):
        ask_(world, script, ("Refer-To", "<sip:carol@example.org>"))
        world.of(Sent)[-1].asked.take()
        world.clock.pass_time(0.01)
    first, second = script.requests("NOTIFY")
    assert first.headers.get("event") == "refer"
    assert second.headers.get("event").startswith("refer;id=")


def test_who_wants_no_news_gets_none() -> None:
    world, script = connected()
    ask_(world, script, ("Refer-To", "<sip:carol@example.org>"), ("Refer-Sub", "false"))
    asked = world.of(Sent)[0].asked
    asked.take()
    asked.progress(200)
    world.clock.pass_time(0.01)
    answer = next(one for one in script.got if isinstance(one, Response) and one.cseq.method == "REFER")
    assert (answer.status, answer.headers.get("refer-sub")) == (200, "false")
    assert not script.requests("NOTIFY")


def test_who_has_forgotten_is_told_no_more() -> None:
    world, script = connected()
    ask_(world, script, ("Refer-To", "<sip:carol@example.org>"))
    asked = world.of(Sent)[0].asked
    asked.take()
    world.clock.pass_time(0.01)
    script.say(script.requests("NOTIFY")[0], 481, "x")
    asked.progress(200)
    world.clock.pass_time(0.01)
    assert len(script.requests("NOTIFY")) == 1


@pytest.mark.parametrize("fields", [
    (), (("Refer-To", "<sip:a@b>"), ("Refer-To", "<sip:c@d>")), (("Refer-To", "<http://example.org>"),),
    (("Refer-To", "<sip:a@b;method=BYE>"),), (("Refer-To", "<sip:a@b?Replaces=nothing>"),),
    (("Refer-To", "<sip:a@b?Replaces=a%0d%0aEvil%3A%20yes%3Bto-tag%3D1%3Bfrom-tag%3D2>"),), (("Refer-To", "<sip:>"),)])
def test_wishes_that_make_no_sense_are_refused(fields: tuple[tuple[str, str], ...]) -> None:
    world, script = connected()
    assert ask(world, script, "REFER", *fields).status == 400
    assert not world.of(Sent)


@pytest.mark.parametrize(("fields", "status"), [
    ((("Event", "refer"),), 481), ((("Event", "message-summary"),), 489), ((), 489)])
def test_news_that_nobody_has_asked_for(fields: tuple[tuple[str, str], ...], status: int) -> None:
    world, script = connected()
    assert ask(world, script, "NOTIFY", *fields).status == status
    assert not world.of(Moved)


def test_a_stranger_sends_us_nowhere() -> None:
    world = World()
    refer = world.anna.agent.request("REFER", TO, NameAddr(TO), "c1", "t1")
    refer.headers.add("Refer-To", "<sip:+900123@example.org>")
    answers: list[int] = []
    world.anna.agent.exchange(refer, on_response=lambda one: answers.append(one.status), on_failure=lambda _: None)
    world.clock.pass_time(0.01)
    assert answers == [403]


def test_nor_does_who_has_not_been_answered() -> None:
    world = World()
    world.dial()
    (call,) = world.bob.calls
    call.ring()
    assert world.call.dialog is None
    invite = next(one.message for one in world.network.sent if one.word == "INVITE")
    ringing = next(one.message for one in world.network.sent if one.word == "180 INVITE")
    refer = invite.headers.copy()
    refer.set("CSeq", "2 REFER")
    refer.set("To", ringing.headers.get("to"))
    refer.set("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKrefer")
    refer.set("Refer-To", "<sip:+900123@example.org>")
    world.network.carry(Request(refer, b"", "REFER", "sip:secret-bob@192.0.2.2").serialise(), A, world.bob.hop)
    world.clock.pass_time(0.01)
    assert "603 REFER" in world.network.words()


# --- Replaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), [
    ("12adf2f34456gs5;to-tag=12345;from-tag=54321", Replaces("12adf2f34456gs5", "12345", "54321")),
    ("98732@example.org ; from-tag=r33th4x0r;to-tag=ff87ff", Replaces("98732@example.org", "ff87ff", "r33th4x0r")),
    ("a;to-tag=1;from-tag=2;early-only", Replaces("a", "1", "2", early_only=True))])
def test_how_a_call_is_named(text: str, found: Replaces) -> None:
    assert Replaces.parse(text) == found
    assert Replaces.parse(str(found)) == found


@pytest.mark.parametrize("text", [
    "", "a", "a;to-tag=1", "a;from-tag=2", ";to-tag=1;from-tag=2", "a b;to-tag=1;from-tag=2", 'a;to-tag="1',
    "a;to-tag=;from-tag=2"])
def test_how_none_is_named(text: str) -> None:
    with pytest.raises(Malformed):
        Replaces.parse(text)


def test_which_call_is_meant() -> None:
    world = World()
    world.call.start(TO, OFFER)
    world.clock.pass_time(0.01)
    call = world.bob.calls[0]
    dialog = call.dialog
    assert dialog is not None
    named = Replaces(dialog.call_id, dialog.local.tag, dialog.remote.tag)
    assert not call.is_meant(named), "not before it is answered"
    call.accept(ANSWER)
    world.clock.pass_time(0.01)
    assert call.is_meant(named)
    theirs = world.call.dialog
    assert theirs is not None
    assert Replaces.of(theirs) == named, "as the one who is asked sees it"
    changes: list[Callable[[Replaces], Replaces]] = [
        lambda one: Replaces("other", one.to_tag, one.from_tag), lambda one: Replaces(one.call_id, "x", one.from_tag),
        lambda one: Replaces(one.call_id, one.to_tag, "x"),
        lambda one: Replaces(one.call_id, one.from_tag, one.to_tag)]
    assert not any(call.is_meant(change(named)) for change in changes)
    world.call.end()
    world.clock.pass_time(0.01)
    assert not call.is_meant(named)
