"""Each shim of the seam to ICE: what stock aioice does, and what ours does instead."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aioice import ice, stun
from aioice.candidate import Candidate

from appliance.media import ice_seam
from tests.support.clock import virtual_time
from tests.support.seams import connection


async def gathered(agent: ice.Connection, addresses: list[str]) -> set[str]:
    try:
        return {candidate.host for candidate in await agent.get_component_candidates(1, addresses)}
    finally:
        await agent.close()


async def test_loopback_is_gathered_when_asked_and_when_there_is_nothing_else() -> None:
    assert await gathered(ice.Connection(ice_controlling=True), []) == set()
    assert "127.0.0.1" in await gathered(connection(), [])
    assert "127.0.0.1" in await gathered(connection(loopback=True), [])


def sockets() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("closed_first", [False, True])
async def test_gathering_cut_short_at_any_step_leaves_no_socket(*, closed_first: bool) -> None:
    before = sockets()
    opened, steps = 0, 0
    while True:
        agent = connection(loopback=True)
        gathering = asyncio.create_task(agent.gather_candidates())
        for _ in range(steps):
            await asyncio.sleep(0)
        opened = max(opened, len(sockets() - before))
        over = gathering.done()
        if closed_first:
            closing = asyncio.create_task(agent.close())
            await asyncio.sleep(0)
        gathering.cancel()
        await asyncio.gather(gathering, return_exceptions=True)
        await (closing if closed_first else agent.close())
        await asyncio.sleep(0)  # a socket is closed by the loop's next turn
        await asyncio.sleep(0)
        assert sockets() <= before, f"after {steps} steps"
        if over:
            break
        steps += 1
    assert steps > 2
    assert opened > 1


async def test_datagrams_that_nobody_takes_are_bounded() -> None:
    agent = connection()
    for _ in range(ice_seam.RECEIVE_QUEUE + 10):
        agent.data_received(b"x", 1)
    assert agent._queue.qsize() == ice_seam.RECEIVE_QUEUE
    assert agent.overflow == 10
    agent.data_received(b"", 1)  # would end RTCDtlsTransport with an IndexError
    await agent.close()


@pytest.mark.parametrize("protocol_type", [ice.StunProtocol, ice_seam.GuardedProtocol])
async def test_a_check_that_breaks_aioice_is_only_counted(protocol_type: type[ice.StunProtocol]) -> None:
    agent = connection()
    agent.remote_username, agent.remote_password = "user", "p" * 22
    agent._early_checks_done = True
    protocol = protocol_type(agent)
    protocol.transport = Nowhere()  # type: ignore[assignment]
    protocol.local_candidate = Candidate("1", 1, "udp", 1, "192.0.2.9", 9, "host")
    check = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    check.attributes["USERNAME"] = f"{agent.local_username}:user"  # authentic, and without its PRIORITY
    check.add_message_integrity(agent.local_password.encode())
    if protocol_type is ice.StunProtocol:
        with pytest.raises(KeyError):
            protocol.datagram_received(bytes(check), ("192.0.2.1", 1))
    else:
        protocol.datagram_received(bytes(check), ("192.0.2.1", 1))
        assert agent.malformed == 1
    await agent.close()


class Nowhere:
    def sendto(self, data: bytes, addr: tuple[str, int]) -> None: ...


async def test_a_stream_to_a_turn_server_that_stalls_holds_no_old_packets() -> None:
    agent, sent = connection(), []

    class Stream(asyncio.Transport):
        def get_write_buffer_size(self) -> int:
            return ice_seam.RELAY_BACKLOG + len(sent)

    class Relayed(Wire):
        transport = Stream()

        async def send_data(self, data: bytes, addr: tuple[str, int]) -> None:
            sent.append(data)

    agent._nominated[1] = Pair(Relayed())  # type: ignore[assignment]
    await agent.send(b"first")
    await agent.send(b"second")
    assert (sent, agent.stalled) == ([b"first"], 1)
    agent._nominated.clear()


class Wire:
    """A StunProtocol that goes nowhere; answers with the key when told to."""

    def __init__(self) -> None:
        self.transactions: dict[bytes, Any] = {}
        self.sent: list[stun.Message] = []

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        self.sent.append(message)

    async def close(self) -> None: ...

    def answer(self, key: bytes, number: int = -1) -> None:
        request = self.sent[number]
        waiting = self.transactions.get(request.transaction_id)
        response = stun.Message(
            message_method=stun.Method.BINDING, message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        response.add_message_integrity(key)
        if waiting is not None:
            waiting.response_received(stun.parse_message(bytes(response)), ("192.0.2.1", 1))


class Pair:
    component = 1
    remote_addr = ("192.0.2.1", 1)

    def __init__(self, protocol: Wire) -> None:
        self.protocol = protocol


class Hours:
    """Replaces asyncio.sleep and loop.time inside the consent loop: time passes by sleeping alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: Any) -> None:
        self.now = 1000.0
        loop = asyncio.get_running_loop()
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.now += seconds
            each(self.now)
            await real(0)

        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(ice_seam.asyncio, "sleep", sleep)


async def consent(
    monkeypatch: pytest.MonkeyPatch, each: Any
) -> tuple[ice_seam.IceConnection, Wire, float, list[float]]:
    arrivals: list[float] = []
    agent = connection(on_arrival=lambda: arrivals.append(1))
    agent.remote_username, agent.remote_password = "user", "p" * 22
    wire = Wire()
    agent._nominated[1] = Pair(wire)  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        hours = Hours(patch, lambda now: each(wire, now))
        task = asyncio.create_task(agent.query_consent())
        await task
    return agent, wire, hours.now - 1000.0, arrivals


async def test_consent_ends_30_s_after_the_last_valid_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"p" * 22

    def each(wire: Wire, now: float) -> None:
        if now < 1100:
            wire.answer(key)
        wire.answer(b"q" * 22)  # of somebody else: no consent

    agent, wire, lasted, arrivals = await consent(monkeypatch, each)
    assert 124 < lasted < 138
    assert agent.consent_lost
    assert arrivals
    assert not wire.transactions, "transactions are left in aioice's table"


async def test_an_answer_may_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aioice counts an answer after 500 ms as lost and closes a call with that round trip after 30 s."""

    def each(wire: Wire, now: float) -> None:
        if now < 1600 and len(wire.sent) > 1:
            wire.answer(b"p" * 22, -2)  # of the check before: 4 to 6 s late

    _, _, lasted, _ = await consent(monkeypatch, each)
    assert lasted > 600


async def test_consent_checks_measure_the_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(wire: Wire, now: float) -> None:
        if now < 1020 and len(wire.sent) > 1:
            wire.answer(b"p" * 22, -2)

    agent, wire, _, _ = await consent(monkeypatch, each)
    checks = agent.checks
    assert checks.consents_sent == len(wire.sent)
    assert 2 <= checks.answers <= 4
    assert checks.round_trip_s is not None
    assert 8 <= checks.round_trip_s <= 12, "answered when two more checks were due"
    assert checks.round_trip_total_s == pytest.approx(checks.round_trip_s * checks.answers, rel=0.3)


async def test_a_question_is_answered_by_an_arrival_and_is_no_check_of_consent() -> None:
    arrivals: list[float] = []
    agent, wire, key = connection(on_arrival=lambda: arrivals.append(1)), Wire(), b"p" * 22
    agent.remote_username, agent.remote_password = "user", key.decode()
    assert not agent.ask(), "there is no path yet"
    agent._nominated[1] = Pair(wire)  # type: ignore[assignment]
    assert all(agent.ask() for _ in range(40))
    assert (len(wire.sent), len(wire.transactions)) == (40, ice_seam.QUESTIONS)
    wire.answer(key, 0)  # of long ago
    wire.answer(b"q" * 22)  # of somebody else
    assert not arrivals
    wire.answer(key)
    assert (len(arrivals), agent.checks.answers, agent.checks.consents_sent) == (1, 1, 0)
    agent._nominated.clear()
    await agent.close()
    assert not wire.transactions
    assert not agent.ask()


async def test_a_change_of_the_selected_pair_is_counted() -> None:
    agent = connection()
    pairs = []
    for port in (1, 2):
        candidate = ice.Candidate("1", 1, "udp", port, "192.0.2.1", port, "host")
        wire = Wire()
        wire.local_candidate = candidate  # type: ignore[attr-defined]
        pair = ice.CandidatePair(wire, candidate)  # type: ignore[arg-type]
        pair.state, pair.nominated = ice.CandidatePair.State.SUCCEEDED, True
        pairs.append(pair)
    for pair in (pairs[0], pairs[0], pairs[1]):
        agent.check_complete(pair)
    assert agent.checks.pair_changes == 2
    assert agent.selected() is pairs[1]
    await agent.close()


@virtual_time
async def test_a_path_that_was_away_while_it_was_looked_for_is_found_within_a_second() -> None:
    """aioice doubles the time between two checks: what was back after 12 s was found after 16."""
    agent, loop = connection(), asyncio.get_running_loop()
    begun, checked = loop.time(), []

    class Nowhere(ice.StunProtocol):
        def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
            checked.append(loop.time() - begun)

        async def close(self) -> None: ...

    protocol = Nowhere(agent)
    protocol.local_candidate = Candidate("1", 1, "udp", 1, "10.0.0.1", 1, "host")
    agent._protocols = [protocol]
    agent._local_candidates_end = True
    agent.remote_username, agent.remote_password = "user", "password" * 3
    await agent.add_remote_candidate(Candidate("1", 1, "udp", 1, "10.0.0.2", 2, "host"))
    await agent.add_remote_candidate(None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.connect(), 30)
    assert max(later - earlier for earlier, later in pairwise(checked)) <= ice_seam.CHECK_AGAIN_S
    assert checked[-1] > 28
    await agent.close()
    count = len(checked)
    await asyncio.sleep(10)
    assert len(checked) == count, "it has ended"
