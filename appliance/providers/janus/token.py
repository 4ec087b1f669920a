"""The token for server and rooms: which one holds, how long it is good, and what is told of that.

It comes from the settings, or from ``token.set``, which is kept in a file beside the data and holds until the settings
name another one, or from a server of tokens (``token_server``), and is then in memory alone. A signed token of Janus
says itself when it ends; of another, whoever gives it may say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from appliance.clock import Clock, rfc3339
from appliance.durable import replace_file
from appliance.errors import StoreError
from appliance.providers.janus.protocol import token_end
from appliance.sealed import is_sealed, seal, unseal
from appliance.settings import Secret
from appliance.vocabulary import Json

__all__ = ["Token"]

log = logging.getLogger(__name__)

EXPIRING_S: Final = 600.0
EXPIRING_SHARE: Final = 0.2
"""Of its life, where that is less than EXPIRING_S: so is a new one asked for."""
OVERDUE_SHARE: Final = 0.1
"""And of one that is fetched: by then the next one should have been here."""
PURPOSE: Final = "janus.token"
NO_KEY: Final = Secret()
LOOK_S: Final = 30.0  # the wall clock may be set meanwhile


@dataclass(frozen=True, slots=True)
class _Held:
    """``taken`` and ``ends`` in seconds since the epoch; ``instead_of``: digest of the one of the settings."""

    text: str = field(default="", repr=False)
    ends: float | None = None
    taken: float = 0.0
    instead_of: str = ""


class Token:
    """Construction reads ``kept``, the file of what ``token.set`` gave (None: it is not kept), and encrypts it where it
    is not and there is a ``key``. The rest on the loop. ``flag`` is that of the diagnostics; ``fetched``: a server of
    tokens has to give one."""

    def __init__(
        self, configured: Secret, clock: Clock, *, kept: Path | None, flag: Callable[..., None],
        key: Secret = NO_KEY, fetched: bool = False,
    ) -> None:
        self._clock = clock
        self._kept = kept
        self._flag = flag
        self._configured = configured
        self._refused = ""
        self._fetched = fetched
        self._unfetched = ""
        self.wanted = asyncio.Event()
        """The server has refused the one in force."""
        self._timer: asyncio.TimerHandle | None = None
        self._key = key
        self._held = _read(kept, key, configured) or self._of_settings()
        self.on_change: Callable[[], None] = _nobody

    @property
    def text(self) -> str:
        return self._held.text

    @property
    def expired(self) -> bool:
        """Or not there yet. Never while the clock is not known to be right: the server judges then."""
        left = self._left()
        return (left is not None and left <= 0) or (self._fetched and not self._held.text)

    def start(self) -> None:
        """Begin to tell."""
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def configure(self, configured: Secret) -> bool:
        """The settings were read again: another token than before takes the place of any. Whether there is one."""
        if configured == self._configured:
            return False
        self._configured = configured
        self._take(self._of_settings())
        return True

    async def put(self, text: str, ends_in_s: float | None) -> None:
        """``token.set``. Raises StoreError when it cannot be kept, and is in force all the same."""
        now = self._clock.wall()
        ends = token_end(text) if ends_in_s is None else now + ends_in_s
        self._take(_Held(text, ends, now, _digest(self._configured)))
        if self._kept is None:
            return
        try:
            await asyncio.to_thread(_keep, self._kept, self._held, self._key)
        except OSError as error:
            raise StoreError(f"the token is in force but will not outlive a restart: {self._kept.parent} cannot be "
                             f"written ({error.strerror})") from error

    def hold(self, text: str, life_s: float | None) -> float | None:
        """One that was fetched, for so long as it or its server says; returns that in seconds, None: nobody knows."""
        now = self._clock.wall()
        ends = token_end(text) if life_s is None else now + life_s
        self._unfetched = ""
        self._take(_Held(text, ends, now, _digest(self._configured)))
        return None if ends is None else max(0.0, ends - now)

    def unfetched(self, why: str) -> None:
        """There is none to be had: the one in force is good until it ends."""
        self._unfetched = why
        self._look()

    def judged(self, refused: str) -> None:
        """The server has taken it (``""``), or refused it in these words."""
        if refused:
            self.wanted.set()
        if refused != self._refused:
            self._refused = refused
            self._look()

    def state(self) -> Json:
        """For ``state/provider``; no part of the token."""
        ends = self._held.ends
        return {"isSet": bool(self._held.text), "expires": None if ends is None else rfc3339(ends),
                "isValid": not self._refused and not self.expired}

    def _of_settings(self) -> _Held:
        text = self._configured.reveal()
        return _Held(text, token_end(text), self._clock.wall())

    def _take(self, held: _Held) -> None:
        self._held, self._refused = held, ""
        self._look()
        self.on_change()

    def _left(self) -> float | None:
        ends = self._held.ends
        return ends - self._clock.wall() if ends is not None and self._clock.synchronised() else None

    def _look(self) -> None:
        self.stop()
        left, ends = self._left(), self._held.ends
        expiring = False
        if left is not None and ends is not None:
            share = OVERDUE_SHARE if self._fetched else EXPIRING_SHARE
            early = min(EXPIRING_S, share * max(0.0, ends - self._held.taken))
            expiring = 0 < left <= early
            edge = left - early if left > early else left
            if edge > 0:
                self._again(min(LOOK_S, edge))
        elif ends is not None:
            self._again(LOOK_S)
        words = self._refused and f"the server says: {self._refused}"
        if self.expired:
            words = "it has expired" if self._held.text else "there is none yet"
            words += self._unfetched and f", and janus.token_url gave none: {self._unfetched}"
        self._flag("tokenExpiring", expiring, what=None if ends is None else f"on {rfc3339(ends)}")
        self._flag("tokenInvalid", bool(words), what=words)

    def _again(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)


def _digest(configured: Secret) -> str:
    return hashlib.sha256(configured.reveal().encode()).hexdigest()


def _keep(kept: Path, held: _Held, key: Secret) -> None:
    """Blocking; raises OSError."""
    content = json.dumps(asdict(held)).encode()
    replace_file(kept, seal(content, key.reveal(), PURPOSE) if key else content)


def _opened(content: bytes, key: Secret) -> bytes:
    """Raises ValueError."""
    if not is_sealed(content):
        return content
    if not key:
        raise ValueError("it is encrypted, and janus.token_key_file is not set")
    return unseal(content, key.reveal(), PURPOSE)


def _read(kept: Path | None, key: Secret, configured: Secret) -> _Held | None:
    """What was kept, unless the settings name another token since. Blocking."""
    if kept is None:
        return None
    try:
        content = kept.read_bytes()
        held = _Held(**json.loads(_opened(content, key)))
        held = replace(held, text=str(held.text), taken=float(held.taken),
                       ends=None if held.ends is None else float(held.ends))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the token that was set cannot be read: %s; that of the settings applies", error)
        return None
    if key and not is_sealed(content):
        try:
            _keep(kept, held, key)
        except OSError as error:
            log.warning("the token that was set stays unencrypted: %s cannot be written (%s)", kept, error.strerror)
    return held if held.instead_of == _digest(configured) else None


def _nobody() -> None:
    return None
