"""What leaves: key frames asked for in measure, overflow begins again with a key frame, one encoder for all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from appliance.media.opus import has_fec
from appliance.media.sound import BLOCK_BYTES, SILENCE
from appliance.media.uplink import MIN_BPS, VIDEO_QUEUE, CameraFeed, MicrophoneFeed
from appliance.media.voice_codecs import OPUS, VOICE_CODECS
from hw.api import DeviceBusyError, EncodedFrame, EncoderKind, VideoMode
from tests.support.media_pair import until
from tests.support.voice_path import speech_like


class Camera:
    """Remembers what is asked; frames are pushed by the test."""

    encoder = EncoderKind.HARDWARE

    def __init__(self) -> None:
        self.keys = 0
        self.bitrates: list[int] = []
        self.sink: Callable[[EncodedFrame], None] | None = None
        self.broken = ""
        self.starts = 0

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.starts += 1
        if self.broken:
            raise DeviceBusyError(self.broken)
        self.sink = sink
        return mode

    def request_keyframe(self) -> None:
        self.keys += 1

    def set_bitrate(self, bits_per_second: int) -> None:
        self.bitrates.append(bits_per_second)

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def stop(self) -> None:
        self.sink = None


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.fixture
async def feed(camera: Camera) -> AsyncIterator[CameraFeed]:
    executor = ThreadPoolExecutor(1)
    made = CameraFeed(camera, VideoMode(), asyncio.get_running_loop(), executor)
    made.start()
    yield made
    await made.close()
    assert camera.sink is None
    executor.shutdown()


def frame(number: int, key: bool = False, size: int = 1000) -> EncodedFrame:
    return EncodedFrame(bytes(size), number * 33_333, key)


async def test_the_camera_is_open_only_while_somebody_needs_it(feed: CameraFeed, camera: Camera) -> None:
    track = feed.track()
    assert camera.starts == 0
    track.set_sending(True)
    await until(lambda: feed.mode is not None)
    feed.hold("warm", True)
    track.set_sending(False)
    await asyncio.sleep(0.02)
    assert camera.sink is not None
    feed.hold("warm", False)
    await until(lambda: camera.sink is None)


async def test_key_frames_are_limited_over_all_sessions_and_none_is_lost(
    feed: CameraFeed, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = [feed.track(), feed.track()]
    tracks[0].set_sending(True)
    await until(lambda: feed.mode is not None)
    assert camera.keys == 1
    for _ in range(20):
        tracks[0].keyframe_wanted()
    assert camera.keys == 1, "within the interval"
    tracks[1].set_sending(True)
    assert camera.keys == 2, "a new session gets one at once"
    tracks[0].keyframe_wanted()
    loop = asyncio.get_running_loop()
    waited = await until(lambda: camera.keys == 3)
    assert waited > 0.3
    assert loop.time() - feed._key_at < 0.1
    await asyncio.sleep(0.1)
    assert camera.keys == 3


async def test_a_session_begins_with_a_key_frame_and_so_after_an_overflow(feed: CameraFeed, camera: Camera) -> None:
    track = feed.track()
    track.set_sending(True)
    await until(lambda: feed.mode is not None)
    track.push(frame(0))
    track.push(frame(1, key=True))
    for number in range(2, VIDEO_QUEUE + 1):
        track.push(frame(number))
    assert (await track.recv()).is_keyframe
    track.push(frame(20))
    before = camera.keys
    track.push(frame(21))  # one too many: all that waits goes, and a key frame is asked for
    assert track.dropped == VIDEO_QUEUE + 1
    await until(lambda: camera.keys == before + 1)
    track.push(frame(22))
    track.push(frame(23, key=True))
    packet = await track.recv()
    assert packet.is_keyframe
    assert packet.pts == 23 * 33_333 * 9 // 100
    assert track.captured_at(packet) == pytest.approx(23 / 30, abs=0.001)


async def test_the_narrowest_peer_sets_the_bitrate(feed: CameraFeed, camera: Camera) -> None:
    tracks = [feed.track(), feed.track()]
    for track in tracks:
        track.set_sending(True)
    await until(lambda: feed.mode is not None)
    for number in range(30):
        for track in tracks:
            track.push(frame(number, key=number == 0, size=5000))  # 1.2 Mbit/s
            await track.recv()
    tracks[0].bitrate_wanted(900_000)
    tracks[1].bitrate_wanted(600_000)
    tracks[1].bitrate_wanted(590_000)  # too small a change to bother the encoder
    tracks[0].bitrate_wanted(10)  # noise of a peer that has just begun
    assert camera.bitrates == [900_000, 600_000]
    tracks[1].set_sending(False)
    assert camera.bitrates[-1] == 900_000
    tracks[0].bitrate_wanted(40_000)
    assert camera.bitrates[-1] == MIN_BPS
    tracks[0].bitrate_wanted(5_000_000)
    assert camera.bitrates[-1] == 1_500_000


async def test_a_busy_camera_is_told_and_tried_again(feed: CameraFeed, camera: Camera) -> None:
    camera.broken = "/dev/video0 is held by cheese (pid 7)"
    feed.hold("warm", True)
    await feed.settled()
    assert "cheese" in feed.fault
    camera.broken = ""
    await until(lambda: feed.mode is not None, 3)
    assert feed.fault == ""


async def test_a_camera_is_closed_although_it_was_just_opening(camera: Camera) -> None:
    executor = ThreadPoolExecutor(1)
    feed = CameraFeed(camera, VideoMode(), asyncio.get_running_loop(), executor)
    feed.start()
    feed.hold("warm", True)
    await asyncio.sleep(0)
    await feed.close()
    assert camera.sink is None
    executor.shutdown()


async def test_one_encoder_serves_all_sessions_and_a_stopped_one_gets_nothing() -> None:
    feed = MicrophoneFeed(asyncio.get_running_loop())
    tracks = [feed.track(), feed.track()]
    feed.put(SILENCE)
    assert feed.encoded == 0, "nobody listens: nothing crosses to the loop"
    tracks[0].set_sending(True)
    tracks[1].set_sending(True)
    paused = []
    tracks[1].on_pause = lambda: paused.append(1)
    for _ in range(4):
        feed.put(SILENCE)
        feed.put(SILENCE)
        await asyncio.sleep(0)
    first = [await tracks[0].recv() for _ in range(3)]
    assert [packet.pts - first[0].pts for packet in first] == [0, 960, 1920]
    assert bytes(first[0]) == bytes(await tracks[1].recv())
    tracks[1].set_sending(False)
    encoded = feed.encoded
    feed.put(SILENCE)
    feed.put(SILENCE)
    await asyncio.sleep(0)
    assert feed.encoded == encoded + 1
    assert not tracks[1]._items
    tracks[1].set_sending(True)
    assert paused == [1]
    feed.close()


async def say(feed: MicrophoneFeed, frames: Iterable[bytes]) -> None:
    for frame_pcm in frames:
        feed.put(frame_pcm[:BLOCK_BYTES])
        feed.put(frame_pcm[BLOCK_BYTES:])
        await asyncio.sleep(0)


async def test_copies_are_always_sent_and_follow_the_loss_that_peers_report() -> None:
    feed = MicrophoneFeed(asyncio.get_running_loop())
    tracks = [feed.track(), feed.track()]
    for track in tracks:
        track.set_sending(True)
    encoder = feed._encoder
    assert (encoder.loss, encoder.bit_rate) == (10, 40_000)
    await say(feed, itertools.islice(speech_like(), 40, 80))
    sent = [bytes(packet) for packet in tracks[0]._items]
    assert any(map(has_fec, sent)), "before any loss is known"
    tracks[1].loss_reported(0.12)
    assert encoder.loss == 15, "the worst path counts"
    for _ in range(10):
        tracks[1].loss_reported(0.0)
    assert encoder.loss == 10
    tracks[1].loss_reported(0.9)
    assert encoder.loss == 20
    tracks[1].set_sending(False)
    assert encoder.loss == 10, "of one that has left nothing is left"
    feed.close()


async def test_silence_is_sent_to_a_peer_unless_it_prefers_none() -> None:
    feed = MicrophoneFeed(asyncio.get_running_loop())
    plain, saving = feed.track(), feed.track()
    pauses: list[int] = []
    saving.on_pause = lambda: pauses.append(1)
    got: dict[str, int] = {"plain": 0, "saving": 0}
    plain.set_sending(True)
    saving.set_sending(True)
    saving.negotiated(OPUS, {"usedtx": "1", "maxaveragebitrate": "20000"})
    assert (feed._encoder.dtx, feed._encoder.bit_rate) == (True, 20_000)
    for _ in range(100):
        await say(feed, [SILENCE * 2])
        for name, track in (("plain", plain), ("saving", saving)):
            got[name] += len(track._items)
            track._items.clear()
    assert got["plain"] == 100
    assert got["saving"] < 25
    assert pauses
    saving.negotiated(OPUS, {"maxaveragebitrate": "nonsense"})
    assert (feed._encoder.dtx, feed._encoder.bit_rate) == (False, 40_000)
    feed.close()


async def test_each_session_gets_its_codec_and_one_that_nobody_needs_is_gone() -> None:
    feed = MicrophoneFeed(asyncio.get_running_loop())
    tracks = {name: feed.track() for name in ("audio/opus", "audio/pcmu", "audio/g722")}
    for name, track in tracks.items():
        track.negotiated(VOICE_CODECS[name], {})
        track.set_sending(True)
    await say(feed, itertools.islice(speech_like(), 3))
    sent = {name: [(packet.pts, packet.size) for packet in track._items] for name, track in tracks.items()}
    assert [size for _, size in sent["audio/pcmu"]] == [size for _, size in sent["audio/g722"]] == [160] * 3
    assert [pts - sent["audio/pcmu"][0][0] for pts, _ in sent["audio/pcmu"]] == [0, 160, 320]
    assert [pts - sent["audio/opus"][0][0] for pts, _ in sent["audio/opus"]] == [0, 960, 1920]
    assert (tracks["audio/pcmu"].bit_rate, tracks["audio/opus"].bit_rate) == (64_000, 40_000)
    tracks["audio/pcmu"].loss_reported(0.5)
    assert not tracks["audio/pcmu"].skips_silence
    tracks["audio/g722"].set_sending(False)
    assert list(feed._others) == [VOICE_CODECS["audio/pcmu"]]
    feed.close()
