"""What the studio tells of itself is what it does: no look through the camera in the dark, no deaf meter."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from PIL import Image

from appliance.media import camera as camera_module
from appliance.media.acoustics import Override
from appliance.media.api import Directions, IceServers
from appliance.media.canceller import NoiseSuppression
from appliance.media.ladder import Constraints
from appliance.media.layout import SELF, Seat
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from hw.api import (
    DeviceBusyError,
    DeviceFact,
    DeviceMissingError,
    EncoderKind,
    Fit,
    HardwareError,
    Kind,
    VideoMode,
)
from tests.support.media_board import HandAudio, HandBoard, HandCamera
from tests.support.media_pair import connect, until


@pytest.fixture
def board() -> HandBoard:
    return HandBoard()


@pytest.fixture
async def studio(board: HandBoard) -> AsyncIterator[Studio]:
    made = Studio(board, VideoSettings())
    await made.open()
    yield made
    await made.close()


def _open(studio: Studio) -> bool:
    return bool(studio.state()["video"]["actual"]["open"])


async def test_a_snapshot_is_told_as_an_open_camera_while_it_lasts_and_long_enough_to_be_noticed(
        board: HandBoard, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "SEEN_S", 0.5)
    told: list[bool] = []
    camera = board.camera
    assert camera is not None
    shoot = camera.snapshot
    monkeypatch.setattr(camera, "snapshot", lambda: (told.append(_open(studio)), shoot())[1])
    begun = asyncio.get_running_loop().time()
    assert (await studio.snapshot()).startswith(b"\xff\xd8")
    assert told == [True], "open before the first picture"
    await until(lambda: not _open(studio), 10, "the camera is let go")
    assert asyncio.get_running_loop().time() - begun >= 0.5
    await until(lambda: not camera.running)


async def test_who_polls_snapshots_keeps_the_camera_told_as_open(
        board: HandBoard, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "SEEN_S", 5.0)
    await asyncio.gather(studio.snapshot(), studio.snapshot())
    await studio.snapshot()
    assert _open(studio)
    assert board.camera is not None
    assert board.camera.starts == 1
    await studio.close()
    assert not board.camera.running, "the end of the appliance waits for no lamp"
    with pytest.raises(HardwareError):
        await studio.snapshot()


async def test_a_stream_of_pictures_is_of_raw_ones_and_of_snapshots_where_there_are_none(
        board: HandBoard, studio: Studio) -> None:
    camera = board.camera
    assert camera is not None
    assert Image.open(io.BytesIO(await studio.preview())).size == (160, 96)
    assert _open(studio), "told as a look"
    camera.encoder = EncoderKind.CAMERA
    assert Image.open(io.BytesIO(await studio.preview())).size == (640, 360)


async def test_oneself_is_asked_for_as_large_as_it_is_on_the_screen(board: HandBoard, studio: Studio) -> None:
    camera, whole = board.camera, Seat(SELF)
    assert camera is not None
    await studio.warm_camera(True)
    for seats, side in (([replace(whole, w=0.25, h=0.25)], 320), ([whole], 640), ([], 320)):
        studio.arrange(seats, [], Fit.FIT, {})
        assert (camera.looks is not None, camera.side) == (bool(seats), side)
    studio.arrange([whole], [], Fit.FIT, {})
    assert board.display is not None
    seen = board.display.pictures
    await until(lambda: len(seen) >= 3)
    assert {(picture.width, picture.height) for picture in seen} == {(160, 96)}


class _Busy(HandCamera):
    def start(self, mode: VideoMode, sink: object) -> VideoMode:
        raise DeviceBusyError("held by cheese (pid 7)")


async def test_a_camera_that_cannot_be_opened_gives_no_picture(board: HandBoard) -> None:
    board.camera = _Busy()
    studio = Studio(board, VideoSettings())
    await studio.open()
    try:
        with pytest.raises(HardwareError, match="cheese"):
            await studio.snapshot()
    finally:
        await studio.close()


async def test_the_meter_hears_the_microphone_while_it_is_muted(studio: Studio) -> None:
    studio.mute(True)
    await until(lambda: studio.levels()[0] > 0.1, what="the microphone")
    assert studio.state()["audio"]["actual"]["sending"] is False


async def test_a_device_that_is_not_there_is_told_in_the_state(board: HandBoard, studio: Studio) -> None:
    assert studio.state()["video"].get("reason") is None
    board.devices = lambda: (  # type: ignore[method-assign]
        DeviceFact(Kind.CAMERA, "cam0", "Front camera", present=False),
        DeviceFact(Kind.MICROPHONE, "mic0", "Front microphone", present=False),
        DeviceFact(Kind.SPEAKER, "spk1", "Spare loudspeaker", present=False, used=False),
    )
    state = studio.state()
    assert (state["video"]["reason"], state["audio"]["reason"]) == (
        "Front camera is not there", "Front microphone is not there; Spare loudspeaker is not there")
    assert not state["video"]["actual"]["open"]
    assert studio.lacks_for_measuring() == "Front microphone is not there; plug one in, or free it"
    board.devices = lambda: ()  # type: ignore[method-assign]
    assert board.audio is not None
    board.audio.volume = 0
    assert "volume is 0" in studio.lacks_for_measuring()


class _Gone(HandAudio):
    def start(self, rate: int, block_ms: int, exchange: object) -> None:
        raise DeviceMissingError("unplugged")


async def test_without_a_sound_device_silence_leaves_and_is_not_cleaned(
        board: HandBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop stands in for the device's thread then, and has better to do."""
    board.audio = _Gone()
    deaf, far = Studio(board, VideoSettings()), Studio(HandBoard(camera=False), VideoSettings())
    cleaned: list[bytes] = []

    def process(heard: bytes, played: bytes) -> bytes:
        cleaned.append(heard)
        return heard

    monkeypatch.setattr(deaf.acoustics.voice, "process", process)
    await asyncio.gather(deaf.open(), far.open())
    try:
        await deaf.acoustics.override(Override(ns=NoiseSuppression.HIGH))
        session, peer = (one.session(Directions(), ice=IceServers(), loopback=True) for one in (deaf, far))
        await connect(session, peer)

        await until(lambda: session.sending[0], 20)
        leaving = deaf.tap_microphone()
        for _ in range(20):
            assert not any((await anext(leaving)).pcm)
        assert deaf.acoustics.voice.settled
        assert deaf.acoustics.voice.active, "what is wanted is in force for the device that comes"
        assert not cleaned
    finally:
        await asyncio.gather(deaf.close(), far.close())


async def test_what_limits_come_to_stands_in_the_state(
        board: HandBoard, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert board.camera is not None
    monkeypatch.setattr(board.camera, "encoder", EncoderKind.HARDWARE)
    studio.constrain(Constraints(send_height=1, receive_bitrate=200_000))
    limits = studio.state()["video"]["limits"]
    assert limits == studio.limits()
    assert (limits["send"]["frameHeight"], limits["inForce"]["send"]["frameHeight"]) == (1, 180)
    assert limits["inForce"]["recv"] == {"maxBitrate": 200_000}
    monkeypatch.setattr(board.camera, "encoder", EncoderKind.RECORDED)
    assert "send" not in studio.limits()["inForce"], "pictures that come encoded are not changed"
