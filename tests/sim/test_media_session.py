"""Two studios call each other over loopback: what one sends is heard and seen at the other."""

from __future__ import annotations

import asyncio
import collections
import re
import time
from itertools import pairwise
from typing import Any

import pytest

from appliance.errors import Refused, SignalingError
from appliance.media import life, smoothness
from appliance.media import session as session_module
from appliance.media.api import DataMessage, Directions, SessionClosed, SessionSilent, SessionSound, SessionUp, Tone
from appliance.media.sound import dbfs, mean_square
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from hw.api import DeviceBusyError
from tests.support.lag import lateness
from tests.support.media_board import HandBoard
from tests.support.media_pair import connect, pair, until


def kinds(report: Any, kind: str) -> dict[str, Any]:
    return next(entry for entry in report if entry["type"] == kind)


async def test_each_hears_the_tone_of_the_other_and_sees_rising_frames() -> None:
    async with pair() as (caller, callee):
        up = await caller.event(SessionUp)
        await callee.event(SessionUp)
        assert up.security["srtpCipher"].startswith("SRTP_AEAD")
        assert up.security["tlsVersion"].startswith("DTLS")
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, what="tones")
        assert caller.strength(440) < 0.01
        assert callee.strength(1000) < 0.01
        await until(lambda: len(callee.board.display.pictures) > 5 and len(caller.board.display.pictures) > 5)
        seen = [picture.i420[0] for picture in callee.board.display.pictures]
        assert len(set(seen)) > 3, "the same picture again and again"
        picture = callee.board.display.pictures[-1]
        assert len(picture.i420) == picture.width * picture.height * 3 // 2


async def test_mute_is_silence_at_the_peer() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.strength(440) > 0.15, what="tone")
        caller.studio.mute(True)
        muted_at = len(callee.board.audio.played)
        await until(lambda: len(callee.board.audio.played) >= muted_at + 90)
        # what was under way and waiting for play-out is heard to its end: 60 ms, and ten times that on a busy machine
        after = callee.board.audio.played[muted_at + 60 : muted_at + 90]
        assert dbfs(mean_square(b"".join(after))) < -70
        caller.studio.mute(False)
        await until(lambda: callee.strength(440) > 0.15, what="tone again")
        callee.studio.mute_incoming(True)
        await until(lambda: callee.strength(440, 10) < 0.001, what="speaker muted")


async def test_pli_reaches_the_camera_as_one_key_frame_request() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 5, what="frames")
        await until(lambda: time.monotonic() - caller.board.camera.asked[-1] > 0.5)
        before, keys = len(caller.board.camera.asked), callee.session.video_in.key_decoded
        for _ in range(5):
            callee.session.incoming["video"]._send_pli()  # past the back-off
        await until(lambda: callee.session.video_in.key_decoded > keys, what="key frame")
        assert caller.session.outgoing["video"].counters.plis >= 5
        asked = caller.board.camera.asked[before - 1 :]
        assert all(later - earlier > 0.45 for earlier, later in pairwise(asked))


async def test_what_the_path_leaves_reaches_the_encoder() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 5)
        sent = caller.session.transmission
        await until(lambda: sent.reported and sent.allocation.video is not None)
        sent.on_remb(400_000)  # a wish beside transport-wide feedback
        camera = caller.board.camera
        await until(lambda: camera.modes[-1:] and camera.modes[-1].height < 720, what="a smaller picture")
        assert 150_000 < camera.modes[-1].bitrate < 400_000
        await until(lambda: camera.modes[-1].height == 720 or camera.bitrates[-1] == 1_500_000, 40, "the full one")


async def test_every_packet_both_ways_is_reported_on_by_the_peer() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 5)
        sent, reported = caller.session.transmission, callee.session.transmission
        await until(lambda: sent.reports_received > 20 and reported.reports_received > 20, what="reports")
        assert sent.reports_malformed == reported.reports_malformed == 0
        assert sent.packets_lost == 0

        def under_way() -> int:
            return sum(stream.counters.packets for stream in caller.session.outgoing.values()) - sent.packets_arrived

        await until(lambda: -60 <= under_way() < 60, what="sound and picture, up to what is under way")
        assert callee.session.incoming["video"].counters.packets > 0
        assert caller.session.outgoing["video"].counters.estimate is None, "no REMB beside it"


async def test_silence_is_told_and_sound_again() -> None:
    async with lateness() as late, pair() as (_, callee):
        await callee.event(SessionUp)
        connection = callee.session._pc._ice
        real = connection.data_received
        connection.data_received = lambda data, component: None  # nothing of the network arrives any more
        connection.request_received = lambda *args: None
        began, late_before = time.monotonic(), late()
        silent = await callee.event(SessionSilent, 10)
        assert 2.7 <= silent.seconds < 3.1 + late() - late_before
        assert time.monotonic() - began < 3.3 + late() - late_before
        assert not any(isinstance(event, SessionClosed) for event in callee.told)
        connection.data_received = real
        await callee.event(SessionSound, 1)


async def test_the_same_word_of_what_the_peer_sends_does_not_put_silence_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer that noticed first offers a new connection, and says again what it sends."""
    monkeypatch.setattr(life, "SILENT_S", 1.0)
    async with pair() as (_, callee):
        await callee.event(SessionUp)
        connection = callee.session._pc._ice
        connection.data_received = lambda data, component: None
        connection.request_received = lambda *args: None

        def told_again() -> bool:
            callee.session.peer_sends(audio=True, video=True)
            return any(isinstance(event, SessionSilent) for event in callee.told)

        await until(told_again, 4, "silence")


async def test_nothing_due_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "SILENT_S", 0.5)
    async with pair() as (caller, callee):
        await callee.event(SessionUp)
        callee.session.peer_sends(audio=False, video=False)
        caller.session.set_directions(Directions(False, False, True, True))
        await asyncio.sleep(1.0)  # longer than the limit: the absence of an event is what is tested
        assert not any(isinstance(event, SessionSilent) for event in callee.told)


async def test_stopped_directions_send_nothing_and_begin_again() -> None:
    async with pair() as (caller, callee):
        await until(lambda: callee.session.video_in.decoded > 3 and callee.strength(440) > 0.15)
        caller.session.set_directions(Directions(send_audio=False, send_video=False))
        await until(lambda: not caller.board.camera.running, what="camera closed")
        counters = [callee.session.incoming[kind].counters for kind in ("audio", "video")]
        await until(lambda: callee.strength(440, 10) < 0.001)
        before = [counter.packets for counter in counters]
        await asyncio.sleep(0.3)
        assert [counter.packets for counter in counters] == before
        decoded = callee.session.video_in.decoded
        caller.session.set_directions(Directions())
        await until(lambda: callee.session.video_in.decoded > decoded + 3 and callee.strength(440) > 0.15)
        assert caller.board.camera.starts == 2


async def test_the_state_says_what_is_played_and_shown_now() -> None:
    async with pair() as (caller, callee):
        def told() -> tuple[bool, bool, bool, bool]:
            state = callee.studio.state()
            audio, video = state["audio"]["actual"], state["video"]["actual"]
            return audio["sending"], video["sending"], audio["playing"], video["showing"]

        await callee.event(SessionUp)
        assert told() == (True, True, True, True)
        callee.studio.mute_incoming(True)
        assert told() == (True, True, False, True)
        callee.studio.mute_incoming(False)
        callee.session.set_directions(Directions(False, False, False, False))
        assert told() == (False, False, False, False), "as on hold"
        callee.session.set_directions(Directions())
        callee.session.peer_sends(audio=False, video=False)
        assert told() == (True, True, True, False), "the peer has stopped its camera"
        await caller.session.close()
        await callee.event(SessionClosed)
        assert told() == (False, False, False, False)


async def test_the_camera_stays_open_while_warm() -> None:
    async with pair(connected=False, wanted=Directions(send_video=False)) as (caller, _):
        assert not caller.board.camera.running
        await caller.studio.warm_camera(True)
        assert caller.board.camera.running
        assert caller.studio.state()["video"]["actual"]["encoder"] == "software"
        await caller.studio.warm_camera(False)
        await until(lambda: not caller.board.camera.running)
        assert len(await caller.studio.snapshot(320)) > 200


@pytest.mark.parametrize("size", [2, 60_000])
async def test_data_both_ways(size: int) -> None:
    async with pair() as (caller, callee):
        text = "ä" * (size // 2)
        for here, there in ((caller, callee), (callee, caller)):
            await until(lambda end=here: any(c.channel.readyState == "open" for c in end.session.channels))
            here.session.send("chat", text)
            assert await there.event(DataMessage) == DataMessage("chat", text)
        with pytest.raises(Refused, match="64 KiB"):
            caller.session.send("chat", "x" * 70_000)


async def test_data_that_is_not_ours_is_dropped() -> None:
    async with pair() as (caller, callee):
        await until(lambda: any(c.channel.readyState == "open" for c in caller.session.channels))
        for message in ("[]", "{", "7", '{"channel": 1, "payload": "x"}', b"\xff", "[" * 5000):
            caller.session.channels[0].channel.send(message)
        caller.session.send("chat", "fine")
        assert await callee.event(DataMessage) == DataMessage("chat", "fine")
        assert callee.session.messages_dropped == 6


async def test_a_peer_without_h264_gets_audio_and_a_reason() -> None:
    async with pair(connected=False) as (caller, callee):
        offer = await caller.session.offer()
        answer = await callee.session.answer(offer.replace("H264/90000", "H265/90000"))
        assert "m=video 0 " in answer
        assert "H.264" in callee.session.without["video"]
        await caller.session.accept_answer(answer)
        assert "video" in caller.session.without
        await caller.event(SessionUp)
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15)
        caller.session.send("chat", "still there")
        await callee.event(DataMessage)
        assert not callee.session.sending[1]


async def test_nothing_in_common_is_refused() -> None:
    async with pair(connected=False) as (caller, callee):
        offer = await caller.session.offer()
        with pytest.raises(Refused) as refused:
            await callee.session.answer(re.sub(r"(a=rtpmap:\d+) (H264|opus|G722|PCMU|PCMA)/", r"\1 other/", offer))
        assert refused.value.key == "488/noCodec"


async def test_an_answer_needs_an_offer() -> None:
    async with pair(connected=False) as (caller, callee):
        answer = await callee.session.answer(await caller.session.offer())
        with pytest.raises(SignalingError):
            await callee.session.accept_answer(answer)


async def test_trickled_candidates_alone_connect() -> None:
    async with pair(connected=False) as (caller, callee):
        offer = await caller.session.offer()
        lines = offer.split("\r\n")
        candidates = [line[2:] for line in lines if line.startswith("a=candidate:")]
        bare = "\r\n".join(line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates")))
        await callee.session.add_candidate(candidates[0], "0", 0)  # before the offer: kept
        answer = await callee.session.answer(bare)
        await caller.session.accept_answer(answer)
        for candidate in candidates[1:]:
            await callee.session.add_candidate(candidate, None, 0)
        await callee.session.add_candidate("candidate:1 1 udp 1 127.0.0.1 9 typ host", "1", 1)  # bundled: ignored
        await callee.session.add_candidate("", "0", 0)
        await callee.session.add_candidate("", "0", 0)
        with pytest.raises(SignalingError):
            await callee.session.add_candidate("candidate:nonsense", "0", 0)
        await callee.event(SessionUp)


async def test_owed_sound_that_never_comes_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "OWED_S", 0.5)
    async with pair(connected=False) as (caller, callee):
        caller.session.set_directions(Directions(send_audio=False))
        await connect(caller.session, callee.session)
        closed = await callee.event(SessionClosed)
        assert closed.why == "oneWayMedia"


async def test_a_peer_that_says_it_is_muted_owes_nothing() -> None:
    async with pair(connected=False) as (caller, callee):
        caller.session.set_directions(Directions(send_audio=False, send_video=False))
        callee.session.peer_sends(audio=False, video=False)
        await connect(caller.session, callee.session)
        await callee.event(SessionUp, 2)


async def test_a_board_without_devices_still_calls() -> None:
    async with pair(second=HandBoard(audio=False, camera=False)) as (caller, callee):
        await callee.event(SessionUp)
        await caller.event(SessionUp)
        assert "microphone" in callee.session.without["audio"]
        await until(lambda: len(callee.board.display.pictures) > 2)
        await until(lambda: time.monotonic() - callee.studio.exchange_tick < 0.1)
        assert callee.studio.state()["audio"]["reason"]


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "G722"])
async def test_a_gateway_that_speaks_a_codec_of_telephones_is_heard_and_hears(codec: str) -> None:
    def only(description: str) -> str:
        """The description of one that knows ``codec`` alone."""
        number = {"PCMU": "0", "PCMA": "8", "G722": "9"}[codec]
        voice = description.index("m=audio")
        line = description[voice : description.index("\r\n", voice)]
        return description.replace(line, " ".join([*line.split(" ")[:3], number]))

    async with pair(connected=False) as (caller, callee):
        await caller.session.accept_answer(await callee.session.answer(only(await caller.session.offer())))
        await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, 5, "tones")
        report = await callee.session.stats()
        used = kinds(report, "codec")
        assert (used["mimeType"], used["clockRate"]) == (f"audio/{codec}", 8000)
        assert next(e for e in report if e["id"] == "out-audio")["targetBitrate"] == 64_000


async def test_statistics_are_in_si_units_and_true() -> None:
    async with pair() as (_, callee):
        await until(lambda: callee.session.outgoing["audio"].counters.round_trips > 0, 6, "a report")
        report = await callee.session.stats()
        assert {entry["type"] for entry in report} >= {
            "codec", "outbound-rtp", "inbound-rtp", "remote-inbound-rtp", "remote-outbound-rtp", "transport",
            "candidate-pair", "local-candidate", "remote-candidate", "media-playout",
        }
        assert len({entry["id"] for entry in report}) == len(report)
        assert 0 <= kinds(report, "remote-inbound-rtp")["roundTripTime"] < 0.5
        assert 0 <= kinds(report, "inbound-rtp")["jitter"] < 0.5
        video = next(e for e in report if e["id"] == "in-video")
        assert 0 < video["framesDecoded"] <= callee.session.video_in.decoded <= video["framesDecoded"] + 2
        assert (video["frameWidth"], video["frameHeight"]) == (160, 96)
        assert video["packetsLost"] == 0


async def test_what_is_announced_is_heard_here_and_there_though_the_microphone_is_muted() -> None:
    async with pair() as (caller, callee):
        await caller.event(SessionUp)
        caller.studio.mute(True)
        await until(lambda: callee.strength(440) < 0.01, what="silence")
        caller.studio.announce(Tone.RECORDED)
        for end in (caller, callee):
            await until(lambda end=end: end.strength(1400) > 0.1, what="the beep")
        await until(lambda: callee.strength(1400) < 0.01, what="its end")


async def test_tones_play_without_a_call() -> None:
    async with pair(connected=False) as (caller, _):
        caller.studio.play(Tone.RINGBACK)
        await until(lambda: caller.strength(425) > 0.1)
        caller.studio.play(None)
        await until(lambda: caller.strength(425) < 0.001)


async def test_five_per_cent_of_loss_are_repaired() -> None:
    async with pair() as (caller, callee):
        await callee.event(SessionUp)
        connection = callee.session._pc._ice
        real, counts = connection.data_received, collections.defaultdict[bytes, int](int)

        def lossy(data: bytes, component: int) -> None:
            if 127 < data[0] < 192 and not 192 <= data[1] <= 223:  # RTP, and no RTCP (RFC 5761 section 4)
                ssrc = data[8:12]  # of each stream: one count for all may fall into step and never meet a picture
                counts[ssrc] += 1
                if counts[ssrc] % 20 == 0:
                    return
            real(data, component)

        connection.data_received = lossy
        decoded = callee.session.video_in.decoded
        await until(lambda: callee.session.video_in.decoded > decoded + 60, 10, "frames in spite of loss")
        incoming = callee.session.incoming["video"].counters
        assert incoming.nacks > 0
        assert incoming.resent_packets > 0
        assert caller.session.outgoing["video"].counters.resent_packets > 0
        voice = callee.session.voice_in.counters
        await until(lambda: voice.repaired + voice.concealed > 0, 4, "losses that were repaired or concealed")
        await until(lambda: callee.strength(440) > 0.1, 2, "the tone between two gaps")
        for entry in await callee.session.stats():
            if entry["id"] == "in-audio":
                assert entry["packetsLost"] > 0


async def test_the_picture_waits_for_the_sound_that_belongs_to_it() -> None:
    async with pair() as (_, callee):
        await callee.event(SessionUp)
        sync, video = callee.session.lip_sync, callee.session.video_in
        loop, take = asyncio.get_running_loop(), callee.session.voice_in.put
        callee.session.voice_in.put = lambda stamp, data, at: loop.call_later(0.15, take, stamp, data, at + 0.15)
        await until(lambda: sync.video_delay_s > 0.1, 8, "the picture waits")
        await until(lambda: sync.offset_s is not None and abs(sync.offset_s) <= 0.040, 10, "in step within 40 ms")
        assert video.delay_s == sync.video_delay_s
        report = {entry["id"]: entry for entry in await callee.session.stats()}
        heard, seen = (report[f"in-{kind}"]["estimatedPlayoutTimestamp"] / 1000 for kind in ("audio", "video"))
        assert 0 < time.time() - heard < 2, "what is heard now is not long ago"
        assert abs(heard - seen) < 0.5, "on a busy machine either may be held up now and then"
        assert report["in-video"]["jitterBufferDelay"] > 0.05 * report["in-video"]["jitterBufferEmittedCount"]
        callee.session.peer_sends(audio=False, video=True)
        await until(lambda: video.delay_s == 0.0, 1, "there is no sound to wait for")


async def test_a_picture_that_is_due_and_does_not_come_is_asked_for_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothness, "STALLED_S", 2.0)
    async with pair() as (caller, callee):
        await callee.event(SessionUp)
        await until(lambda: callee.session.video_in.decoded > 5)
        asked = callee.session.incoming["video"].counters.plis
        caller.session.set_directions(Directions(send_video=False))  # and says nothing of it
        await until(lambda: callee.studio.state()["video"]["stalled"] == 1, 6, "told")
        assert callee.session.incoming["video"].counters.plis > asked
        callee.session.peer_sends(audio=True, video=False)
        await until(lambda: callee.studio.state()["video"]["stalled"] == 0, 2, "it is not due any more")
        freezes = callee.session.video_in.smoothness.freeze_count
        callee.session.peer_sends(audio=True, video=True)
        decoded = callee.session.video_in.decoded
        caller.session.set_directions(Directions())
        await until(lambda: callee.session.video_in.decoded > decoded + 5, 5, "pictures again")
        assert callee.session.video_in.smoothness.pause_count == 0
        assert callee.session.video_in.smoothness.freeze_count <= freezes + 1, "what was agreed on is no freeze"


async def test_sound_comes_when_its_device_does() -> None:
    board = HandBoard()
    assert board.audio is not None
    real, attempts = board.audio.start, []

    def start(*arguments: Any) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise DeviceBusyError("hw:0 is held by pulseaudio (pid 9)")
        real(*arguments)

    board.audio.start = start  # type: ignore[method-assign]
    studio = Studio(board, VideoSettings())
    await studio.open()
    assert "pulseaudio" in studio.state()["audio"]["reason"]
    await until(lambda: studio.state()["audio"]["actual"]["running"], 3)
    assert studio.levels()[1] == 0.0
    await until(lambda: studio.levels()[0] > 0.1)
    await studio.close()


async def test_a_frame_that_is_stuck_in_sending_is_seen_by_the_watchdog() -> None:
    async with pair() as (caller, _):
        await caller.event(SessionUp)
        stream = caller.session.outgoing["audio"]
        await until(lambda: stream.counters.frames > 5 and time.monotonic() - caller.studio.sending_tick < 0.1)
        released = asyncio.Event()
        transmission = caller.session.transmission
        real = transmission._send
        assert real is not None

        async def stuck(data: bytes) -> None:
            await released.wait()
            await real(data)

        transmission._send = stuck
        await until(lambda: time.monotonic() - caller.studio.sending_tick > 0.3)
        first = caller.studio.sending_tick
        await asyncio.sleep(0.05)  # that the number stands still is what is tested
        assert caller.studio.sending_tick == first
        released.set()
        await until(lambda: time.monotonic() - caller.studio.sending_tick < 0.1)
