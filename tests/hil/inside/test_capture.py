"""An HDMI input on nodes of the kernel, beside a camera: what is connected there is simulated by ``vivid``."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from hw.api import DeviceBusyError, DeviceMissingError, FaultKind, Kind, SharedSource, VideoMode
from hw.pi import dv
from hw.pi.camera.captures import PiCaptures
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera
from hw.pi.camera.usb import find_hdmi, find_usb
from hw.pi.v4l2 import Node
from tests.hil.devices import Encoder, H264Camera, camera
from tests.hil.seen import Seen, luma, pictures

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=3"]

HDMI = "platform-vivid.0"
MODE = VideoMode(1280, 720, 5, 600_000)

SIGNAL_MODE: Final = 0xF0F000 + 62
"""VIVID_CID_DV_TIMINGS_SIGNAL_MODE of vivid-ctrls.c; its values, and the timings that can be selected, follow."""
GOOD, NOTHING, NO_LOCK, TOO_FAST, SELECTED = range(5)
TIMINGS: Final = SIGNAL_MODE + 1


class Hdmi:
    """What is connected to the input."""

    def __init__(self) -> None:
        (self.input,) = find_hdmi()

    def set(self, mode: int, timings: int = 0) -> None:
        with Node(self.input.path) as node:
            if mode == SELECTED:
                node.set_control(TIMINGS, timings)
            node.set_control(SIGNAL_MODE, mode)


@pytest.fixture
def hdmi() -> Iterator[Hdmi]:
    one = Hdmi()
    yield one
    if not camera().plugged:
        camera().plug()
    one.set(GOOD)


@pytest.fixture
def board() -> Iterator[Seen]:
    seen = Seen()
    yield seen
    seen.line.close()


@pytest.fixture
def captures(board: Seen) -> PiCaptures:
    return PiCaptures(lambda: (), board.line)


@pytest.fixture
def shown(captures: PiCaptures, hdmi: Hdmi) -> Iterator[tuple[SharedSource, Seen]]:
    own, one = Seen(), captures.capture(HDMI)
    one.on_fault(own._fault)
    yield one, own
    one.close()
    own.line.close()


def looks(own: Seen, right: Callable[[int], bool], x: float = 0.5) -> Callable[[], bool]:
    """Whether the newest picture is so in the middle of its height."""

    def judge() -> bool:
        shown = pictures(list(own.frames))
        return bool(shown) and right(luma(shown[-1], x, 0.5))

    return judge


@pytest.fixture
def webcam() -> Iterator[str]:
    """Id of a camera beside it."""
    hands = H264Camera()
    hands.plug(camera_h264=0)
    yield next(one.id for one in find_usb() if one.id != HDMI)
    hands.unplug()
    Encoder().calm()


def test_it_is_the_last_camera_and_told_as_what_it_is(captures: PiCaptures, webcam: str) -> None:
    assert [one.id for one in find_usb()] == [webcam, HDMI]
    (fact,) = captures.devices()
    assert (fact.kind, fact.id, fact.present, fact.used) == (Kind.CAPTURE, HDMI, True, False)
    with pytest.raises(DeviceMissingError, match=f"{HDMI}, {webcam}"):
        captures.capture("usb-1-1:1.0")


def test_it_is_shown_beside_the_camera(captures: PiCaptures, board: Seen, hdmi: Hdmi, webcam: str) -> None:
    filmed, own = Seen(), Seen()
    film = PiCamera(CameraConfig(encoder="software"), filmed.line)
    try:
        film.start(VideoMode(320, 180, 15, 200_000), filmed.frame)
        filmed.more(5)
        with pytest.raises(DeviceBusyError, match="choose another camera"):
            PiCaptures(film.devices, board.line).capture(webcam)
        one = captures.capture(HDMI)
        try:
            with pytest.raises(DeviceBusyError, match="shown already"):
                captures.capture(HDMI)
            assert [fact.used for fact in captures.devices()] == [True]
            one.start(MODE, own.frame)
            frames = own.more(10)
            rate = 9e6 / (frames[9].pts_us - frames[0].pts_us)
            print(f"{rate:.1f} pictures a second")
            assert rate < 6.5  # thinned out; how many the guest makes of them is told by how busy the machine is
            assert {(each.width, each.height) for each in pictures(own.frames)} == {(1280, 720)}
            filmed.more(5)
        finally:
            one.close()
        assert [fact.used for fact in captures.devices()] == [False]
        captures.capture(HDMI).close()
    finally:
        film.close()
        filmed.line.close()
        own.line.close()


def test_a_camera_that_is_not_in_use_is_shown_too(captures: PiCaptures, webcam: str) -> None:
    own, one = Seen(), captures.capture(webcam)
    try:
        one.start(MODE, own.frame)
        own.more(5)
    finally:
        one.close()
        own.line.close()


@pytest.mark.parametrize(("mode", "words"), [(NOTHING, "sends nothing"), (NO_LOCK, "not stable"),
                                             (TOO_FAST, "choose 1280x720")])
def test_no_signal_is_told_black_and_over_when_it_comes_back(
    shown: tuple[SharedSource, Seen], board: Seen, hdmi: Hdmi, mode: int, words: str,
) -> None:
    one, own = shown
    one.start(MODE, own.frame)
    own.until(looks(own, lambda grey: grey > 30, 0.1))
    hdmi.set(mode)
    board.until(board.told(FaultKind.NO_SIGNAL, True))
    assert (board.faults[-1].kind, board.faults[-1].device) == (Kind.CAPTURE, HDMI)
    assert words in board.faults[-1].detail
    own.until(looks(own, lambda grey: grey < 24, 0.1))
    own.more(5)  # it goes on
    hdmi.set(GOOD)
    board.until(board.told(FaultKind.NO_SIGNAL, False))
    own.until(looks(own, lambda grey: grey > 30, 0.1))
    assert not {fault.fault for fault in own.faults} & {FaultKind.PULLED, FaultKind.MISSING, FaultKind.FAILED,
                                                        FaultKind.BUSY}  # which would end it


def test_one_that_has_no_signal_at_first_is_shown_when_it_comes(
    shown: tuple[SharedSource, Seen], board: Seen, hdmi: Hdmi,
) -> None:
    one, own = shown
    hdmi.set(NOTHING)
    one.start(MODE, own.frame)
    board.until(board.told(FaultKind.NO_SIGNAL, True))
    own.more(3)
    hdmi.set(GOOD)
    own.until(looks(own, lambda grey: grey > 30, 0.1))


def test_another_size_is_taken_as_it_comes(shown: tuple[SharedSource, Seen], hdmi: Hdmi) -> None:
    one, own = shown
    one.start(MODE, own.frame)
    own.until(looks(own, lambda grey: grey > 30, 0.1))
    hdmi.set(SELECTED, 0)  # 640x480: bars at the sides
    own.until(looks(own, lambda grey: grey < 24, 0.05), 15.0)
    own.until(looks(own, lambda grey: grey > 30, 0.2))
    assert pictures(own.frames)[-1].width == 1280


def test_a_pull_is_told(shown: tuple[SharedSource, Seen], hdmi: Hdmi) -> None:
    one, own = shown
    one.start(MODE, own.frame)
    own.more(3)
    camera().unplug()
    own.until(own.told(FaultKind.PULLED, True), 5.0)
    assert "unplugged" in own.faults[-1].detail


def test_one_without_an_edid_is_given_ours(hdmi: Hdmi) -> None:
    with Node(hdmi.input.path) as node:
        node.call(dv._S_EDID, dv._Edid(blocks=0))
        data = ctypes.create_string_buffer(128)
        with pytest.raises(OSError) as none:
            node.call(dv._G_EDID, dv._Edid(blocks=1, edid=ctypes.addressof(data)))
        assert none.value.errno == errno.ENODATA
        dv.describe_ourselves(node)
        node.call(dv._G_EDID, dv._Edid(blocks=1, edid=ctypes.addressof(data)))
    assert data.raw == dv.edid()
