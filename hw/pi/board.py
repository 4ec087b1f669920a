"""The board ``pi``: each part by the board file; one that cannot be opened is named with its reason, and the rest goes
on without it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from hw.api import (
    Audio,
    BoardOptions,
    Camera,
    DeviceFact,
    Display,
    Fault,
    FaultKind,
    HardwareError,
    Health,
    Kind,
    Panel,
)
from hw.blame import fault_of
from hw.faults import FaultLine
from hw.pi.audio.device import AudioConfig, PiAudio, open_audio
from hw.pi.boardfile import BoardFile, find_board_file
from hw.pi.camera.captures import PiCaptures
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.part import PiCamera, open_camera
from hw.pi.display import DisplayConfig, open_display
from hw.pi.health import BoardHealth, identity
from hw.pi.panel import PanelConfig, PiPanel, open_panel
from hw.shared import ShownCapture, ShownFile

__all__ = ["PiBoard", "checked_file"]

_log = logging.getLogger("hw.pi")

_SHAPES: Final = {"audio": AudioConfig, "camera": CameraConfig, "display": DisplayConfig, "panel": PanelConfig}


def checked_file(wanted: str, model: str) -> BoardFile:
    """``find_board_file``, and every table checked. Raises BoardFileError with all that is wrong with the file."""
    file = find_board_file(wanted, model, judge=_faults)
    if faults := _faults(file):
        raise file.refusal(faults)
    return file


def _faults(file: BoardFile) -> list[str]:
    """Of each table, and of what one says of another."""
    mute, inputs = file.tables.get("audio", {}).get("mute_input"), file.tables.get("panel", {}).get("inputs", {})
    faults = file.faults(_SHAPES)
    if isinstance(mute, str) and mute and isinstance(inputs, dict) and mute not in inputs:
        # one that is named and never mutes would be believed
        faults.append(f"[audio] mute_input: the panel has no input {mute!r}; there are: {', '.join(inputs) or 'none'}")
    return faults


class Part(Protocol):
    """What the board asks of each of its parts beside the Protocol of ``hw.api``."""

    def devices(self) -> Sequence[DeviceFact]:
        """The devices of this part as they are now."""

    def close(self) -> None: ...


AnyPart = TypeVar("AnyPart", bound=Part)


class PiBoard:
    """Implements ``hw.api.Board``. A part that is not there is None, and its reason stands in ``devices()``.

    Raises BoardFileError for a board file that is missing or wrong.
    """

    simulation = None

    def __init__(self, options: BoardOptions) -> None:
        self._identity = identity()
        self._file = checked_file(options.file, self._identity["model"])
        sound = self._file.part("audio", AudioConfig)
        lens = self._file.part("camera", CameraConfig)
        panel, screen = self._file.part("panel", PanelConfig), self._file.part("display", DisplayConfig)
        self._faults = FaultLine()  # a thread: after all that refuses a wrong file
        self._parts: list[Part] = []
        self._lacking: list[DeviceFact] = []
        self._camera: PiCamera | None = None
        self._display: Display | None = None
        self._panel: PiPanel | None = None
        self._audio: PiAudio | None = None
        self._health: BoardHealth | None = None
        self._captures: PiCaptures | None = None
        _log.info("board file %s: %s", self._file.path, self._file.title)
        try:
            self._health = BoardHealth()
            self._panel = self._open(Kind.PANEL, "Panel", lambda _, faults: open_panel(
                panel, faults, options.long_press_s, tuple(screen.touch)))
            self._display = self._open(Kind.DISPLAY, "Screen", lambda _, faults: open_display(
                screen, faults, self._touch))
            self._camera = self._open(Kind.CAMERA, "Camera", lambda _, faults: open_camera(lens, faults))
            camera = self._camera
            self._captures = PiCaptures(lambda: () if camera is None else camera.devices(), self._faults)
            self._parts.append(self._captures)
            self._audio = self._open(Kind.MICROPHONE, "Sound", lambda _, faults: open_audio(sound, faults))
            if self._panel is not None and self._audio is not None and sound.mute_input in self._panel.inputs:
                self._panel.witness(sound.mute_input, self._audio.mute_line)
        except BaseException:
            self.close()
            raise

    def _open(self, kind: Kind, name: str, opener: Callable[[BoardFile, FaultLine], AnyPart | None],
              ) -> AnyPart | None:
        """Open one part; None where the board has none, and where that fails, which is told with its reason."""
        try:
            part = opener(self._file, self._faults)
        except (HardwareError, ImportError) as error:  # ImportError: an optional library is not installed
            _log.warning("%s: %s", name, error)
            self._lacking.append(DeviceFact(kind, kind.value, name, present=False, note=str(error)))
            fault = fault_of(error) if isinstance(error, HardwareError) else FaultKind.FAILED
            self._faults.report(kind, fault, kind.value, True, str(error))
            return None
        if part is not None:
            self._parts.append(part)
        return part

    def _touch(self, button: str, down: bool) -> None:
        if self._panel is not None:
            self._panel.press_from("touch", button, down)

    @property
    def audio(self) -> Audio | None:
        return self._audio

    @property
    def camera(self) -> Camera | None:
        return self._camera

    @property
    def display(self) -> Display | None:
        return self._display

    @property
    def panel(self) -> Panel | None:
        return self._panel

    def share(self, path: str) -> ShownFile:
        return ShownFile(path)

    def capture(self, device: str) -> ShownCapture:
        assert self._captures is not None  # noqa: S101 - set by __init__
        return self._captures.capture(device)

    def facts(self) -> Mapping[str, str]:
        return {
            "board": "pi",
            "boardFile": self._file.path,
            **self._identity,
            "machine": platform.machine(),
            "kernel": platform.release(),
        }

    def health(self) -> Health:
        return Health() if self._health is None else self._health.now()

    def devices(self) -> Sequence[DeviceFact]:
        return [*(fact for part in self._parts for fact in part.devices()), *self._lacking]

    @property
    def choices(self) -> frozenset[Kind]:
        sound = frozenset({Kind.MICROPHONE, Kind.SPEAKER}) if self._audio is not None else frozenset()
        return sound | ({Kind.CAMERA} if self._camera is not None else set())

    def select(self, kind: Kind, device: str) -> None:
        if kind in (Kind.MICROPHONE, Kind.SPEAKER) and self._audio is not None:
            self._audio.select(kind, device)
        elif kind is Kind.CAMERA and self._camera is not None:
            self._camera.choose(device)
        else:
            raise ValueError(f"of the {kind.value} of this board none can be selected")

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self._faults.listen(sink)

    def on_devices(self, sink: Callable[[], None]) -> None:
        self._faults.watch(sink)

    def close(self) -> None:
        for part in reversed(self._parts):
            part.close()
        if self._health is not None:
            self._health.close()
        self._faults.close()
