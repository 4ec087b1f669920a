"""Registration by the clock, at a registrar in the test's hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from appliance.providers.sip.agent import Hop
from appliance.providers.sip.message import Request, Response
from appliance.providers.sip.registration import Registration, State
from tests.support.sip_world import Clock, End, Network

HERE, REGISTRAR = Hop("udp", "192.0.2.1", 5060), Hop("udp", "192.0.2.9", 5060)


class Registrar:
    """Answers as it is told; ``dead``: not at all. ``flows``: how often another way to it was wanted; there is one
    where ``renews``."""

    def __init__(self, *, password: str = "", instance: str = "", renews: bool = False, transport: str = "udp") -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        server = Hop(transport, REGISTRAR.host, REGISTRAR.port)
        self.end = End(self.network, "door", HERE.host, server, password=password, instance=instance,
                       transport=transport)
        self.states: list[State] = []
        self.flows: list[float] = []
        self._renews = renews
        self.registration = Registration(
            self.end.agent, 600, lambda: self.states.append(self.registration.state), renew=self._renew)
        self.dead = False
        self.answer: Callable[[Request], Response] = self.ok
        self.got: list[tuple[float, Request]] = []
        self.fields: list[tuple[str, str]] = []
        self.network.taps[REGISTRAR.host, REGISTRAR.port] = self._receive

    def _renew(self) -> bool:
        self.flows.append(self.clock.time() - 1000)
        if self._renews:
            self.registration.start()
        return self._renews

    def _receive(self, message: Any, source: Hop) -> None:
        self.got.append((self.clock.time(), message))
        if not self.dead:
            response = self.answer(message) if message.method == "REGISTER" else message.response(501, "no", tag="r")
            self.network.carry(response.serialise(), REGISTRAR, source)

    def ok(self, request: Request) -> Response:
        response = request.response(200, "OK", tag="r")
        for contact in request.headers.values("contact"):
            response.headers.add("Contact", contact)
        for name, value in self.fields:
            response.headers.set(name, value)
        return response

    def refuse(self, status: int, *fields: tuple[str, str]) -> None:
        def answer(request: Request) -> Response:
            response = request.response(status, "no", tag="r")
            for name, value in fields:
                response.headers.add(name, value)
            return response

        self.answer = answer

    def start(self) -> None:
        self.registration.start()
        self.clock.pass_time(0.01)

    def registers(self) -> list[Request]:
        return [one for _, one in self.got if one.method == "REGISTER"]

    def times(self, method: str) -> list[float]:
        return [round(at - 1000, 1) for at, one in self.got if one.method == method]


def test_registered_renewed_and_kept_alive() -> None:
    rig = Registrar()
    rig.start()
    assert rig.states == [State.TRYING, State.UP]
    first = rig.registers()[0]
    assert (first.target, str(first.to.uri), str(first.sender.uri)) == (
        "sip:example.org", "sip:door@example.org", "sip:door@example.org")
    assert first.headers.get("contact").startswith("<sip:secret-door@192.0.2.1:5060>")
    rig.clock.pass_time(1000)
    assert rig.times("REGISTER") == [0, 480, 960]
    assert rig.times("OPTIONS")[:3] == [15, 30, 45], "any answer is a sign of life, a 501 too"
    numbers = [one.cseq.number for one in rig.registers()]
    assert numbers == sorted(set(numbers))
    assert len({one.call_id for one in rig.registers()}) == 1
    assert len({one.headers.get("contact") for one in rig.registers()}) == 1
    assert rig.states == [State.TRYING, State.UP]


@pytest.mark.parametrize(("fields", "renewed"), [
    ([("Contact", "<sip:secret-door@192.0.2.1:5060>;expires=100, <sip:other@192.0.2.7>;expires=9")], 80),
    ([("Contact", "<sip:other@192.0.2.7>;expires=9"), ("Expires", "50")], 40),
    ([("Contact", "<sip:secret-door@192.0.2.1:5060>;expires=1")], 16)])
def test_the_registrar_says_how_long(fields: list[tuple[str, str]], renewed: float) -> None:
    rig = Registrar()
    rig.fields = fields
    rig.start()
    rig.clock.pass_time(renewed + 0.1)
    assert rig.times("REGISTER")[:2] == [0, renewed]


def test_an_interval_that_is_too_brief_is_made_longer() -> None:
    rig = Registrar()
    rig.refuse(423, ("Min-Expires", "1800"))
    rig.registration.start()
    rig.answer, refusal = rig.ok, rig.answer
    rig.answer = lambda one: rig.ok(one) if one.number("expires") == 1800 else refusal(one)
    rig.clock.pass_time(0.1)
    assert [one.number("expires") for one in rig.registers()] == [600, 1800]
    assert rig.states[-1] is State.UP


def test_a_registrar_that_dies_is_noticed_within_23_s_and_found_again() -> None:
    rig = Registrar()
    rig.start()
    rig.clock.pass_time(16)
    rig.dead, died = True, rig.clock.time()
    rig.clock.pass_time(23)
    assert rig.states[-1] is State.LOST
    rig.clock.pass_time(60)
    assert rig.states[-1] is State.LOST
    rig.dead, back = False, rig.clock.time()
    rig.clock.pass_time(70)
    assert rig.states == [State.TRYING, State.UP, State.LOST, State.UP]
    tries = [at for at in rig.times("REGISTER") if died - 1000 < at < back - 1000]
    assert len(tries) > 5


def test_after_a_loss_the_pauses_grow() -> None:
    rig = Registrar()
    rig.dead = True
    rig.registration.start()
    rig.clock.pass_time(400)
    branches = {one.via.branch: at for at, one in reversed(rig.got)}
    begun = sorted(branches.values())
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert pauses[0] < 10
    assert all(38 <= pause <= 68 for pause in pauses[-2:]), "8 s of patience, and half to all of a minute"
    assert rig.states == [State.TRYING, State.LOST]


def test_a_wrong_password_is_tried_every_five_minutes() -> None:
    rig = Registrar(password="wrong")
    rig.refuse(401, ("WWW-Authenticate", 'Digest realm="r", nonce="1", qop="auth"'))
    rig.start()
    assert rig.states[-1] is State.DENIED
    assert rig.registration.status == 401
    assert len(rig.registers()) == 2
    rig.clock.pass_time(299)
    assert len(rig.registers()) == 2
    rig.clock.pass_time(2)
    assert len(rig.registers()) == 4


def test_a_refusal_is_tried_again_when_the_registrar_says() -> None:
    rig = Registrar()
    rig.refuse(503, ("Retry-After", "120 (maintenance)"))
    rig.start()
    assert rig.states[-1] is State.REFUSED
    rig.clock.pass_time(119)
    assert len(rig.registers()) == 1
    rig.answer = rig.ok
    rig.clock.pass_time(2)
    assert rig.states[-1] is State.UP


def test_what_is_taken_back_is_not_renewed() -> None:
    rig = Registrar()
    rig.start()
    rig.registration.stop()
    rig.clock.pass_time(1000)
    assert [one.number("expires") for one in rig.registers()] == [600, 0]
    assert "expires=0" in rig.registers()[-1].headers.get("contact")
    assert rig.states[-1] is State.OFF
    assert rig.end.agent.busy == 0


def test_behind_a_translator_the_address_that_was_seen_is_registered() -> None:
    rig = Registrar()

    def translated(request: Request) -> Response:
        response = rig.ok(request)
        response.headers.set("Via", str(request.via).replace(";rport", ";rport=40000;received=203.0.113.5"))
        return response

    rig.answer = translated
    rig.start()
    rig.clock.pass_time(1)
    contacts = [[str(one) for one in request.addresses("contact")] for request in rig.registers()]
    here, seen = "<sip:secret-door@192.0.2.1:5060>;expires=", "<sip:secret-door@203.0.113.5:40000>;expires="
    assert contacts == [[f"{here}600"], [f"{seen}600", f"{here}0"]], "the other one is removed"
    rig.clock.pass_time(500)
    assert len(rig.registers()) == 3


def test_calls_go_by_the_route_that_the_registrar_tells() -> None:
    rig = Registrar()
    rig.fields = [("Service-Route", "<sip:edge.example.org;lr>")]
    rig.start()
    assert [str(one) for one in rig.end.agent.route] == ["<sip:edge.example.org;lr>"]


def test_another_start_is_another_registration_and_old_answers_mean_nothing() -> None:
    rig = Registrar()
    rig.dead = True
    rig.registration.start()
    rig.registration.start()
    rig.dead = False
    rig.clock.pass_time(0.6)
    assert rig.states == [State.TRYING, State.UP]
    rig.clock.pass_time(481)
    assert len({one.via.branch for one in rig.registers()}) == 3


# --- flows (RFC 5626) ------------------------------------------------------------------------------------------------

KEPT = [("Require", "outbound")]


def kept(*, transport: str = "udp", **more: Any) -> Registrar:
    """Registered at one that says it answers keep-alives."""
    rig = Registrar(instance="urn:uuid:1", renews=True, transport=transport, **more)
    rig.fields = [*KEPT]
    rig.start()
    assert rig.states == [State.TRYING, State.UP]
    return rig


def answer_probes(rig: Registrar, seconds: int, seen: tuple[str, int] | None = None) -> None:
    for _ in range(seconds):
        rig.clock.pass_time(1)
        for _, heard in rig.end.wire.probes[-1:]:
            heard(seen)


def test_the_registrar_is_told_which_flow_it_is_and_calls_come_by_it() -> None:
    rig = kept()
    (first,) = rig.registers()
    (contact,) = first.addresses("contact")
    assert (contact.params["+sip.instance"], contact.params["reg-id"]) == ("<urn:uuid:1>", "1")
    assert "ob" not in contact.uri.params
    assert "outbound" in first.headers.tokens("supported")
    assert first.via.params["keep"] == ""
    assert rig.end.agent.contact().uri.params == {"ob": ""}, "of requests that make a dialog"
    rig.fields = []
    rig.clock.pass_time(490)
    assert rig.end.agent.contact().uri.params == {}, "this one knows of no flows any more"


@pytest.mark.parametrize(("transport", "shortest", "longest"), [("udp", 23.2, 29.0), ("tcp", 96.0, 120.0)])
def test_keep_alives_are_sent_as_often_as_is_usual(transport: str, shortest: float, longest: float) -> None:
    rig = kept(transport=transport)
    answer_probes(rig, 700)
    times = [at for at, _ in rig.end.wire.probes]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses
    assert all(shortest <= pause <= longest + 1 for pause in pauses)
    assert rig.states == [State.TRYING, State.UP]


@pytest.mark.parametrize("way", ["flow-timer", "keep"])
def test_or_as_the_registrar_says(way: str) -> None:
    rig = Registrar(instance="urn:uuid:1")
    if way == "flow-timer":
        rig.fields = [("Flow-Timer", "50")]
    else:
        plain = rig.ok

        def keeping(request: Request) -> Response:
            response = plain(request)
            response.headers.set("Via", str(request.via).replace(";keep", ";keep=50"))
            return response

        rig.answer = keeping
    rig.start()
    rig.clock.pass_time(51)
    (at,) = [at - 1000 for at, _ in rig.end.wire.probes]
    assert 40 <= at <= 50


def test_without_a_word_of_it_none_are_sent() -> None:
    rig = Registrar(instance="urn:uuid:1")
    rig.start()
    rig.clock.pass_time(1000)
    assert rig.end.wire.probes == []


def test_a_keep_alive_without_an_answer_for_10_s_is_the_end_of_the_flow() -> None:
    """Though the registrar answers all that reaches it by another way."""
    rig = kept(transport="tcp")
    rig.clock.pass_time(121)
    ((at, _),) = rig.end.wire.probes
    rig.clock.pass_time(at + 9.9 - rig.clock.time())
    assert rig.states[-1] is State.UP
    rig.clock.pass_time(0.2)
    assert rig.states[2:] == [State.LOST, State.UP]
    assert rig.flows == [pytest.approx(at + 10 - 1000)], "at once: it was good before"
    first, *_, last = rig.registers()
    assert last.addresses("contact")[0].params["reg-id"] == first.addresses("contact")[0].params["reg-id"] == "1"


def test_a_translator_that_has_forgotten_us_is_noticed_by_another_address() -> None:
    rig = kept()
    answer_probes(rig, 40, ("203.0.113.5", 40000))
    assert rig.states[-1] is State.UP
    answer_probes(rig, 40, ("203.0.113.5", 40001))
    assert rig.states[2:4] == [State.LOST, State.UP]


def test_old_answers_say_nothing_of_a_new_flow() -> None:
    rig = kept(transport="tcp")
    rig.clock.pass_time(131)
    assert rig.states[2:] == [State.LOST, State.UP]
    ((_, late),) = rig.end.wire.probes
    late(None)
    rig.clock.pass_time(120)
    assert len(rig.end.wire.probes) == 2
    late(None)
    rig.clock.pass_time(10.1)
    assert rig.states[4:] == [State.LOST, State.UP]


def test_flows_that_fail_one_after_the_other_are_made_ever_more_slowly() -> None:
    rig = kept(transport="tcp")
    rig.clock.pass_time(16)
    rig.dead = True
    rig.clock.pass_time(400)
    pauses = [later - earlier - 8 for earlier, later in pairwise(rig.flows)]
    for number, pause in enumerate(pauses, 1):
        longest = min(60.0, 2.0**number)
        assert longest / 2 <= pause <= longest + 0.01
    assert len(pauses) > 6
    rig.dead = False
    rig.clock.pass_time(70)
    assert rig.states == [State.TRYING, State.UP, State.LOST, State.UP]


def test_a_flow_that_the_proxy_has_lost_is_made_anew() -> None:
    rig = kept(transport="tcp")
    rig.clock.pass_time(16)
    rig.refuse(430)
    rig.clock.pass_time(470)
    assert rig.states[2:] == [State.LOST]
    assert rig.flows
    rig.answer = rig.ok
    rig.clock.pass_time(70)
    assert rig.states[-1] is State.UP


def test_a_proxy_that_knows_of_no_flows_is_told_of_none() -> None:
    rig = Registrar(instance="urn:uuid:1")
    rig.refuse(439)
    refusal = rig.answer
    rig.answer = lambda one: refusal(one) if "outbound" in one.headers.tokens("supported") else rig.ok(one)
    rig.start()
    assert rig.states == [State.TRYING, State.UP]
    (contact,) = rig.registers()[-1].addresses("contact")
    assert contact.params["+sip.instance"] == "<urn:uuid:1>"
    assert "reg-id" not in contact.params
