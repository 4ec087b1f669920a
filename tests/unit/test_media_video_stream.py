"""One video stream on virtual time, between packets on one side and RTCP and access units on the other."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpReceiveParameters
from aiortc.rtp import RtcpPacket, RtcpPsfbPacket, RtcpRtpfbPacket, RtpPacket, wrap_rtx

from appliance.media.api import AccessUnit
from appliance.media.repair import PLI_FIRST_S, PLI_LAST_S
from appliance.media.rtp_receive import RETURN_S, RtpReceiveStream
from appliance.media.rtp_seam import FEEDBACK, h264_payloads
from tests.support.clock import virtual_time
from tests.support.coded_video import units

MEDIA, RTX = 96, 97
PARAMETERS = RTCRtpReceiveParameters(codecs=[
    RTCRtpCodecParameters(mimeType="video/H264", clockRate=90_000, payloadType=MEDIA),
    RTCRtpCodecParameters(mimeType="video/rtx", clockRate=90_000, payloadType=RTX, parameters={"apt": MEDIA}),
])


class Sink:
    def __init__(self) -> None:
        self.wants_video = True
        self.units: list[AccessUnit] = []
        self.sources = 0

    def on_access_unit(self, unit: AccessUnit) -> None:
        self.units.append(unit)

    def on_new_source(self) -> None:
        self.sources += 1

    @property
    def stamps(self) -> list[int]:
        return [unit.timestamp for unit in self.units]


class World:
    """A stream with its sink; what it sends is kept with the time."""

    def __init__(self, round_trip: float | None = None) -> None:
        self.sink = Sink()
        self.sent: list[tuple[float, Any]] = []
        self.loop = asyncio.get_running_loop()
        self.stream = RtpReceiveStream("video", "test", video=self.sink, round_trip=lambda: round_trip)
        self.stream.start(rtcp_ssrc=1, parameters=PARAMETERS, send=self._send)

    async def _send(self, data: bytes) -> None:
        self.sent += [(self.loop.time(), packet) for packet in RtcpPacket.parse(data)]

    def take(self, packet: RtpPacket) -> None:
        self.stream.on_rtp(packet, 0)

    def nacks(self) -> list[tuple[float, list[int]]]:
        return [(at, packet.lost) for at, packet in self.sent
                if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == FEEDBACK["nack"]]

    def plis(self) -> list[float]:
        return [at for at, packet in self.sent
                if isinstance(packet, RtcpPsfbPacket) and packet.fmt == FEEDBACK["pli"]]


def packets(coded: list[AccessUnit], *, ssrc: int = 7, sequence: int = 100) -> list[RtpPacket]:
    made = []
    for unit in coded:
        payloads = h264_payloads(unit.data)
        for payload in payloads:
            made.append(RtpPacket(
                payload_type=MEDIA, marker=payload is payloads[-1], sequence_number=sequence & 0xFFFF,
                timestamp=unit.timestamp, ssrc=ssrc, payload=payload,
            ))
            sequence += 1
    return made


def again(packet: RtpPacket, *, ssrc: int = 8) -> RtpPacket:
    return wrap_rtx(packet, payload_type=RTX, sequence_number=5, ssrc=ssrc)


@virtual_time
async def test_a_lost_packet_is_asked_for_until_it_comes() -> None:
    world, sent = World(), packets(units(4))
    for packet in sent[:-3] + sent[-2:]:
        world.take(packet)
    lost = sent[-3]
    assert world.stream.expects(again(lost))
    assert not world.stream.expects(lost)
    await asyncio.sleep(0.2)
    asked = [numbers for _, numbers in world.nacks() if lost.sequence_number in numbers]
    assert len(asked) == 7, "once, and three times said twice"
    assert len(world.sink.units) == 1
    world.take(again(lost))
    assert len(world.sink.units) == 4
    assert world.stream.counters.resent_packets == 1
    assert not world.stream.expects(again(lost))
    await asyncio.sleep(1)
    asked = [numbers for _, numbers in world.nacks() if lost.sequence_number in numbers]
    assert len(asked) == 7, "it is not missing any more"
    await world.stream.stop()


@virtual_time
async def test_a_call_of_600_ms_is_repaired_without_a_key_frame() -> None:
    world, sent = World(round_trip=0.6), packets(units(60))
    lost = sent[10]
    for packet in sent:
        if packet is not lost:
            world.take(packet)
        await asyncio.sleep(1 / 30)
        if len(world.nacks()) == 1 and packet is sent[11]:
            world.loop.call_at(world.nacks()[0][0] + 0.62, world.take, again(lost))
    assert world.sink.stamps == [unit.timestamp for unit in units(60)]
    assert len(world.nacks()) == 1
    assert not world.plis()
    await world.stream.stop()


@virtual_time
async def test_key_frame_requests_back_off() -> None:
    world, sent = World(), packets(units(400))
    for packet in sent[5:]:
        world.take(packet)
        await asyncio.sleep(1 / 30)
    asked = world.plis()
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert PLI_FIRST_S <= pauses[0] < PLI_FIRST_S + 0.1
    assert PLI_LAST_S <= pauses[-1] < PLI_LAST_S + 0.1
    assert not world.sink.units
    await world.stream.stop()


@virtual_time
async def test_numbers_around_the_wrap_are_asked_for() -> None:
    world, sent = World(), packets(units(6), sequence=65_533)
    for packet in (sent[0], sent[5]):
        world.take(packet)
    await asyncio.sleep(0.01)
    assert world.nacks()[0][1] == [0, 1, 65_534, 65_535]
    await world.stream.stop()


@virtual_time
async def test_another_source_on_the_line_starts_afresh_and_is_not_disturbed_by_the_old() -> None:
    world = World()
    old, new = packets(units(9)), packets(units(9, begin=1 << 31), ssrc=70, sequence=40_000)
    for packet in old[:5]:
        world.take(packet)
    assert world.stream.counters.packets == 5
    for packet in (new[0], old[5], new[1], old[6], *new[2:]):
        world.take(packet)
    assert world.sink.sources == 2
    assert world.sink.stamps == [unit.timestamp for unit in units(5) + units(9, begin=1 << 31)]
    assert (world.stream.counters.ssrc, world.stream.counters.packets, world.stream.counters.stray) == (70, 9, 2)
    assert world.stream.reception is not None
    assert world.stream.reception.lost == 0
    await asyncio.sleep(0.01)
    assert not world.nacks()
    await world.stream.stop()


async def test_a_source_comes_back_when_its_successor_is_silent() -> None:
    world = World()
    old, new = packets(units(9)), packets(units(9, begin=9), ssrc=70)
    for packet in (old[0], new[0]):
        world.take(packet)
    world.stream._heard_at -= RETURN_S
    world.take(old[1])
    assert world.stream.counters.ssrc == 7
    await world.stream.stop()


@virtual_time
async def test_a_new_source_that_begins_in_the_middle_is_asked_for_a_key_frame_at_once() -> None:
    world = World()
    for packet in packets(units(5)):
        world.take(packet)
    world.stream.need_keyframe()
    before = len(world.plis())
    world.take(packets(units(5, begin=77), ssrc=70)[2])
    await asyncio.sleep(0.01)
    assert len(world.plis()) == before + 2, "the back-off of the old source does not hold for the new one"
    await world.stream.stop()


@virtual_time
async def test_nothing_is_asked_for_that_nobody_wants() -> None:
    world, sent = World(), packets(units(9))
    world.sink.wants_video = False
    for packet in sent[2:4] + sent[6:]:
        world.take(packet)
    await asyncio.sleep(1)
    assert not world.nacks()
    assert not world.plis()
    assert world.stream.counters.packets == 5
    world.sink.wants_video = True
    for packet in packets(units(9), sequence=109):
        world.take(packet)
    assert len(world.sink.units) == 9
    world.take(packets(units(9), sequence=109)[0])
    assert world.stream.counters.discarded == 0, "what comes twice is not discarded, as W3C has it"
    world.sink.wants_video = False
    world.take(packets(units(9), sequence=118)[0])
    assert world.stream.counters.frames == 9, "counters do not go back"
    await world.stream.stop()


@virtual_time
async def test_what_is_no_h264_is_counted_and_not_asked_for() -> None:
    world = World()
    world.take(RtpPacket(payload_type=MEDIA, marker=1, sequence_number=1, timestamp=1, ssrc=7, payload=b"\x1c"))
    assert world.stream.counters.malformed == 1
    await asyncio.sleep(0.1)
    assert not world.nacks()
    await world.stream.stop()


@virtual_time
async def test_where_nothing_is_sent_again_a_key_frame_is_asked_for_and_nothing_waits() -> None:
    """No NACK is agreed (RFC 4585): a hole is given up as soon as packets can have overtaken each other."""
    world = World()
    world.stream.resends = False
    coded = units(8, size=(640, 480))
    sent = packets(coded)
    hole = next(at for at, packet in enumerate(sent) if packet.timestamp == coded[2].timestamp)
    for at, packet in enumerate(sent):
        if at != hole:
            world.take(packet)
        if packet.marker:
            await asyncio.sleep(1 / 30)
    assert world.nacks() == []
    assert len(world.plis()) >= 1
    assert len(world.sink.units) == 2
    world.take(packets(units(1, begin=coded[-1].timestamp + 3000), sequence=100 + len(sent))[0])
    assert len(world.sink.units) == 3, "the next key frame is shown at once"
    await world.stream.stop()


@virtual_time
async def test_a_key_frame_is_asked_for_by_signalling_where_there_is_no_feedback() -> None:
    world = World()
    asked: list[float] = []
    world.stream.on_key_wanted = lambda: asked.append(world.loop.time())
    for packet in packets(units(2)):
        world.take(packet)
    world.stream.need_keyframe()
    await asyncio.sleep(0)
    assert len(asked) == 1
    assert world.plis() == []
    await world.stream.stop()
