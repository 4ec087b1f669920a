"""Two studios call each other over plain RTP: the same engine on another transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from appliance.media import life
from appliance.media.api import Directions, SessionClosed, SessionDigit, SessionEvent, SessionSilent, SessionUp
from appliance.media.plain_rtp import Line, PlainSession
from appliance.media.studio import Studio
from appliance.media.transport import StreamFormat
from appliance.settings import VideoSettings
from tests.support.media_board import HandBoard
from tests.support.media_pair import goertzel, until

HOST = "127.0.0.1"
OPUS = StreamFormat("audio/opus", 96, 48_000, 2)
H264 = StreamFormat("video/H264", 102, 90_000, parameters={"packetization-mode": "1"},
                    feedback=frozenset({"nack pli"}))
PCMU = StreamFormat("audio/PCMU", 0, 8000)
G722 = StreamFormat("audio/G722", 9, 8000)


@dataclass
class End:
    board: HandBoard
    studio: Studio
    session: PlainSession
    ports: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    told: list[SessionEvent] = field(default_factory=list)

    async def listen(self) -> None:
        async for event in self.session.events():
            self.told.append(event)

    def has(self, kind: type[SessionEvent]) -> bool:
        return any(isinstance(event, kind) for event in self.told)

    def strength(self, hertz: float) -> float:
        assert self.board.audio is not None
        return goertzel(b"".join(self.board.audio.played[-20:]), hertz)

    def hears(self, other: End, formats: list[StreamFormat]) -> None:
        """Agree with ``other``, whose ports its description has told."""
        self.session.agree({
            one.kind: Line(one, (HOST, other.ports[one.kind][0]), (HOST, other.ports[one.kind][1])) for one in formats})


@asynccontextmanager
async def called(
    *formats: StreamFormat, wanted: Directions | None = None, **more: Any
) -> AsyncIterator[tuple[End, End]]:
    ends, listening = [], []
    for hertz in (440.0, 1000.0):
        studio = Studio(board := HandBoard(hertz), VideoSettings())
        await studio.open()
        end = End(board, studio, studio.plain_session(wanted or Directions(), **more))
        end.ports = await end.session.open(HOST, [one.kind for one in formats])
        ends.append(end)
        listening.append(asyncio.create_task(end.listen()))
    try:
        ends[0].hears(ends[1], list(formats))
        ends[1].hears(ends[0], list(formats))
        await until(lambda: all(end.has(SessionUp) for end in ends), 5, "up")
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.studio.close()
        await asyncio.gather(*listening)


async def tones(first: End, second: End) -> None:
    await until(lambda: first.strength(1000) > 0.15 and second.strength(440) > 0.15, 8, "tones")


@pytest.mark.parametrize("mux", [True, False])
async def test_voice_and_pictures_go_both_ways(mux: bool) -> None:
    async with called(OPUS, H264, mux=mux) as (first, second):
        await tones(first, second)
        await until(lambda: min(end.session.video_in.decoded for end in (first, second)) > 10, 8, "pictures")
        await until(lambda: second.session.outgoing["audio"].counters.round_trips > 0, 8, "a report and its answer")
        second.session.incoming["video"].want_keyframe()
        await until(lambda: first.session.outgoing["video"].counters.plis > 0, 3, "feedback")
        report = {entry["id"]: entry for entry in await first.session.stats()}
        assert report["in-video"]["framesDecoded"] > 10
        assert report["transport"]["packetsReceived"] > 20
        assert "tlsVersion" not in report["transport"]


@pytest.mark.parametrize("agreed", [
    replace(OPUS, packet_time_ms=10), replace(OPUS, packet_time_ms=40), replace(OPUS, packet_time_ms=60), PCMU,
    replace(PCMU, packet_time_ms=10), replace(PCMU, packet_time_ms=30), replace(G722, packet_time_ms=40),
], ids=lambda one: f"{one.mime_type[6:]}-{one.packet_time_ms}")
async def test_voice_in_every_codec_and_packet_time(agreed: StreamFormat) -> None:
    async with called(agreed, wanted=Directions(send_video=False)) as (first, second):
        await tones(first, second)
        sent = first.session.outgoing["audio"].counters
        before, captured = sent.packets, len(first.board.audio.played)  # type: ignore[union-attr]
        await until(lambda: sent.packets >= before + 20, 5)
        packets, blocks = sent.packets - before, len(first.board.audio.played) - captured  # type: ignore[union-attr]
        each = max(20 if agreed.mime_type == OPUS.mime_type else 0, agreed.packet_time_ms)  # Opus in whole frames
        assert blocks * 10 / packets == pytest.approx(each, rel=0.3)


@pytest.mark.parametrize("agreed", [replace(PCMU, event_type=101), replace(OPUS, event_type=110)],
                         ids=lambda one: one.mime_type[6:])
async def test_digits_go_through_as_events_and_the_voice_goes_on(agreed: StreamFormat) -> None:
    async with called(agreed) as (first, second):
        await tones(first, second)
        for digit in "1#":
            await first.session.send_digit(digit)
        await until(lambda: [one.digit for one in second.told if isinstance(one, SessionDigit)] == ["1", "#"], 3)
        await tones(first, second)
        received = second.session.incoming["audio"].reception
        assert received is not None
        assert received.lost == 0, "events have their numbers in the voice's own sequence"
        with pytest.raises(ValueError, match="no digit"):
            await first.session.send_digit("x")


async def test_digits_go_through_as_tones_where_there_are_no_events() -> None:
    async with called(PCMU) as (first, second):
        await tones(first, second)
        for digit in "1#":
            await first.session.send_digit(digit, tones=True)
        await until(lambda: [one for one in second.told if isinstance(one, SessionDigit)] == [
            SessionDigit("1", heard=True), SessionDigit("#", heard=True)], 3)
        await tones(first, second)


async def test_what_is_not_encrypted_is_not_told_as_verified() -> None:
    async with called(PCMU) as (first, _):
        assert [event.security for event in first.told if isinstance(event, SessionUp)] == [{"verified": False}]


async def test_digits_need_their_payload_type() -> None:
    async with called(PCMU) as (first, _):
        with pytest.raises(ConnectionError, match="not agreed"):
            await first.session.send_digit("1")


async def test_a_peer_that_falls_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "SILENT_S", 0.5)
    async with called(PCMU) as (first, second):
        await tones(first, second)
        await second.session.close()
        await until(lambda: first.has(SessionSilent), 3, "silence")
        assert not first.has(SessionClosed)


async def test_a_new_description_moves_the_call() -> None:
    """As a re-INVITE does: another address, another codec and packet time, the same session."""
    async with called(OPUS) as (first, second):
        await tones(first, second)
        third = End(HandBoard(700), second.studio, second.studio.plain_session(Directions()))
        third.ports = await third.session.open(HOST, ["audio"])
        listening = asyncio.create_task(third.listen())
        await second.session.close()
        agreed = replace(PCMU, packet_time_ms=40)
        third.hears(first, [agreed])
        first.hears(third, [agreed])
        await until(lambda: third.has(SessionUp) and first.strength(1000) > 0.15, 5, "heard from there")
        received = third.session.incoming["audio"]
        await until(lambda: received.counters.packets > 20 and second.strength(440) > 0.15, 5, "heard there")
        assert received.counters.payload_bytes == 320 * received.counters.packets
        await until(lambda: received.counters.reports > 0, 3, "reports go on")
        here = first.session.incoming["audio"].reception
        assert here is not None
        assert here.clock_rate == 8000
        assert here.jitter_s < 0.2
        await third.session.close()
        await listening


async def test_closing_at_any_moment_leaves_nothing() -> None:
    studio = Studio(HandBoard(440), VideoSettings())
    await studio.open()
    for moment in range(3):
        session = studio.plain_session(Directions())
        if moment > 0:
            ports = await session.open(HOST, ["audio", "video"])
            assert len({port for pair in ports.values() for port in pair}) == 4
        if moment > 1:
            session.agree({"audio": Line(OPUS, (HOST, 9)), "video": Line(H264, (HOST, 11))})
        await session.close()
        await session.close()
    assert studio.state()["sessions"] == 0
    await studio.close()
