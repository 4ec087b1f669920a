"""What leaves: key frames asked for in measure, overflow begins again with a key frame, one encoder for all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from appliance.media.camera import KEY_INTERVAL_S, RETRY_S, VIDEO_QUEUE, CameraFeed
from appliance.media.ladder import Constraints
from appliance.media.microphone import MicrophoneFeed
from appliance.media.opus import has_fec
from appliance.media.quality_limit import Limit
from appliance.media.sound import BLOCK_BYTES, SILENCE
from appliance.media.voice_codecs import OPUS, VOICE_CODECS
from hw.api import DeviceBusyError, EncodedFrame, EncoderKind, Picture, VideoMode
from tests.support.clock import virtual_time
from tests.support.media_pair import until
from tests.support.voice_path import speech_like


class Camera:
    """Remembers what is asked; frames are pushed by the test."""

    encoder = EncoderKind.HARDWARE

    def __init__(self) -> None:
        self.keys = 0
        self.bitrates: list[int] = []
        self.modes: list[VideoMode] = []
        self.mode: VideoMode | None = None
        self.sink: Callable[[EncodedFrame], None] | None = None
        self.broken = ""
        self.defect: Exception | None = None
        self.starts = 0

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.starts += 1
        if self.broken:
            raise DeviceBusyError(self.broken)
        if self.defect is not None:
            raise self.defect
        self.sink = sink
        return mode

    def request_keyframe(self) -> None:
        self.keys += 1

    def set_bitrate(self, bits_per_second: int) -> None:
        self.bitrates.append(bits_per_second)

    def set_mode(self, mode: VideoMode) -> None:
        self.modes.append(mode)
        self.mode = mode

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...

    def stop(self) -> None:
        self.sink = None


@pytest.fixture
def camera() -> Camera:
    return Camera()


@asynccontextmanager
async def feeding(camera: Camera) -> AsyncIterator[CameraFeed]:
    executor = ThreadPoolExecutor(1)
    made = CameraFeed(camera, VideoMode(), asyncio.get_running_loop(), executor)
    made.start()
    try:
        yield made
    finally:
        await made.close()
        executor.shutdown()
    assert camera.sink is None


@pytest.fixture
async def feed(camera: Camera) -> AsyncIterator[CameraFeed]:
    async with feeding(camera) as made:
        yield made


def frame(number: int, key: bool = False, size: int = 1000) -> EncodedFrame:
    return EncodedFrame(bytes(size), number * 33_333, key)


@virtual_time
async def test_the_camera_is_open_only_while_somebody_needs_it(camera: Camera) -> None:
    async with feeding(camera) as feed:
        track = feed.track()
        assert camera.starts == 0
        track.set_sending(True)
        await until(lambda: feed.mode is not None)
        feed.hold("warm", True)
        track.set_sending(False)
        await asyncio.sleep(10)
        assert camera.sink is not None
        feed.hold("warm", False)
        await until(lambda: camera.sink is None)


@virtual_time
async def test_key_frames_are_limited_over_all_sessions_and_none_is_lost(camera: Camera) -> None:
    async with feeding(camera) as feed:
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
        await asyncio.sleep(KEY_INTERVAL_S - 0.01)
        assert camera.keys == 2
        await asyncio.sleep(0.02)
        assert camera.keys == 3
        await asyncio.sleep(10)
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


async def test_the_narrowest_session_sets_size_and_bitrate(feed: CameraFeed, camera: Camera) -> None:
    tracks = [feed.track(), feed.track()]
    for track in tracks:
        track.set_sending(True)
    await until(lambda: feed.mode is not None)
    tracks[0].allocate(900_000)
    tracks[1].allocate(600_000)
    tracks[1].allocate(590_000)  # too small a change to bother the encoder
    assert camera.bitrates == [900_000, 600_000]
    assert camera.modes == []
    tracks[1].set_sending(False)
    assert camera.bitrates[-1] == 900_000
    tracks[0].allocate(100_000)  # far below: not a moment longer at this size
    assert [(mode.height, mode.fps, mode.bitrate) for mode in camera.modes] == [(240, 15, 100_000)]
    assert feed.mode == camera.modes[-1]
    tracks[0].allocate(5_000_000)
    assert camera.bitrates[-1] == 1_500_000
    assert len(camera.modes) == 1, "larger only when it has been enough for a while"


async def test_a_picture_that_pauses_narrows_nobody_and_begins_again_with_a_key_frame(
    feed: CameraFeed, camera: Camera
) -> None:
    thin, wide = feed.track(), feed.track()
    thin.set_sending(True)
    wide.set_sending(True)
    await until(lambda: feed.mode is not None)
    wide.allocate(1_200_000)
    thin.allocate(60_000)
    assert camera.modes[-1].height == 180
    assert wide.quality.reason is Limit.BANDWIDTH
    wide.allocate(2_000_000)
    assert wide.quality.reason is Limit.OTHER, "one encoder serves both"
    thin.allocate(None)
    assert thin.paused
    assert thin.quality.reason is Limit.BANDWIDTH
    assert wide.quality.reason is Limit.OTHER, "its size is still that of the narrow one"
    assert camera.bitrates[-1] == 1_500_000
    for track in (thin, wide):
        track.push(frame(0, key=True))
    assert not thin.waiting
    assert wide.waiting
    wide.allocate(None)
    assert camera.bitrates[-1] == camera.modes[-1].bitrate or camera.modes[-1].height == 180
    keys = camera.keys
    thin.allocate(100_000)
    await until(lambda: camera.keys > keys, what="a key frame for the one that begins again")
    thin.push(frame(1))
    assert not thin.waiting
    thin.push(frame(2, key=True))
    assert thin.waiting
    assert thin.quality.durations(asyncio.get_running_loop().time())["bandwidth"] > 0


@virtual_time
async def test_why_a_picture_is_small_is_told_until_it_is_large_again_and_both_changes_count() -> None:
    loop, camera = asyncio.get_running_loop(), Camera()
    with ThreadPoolExecutor(1) as executor:
        feed = CameraFeed(camera, VideoMode(), loop, executor)
        feed.start()
        track = feed.track()
        track.set_sending(True)
        await feed.settled()
        track.allocate(3_000_000)
        await asyncio.sleep(5)
        track.allocate(400_000)
        await asyncio.sleep(1)
        track.allocate(400_000)
        assert camera.modes[-1].height == 540
        assert track.quality.reason is Limit.BANDWIDTH
        while camera.modes[-1].height < 720:
            track.allocate(3_000_000)
            assert track.quality.reason is (Limit.BANDWIDTH if camera.modes[-1].height < 720 else Limit.NONE)
            await asyncio.sleep(0.1)
        assert track.quality.resolution_changes == 2
        feed.constrain(Constraints(send_height=360))
        assert track.quality.resolution_changes == 2, "wanted"
        durations = track.quality.durations(loop.time())
        assert durations["none"] == pytest.approx(5, abs=0.2)
        assert durations["bandwidth"] == pytest.approx(2, abs=0.2)
        await feed.close()


async def test_a_key_frame_overtakes_what_waits_for_a_slow_path(feed: CameraFeed) -> None:
    track = feed.track()
    track.set_sending(True)
    await until(lambda: feed.mode is not None)
    track.push(frame(0, key=True))
    for number in range(1, 4):
        track.push(frame(number))
    track.push(frame(4, key=True))
    assert track.waiting == 1
    assert (await track.recv()).is_keyframe
    assert track.dropped == 4


async def test_limits_that_are_asked_for_are_obeyed_at_once_and_given_up(feed: CameraFeed, camera: Camera) -> None:
    track = feed.track()
    track.set_sending(True)
    await until(lambda: feed.mode is not None)
    track.allocate(3_000_000)
    feed.constrain(Constraints(send_height=400, send_fps=15, send_bitrate=400_000))
    assert camera.modes[-1] == VideoMode(640, 360, 15, 400_000)
    assert track.quality.reason is Limit.NONE, "wanted, not suffered"
    feed.constrain(Constraints())
    assert camera.modes[-1] == VideoMode()


async def test_pictures_that_come_encoded_are_left_alone(feed: CameraFeed, camera: Camera) -> None:
    camera.encoder = EncoderKind.RECORDED
    track = feed.track()
    track.set_sending(True)
    await until(lambda: feed.mode is not None)
    track.allocate(100_000)
    assert camera.modes == []
    assert camera.bitrates == []


@virtual_time
async def test_a_busy_camera_is_told_and_tried_again_ever_more_rarely(camera: Camera) -> None:
    async with feeding(camera) as feed:
        camera.broken = "/dev/video0 is held by cheese (pid 7)"
        feed.hold("warm", True)
        await feed.settled()
        assert "cheese" in feed.fault
        await asyncio.sleep(0.01)
        for tries, pause in enumerate(RETRY_S, 1):
            await asyncio.sleep(pause - 0.02)
            assert camera.starts == tries
            await asyncio.sleep(0.02)
            assert camera.starts == tries + 1
        await asyncio.sleep(10 * RETRY_S[-1])
        assert camera.starts == len(RETRY_S) + 1 + 10
        camera.broken = ""
        await asyncio.sleep(RETRY_S[-1])
        assert feed.mode is not None
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


async def test_who_wants_a_camera_that_closes_does_not_hold_up_the_loop(camera: Camera) -> None:
    executor = ThreadPoolExecutor(1)
    feed = CameraFeed(camera, VideoMode(), asyncio.get_running_loop(), executor)
    feed.start()
    feed.hold("warm", True)
    await feed.settled()
    closing = asyncio.create_task(feed.close())
    await asyncio.sleep(0)
    feed.track().set_sending(True)
    feed.hold("late", True)
    await closing
    assert camera.sink is None
    executor.shutdown()


async def test_a_defect_of_the_board_is_told_and_nobody_waits_for_it(
    camera: Camera, caplog: pytest.LogCaptureFixture
) -> None:
    executor = ThreadPoolExecutor(1)
    feed = CameraFeed(camera, VideoMode(), asyncio.get_running_loop(), executor)
    feed.start()
    camera.defect = LookupError("no such sensor")
    feed.hold("warm", True)
    async with asyncio.timeout(1):
        await feed.settled()
        assert feed.mode is None
        assert feed.fault == "LookupError: no such sensor"
        assert "this is a defect" in caplog.text
        feed.hold("warm", False)
        await feed.settled()
        await feed.close()
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
    assert not encoder.dtx, "one bad second"
    for _ in range(10):
        tracks[1].loss_reported(0.3)
    assert encoder.dtx, "a bad path is spared what is silent"
    tracks[1].set_sending(False)
    assert encoder.loss == 10, "of one that has left nothing is left"
    feed.close()


async def test_a_thin_path_gets_a_thinner_voice() -> None:
    feed = MicrophoneFeed(asyncio.get_running_loop())
    track = feed.track()
    track.set_sending(True)
    rates = []
    for carried in (1e6, 150_000, 120_000, 150_000, 200_000):
        track.path(carried)
        rates.append(track.bit_rate)
    assert rates == [40_000, 40_000, 24_000, 24_000, 40_000]
    track.path(100_000)
    track.set_sending(False)
    assert feed.bit_rate == 40_000, "of one that has left nothing is left"
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
