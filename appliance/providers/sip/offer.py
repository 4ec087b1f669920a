"""Offer and answer for one line of voice (RFC 3264), whoever offers, as often as it is done in a call.

``Negotiation`` has our side: where we take media, what we can do, whether we hold. It writes descriptions and reads the
peer's; what both say comes out as ``Agreed``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from appliance.providers.sip.description import Description, Format, Media, is_address
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.sdes import SUITES, Key, parse_crypto

__all__ = ["AUDIO", "Agreed", "Negotiation", "NotAcceptable"]

EVENT: Final = "telephone-event"
AUDIO: Final = (
    Format(96, "opus", 48_000, 2, "useinbandfec=1"), Format(9, "g722", 8000), Format(8, "pcma", 8000),
    Format(0, "pcmu", 8000), Format(97, EVENT, 48_000, 1, "0-15"), Format(101, EVENT, 8000, 1, "0-15"),
)
"""What is offered, best first."""

PLAIN, SECURE = "RTP/AVP", "RTP/SAVP"


class NotAcceptable(Exception):
    """The peer's description and ours have nothing in common: 488. The words say what."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """``format``: with the payload type that the peer wants. ``event``: payload type of telephone events, and
    ``event_kind`` their name and clock. ``host``, ``port``, ``rtcp``: where the peer takes RTP and RTCP (None: one
    above). ``sends``: we may send; ``receives``: the peer will. ``keys``: ours and theirs of SRTP."""

    format: Format
    event: int | None
    event_kind: tuple[str, int]
    packet_time_ms: int
    host: str
    port: int
    rtcp: int | None
    sends: bool
    receives: bool
    keys: tuple[Key, Key] | None = None


class Negotiation:
    """``host`` and ``ports`` (RTP, RTCP): where we take media. ``secure``: SRTP is offered. ``insist``: nothing else is
    taken."""

    def __init__(
        self, host: str, ports: tuple[int, int], *, formats: Sequence[Format] = AUDIO, secure: bool = False,
        insist: bool = False,
    ) -> None:
        self.held = False
        self._host = host
        self._ports = ports
        self._formats = tuple(formats)
        self._secure = secure or insist
        self._insist = insist
        self._session = secrets.randbelow(1 << 62)
        self._version = 0
        self._lines: list[Media] = []  # as both sides have them, ours among them
        self._at = 0  # which of them is ours
        self._offered: list[Key] = []
        self.agreed: Agreed | None = None

    # --- we offer ---------------------------------------------------------------------------------------------------

    def offer(self) -> bytes:
        """Our description; again in the call, with what was agreed kept first."""
        agreed = self.agreed
        if agreed is None:
            self._offered = [Key.new(suite) for suite in SUITES] if self._secure else []
        else:  # the key in use: another one would begin its counters anew
            self._offered = [agreed.keys[0]] if agreed.keys is not None else []
        secure = bool(self._offered)
        return self._write(self._line(
            self._offerable(), SECURE if secure else PLAIN,
            self._direction(True, agreed is None or agreed.sends or not self.held),
            [f"{number} {key}" for number, key in enumerate(self._offered, 1)]))

    def _offerable(self) -> Sequence[Format]:
        """All that we can; what is agreed first, and under the numbers that the peer knows it by."""
        agreed = self.agreed
        if agreed is None:
            return self._formats
        known = [replace(agreed.format, parameters=self._parameters(agreed.format))]
        if agreed.event is not None:
            known.append(Format(agreed.event, *agreed.event_kind, 1, "0-15"))
        taken = {one.payload_type for one in known}
        kinds = {one.kind for one in known}
        return [*known, *(one for one in self._formats if one.kind not in kinds and one.payload_type not in taken)]

    def _parameters(self, one: Format) -> str:
        return next((mine.parameters for mine in self._formats if mine.kind == one.kind), "")

    def take_answer(self, data: bytes) -> Agreed:
        """The answer to our offer. Raises Malformed, and NotAcceptable where it refuses the line."""
        theirs = Description.parse(data)
        if len(theirs.media) <= self._at:
            raise Malformed("an answer has fewer media lines than the offer")
        line = theirs.media[self._at]
        ours = self._lines[self._at]
        if line.port == 0:
            raise NotAcceptable("the other side takes no sound")
        keys = None
        if ours.proto.startswith(SECURE):
            keys = self._chosen(line)
        elif line.proto.startswith(SECURE):
            raise NotAcceptable("the answer encrypts what was offered in the clear")
        self.agreed = self._agree(theirs, line, keys, answered=True)
        return self.agreed

    def _chosen(self, line: Media) -> tuple[Key, Key]:
        for value in line.all("crypto"):
            found = parse_crypto(value)
            if found is not None and 1 <= found[0] <= len(self._offered):
                mine = self._offered[found[0] - 1]
                if mine.suite == found[1].suite:
                    return mine, found[1]
        raise NotAcceptable("the answer has no key for encryption")

    # --- they offer -------------------------------------------------------------------------------------------------

    def answer(self, data: bytes) -> tuple[bytes, Agreed]:
        """The answer to their offer, and what is agreed with it. Raises Malformed and NotAcceptable."""
        theirs = Description.parse(data)
        at, line, keys = self._acceptable(theirs)
        agreed = self._agree(theirs, line, keys, answered=False)
        formats = [replace(agreed.format, parameters=self._parameters(agreed.format))]
        if agreed.event is not None:
            formats.append(Format(agreed.event, *agreed.event_kind, 1, "0-15"))
        crypto = []
        if keys is not None:
            number = next(found[0] for value in line.all("crypto") if (found := parse_crypto(value)) is not None
                          and found[1] == keys[1])
            crypto = [f"{number} {keys[0]}"]
        self.agreed, self._at = agreed, at
        self._lines = [one.rejected() for one in theirs.media]
        direction = self._direction(agreed.receives, agreed.sends)
        return self._write(self._line(formats, line.proto, direction, crypto)), agreed

    def _acceptable(self, theirs: Description) -> tuple[int, Media, tuple[Key, Key] | None]:
        why = "the other side offers no sound"
        for at, line in enumerate(theirs.media):
            if line.kind != "audio" or line.port == 0:
                continue
            if line.proto.startswith(SECURE):
                known = [found[1] for value in line.all("crypto") if (found := parse_crypto(value)) is not None]
                best = next((key for suite in SUITES for key in known if key.suite == suite), None)
                if best is not None:
                    return at, line, (self._own_key(best), best)
                why = "the other side encrypts in no way that is known here"
            elif line.proto.startswith(PLAIN):
                if not self._insist:
                    return at, line, None
                why = "the other side offers sound without encryption, which sip.require_encryption forbids"
            else:
                why = f"sound over {line.proto} is not known here"
        raise NotAcceptable(why)

    def _own_key(self, theirs: Key) -> Key:
        """The one in use stays where theirs does: a new one would begin its counters anew."""
        before = self.agreed.keys if self.agreed is not None else None
        return before[0] if before is not None and before[1] == theirs else Key.new(theirs.suite)

    # --- both -------------------------------------------------------------------------------------------------------

    def _agree(
        self, theirs: Description, line: Media, keys: tuple[Key, Key] | None, *, answered: bool,
    ) -> Agreed:
        host = theirs.where(line)
        if not is_address(host) or ip_address(host).is_multicast:
            raise Malformed("the address of a session description is a name, or that of many")
        if (":" in host) != (":" in self._host):
            raise NotAcceptable("the other side takes sound over another version of IP than its signalling")
        if ip_address(host).is_unspecified and self.agreed is not None:  # a hold of before RFC 3264
            host = self.agreed.host
        offered = line.known_formats()
        order = [one.kind for one in self._formats if one.name != EVENT]
        common = [one for one in offered if one.kind in order]
        if not answered:  # our own taste decides among what is offered
            common.sort(key=lambda one: order.index(one.kind))
        if not common:
            raise NotAcceptable("both sides have no codec in common")
        chosen = common[0]
        events = [one for one in offered if one.name == EVENT]
        event = next((one for one in events if one.clock_rate == chosen.clock_rate), events[0] if events else None)
        direction = theirs.direction_of(line)
        rtcp = (line.attribute("rtcp") or "").split(" ")[0]
        return Agreed(
            chosen, event.payload_type if event is not None else None, event.kind if event is not None else (EVENT, 0),
            _packet_time(line, chosen), host, line.port,
            int(rtcp) if rtcp.isascii() and rtcp.isdigit() and 0 < int(rtcp) < 65536 else None,
            sends=direction in ("sendrecv", "recvonly"), receives=direction in ("sendrecv", "sendonly"), keys=keys)

    def _direction(self, peer_sends: bool, peer_takes: bool = True) -> str:
        """Ours: what we send, and whether what they send is wanted."""
        sends, takes = peer_takes, peer_sends and not self.held
        if sends:
            return "sendrecv" if takes else "sendonly"
        return "recvonly" if takes else "inactive"

    def _line(self, formats: Sequence[Format], proto: str, direction: str, crypto: Sequence[str]) -> Media:
        attributes = [pair for one in formats for pair in one.attributes()]
        attributes += [("crypto", one) for one in crypto]
        if self._ports[1] != self._ports[0] + 1:
            attributes.append(("rtcp", str(self._ports[1])))
        ptime = 20 if self.agreed is None else self.agreed.packet_time_ms
        attributes += [("ptime", str(ptime)), (direction, "")]
        return Media("audio", self._ports[0], proto, [str(one.payload_type) for one in formats],
                     attributes=attributes)

    def _write(self, line: Media) -> bytes:
        self._version += 1
        if self._lines:
            self._lines[self._at] = line
        else:
            self._lines = [line]
        return Description(self._host, origin=f"{self._session} {self._version}", media=self._lines).text()


def _packet_time(line: Media, chosen: Format) -> int:
    """Milliseconds of voice in a packet that we send: what the peer asks for, within what we can and it takes."""
    def number(name: str) -> int:
        text = (line.attribute(name) or "").partition(".")[0]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0

    step = 20 if chosen.name in ("g722", "opus") else 10
    wanted = number("ptime") or 20
    if most := number("maxptime"):
        wanted = min(wanted, most)
    return max(step, min(60, wanted // step * step))
