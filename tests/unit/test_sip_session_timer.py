"""Session timers by the clock: who refreshes, and what becomes of a call whose other end is gone."""

from __future__ import annotations

import pytest

from appliance.providers.sip.events import Answered, Closed, Offered
from appliance.providers.sip.message import Request, Response
from tests.support.sip_world import ANSWER, PROXY, A, B, Script, World


def updates(world: World) -> list[float]:
    """When an UPDATE left, by seconds."""
    begun = world.network.sent[0].at
    return [round(one.at - begun) for one in world.network.sent if one.word == "UPDATE"]


def test_a_call_is_refreshed_at_half_its_time_without_disturbing_it() -> None:
    world = World()
    world.connect()
    world.clock.pass_time(3000)
    assert updates(world) == [900, 1800, 2700]
    assert {one.source for one in world.network.sent if one.word == "UPDATE"} == {A}, "the caller has taken it on"
    assert len(world.of(Answered)) == 1
    assert not world.of(Closed)
    assert not world.bob.of(Closed)
    world.call.end()
    world.nothing_left()


def test_a_caller_that_vanishes_is_noticed_by_the_other_side() -> None:
    world = World()
    world.connect()
    world.network.lose = lambda sent: sent.source == A
    world.clock.pass_time(1767)
    assert not world.bob.of(Closed)
    world.clock.pass_time(3)
    assert [one.status for one in world.bob.of(Closed)] == [408]
    assert "BYE" in world.network.words(B)


def test_a_callee_that_vanishes_is_noticed_by_the_refresh() -> None:
    world = World()
    world.connect()
    world.network.lose = lambda sent: sent.source == B
    world.clock.pass_time(900 + 33)
    assert [one.status for one in world.of(Closed)] == [408]


def answered(script: Script, *fields: tuple[str, str]) -> None:
    script.say(script.requests("INVITE")[0], 200, "x", *fields, body=ANSWER)


@pytest.fixture
def scripted() -> Script:
    world = World(server=PROXY)
    script = Script(world)
    world.call.describe = lambda: b"the same"
    world.dial()
    return script


def test_where_the_peer_refreshes_we_only_wait(scripted: Script) -> None:
    answered(scripted, ("Session-Expires", "300;refresher=uas"))
    scripted.world.clock.pass_time(267)
    assert not scripted.world.of(Closed)
    scripted.world.clock.pass_time(2)
    assert [one.status for one in scripted.world.of(Closed)] == [408]
    assert len(scripted.requests("BYE")) == 1


def test_a_peer_without_session_timers_is_left_alone(scripted: Script) -> None:
    answered(scripted)
    scripted.world.clock.pass_time(10_000)
    assert not scripted.world.of(Closed)
    assert len(scripted.requests("INVITE")) == 1


def test_a_peer_without_update_is_sent_the_same_description_again(scripted: Script) -> None:
    answered(scripted, ("Session-Expires", "200;refresher=uac"), ("Allow", "INVITE, ACK, BYE"))
    scripted.world.clock.pass_time(101)
    again = scripted.requests("INVITE")[1]
    assert again.body == b"the same"
    assert again.headers.get("session-expires") == "200;refresher=uac"
    scripted.say(again, 200, "x", ("Session-Expires", "200;refresher=uac"), body=ANSWER)
    assert len(scripted.requests("ACK")) == 2
    scripted.world.clock.pass_time(101)
    assert len(scripted.requests("INVITE")) == 3


def test_an_update_that_is_not_taken_becomes_a_re_invite(scripted: Script) -> None:
    answered(scripted, ("Session-Expires", "200;refresher=uac"), ("Allow", "INVITE, UPDATE"))
    scripted.world.clock.pass_time(100.1)
    scripted.say(scripted.requests("UPDATE")[0], 405, "x")
    assert scripted.requests("INVITE")[1].body == b"the same"


def test_an_interval_that_is_too_small_for_the_peer_is_asked_for_again(scripted: Script) -> None:
    (first,) = scripted.requests("INVITE")
    scripted.say(first, 422, "x", ("Min-SE", "3600"))
    second = scripted.requests("INVITE")[1]
    assert (second.number("session-expires"), second.number("min-se")) == (3600, 3600)
    assert (second.cseq.number, second.call_id) == (first.cseq.number + 1, first.call_id)
    scripted.say(second, 200, "y", ("Session-Expires", "3600"), body=ANSWER)
    assert scripted.world.of(Answered)
    assert not scripted.world.of(Closed)


def test_a_peer_that_never_has_enough_is_no_loop(scripted: Script) -> None:
    scripted.say(scripted.requests("INVITE")[0], 422, "x", ("Min-SE", "90"))
    assert [one.status for one in scripted.world.of(Closed)] == [422]
    assert len(scripted.requests("INVITE")) == 1


def test_an_interval_that_is_too_small_for_us_is_refused() -> None:
    world = World()
    world.connect()
    assert world.call.dialog is not None
    answers: list[Response] = []
    for seconds, supported, status in ((60, "timer", 422), (60, "", 200), (90, "timer", 200)):
        request = world.call.dialog.request("UPDATE")
        request.headers.add("Session-Expires", str(seconds))
        if supported:
            request.headers.add("Supported", supported)
        world.anna.agent.exchange(request, on_response=answers.append, on_failure=lambda _: None, in_dialog=True)
        world.clock.pass_time(0.01)
        said = answers[-1]
        assert said.status == status
        if status == 200:
            assert said.headers.get("session-expires") == f"90;refresher={'uac' if supported else 'uas'}"


def test_who_understands_nothing_is_refreshed_by_us() -> None:
    world = World()
    world.dial()
    invite = next(one.message for one in world.network.sent if one.word == "INVITE")
    assert isinstance(invite, Request)
    assert invite.headers.get("session-expires") == "1800"
    world.bob.calls[0].request.headers.drop("supported")
    world.bob.calls[0].describe = lambda: b"again"
    world.bob.calls[0].accept(ANSWER)
    world.clock.pass_time(901)
    assert "UPDATE" in world.network.words(B)
    assert not world.of(Offered)
