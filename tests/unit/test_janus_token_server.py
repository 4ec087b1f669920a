"""Tokens of a server: how it is asked, what it may answer, and when the next one is fetched."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.providers.janus.token import Token
from appliance.providers.janus.token_server import MOST_S, SHARE, Fetched, Renewal, TokenServer, Unfetched, tls_of
from appliance.settings import Secret
from tests.support.loopback import served


class Wall:
    """The clock, and the sleep, in the test's hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def synchronised(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, due))
        await due

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for at, due in self._sleepers:
            if at <= self.now and not due.done():
                due.set_result(None)
        for _ in range(20):  # turns of the loop, until everybody has had what is due
            await asyncio.sleep(0)


class World:
    """``answers``: of the server, in turn; the last one is for ever."""

    def __init__(self, *answers: Fetched | Unfetched) -> None:
        self.wall = Wall()
        self.flags: dict[str, bool] = {}
        self.what: dict[str, Any] = {}
        self.token = Token(Secret(), self.wall, kept=None, flag=self._flag, fetched=True)
        self.answers = list(answers)
        self.asked = 0
        self.hidden: set[str] = set()
        self.renewed: list[str] = []
        self.changed: list[str] = []
        self.token.on_change = lambda: self.changed.append(self.token.text)
        self.renewal = Renewal(self._fetch, self.token, hide=self._hide, sleep=self.wall.sleep,
                               renewed=lambda: self.renewed.append(self.token.text))

    def _flag(self, name: str, active: bool, *, what: Any = None, **_: Any) -> None:
        self.flags[name], self.what[name] = active, what

    def _hide(self, text: str, forget: str) -> None:
        self.hidden.add(text)
        self.hidden.discard(forget)

    def look(self) -> tuple[bool, bool]:
        """Is its end near, is it of no use?"""
        self.token.start()
        assert self.flags["tokenInvalid"] or not self.token.expired
        return self.flags["tokenExpiring"], self.flags["tokenInvalid"]

    async def _fetch(self) -> Fetched:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unfetched):
            raise answer
        return answer


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    world.token.start()
    task = asyncio.create_task(world.renewal.run())
    await world.wall.pass_time(0)
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        world.token.stop()


async def test_before_the_first_one_there_is_none_and_nobody_joins() -> None:
    world = World(Fetched("t", 60))
    assert world.look() == (False, True)
    async with running(world):
        assert world.look() == (False, False)
        assert world.token.text == "t"
        assert world.changed == world.renewed == ["t"]


async def test_in_ten_minutes_of_a_token_of_60_s_it_is_never_without_one() -> None:
    world = World(*(Fetched(f"t{number}", 60.0) for number in range(40)))
    async with running(world):
        for _ in range(600):
            await world.wall.pass_time(1.0)
            assert not world.token.expired
            assert not world.flags["tokenExpiring"]
        assert world.asked >= 12
        assert world.wall.slept == [60 * SHARE] * world.asked
        assert len(world.hidden) == 2, "the one in force, and the one before"
        assert world.token.text in world.hidden


async def test_a_server_that_is_gone_is_told_in_time_and_asked_ever_more_seldom() -> None:
    world = World(Fetched("t", 60.0), Unfetched("it is not reached: Connection refused"))
    async with running(world):
        await world.wall.pass_time(48)
        assert world.look() == (False, False), "it is being fetched"
        for _ in range(6):
            await world.wall.pass_time(1)
        assert world.look() == (True, False)
        for _ in range(6):
            await world.wall.pass_time(1)
        assert world.look() == (False, True)
        assert "Connection refused" in world.what["tokenInvalid"]
        for _ in range(3600):
            await world.wall.pass_time(1)
        pauses = world.wall.slept[1:]
        assert 1.0 <= pauses[0] <= 2.0
        assert max(pauses) <= MOST_S
        assert 12 <= len(pauses) <= 40
        world.answers = [Fetched("new", 60.0)]
        await world.wall.pass_time(MOST_S)
        assert (world.token.text, world.look()) == ("new", (False, False))


async def test_what_the_server_asks_to_wait_is_waited() -> None:
    async with running(World(Unfetched("busy", 120.0), Fetched("t", 60.0))) as world:
        assert world.wall.slept == [120.0]
        await world.wall.pass_time(119)
        assert world.asked == 1
        await world.wall.pass_time(1)
        assert world.token.text == "t"


async def test_one_that_the_rooms_refuse_is_asked_for_anew_and_not_without_end() -> None:
    async with running(World(Fetched("bad", None))) as world:
        assert world.wall.slept == [], "its life is not told: it holds until it is refused"
        for _ in range(600):
            await world.wall.pass_time(1)
            if world.renewed:
                world.renewed.clear()
                world.token.judged("Unauthorized request")
                await world.wall.pass_time(0)  # so that it is heard before the time of the next attempt counts
        assert 5 <= world.asked <= 15
        world.answers = [Fetched("good", None)]
        await world.wall.pass_time(MOST_S)
        world.token.judged("")
        assert world.token.text == "good"
        assert world.look() == (False, False)
        before = world.asked
        await world.wall.pass_time(100_000)
        assert world.asked == before


def certificates(folder: Path) -> dict[str, Path]:
    """An authority, a server ``localhost`` and the device; files by name, ``X.key`` beside."""
    now = datetime.datetime.now(datetime.UTC)
    made: dict[str, Path] = {}
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server", "device")}

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    for who, key in keys.items():
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=who == "ca", crl_sign=who == "ca", content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False)
        builder = (x509.CertificateBuilder().subject_name(name(who)).issuer_name(name("ca"))
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
                   .add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
                   .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()),
                                  critical=False)
                   .add_extension(usage, critical=True))  # Python 3.13 insists on what RFC 5280 wants
        made[who] = folder / f"{who}.crt"
        made[who].write_bytes(builder.sign(keys["ca"], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        made[f"{who}.key"] = folder / f"{who}.key"
        made[f"{who}.key"].write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return made


@asynccontextmanager
async def server(
    folder: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[str, dict[str, Path]]]:
    files = await asyncio.to_thread(certificates, folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files["ca"]))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(files["server"], files["server.key"])
    app = web.Application()
    app.router.add_route("*", "/rooms", answer)
    async with served(app, tls=tls) as port:
        yield f"https://localhost:{port}/rooms", files


def tls_for(files: dict[str, Path], cert: str = "device") -> ssl.SSLContext:
    return tls_of(str(files["ca"]), str(files[cert]) if cert else "", str(files[f"{cert}.key"]) if cert else "")


async def test_it_is_asked_by_the_device_s_certificate(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        peer = request.transport.get_extra_info("peercert") if request.transport is not None else {}
        asked.append((request.method, dict(await request.post()), dict(peer["subject"][0])["commonName"]))
        return web.json_response({"access_token": "secret", "token_type": "Bearer", "expires_in": 3600})

    async with server(tmp_path, answer) as (url, files):
        got = await TokenServer(url, "front-door", tls_for(files)).fetch()
        assert (got.text, got.life_s) == ("secret", 3600.0)
        assert "secret" not in repr(got)
        assert asked == [("POST", {"grant_type": "client_credentials", "client_id": "front-door"}, "device")]
        with pytest.raises(Unfetched):
            await TokenServer(url, "front-door", tls_for(files, "")).fetch()
        assert len(asked) == 1, "who has no certificate is not even heard"


async def test_a_server_of_another_authority_is_told_nothing(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"access_token": "x"})

    async with server(tmp_path, answer) as (url, _):
        with pytest.raises(Unfetched, match="its certificate is refused"):
            await TokenServer(url, "front-door", ssl.create_default_context()).fetch()


@pytest.mark.parametrize(("status", "body", "fields", "why", "wait_s"), [
    (200, b"", {}, "no access_token", 0.0),
    (200, b"[1]", {}, "no access_token", 0.0),
    (200, b"[" * 5000, {}, "no access_token", 0.0),
    (200, b'{"access_token": 7}', {}, "no access_token", 0.0),
    (200, b'{"access_token": ""}', {}, "no access_token", 0.0),
    (200, b'{"access_token": "a\\nb"}', {}, "no access_token", 0.0),
    (200, b'{"access_token": "%s"}' % (b"x" * 5000), {}, "no access_token", 0.0),
    (200, b'{"access_token": "x", "expires_in": -1}', {}, "expires_in", 0.0),
    (200, b'{"access_token": "x", "expires_in": true}', {}, "expires_in", 0.0),
    (200, b'{"access_token": "x", "expires_in": 1e999}', {}, "expires_in", 0.0),
    (200, b'{"access_token": "x", "expires_in": NaN}', {}, "expires_in", 0.0),
    (200, b" " * 70_000, {}, "more than", 0.0),
    (400, b'{"error": "invalid_client", "error_description": "s3cret"}', {}, r"status 400 \(invalid_client\)$", 0.0),
    (401, b'{"error": "s3cret"}', {}, r"status 401$", 0.0),
    (302, b"", {"Location": "https://elsewhere.example/"}, "status 302", 0.0),
    (503, b"", {"Retry-After": "17"}, "status 503", 17.0),
    (429, b"", {"Retry-After": "99999999"}, "status 429", MOST_S),
    (429, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "status 429", 0.0),
])
async def test_what_it_may_answer_else(
    tmp_path: Path, status: int, body: bytes, fields: dict[str, str], why: str, wait_s: float,
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=fields)

    async with server(tmp_path, answer) as (url, files):
        with pytest.raises(Unfetched, match=why) as told:
            await TokenServer(url, "front-door", tls_for(files)).fetch()
    assert told.value.wait_s == wait_s


async def test_one_that_is_not_there(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    async with server(tmp_path, answer) as (url, files):
        pass
    with pytest.raises(Unfetched, match="it is not reached: "):
        await TokenServer(url, "front-door", tls_for(files)).fetch()
