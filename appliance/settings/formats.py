"""What a text in the settings must look like. Each format says it in words, for faults and for the reference."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from appliance.settings.schedule import Window
from appliance.vocabulary import ID_PATTERN

__all__ = ["Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """``check`` returns the text in its normal form, or raises ValueError saying what is wrong."""

    says: str
    check: Callable[[str], str]


def _matching(pattern: str, says: str) -> Format:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"must be {says}")
        return text

    return Format(says, check)


ID: Final = _matching(ID_PATTERN.strip("^$"), "3 to 40 of a-z, 0-9 and '-'")
SCREEN_LIMITS: Final = (160, 3840)

_URL_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,255}")
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
                          r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?")

# ISO 3166-1 alpha-2, officially assigned
_ASSIGNED: Final = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM
    FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN
    MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT
    PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL
    TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"""
COUNTRIES: Final = frozenset(_ASSIGNED.split())


def is_loopback(host: str) -> bool:
    """Whether a host name or address stands for this machine alone."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if _HOST.fullmatch(text) is None:
            raise ValueError("must be a host name or an IP address, without scheme and port") from None
    return text


def _listen(text: str) -> str:
    if text == "localhost":
        return text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IP address of this device, 0.0.0.0 or :: for all, or localhost") from None
    return text


def _country(text: str) -> str:
    if text in COUNTRIES:
        return text
    known = {"UK": "GB", "EN": "GB", "EL": "GR"}
    guess = known.get(text.upper(), text.upper())
    hint = f". Did you mean '{guess}'?" if guess in COUNTRIES else ""
    raise ValueError(f"is no country code of ISO 3166-1 (two capital letters){hint}")


def _screen(text: str) -> str:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as '1280x720'")
    low, high = SCREEN_LIMITS
    if not all(low <= int(side) <= high and int(side) % 2 == 0 for side in match.groups()):
        raise ValueError(f"width and height must be even numbers from {low} to {high}")
    return text


def _file(text: str) -> str:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    if not path.is_file():
        raise ValueError("there is no such file")
    if not os.access(path, os.R_OK):
        raise ValueError("may not be read by this user: check owner and mode")
    return str(path)


def _public_key(text: str) -> str:
    """Of ES256 or EdDSA (RFC 7518 3.4, RFC 8037 3.1), in PEM."""
    path = _file(text)
    # here: it takes a moment, and few settings need it
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM; write one with: openssl pkey -in private.pem -pubout") from None
    p256 = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    if not p256 and not isinstance(key, Ed25519PublicKey):
        raise ValueError("is a key of another kind than P-256 and Ed25519")
    return path


def _path(text: str) -> str:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return str(path)


def _board_file(text: str) -> str:
    return text if re.fullmatch(r"[a-z0-9][a-z0-9-]*", text) else _file(text)


def _times(text: str) -> str:
    Window.parse(text)
    return text.strip()


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time of RFC 3339, such as '2026-12-24T18:00:00+01:00'") from None
    if moment.tzinfo is None:
        raise ValueError("must say its offset from UTC: 'Z' or one such as '+01:00' at the end")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be in the years 1 to 9999, in UTC too") from None
    return text


def _fingerprint(text: str) -> str:
    plain = text.removeprefix("sha256:").replace(":", "").lower()
    if re.fullmatch(r"[0-9a-f]{64}", plain) is None:
        raise ValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits, colons allowed")
    return plain


def _url_path(text: str) -> str:
    if _URL_PATH.fullmatch(text) is None:
        raise ValueError("must begin with / and have nothing but what stands in a URL")
    return text


def _split(text: str, schemes: tuple[str, ...]) -> SplitResult:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(f"is no address; write {wanted}HOST[:PORT]") from None
    if url.scheme not in schemes or not url.hostname:
        raise ValueError(f"must begin with {wanted} and name a host")
    if url.username is not None or url.password is not None:
        raise ValueError("a user name or password does not belong in an address; use a *_file key")
    if port == 0:
        raise ValueError("port must be 1 to 65535")
    _host(url.hostname)
    return url


def _peer_url(text: str) -> str:
    url = _split(text, ("https", "http"))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ValueError("the token would cross the network unencrypted: use https://")
    if url.query or url.fragment:
        raise ValueError("must not have a query or fragment")
    return text


def _janus_url(text: str) -> str:
    url = _split(text, ("wss", "ws", "mqtts", "mqtt"))
    if url.scheme in ("ws", "mqtt") and not is_loopback(url.hostname or ""):
        raise ValueError(f"PINs and tokens would cross the network unencrypted: use {url.scheme}s://")
    if url.query or url.fragment:
        raise ValueError("must not have a query or fragment")
    if url.scheme.startswith("mqtt") and re.search(r"[+%$]", url.path):
        raise ValueError("the path is the beginning of the server's topics, and must not have '+', '%' or '$'")
    return text


def _web_url(plain: str) -> Callable[[str], str]:
    """``plain``: what would happen over ``http:``."""

    def check(text: str) -> str:
        url = _split(text, ("https", "http"))
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            raise ValueError(f"{plain}: use https://")
        if url.fragment:
            raise ValueError("must not have a fragment ('#')")
        return text

    return check


def _update_url(text: str) -> str:
    """Of a bundle. Nothing in it may lead out of the folder that it seems to be in."""
    if re.fullmatch(r"[!-~]{1,2048}", text) is None:
        raise ValueError("must be an address of at most 2048 characters of ASCII, without blanks")
    url = _split(text, ("https", "http"))
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1"):
        raise ValueError("would cross the network unencrypted: use https://")
    if url.fragment:
        raise ValueError("must not have a fragment ('#')")
    if any(unquote(segment) in (".", "..") for segment in url.path.split("/")) or "\\" in unquote(url.path):
        raise ValueError("must not have '.' or '..' in its path")
    return text


def _origin(text: str) -> str:
    url = urlsplit(_update_url(text))
    if url.query or not url.path.endswith("/"):
        raise ValueError("must end with '/': what is fetched lies below it")
    return text


def _ice_url(*schemes: str) -> Callable[[str], str]:
    """stun:HOST[:PORT] (RFC 7064) and turn:HOST[:PORT][?transport=udp|tcp] (RFC 7065): no slashes."""
    wanted = " or ".join(f"{scheme}:HOST[:PORT]" for scheme in schemes)
    transports = {"stun": (), "turn": ("transport=udp", "transport=tcp"), "turns": ("transport=tcp",)}

    def check(text: str) -> str:
        scheme, colon, rest = text.partition(":")
        address, mark, query = rest.partition("?")
        if scheme not in schemes or not colon or not address or address.startswith("//"):
            raise ValueError(f"must be {wanted}")
        if "@" in address:
            raise ValueError("a user name or password does not belong in an address; use turn_username")
        if "/" in address or "#" in text:
            raise ValueError(f"a path means nothing here; write {wanted}")
        if mark and query not in transports[scheme]:
            raise ValueError("after '?' only transport=udp or transport=tcp of TURN may follow, and only tcp of turns:")
        _ice_address(scheme, address)
        return text

    return check


_ICE_ADDRESS: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")


def _ice_address(scheme: str, address: str) -> None:
    match = _ICE_ADDRESS.fullmatch(address)
    if match is None:
        if "[" not in address and address.count(":") > 1:
            raise ValueError(f"an IPv6 address stands in brackets: {scheme}:[2001:db8::1]:3478")
        raise ValueError(f"must be {scheme}:HOST[:PORT]")
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65535:
        raise ValueError("port must be 1 to 65535")
    if match["ipv6"] is None:
        try:
            _host(match["host"])
        except ValueError:
            raise ValueError(f"{match['host']!r} is neither a host name nor an IP address") from None
    elif "%" in match["ipv6"] or not _is_ipv6(match["ipv6"]):
        raise ValueError(f"in brackets stands an IPv6 address without a zone: {scheme}:[2001:db8::1]")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _digits(number: str) -> bool:
    """E.164 with '+', or a national number; separators of RFC 3966 allowed."""
    return re.fullmatch(r"\+?[0-9]{2,15}", re.sub(r"[-.() ]", "", number)) is not None


def _sip(address: str) -> bool:
    user, at, host = address.rpartition("@")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]+)(?::([0-9]{1,5}))?", host)
    if match is None or (at and not user) or re.search(r"\s", user):
        return False
    try:
        _host(match[1].strip("[]"))
    except ValueError:
        return False
    return match[2] is None or 1 <= int(match[2]) <= 65535


def _sip_address(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme != "sip" or "@" not in rest or ";" in rest or not _sip(rest):
        raise ValueError("must be sip:USER@HOST")
    return text


def _sip_server(text: str) -> str:
    if "@" in text or not _sip(text):
        raise ValueError("must be HOST[:PORT], an IPv6 address in brackets")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24, or one address") from None


_SCHEMES: Final[dict[str, tuple[str, Callable[[str], bool]]]] = {
    "device": ("device:ID", lambda rest: re.fullmatch(ID_PATTERN, rest) is not None),
    "operator": ("operator:NAME or operator:*", lambda rest: rest == "*" or re.fullmatch(ID_PATTERN, rest) is not None),
    "lan": ("lan:PEER, a name of [[direct.peers]]", lambda rest: re.fullmatch(ID_PATTERN, rest) is not None),
    "tel": ("tel:NUMBER, best as +country number", _digits),
    "sip": ("sip:USER@HOST", _sip),
    "sips": ("sips:USER@HOST", _sip),
    "room": ("room:NAME", lambda rest: re.fullmatch(r"[^\s]{1,128}", rest) is not None),
    "audio": ("audio:NAME", lambda rest: re.fullmatch(r"[^\s]{1,128}", rest) is not None),
    "meeting": ("meeting:NAME, a name of [[sip.meetings]]", lambda rest: re.fullmatch(ID_PATTERN, rest) is not None),
    "whip": ("whip:NAME, a name of [[whip]]", lambda rest: re.fullmatch(ID_PATTERN, rest) is not None),
}


def _uri(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    known = _SCHEMES.get(scheme)
    if not colon or known is None:
        raise ValueError(f"must begin with {', '.join(f'{name}:' for name in _SCHEMES)}")
    says, right = known
    if not right(rest):
        raise ValueError(f"must be {says}")
    return text


def _telephone(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme not in ("tel", "sip", "sips") or not _SCHEMES[scheme][1](rest):
        raise ValueError("must be tel:NUMBER, best as +country number, or sip:USER@HOST")
    return text


def _target(text: str) -> str:
    """A URI, or a name of the address book (names may hold a colon that is no scheme of ours)."""
    return _uri(text) if text.partition(":")[0] in _SCHEMES and ":" in text else text


def _source(words: tuple[str, ...], prefixes: tuple[str, ...]) -> Callable[[str], str]:
    offers = ", ".join([*words, *(f"{prefix}:PATH" for prefix in prefixes)])

    def check(text: str) -> str:
        kind, colon, rest = text.partition(":")
        if text in words or (kind in prefixes and rest):
            return text
        if kind == "tone" and "speech" in words and colon:
            if not re.fullmatch(r"[0-9]{2,5}", rest) or not 50 <= int(rest) <= 20_000:
                raise ValueError("a tone has 50 to 20000 Hz, such as 'tone:440'")
            return text
        raise ValueError(f"must be one of {offers}" + (", tone:HERTZ" if "speech" in words else ""))

    return check


HOST: Final = Format("host name or IP address", _host)
LISTEN: Final = Format("IP address of this device, 0.0.0.0 or :: for all, or localhost", _listen)
COUNTRY: Final = Format("country code of ISO 3166-1, two capital letters", _country)
SCREEN: Final = Format("WIDTHxHEIGHT, even numbers of pixels from 160 to 3840", _screen)
FILE: Final = Format("absolute path of a readable file", _file)
BOARD_FILE: Final = Format("name of a board file, or absolute path of a readable one", _board_file)
PUBLIC_KEY: Final = Format("absolute path of a public key in PEM, P-256 or Ed25519", _public_key)
PATH: Final = Format("absolute path", _path)
URL_PATH: Final = Format("path of a URL", _url_path)
TIMES: Final = Format("days and times, such as 'Mon-Fri 22:00-06:00'", _times)
MOMENT: Final = Format("time of RFC 3339 with its offset, such as '2026-12-24T18:00:00+01:00'", _moment)
FINGERPRINT: Final = Format("SHA-256 fingerprint, 64 hexadecimal digits, colons allowed", _fingerprint)
PEER_URL: Final = Format("https://HOST[:PORT]; http:// only on this machine", _peer_url)
JANUS_URL: Final = Format("wss://HOST[:PORT][/PATH], or mqtts://BROKER[:PORT][/TOPICS]; ws:// and mqtt:// only on this "
                          "machine", _janus_url)
TOPIC: Final = _matching(r"[^+#$%\s][^+#\s]{0,127}", "topic without wildcards")
_WEB_URL: Final = "https://HOST[:PORT][/PATH][?QUERY]; http:// only on this machine"
WHIP_URL: Final = Format(_WEB_URL, _web_url("the token would cross the network unencrypted, and who listens could take "
                                            "the media over"))
TOKEN_URL: Final = Format(_WEB_URL, _web_url("the tokens would cross the network unencrypted"))
UPDATE_URL: Final = Format("https://HOST[:PORT]/PATH[?QUERY]; http:// only with 127.0.0.1", _update_url)
ORIGIN: Final = Format("https://HOST[:PORT]/[FOLDER/], with the '/' at its end; http:// only with 127.0.0.1", _origin)
STUN: Final = Format("stun:HOST[:PORT]", _ice_url("stun"))
TURN: Final = Format("turn:HOST[:PORT][?transport=tcp] or turns:…", _ice_url("turn", "turns"))
CODE: Final = _matching(r"(?=.{1,16}$)\*?[0-9A-D]*#?", "at most 16 keys: 0 to 9 and A to D, '*' only as the first, '#' "
                        "only as the last")
TELEPHONE: Final = Format("tel:NUMBER, best as +country number, or sip:USER@HOST", _telephone)
DIGITS: Final = _matching(r"[0-9]{1,32}", "at most 32 digits")
KEYING: Final = _matching(r"[0-9*#A-Da-dw,]{1,64}", "at most 64 of 0 to 9, *, #, A to D, ',' and 'w'")
PREFIX: Final = _matching(r"\+?[0-9]{1,15}", "digits, best with '+' and the code of the country before them")
SIP_ADDRESS: Final = Format("sip:USER@HOST", _sip_address)
SIP_SERVER: Final = Format("HOST[:PORT]", _sip_server)
NETWORK: Final = Format("network such as 192.0.2.0/24, or one address", _network)
URI: Final = Format("device:, operator:, lan:, tel:, sip:, sips:, meeting:, room:, audio: or whip: and an address",
                    _uri)
TARGET: Final = Format("URI, or a name of the address book", _target)
ROOM: Final = _matching(r"(room|audio):[^\s]{1,128}", "room: or audio: and the name or id of a room")
MICROPHONE: Final = Format("speech, silence, tone:HERTZ or wav:PATH", _source(("speech", "silence"), ("wav",)))
CAMERA: Final = Format("pattern, file:PATH or clip:PATH", _source(("pattern",), ("file", "clip")))
