"""What a board offers: Protocols, value types and errors. The only module of ``hw`` that the appliance imports.

The Protocols live here, apart from any implementation, because the hardware half must be testable on a bench
without the product, and because the simulated and the real devices share one contract suite
(``tests/contract``).

Rules every implementation keeps:

* callbacks run on a thread the board owns; they must return fast and never raise;
* ``stop()`` and ``close()`` are idempotent, may come at any moment (half started too), return within their
  deadline, and after them no callback runs;
* a device that goes away is told by ``on_fault`` and never by an exception on a board thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

__all__ = [
    "Audio",
    "AudioBlock",
    "AudioFigures",
    "Board",
    "BoardOptions",
    "Camera",
    "DeviceBusyError",
    "DeviceDeniedError",
    "DeviceFact",
    "DeviceFailedError",
    "DeviceFormatError",
    "DeviceMissingError",
    "DevicePulledError",
    "Display",
    "EncodedFrame",
    "EncoderKind",
    "Fault",
    "FaultKind",
    "Fit",
    "HardwareError",
    "Health",
    "Kind",
    "Link",
    "Panel",
    "Picture",
    "Press",
    "PressKind",
    "SharedSource",
    "Simulation",
    "Tile",
    "VideoMode",
]


# --- errors ---------------------------------------------------------------------------------------------------------


class HardwareError(Exception):
    """A device could not do what was asked. The message names device, holder and cause."""


class DeviceMissingError(HardwareError, FileNotFoundError):
    """The device is not there (never was, or was unplugged)."""


class DevicePulledError(DeviceMissingError):
    """The device was unplugged while it was in use."""


class DeviceDeniedError(HardwareError, PermissionError):
    """The system does not let us open the device; the message says which group the user lacks."""


class DeviceFormatError(HardwareError, ValueError):
    """The device offers no format, rate or size that we can use; the message names what it offers."""


class DeviceBusyError(HardwareError, BlockingIOError):
    """Somebody else holds the device; the message names the holder where the system tells."""


class DeviceFailedError(HardwareError):
    """The device is there and refused, broke or stopped answering."""


# --- facts and faults -----------------------------------------------------------------------------------------------


class Kind(Enum):
    """Kinds of device, as ``devices.select`` and ``state/devices`` name them."""

    MICROPHONE = "microphone"
    SPEAKER = "speaker"
    CAMERA = "camera"
    CAPTURE = "capture"  # an HDMI input, whose picture is shown to others
    DISPLAY = "display"
    PANEL = "panel"


class FaultKind(Enum):
    """What is wrong with a device; the appliance maps these to user-facing diagnostics."""

    MISSING = "missing"  # unplugged, or not there at start
    BUSY = "busy"  # another process holds it
    DENIED = "denied"  # no permission on the device node
    FORMAT = "format"  # it offers no format that we can use
    PULLED = "pulled"  # unplugged while in use; another may have taken over
    STALLED = "stalled"  # it stopped delivering
    FAILED = "failed"  # it reported an error
    START_TIMED_OUT = "start_timed_out"  # it did not deliver within its start time-out
    SILENT = "silent"  # microphone: digital silence while unmuted
    MUTED = "muted"  # muted outside the appliance (mixer, hardware switch)
    ZERO_VOLUME = "zero_volume"  # speaker mixer at 0
    CLIPPING = "clipping"  # microphone at full scale
    NOISY = "noisy"  # microphone noise floor too high
    COVERED = "covered"  # camera delivers black
    SLOW = "slow"  # camera below half of its frame rate
    DROPOUTS = "dropouts"  # sound broke up (xruns) over ten times within a minute
    FALLBACK = "fallback"  # encoder fell back to software
    NO_SIGNAL = "no_signal"  # HDMI input: nothing is connected, or what is sends nothing
    STUCK = "stuck"  # button held longer than 30 s


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one device that begins (``active``) or ends."""

    kind: Kind
    fault: FaultKind
    device: str  # stable id of the device
    active: bool
    detail: str = ""
    cause: FaultKind | None = None  # of a FALLBACK: what is wrong with the encoder; None: the fault says it all


@dataclass(frozen=True, slots=True)
class DeviceFact:
    """One device as it is now: stable id, name for people, plugged in or not.

    ``used``: it is the one of its kind that runs, or would if it were started. ``note``: why it is not, as far as
    known. ``listed``: the board's own order has a place for it; else it is used only where it is selected.
    """

    kind: Kind
    id: str
    name: str
    present: bool = True
    used: bool = True
    simulated: bool = False
    note: str = ""  # e.g. why it was replaced by a simulated one, with its holder
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface with hardware behind it. ``mbps`` and ``dbm`` (of Wi-Fi) only while it is up."""

    name: str
    up: bool
    mbps: int | None = None
    dbm: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The board itself. None: this board cannot tell, or (storage) ask the file system."""

    temperature_c: float | None = None
    throttled: bool | None = None  # slowed down because it is too hot
    undervoltage: bool | None = None
    storage_full: bool | None = None  # simulated only: the data folder counts as full
    storage_wear: float | None = None  # used life of built-in flash, 0 to 1
    links: Sequence[Link] = ()
    supply: str = ""  # how the board is fed (PoE and its class, USB-C), for people


# --- sound ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """One period of sound, both directions on one clock.

    ``heard`` is what the microphone picked up, ``played`` what the loudspeaker was playing *at that moment*
    (drift between two cards is corrected inside ``hw``), each mono signed 16 bit little endian of equal
    length. ``missed`` counts the blocks lost (xrun, stall) since the previous call.
    """

    heard: bytes
    played: bytes
    missed: int = 0


@dataclass(frozen=True, slots=True)
class AudioFigures:
    """What a sound device did since it was started. None: it has no such thing."""

    xruns: int = 0  # times that a card ran over or empty
    dropped: int = 0  # blocks thrown away because they were too late to be played
    drift_ppm: float | None = None  # the loudspeaker's clock against the one that paces, in millionths
    delay_ms: float = 0.0  # from a block heard to the one that is heard while the answer to it plays
    latency_ms: float | None = None  # sound kept for the loudspeaker; more than was set, after it kept running empty
    realtime: bool = False  # whether its thread has real-time priority


class Audio(Protocol):
    """Microphone and speaker as one device: one clock, one thread (``hw.audio``), one callback."""

    def start(self, rate: int, block_ms: int, exchange: Callable[[AudioBlock], bytes]) -> None:
        """Run ``exchange`` once per block on ``hw.audio``; what it returns is the next block to play.

        ``rate`` in Hz, ``block_ms`` in milliseconds (10). A return value of the wrong length is cut or
        padded with silence. While a device is missing the exchange goes on ticking on a null clock with
        silence, after 500 ms without a block at the latest.
        Raises DeviceMissingError, DeviceBusyError or DeviceFailedError when neither can be opened.
        """

    def stop(self) -> None:
        """Stop the thread within 1 s."""

    def set_volume(self, percent: int) -> None:
        """Speaker volume, 0 to 100."""

    @property
    def volume(self) -> int: ...

    @property
    def echoes(self) -> bool:
        """Whether the microphone may hear the loudspeaker, so that an echo has to be cancelled. Cheap."""

    @property
    def figures(self) -> AudioFigures:
        """Counted since it was started. Cheap."""


# --- camera ---------------------------------------------------------------------------------------------------------


class EncoderKind(Enum):
    """Who makes the H.264: told, never assumed."""

    HARDWARE = "hardware"
    SOFTWARE = "software"
    CAMERA = "camera"  # the camera itself; passed through
    RECORDED = "recorded"  # a clip passed through; bitrate and key frames follow the clip


@dataclass(frozen=True, slots=True)
class VideoMode:
    """Size in pixels, frames per second, target in bits per second. ``slice_bytes``: the largest NAL unit, 0: any; only
    an encoder in software keeps to it."""

    width: int = 1280
    height: int = 720
    fps: int = 30
    bitrate: int = 1_500_000
    slice_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One Annex-B access unit, H.264 constrained baseline, SPS/PPS before every key frame.

    ``pts_us`` is the monotonic capture time (CLOCK_MONOTONIC) in microseconds, ``delivered_us`` the time at which the
    encoder's output was here. ``dwell_us``: how long the picture was in the encoder; None where it was not encoded
    here, as of a recording, or of a camera that encodes by itself.
    """

    data: bytes
    pts_us: int
    keyframe: bool
    delivered_us: int = field(default_factory=lambda: time.monotonic_ns() // 1000)
    dwell_us: int | None = None


class Camera(Protocol):
    """A camera with its H.264 encoder, in a process of its own that can be killed."""

    @property
    def encoder(self) -> EncoderKind: ...

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        """Open the sensor and deliver access units on ``hw.camera``; returns what it really does.

        Never blocks over 200 ms: a camera that does not deliver within its time-out (5 s) is told as a Fault.
        Starting a started camera raises DeviceBusyError.
        """

    def request_keyframe(self) -> None:
        """The next encoded picture is an IDR (RFC 6184 8.4). The caller limits the rate."""

    def set_bitrate(self, bits_per_second: int) -> None:
        """Change the encoder's target while it runs; clamped to what the encoder survives."""

    def set_mode(self, mode: VideoMode) -> None:
        """Change size, frame rate and target while it runs, at most to the mode it was started with.

        Never blocks. Within 500 ms the frames are of the new size, from a key frame on; until then those of the old
        one go on. The sensor stays open. Nothing happens while the camera is stopped, or where the pictures come
        encoded (``EncoderKind.RECORDED``): ``mode`` tells.
        """

    @property
    def mode(self) -> VideoMode | None:
        """What it really does now; None while it is stopped."""

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        """A JPEG of what the camera sees now. Blocking: call it off the loop. Raises HardwareError.

        Works started (frames are not disturbed; where the mode is wider than 640, the picture may be 640 wide) and
        stopped (the sensor opens for the one picture, with the size of ``VideoMode()``, or of a clip that is passed
        through).
        """

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None:
        """Give ``sink`` small raw pictures of what is encoded, on ``hw.camera``, while the camera runs; None ends it.

        They are as they are sent (masks, zoom, rotation), in the shape of ``mode``, their longer side at most ``side``
        pixels, and at most 15 a second; each leaves after it was encoded, so that what is sent does not wait for it.
        May be called at any time, also stopped; another call replaces the one before, and after None no callback runs.
        Never blocks over 200 ms. What stalls or pulls the camera ends them, and they come again by themselves. None
        come while the pictures come encoded (``EncoderKind.CAMERA``, ``EncoderKind.RECORDED``). Raises ValueError for
        a ``side`` below 64.
        """

    def stop(self) -> None:
        """Close the sensor within 500 ms; a process that does not answer is killed."""


class SharedSource(Camera, Protocol):
    """A picture, a video file or a capture device in the place of a camera: encoded beside the board's own, in a
    process of its own. What cannot be decoded, or is pulled, is told as a Fault after ``start``. A capture without a
    signal gives black pictures, and is told as NO_SIGNAL."""

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        """Deliver every fault of it, on a board thread; at once those active already."""

    def close(self) -> None:
        """Stop, and end the process, within 2 s."""


# --- screen ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture in planar YUV 4:2:0 (I420), rows without padding: ``width * height * 3 // 2`` bytes."""

    width: int
    height: int
    i420: bytes


class Fit(Enum):
    """How a picture fills a rectangle of another shape."""

    FIT = "fit"  # all of it, with bars beside
    CROP = "crop"  # all of the rectangle; what goes beyond is cut off
    STRETCH = "stretch"  # both, out of shape


@dataclass(frozen=True, slots=True)
class Tile:
    """What one rectangle of the screen shows. ``x y w h`` are fractions 0..1 of the screen; a later tile lies over an
    earlier one. ``muted``, ``away`` (what it shows comes no more) and ``bars`` (of five: how good its network is; None:
    not known) are marks on it."""

    picture: Picture | None
    x: float = 0.0
    y: float = 0.0
    w: float = 1.0
    h: float = 1.0
    label: str = ""
    mirrored: bool = False
    fit: Fit = Fit.FIT
    muted: bool = False
    away: bool = False
    bars: int | None = None


class Display(Protocol):
    """The board's screen. Latest content wins; drawing happens on ``hw.display``."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        """Show ``tiles``, a one-line ``banner`` readable at 3 m, and a smaller ``hint`` below it."""

    def blank(self) -> None:
        """Dark screen, its backlight off where it has one, until the next ``show``."""

    def set_brightness(self, percent: int) -> None:
        """How bright it is from now on, 1 to 100. Without a backlight nothing happens. Raises ValueError."""

    def screenshot(self) -> bytes:
        """What the screen shows now, as PNG. Blocking: call it off the loop."""

    @property
    def drawn_s(self) -> float:
        """Seconds that drawing has taken in all, without waiting for the screen; it never falls. Cheap."""


# --- panel ----------------------------------------------------------------------------------------------------------


class PressKind(Enum):
    PRESSED = "pressed"
    RELEASED = "released"  # a short press has ended
    HELD = "held"  # held for the long-press time; no RELEASED follows as a short press
    INPUT_ON = "input_on"  # a contact (door, tamper, hook, hardware mute) closed
    INPUT_OFF = "input_off"


@dataclass(frozen=True, slots=True)
class Press:
    """One edge at a button or input. ``held_s`` is how long it was down, in seconds."""

    name: str
    kind: PressKind
    held_s: float = 0.0


class Panel(Protocol):
    """Buttons, lamps, relays and inputs, by the names of the board file."""

    @property
    def buttons(self) -> Sequence[str]: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def lamps(self) -> Sequence[str]: ...
    @property
    def relays(self) -> Sequence[str]: ...

    def listen(self, on_press: Callable[[Press], None]) -> None:
        """Deliver every debounced edge from now on; inputs that are closed already are told at once.

        A button that was down before it was looked at is told by nothing but a Fault (``STUCK``) in its time.
        """

    def light(self, lamp: str, pattern: Sequence[tuple[float, bool]]) -> None:
        """Repeat ``pattern`` of (seconds, lit) for ever; a single entry is steady. Unknown lamp: KeyError."""

    def lit(self, lamp: str) -> bool:
        """Whether the lamp is lit at this moment (read back)."""

    def switch(self, relay: str, seconds: float) -> None:
        """Close ``relay`` for ``seconds`` (0: open it now); it opens by itself, also when the daemon dies.

        Waits 200 ms at most to see it move: call it off the loop. Raises HardwareError when it did not.
        """

    def closed(self, relay: str) -> bool:
        """Whether the relay is closed at this moment (read back)."""


# --- board ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Simulation(Protocol):
    """Hands for the simulated board, reached by the ``sim.*`` verbs only. A real board has none."""

    def press(self, button: str, held_s: float) -> None:
        """Drive the button's pin: down now, up after ``held_s`` seconds, without blocking."""

    def set_input(self, name: str, closed: bool) -> None: ...

    def fault(self, name: str, active: bool, value: float | None = None) -> None:
        """Begin or end a fault by its name (``camera.freeze``, ``mic.unplug``, …).

        Raises KeyError with the known names for an unknown one.
        """

    @property
    def faults(self) -> Sequence[str]: ...

    def source(self, kind: Kind, spec: str) -> None:
        """Choose a source: ``tone:1000 wav:PATH speech silence``; ``pattern file:PATH clip:PATH``."""

    def lend_audio(self, pcm: bytes) -> None:
        """48 kHz mono s16le from elsewhere (a browser tab) into the microphone; stops counting after 1 s of none."""

    def lend_picture(self, jpeg: bytes) -> None:
        """A JPEG from elsewhere becomes what the camera sees; back to its own source after 1 s of none."""

    def tap_speaker(self, sink: Callable[[bytes], None] | None) -> None:
        """Give ``sink`` every block the loudspeaker plays (48 kHz mono s16le) on ``hw.audio``; None ends it."""

    def plug(self, kind: Kind, plugged: bool, spec: str = "") -> None:
        """Plug a second microphone, speaker or camera in, with a source as ``source`` has them (empty: as before), or
        pull it. Blocking. Raises ValueError or DeviceFailedError."""

    def screen(self, width: int) -> bytes:
        """The simulated screen as JPEG of that width. Blocking: call it off the loop."""


class Board(Protocol):
    """A board; each device may be None where it has none."""

    @property
    def audio(self) -> Audio | None: ...
    @property
    def camera(self) -> Camera | None: ...
    @property
    def display(self) -> Display | None: ...
    @property
    def panel(self) -> Panel | None: ...
    @property
    def simulation(self) -> Simulation | None:
        """None on a real board: ``sim.*`` verbs are refused there."""

    def share(self, path: str) -> SharedSource:
        """A file that is to be shown to others. Blocking: call it off the loop. Raises DeviceMissingError where it is
        not there. Who has asked for it closes it."""

    def capture(self, device: str) -> SharedSource:
        """What is to be shown to others of a capture device: an HDMI input, or a camera that is not the one in use, by
        its stable id. Blocking: call it off the loop. Raises DeviceMissingError where it is not there, and
        DeviceBusyError where it is in use here. Who has asked for it closes it."""

    def facts(self) -> Mapping[str, str]:
        """Model, serial, board name … for ``state/device``."""

    def devices(self) -> Sequence[DeviceFact]:
        """Every device as it is now."""

    @property
    def choices(self) -> frozenset[Kind]:
        """The kinds of which a device can be selected."""

    def select(self, kind: Kind, device: str) -> None:
        """Prefer ``device`` (its stable id) to all others of ``kind`` from now on; empty: the board's own order again.

        What runs goes on with it, without a new start; while it is away or refuses, the next of the board's order is
        used and the reason told, and it takes over again when it can. It need not be there. Blocking, 2 s at most: call
        it off the loop; ``devices`` tells what came of it. Raises ValueError for a kind that is not among ``choices``.
        """

    def health(self) -> Health:
        """Temperature and supply now. Cheap: asked every few seconds."""

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        """Deliver every fault that begins or ends, on a board thread; at once those active already."""

    def on_devices(self, sink: Callable[[], None]) -> None:
        """Call ``sink``, on a board thread, when ``devices`` tells something else than before without a fault."""

    def close(self) -> None:
        """Everything off: sensor closed, relays open, threads and processes gone, within 3 s."""


@dataclass(frozen=True, slots=True)
class BoardOptions:
    """What a board is opened with. All but ``long_press_s`` and ``file`` is for boards with simulated parts."""

    microphone: str = "tone:440"
    camera: str = "pattern"
    speaker: str = ""  # path of a WAV file that records what was played; empty: none
    display: tuple[int, int] = (1280, 720)
    echo_delay_ms: float = 0.0
    echo_loss_db: float | None = None  # None: no echo path
    long_press_s: float = 1.0
    file: str = ""  # board file of ``pi``: a name or a path; empty: by the model
