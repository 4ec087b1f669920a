"""Looks at the camera itself: its small raw pictures, shared by all who look; and what is shown where it has none."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import av
import pytest
from PIL import Image

from appliance.media.camera import CameraFeed
from appliance.media.layout import SELF, Seat
from appliance.media.looks import LARGE, LINGER_S, NEXT_S, SMALL, Glimpses, Looks
from appliance.media.screen import Screen
from appliance.media.self_view import UNSHOWN, SelfView
from hw.api import EncodedFrame, EncoderKind, Fit, Picture, VideoMode
from hw.camera.x264 import H264Encoder
from tests.support.clock import virtual_time
from tests.support.media_board import HandDisplay
from tests.support.media_pair import until

MODE = VideoMode(320, 180, 30, 300_000)


class Camera:
    """Gives frames and pictures when the test does."""

    def __init__(self, encoder: EncoderKind = EncoderKind.HARDWARE) -> None:
        self.encoder = encoder
        self.mode: VideoMode | None = None
        self.sink: Callable[[EncodedFrame], None] | None = None
        self.looks: Callable[[Picture], None] | None = None
        self.sides: list[int] = []
        self.keys = 0
        self._taken = 0
        self._x264 = H264Encoder(MODE)

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.sink = sink
        return mode

    def request_keyframe(self) -> None:
        self.keys += 1
        self._x264.force_keyframe()

    def set_bitrate(self, bits_per_second: int) -> None: ...

    def set_mode(self, mode: VideoMode) -> None: ...

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None:
        self.looks = sink
        self.sides.append(side if sink is not None else 0)

    def stop(self) -> None:
        self.sink = None

    def take(self, luma: int = 128) -> None:
        """A frame, all of it so bright."""
        picture = av.VideoFrame(MODE.width, MODE.height, "yuv420p")
        for plane, level in zip(picture.planes, (luma, 128, 128), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        self._taken += 1
        unit = self._x264.encode(picture, self._taken * 33_333)
        if self.sink is not None and unit is not None:
            self.sink(unit)

    def show(self, luma: int) -> None:
        assert self.looks is not None
        self.looks(grey(luma))


def grey(luma: int) -> Picture:
    return Picture(320, 180, bytes([luma]) * (320 * 180) + bytes([128]) * (320 * 90))


@asynccontextmanager
async def mirror(camera: Camera) -> AsyncIterator[tuple[SelfView, CameraFeed, HandDisplay]]:
    """A view of oneself alone on the screen, of a camera that is open."""
    loop, display = asyncio.get_running_loop(), HandDisplay()
    with ThreadPoolExecutor(1) as executor:
        feed = CameraFeed(camera, MODE, loop, executor)
        feed.start()
        screen = Screen(display)
        screen.arrange([Seat(SELF)], [], Fit.FIT)
        view = SelfView(feed, screen, loop)
        feed.hold("test", True)
        await feed.settled()
        try:
            yield view, feed, display
        finally:
            await view.close()
            await feed.close()


def shown(display: HandDisplay) -> int | None:
    """Its luma."""
    found = [tile.picture for tile in display.tiles if tile.picture is not None]
    return found[0].i420[found[0].width * found[0].height // 2] if found else None


@virtual_time
async def test_oneself_is_shown_by_raw_pictures_and_nothing_is_decoded() -> None:
    camera = Camera()
    async with mirror(camera) as (view, feed, display):
        assert camera.sides == [], "nobody looks"
        view.show(SMALL)
        for luma in (40, 90, 140):
            camera.take()
            camera.show(luma)
            await asyncio.sleep(0.03)
            assert shown(display) == luma
        assert not view.decodes
        view.show(1280)
        view.show(SMALL)
        assert camera.sides == [SMALL, LARGE, SMALL], "as large as it is on the screen"
        feed.hold("test", False)
        await feed.settled()
        assert shown(display) is None, "the camera is closed"
        feed.hold("test", True)
        await feed.settled()
        camera.show(50)
        await asyncio.sleep(0.03)
        assert shown(display) == 50
        view.show(0)
        assert camera.looks is None
        assert shown(display) is None


@virtual_time
async def test_of_a_camera_that_brings_no_raw_picture_what_it_sends_is_decoded_until_one_comes() -> None:
    camera = Camera()
    async with mirror(camera) as (view, _feed, display):
        view.show(SMALL)
        keys = camera.keys
        for _ in range(UNSHOWN):
            camera.take()
            await asyncio.sleep(0.1)
            assert not view.decodes
        camera.take()
        await asyncio.sleep(1.0)
        assert view.decodes
        assert camera.keys > keys, "a decoder begins with one"
        camera.show(77)
        camera.take()
        await asyncio.sleep(0.1)
        assert not view.decodes
        assert shown(display) == 77


async def test_of_a_camera_that_encodes_by_itself_what_it_sends_is_decoded_at_once() -> None:
    camera = Camera(EncoderKind.CAMERA)
    async with mirror(camera) as (view, _feed, display):
        view.show(SMALL)

        def seen(luma: int) -> bool:
            camera.take(luma)
            return abs((shown(display) or 0) - luma) < 8

        await until(lambda: seen(60))
        await until(lambda: seen(200))
        assert view.decodes
        camera.encoder = EncoderKind.HARDWARE  # in another size it is encoded here, and has raw pictures
        camera.show(99)
        camera.take(200)
        await until(lambda: not view.decodes)
        camera.show(99)
        await until(lambda: shown(display) == 99)


@virtual_time
async def test_all_who_look_have_the_newest_and_the_largest_is_asked_for() -> None:
    camera, seen = Camera(), dict[str, list[int]](one=[], other=[])
    looks = Looks(camera, asyncio.get_running_loop())
    looks.begin("one", lambda picture: seen["one"].append(picture.i420[0]))
    looks.begin("other", lambda picture: seen["other"].append(picture.i420[0]), LARGE)
    for luma in (1, 2, 3):
        camera.show(luma)  # before the loop has time for any
    await asyncio.sleep(0)
    assert seen == {"one": [3], "other": [3]}
    late = camera.looks
    looks.end("other")
    assert late is not None
    late(grey(4))  # on its way when another size was asked for
    camera.show(5)
    await asyncio.sleep(0)
    looks.end("one")
    looks.end("one")
    assert seen == {"one": [3, 5], "other": [3]}
    assert camera.sides == [SMALL, LARGE, SMALL, 0]


@virtual_time
async def test_a_glimpse_is_the_newest_as_jpeg_and_nobody_looks_when_nobody_asks() -> None:
    camera, loop = Camera(), asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        glimpses = Glimpses(Looks(camera, loop), loop, executor)
        for luma in (60, 180):
            asked = asyncio.create_task(glimpses.take())
            await asyncio.sleep(0.3)
            camera.show(luma)
            jpeg = await asked
            assert jpeg is not None
            image = Image.open(io.BytesIO(jpeg))
            assert image.size == (320, 180)
            full = (luma - 16) * 255 / 219  # JPEG has the full range
            assert abs(image.convert("L").getpixel((160, 90)) - full) < 4
            assert await glimpses.take() == jpeg, "none is newer"
            await asyncio.sleep(0.3)
        assert camera.sides == [LARGE]
        await asyncio.sleep(LINGER_S + 0.1)
        assert camera.sides == [LARGE, 0]
        asked_at = loop.time()
        assert await glimpses.take() is None, "none comes"
        assert loop.time() - asked_at == pytest.approx(NEXT_S)
        waiting = asyncio.create_task(glimpses.take())
        await asyncio.sleep(0.1)
        glimpses.close()
        assert await waiting is None
        camera.encoder = EncoderKind.RECORDED
        assert await glimpses.take() is None
        assert camera.sides == [LARGE, 0, LARGE, 0]
