"""The boundary for session descriptions of others, and what aiortc's offer/answer cannot do by itself.

aiortc parses by assertion: mutated offers left it as seven different exceptions, and two megabytes of SDP stood the
loop still for a second (measured). So descriptions are limited, cut to one line per kind, and lines that have no
codec in common are rejected by JSEP's rule (RFC 9429 5.3.1: port zero) instead of failing the whole call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from appliance.errors import Refused, SignalingError
from appliance.media.voice_codecs import VOICE_CODECS

__all__ = [
    "MAX_SDP",
    "Rejected",
    "Section",
    "SessionText",
    "admit_answer",
    "admit_data_offer",
    "admit_offer",
    "admit_room_offer",
    "finish_answer",
    "format_parameters",
    "require_dtls",
    "start_boldly",
    "usable_candidate",
]

MAX_SDP: Final = 64 * 1024  # bytes
MAX_SECTIONS: Final = 16
MAX_ROOM_SECTIONS: Final = 48  # of a room's offer: lines that nobody is on any more stay in it
START_KBPS: Final = 1200
KINDS: Final = ("audio", "video", "application")
STATIC: Final = {"0": "pcmu/8000", "8": "pcma/8000", "9": "g722/8000"}
MAX_LINES: Final = 512  # of one media section; a browser's with simulcast has 150
MAX_FORMATS: Final = 128  # payload types there can be
MAX_CANDIDATES: Final = 64  # of one media section, and in trickling
_MEDIA_LINE: Final = re.compile(  # RFC 8866 5.14; kind and protocol are told to people
    r"m=([A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,32}) (\d{1,5})(?:/\d{1,5})? ([A-Za-z0-9/.+-]{1,64}) (\S.*)"
)
_CANDIDATE: Final = re.compile(  # RFC 8839 5.1
    r"(?:a=)?candidate:[A-Za-z0-9+/]{1,32} (?P<component>\d{1,3}) (?P<transport>[A-Za-z]{3,8}) (?P<priority>\d{1,10}) "
    r"(?P<host>[A-Za-z0-9.:%_-]{1,255}) (?P<port>\d{1,5}) typ (?P<type>[a-z]{1,16})"
    r"(?: raddr [A-Za-z0-9.:%_-]{1,255} rport \d{1,5})?(?: (?!raddr |rport )\S{1,64} \S{1,255})* *"
)
_H264_PROFILES: Final = ("42e0", "42c0", "4200", "4280", "42a0", "4240", "4260")
_OF_GATHERING: Final = ("a=candidate:", "a=end-of-candidates")


@dataclass(slots=True)
class Section:
    """One media section: its m-line and attributes."""

    kind: str
    port: int
    proto: str
    formats: list[str]
    lines: list[str]

    def attribute(self, name: str) -> str | None:
        """Value of the first ``a=name:value``."""
        prefix = f"a={name}:"
        return next((line[len(prefix) :] for line in self.lines if line.startswith(prefix)), None)

    @property
    def mid(self) -> str:
        return self.attribute("mid") or ""

    def text(self) -> str:
        return "\r\n".join([f"m={self.kind} {self.port} {self.proto} {' '.join(self.formats)}", *self.lines, ""])


@dataclass(slots=True)
class SessionText:
    """A description as text, cut in sections; nothing else is interpreted."""

    head: list[str]
    sections: list[Section]

    @classmethod
    def parse(cls, text: str, most: int = MAX_SECTIONS) -> SessionText:
        """``most``: sections there may be. Raises SignalingError."""
        if len(text.encode("utf-8", "replace")) > MAX_SDP:
            raise SignalingError(
                f"the session description is larger than {MAX_SDP // 1024} KiB", sub_code="sdpTooLarge"
            )
        head: list[str] = []
        sections: list[Section] = []
        for line in text.splitlines():
            if not line:
                continue
            if line.startswith("m="):
                match = _MEDIA_LINE.fullmatch(line)
                if match is None:
                    raise SignalingError("the session description has a malformed media line", sub_code="badSdp")
                kind, port, proto, formats = match.groups()
                if int(port) > 65535:
                    raise SignalingError("the session description has a malformed media line", sub_code="badSdp")
                sections.append(Section(kind, int(port), proto, formats.split(), []))
            elif sections:
                sections[-1].lines.append(line)
            else:
                head.append(line)
        if any(len(section.lines) > MAX_LINES or len(section.formats) > MAX_FORMATS for section in sections):
            raise SignalingError("a media section has more lines or formats than any real one", sub_code="badSdp")
        if any(sum(line.startswith("a=mid:") for line in section.lines) > 1 for section in sections):
            raise SignalingError("a media section has two names (a=mid)", sub_code="badSdp")
        if not sections or len(sections) > most:
            raise SignalingError(f"the session description has {len(sections)} media sections", sub_code="badSdp")
        return cls(head, sections)

    def text(self) -> str:
        bundle = " ".join(["a=group:BUNDLE", *(section.mid for section in self.sections if section.port)])
        head = [bundle if line.startswith("a=group:BUNDLE") else line for line in self.head]
        return "\r\n".join([*head, ""]) + "".join(section.text() for section in self.sections)


@dataclass(slots=True)
class Rejected:
    """Sections of an offer that we do not take, with their place; put back with port zero into the answer."""

    places: dict[int, Section] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # kind -> why, for people
    order: list[int] = field(default_factory=list)  # places of the sections that are taken


def usable_candidate(text: str, *, rtcp: bool = False) -> bool:
    """Whether a candidate line is one to check: RTP over UDP, to an address that can be a peer's. ``rtcp``: or RTCP on
    a port of its own.

    Raises SignalingError for what is no candidate at all.
    """
    match = _CANDIDATE.fullmatch(text.strip())
    if match is None or not 0 < int(match["port"]) < 65536 or not 0 <= int(match["priority"]) < 1 << 32:
        raise SignalingError("that is no ICE candidate", sub_code="badCandidate")
    if match["transport"].lower() != "udp" or match["component"] not in (("1", "2") if rtcp else ("1",)):
        return False
    if match["type"] not in ("host", "srflx", "prflx", "relay"):
        return False
    if match["host"].endswith(".local"):
        return True
    try:
        address = ip_address(match["host"])
    except ValueError:
        return False  # a name: RFC 8839 lets one ignore it
    return not (address.is_multicast or address.is_unspecified)


def _only_usable_candidates(section: Section) -> None:
    """Remove candidates that nobody could check (RFC 8839 5.1: they are ignored, the description is not)."""
    candidates = [line for line in section.lines if line.startswith("a=candidate:") and _is_usable(line)]
    keep = set(candidates[:MAX_CANDIDATES])
    section.lines = [line for line in section.lines if not line.startswith("a=candidate:") or line in keep]


def _share_candidates(sections: list[Section]) -> None:
    """Give every line the candidates of the first that has any: all are bundled into one transport.

    A browser's answer has them in its first line alone, its offer others in each line, of which only those of the first
    remain (RFC 9143 7.3.1); aiortc takes those of the last line. It would not send a check of its own to the right
    place, without which no NAT lets the peer's in.
    """
    kept = [[line for line in section.lines if line.startswith(_OF_GATHERING)] for section in sections]
    shared = next((lines for lines in kept if any(line.startswith("a=candidate:") for line in lines)), [])
    for section in sections:
        section.lines = [line for line in section.lines if not line.startswith(_OF_GATHERING)] + shared


def _is_usable(line: str) -> bool:
    try:
        return usable_candidate(line)
    except SignalingError:
        return False


def start_boldly(text: str) -> str:
    """Our description with a hint to libwebrtc to begin at START_KBPS instead of 300 kbit/s, at which it shrinks its
    first pictures to 360p for ten seconds. Everybody else ignores the parameter."""
    hint = f";x-google-start-bitrate={START_KBPS}"
    return re.sub(r"(a=fmtp:\d+ [^\r\n]*profile-level-id=[0-9a-f]{6})", rf"\g<1>{hint}", text)


def admit_offer(text: str) -> tuple[str, list[str], Rejected]:
    """Take an offer: the part aiortc may see, its kinds in order, and what is rejected.

    Raises SignalingError, or Refused(488/noCodec) when nothing can be taken.
    """
    session = SessionText.parse(text)
    rejected = Rejected()
    taken: list[Section] = []
    for place, section in enumerate(session.sections):
        reason = _reason_against(section, [other.kind for other in taken])
        if reason:
            rejected.places[place] = section
            rejected.reasons.setdefault(section.kind, reason)
        else:
            if section.kind != "application":
                _only_known_codecs(section)
            _only_usable_candidates(section)
            rejected.order.append(place)
            taken.append(section)
    if not any(section.kind in ("audio", "video") for section in taken):
        raise Refused(
            "no media line of the offer has a codec in common: Edgecall speaks Opus, G.722, G.711 and H.264 baseline",
            code=488, sub_code="noCodec",
        )
    names = [section.mid for section in taken if section.mid]
    if len(names) > len(set(names)):
        raise SignalingError("two media sections have one name (a=mid)", sub_code="badSdp")
    session.sections = taken
    _share_candidates(taken)
    return session.text(), [section.kind for section in taken], rejected


def admit_room_offer(text: str) -> str:
    """Take the offer of a room, whose lines are many of one kind: the part aiortc may see.

    Raises SignalingError, also when a line is of a codec that nobody asked for: only what can be used is subscribed.
    """
    session = SessionText.parse(text, MAX_ROOM_SECTIONS)
    data = [section for section in session.sections if section.kind == "application"]
    if len(data) > 1 or not all(section.proto.endswith("SCTP") and section.mid for section in data):
        raise SignalingError("the room offers lines of data that cannot be used", sub_code="badSdp")
    for section in session.sections:
        if section in data:
            _only_usable_candidates(section)
            continue
        if section.kind not in ("audio", "video") or not section.mid:
            raise SignalingError(f"the room offers a line of {section.kind} that cannot be used", sub_code="badSdp")
        _only_known_codecs(section)
        if not section.formats:
            raise SignalingError(f"the room offers {section.kind} of no codec that was asked for", sub_code="badSdp")
        _only_usable_candidates(section)
    _share_candidates(session.sections)
    return session.text()


def admit_data_offer(text: str) -> str:
    """Take the offer of a connection for data alone: the part aiortc may see. Raises SignalingError for any other."""
    session = SessionText.parse(text)
    if len(session.sections) > 1 or not session.sections[0].proto.endswith("SCTP") or not session.sections[0].mid:
        raise SignalingError("the server offers another thing than one line of data", sub_code="badSdp")
    _only_usable_candidates(session.sections[0])
    return session.text()


def finish_answer(text: str, rejected: Rejected) -> str:
    """Our answer with the rejected sections back in their places."""
    if not rejected.places:
        return text
    session = SessionText.parse(text)
    taken = iter(session.sections)
    count = len(rejected.places) + len(session.sections)
    session.sections = [
        _refusal(rejected.places[place]) if place in rejected.places else next(taken) for place in range(count)
    ]
    return session.text()


def admit_answer(text: str, offer: str) -> tuple[str, dict[str, str]]:
    """Take an answer to ``offer``: sections the peer rejected become inactive ones that aiortc can read.

    Returns the text and, per rejected kind, why. Raises SignalingError or Refused(488/noCodec).
    """
    session, ours = SessionText.parse(text), SessionText.parse(offer)
    if [section.kind for section in session.sections] != [section.kind for section in ours.sections]:
        raise SignalingError("the answer does not have the media lines of our offer", sub_code="badSdp")
    reasons: dict[str, str] = {}
    model = next((section for section in session.sections if section.port and section.attribute("ice-ufrag")), None)
    for index, section in enumerate(session.sections):
        own = ours.sections[index]
        reason = "the peer rejected it" if not section.port else _reason_against(section, [])
        if not reason:
            if section.kind != "application":
                _only_known_codecs(section)
            _only_usable_candidates(section)
            continue
        reasons[section.kind] = reason
        if model is not None:
            session.sections[index] = _inactive(own, model)
    if model is None or not any(
        section.kind in ("audio", "video") and section.kind not in reasons for section in session.sections
    ):
        raise Refused("the peer has no codec in common with us", code=488, sub_code="noCodec")
    _share_candidates(session.sections)
    return session.text(), reasons


def require_dtls(text: str) -> None:
    """Raises SignalingError for a description without what ICE and DTLS-SRTP need: the transport would only wait."""
    for name in ("fingerprint", "ice-ufrag", "ice-pwd"):  # of the session or of any section, which share one transport
        if re.search(rf"^a={name}:\S", text, re.MULTILINE) is None:
            raise SignalingError(f"the description has no a={name}: media goes over ICE and DTLS-SRTP alone "
                                 "(RFC 8827)", sub_code="badSdp")


def _reason_against(section: Section, taken: list[str]) -> str:
    if section.kind not in KINDS or (section.kind == "application" and not section.proto.endswith("SCTP")):
        return f"{section.kind} over {section.proto} is not supported"
    if section.kind in taken:
        return f"one {section.kind} line is supported"
    if not section.port and "a=bundle-only" not in section.lines:
        return "the peer rejected it"
    if section.kind == "video" and not _h264(section):
        return "the peer has no H.264 baseline, packetization-mode 1"
    if section.kind == "audio" and not _voices(section):
        return "the peer has neither Opus nor G.711 nor G.722"
    return ""


def format_parameters(text: str, codec: str) -> dict[str, str]:
    """``a=fmtp`` of the first payload type of ``codec`` (``opus/48000``, lower case) by name; empty without one."""
    for section in SessionText.parse(text).sections:
        for number, name in _codec_map(section).items():
            if name.startswith(codec):
                return _parameters(section, number)
    return {}


def _codec_map(section: Section) -> dict[str, str]:
    """Payload type -> name/clock in lower case; those of RFC 3551 need no ``a=rtpmap``."""
    codecs = {number: STATIC[number] for number in section.formats if section.kind == "audio" and number in STATIC}
    for line in section.lines:
        if line.startswith("a=rtpmap:"):
            number, _, codec = line[9:].partition(" ")
            codecs[number] = codec.lower()
    return codecs


def _parameters(section: Section, number: str) -> dict[str, str]:
    prefix = f"a=fmtp:{number} "
    line = next((line for line in section.lines if line.startswith(prefix)), prefix)
    pairs = (item.partition("=") for item in line[len(prefix) :].split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _h264(section: Section) -> list[str]:
    found = []
    for number, codec in _codec_map(section).items():
        if codec == "h264/90000":
            parameters = _parameters(section, number)
            profile = parameters.get("profile-level-id", "42e01f").lower()
            if parameters.get("packetization-mode") == "1" and profile.startswith(_H264_PROFILES):
                found.append(number)
    return found


def _voices(section: Section) -> list[str]:
    return [
        number for number, codec in _codec_map(section).items()
        if codec.startswith(tuple(known.rtpmap for known in VOICE_CODECS.values()))
    ]


def _only_known_codecs(section: Section) -> None:
    """Remove every payload type but ours and its retransmission: less for aiortc to trip over."""
    keep = _h264(section) if section.kind == "video" else _voices(section)
    keep += [
        number for number, codec in _codec_map(section).items()
        if codec == "rtx/90000" and _parameters(section, number).get("apt") in keep
    ]
    section.formats = keep = [number for number in section.formats if number in keep]
    mapped = {_number(line) for line in section.lines if line.startswith("a=rtpmap:")}
    section.lines += [  # aiortc knows no codec without one
        f"a=rtpmap:{number} {STATIC[number].upper()}" for number in section.formats
        if number in STATIC and number not in mapped
    ]
    section.lines = [
        line for line in section.lines
        if not line.startswith(("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:")) or _number(line) in (*keep, "*")
    ]


def _number(line: str) -> str:
    return line.split(":", 1)[1].split(" ", 1)[0]


def _refusal(section: Section) -> Section:
    lines = ["c=IN IP4 0.0.0.0", "a=inactive"]
    if section.mid:
        lines.append(f"a=mid:{section.mid}")
    return Section(section.kind, 0, section.proto, section.formats, lines)


def _inactive(own: Section, model: Section) -> Section:
    """What we offered, answered inactive with the transport of ``model``."""
    transport = [
        line for line in model.lines
        if line.startswith(("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=ice-options:"))
    ]
    mine = [
        line for line in own.lines
        if line.startswith(("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=mid:", "a=sctp-port:", "a=max-message-size:"))
    ]
    lines = ["c=IN IP4 0.0.0.0", *mine, *transport]
    if own.kind != "application":
        lines += ["a=inactive", "a=rtcp-mux"]
    return Section(own.kind, 9, own.proto, own.formats, lines)
