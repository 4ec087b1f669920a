"""Statistics of live sessions: whole by their schema at any moment, and true by what the other side counted."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from appliance.media.api import Directions, SessionUp
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
            assert (sent["ssrc"], came["packetsLost"]) == (came["ssrc"], 0)
            assert row(there, "remote-outbound-rtp", kind)["packetsSent"] <= sent["packetsSent"]
        video = row(there, "inbound-rtp", "video")
        assert row(here, "outbound-rtp", "video")["framesSent"] == video["framesReceived"] == video["framesDecoded"]
        assert row(here, "outbound-rtp", "video")["keyFramesEncoded"] >= video["keyFramesDecoded"] >= 1
        assert row(here, "transport")["selectedCandidatePairChanges"] == 1
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
        assert row(await caller.session.stats(), "remote-inbound-rtp", "audio")["packetsLost"] == dropped


async def test_data_messages_are_counted_at_both_ends() -> None:
    async with pair() as (caller, callee):
        await until(lambda: any(one.channel.readyState == "open" for one in caller.session.channels))
        caller.session.send("chat", "häuschen")
        await until(lambda: any(one.received for one in callee.session.channels))
        sent, came = [row(await end.session.stats(), "data-channel") for end in (caller, callee)]
        assert (sent["messagesSent"], came["messagesReceived"]) == (1, 1)
        assert sent["bytesSent"] == came["bytesReceived"] == len('{"channel":"chat","payload":"häuschen"}'.encode())
