"""Tokens for the rooms from a server of the operator's (``janus.token_url``), fetched before they end.

The request is OAuth 2.0's client credentials grant (RFC 6749 4.4) of a client that its TLS certificate authenticates
(RFC 8705 2): POST with ``grant_type=client_credentials`` and ``client_id``, the device's id. The answer is its JSON
(RFC 6749 5.1): ``access_token``, which Janus gets as it is, and ``expires_in``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from appliance.backoff import Backoff, doubling
from appliance.providers.janus.token import Token

__all__ = ["Fetched", "Renewal", "TokenServer", "Unfetched", "tls_of"]

log = logging.getLogger(__name__)

ANSWER_S: Final = 10.0
ANSWER_BYTES: Final = 65_536
LONGEST: Final = 4096
"""Characters of a token, as for ``token.set``."""
LONGEST_LIFE_S: Final = 31_536_000.0
SHARE: Final = 0.8
"""Of its life, after which the next one is fetched."""
FIRST_S: Final = 2.0
MOST_S: Final = 300.0  # between two attempts


@dataclass(frozen=True, slots=True)
class Fetched:
    """``life_s``: None where the server does not say."""

    text: str = field(repr=False)
    life_s: float | None


class Unfetched(Exception):
    """There was none, and why, in words for people. ``wait_s``: what the server asks for before the next attempt."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def tls_of(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Blocking. Raises OSError (``ssl.SSLError`` is one)."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context


class TokenServer:
    """``client``: our name there; ``tls``: with the device's certificate."""

    def __init__(self, url: str, client: str, tls: ssl.SSLContext) -> None:
        self._url = url
        self._client = client
        self._tls = tls

    async def fetch(self) -> Fetched:
        """Raises Unfetched. Redirects are not followed: what comes back is a secret."""
        asked = {"grant_type": "client_credentials", "client_id": self._client}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
                http.post(self._url, data=asked, headers={"Accept": "application/json"}, allow_redirects=False,
                          ssl=self._tls) as answer,
            ):
                content = await _all_of(answer.content)
        except TimeoutError as error:
            raise Unfetched(f"no answer within {ANSWER_S:.0f} s") from error
        except aiohttp.ClientError as error:
            raise Unfetched(_words(error)) from error
        if answer.status != 200:
            raise Unfetched(f"it answers with status {answer.status}{_error_of(content)}",
                            _seconds(answer.headers.get("Retry-After", "")))
        return _token_of(content)


async def _all_of(stream: aiohttp.StreamReader) -> bytes:
    content = b""
    while part := await stream.read(ANSWER_BYTES):
        content += part
        if len(content) > ANSWER_BYTES:
            raise Unfetched(f"its answer has more than {ANSWER_BYTES} bytes")
    return content


def _words(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is refused: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it is not reached: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__


def _document(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _error_of(content: bytes) -> str:
    """The code of RFC 6749 5.2, which is no secret; nothing else is repeated of what a stranger may have written."""
    code = _document(content).get("error")
    known = ("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
             "invalid_scope")
    return f" ({code})" if code in known else ""


def _seconds(text: str) -> float:
    return min(float(text), MOST_S) if text.isascii() and text.isdecimal() else 0.0


def _token_of(content: bytes) -> Fetched:
    found = _document(content)
    text, life = found.get("access_token"), found.get("expires_in")
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST or not text.isprintable():
        raise Unfetched("its answer has no access_token that could be one")
    if life is None:
        return Fetched(text, None)
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life <= LONGEST_LIFE_S:
        raise Unfetched("its answer has an expires_in that is no number of seconds of at most a year")
    return Fetched(text, float(life))


class Renewal:
    """Keeps ``token`` fresh: ``run`` until cancelled. ``hide`` keeps a text out of the log, and need not do so any
    longer with another one; ``renewed``: there is a new one. One that the server of the rooms refuses is asked for
    anew."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Fetched]], token: Token, *, hide: Callable[[str, str], None],
        renewed: Callable[[], None], sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._fetch = fetch
        self._token = token
        self._hide = hide
        self._renewed = renewed
        self._sleep = sleep
        self._backoff = Backoff(doubling(FIRST_S, MOST_S))
        self._known = ("", "")  # the last two

    async def run(self) -> None:
        while True:
            self._token.wanted.clear()
            try:
                got = await self._fetch()
            except Unfetched as error:
                if not self._backoff.failures:
                    log.warning("no token from janus.token_url: %s", error)
                self._token.unfetched(str(error))
                await self._sleep(max(error.wait_s, self._backoff.failed()))
                continue
            forget, self._known = self._known[0], (self._known[1], got.text)
            self._hide(got.text, forget)
            life_s = self._token.hold(got.text, got.life_s)
            self._renewed()
            if await self._refused(None if life_s is None else life_s * SHARE):
                await self._sleep(self._backoff.failed())
            else:
                self._backoff.succeeded()

    async def _refused(self, within_s: float | None) -> bool:
        """Wait so long, None: without end, or until the server of the rooms refuses the token."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._token.wanted.wait())]
        if within_s is not None:
            waits.append(asyncio.ensure_future(self._sleep(within_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return self._token.wanted.is_set()
