"""One media line of offer and answer (RFC 3264): our side of it, and what both sides have agreed for it.

``offer.Negotiation`` has the lines of a description, and whoever offers asks each for its part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from appliance.media.ways import OurEnd, Place, TheirEnd
from appliance.providers.sip.description import Description, Format, Media, NotAcceptable, is_address
from appliance.providers.sip.dtls import OFFERED, PROFILE, attributes_of, does_mux, has_dtls, their_end
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.sdes import SUITES, Key, parse_crypto

__all__ = ["AUDIO", "Agreed", "Chosen", "MediaLine", "direction"]

EVENT: Final = "telephone-event"
NOISE: Final = "cn"  # comfort noise (RFC 3389), taken and never sent
AUDIO: Final = (
    Format(96, "opus", 48_000, 2, "useinbandfec=1"), Format(9, "g722", 8000), Format(8, "pcma", 8000),
    Format(0, "pcmu", 8000), Format(13, NOISE, 8000), Format(97, EVENT, 48_000, 1, "0-15"),
    Format(101, EVENT, 8000, 1, "0-15"),
)
"""What is offered, best first."""

PLAIN, SECURE = "RTP/AVP", "RTP/SAVP"


@dataclass(frozen=True, slots=True)
class Agreed:
    """``format``: with the payload type that the peer wants. ``event``: payload type of telephone events, and
    ``event_kind`` their name and clock. ``noise``: payload type of comfort noise. ``host``, ``port``, ``rtcp``: where
    the peer takes RTP and RTCP (None: one above; ``mux``: the same, RFC 5761). ``sends``: we may send; ``receives``:
    the peer will. ``keys``: ours and theirs of SRTP, where signalling has them; ``end``: theirs of the association that
    makes them. ``place``: of ours, that it was agreed for. ``feedback`` and ``bandwidth``: what the peer takes of
    these, as in
    ``StreamFormat``."""

    format: Format
    event: int | None
    event_kind: tuple[str, int]
    packet_time_ms: int
    host: str
    port: int
    rtcp: int | None
    mux: bool
    sends: bool
    receives: bool
    keys: tuple[Key, Key] | None = None
    noise: int | None = None
    end: TheirEnd | None = None
    place: Place | None = None
    feedback: frozenset[str] = frozenset()
    bandwidth: int = 0

    def beside(self) -> list[Format]:
        """What is agreed beside the codec, as our own descriptions have it."""
        noise = [] if self.noise is None else [Format(self.noise, NOISE, self.format.clock_rate)]
        return noise if self.event is None else [*noise, Format(self.event, *self.event_kind, 1, "0-15")]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of an offer: the line that we take, where it stands, and our keys and theirs."""

    at: int
    line: Media
    keys: tuple[Key, Key] | None


class MediaLine:
    """Our voice. ``host`` and ``place``: where we take it. ``insist``: nothing is taken without SRTP."""

    kind = "audio"
    what = "sound"

    def __init__(self, host: str, place: Place, formats: Sequence[Format], *, insist: bool = False) -> None:
        self._host = host
        self._place = self._offered_place = place
        self.lead: MediaLine | None = None
        """The line in whose place we take this one too: they are a bundle (RFC 9143)."""
        self._formats = tuple(formats)
        self._insist = insist
        self._offered: list[Key] = []
        self._profile = OFFERED
        self.mid = self.kind
        self.agreed: Agreed | None = None
        self.at: int | None = None
        """Which line of the description it is; None before there is one."""

    @property
    def place(self) -> Place:
        return self._place if self.lead is None else self.lead.place

    def move(self, place: Place) -> None:
        """We take it there from the next description on. With another certificate it is another association."""
        before, self._place = self.place, place
        same = isinstance(before, OurEnd) and isinstance(place, OurEnd) and before.fingerprint == place.fingerprint
        if not same:
            self.lead = None
            self.agreed = None if self.agreed is None else replace(self.agreed, end=None)

    # --- we offer ---------------------------------------------------------------------------------------------------

    @property
    def offered(self) -> bool:
        """Whether it is part of our offers."""
        return True

    def offer(self, *, secure: bool, held: bool) -> Media:
        """Our line; again in the call, with what was agreed kept first."""
        agreed, place = self.agreed, self.place
        self._offered_place = place
        wish = self._offered_direction(held=held)
        if isinstance(place, OurEnd):
            mux = None if agreed is None or agreed.end is None else agreed.mux
            return self._written(
                self._offerable(), self._profile, wish, attributes_of(place, "actpass", tls_id=True, mux=mux))
        if agreed is None:
            self._offered = [Key.new(suite) for suite in SUITES] if secure else []
        else:  # the key in use: another one would begin its counters anew
            self._offered = [agreed.keys[0]] if agreed.keys is not None else []
        return self._written(
            self._offerable(), SECURE if self._offered else PLAIN, wish,
            [("rtcp-mux", ""), *(("crypto", f"{number} {key}") for number, key in enumerate(self._offered, 1))])

    def leave_feedback(self) -> bool:
        """See ``Negotiation.leave_feedback``."""
        before, self._profile = self._profile, PROFILE
        return before != PROFILE and isinstance(self.place, OurEnd)

    def _offered_direction(self, *, held: bool) -> str:
        return direction(sends=self.agreed is None or self.agreed.sends or not held, takes=not held)

    def _offerable(self) -> Sequence[Format]:
        """All that we can; what is agreed first, and under the numbers that the peer knows it by."""
        agreed = self.agreed
        if agreed is None:
            return self._formats
        known = self._in_use(agreed)
        taken = {one.payload_type for one in known}
        kinds = {one.kind for one in known}
        return [*known, *(one for one in self._formats if one.kind not in kinds and one.payload_type not in taken)]

    def take_answer(self, theirs: Description, line: Media, ours: Media) -> Agreed:
        """The answer to ``ours``. Raises Malformed, and NotAcceptable where it refuses the line."""
        if line.port == 0:
            raise NotAcceptable(f"the other side takes no {self.what}")
        keys = end = None
        if isinstance(self._offered_place, OurEnd):
            if not has_dtls(theirs, line):
                raise NotAcceptable(f"the answer takes no {self.what} with DTLS")
            end = self._their_end(theirs, line, answers=True, mux=does_mux(ours) and does_mux(line))
        elif ours.proto.startswith(SECURE):
            keys = self._chosen_keys(line)
        elif line.proto.startswith(SECURE):
            raise NotAcceptable("the answer encrypts what was offered in the clear")
        place = (self.lead or self)._offered_place
        self.agreed = replace(self._agree(theirs, line, keys, end, answered=True), place=place)
        return self.agreed

    def _their_end(self, theirs: Description, line: Media, *, answers: bool, mux: bool) -> TheirEnd:
        """Raises Malformed and NotAcceptable."""
        if self.lead is not None and self.lead.agreed is not None and self.lead.agreed.end is not None:
            return self.lead.agreed.end
        before = None if self.agreed is None else self.agreed.end
        return their_end(theirs, line, answers=answers, before=before, mux=mux)

    def _chosen_keys(self, line: Media) -> tuple[Key, Key]:
        for value in line.all("crypto"):
            found = parse_crypto(value)
            if found is not None and 1 <= found[0] <= len(self._offered):
                mine = self._offered[found[0] - 1]
                if mine.suite == found[1].suite:
                    return mine, found[1]
        raise NotAcceptable("the answer has no key for encryption")

    # --- they offer -------------------------------------------------------------------------------------------------

    def choose(self, theirs: Description) -> Chosen:
        """The line of their offer that is ours. Raises NotAcceptable where there is none."""
        why = f"the other side offers no {self.what}"
        for at, line in enumerate(theirs.media):
            if line.kind != self.kind or line.port == 0:
                continue
            if has_dtls(theirs, line):
                if isinstance(self.place, OurEnd):
                    return Chosen(at, line, None)
                why = f"{self.what} with DTLS is not taken here"
            elif isinstance(self.place, OurEnd):
                why = f"the other side offers no {self.what} with DTLS"
            elif line.proto.startswith(SECURE):
                known = [found[1] for value in line.all("crypto") if (found := parse_crypto(value)) is not None]
                best = next((key for suite in SUITES for key in known if key.suite == suite), None)
                if best is not None:
                    return Chosen(at, line, (self._own_key(best), best))
                why = "the other side encrypts in no way that is known here"
            elif line.proto.startswith(PLAIN):
                if not self._insist:
                    return Chosen(at, line, None)
                why = f"the other side offers {self.what} without encryption, which sip.require_encryption forbids"
            else:
                why = f"{self.what} over {line.proto} is not known here"
        raise NotAcceptable(why)

    def _own_key(self, theirs: Key) -> Key:
        """The one in use stays where theirs does: a new one would begin its counters anew."""
        before = self.agreed.keys if self.agreed is not None else None
        return before[0] if before is not None and before[1] == theirs else Key.new(theirs.suite)

    def answer(self, theirs: Description, chosen: Chosen, *, held: bool) -> Media:
        """Our line for theirs; ``agreed`` is set. Raises Malformed and NotAcceptable."""
        line, keys, more = chosen.line, chosen.keys, list[tuple[str, str]]()
        end = self.end_in(theirs, chosen)
        agreed = replace(self._agree(theirs, line, keys, end, answered=False), place=self.place)
        if keys is not None:
            number = next(found[0] for value in line.all("crypto") if (found := parse_crypto(value)) is not None
                          and found[1] == keys[1])
            more = [("crypto", f"{number} {keys[0]}")]
        elif end is not None and isinstance(self.place, OurEnd):
            if not (end.mux or self.place.rtcp):
                raise NotAcceptable("the other side takes RTCP on a port of its own, and there is none here")
            self._profile, self.mid = line.proto, line.attribute("mid") or ""
            more = attributes_of(
                self.place, "passive" if end.client else "active", tls_id=bool(end.tls_id), mux=end.mux)
        if agreed.mux and end is None:
            more.append(("rtcp-mux", ""))
        self.agreed, self.at = agreed, chosen.at
        wish = direction(sends=agreed.sends, takes=agreed.receives and not held)
        return self._written(self._in_use(agreed), line.proto, wish, more)

    def end_in(self, theirs: Description, chosen: Chosen) -> TheirEnd | None:
        """Their end of the association in an offer; None for a line without. Raises Malformed and NotAcceptable."""
        if not isinstance(self.place, OurEnd):
            return None
        return self._their_end(theirs, chosen.line, answers=False, mux=does_mux(chosen.line))

    # --- both -------------------------------------------------------------------------------------------------------

    def _in_use(self, agreed: Agreed) -> list[Format]:
        """What is agreed, in our words, and under the peer's numbers."""
        ours = next((mine.parameters for mine in self._formats if mine.kind == agreed.format.kind), "")
        return [replace(agreed.format, parameters=ours), *agreed.beside()]

    def _agree(
        self, theirs: Description, line: Media, keys: tuple[Key, Key] | None, end: TheirEnd | None, *, answered: bool,
    ) -> Agreed:
        chosen, offered = self._common(line, answered=answered), line.known_formats()
        events = [one for one in offered if one.name == EVENT]
        event = next((one for one in events if one.clock_rate == chosen.clock_rate), events[0] if events else None)
        noise = next((one for one in offered if one.kind == (NOISE, chosen.clock_rate)), None)
        ice = end is not None and end.ice is not None
        told = theirs.direction_of(line, ice=ice)
        mux = does_mux(line) if end is None else end.mux
        rtcp = "" if mux else (line.attribute("rtcp") or "").split(" ")[0]
        return Agreed(
            chosen, event.payload_type if event is not None else None, event.kind if event is not None else (EVENT, 0),
            _packet_time(line, chosen), theirs.where(line) if ice else self._where(theirs, line), line.port,
            int(rtcp) if rtcp.isascii() and rtcp.isdigit() and 0 < int(rtcp) < 65536 else None, mux,
            sends=told in ("sendrecv", "recvonly"), receives=told in ("sendrecv", "sendonly"), keys=keys,
            noise=noise.payload_type if noise is not None else None, end=end, feedback=_feedback(line, chosen),
            bandwidth=line.bandwidth)

    def _common(self, line: Media, *, answered: bool) -> Format:
        """Ours and theirs, as theirs has it. Raises NotAcceptable."""
        order = [one.kind for one in self._formats if one.name not in (EVENT, NOISE)]
        common = [one for one in line.known_formats() if one.kind in order]
        if not answered:  # our own taste decides among what is offered
            common.sort(key=lambda one: order.index(one.kind))
        if not common:
            raise NotAcceptable("both sides have no codec in common")
        return common[0]

    def _where(self, theirs: Description, line: Media) -> str:
        """The address that they take it at. Raises Malformed and NotAcceptable."""
        host = theirs.where(line)
        if not is_address(host) or ip_address(host).is_multicast:
            raise Malformed("the address of a session description is a name, or that of many")
        if (":" in host) != (":" in self._host):
            raise NotAcceptable(f"the other side takes {self.what} over another version of IP than its signalling")
        if ip_address(host).is_unspecified and self.agreed is not None:  # a hold of before RFC 3264
            return self.agreed.host
        return host

    def _written(
        self, formats: Sequence[Format], proto: str, wish: str, more: Sequence[tuple[str, str]],
    ) -> Media:
        attributes = [pair for one in formats for pair in one.attributes()]
        attributes += more
        if isinstance(self.place, OurEnd):
            host, port = self.place.address
            attributes += [("mid", self.mid)] if self.mid else []
            attributes.append(("msid", f"edgecall {self.kind}"))  # pages of telephones look for a stream (RFC 8830)
        else:
            host, (port, rtcp) = "", self.place
            if rtcp != port + 1:
                attributes.append(("rtcp", str(rtcp)))
        attributes += [*self._more(), (wish, "")]
        return Media(self.kind, port, proto, [str(one.payload_type) for one in formats], host, attributes)

    def _more(self) -> Sequence[tuple[str, str]]:
        """Attributes of this kind alone."""
        return [("ptime", str(20 if self.agreed is None else self.agreed.packet_time_ms))]


def direction(*, sends: bool, takes: bool) -> str:
    """Ours, as it stands in a description."""
    if sends:
        return "sendrecv" if takes else "sendonly"
    return "recvonly" if takes else "inactive"


def _feedback(line: Media, chosen: Format) -> frozenset[str]:
    """Of ``a=rtcp-fb`` what holds for this format; also without the profile for it (RTP/AVPF), as telephones do."""
    told = (value.partition(" ") for value in line.all("rtcp-fb"))
    return frozenset(" ".join(what.lower().split()) for number, _, what in told
                     if number in ("*", str(chosen.payload_type)))


def _packet_time(line: Media, chosen: Format) -> int:
    """Milliseconds of voice in a packet that we send: what the peer asks for, within what we can and it takes."""
    def number(name: str) -> int:
        text = (line.attribute(name) or "").partition(".")[0]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0

    step = 20 if chosen.name == "opus" else 10
    wanted = number("ptime") or 20
    if most := number("maxptime"):
        wanted = min(wanted, most)
    return max(step, min(60, wanted // step * step))
