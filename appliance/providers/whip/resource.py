"""The HTTP of WHIP and WHEP: an endpoint is asked for a session, which is a resource until it is deleted.

Every request has its own time limit and its own connection: there are few of them, minutes apart, and a kept one would
be dead after a change of network. Answers are bounded. The token goes to the origin of the settings and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import aiohttp
from yarl import URL

from appliance.errors import SignalingError
from appliance.media.api import IceServers
from appliance.media.sdp import MAX_SDP
from appliance.providers.probe import PINGS
from appliance.providers.whip import protocol as wire
from appliance.providers.whip.protocol import Setback
from appliance.settings import Secret
from appliance.vocabulary import END_REASONS

__all__ = ["Endpoint", "Resource", "open_http", "round_trip"]

log = logging.getLogger(__name__)

CREATE_S: Final = 10.0  # a server may have to start media first
PATCH_S: Final = 5.0
DELETE_S: Final = 5.0
CONNECT_S: Final = 3.0
REDIRECTS: Final = 5
CREATED: Final = 201
SUCCESS: Final = range(200, 300)
REDIRECT: Final = (307, 308)  # others would lose the offer (RFC 9110 15.4)
UNSUPPORTED: Final = (400, 405, 406, 415, 422, 501)  # answers to PATCH of a server that has none, or not of this kind
MISMATCH: Final = (412, 428)


def open_http() -> aiohttp.ClientSession:
    """A client without memory: no cookies, no kept connections."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), cookie_jar=aiohttp.DummyCookieJar())


async def round_trip(url: str, tls: ssl.SSLContext | None) -> float:
    """Seconds to an endpoint and back, by OPTIONS (RFC 9725 4.2), whatever it answers. Raises OSError."""
    loop, took = asyncio.get_running_loop(), []
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            for _ in range(PINGS):
                began = loop.time()
                async with http.options(url, allow_redirects=False, ssl=tls if tls is not None else True) as reply:
                    await reply.content.read(1)
                if reply.status in (502, 503, 504):
                    raise OSError(f"it answers with status {reply.status}")
                took.append(loop.time() - began)
    except aiohttp.ClientError as error:
        raise OSError(str(error) or type(error).__name__) from error
    return min(took)


@dataclass(frozen=True, slots=True)
class _Answer:
    """``url``: who answered, after redirects. ``headers``: of several of a name the first, by any case; ``links``: all
    of that name. ``text``: of success, and of 406, which may be an offer."""

    status: int
    url: URL
    headers: Mapping[str, str]
    links: Sequence[str]
    text: str

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def wait_s(self) -> float | None:
        told = wire.date_of(self.headers.get("Date", ""))
        return wire.retry_after(self.headers.get("Retry-After"), told or datetime.now(UTC))


class Endpoint:
    """Where to publish, or to play (``plays``). ``tls``: None for the authorities of the system."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, token: Secret, tls: ssl.SSLContext | None, *, plays: bool,
    ) -> None:
        self.plays = plays
        self._http = http
        self._url = URL(url)
        self._token = token
        self._tls = tls

    async def create(self, offer: str, within_s: float | None = None) -> Resource:
        """Ask for a session. ``within_s``: None for as long as a server may need. Raises Setback."""
        answer = await self.request("POST", self._url, within_s or CREATE_S, body=offer, content_type=wire.SDP)
        if answer.status == CREATED:
            return self._created(answer)
        if answer.status == 406 and self.plays and answer.content_type == wire.SDP and answer.text:
            return self._created(answer)  # the server makes an offer of its own instead
        if answer.status in SUCCESS:
            raise wire.unreached(f"The media server answers with status {answer.status} and creates nothing.")
        raise wire.refusal(answer.status, plays=self.plays, wait_s=answer.wait_s)

    def _created(self, answer: _Answer) -> Resource:
        location = answer.headers.get("Location")
        try:
            url = wire.located(answer.url, location) if location else None
        except SignalingError as error:
            raise wire.unreached(f"The media server cannot be used: {error.message}.") from None
        if url is None or not wire.may_go_to(self._url, url):
            log.warning("the media server names no resource that can be used: it cannot be told when the call is over")
            url = None
        takes = answer.headers.get("Accept-Patch")
        return Resource(
            self, url, answer.text, offered=self.plays and (answer.status != CREATED or wire.is_offer(answer.text)),
            servers=wire.ice_servers(answer.links), tag=answer.headers.get("ETag"),
            patchable=url is not None and (takes is None or wire.FRAGMENT in takes.lower()))

    async def request(
        self, method: str, url: URL, within_s: float, *, body: str = "", content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        """The answer, after redirects; of any status. Raises Setback when there is none that can be used."""
        try:
            async with asyncio.timeout(within_s):
                for _ in range(REDIRECTS):
                    answer = await self._once(method, url, body, content_type, headers or {})
                    if answer.status not in REDIRECT:
                        return answer
                    url = self._redirected(answer)
        except TimeoutError:
            raise wire.unreached("The media server is not reached: no answer in time.") from None
        except aiohttp.ClientConnectorCertificateError as error:
            words = f"The certificate of the media server is not trusted: {error.certificate_error}."
            raise wire.unreached(words, "495/certificate") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = getattr(error, "os_error", error)  # aiohttp's own errors of a connection carry it
            refused = isinstance(cause, ConnectionRefusedError)
            raise wire.unreached(f"The media server is not reached: {str(error) or type(error).__name__}.",
                                 refused=refused) from None
        raise wire.unreached(f"The media server redirects more than {REDIRECTS} times.")

    async def _once(
        self, method: str, url: URL, body: str, content_type: str, headers: Mapping[str, str],
    ) -> _Answer:
        sent = {"Accept-Encoding": "identity", **headers}
        if content_type:
            sent["Content-Type"] = content_type
        if self._token and wire.may_have_token(self._url, url):
            sent["Authorization"] = f"Bearer {self._token.reveal()}"
        async with self._http.request(
            method, url, data=body.encode() if content_type else None, headers=sent, allow_redirects=False,
            ssl=self._tls if self._tls is not None else True,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        ) as reply:
            return _Answer(reply.status, reply.url, reply.headers, reply.headers.getall("Link", ()), await _text(reply))

    def _redirected(self, answer: _Answer) -> URL:
        try:
            url = wire.located(answer.url, answer.headers.get("Location", ""))
        except SignalingError as error:
            raise wire.unreached(f"The media server redirects, but {error.message}.") from None
        if not wire.may_go_to(self._url, url):
            raise wire.unreached("The media server redirects to an address that is not encrypted.")
        return url


class Resource:
    """A session at the server. ``sdp`` is its answer, or where ``offered`` its offer, which ``answer`` answers."""

    def __init__(
        self, endpoint: Endpoint, url: URL | None, sdp: str, *, offered: bool, servers: IceServers | None,
        tag: str | None, patchable: bool,
    ) -> None:
        self.sdp = sdp
        self.offered = offered
        self.servers = servers
        self.patchable = patchable
        self._endpoint = endpoint
        self._url = url
        self._tag = tag

    async def answer(self, sdp: str) -> None:
        """Take the server's offer. Raises Setback."""
        if self._url is None:
            raise wire.unreached("The media server offers, but names no resource to answer at.")
        headers = {"If-Match": self._tag} if self._tag else {}
        answer = await self._endpoint.request("PATCH", self._url, CREATE_S, body=sdp, content_type=wire.SDP,
                                              headers=headers)
        if answer.status not in SUCCESS:
            raise wire.refusal(answer.status, plays=True, wait_s=answer.wait_s)

    async def trickle(self, fragment: str) -> bool:
        """Tell of further candidates; False: the server does not take them. Raises Setback."""
        answer = await self._patch(fragment, self._tag)
        return answer is not None and answer.status in SUCCESS

    async def restart(self, fragment: str) -> str | None:
        """Restart ICE with these credentials: the server's own. None: the server cannot. Raises Setback."""
        answer = await self._patch(fragment, "*", '"*"')  # some servers want it in quotes, as if it were a tag
        if answer is None or answer.status != 200 or not answer.text:
            return None
        self._tag = answer.headers.get("ETag")
        return answer.text

    async def _patch(self, fragment: str, tag: str | None, other: str | None = None) -> _Answer | None:
        """With the ``other`` tag where the first is not the one. None: the server does not take this, and is not asked
        again."""
        if not self.patchable or self._url is None:
            return None
        answer = await self._send(self._url, fragment, tag)
        if answer.status in MISMATCH and other is not None:
            answer = await self._send(self._url, fragment, other)
        if answer.status in UNSUPPORTED or answer.status in MISMATCH:
            # 412 and 428: it is in another ICE session than we know of, or wants to be told by a tag it never gave
            self.patchable = False
            log.info("the media server takes no news of candidates (status %d)", answer.status)
            return None
        if answer.status not in SUCCESS:
            raise wire.refusal(answer.status, plays=self._endpoint.plays, wait_s=answer.wait_s)
        return answer

    async def _send(self, url: URL, fragment: str, tag: str | None) -> _Answer:
        return await self._endpoint.request("PATCH", url, PATCH_S, body=fragment, content_type=wire.FRAGMENT,
                                            headers={"If-Match": tag} if tag else {})

    async def delete(self) -> bool:
        """Tell the server that it is over; False: it was not reached, and may be told later. What it answers changes
        nothing: without us its session runs out."""
        if self._url is None:
            return True
        try:
            answer = await self._endpoint.request("DELETE", self._url, DELETE_S)
        except Setback as setback:
            log.info("the media server was not told that the session is over: %s", setback.reason.message)
            return False
        if answer.status not in SUCCESS and answer.status not in (404, 410):
            log.info("the media server was told that the session is over, and answers with status %d", answer.status)
        self._url = None
        return True


async def _text(reply: aiohttp.ClientResponse) -> str:
    """At most MAX_SDP of it; more is a fault. Words of an error are not read: they are for people elsewhere."""
    if reply.status not in (200, 201, 406):
        return ""
    content = bytearray()
    async for chunk in reply.content.iter_chunked(MAX_SDP):
        content += chunk
        if len(content) > MAX_SDP:
            raise Setback(replace(END_REASONS["503/provider"], message="The media server's answer is too large."))
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""
