"""Keys of SRTP in session descriptions (RFC 4568), and the packets protected by them."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pylibsrtp

__all__ = ["SUITES", "Key", "MediaProtection", "parse_crypto"]

SUITES: Final[Mapping[str, tuple[int, int]]] = {
    "AEAD_AES_256_GCM": (44, pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM),
    "AEAD_AES_128_GCM": (28, pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM),
    "AES_CM_128_HMAC_SHA1_80": (30, pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80),
    "AES_CM_128_HMAC_SHA1_32": (30, pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32),
}
"""Best first: bytes of key and salt together, and how the library calls it."""

_CRYPTO: Final = re.compile(
    r"(\d{1,9})\s+([A-Za-z0-9_]{1,64})\s+inline:([A-Za-z0-9+/=]{16,128})((?:\|[^\s;|]+)*)((?:\s+\S+)*)\s*")


@dataclass(frozen=True, slots=True)
class Key:
    """``material``: master key and master salt."""

    suite: str
    material: bytes = field(repr=False)

    @classmethod
    def new(cls, suite: str) -> Key:
        return cls(suite, secrets.token_bytes(SUITES[suite][0]))

    def __str__(self) -> str:
        return f"{self.suite} inline:{base64.b64encode(self.material).decode()}"


def parse_crypto(value: str) -> tuple[int, Key] | None:
    """Tag and key of an ``a=crypto`` value; None for what is not known or cannot be kept: other suites, master key
    identifiers, and session parameters that change what is protected. Base64 without its padding is taken."""
    match = _CRYPTO.fullmatch(value)
    if match is None:
        return None
    tag, suite, text, more, session = match.groups()
    known = SUITES.get(suite.upper())
    if known is None or ":" in more or session.strip():  # |2^20 is a lifetime, |1:4 an identifier
        return None
    try:
        material = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error:
        return None
    return (int(tag), Key(suite.upper(), material)) if len(material) == known[0] else None


class MediaProtection:
    """A ``ways.Protection`` as signalling agrees it: SRTP with its keys, or none. Before, nothing passes."""

    def __init__(self) -> None:
        self._agreed = False
        self._keys: tuple[Key, Key] | None = None
        self._out: pylibsrtp.Session | None = None
        self._in: pylibsrtp.Session | None = None

    def agree(self, keys: tuple[Key, Key] | None) -> None:
        """Ours and theirs; None: in the clear. A direction whose key is the same goes on with its counters."""
        before = self._keys or (None, None)
        self._agreed, self._keys = True, keys
        if keys is None:
            self._out = self._in = None
            return
        if keys[0] != before[0]:
            self._out = _session(keys[0], pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        if keys[1] != before[1]:
            self._in = _session(keys[1], pylibsrtp.Policy.SSRC_ANY_INBOUND)

    def protect(self, packet: bytes, *, rtcp: bool) -> bytes:
        if not self._agreed:
            raise ConnectionError("nothing is agreed yet")
        if self._out is None:
            return packet
        return bytes(self._out.protect_rtcp(packet) if rtcp else self._out.protect(packet))

    def unprotect(self, packet: bytes, *, rtcp: bool) -> bytes:
        """Raises ValueError for what is not authentic."""
        if not self._agreed:
            raise ValueError("nothing is agreed yet")
        if self._in is None:
            return packet
        try:
            return bytes(self._in.unprotect_rtcp(packet) if rtcp else self._in.unprotect(packet))
        except pylibsrtp.Error as error:
            raise ValueError(str(error)) from error

    def security(self) -> Mapping[str, str]:
        return {} if self._keys is None else {"srtpCipher": self._keys[0].suite}


def _session(key: Key, kind: int) -> pylibsrtp.Session:
    return pylibsrtp.Session(pylibsrtp.Policy(key=key.material, ssrc_type=kind, srtp_profile=SUITES[key.suite][1]))
