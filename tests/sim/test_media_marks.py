"""Marks of a call's packets, read where the peer would receive them."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from appliance.media.api import Directions, SessionUp
from tests.support.impair import Relay, _Side, relay
from tests.support.media_pair import pair, until

EF, AF41 = 0xB8, 0x88


class Tap:
    """Reads the traffic class of what the left peer sends, in the place of the relay's own reading."""

    def __init__(self, side: _Side) -> None:
        self.seen: Counter[int] = Counter()
        assert side._transport is not None
        self._side = side
        self._socket: Any = side._transport.get_extra_info("socket")._sock
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)

    def read(self) -> None:
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if 127 < data[0] < 192:  # RTP and RTCP
                self.seen.update(value[0] for _, kind, value in ancillary if kind == socket.IP_TOS)
            self._side.datagram_received(data, address)


@asynccontextmanager
async def tapped() -> AsyncIterator[tuple[Relay, Tap]]:
    loop = asyncio.get_running_loop()
    async with relay() as between:
        tap = Tap(between._left)
        number = tap._socket.fileno()
        loop._remove_reader(number)  # type: ignore[attr-defined]
        loop._add_reader(number, tap.read)  # type: ignore[attr-defined]
        yield between, tap


async def test_sound_alone_is_ef_and_with_pictures_it_is_af41() -> None:
    async with tapped() as (between, tap), pair(between=between) as (caller, callee):
        await callee.event(SessionUp)
        await until(lambda: callee.session.video_in.decoded > 5)
        assert set(tap.seen) == {AF41}
        caller.session.set_directions(Directions(send_video=False))
        tap.seen.clear()
        await until(lambda: tap.seen[EF] > 20)
        assert tap.seen[AF41] <= 20, "what was on its way"
        caller.session.set_directions(Directions())
        before = tap.seen[AF41]
        await until(lambda: tap.seen[AF41] > before + 20)
