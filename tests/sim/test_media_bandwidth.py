"""A call through a path that becomes thin and wide again: what is sent follows, and the sound is not hurt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from appliance.media.api import Directions
from appliance.media.ladder import Constraints
from hw.api import EncodedFrame, EncoderKind, Picture, VideoMode
from tests.support.impair import Conditions, Relay, relay
from tests.support.media_board import HandBoard
from tests.support.media_pair import End, pair, until

FAR = Conditions(delay_s=0.02)
KEY = b"\0\0\0\1\x67" + b"s" * 20 + b"\0\0\0\1\x68" + b"p" * 5 + b"\0\0\0\1\x65"
DELTA = b"\0\0\0\1\x41"


class LoadCamera:
    """Makes access units of exactly the size asked for, and nothing that could be seen in them."""

    encoder = EncoderKind.HARDWARE

    def __init__(self) -> None:
        self.mode: VideoMode | None = None
        self.modes: list[VideoMode] = []
        self._key = True
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.mode = mode
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(sink,), name="hw.camera", daemon=True)
        self._thread.start()
        return mode

    def request_keyframe(self) -> None:
        self._key = True

    def set_bitrate(self, bits_per_second: int) -> None:
        assert self.mode is not None
        self.mode = VideoMode(self.mode.width, self.mode.height, self.mode.fps, bits_per_second)

    def set_mode(self, mode: VideoMode) -> None:
        self.modes.append(mode)
        self.mode, self._key = mode, True

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1)
            self._thread = None
        self.mode = None

    def _run(self, sink: Callable[[EncodedFrame], None]) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            mode = self.mode
            if mode is None:
                return
            due += 1 / mode.fps
            key, self._key = self._key, False
            size = mode.bitrate // 8 // mode.fps * (3 if key else 1)
            data = (KEY if key else DELTA) + b"U" * size
            sink(EncodedFrame(data, time.monotonic_ns() // 1000, key))


class LoadBoard(HandBoard):
    def __init__(self) -> None:
        super().__init__(440)
        self.load = LoadCamera()
        self.camera = self.load  # type: ignore[assignment]


async def arrived(between: Relay, seconds: float) -> float:
    """Bits per second that got through to the right, headers included."""
    before, began = between.left_to_right.counters.arrived_bytes, time.monotonic()
    await asyncio.sleep(seconds)  # what is measured takes its time
    return (between.left_to_right.counters.arrived_bytes - before) * 8 / (time.monotonic() - began)


def sound(caller: End, callee: End) -> tuple[int, int]:
    """Packets of sound that left, and that arrived. How many leave is the encoder's: a tone may pass for silence."""
    return (caller.session.outgoing["audio"].counters.packets, callee.session.incoming["audio"].counters.packets)


def share_heard(before: tuple[int, int], now: tuple[int, int]) -> float:
    return (now[1] - before[1]) / (now[0] - before[0])


async def test_a_cap_is_used_and_left_behind_and_the_sound_goes_on() -> None:
    board = LoadBoard()
    wanted = Directions(receive_video=False)  # there is nothing to decode
    async with relay(FAR) as between, pair(first=board, between=between, wanted=wanted) as (caller, callee):
        await until(lambda: (caller.session.transmission.available_bps or 0) > 1_500_000, 10, "the full rate")
        full = await arrived(between, 2)
        between.change(left_to_right=Conditions(delay_s=0.02, rate_bps=700_000, queue_ms=250))
        await asyncio.sleep(3)  # settled by then
        heard = sound(caller, callee)
        capped = await arrived(between, 5)
        assert 0.75 * 700_000 < capped <= 1.02 * 700_000
        assert share_heard(heard, sound(caller, callee)) > 0.97
        assert board.load.mode is not None
        assert board.load.mode.bitrate < 650_000
        reason = {entry["id"]: entry for entry in await caller.session.stats()}["out-video"]
        assert reason["qualityLimitationReason"] == "bandwidth"
        assert reason["qualityLimitationDurations"]["bandwidth"] > 4
        between.change(left_to_right=FAR)
        began = time.monotonic()
        while await arrived(between, 1) < 0.9 * full:
            assert time.monotonic() - began < 12, "back within 10 s"
        assert caller.session.outgoing["video"].counters.padding_packets > 0, "found by a probe"


async def test_below_the_last_step_the_picture_pauses_and_comes_back() -> None:
    board = LoadBoard()
    wanted = Directions(receive_video=False)
    async with relay(FAR) as between, pair(first=board, between=between, wanted=wanted) as (caller, callee):
        frames = caller.session.outgoing["video"].counters
        await until(lambda: frames.frames > 30, 10, "frames")
        between.change(left_to_right=Conditions(delay_s=0.02, rate_bps=90_000, queue_ms=250))
        await until(lambda: caller.session.video_paused, 20, "a pause")  # after 4 to 9 s, step by step
        assert board.load.modes[-1].height == 180
        assert caller.studio.state()["video"]["paused"] == 1
        await asyncio.sleep(2)  # the queue is empty by then
        heard, sent = sound(caller, callee), frames.frames
        await asyncio.sleep(3)
        assert share_heard(heard, sound(caller, callee)) > 0.95
        assert frames.frames == sent
        between.change(left_to_right=FAR)
        await until(lambda: not caller.session.video_paused and frames.frames > sent + 10, 15, "the picture again")


async def test_limits_are_obeyed_both_ways() -> None:
    boards = LoadBoard(), LoadBoard()
    wanted = Directions(receive_video=False)
    async with relay(FAR) as between, pair(
        first=boards[0], second=boards[1], between=between, wanted=wanted
    ) as (caller, callee):
        await until(lambda: (callee.session.transmission.available_bps or 0) > 1_000_000, 10, "the full rate")
        limits = Constraints(send_height=360, send_fps=15, send_bitrate=400_000, receive_bitrate=500_000)
        caller.studio.constrain(limits)
        assert boards[0].load.modes[-1] == VideoMode(640, 360, 15, 400_000)
        await until(lambda: callee.session.transmission.target_bps <= 500_000, 5, "told to the peer")
        await until(lambda: boards[1].load.mode is not None and boards[1].load.mode.bitrate < 500_000, 5)
        await asyncio.sleep(1)
        assert await arrived(between, 2) < 1.1 * 400_000 + 100_000, "with the sound and all headers"
        caller.studio.constrain(Constraints())
        assert replace(boards[0].load.modes[-1], bitrate=VideoMode().bitrate) == VideoMode()
        await until(lambda: callee.session.transmission.target_bps > 1_000_000, 5, "lifted")
