"""Tokens of a real Janus, stored at it and signed, and a server that gives them as an operator's would: by OAuth 2.0's
client credentials grant, to clients that a certificate of its authority authenticates."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from appliance.settings import Secret
from tests.support.janus import JanusServer
from tests.support.loopback import served
from tests.support.turnserver import Authority

__all__ = ["SIGNED", "Issuer", "admit", "issuer", "signed", "stored"]

KEY: Final = "signing-key"
SIGNED: Final = {"token_auth": True, "token_auth_secret": KEY}
"""``general`` of a Janus that takes signed tokens."""
HOST: Final = "127.0.0.1"


def signed(good_s: float, realm: str = "janus", what: str = "janus.plugin.videoroom", *, key: str = KEY) -> Secret:
    """As the documentation of Janus has it: HMAC-SHA1, in base64."""
    data = f"{time.time() + good_s:.0f},{realm},{what}"
    code = hmac.digest(key.encode(), data.encode(), hashlib.sha1)
    return Secret(f"{data}:{base64.b64encode(code).decode()}")


async def admit(server: JanusServer, token: str) -> None:
    answer = await server.admin("add_token", token=token, plugins=["janus.plugin.videoroom"])
    assert answer["janus"] == "success", answer


def stored(server: JanusServer) -> Callable[[], Awaitable[str]]:
    """Makes tokens that the Janus keeps, and that know nothing of an end."""
    async def make() -> str:
        token = secrets.token_urlsafe(24)
        await admit(server, token)
        return token

    return make


class Issuer:
    """``make`` makes the next token; ``settings``: those of ``[janus]`` for who fetches there. ``open``: whether it
    gives any; else it is down for maintenance."""

    def __init__(self, make: Callable[[], Awaitable[str]], life_s: float) -> None:
        self._make = make
        self._life_s = life_s
        self.open = True
        self.given: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.settings: Mapping[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(dict(await request.post()))
        if not self.open:
            return web.Response(status=503, headers={"Retry-After": "1"})
        self.given.append(await self._make())
        return web.json_response({"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self._life_s},
                                 headers={"Cache-Control": "no-store"})


@asynccontextmanager
async def issuer(folder: Path, make: Callable[[], Awaitable[str]], life_s: float) -> AsyncIterator[Issuer]:
    authority = Authority(folder, "tokens")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(*authority.issue(HOST))
    certificate, key = authority.issue("127.0.0.2")  # of the device: what stands in it is not looked at
    made, app = Issuer(make, life_s), web.Application()
    app.router.add_post("/token", made.answer)
    async with served(app, tls=tls, shutdown_s=0.1) as port:
        made.settings = {"janus.token_url": f"https://{HOST}:{port}/token", "janus.ca_file": str(authority.file),
                         "janus.token_cert_file": str(certificate), "janus.token_cert_key_file": str(key)}
        yield made
