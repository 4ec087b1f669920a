"""The line of pictures (RFC 6184): H.264, sent and taken as both sides are able and as we want.

A peer that takes no pictures refuses this line alone, and the call is one of sound.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.media.ways import Place, TheirEnd
from appliance.providers.sip.description import Description, Format, Media, NotAcceptable
from appliance.providers.sip.line import Agreed, Chosen, MediaLine, direction
from appliance.providers.sip.sdes import Key

__all__ = ["MODE", "Pictures", "VideoLine", "parameters_of"]

NAME: Final = "h264"
MODE: Final = "packetization-mode"
PROFILES: Final = ("42", "4d", "64", "58")
"""profile_idc, best first: constrained baseline is what we send, and every decoder of the others takes it."""

_PROFILE: Final = re.compile(r"[0-9A-Fa-f]{6}")
DEFAULT_PROFILE: Final = "420010"  # of who says none (RFC 6184 8.1)
FEEDBACK: Final = ("nack pli", "ccm fir")


@dataclass(frozen=True, slots=True)
class Pictures:
    """What we can: ``camera`` and ``screen`` are there; ``slices``: packets without fragments can be sent (mode 0);
    ``level``: level_idc of the largest picture; ``sprop``: parameter sets of the camera, as far as they are known;
    ``receive_bps``: the most that we want of the peer, 0: any."""

    camera: bool = True
    screen: bool = True
    slices: bool = True
    level: int = 31
    sprop: str = ""
    receive_bps: int = 0


class VideoLine(MediaLine):
    """``asked``: offered before there is agreement. ``sending``: we want to send, or will on resuming."""

    kind = "video"
    what = "pictures"

    def __init__(
        self, host: str, place: Place, able: Pictures, *, sending: bool, asked: bool, insist: bool = False,
    ) -> None:
        parameters = f"profile-level-id=42e0{able.level:02x};{MODE}=%d;level-asymmetry-allowed=1"
        super().__init__(host, place, [Format(102, NAME, 90_000, 1, parameters % 1),
                                       Format(103, NAME, 90_000, 1, parameters % 0)], insist=insist)
        self._able = able
        self.sending = sending
        self.asked = asked
        self.refusal = ""
        """Why the peer takes none, for people; empty where it is not known to."""
        self._said: tuple[bool, bool] | None = None  # whether we wanted to send and to take, when we last wrote

    @property
    def offered(self) -> bool:
        """Whether it is part of our offers."""
        return self.agreed is not None or (self.asked and not self.refusal)

    def outdated(self, *, held: bool) -> bool:
        """Whether we want something else than we have said."""
        if self.agreed is None:
            return self.offered and self._said is None
        return self._said != self._wishes(held)

    def refuse(self, why: str = "") -> None:
        """It is not part of the call, or no longer; until we ask for it, where nothing speaks against that."""
        self.agreed, self._said, self.refusal, self.asked = None, None, why, False

    @property
    def sendable(self) -> bool:
        """Whether we can send what is agreed."""
        return self.agreed is not None and self._able.camera and (self._able.slices or _mode(self.agreed.format) == "1")

    def _wishes(self, held: bool) -> tuple[bool, bool]:
        return self.sending and self._able.camera and not held, self._able.screen and not held

    # --- what is different from voice -------------------------------------------------------------------------------

    def offer(self, *, secure: bool, held: bool) -> Media:
        self._said = self._wishes(held)
        return super().offer(secure=secure, held=held)

    def _offered_direction(self, *, held: bool) -> str:
        sends, takes = self._wishes(held)
        return direction(sends=sends and (self.agreed is None or self.sendable), takes=takes)

    def answer(self, theirs: Description, chosen: Chosen, *, held: bool) -> Media:
        self._said = self._wishes(held)
        written = super().answer(theirs, chosen, held=held)
        self.refusal = ""
        return written

    def choose(self, theirs: Description) -> Chosen:
        if not (self._able.camera or self._able.screen):
            raise NotAcceptable("there is neither camera nor screen")
        return super().choose(theirs)

    def _agree(
        self, theirs: Description, line: Media, keys: tuple[Key, Key] | None, end: TheirEnd | None, *, answered: bool,
    ) -> Agreed:
        """With our own wishes, as we have said them, taken off, and of feedback what we say as well."""
        found = super()._agree(theirs, line, keys, end, answered=answered)
        sends, takes = self._said or (False, False)
        able = self._able.slices or _mode(found.format) == "1"
        return replace(found, sends=found.sends and sends and able, receives=found.receives and takes,
                       feedback=found.feedback & set(FEEDBACK))

    def _common(self, line: Media, *, answered: bool) -> Format:
        known = [one for one in line.known_formats() if one.kind == (NAME, 90_000) and _profile(one) in PROFILES
                 and _mode(one) in ("0", "1")]
        if not known:
            raise NotAcceptable("both sides have no form of H.264 in common")
        return known[0] if answered else min(known, key=lambda one: (_mode(one) != "1", PROFILES.index(_profile(one))))

    def _in_use(self, agreed: Agreed) -> list[Format]:
        """Their profile and mode, with the level that we take."""
        theirs = parameters_of(agreed.format)
        told, level = theirs.get("profile-level-id", ""), self._able.level
        if told and theirs.get("level-asymmetry-allowed") != "1":
            level = min(level, int(told[4:], 16))
        more = f";sprop-parameter-sets={self._able.sprop}" if self._able.sprop else ""
        ours = (f"profile-level-id={(told or DEFAULT_PROFILE)[:4]}{level:02x};{MODE}={_mode(agreed.format)};"
                f"level-asymmetry-allowed=1{more}")
        return [replace(agreed.format, parameters=ours)]

    def _offerable(self) -> Sequence[Format]:
        if self.agreed is not None:
            return self._in_use(self.agreed)  # another mode in the call would be of use to nobody
        more = f";sprop-parameter-sets={self._able.sprop}" if self._able.sprop else ""
        return [replace(one, parameters=one.parameters + more) for one in self._formats]

    def _written(
        self, formats: Sequence[Format], proto: str, wish: str, more: Sequence[tuple[str, str]],
    ) -> Media:
        written = super()._written(formats, proto, wish, more)
        written.bandwidth = self._able.receive_bps
        return written

    def _more(self) -> Sequence[tuple[str, str]]:
        return [("rtcp-fb", f"* {what}") for what in FEEDBACK]


def parameters_of(one: Format) -> dict[str, str]:
    """Its ``a=fmtp`` as pairs, names in lower case."""
    pairs = (part.partition("=") for part in one.parameters.split(";") if part.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _profile(one: Format) -> str:
    """profile_idc in hexadecimal; empty for what is none."""
    told = parameters_of(one).get("profile-level-id", DEFAULT_PROFILE)
    return told[:2].lower() if _PROFILE.fullmatch(told) else ""


def _mode(one: Format) -> str:
    return parameters_of(one).get(MODE, "0")
