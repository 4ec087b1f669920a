"""Who is calling: bearer tokens, one-time addresses, page sessions, and the brake on wrong guesses.

No secret is kept in clear: tokens, address tokens and session ids are compared by their SHA-256 digests, in constant
time. Everything here is bounded: the oldest goes when a limit is reached.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from appliance.durable import replace_file
from appliance.errors import Refused, SettingsError
from appliance.settings import TokenSettings
from appliance.vocabulary import Scope

__all__ = ["Addresses", "Caller", "Grant", "Proof", "Session", "Sessions", "Tokens"]

TOKEN_MINIMUM: Final = 16
"""Characters. A right token is always let in, so only its length stands against guessing."""

SESSIONS_LIMIT: Final = 64
SESSION_IDLE_S: Final = 12 * 3600.0
"""A shift and a half: an operator who comes back the next morning asks for a new address."""

ADDRESSES_LIMIT: Final = 16
ADDRESS_LIFE_S: Final = 3600.0


class Proof(Enum):
    """How a caller proved who it is."""

    SOCKET = "socket"  # the Unix socket's mode and group
    TOKEN = "token"  # noqa: S105 - the name of a way, not a secret
    COOKIE = "cookie"  # a page session; state changes need an exact Origin as well


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token or session gives."""

    name: str
    scope: Scope
    display_name: str


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller. ``session`` is public: stable over reconnects, useless as a credential."""

    grant: Grant
    proof: Proof
    session: str
    loopback: bool


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Tokens:
    """The bearer tokens of the settings."""

    def __init__(self, tokens: Sequence[TokenSettings]) -> None:
        """Raises SettingsError for a token that is too short, doubled or of an unknown scope."""
        faults: list[str] = []
        self._grants: list[tuple[bytes, Grant]] = []
        scopes = {scope.value: scope for scope in Scope}
        seen: set[bytes] = set()
        for entry in tokens:
            secret = entry.token.reveal()
            digest = _digest(secret)
            if len(secret) < TOKEN_MINIMUM:
                faults.append(f"http.tokens {entry.name!r}: a token has at least {TOKEN_MINIMUM} characters")
            elif digest in seen:
                faults.append(f"http.tokens {entry.name!r}: another entry has the same token")
            elif entry.scope not in scopes:
                faults.append(f"http.tokens {entry.name!r}: unknown scope {entry.scope!r}; {', '.join(scopes)}")
            else:
                seen.add(digest)
                self._grants.append((digest, Grant(entry.name, scopes[entry.scope], entry.name)))
        if faults:
            raise SettingsError("settings", faults)

    def find(self, presented: str) -> Grant | None:
        """The grant of a token. Every entry is compared, so that the time tells nothing."""
        digest, found = _digest(presented), None
        for known, grant in self._grants:
            if hmac.compare_digest(known, digest):
                found = grant
        return found


class Addresses:
    """Tokens of printed addresses: each opens one session, once, within the hour."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._open: OrderedDict[bytes, tuple[float, Grant]] = OrderedDict()

    def issue(self, grant: Grant) -> str:
        token = secrets.token_urlsafe(24)
        self._open[_digest(token)] = (self._now() + ADDRESS_LIFE_S, grant)
        while len(self._open) > ADDRESSES_LIMIT:
            self._open.popitem(last=False)
        return token

    def redeem(self, token: str) -> Grant | None:
        """The grant, the first time and before it expires; afterwards None."""
        entry = self._open.pop(_digest(token), None)
        if entry is None or self._now() > entry[0]:
            return None
        return entry[1]


@dataclass(slots=True)
class Session:
    """One browser. ``leases`` counts its open streams; a session with one is in use and does not expire."""

    public: str
    grant: Grant
    used: float
    leases: int = 0
    on_end: list[Callable[[], None]] = field(default_factory=list)


class Sessions:
    """Server-side page sessions, kept over a restart so that an operator's page comes back by itself.

    The file holds digests, grants and the time of the last use only. ``load`` and ``save`` block: call them off the
    loop. ``now`` is monotonic and counts while we run; ``wall`` (seconds since the epoch) over a restart.
    """

    def __init__(self, path: Path | None, now: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self.now = now
        self._wall = wall
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._changed = False

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, grant: Grant) -> str:
        """A new session; returns the secret for its cookie. When there are too many the one unused for longest goes;
        raises Refused (503) when every one of them has a page open."""
        self.expire()
        while len(self._sessions) >= SESSIONS_LIMIT:
            idle = next((key for key, session in self._sessions.items() if not session.leases), None)
            if idle is None:
                raise Refused(f"{SESSIONS_LIMIT} browsers have a page open. Close one.", code=503, sub_code="sessions")
            self._drop(idle)
        secret = secrets.token_urlsafe(32)
        self._sessions[_digest(secret)] = Session(secrets.token_hex(8), grant, self.now())
        self._changed = True
        return secret

    def find(self, secret: str) -> Session | None:
        """The live session of a cookie; counts as use."""
        self.expire()
        digest = _digest(secret)
        session = self._sessions.get(digest)
        if session is not None:
            session.used = self.now()
            self._changed = True
            self._sessions.move_to_end(digest)
        return session

    def end(self, secret: str) -> None:
        """Sign out: the session and its open streams end."""
        self._drop(_digest(secret))

    @property
    def changed(self) -> bool:
        """Whether ``dump`` gives something else than the last time; use counts, also by an open stream."""
        return self._changed or any(session.leases for session in self._sessions.values())

    def expire(self) -> None:
        """End what was not used for 12 hours."""
        limit = self.now() - SESSION_IDLE_S
        for digest, session in list(self._sessions.items()):
            if not session.leases and session.used < limit:
                self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        session = self._sessions.pop(digest, None)
        if session is not None:
            self._changed = True
            for tell in tuple(session.on_end):
                tell()

    def dump(self) -> str:
        self._changed = False
        now, wall = self.now(), self._wall()
        return json.dumps([
            {"digest": digest.hex(), "public": session.public, "name": session.grant.name,
             "scope": session.grant.scope.value, "displayName": session.grant.display_name,
             "used": round(wall if session.leases else wall - (now - session.used))}
            for digest, session in self._sessions.items()
        ])

    def load(self) -> None:
        """Read the sessions of the last run that have not expired meanwhile; a clock that went back makes none
        younger than new. Raises OSError, ValueError, KeyError or TypeError; a missing file is none."""
        if self._path is None or not self._path.exists():
            return
        now, wall = self.now(), self._wall()
        for row in json.loads(self._path.read_text("utf-8"))[-SESSIONS_LIMIT:]:
            idle = max(0.0, wall - float(row["used"]))
            if idle > SESSION_IDLE_S:
                self._changed = True
                continue
            grant = Grant(str(row["name"]), Scope(row["scope"]), str(row["displayName"]))
            self._sessions[bytes.fromhex(row["digest"])] = Session(str(row["public"]), grant, now - idle)

    def save(self, text: str) -> None:
        """Write what ``dump`` gave, atomically and for the owner only. Raises OSError."""
        if self._path is None:
            return
        replace_file(self._path, text.encode())
