"""Digest authentication of a client (RFC 7616, for SIP RFC 8760 and RFC 3261 22).

Of several challenges of one realm the topmost whose algorithm is known here is answered. A challenge is remembered, so
that later requests carry their answer at once; a nonce that has become stale costs one round trip.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.providers.sip.grammar import Malformed, quoted, split, unquoted
from appliance.providers.sip.message import Request, Response

__all__ = ["Authenticator", "Challenge", "Credentials", "challenges"]

_HASHES: Final = {name: known for name, known in (("md5", "md5"), ("sha-256", "sha256"), ("sha-512-256", "sha512_256"))
                  if known in hashlib.algorithms_available}
_FIELDS: Final = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
REALMS: Final = 8  # remembered: a registrar, and the proxies on the way
ROUNDS: Final = 4  # answers to challenges of one request: two servers on the way, each with a stale nonce


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """``algorithm`` in lower case; ``qop`` empty where the server is of before RFC 2617."""

    realm: str
    nonce: str
    algorithm: str = "md5"
    opaque: str = ""
    qop: tuple[str, ...] = ()
    stale: bool = False

    @classmethod
    def parse(cls, text: str) -> Challenge | None:
        """None for a scheme that is not Digest. Raises Malformed."""
        scheme, _, rest = text.strip().partition(" ")
        if scheme.lower() != "digest":
            return None
        fields: dict[str, str] = {}
        for part in split(rest):
            name, equals, value = part.partition("=")
            if equals:
                fields.setdefault(name.strip().lower(), unquoted(value.strip()))
        if "realm" not in fields or "nonce" not in fields:
            raise Malformed("a challenge has no realm or no nonce")
        return cls(
            fields["realm"], fields["nonce"], fields.get("algorithm", "md5").lower(), fields.get("opaque", ""),
            tuple(one.strip().lower() for one in fields.get("qop", "").split(",") if one.strip()),
            fields.get("stale", "").lower() == "true")

    @property
    def usable(self) -> bool:
        return (self.algorithm.removesuffix("-sess") in _HASHES
                and (not self.qop or bool({"auth", "auth-int"} & set(self.qop))))


def challenges(response: Response) -> list[Challenge]:
    """What a 401 or 407 asks for, by realm, the one to answer of each. Raises Malformed."""
    asked: dict[str, Challenge] = {}
    for text in response.headers.all(_FIELDS[response.status][0].lower()):
        one = Challenge.parse(text)
        if one is not None and one.usable:
            asked.setdefault(one.realm, one)
    return list(asked.values())


class Authenticator:
    """Answers for one account. ``cnonce``: makes our half of the randomness."""

    def __init__(self, credentials: Credentials, cnonce: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._credentials = credentials
        self._cnonce = cnonce
        self._known: dict[tuple[int, str], tuple[Challenge, int]] = {}  # (status, realm) -> challenge, times used

    def prepare(self, request: Request) -> None:
        """Answer beforehand what was asked before."""
        for status, realm in tuple(self._known):
            self._answer(request, status, realm)

    def retry(self, request: Request, response: Response) -> bool:
        """Put the answers to a 401 or 407 into ``request``, a copy of what it refused. False where that is of no use:
        the password is wrong, or nothing is asked for that can be answered. Raises Malformed."""
        status = response.status
        asked = challenges(response)
        name = _FIELDS[status][1]
        given = [_realm_and_nonce(text) for text in request.headers.all(name.lower())]
        if not asked or any(self._wrong(status, one, given) for one in asked):
            for one in asked:
                self._known.pop((status, one.realm), None)
            return False
        request.headers.drop(name)
        for one in asked:
            while len(self._known) >= REALMS:
                del self._known[next(iter(self._known))]
            self._known[status, one.realm] = (one, 0)
            self._answer(request, status, one.realm)
        return True

    def _wrong(self, status: int, asked: Challenge, given: Sequence[tuple[str, str]]) -> bool:
        """Whether a fresh challenge means that our answer to the one before was wrong. A nonce that has served before
        may just be forgotten: a server that was started anew cannot know that it is stale."""
        known, used = self._known.get((status, asked.realm), (None, 0))
        return (not asked.stale and known is not None and used <= 1
                and (asked.realm, known.nonce) in given)

    def _answer(self, request: Request, status: int, realm: str) -> None:
        challenge, used = self._known[status, realm]
        self._known[status, realm] = (challenge, used + 1)
        name = _FIELDS[status][1]
        request.headers.add(name, self._value(challenge, request, used + 1))

    def _value(self, challenge: Challenge, request: Request, count: int) -> str:
        algorithm, session = challenge.algorithm.removesuffix("-sess"), challenge.algorithm.endswith("-sess")
        who, cnonce, nc = self._credentials, self._cnonce(), f"{count:08x}"

        def digest(*parts: str) -> str:
            text = ":".join(parts).encode("utf-8", "surrogateescape")
            return hashlib.new(_HASHES[algorithm], text, usedforsecurity=False).hexdigest()

        secret = digest(who.username, challenge.realm, who.password)
        if session:
            secret = digest(secret, challenge.nonce, cnonce)
        qop = next((one for one in ("auth", "auth-int") if one in challenge.qop), "")
        what = [request.method, request.target]
        if qop == "auth-int":
            what.append(hashlib.new(_HASHES[algorithm], request.body, usedforsecurity=False).hexdigest())
        told = [challenge.nonce, *((nc, cnonce, qop) if qop else ())]
        fields = {
            "username": quoted(who.username), "realm": quoted(challenge.realm), "nonce": quoted(challenge.nonce),
            "uri": quoted(request.target), "response": quoted(digest(secret, *told, digest(*what))),
            "algorithm": challenge.algorithm.upper().replace("-SESS", "-sess"),
        }
        if qop or session:
            fields["cnonce"] = quoted(cnonce)
        if qop:
            fields |= {"qop": qop, "nc": nc}
        if challenge.opaque:
            fields["opaque"] = quoted(challenge.opaque)
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items())


def _realm_and_nonce(text: str) -> tuple[str, str]:
    """Of an answer of ours."""
    fields = {name.strip(): unquoted(value.strip()) for name, _, value in
              (part.partition("=") for part in split(text.partition(" ")[2]))}
    return fields.get("realm", ""), fields.get("nonce", "")
