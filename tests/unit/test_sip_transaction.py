"""The four transactions by the clock: what is sent when, and when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.providers.sip.message import Headers, Request, Response
from appliance.providers.sip.transaction import (
    ClientInvite,
    ClientRequest,
    Failure,
    ServerInvite,
    ServerRequest,
    State,
    Timings,
    server_key,
)
from tests.support.sip_world import Clock


def request(method: str = "INVITE", branch: str = "z9hG4bK1") -> Request:
    return Request(Headers([
        ("Via", f"SIP/2.0/UDP 192.0.2.1;branch={branch}"), ("Max-Forwards", "70"), ("Route", "<sip:p.example;lr>"),
        ("From", "<sip:a@example.org>;tag=1"), ("To", "<sip:b@example.org>"), ("Call-ID", "c1"),
        ("CSeq", f"7 {method}")]), b"", method, "sip:b@192.0.2.9")


@dataclass
class Rig:
    reliable: bool = False
    clock: Clock = field(default_factory=Clock)
    sent: list[tuple[float, str]] = field(default_factory=list)
    messages: list[Request | Response] = field(default_factory=list)
    heard: list[Response] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.clock.time()

    @property
    def now(self) -> float:
        return self.clock.time() - self.began

    def send(self, message: Request | Response) -> None:
        word = message.method if isinstance(message, Request) else str(message.status)
        self.sent.append((self.now, word))
        self.messages.append(message)

    def times(self, word: str) -> list[float]:
        return [at for at, one in self.sent if one == word]

    def client(self, kind: type[Any], method: str = "INVITE") -> Any:
        made = kind(request(method), self.clock, Timings(), reliable=self.reliable, send=self.send,
                    on_response=self.heard.append, on_failure=self.failures.append)
        made.on_end = lambda: self.ended.append(self.now)
        made.start()
        return made

    def server(self, kind: type[Any], method: str = "INVITE") -> Any:
        made = kind(request(method), self.clock, Timings(), reliable=self.reliable, send=self.send)
        made.on_end = lambda: self.ended.append(self.now)
        return made


def answer(to: Request, status: int, tag: str = "9") -> Response:
    return to.response(status, "said", tag=tag)


def test_an_invite_that_nobody_answers_is_sent_seven_times_in_32_s() -> None:
    rig = Rig()
    rig.client(ClientInvite)
    rig.clock.pass_time(100)
    assert rig.times("INVITE") == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert rig.failures == [Failure.TIMEOUT]
    assert rig.ended == [32.0]


def test_over_a_reliable_transport_nothing_is_repeated() -> None:
    rig = Rig(reliable=True)
    rig.client(ClientInvite)
    rig.clock.pass_time(100)
    assert rig.times("INVITE") == [0]
    assert rig.ended == [32.0]


def test_a_provisional_response_stops_repetition_and_the_invite_may_ring_for_ever() -> None:
    rig = Rig()
    invite = rig.client(ClientInvite)
    rig.clock.pass_time(0.6)
    invite.receive(answer(invite.request, 180))
    rig.clock.pass_time(600)
    assert rig.times("INVITE") == [0, 0.5]
    assert invite.state is State.PROCEEDING
    invite.receive(answer(invite.request, 183))
    assert [one.status for one in rig.heard] == [180, 183]
    assert not rig.failures


@pytest.mark.parametrize(("reliable", "lingers"), [(False, 32.0), (True, 0.0)])
def test_a_refusal_is_acknowledged_each_time_it_comes(reliable: bool, lingers: float) -> None:
    rig = Rig(reliable)
    invite = rig.client(ClientInvite)
    refusal = answer(invite.request, 486)
    for _ in range(3):
        invite.receive(refusal)
    assert [one.status for one in rig.heard] == [486]
    acks = [one for one in rig.messages if isinstance(one, Request) and one.method == "ACK"]
    assert len(acks) == (1 if reliable else 3)
    ack = acks[0]
    assert ack.via.branch == invite.request.via.branch
    assert (ack.target, ack.to.tag, str(ack.cseq), ack.headers.get("route")) == (
        "sip:b@192.0.2.9", "9", "7 ACK", "<sip:p.example;lr>")
    rig.clock.pass_time(100)
    assert rig.ended == [lingers]


def test_every_copy_of_a_200_is_told_until_timer_m() -> None:
    rig = Rig()
    invite = rig.client(ClientInvite)
    for tag in ("1", "2", "1"):
        invite.receive(answer(invite.request, 200, tag))
    invite.receive(answer(invite.request, 486))
    assert [one.to.tag for one in rig.heard] == ["1", "2", "1"]
    assert not rig.times("ACK"), "the ACK of a 2xx is not the transaction's"
    rig.clock.pass_time(31.9)
    assert not rig.ended
    rig.clock.pass_time(0.2)
    assert rig.ended == [32.0]
    invite.receive(answer(invite.request, 200, "3"))
    assert len(rig.heard) == 3


def test_a_request_that_nobody_answers_slows_to_4_s() -> None:
    rig = Rig()
    rig.client(ClientRequest, "OPTIONS")
    rig.clock.pass_time(100)
    assert rig.times("OPTIONS") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert rig.failures == [Failure.TIMEOUT]


def test_a_request_in_progress_is_repeated_each_4_s() -> None:
    rig = Rig()
    options = rig.client(ClientRequest, "OPTIONS")
    rig.clock.pass_time(0.1)
    options.receive(answer(options.request, 100))
    rig.clock.pass_time(10)
    assert rig.times("OPTIONS") == [0, 0.5, 4.5, 8.5]
    options.receive(answer(options.request, 200))
    options.receive(answer(options.request, 200))
    assert [one.status for one in rig.heard] == [100, 200]
    rig.clock.pass_time(4.9)
    assert not rig.ended
    rig.clock.pass_time(0.2)
    assert rig.ended == [pytest.approx(15.1)]


def test_a_broken_network_is_told_once() -> None:
    rig = Rig()
    invite = rig.client(ClientInvite)
    invite.failed(Failure.TRANSPORT)
    invite.failed(Failure.TRANSPORT)
    rig.clock.pass_time(100)
    assert rig.failures == [Failure.TRANSPORT]
    assert rig.times("INVITE") == [0]


def test_a_failure_after_the_answer_is_no_news() -> None:
    rig = Rig()
    invite = rig.client(ClientInvite)
    invite.receive(answer(invite.request, 200))
    invite.failed(Failure.TRANSPORT)
    assert not rig.failures


def test_a_refusal_of_ours_is_repeated_until_its_ack() -> None:
    rig = Rig()
    invite = rig.server(ServerInvite)
    invite.respond(answer(invite.request, 180))
    invite.receive(invite.request)
    assert rig.times("180") == [0, 0]
    invite.respond(answer(invite.request, 486))
    rig.clock.pass_time(10)
    assert rig.times("486") == [0, 0.5, 1.5, 3.5, 7.5]
    invite.receive(request("ACK"))
    rig.clock.pass_time(30)
    assert len(rig.times("486")) == 5
    assert rig.ended == [15.0], "timer I: copies of the ACK are taken for 5 s"


def test_a_refusal_that_nobody_acknowledges_ends_after_32_s() -> None:
    rig = Rig()
    invite = rig.server(ServerInvite)
    invite.respond(answer(invite.request, 486))
    rig.clock.pass_time(100)
    assert rig.times("486") == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert rig.ended == [32.0]


def test_after_a_200_copies_of_the_invite_are_swallowed() -> None:
    rig = Rig()
    invite = rig.server(ServerInvite)
    invite.respond(answer(invite.request, 200))
    invite.receive(invite.request)
    invite.respond(answer(invite.request, 486))
    assert [word for _, word in rig.sent] == ["200"], "copies of the 200 are sent by who answers"
    invite.respond(answer(invite.request, 200))
    assert [word for _, word in rig.sent] == ["200", "200"]
    rig.clock.pass_time(100)
    assert rig.ended == [32.0]


@pytest.mark.parametrize(("reliable", "lingers"), [(False, 32.0), (True, 0.0)])
def test_a_request_of_theirs_is_answered_as_often_as_it_comes(reliable: bool, lingers: float) -> None:
    rig = Rig(reliable)
    bye = rig.server(ServerRequest, "BYE")
    bye.receive(bye.request)
    assert not rig.sent
    bye.respond(answer(bye.request, 200))
    bye.receive(bye.request)
    bye.respond(answer(bye.request, 500))
    assert len(rig.times("200")) == (1 if reliable else 2)
    assert not rig.times("500")
    rig.clock.pass_time(100)
    assert rig.ended == [lingers]


def test_ending_at_any_moment_leaves_no_timer() -> None:
    for kind, method in ((ClientInvite, "INVITE"), (ClientRequest, "BYE")):
        rig = Rig()
        made = rig.client(kind, method)
        made.end()
        made.end()
        rig.clock.pass_time(100)
        assert len(rig.sent) == 1
        assert rig.ended == [0]
        assert not rig.failures


def test_what_a_request_has_in_common_with_its_copies() -> None:
    assert server_key(request()) == server_key(request("ACK"))
    assert server_key(request()) != server_key(request("BYE"))
    assert server_key(request()) != server_key(request(branch="z9hG4bK2"))
    old, other = request(branch="1"), request(branch="1")
    assert server_key(old) == server_key(other)
    other.headers.set("CSeq", "8 INVITE")
    assert server_key(old) != server_key(other)
