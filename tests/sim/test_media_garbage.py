"""A running call under garbage: of strangers on its ports, and of a peer that is authentic and wrong."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.media import microphone
from appliance.media.api import DataMessage, SessionClosed, SessionUp
from appliance.media.webrtc import WebRtcSession
from tests.support.media_pair import End, pair, until
from tests.support.mutation import mutated

ROUNDS = 1500


@asynccontextmanager
async def undisturbed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[End, End]]:
    """A call that must be the same afterwards: up, heard, seen, data flowing, and nothing in the loop's own handler."""
    monkeypatch.setattr(microphone, "LOSS_HIGH", 101)  # or the loss told here saves the pauses, and a tone is one
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with pair() as (caller, callee):
        await caller.event(SessionUp)
        await callee.event(SessionUp)
        await until(lambda: callee.session.video_in.decoded > 5)
        yield caller, callee
        decoded = callee.session.video_in.decoded
        await until(lambda: callee.session.video_in.decoded > decoded + 10, 10, "pictures again")
        await until(lambda: callee.strength(440) > 0.15 and caller.strength(1000) > 0.15, 10, "tones again")
        assert not any(isinstance(event, SessionClosed) for end in (caller, callee) for event in end.told)
    assert faults == []


def ports(session: WebRtcSession) -> list[tuple[str, int]]:
    ice = session._pc._ice
    assert ice is not None
    return [(candidate.host, candidate.port) for candidate in ice.local_candidates]


async def test_strangers_on_the_ports_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    starts = (
        b"\x80\x60", b"\x80\xc8", b"\x16\xfe\xfd", b"\x15\xfe\xfd", b"\x00\x01", b"\x01\x01", b"\x40\x00", b"", b"\xff",
    )
    async with undisturbed(monkeypatch) as (_, callee):
        senders = {family: socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)}
        for sender in senders.values():
            sender.setblocking(False)
        for n in range(ROUNDS):
            size = chance.choice((0, 1, 2, 8, 12, 20, 40, 300, 1200, 1500, 2048, 2049, 9000, 60_000))
            for host, port in ports(callee.session):
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                senders[family].sendto(chance.choice(starts) + chance.randbytes(size), (host, port))
            if n % 50 == 0:
                await asyncio.sleep(0.005)  # the loop takes what came
        for sender in senders.values():
            sender.close()


async def test_an_authentic_peer_whose_packets_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real RTP, RTCP and SCTP packets of the call, with faults in them, as if they had come authenticated."""
    chance = random.Random(2)
    async with undisturbed(monkeypatch) as (caller, callee):
        dtls: Any = callee.session._pc._dtls
        seen: dict[str, list[bytes]] = {"_take_rtp": [], "_handle_rtcp_data": []}
        for name, packets in seen.items():
            real = getattr(dtls, name)

            def tapped(data: bytes, *more: Any, real: Any = real, packets: list[bytes] = packets) -> Any:
                packets.append(data)
                return real(data, *more)

            setattr(dtls, name, tapped)
        gate = dtls._data_receiver
        sctp: list[bytes] = []
        real_data = gate._handle_data

        async def data_tapped(data: bytes) -> None:
            sctp.append(data)
            await real_data(data)

        gate._handle_data = data_tapped
        await until(lambda: any(one.channel.readyState == "open" for one in caller.session._channels))
        caller.session.send("chat", "first")
        await until(lambda: len(seen["_take_rtp"]) > 60 and len(seen["_handle_rtcp_data"]) > 3, 10)
        await until(lambda: bool(sctp))
        for name in seen:
            setattr(dtls, name, getattr(type(dtls), name).__get__(dtls))
        for n in range(ROUNDS):
            dtls._take_rtp(mutated(chance.choice(seen["_take_rtp"]), chance), n)
            await dtls._handle_rtcp_data(mutated(chance.choice(seen["_handle_rtcp_data"]), chance))
            await real_data(mutated(chance.choice(sctp), chance))
            if n % 50 == 0:
                await asyncio.sleep(0)
        assert dtls.malformed > 0, "no fault was met"
        caller.session.send("chat", "last")
        await until(lambda: DataMessage("chat", "last") in callee.told, 5, "data again")
