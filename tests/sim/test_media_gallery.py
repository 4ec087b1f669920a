"""Nine pictures and one of content on one connection, as a room sends them: each reaches its own sink, also when
packets are lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiortc import RTCSessionDescription

from appliance.media.aiortc_seam import PeerConnection
from appliance.media.api import AccessUnit, IceServers
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_seam import codec_preferences
from appliance.media.rtp_send import RtpSendStream
from appliance.media.servers import ServerPool
from appliance.media.transmission import Transmission
from tests.support.coded_video import Film, units
from tests.support.media_pair import until

TILES = 10


class Gallery:
    """What arrives at each of the sinks."""

    def __init__(self) -> None:
        self.units: list[list[AccessUnit]] = []
        self.streams: list[RtpReceiveStream] = []

    def stream(self) -> RtpReceiveStream:
        sink = _Sink(taken := [])
        stream = RtpReceiveStream("video", f"tile {len(self.streams)}", video=sink)
        self.units.append(taken)
        self.streams.append(stream)
        return stream


class _Sink:
    wants_video = True

    def __init__(self, taken: list[AccessUnit]) -> None:
        self._taken = taken

    def on_access_unit(self, unit: AccessUnit) -> None:
        self._taken.append(unit)

    def on_new_source(self) -> None: ...


def connection(name: str, sending: list[RtpSendStream], gallery: Gallery, transmission: Transmission) -> PeerConnection:
    outgoing = iter(sending)
    return PeerConnection(
        ServerPool(IceServers()), loopback=True, name=name, wide=transmission,
        streams=lambda kind: (next(outgoing, RtpSendStream(kind, name)), gallery.stream()),
        on_arrival=lambda: None, on_error=lambda error: None,
    )


@asynccontextmanager
async def gallery(films: list[Film]) -> AsyncIterator[tuple[PeerConnection, Gallery]]:
    """One peer that sends ``films`` and one that receives them; the sources are not signalled."""
    there, here = Transmission("room"), Transmission("wall")
    sending = [RtpSendStream("video", f"film {n}", film, there) for n, film in enumerate(films)]
    received = Gallery()
    room, wall = connection("room", sending, Gallery(), there), connection("wall", [], received, here)
    try:
        for film in films:
            room.addTransceiver(film, direction="sendonly").setCodecPreferences(codec_preferences("video"))
        await room.setLocalDescription(await room.createOffer())
        offer = "".join(
            line for line in room.localDescription.sdp.splitlines(keepends=True) if not line.startswith("a=ssrc")
        )
        await wall.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        await wall.setLocalDescription(await wall.createAnswer())
        await room.setRemoteDescription(wall.localDescription)
        yield wall, received
    finally:
        await room.close()
        await wall.close()
        await there.close()
        await here.close()


def bodies(coded: list[AccessUnit]) -> set[bytes]:
    """With short start codes: the long ones of the encoder do not travel."""
    return {unit.data.replace(b"\0\0\0\1", b"\0\0\1") for unit in coded}


async def test_ten_pictures_reach_ten_sinks_and_none_another() -> None:
    coded = [units(60, size=(640, 360), slope=number + 1) for number in range(TILES)]
    async with gallery([Film(film) for film in coded]) as (wall, received):
        await until(lambda: len(received.units) == TILES and all(len(tile) >= 60 for tile in received.units), 20)
        for film, tile in zip(coded, received.units, strict=True):
            assert bodies(tile) <= bodies(film)
        assert sum(stream.counters.given_up for stream in received.streams) == 0
        assert wall.transport_facts()["malformed"] == 0


async def test_lost_packets_of_ten_pictures_are_repaired_each_in_its_place() -> None:
    coded = [units(60, size=(640, 360), slope=number + 1) for number in range(TILES)]
    async with gallery([Film(film) for film in coded]) as (wall, received):
        await until(lambda: all(len(tile) >= 2 for tile in received.units), 20)
        ice = wall._ice
        assert ice is not None
        real, count = ice.data_received, itertools.count(1)

        def lossy(data: bytes, component: int) -> None:
            if not (127 < data[0] < 192 and next(count) % 11 == 0):
                real(data, component)

        ice.data_received = lossy
        before = [len(tile) for tile in received.units]
        await until(lambda: all(len(t) >= b + 60 for t, b in zip(received.units, before, strict=True)), 20)
        ice.data_received = real
        await asyncio.sleep(0.1)
        assert all(stream.counters.resent_packets > 0 for stream in received.streams)
        for film, tile in zip(coded, received.units, strict=True):
            assert bodies(tile) <= bodies(film)
