"""Session descriptions (RFC 8866) as telephones write them: parsed with tolerance and limits, printed strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from appliance.providers.sip.grammar import Malformed

__all__ = ["DIRECTIONS", "Description", "Format", "Media", "NotAcceptable", "is_address"]

MAX_BYTES: Final = 32 * 1024
MAX_LINES: Final = 1024
MAX_MEDIA: Final = 16
DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")

_MEDIA: Final = re.compile(r"([A-Za-z0-9_\-]{1,32}) (\d{1,5})(?:/\d{1,5})? ([A-Za-z0-9/.+\-]{1,64})((?: \S{1,32})*) *")
_CONNECTION: Final = re.compile(r"IN IP[46] ([A-Za-z0-9.:_\-]{1,255})(?:/\d{1,3}){0,2} *", re.IGNORECASE)
_RTPMAP: Final = re.compile(r"(\d{1,3}) +([A-Za-z0-9_.+\-]{1,64})/(\d{1,6})(?:/(\d{1,2}))? *")
_SPELT: Final = {"pcmu": "PCMU", "pcma": "PCMA", "g722": "G722", "cn": "CN", "h264": "H264"}
_BANDWIDTH: Final = re.compile(r"(AS|TIAS|CT):(\d{1,9})", re.IGNORECASE)
_OVERHEAD: Final = 0.07  # of headers, which AS counts and TIAS does not (RFC 3890)
_STATIC: Final = {0: ("pcmu", 8000), 8: ("pcma", 8000), 9: ("g722", 8000), 13: ("cn", 8000), 18: ("g729", 8000)}


class NotAcceptable(Exception):
    """The peer's description and ours have nothing in common: 488. The words say what."""


@dataclass(frozen=True, slots=True)
class Format:
    """One payload type of a line. ``name`` in lower case, ``parameters`` as in ``a=fmtp``."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: str = ""

    @property
    def kind(self) -> tuple[str, int]:
        """What two ends have in common, whatever number it has."""
        return self.name, self.clock_rate

    @property
    def spelt(self) -> str:
        """The name as it is registered."""
        return _SPELT.get(self.name, self.name)

    def attributes(self) -> Iterator[tuple[str, str]]:
        channels = f"/{self.channels}" if self.channels > 1 else ""
        yield "rtpmap", f"{self.payload_type} {self.spelt}/{self.clock_rate}{channels}"
        if self.parameters:
            yield "fmtp", f"{self.payload_type} {self.parameters}"


@dataclass(slots=True)
class Media:
    """One media line. ``address``: of its own ``c=``, else empty. ``bandwidth``: bits per second of payload that its
    writer takes, 0: any. Attributes as (name, value) in order."""

    kind: str
    port: int
    proto: str
    formats: list[str]
    address: str = ""
    attributes: list[tuple[str, str]] = field(default_factory=list)
    bandwidth: int = 0

    def attribute(self, name: str) -> str | None:
        return next((value for key, value in self.attributes if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]

    def known_formats(self) -> list[Format]:
        """Payload types in the order of the line, those that can be understood."""
        names: dict[int, tuple[str, int, int]] = {number: (*known, 1) for number, known in _STATIC.items()}
        for value in self.all("rtpmap"):
            if match := _RTPMAP.fullmatch(value):
                names[int(match[1])] = (match[2].lower(), int(match[3]), int(match[4] or 1))
        parameters = {number: text.strip() for number, _, text in (one.partition(" ") for one in self.all("fmtp"))}
        numbers = [int(one) for one in self.formats if one.isascii() and one.isdigit() and int(one) < 128]
        return [Format(number, *names[number], parameters.get(str(number), "")) for number in numbers
                if number in names]

    def rejected(self) -> Media:
        """The same line refused (RFC 3264 6)."""
        names = [("mid", mid)] if (mid := self.attribute("mid")) else []
        return Media(self.kind, 0, self.proto, self.formats[:1] or ["0"], attributes=names)


@dataclass(slots=True)
class Description:
    """``address``: of the session's ``c=``; ``attributes``: of the session, for lines that have none of their own."""

    address: str = ""
    attributes: list[tuple[str, str]] = field(default_factory=list)
    origin: str = ""
    media: list[Media] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes) -> Description:
        """Raises Malformed."""
        if len(data) > MAX_BYTES:
            raise Malformed(f"a session description is larger than {MAX_BYTES} bytes")
        lines = [line for line in re.split(r"\r\n|\r|\n", data.decode("utf-8", "replace")) if line.strip()]
        if len(lines) > MAX_LINES or not lines or lines[0].strip() != "v=0":
            raise Malformed("a session description does not begin with v=0, or has too many lines")
        found = cls()
        for line in lines[1:]:
            found._take(line[:2].lower(), line[2:].strip())
        return found

    def _take(self, kind: str, value: str) -> None:
        match kind:
            case "m=":
                match = _MEDIA.fullmatch(value)
                if match is None or int(match[2]) > 65535 or len(self.media) >= MAX_MEDIA:
                    raise Malformed("a session description has a media line that cannot be read, or too many")
                self.media.append(Media(match[1].lower(), int(match[2]), match[3].upper(), match[4].split()))
            case "c=":
                match = _CONNECTION.fullmatch(value)
                if match is None:
                    raise Malformed("a session description has a c= line that cannot be read")
                if self.media:
                    self.media[-1].address = match[1]
                else:
                    self.address = match[1]
            case "b=" if self.media:
                self.media[-1].bandwidth = _bandwidth(value) or self.media[-1].bandwidth
            case "o=":
                self.origin = value
            case "a=":
                name, _, text = value.partition(":")
                kept = self.media[-1].attributes if self.media else self.attributes
                kept.append((name.strip().lower(), text.strip()))
            case _:
                pass

    def where(self, media: Media) -> str:
        """The address of a line."""
        return media.address or self.address

    def all_of(self, media: Media, name: str) -> list[str]:
        """Values of an attribute of the line, or of the session where the line has none."""
        return media.all(name) or [value for key, value in self.attributes if key == name]

    def first_of(self, media: Media, name: str) -> str | None:
        return next(iter(self.all_of(media, name)), None)

    def bundles(self, *mids: str) -> bool:
        """Whether these lines are in one bundle (RFC 9143)."""
        groups = [value.split() for name, value in self.attributes if name == "group"]
        return all(mids) and any(one[0].upper() == "BUNDLE" and set(mids) <= set(one[1:]) for one in groups if one)

    def direction_of(self, media: Media, *, ice: bool = False) -> str:
        """Seen from who wrote it. An address of nowhere is how hold was told before RFC 3264; with ``ice`` it only
        means that no path is known yet."""
        told = next((name for name, _ in (*media.attributes, *self.attributes) if name in DIRECTIONS), "sendrecv")
        if not ice and self.where(media) in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound
            return {"sendrecv": "sendonly", "recvonly": "inactive"}.get(told, told)
        return told

    def text(self) -> bytes:
        """As it goes over the network; ``origin`` is session id and version."""
        family = "IP6" if ":" in self.address else "IP4"
        here = f"IN {family} {self.address}"
        lines = ["v=0", f"o=- {self.origin} {here}", "s=-", f"c={here}", "t=0 0"]
        lines += [f"a={name}:{value}" for name, value in self.attributes]
        for media in self.media:
            lines.append(f"m={media.kind} {media.port} {media.proto} {' '.join(media.formats)}")
            if media.address not in ("", self.address):
                lines.append(f"c=IN {'IP6' if ':' in media.address else 'IP4'} {media.address}")
            if media.bandwidth:
                whole = -(-media.bandwidth // round(1000 * (1 - _OVERHEAD)))
                lines += [f"b=AS:{whole}", f"b=TIAS:{media.bandwidth}"]
            lines += [f"a={name}:{value}" if value else f"a={name}" for name, value in media.attributes]
        return ("\r\n".join(lines) + "\r\n").encode()


def _bandwidth(value: str) -> int:
    """Bits per second of payload; 0 for what is not known."""
    match = _BANDWIDTH.fullmatch(value.strip())
    if match is None:
        return 0
    return int(match[2]) if match[1].upper() == "TIAS" else round(int(match[2]) * 1000 * (1 - _OVERHEAD))


def is_address(text: str) -> bool:
    """An IP address, and no name that would have to be looked up."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

