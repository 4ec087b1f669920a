"""URIs and addresses as they stand in SIP: ``sip:``, ``tel:`` and others, and name-addr (RFC 3261 19.1, 20.10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from appliance.providers.sip.grammar import HOST, Malformed, params_of, params_text, quoted, split, unquoted

__all__ = ["NameAddr", "Uri"]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):(.+)", re.DOTALL)
_SIP: Final = re.compile(rf"(?:([^@\s<>\"]*)@)?({HOST})(?::(\d{{1,5}}))?(;[^?\s<>]*)?(?:\?([^\s<>]*))?")
_BLANK: Final = re.compile(r"[\s<>\"\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Uri:
    """``user`` is as written, with its escapes and, against all advice, a password. ``opaque``: what follows the colon
    of schemes other than sip and sips; they have no host."""

    scheme: str
    user: str = ""
    host: str = ""
    port: int | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: str = ""
    opaque: str = ""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raises Malformed."""
        match = _SCHEME.fullmatch(text.strip())
        if match is None:
            raise Malformed("an address has no scheme")
        scheme, rest = match[1].lower(), match[2]
        if scheme not in ("sip", "sips"):
            if _BLANK.search(rest):
                raise Malformed("an address has blanks or quotes in it")
            return cls(scheme, opaque=rest)
        match = _SIP.fullmatch(rest)
        if match is None:
            raise Malformed("a sip: address is not of the form user@host:port;parameters")
        user, host, port, params, headers = match.groups()
        if port is not None and not 1 <= int(port) <= 65535:
            raise Malformed("the port of an address is not 1 to 65535")
        return cls(scheme, user or "", host, int(port) if port else None, params_of(params or ""), headers or "")

    def __str__(self) -> str:
        if self.scheme not in ("sip", "sips"):
            return f"{self.scheme}:{self.opaque}"
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        params = "".join(f";{name}={value}" if value else f";{name}" for name, value in self.params.items())
        return f"{self.scheme}:{user}{self.host}{port}{params}{f'?{self.headers}' if self.headers else ''}"

    @property
    def secure(self) -> bool:
        return self.scheme == "sips"

    @property
    def transport(self) -> str:
        """udp, tcp, tls or ws, where the address names one; tls by ``sips:`` too."""
        named = self.params.get("transport", "").lower()
        return "tls" if self.secure else named

    @property
    def address(self) -> str:
        """The host without the brackets of IPv6."""
        return self.host.strip("[]")

    @property
    def identity(self) -> str:
        """Who it is, for people and the address book: the user, the number of ``tel:``, else the host."""
        if self.scheme == "tel":
            return re.sub(r"[-.() ]", "", self.opaque.partition(";")[0])
        return unquote(self.user.partition(";")[0].partition(":")[0], errors="replace") or self.host or self.opaque

    def bare(self) -> Uri:
        """Without port, parameters and headers: who, but not how to get there."""
        return Uri(self.scheme, self.user, self.host.lower(), opaque=self.opaque)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """``"Display" <uri>;parameters``. The parameters are those of the header field, ``tag`` among them."""

    uri: Uri
    display: str = ""
    params: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> NameAddr:
        """Raises Malformed. Without ``<>`` what follows the first semicolon belongs to the header field."""
        head, *params = split(text, ";")
        if "<" in head:
            at = head.rindex("<")
            display, rest = head[:at].strip(), head[at + 1 :]
            address, closed, after = rest.partition(">")
            if not closed or after.strip():
                raise Malformed("an address in <> is not closed, or has something behind it")
        else:
            display, address = "", head
        return cls(Uri.parse(address), unquoted(display), params_of(";".join(params)))

    @property
    def tag(self) -> str:
        return self.params.get("tag", "")

    def tagged(self, tag: str) -> NameAddr:
        """The same with this tag; with none where it is empty."""
        params = {name: value for name, value in self.params.items() if name != "tag"}
        return NameAddr(self.uri, self.display, {**params, "tag": tag} if tag else params)

    def __str__(self) -> str:
        display = f"{quoted(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{params_text(self.params)}"
