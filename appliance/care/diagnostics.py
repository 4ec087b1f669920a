"""User-facing diagnostics: facts about trouble in, one register, one document, one event each edge.

Any room reports a fact as often as it likes; the register keeps what holds, tells each edge once, at most once a
second per name (the latest value wins), and logs once on and once off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.bulletin import Bulletin
from appliance.clock import rfc3339
from appliance.vocabulary import DIAGNOSTICS, DiagnosticType, Json
from hw.api import Fault, FaultKind, Kind

__all__ = ["Diagnostics", "diagnostic_of", "is_raised"]

log = logging.getLogger(__name__)

EDGE_S: Final = 1.0  # between two events of one name
GOOD: Final = 1  # of a quality; 2 is poor, 3 is bad (ACS)

_BY_FAULT: Final[Mapping[tuple[Kind, FaultKind], str]] = {
    (Kind.MICROPHONE, FaultKind.MISSING): "noMicrophoneDevicesEnumerated",
    (Kind.MICROPHONE, FaultKind.BUSY): "microphoneBusy",
    (Kind.MICROPHONE, FaultKind.DENIED): "microphonePermissionDenied",
    (Kind.MICROPHONE, FaultKind.FORMAT): "microphoneFormatUnsupported",
    (Kind.MICROPHONE, FaultKind.PULLED): "microphoneUnplugged",
    (Kind.MICROPHONE, FaultKind.STALLED): "microphoneNotFunctioning",
    (Kind.MICROPHONE, FaultKind.FAILED): "microphoneNotFunctioning",
    (Kind.MICROPHONE, FaultKind.START_TIMED_OUT): "microphoneNotFunctioning",
    (Kind.MICROPHONE, FaultKind.SILENT): "microphoneNotMuteButSilent",
    (Kind.MICROPHONE, FaultKind.MUTED): "microphoneMuteUnexpectedly",
    (Kind.MICROPHONE, FaultKind.CLIPPING): "microphoneClipping",
    (Kind.MICROPHONE, FaultKind.NOISY): "microphoneNoiseHigh",
    (Kind.SPEAKER, FaultKind.MISSING): "noSpeakerDevicesEnumerated",
    (Kind.SPEAKER, FaultKind.BUSY): "speakerBusy",
    (Kind.SPEAKER, FaultKind.DENIED): "speakerPermissionDenied",
    (Kind.SPEAKER, FaultKind.FORMAT): "speakerFormatUnsupported",
    (Kind.SPEAKER, FaultKind.PULLED): "speakerUnplugged",
    (Kind.SPEAKER, FaultKind.STALLED): "speakerNotFunctioning",
    (Kind.SPEAKER, FaultKind.FAILED): "speakerNotFunctioning",
    (Kind.SPEAKER, FaultKind.START_TIMED_OUT): "speakerNotFunctioning",
    (Kind.SPEAKER, FaultKind.MUTED): "speakerMuted",
    (Kind.SPEAKER, FaultKind.ZERO_VOLUME): "speakerVolumeIsZero",
    (Kind.SPEAKER, FaultKind.DROPOUTS): "soundDropouts",
    (Kind.CAMERA, FaultKind.MISSING): "noCameraDevicesEnumerated",
    (Kind.CAMERA, FaultKind.BUSY): "cameraStartFailed",
    (Kind.CAMERA, FaultKind.DENIED): "cameraPermissionDenied",
    (Kind.CAMERA, FaultKind.FORMAT): "cameraFormatUnsupported",
    (Kind.CAMERA, FaultKind.PULLED): "cameraUnplugged",
    (Kind.CAMERA, FaultKind.STALLED): "cameraFreeze",
    (Kind.CAMERA, FaultKind.FAILED): "cameraStoppedUnexpectedly",
    (Kind.CAMERA, FaultKind.START_TIMED_OUT): "cameraStartTimedOut",
    (Kind.CAMERA, FaultKind.COVERED): "cameraCovered",
    (Kind.CAMERA, FaultKind.SLOW): "cameraLowFrameRate",
    (Kind.CAMERA, FaultKind.FALLBACK): "encoderFallback",
    (Kind.CAPTURE, FaultKind.NO_SIGNAL): "contentNoSignal",
    (Kind.DISPLAY, FaultKind.MISSING): "noDisplayDevicesEnumerated",
    (Kind.DISPLAY, FaultKind.PULLED): "displayDisconnected",
    (Kind.DISPLAY, FaultKind.BUSY): "displayBusy",
    (Kind.DISPLAY, FaultKind.DENIED): "displayPermissionDenied",
    (Kind.DISPLAY, FaultKind.FORMAT): "displayFormatUnsupported",
    (Kind.DISPLAY, FaultKind.STALLED): "displayNotFunctioning",
    (Kind.DISPLAY, FaultKind.FAILED): "displayNotFunctioning",
    (Kind.PANEL, FaultKind.STUCK): "buttonStuck",
    (Kind.PANEL, FaultKind.MISSING): "noPanelDevicesEnumerated",
    (Kind.PANEL, FaultKind.PULLED): "panelDisconnected",
    (Kind.PANEL, FaultKind.BUSY): "panelBusy",
    (Kind.PANEL, FaultKind.DENIED): "panelPermissionDenied",
    (Kind.PANEL, FaultKind.FAILED): "panelNotFunctioning",
}


def diagnostic_of(fault: Fault) -> str | None:
    """The diagnostic a hardware fault raises; None for one that people cannot act on."""
    return _BY_FAULT.get((fault.kind, fault.fault))


def is_raised(value: bool | int) -> bool:
    """Whether a flag or a quality says trouble. (True equals 1, which is a good quality: types are told apart.)"""
    return value if isinstance(value, bool) else value > GOOD


@dataclass(slots=True)
class _Standing:
    """One name: what holds now, what was told last."""

    value: bool | int
    told: bool | int
    since: float
    cleared: float | None = None
    count: int = 0
    shown: Json = field(default_factory=dict)  # the detail published last
    told_at: float = float("-inf")  # loop time
    causes: dict[str, Json] = field(default_factory=dict)  # those that hold, each with its particulars
    lapses: dict[str, asyncio.TimerHandle] = field(default_factory=dict)  # by cause
    timer: asyncio.TimerHandle | None = None

    @property
    def detail(self) -> Json:
        """Particulars of the cause that came last of those that hold; nothing of what is over."""
        return next(reversed(self.causes.values()), {})


class Diagnostics:
    """The register. Lives on the loop; writes ``state/diag`` and posts ``diag.changed``."""

    def __init__(self, bulletin: Bulletin, *, wall: Callable[[], float] = time.time) -> None:
        self._bulletin = bulletin
        self._wall = wall
        self._standing: dict[str, _Standing] = {}
        bulletin.set("diag", {})

    def flag(self, name: str, active: bool, *, cause: str = "", lapses_s: float | None = None, **detail: Any) -> None:
        """Report that a flag holds or not. With several ``cause``s it holds until the last of them ends.

        ``detail``: what is wrong, shown while it holds: ``what`` in words for people, figures in SI units.
        ``lapses_s``: nobody will tell that this cause is over: it is, so long after it was reported last.
        """
        standing = self._of(name, DiagnosticType.FLAG, False)
        lapse = standing.lapses.pop(cause, None)
        if lapse is not None:
            lapse.cancel()
        if active and lapses_s is not None:
            standing.lapses[cause] = asyncio.get_running_loop().call_later(
                lapses_s, lambda: self.flag(name, False, cause=cause))
        if active:
            standing.causes[cause] = _known(detail)
        else:
            standing.causes.pop(cause, None)
        self._report(name, standing, bool(standing.causes))

    def quality(self, name: str, value: int, **detail: Any) -> None:
        """Report a quality: 1 good, 2 poor, 3 bad; ``detail`` as of a flag."""
        if value not in (1, 2, 3):
            raise ValueError(f"quality {value} of {name} is not 1, 2 or 3")
        standing = self._of(name, DiagnosticType.QUALITY, GOOD)
        standing.causes = {"": _known(detail)} if is_raised(value) else {}
        self._report(name, standing, value)

    def fault(self, fault: Fault) -> None:
        """Report a fault of a board. ``fault`` in the detail is the kind of it, of an encoder's that of its cause."""
        name = diagnostic_of(fault)
        if name is not None:
            self.flag(name, fault.active, cause=f"{fault.device}/{fault.fault.value}", device=fault.device,
                      fault=(fault.cause or fault.fault).value, what=fault.detail)

    def raised(self, name: str) -> bool:
        """Whether it stands raised (a flag), or is not good (a quality)."""
        standing = self._standing.get(name)
        return standing is not None and is_raised(standing.value)

    def standing(self) -> list[str]:
        """The names raised now."""
        return [name for name in self._standing if self.raised(name)]

    def close(self) -> None:
        """Stop what waits to be told."""
        for standing in self._standing.values():
            for lapse in standing.lapses.values():
                lapse.cancel()
            standing.lapses.clear()
            if standing.timer is not None:
                standing.timer.cancel()
                standing.timer = None

    def _of(self, name: str, kind: DiagnosticType, good: bool | int) -> _Standing:
        if DIAGNOSTICS[name].type is not kind:
            raise ValueError(f"{name} is a {DIAGNOSTICS[name].type.value}")
        return self._standing.setdefault(name, _Standing(good, good, self._wall()))

    def _report(self, name: str, standing: _Standing, value: bool | int) -> None:
        if value == standing.value:
            if is_raised(standing.told) and standing.timer is None and standing.detail != standing.shown:
                self._show(name, standing)  # the same trouble with other particulars: no new edge
            return
        standing.value = value
        if standing.timer is not None:
            return  # the latest value is told when the second is over
        loop = asyncio.get_running_loop()
        wait = standing.told_at + EDGE_S - loop.time()
        if wait <= 0:
            self._tell(name, standing)
        else:
            standing.timer = loop.call_later(wait, self._tell, name, standing)

    def _tell(self, name: str, standing: _Standing) -> None:
        standing.timer = None
        if standing.value == standing.told:
            return  # it came and went within the second
        raised, was_raised = is_raised(standing.value), is_raised(standing.told)
        now = self._wall()
        standing.told, standing.told_at = standing.value, asyncio.get_running_loop().time()
        if raised and not was_raised:
            standing.count += 1
        standing.since = now
        if not raised:
            standing.cleared = now
        words = DIAGNOSTICS[name]
        what = standing.detail.get("what")
        log.log(logging.WARNING if raised else logging.INFO, "%s: %s%s", name, words.message if raised else "over",
                f" ({what})" if what else "", extra={"event": f"diag.{name}"})
        self._show(name, standing)
        self._bulletin.post("diag.changed", diagnostic=name, value=standing.value, valueType=words.type.value,
                            callId=self._bulletin.document("call").get("callId"), detail=standing.detail)

    def _show(self, name: str, standing: _Standing) -> None:
        words = DIAGNOSTICS[name]
        standing.shown = standing.detail
        self._bulletin.merge("diag", **{name: {
            "value": standing.value, "valueType": words.type.value, "since": rfc3339(standing.since),
            "lastCleared": None if standing.cleared is None else rfc3339(standing.cleared),
            "count": standing.count, "detail": standing.shown,
            "message": words.message, "advice": words.advice}})


def _known(detail: Json) -> Json:
    return {key: item for key, item in detail.items() if item not in (None, "")}
