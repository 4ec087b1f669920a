"""Pictures that the encoder reads where the camera put them (DMABUF), and copies where it does not."""

from __future__ import annotations

import io
import mmap
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from hw.api import EncoderKind, FaultKind, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera, open_camera
from hw.pi.camera.usb import UsbSensor, find_usb
from hw.pi.encoder.ladder import AGAIN_S
from hw.pi.shot import Shot
from tests.hil.devices import Encoder, camera
from tests.hil.machine import Machine
from tests.hil.seen import Seen, longest_gap_s, luma, newest, pictures

MODULES = ["hilenc", "vivid n_devs=1 node_types=0x1"]

MODE = VideoMode(640, 360, 30, 1_000_000)
SMALL = VideoMode(320, 180, 30, 300_000)


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.line.close()


@pytest.fixture
def opened(seen: Seen) -> Iterator[Callable[..., PiCamera]]:
    Encoder().calm()
    cameras: list[PiCamera] = []

    def make(config: CameraConfig | None = None) -> PiCamera:
        one = open_camera(config or CameraConfig(), seen.line)
        assert one is not None
        cameras.append(one)
        seen.until(lambda: one.cameras, 20.0)
        return one

    yield make
    Encoder().calm()
    for one in cameras:
        one.close()
    if not camera().plugged:
        camera().plug()


def imported(seen: Seen, count: int = 20) -> int:
    """How many pictures the encoder read from memory of others while ``count`` new ones were taken and delivered."""
    before = Encoder()["imported"]
    seen.newer(count)
    return Encoder()["imported"] - before


def test_pictures_are_read_where_the_camera_put_them(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened()
    one.start(MODE, seen.frame)
    seen.more(5)
    assert imported(seen, 60) >= 58
    assert one.encoder is EncoderKind.HARDWARE
    frames = list(seen.frames)
    shown = pictures(frames)
    assert len(shown) >= len(frames) - 1
    bars = shown[-1]  # bright at the left, dark at the right
    assert luma(bars, 0.06, 0.7) > luma(bars, 0.35, 0.7) + 20 > luma(bars, 0.9, 0.7) + 40
    still = Image.open(io.BytesIO(one.snapshot())).convert("L")
    assert still.size == (640, 360)
    left, right = (still.getpixel((int(640 * x), 250)) for x in (0.06, 0.9))
    assert isinstance(left, int)
    assert isinstance(right, int)
    assert left > right + 60
    one.stop()
    assert not seen.faults


@pytest.mark.parametrize("refusal", [1, 2], ids=["of buffers", "of a picture"])
def test_an_encoder_that_reads_no_memory_of_others_is_given_copies(opened: Callable[..., PiCamera], seen: Seen,
                                                                  refusal: int) -> None:
    Encoder()["no_import"] = refusal
    one = opened()
    one.start(MODE, seen.frame)
    seen.more(5)
    assert imported(seen) == 0
    assert one.encoder is EncoderKind.HARDWARE, "it is no failure of the encoder"
    assert not seen.faults
    frames = list(seen.frames)
    assert len(pictures(frames)) >= len(frames) - 1
    assert seen.frames[0].keyframe


@pytest.mark.parametrize("config", [
    CameraConfig(masks=("0 0 0.5 1",)), CameraConfig(rotation=180), CameraConfig(zoom="0 0 0.5 0.5"),
    CameraConfig(encoder="software"),
], ids=["mask", "rotation", "zoom", "software"])  # fmt: skip
def test_what_is_changed_on_its_way_is_copied(opened: Callable[..., PiCamera], seen: Seen,
                                              config: CameraConfig) -> None:
    one = opened(config)
    one.start(MODE, seen.frame)
    seen.more(5)
    assert imported(seen) == 0
    frames = list(seen.frames)
    assert len(pictures(frames)) >= len(frames) - 1
    if config.masks:
        assert luma(pictures(seen.frames)[-1], 0.06, 0.7) <= 18, "a mask is in every picture that leaves"


def test_another_size_is_copied_and_its_own_is_shared_again(opened: Callable[..., PiCamera], seen: Seen) -> None:
    one = opened()
    one.start(MODE, seen.frame)
    seen.more(10)
    one.set_mode(SMALL)
    seen.until(lambda: newest(list(seen.frames)).width == SMALL.width)
    assert imported(seen) == 0
    one.set_mode(MODE)
    seen.until(lambda: newest(list(seen.frames)).width == MODE.width)
    assert imported(seen) >= 18


@pytest.mark.parametrize("fault", ["stall", "error_next", "unplug"])
def test_software_takes_over_what_is_in_there_and_the_camera_runs_dry_of_no_buffer(
        opened: Callable[..., PiCamera], seen: Seen, machine: Machine, fault: str) -> None:
    one = opened()
    one.start(MODE, seen.frame)
    seen.more(15)
    for by_its_pause in (fault == "error_next", False):
        Encoder()[fault] = 1000 if fault == "error_next" else 1
        one.request_keyframe()
        seen.until(seen.told(FaultKind.FALLBACK, True))
        seen.more(30)
        frames = list(seen.frames)
        key = max(n for n, frame in enumerate(frames) if frame.keyframe)
        assert len(frames) - key >= 20, "software began with a key frame, and needs no other"
        assert len(pictures(frames[key:])) == len(frames) - key
        Encoder().calm()
        if not by_its_pause:  # one that comes is proven at once
            Encoder()["unplug"] = 1
            Encoder()["unplug"] = 0
        seen.until(seen.told(FaultKind.FALLBACK, False), AGAIN_S[0] + 10.0)
        seen.more(5)
        assert imported(seen, 30) >= 28, "shared again"
    frames = list(seen.frames)
    stamps = [frame.pts_us for frame in frames]
    assert stamps == sorted(set(stamps))
    assert longest_gap_s(frames, machine) < 1.5
    assert one.encoder is EncoderKind.HARDWARE


def test_a_picture_stays_as_it_is_until_it_is_given_back() -> None:
    """The camera writes to no memory that is held; and with all but two held it still delivers."""
    sensor = UsbSensor(find_usb()[0], MODE)
    try:
        assert sensor.layout is not None
        held: list[Shot] = []
        deadline = time.monotonic() + 10
        while len(held) < 4:
            assert time.monotonic() < deadline
            if (taken := sensor.take()) is not None:
                held.append(taken)
            time.sleep(0.01)
        assert len({shot.file for shot in held}) == 4
        with mmap.mmap(held[0].file, sensor.layout.size, prot=mmap.PROT_READ) as memory:
            before = bytes(memory)
        for _ in range(10):
            later = None
            while later is None:
                assert time.monotonic() < deadline
                later = sensor.take()
                time.sleep(0.01)
            assert later.file not in {shot.file for shot in held}
            later.close()
        with mmap.mmap(held[0].file, sensor.layout.size, prot=mmap.PROT_READ) as memory:
            assert bytes(memory) == before
        for shot in held:
            shot.close()
    finally:
        sensor.close()
