"""Offer and answer for the media lines of a call (RFC 3264), whoever offers, as often as it is done in a call.

``Negotiation`` has our side: where we take media, what we can do, whether we hold. It writes descriptions and reads the
peer's; what both say comes out as ``Agreed`` for each line (``line``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from appliance.media.ways import OurEnd, Place, TheirEnd
from appliance.providers.sip.description import Description, Format, Media, NotAcceptable
from appliance.providers.sip.dtls import does_mux, has_dtls, has_ice
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.line import AUDIO, Agreed, MediaLine
from appliance.providers.sip.video_line import Pictures, VideoLine

__all__ = ["AUDIO", "Agreed", "Carrier", "Negotiation", "NotAcceptable", "Outline"]


class Carrier(Enum):
    """What media go over."""

    PORTS = "RTP on ports of its own, in the clear or with keys of the signalling"
    DTLS = "an association with DTLS, where descriptions say"
    ICE = "an association with DTLS, on a path that ICE finds"

    @classmethod
    def of(cls, theirs: Description) -> Carrier:
        """What an offer of the peer asks for."""
        line = next((one for one in theirs.media if one.kind == "audio" and one.port and has_dtls(theirs, one)), None)
        if line is None:
            return cls.PORTS
        return cls.ICE if has_ice(theirs, line) else cls.DTLS

    @property
    def stand_in(self) -> Mapping[str, Place]:
        """Places for a description that nobody gets."""
        ends = [OurEnd(("192.0.2.1", port), "", "", None, port + 1) for port in (9, 11)]
        return dict(zip(("audio", "video"), ((9, 10), (11, 12)) if self is Carrier.PORTS else ends, strict=True))


@dataclass(frozen=True, slots=True)
class Outline:
    """What places an offer of the peer needs of us. ``pictures``: it has some; ``bundled``: its first sound and its
    first pictures are in one bundle; ``mux``: RTCP goes by the port of RTP in all its lines (RFC 5761)."""

    carrier: Carrier
    pictures: bool = False
    bundled: bool = False
    mux: bool = False

    @classmethod
    def of(cls, offer: bytes) -> Outline:
        """Raises Malformed."""
        theirs = Description.parse(offer)
        lines = [one for one in theirs.media if one.kind in ("audio", "video")]
        firsts = {one.kind: one for one in reversed(lines)}
        return cls(
            Carrier.of(theirs), any(one.kind == "video" and one.port for one in lines),
            theirs.bundles(*(one.attribute("mid") or "" for one in firsts.values())),
            all(does_mux(one) for one in lines if one.port))


class Negotiation:
    """``host`` and ``places`` (by kind): where we take media. ``secure``: SRTP is offered, with keys of the signalling
    where a place has no DTLS. ``insist``: nothing else is taken. ``pictures``: what we can of these; None, or without a
    place: the call is one of sound. ``sending``: we want to send some; ``asked``: and they are part of the first
    offer."""

    def __init__(
        self, host: str, places: Mapping[str, Place], *, formats: Sequence[Format] = AUDIO,
        secure: bool = False, insist: bool = False, pictures: Pictures | None = None, sending: bool = True,
        asked: bool = True,
    ) -> None:
        self.held = False
        self._host = host
        self._secure = secure or insist
        self._session = secrets.randbelow(1 << 62)
        self._version = 0
        self._voice = MediaLine(host, places["audio"], formats, insist=insist)
        self.video = None if pictures is None or "video" not in places else VideoLine(
            host, places["video"], pictures, sending=sending, asked=asked, insist=insist)
        self._lines: list[Media] = []  # as both sides have them, ours among them
        self._bundles = True  # the other side does, as far as is known (RFC 9143)

    @property
    def agreed(self) -> Mapping[str, Agreed]:
        """By kind, as far as there is agreement."""
        return {line.kind: line.agreed for line in self._ours if line.agreed is not None}

    @property
    def outdated(self) -> bool:
        """Whether we want other pictures than our last description says."""
        return self.video is not None and self.video.outdated(held=self.held)

    @property
    def _ours(self) -> Sequence[MediaLine]:
        return (self._voice,) if self.video is None else (self._voice, self.video)

    def forget(self) -> None:
        """Somebody else is called: nothing is agreed."""
        for line in self._ours:
            line.agreed = line.at = None
        self._lines = []

    @property
    def places(self) -> Mapping[str, Place]:
        return {line.kind: line.place for line in self._ours}

    def move(self, places: Mapping[str, Place]) -> None:
        """Media are taken there from the next description on."""
        for line in self._ours:
            line.move(places[line.kind])

    # --- we offer ---------------------------------------------------------------------------------------------------

    def offer(self) -> bytes:
        """Our description; again in the call, with what was agreed kept first."""
        for ours in self._ours:
            if not ours.offered:
                if ours.at is not None:
                    self._lines[ours.at] = self._lines[ours.at].rejected()
                continue
            line = ours.offer(secure=self._secure, held=self.held)
            if ours.at is None:
                ours.at = len(self._lines)
                self._lines.append(line)
            else:
                self._lines[ours.at] = line
        return self._write()

    def leave_feedback(self) -> bool:
        """Offer DTLS by the profile without feedback from now on. False: that was offered already, or none is."""
        left = [line.leave_feedback() for line in self._ours]  # of each
        return any(left)

    def take_answer(self, data: bytes) -> Mapping[str, Agreed]:
        """The answer to our offer: what is agreed, by kind, voice at least. Raises Malformed, and NotAcceptable where
        it refuses that."""
        theirs = Description.parse(data)
        for ours in self._ours:
            if ours.at is None or not ours.offered:
                continue
            try:
                line = _line(theirs, ours.at)
                self._bundle(ours, theirs, ours.mid)
                ours.take_answer(theirs, line, self._lines[ours.at])
            except (Malformed, NotAcceptable) as error:
                if not isinstance(ours, VideoLine):
                    raise
                ours.refuse(str(error))
        return self.agreed

    # --- they offer -------------------------------------------------------------------------------------------------

    def ends(self, offer: bytes) -> Mapping[str, TheirEnd]:
        """Their ends of associations, by kind, as an offer would have them. Raises Malformed and NotAcceptable."""
        theirs = Description.parse(offer)
        found = {}
        for ours in self._ours:
            try:
                found[ours.kind] = ours.end_in(theirs, ours.choose(theirs))
            except (Malformed, NotAcceptable):
                if not isinstance(ours, VideoLine):
                    raise
        return {kind: end for kind, end in found.items() if end is not None}

    def answer(self, data: bytes) -> tuple[bytes, Mapping[str, Agreed]]:
        """The answer to their offer, and what is agreed with it. Raises Malformed and NotAcceptable."""
        theirs = Description.parse(data)
        lines = [one.rejected() for one in theirs.media]
        for ours in self._ours:
            try:
                chosen = ours.choose(theirs)
                self._bundle(ours, theirs, chosen.line.attribute("mid") or "")
                lines[chosen.at] = ours.answer(theirs, chosen, held=self.held)
            except (Malformed, NotAcceptable):
                if not isinstance(ours, VideoLine):
                    raise
                ours.at = next((at for at, one in enumerate(theirs.media) if one.kind == ours.kind), None)
                ours.refuse()
        self._lines = lines
        self._bundles = theirs.bundles(self._voice.mid)
        return self._write(answers=True), self.agreed

    def _bundle(self, ours: MediaLine, theirs: Description, mid: str) -> None:
        """Pictures go beside the sound where both sides bundle them (RFC 9143). Raises NotAcceptable where they want a
        place of their own, and there is none."""
        if ours is self._voice:
            return
        bundled = isinstance(self._voice.place, OurEnd) and theirs.bundles(self._voice.mid, mid)
        ours.lead = self._voice if bundled else None
        if not bundled and ours.place == self._voice.place:
            raise NotAcceptable("the other side takes pictures on a path of their own, and there is none")

    def _write(self, *, answers: bool = False) -> bytes:
        self._version += 1
        return Description(
            self._host, self._group(answers=answers), origin=f"{self._session} {self._version}",
            media=self._lines).text()

    def _group(self, *, answers: bool) -> list[tuple[str, str]]:
        """What may be bundled, in an offer, or is, in an answer; the voice alone for who insists on bundles."""
        if not self._bundles or not isinstance(self._voice.place, OurEnd) or not self._voice.mid:
            return []
        rest = [one for one in self._ours[1:] if one.at is not None and self._lines[one.at].port and one.mid
                and (one.lead is not None or not answers)]
        return [("group", " ".join(["BUNDLE", self._voice.mid, *(one.mid for one in rest)]))]


def _line(theirs: Description, at: int) -> Media:
    """Raises Malformed."""
    if len(theirs.media) <= at:
        raise Malformed("an answer has fewer media lines than the offer")
    return theirs.media[at]
