"""Hands for the devices of the test kernel: what a finger, a cable or a dying chip does to them, from inside the guest.

All of it is the kernel's own interface (configfs, sysfs), so it needs root there, and does nothing to a machine without
those drivers: each class raises ``FileNotFoundError`` where its driver is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

PLATFORM = Path("/sys/bus/platform/drivers")
CONFIGFS_GPIO = Path("/sys/kernel/config/gpio-sim")
TEST_KERNEL: Final = CONFIGFS_GPIO.is_dir()
"""Whether this is the kernel whose devices are simulated: it has that driver built in."""


class GpioChip:
    """A simulated GPIO chip (``gpio-sim``) with the lines and the label of a Raspberry Pi's header.

    ``lines`` are the numbers that can be driven and read from here; an input is driven by its pull.
    """

    def __init__(
        self, lines: Iterable[int], *, label: str = "pinctrl-bcm2835", count: int = 54, name: str = "pi"
    ) -> None:
        self._folder = CONFIGFS_GPIO / name
        bank = self._folder / "bank0"
        bank.mkdir(parents=True)
        (bank / "num_lines").write_text(str(count))
        (bank / "label").write_text(label)
        self._lines = sorted(lines)
        for line in self._lines:
            (bank / f"line{line}").mkdir()
            (bank / f"line{line}" / "name").write_text(f"GPIO{line}")
        self.plug()

    @property
    def device(self) -> Path:
        """The chip's node in ``/dev``; another one after it was unplugged."""
        return Path("/dev") / (self._folder / "bank0" / "chip_name").read_text().strip()

    def pull(self, line: int, *, up: bool) -> None:
        """Drive the input ``line``: a button between it and ground is pressed with ``up=False``."""
        self._attribute(line, "pull").write_text("pull-up" if up else "pull-down")

    def value(self, line: int) -> bool:
        """What the line is now, whoever drives it."""
        return self._attribute(line, "value").read_text().strip() == "1"

    def plug(self) -> None:
        (self._folder / "live").write_text("1")

    def unplug(self) -> None:
        """The chip is gone, whoever holds its lines."""
        (self._folder / "live").write_text("0")

    def remove(self) -> None:
        self.unplug()
        for line in self._lines:
            (self._folder / "bank0" / f"line{line}").rmdir()
        (self._folder / "bank0").rmdir()
        self._folder.rmdir()

    def _attribute(self, line: int, name: str) -> Path:
        device = (self._folder / "dev_name").read_text().strip()
        chip = (self._folder / "bank0" / "chip_name").read_text().strip()
        return Path("/sys/devices/platform") / device / chip / f"sim_gpio{line}" / name


class Bound:
    """A platform device that is pulled and plugged by its driver's ``unbind`` and ``bind``."""

    def __init__(self, driver: str, device: str) -> None:
        self._driver = PLATFORM / driver
        self._device = device
        (self._driver / "bind").stat()

    @property
    def plugged(self) -> bool:
        return (self._driver / self._device).exists()

    def unplug(self) -> None:
        (self._driver / "unbind").write_text(self._device)

    def plug(self) -> None:
        (self._driver / "bind").write_text(self._device)


def camera() -> Bound:
    """``vivid``: all its nodes at once."""
    return Bound("vivid", "vivid.0")


def sound_loop(card: int = 0) -> Bound:
    """``snd-aloop``: what is played on device 0 is recorded on device 1, and the other way round."""
    return Bound("snd_aloop", f"snd_aloop.{card}")


def screen() -> Bound:
    """``vkms``: a screen that nobody sees."""
    return Bound("vkms", "vkms")


class Parameters:
    """Those of the module ``hilenc``, by name (``tests/hil/kernel/hilenc/README.md``)."""

    FOLDER = Path("/sys/module/hilenc/parameters")

    def __init__(self) -> None:
        self.FOLDER.stat()

    def __setitem__(self, name: str, value: int) -> None:
        (self.FOLDER / name).write_text(str(value))

    def __getitem__(self, name: str) -> int:
        text = (self.FOLDER / name).read_text().strip()
        return {"Y": 1, "N": 0}[text] if text in "YN" else int(text)


class Encoder(Parameters):
    """``hilenc``: the encoder and its faults."""

    CALM: Final = {
        "error_next": 0, "corrupt_next": 0, "delay_once_ms": 0, "encode_us": 0, "stall": 0, "max_bufs": 32,
        "fail_streamon": 0, "max_ctx": 8, "no_import": 0, "unplug": 0, "pcm": 0, "fill": 1,
    }  # fmt: skip

    @property
    def node(self) -> Path | None:
        """Its node now, None while it is unplugged. Another one than before where its old one is still open."""
        for name in Path("/sys/class/video4linux").glob("video*/name"):
            if name.read_text().strip() == "bcm2835-codec-encode":
                return Path("/dev") / name.parent.name
        return None

    def calm(self) -> None:
        """No fault, plugged in."""
        for fault, value in self.CALM.items():
            self[fault] = value


class H264Camera(Parameters):
    """``hilenc``: the USB camera that makes H.264 by itself."""

    CALM: Final = {
        "camera_steer": 2, "camera_profile": 100, "camera_stubborn": 0, "camera_period": 60, "camera_headers": 1,
        "camera_b": 0, "camera_raw": 1, "camera_h264": 1, "camera_deaf": 0,
    }  # fmt: skip

    def plug(self, **settings: int) -> None:
        """Plug it in, as it is but for ``settings``."""
        for name, value in (self.CALM | settings).items():
            self[name] = value
        self["camera"] = 1

    def unplug(self) -> None:
        self["camera"] = 0
