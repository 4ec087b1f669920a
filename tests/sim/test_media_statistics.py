"""Statistics of live sessions: whole by their schema at any moment, and true by what the other side counted."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from appliance.care.quality import BAD, POOR, Judge, level_of, mos
from appliance.care.summary import MediaSummary
from appliance.media.api import Directions, SessionUp
from tests.support.impair import Conditions, relay
from tests.support.media_board import HandBoard
from tests.support.media_pair import End, connect, pair, until
from tests.support.reports import faults, row


async def settled(*ends: End) -> None:
    """Sender and receiver reports of both kinds have gone both ways."""
    for end in ends:
        await until(lambda end=end: all(  # type: ignore[misc]
            end.session.outgoing[kind].counters.round_trips and end.session.incoming[kind].counters.reports
            for kind in ("audio", "video")), 8, "reports both ways")


async def test_a_report_is_whole_at_every_moment_of_a_session() -> None:
    async with pair(connected=False) as (caller, callee):
        assert faults(await caller.session.stats()) == []
        offer = await caller.session.offer()
        assert faults(await caller.session.stats()) == []
        answer = await callee.session.answer(offer)
        assert faults(await callee.session.stats()) == []
        await caller.session.accept_answer(answer)
        await caller.event(SessionUp)
        assert faults(await caller.session.stats()) == []
        await settled(caller, callee)
        for end in (caller, callee):
            report = await end.session.stats()
            assert faults(report) == []
            assert {one["type"] for one in report} == {
                "codec", "media-source", "outbound-rtp", "inbound-rtp", "remote-inbound-rtp", "remote-outbound-rtp",
                "media-playout", "peer-connection", "data-channel", "transport", "candidate-pair", "local-candidate",
                "remote-candidate", "certificate"}
        await caller.session.close()
        assert faults(await caller.session.stats()) == []


@pytest.mark.parametrize("wanted", [Directions(send_audio=False), Directions(send_video=False, receive_video=False)])
async def test_a_report_of_half_a_session_is_whole(wanted: Directions) -> None:
    async with pair(second=HandBoard(audio=False, camera=False), connected=False) as (caller, callee):
        caller.session.set_directions(wanted)
        callee.session.peer_sends(audio=wanted.send_audio, video=wanted.send_video)
        await connect(caller.session, callee.session)
        await callee.event(SessionUp)
        for end in (caller, callee):
            assert faults(await end.session.stats()) == []


async def test_what_one_side_sent_is_what_the_other_received() -> None:
    async with pair() as (caller, callee):
        await settled(caller, callee)
        caller.session.set_directions(Directions(send_audio=False, send_video=False))
        await asyncio.sleep(0.3)  # what is on its way arrives; no event tells that nothing is
        here, there = await caller.session.stats(), await callee.session.stats()
        for kind in ("audio", "video"):
            sent, came = row(here, "outbound-rtp", kind), row(there, "inbound-rtp", kind)
            assert sent["packetsSent"] == came["packetsReceived"] > 20
            assert sent["bytesSent"] == came["bytesReceived"]
            assert sent["headerBytesSent"] == came["headerBytesReceived"]
            assert (sent["ssrc"], came["packetsLost"]) == (came["ssrc"], 0)
            assert row(there, "remote-outbound-rtp", kind)["packetsSent"] <= sent["packetsSent"]
        video = row(there, "inbound-rtp", "video")
        assert row(here, "outbound-rtp", "video")["framesSent"] == video["framesReceived"] == video["framesDecoded"]
        assert row(here, "outbound-rtp", "video")["keyFramesEncoded"] >= video["keyFramesDecoded"] >= 1
        assert row(here, "transport")["selectedCandidatePairChanges"] >= 1  # more, where a better pair came later
        assert (row(here, "transport")["tlsVersion"], row(here, "transport")["dtlsCipher"]) == (
            "FEFD", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
        mine = next(one for one in here if one["id"] == "certificate-local")
        theirs = next(one for one in there if one["id"] == "certificate-remote")
        assert mine["fingerprint"] == theirs["fingerprint"] in callee.session._pc.remoteDescription.sdp


async def test_sources_and_sinks_tell_what_the_board_does() -> None:
    async with pair() as (caller, callee):
        await settled(caller, callee)
        report = await caller.session.stats()
        voice, camera = row(report, "media-source", "audio"), row(report, "media-source", "video")
        assert voice["audioLevel"] == pytest.approx(8000 / 32768 / 2**0.5, rel=0.05), "RMS of the tone that is heard"
        assert voice["totalAudioEnergy"] == pytest.approx(
            voice["audioLevel"] ** 2 * voice["totalSamplesDuration"], rel=0.2)
        assert (camera["width"], camera["height"]) == (160, 96)
        assert 20 <= camera["framesPerSecond"] <= 35
        out, came = row(report, "outbound-rtp", "video"), row(report, "inbound-rtp", "video")
        assert 20 <= came["framesPerSecond"] <= 35
        assert came["totalInterFrameDelay"] == pytest.approx(came["framesDecoded"] / 30, rel=0.3)
        assert 0 < out["totalEncodeTime"] / out["framesEncoded"] < 0.1
        assert 0 <= out["totalPacketSendDelay"] / out["packetsSent"] < 0.1
        for kind in ("audio", "video"):
            incoming = row(report, "inbound-rtp", kind)
            behind = incoming["timestamp"] - incoming["estimatedPlayoutTimestamp"]
            assert 0 < behind < 500, "ms from capture to play-out, both on this machine's clock"
            assert incoming["jitterBufferDelay"] / incoming["jitterBufferEmittedCount"] < 0.3
        caller.studio.mute(True)
        await until(lambda: caller.session.voice.level < 0.001, what="a muted microphone is silent")


async def test_round_trip_of_the_pair_is_that_of_consent_checks() -> None:
    async with pair() as (caller, _):
        await caller.event(SessionUp)
        checks = caller.session._pc._ice.checks
        await until(lambda: checks.answers > 0, what="a consent answer")
        found = row(await caller.session.stats(), "candidate-pair")
        assert 0 < found["currentRoundTripTime"] == found["totalRoundTripTime"] < 0.5
        assert (found["consentRequestsSent"], found["responsesReceived"]) == (1, 1)


async def test_a_gap_in_the_picture_is_one_freeze_of_its_length() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 30, what="frames")
        connection = callee.session._pc._ice
        real = connection.data_received
        connection.data_received = lambda data, component: None
        await asyncio.sleep(0.6)
        connection.data_received = real
        decoded = callee.session.video_in.decoded
        await until(lambda: callee.session.video_in.decoded > decoded + 5, what="frames again")
        video = row(await callee.session.stats(), "inbound-rtp", "video")
        assert video["freezeCount"] >= 1
        assert 0.55 <= video["totalFreezesDuration"] < 2
        before = video["freezeCount"]
        caller.session.set_directions(Directions(send_video=False))
        callee.session.peer_sends(audio=True, video=False)
        await until(lambda: not caller.board.camera.running, what="camera closed")
        await asyncio.sleep(0.5)
        caller.session.set_directions(Directions())
        callee.session.peer_sends(audio=True, video=True)
        decoded = callee.session.video_in.decoded
        await until(lambda: callee.session.video_in.decoded > decoded + 5, what="frames again")
        assert row(await callee.session.stats(), "inbound-rtp", "video")["freezeCount"] == before, "stopped on purpose"


async def test_loss_counted_here_is_loss_made_and_told_to_the_sender() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 5, what="frames")
        connection = callee.session._pc._ice
        real, count, dropped = connection.data_received, itertools.count(1), 0

        def lossy(data: bytes, component: int) -> None:
            nonlocal dropped
            if 127 < data[0] < 192 and data[1] & 0x7F == 96 and next(count) % 10 == 0:  # Opus
                dropped += 1
                return
            real(data, component)

        connection.data_received = lossy
        await until(lambda: dropped >= 12, 8, what="loss")
        connection.data_received = real
        received = callee.session.incoming["audio"].counters.packets
        await until(lambda: callee.session.incoming["audio"].counters.packets > received + 5)
        audio = row(await callee.session.stats(), "inbound-rtp", "audio")
        assert audio["packetsLost"] == dropped
        told = caller.session.outgoing["audio"].counters
        reports = told.reports
        await until(lambda: told.reports > reports + 1, 5, "a receiver report")
        reported = row(await caller.session.stats(), "remote-inbound-rtp", "audio")
        assert reported["packetsLost"] == dropped
        came = row(await callee.session.stats(), "inbound-rtp", "audio")["packetsReceived"]
        assert came - 60 <= reported["packetsReceived"] <= came, "up to what came since the report"


async def test_data_messages_are_counted_at_both_ends() -> None:
    async with pair() as (caller, callee):
        await until(lambda: any(one.channel.readyState == "open" for one in caller.session.channels))
        caller.session.send("chat", "häuschen")
        await until(lambda: any(one.received for one in callee.session.channels))
        sent, came = [next(one for one in await end.session.stats() if one.get("label") == "edgecall")
                      for end in (caller, callee)]
        assert (sent["messagesSent"], came["messagesReceived"]) == (1, 1)
        frame = '{"channel":"chat","run":"01234567","seq":1,"payload":"häuschen"}'
        assert sent["bytesSent"] == came["bytesReceived"] == len(frame.encode())


@pytest.mark.parametrize(("loss", "delay_s"), [(0.05, 0.01), (0.15, 0.15)])
async def test_the_level_on_a_bad_network_is_that_of_the_formula(loss: float, delay_s: float) -> None:
    """Loss and delay are the relay's, known to nobody else."""
    async with relay(Conditions(delay_s=delay_s), seed=3) as between, pair(between=between) as (caller, callee):
        await callee.event(SessionUp, 10)
        await settled(caller, callee)
        between.change(Conditions(loss=loss, delay_s=delay_s))
        judge = Judge()
        judge.look(await callee.session.stats())
        await asyncio.sleep(8)  # 400 packets of sound
        report = await callee.session.stats()
        assert faults(report) == []
        quality = judge.look(report)
        part = quality.parts["audio", "receive"]
        assert part.rtt == pytest.approx(2 * delay_s, abs=0.05)
        expected = level_of(mos(2 * delay_s, row(report, "inbound-rtp", "audio")["jitter"], loss))
        assert abs(part.level - expected) <= 1
        assert quality.level <= part.level
        assert quality.receive.grade == (BAD if loss > 0.1 else POOR)


async def test_without_impairment_every_part_is_excellent() -> None:
    async with pair() as (caller, callee):
        await settled(caller, callee)
        judge = Judge()
        judge.look(await callee.session.stats())
        await asyncio.sleep(3)
        quality = judge.look(await callee.session.stats())
        assert {part.level for (kind, _), part in quality.parts.items() if kind == "audio"} == {5}
        assert set(quality.parts) == {(kind, way) for kind in ("audio", "video") for way in ("send", "receive")}
        assert quality.mos > 4.2


async def test_a_summary_adds_up_to_what_both_ends_counted() -> None:
    async with pair() as (caller, callee):
        await settled(caller, callee)
        ends = (caller, callee)
        sums = [MediaSummary(), MediaSummary()]
        for _ in range(4):
            for end, summary in zip(ends, sums, strict=True):
                summary.add(await end.session.stats())
            await asyncio.sleep(0.5)
        for end in ends:
            end.session.set_directions(Directions(send_audio=False, send_video=False))
        await asyncio.sleep(0.4)
        reports = [await end.session.stats() for end in ends]
        told = []
        for report, summary in zip(reports, sums, strict=True):
            summary.add(report)
            told.append({(one["metricName"], one["direction"], one["type"]): one
                         for one in summary.payload()["metrics"]})
        for kind in ("audio", "video"):
            for mine, theirs, report in ((told[0], told[1], reports[0]), (told[1], told[0], reports[1])):
                sent = mine["packetsSent", "send", kind]["sum"]
                assert sent == row(report, "outbound-rtp", kind)["packetsSent"]
                assert sent == theirs["packetsReceived", "receive", kind]["sum"]
        assert told[0]["framesSent", "send", "video"]["sum"] == told[1]["framesDecoded", "receive", "video"]["sum"]
        assert 20 < told[1]["framesPerSecond", "receive", "video"]["maximum"] < 45
