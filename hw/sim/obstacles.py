"""The faults that keep a simulated device from being opened, by their names: what they are told as, and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from hw.api import FaultKind

__all__ = ["OBSTACLES", "obstacle_of"]

_HELD: Final = "is held by another program (simulated): end it"
_DENIED: Final = "may not be opened (simulated): add the user to the group"

OBSTACLES: Final[Mapping[str, tuple[FaultKind, str]]] = {
    "mic.unplug": (FaultKind.MISSING, "the microphone was unplugged"),
    "mic.busy": (FaultKind.BUSY, f"the microphone {_HELD}"),
    "mic.denied": (FaultKind.DENIED, f"the microphone {_DENIED} audio"),
    "mic.format": (FaultKind.FORMAT, "the microphone offers 8 bits at 6 kHz alone (simulated): take another"),
    "speaker.unplug": (FaultKind.MISSING, "the loudspeaker was unplugged"),
    "speaker.busy": (FaultKind.BUSY, f"the loudspeaker {_HELD}"),
    "speaker.denied": (FaultKind.DENIED, f"the loudspeaker {_DENIED} audio"),
    "speaker.format": (FaultKind.FORMAT, "the loudspeaker takes 8 bits at 6 kHz alone (simulated): take another"),
    "camera.unplug": (FaultKind.MISSING, "the camera was unplugged"),
    "camera.busy": (FaultKind.BUSY, f"the camera {_HELD}"),
    "camera.denied": (FaultKind.DENIED, f"the camera {_DENIED} video"),
    "hdmi.unplug": (FaultKind.PULLED, "the HDMI capture was unplugged"),
    "hdmi.busy": (FaultKind.BUSY, f"the HDMI capture {_HELD}"),
    "camera.format": (FaultKind.FORMAT, "the camera offers Bayer pictures alone (simulated): take another"),
    "screen.missing": (FaultKind.MISSING, "no screen is connected (simulated): check its cable"),
    "screen.unplug": (FaultKind.PULLED, "the screen was unplugged: check its cable"),
    "screen.busy": (FaultKind.BUSY, f"the screen {_HELD}"),
    "screen.denied": (FaultKind.DENIED, f"the screen {_DENIED} video"),
    "screen.format": (FaultKind.FORMAT, "the screen names no size that it can be driven in (simulated): try another"),
}


def obstacle_of(device: str, faults: Collection[str]) -> tuple[FaultKind, str] | None:
    """The first of ``faults`` (``mic.busy``) that keeps ``device`` (``mic``, ``speaker``, ``camera``, ``hdmi``,
    ``screen``) from opening."""
    return next((told for name, told in OBSTACLES.items() if name in faults and name.startswith(f"{device}.")), None)
