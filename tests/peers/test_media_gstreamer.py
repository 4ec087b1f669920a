"""The media engine and GStreamer's webrtcbin in a call: H.264 and Opus both ways, each as the one who offers."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.media.api import SessionUp
from tests.support.gstreamer import HERTZ, GStreamer, Received, gstreamer
from tests.support.media_pair import End, goertzel, marks, one_end, until

pytestmark = pytest.mark.peer
OURS: float = 440


async def received(peer: GStreamer, frames: int, within_s: float = 10.0) -> Received:
    """What the peer has once it has decoded so many pictures and hears our tone."""
    deadline = time.monotonic() + within_s
    while True:
        got = await peer.received()
        if got.frames >= frames and goertzel(got.sound, OURS) > 0.1:
            return got
        assert time.monotonic() < deadline, f"{got.frames} pictures, tone {goertzel(got.sound, OURS)}, {got.state}"
        await asyncio.sleep(0.05)


async def judge(end: End, peer: GStreamer) -> None:
    up = await end.event(SessionUp, 10)
    if up.security["dtlsRole"] == "client":  # the suite is that of the server's certificate
        assert "ECDHE-RSA" in up.security["dtlsCipher"], "RSA is what this peer has, and what aiortc alone refuses"
    await until(lambda: end.strength(HERTZ) > 0.1, 10, "its tone")
    await until(lambda: len(end.board.display.pictures) > 45, 10, "its pictures")
    counters = marks(end)
    assert counters == sorted(counters)
    assert len(counters) > 25, "its pictures can be read"
    assert counters[-1] - counters[0] < 2 * len(counters), "most of them are shown"
    got = await received(peer, 30)
    assert len(set(got.lumas)) > 10, "our picture moves"
    assert got.state == "connected"


async def test_we_offer_and_it_answers() -> None:
    async with gstreamer() as peer, one_end(OURS) as end:
        await end.session.accept_answer(await peer.answer(await end.session.offer()))
        await judge(end, peer)


async def test_it_offers_and_we_answer() -> None:
    async with gstreamer() as peer, one_end(OURS) as end:
        await peer.accept(await end.session.answer(await peer.offer()))
        await judge(end, peer)
