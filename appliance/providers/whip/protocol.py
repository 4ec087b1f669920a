"""The words of WHIP and WHEP: header fields, fragments of SDP, and what each status means. No I/O.

Source: RFC 9725 (WHIP), draft-ietf-wish-whep-03 (WHEP), RFC 8288 (Link), RFC 9110 (HTTP), RFC 8840 (fragments). What a
server sends is taken apart here: anything of another form than is expected is left out or raises SignalingError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from yarl import URL

from appliance.errors import SignalingError
from appliance.media.api import IceFragment, IceServers
from appliance.media.servers import Server
from appliance.settings.formats import is_loopback
from appliance.vocabulary import END_REASONS, Reason

__all__ = [
    "FRAGMENT",
    "SDP",
    "Setback",
    "fragment_of",
    "ice_servers",
    "is_offer",
    "links",
    "located",
    "may_go_to",
    "may_have_token",
    "refusal",
    "retry_after",
    "text_of",
    "unreached",
]

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
MAX_LINKS: Final = 32  # of one answer
MAX_SERVERS: Final = 8  # of a kind, as in settings
MAX_CREDENTIAL: Final = 512  # characters: STUN has no more room (RFC 8489 14.3)
MAX_CANDIDATES: Final = 64
LONGEST_WAIT_S: Final = 86_400.0
"""A server that says more than a day means that it does not know."""


class Setback(Exception):
    """The server did not do what was asked. ``status``: what it answers, None when no answer came that can be used;
    ``final``: asking again is useless; ``wait_s``: it wants so much time; ``refused``: its host is reached, and nothing
    listens there."""

    def __init__(
        self, reason: Reason, *, status: int | None = None, final: bool = False, wait_s: float | None = None,
        refused: bool = False,
    ) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.status = status
        self.final = final
        self.wait_s = wait_s
        self.refused = refused


# --- what a status means ----------------------------------------------------------------------------------------------

_REFUSALS: Final[Mapping[int, tuple[str, bool]]] = {  # status -> key, final
    400: ("400/badOffer", True),
    401: ("401/token", True),
    403: ("403/notPermitted", True),
    404: ("404/noSuchEndpoint", False),  # after a restart a server may need a while to know it again
    405: ("404/noSuchEndpoint", True),
    406: ("406/offerRefused", True),
    408: ("503/provider", False),
    409: ("409/endpointTaken", False),
    410: ("404/noSuchEndpoint", True),
    415: ("415/noSdp", True),
    422: ("422/offerNotProcessed", True),
    425: ("503/provider", False),
    429: ("429/tooManyRequests", False),
    501: ("404/noSuchEndpoint", True),
    503: ("503/serverBusy", False),
}
_LOSING: Final = (301, 302, 303)
"""Redirects that may make a GET of the POST (RFC 9110 15.4)."""


def refusal(status: int, *, plays: bool, wait_s: float | None = None) -> Setback:
    """What a status other than success means. One that is not known stands for its hundred (RFC 9725 4)."""
    key, final = _REFUSALS.get(status, ("503/provider", 400 <= status < 500))
    if status == 409 and plays:
        key = "409/nothingPublished"
    reason = END_REASONS[key]
    if status in _LOSING:
        reason = replace(reason, message=f"The media server redirects with status {status}, which loses the offer.",
                         advice="Write the address that it redirects to into [[whip]], or let it answer 307 or 308.")
    elif key == "503/provider":
        reason = replace(reason, message=f"The media server answers with status {status}.")
    if wait_s is not None:
        reason = replace(reason, message=f"{reason.message} It asks to come again in {wait_s:.0f} s.")
    return Setback(reason, status=status, final=final, wait_s=wait_s)


def unreached(words: str, key: str = "503/provider", *, refused: bool = False) -> Setback:
    """No answer came, or none that can be used."""
    return Setback(replace(END_REASONS[key], message=words), refused=refused)


# --- addresses --------------------------------------------------------------------------------------------------------


def located(base: URL, location: str) -> URL:
    """The address that a ``Location`` names, which may be relative to the one that answered (RFC 9110 10.2.2).

    Raises SignalingError for what is no address of a web server.
    """
    try:
        found = base.join(URL(location.strip())).with_fragment(None)
        if found.scheme in ("https", "http") and found.host and found.user is None:
            return found
    except ValueError:
        pass
    raise SignalingError("the media server names an address (Location) that is none", sub_code="badLocation")


def may_have_token(trusted: URL, url: URL) -> bool:
    """The token is for the server of the settings: scheme, host and port (RFC 6454)."""
    return trusted.origin() == url.origin()


def may_go_to(trusted: URL, url: URL) -> bool:
    """What is not encrypted stays on this machine, and is never reached from what is."""
    return url.scheme == "https" or (trusted.scheme == "http" and is_loopback(url.host or ""))


# --- header fields ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A link-value of RFC 8288. Names of parameters are in lower case; the first of a name counts."""

    target: str
    parameters: Mapping[str, str]

    @property
    def relations(self) -> Sequence[str]:
        return self.parameters.get("rel", "").lower().split()


_TARGET: Final = re.compile(r"[\s,]*<([^<>]*)>")
_PARAMETER: Final = re.compile(
    r"\s*;\s*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;]*)))?)?")
_REST: Final = re.compile(r"(?:[^,\"<]|\"(?:[^\"\\]|\\.)*\")*")


def links(values: Sequence[str]) -> Iterator[Link]:
    """The links of all ``Link`` fields; what is no link is left out up to the next comma."""
    count = 0
    for value in values:
        at = 0
        while count < MAX_LINKS and (match := _TARGET.match(value, at)) is not None:
            at, parameters = match.end(), dict[str, str]()
            while (parameter := _PARAMETER.match(value, at)) is not None:
                at = parameter.end()
                name, quoted, token = parameter.groups()
                if name:
                    text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token or ""
                    parameters.setdefault(name.lower(), text)
            count += 1
            yield Link(match[1].strip(), parameters)
            rest = _REST.match(value, at)
            at = rest.end() if rest is not None else len(value)


def ice_servers(values: Sequence[str]) -> IceServers | None:
    """The STUN and TURN servers among the links, in their order; None where there are none.

    TURN servers have one login here: those with another one than the first are left out, and so are other kinds of
    credentials than passwords.
    """
    stun, turn, login = list[str](), list[str](), ("", "")
    for link in links(values):
        if "ice-server" not in link.relations:
            continue
        try:
            server = Server.parse(link.target)
        except ValueError:
            continue
        if server.scheme == "stun":
            stun.append(link.target)
            continue
        own = link.parameters.get("username", ""), link.parameters.get("credential", "")
        usable = link.parameters.get("credential-type", "password").lower() == "password"
        if usable and all(0 < len(text) <= MAX_CREDENTIAL for text in own) and login in (("", ""), own):
            login = own
            turn.append(link.target)
    if not stun and not turn:
        return None
    return IceServers(tuple(stun[:MAX_SERVERS]), tuple(turn[:MAX_SERVERS]), *login)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After``, which is a number of seconds or a date (RFC 9110 10.2.3). None: none that
    can be read. ``now``: by the clock of the server, where it tells it."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), LONGEST_WAIT_S)
    moment = date_of(text)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT_S)


def date_of(text: str) -> datetime | None:
    """An HTTP-date; None for anything else."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


# --- descriptions -----------------------------------------------------------------------------------------------------


def is_offer(sdp: str) -> bool:
    """Whether the server offers instead of answering: only an offer leaves the DTLS role open (RFC 8842 5.2)."""
    return re.search(r"(?m)^a=setup:actpass\s*$", sdp) is not None


def text_of(fragment: IceFragment, description: str) -> str:
    """The fragment for the first line of our own description, into which all others are bundled (RFC 8840 4.4)."""
    lines = description.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("m="))
    second = next((n for n, line in enumerate(lines) if n > first and line.startswith("m=")), len(lines))
    kept = [line for line in lines[:first] if line.startswith(("a=group:BUNDLE", "a=ice-options:"))]
    kept.append(lines[first])
    kept += [line for line in lines[first:second] if line.startswith("a=mid:")]
    kept += [f"a=ice-ufrag:{fragment.username}", f"a=ice-pwd:{fragment.password}"]
    kept += [f"a={candidate}" for candidate in fragment.candidates]
    return "\r\n".join([*kept, "a=end-of-candidates", ""])


def fragment_of(text: str) -> IceFragment:
    """A server's fragment after a restart of ICE. Raises SignalingError where it names no new session."""
    found: dict[str, str] = {}
    candidates: list[str] = []
    for line in text.splitlines():
        name, _, value = line.strip().removeprefix("a=").partition(":")
        if name in ("ice-ufrag", "ice-pwd"):
            found.setdefault(name, value.strip())
        elif name == "candidate" and len(candidates) < MAX_CANDIDATES and f"candidate:{value}" not in candidates:
            candidates.append(f"candidate:{value}")
    username, password = found.get("ice-ufrag", ""), found.get("ice-pwd", "")
    if not re.fullmatch(r"[A-Za-z0-9+/]{4,256}", username) or not re.fullmatch(r"[A-Za-z0-9+/]{22,256}", password):
        raise SignalingError("the media server's answer names no new ICE session", sub_code="badFragment")
    return IceFragment(username, password, tuple(candidates), lite=re.search(r"(?m)^a=ice-lite\s*$", text) is not None)
