"""Volume and switches of one card. Calls may wait for a driver: on ``hw.cards`` alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Mixer"]

_log = logging.getLogger("hw.audio")

VOLUMES: Final = ("Speaker", "PCM", "Headphone", "Master", "Digital", "HDMI", "Playback", "Lineout")
"""Controls of loudspeakers by preference; of other names the first that has a volume."""

PLAYS: Final = {"Volume", "Joined Volume", "Playback Volume", "Joined Playback Volume"}
"""How alsaaudio names the ability to turn what is played; the first two: together with what is captured."""


class Mixer:
    """The control of a card's loudspeaker and those of its capture switches. A card without any has neither."""

    def __init__(self, card: str) -> None:
        import alsaaudio

        self._error = alsaaudio.ALSAAudioError
        self._speaker: Any = None
        self._switches: list[Any] = []  # of capture
        self._opened: list[Any] = []
        if not card:
            return
        try:
            names = list(dict.fromkeys(alsaaudio.mixers(device=card)))
        except self._error as error:
            _log.info("mixer of %s: %s", card, error)
            return
        for name in sorted(names, key=lambda one: VOLUMES.index(one) if one in VOLUMES else len(VOLUMES)):
            try:
                control = alsaaudio.Mixer(control=name, device=card)
            except self._error:
                continue
            self._opened.append(control)
            if self._speaker is None and PLAYS & set(control.volumecap()):
                self._speaker = control
            if any("Capture Mute" in one for one in control.switchcap()):
                self._switches.append(control)

    def fds(self) -> Sequence[int]:
        """What becomes readable when somebody turns a control."""
        return [number for control in self._opened for number, _ in control.polldescriptors()]

    def refresh(self) -> None:
        """Take in what was turned elsewhere."""
        for control in self._opened:
            try:
                control.handleevents()
            except self._error:  # unplugged
                continue

    @property
    def has_volume(self) -> bool:
        return self._speaker is not None

    def volume(self) -> int | None:
        """Percent; None without such a control."""
        told: int | None = self._ask(self._speaker, lambda control: round(max(control.getvolume())))
        return told

    def set_volume(self, percent: int) -> None:
        self._ask(self._speaker, lambda control: control.setvolume(percent))

    def speaker_muted(self) -> bool:
        return bool(self._ask(self._speaker, lambda control: all(control.getmute())))

    def unmute_speaker(self) -> None:
        self._ask(self._speaker, lambda control: control.setmute(0))

    def capture_muted(self) -> bool:
        """Whether a capture switch is off."""
        return any(self._ask(control, lambda one: not any(one.getrec())) for control in self._switches)

    def switch_capture(self, on: bool) -> None:
        for control in self._switches:
            self._ask(control, lambda one: one.setrec(1 if on else 0))

    def _ask(self, control: Any, question: Any) -> Any:
        """None where there is no such control, it cannot do that, or the card is gone."""
        if control is None:
            return None
        try:
            return question(control)
        except self._error:
            return None

    def close(self) -> None:
        for control in self._opened:
            control.close()
        self._opened.clear()
        self._speaker = None
        self._switches.clear()
