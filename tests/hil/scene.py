"""The world around a device under test, inside the guest: what its camera sees, what its microphone hears.

``python -m tests.hil.scene FOLDER`` shows the marked test picture of ``hw.sim.pattern`` to the camera ``vivid``,
through an HDMI output of its own that is looped to its input, plays a tone into the sound loop ``snd-aloop``, listens
to what comes out of it, and makes the GPIO chip with the call button. ``FOLDER/scene.json`` says twice a second what
it heard: ``hertz`` of the strongest tone, its ``level`` in dB of full scale, and how many pictures it has ``shown``. A
device that is pulled is waited for and taken again.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import alsaaudio
import numpy as np

from hw.sim.pattern import PatternPainter, Planes
from tests.hil.devices import GpioChip

VIVID: Final = "vivid n_devs=1 node_types=0x101 input_types=3 output_types=1"
"""How the module is loaded: an HDMI output and an HDMI input."""

TONE_HERTZ: Final = 440
CALL_BUTTON: Final = 17
RATE: Final = 48_000
PERIOD: Final = 4800
"""Long, since this process gets what the device under test leaves: 400 ms lie in the loop."""

WIDTH, HEIGHT, FPS = 640, 360, 30
LOOP: Final = "hw:Loopback,1,0"
"""The far end of the loop; the device under test has ``hw:Loopback,0,0``."""

_CONTROLS: Final = ((0xF0F071, 2), (0xF0F001, 2))
"""``HDMI 000-0 Is Connected To`` its output, ``OSD Text Mode`` none."""

_OUTPUT: Final = 2  # V4L2_BUF_TYPE_VIDEO_OUTPUT
_720P30: Final = struct.pack(
    "<IIIIIQIIIIIIIII", 0, 1280, 720, 0, 3, 74_250_000, 1760, 40, 220, 5, 5, 20, 0, 0, 0
).ljust(132, b"\0")
"""A ``v4l2_dv_timings`` of CEA-861."""


def _ioctl(file: int, number: int, argument: bytes, direction: int = 3) -> bytearray:
    answer = bytearray(argument)
    fcntl.ioctl(file, direction << 30 | len(argument) << 16 | ord("V") << 8 | number, answer)
    return answer


def _node(name: str) -> Path:
    """Raises FileNotFoundError while it is pulled."""
    for found in Path("/sys/class/video4linux").glob("video*/name"):
        if found.read_text().strip().endswith(name):
            return Path("/dev") / found.parent.name
    raise FileNotFoundError(name)


class Projector:
    """Vivid's output, looped to its input: what is shown here is what the camera sees.

    Only where both have one pixel format; with another, the camera sees noise.
    """

    def __init__(self) -> None:
        self._file = os.open(_node("vid-out"), os.O_RDWR)
        self._maps: list[mmap.mmap] = []
        try:
            camera = os.open(_node("vid-cap"), os.O_RDWR)
            try:
                for control, value in _CONTROLS:
                    _ioctl(camera, 28, struct.pack("<Ii", control, value))  # VIDIOC_S_CTRL
                with suppress(OSError):  # the device under test was here first, after a plug: its timings hold
                    _ioctl(camera, 87, _720P30)  # VIDIOC_S_DV_TIMINGS
                _ioctl(self._file, 87, _ioctl(camera, 88, bytes(132)))  # as VIDIOC_G_DV_TIMINGS tells
            finally:
                os.close(camera)
            pix = struct.pack("<IIII4sI", _OUTPUT, 0, WIDTH, HEIGHT, b"YU12", 1)
            _ioctl(self._file, 5, pix.ljust(208, b"\0"))  # VIDIOC_S_FMT
            # not write(): in 6.12 it queues its buffers empty, which vivid refuses
            count = struct.unpack_from("<I", _ioctl(self._file, 8, struct.pack("<IIIII", 4, _OUTPUT, 1, 0, 0)))[0]
            for index in range(count):
                buffer = _ioctl(self._file, 9, self._buffer(index))  # VIDIOC_QUERYBUF
                offset, _, length = struct.unpack_from("<III", buffer, 64)
                self._maps.append(mmap.mmap(self._file, length, offset=offset))
            self._free = list(range(count))
            _ioctl(self._file, 18, struct.pack("<i", _OUTPUT), 1)  # VIDIOC_STREAMON
        except OSError:
            self.close()
            raise

    def show(self, planes: Planes) -> None:
        """Waits until one of four buffers is free: the output paces. Raises OSError when pulled."""
        picture = b"".join(planes)
        if not self._free:
            buffer = _ioctl(self._file, 17, self._buffer(0))  # VIDIOC_DQBUF
            self._free.append(struct.unpack_from("<I", buffer)[0])
        index = self._free.pop()
        self._maps[index][: len(picture)] = picture
        _ioctl(self._file, 15, self._buffer(index, len(picture)))  # VIDIOC_QBUF

    def close(self) -> None:
        for one in self._maps:
            one.close()
        self._maps.clear()
        os.close(self._file)

    @staticmethod
    def _buffer(index: int, used: int = 0) -> bytes:
        """A ``v4l2_buffer`` with MMAP memory."""
        return struct.pack("<IIIII40xI24x", index, _OUTPUT, used, 0, 1, 1)


class Scene:
    """Runs until the process ends."""

    def __init__(self) -> None:
        self.shown = 0
        self._painter = PatternPainter(WIDTH, HEIGHT)
        self.heard = np.zeros(RATE // 5, np.int16)

    def show(self) -> None:
        with closing(Projector()) as projector:
            while True:
                projector.show(self._painter.paint(self.shown, time.monotonic_ns() // 1000))
                self.shown += 1

    def play(self) -> None:
        speaker = alsaaudio.PCM(alsaaudio.PCM_PLAYBACK, device=LOOP, rate=RATE, channels=2, periodsize=PERIOD,
                                format=alsaaudio.PCM_FORMAT_S16_LE, periods=4)  # fmt: skip
        wave = 8000 * np.sin(2 * math.pi * TONE_HERTZ * np.arange(RATE) / RATE)
        second = np.repeat(wave.astype(np.int16), 2).reshape(-1, PERIOD * 2)
        try:
            while True:
                for period in second:
                    speaker.write(period.tobytes())
        finally:
            speaker.close()

    def listen(self) -> None:
        microphone = alsaaudio.PCM(alsaaudio.PCM_CAPTURE, device=LOOP, rate=RATE, channels=2, periodsize=PERIOD,
                                   format=alsaaudio.PCM_FORMAT_S16_LE, periods=4)  # fmt: skip
        channels = microphone.info()["channels"]  # of the loop: those of the other side, where that was first
        try:
            while True:
                length, data = microphone.read()
                if length > 0:
                    left = np.frombuffer(data, np.int16)[::channels]
                    self.heard = np.concatenate([self.heard, left])[-RATE // 5 :]
        finally:
            microphone.close()
            self.heard = np.zeros(RATE // 5, np.int16)

    def told(self) -> dict[str, float]:
        sound = self.heard.astype(np.float64) / 32768
        strongest = int(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))))
        return {"hertz": strongest * RATE / len(sound), "level": 10 * math.log10(float(np.mean(sound**2)) + 1e-20),
                "shown": self.shown}  # fmt: skip


def again(act: Callable[[], None]) -> None:
    """Whatever is pulled comes back; until then there is nothing to do."""
    while True:
        try:
            act()
        except (OSError, alsaaudio.ALSAAudioError):
            time.sleep(0.05)


def main(folder: Path) -> None:
    scene = Scene()
    GpioChip({CALL_BUTTON}).pull(CALL_BUTTON, up=True)
    for act in (scene.show, scene.play, scene.listen):
        threading.Thread(target=again, args=(act,), name=act.__name__, daemon=True).start()
    while True:
        (folder / "scene.part").write_text(json.dumps(scene.told()))
        (folder / "scene.part").replace(folder / "scene.json")
        time.sleep(0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
