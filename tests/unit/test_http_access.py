"""Who gets in: tokens and scopes, addresses and sessions, Host and Origin, floods of wrong guesses."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import time
from pathlib import Path

import aiohttp
import pytest

from appliance.doors.http import HttpDoor, PortBusyError, Ports
from appliance.errors import SettingsError
from appliance.handover import PeerChannel
from appliance.settings import HttpSettings, Secret, Settings, TokenSettings
from tests.support.http_door import ADMIN, DEVICE, OPERATOR, Desk, Hands, running_door
from tests.support.media_pair import until

HANGUP = {"id": "c-1", "args": {}}


async def test_nobody_commands_without_a_token(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.http.post(f"{at.base}/v1/cmd/call.hangup", json=HANGUP) as response:
        body = await response.json()
        assert (response.status, body["code"], body["subCode"]) == (401, 401, "session")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert at.desk.commands == []


@pytest.mark.parametrize("path", ["/v1/state", "/v1/state/call", "/v1/events", "/v1/stats", "/metrics", "/v1/peer",
                                  "/v1/sim", "/v1/camera/snapshot", "/v1/openapi.json", "/v1/session"])
async def test_nothing_is_told_without_a_token(tmp_path: Path, path: str) -> None:
    async with running_door(tmp_path) as at, at.http.get(at.base + path) as response:
        assert response.status == 401


@pytest.mark.parametrize(("token", "verb", "args", "status"), [
    (OPERATOR, "call.hangup", {}, 200),
    (OPERATOR, "book.remove", {"name": "desk"}, 403),
    (DEVICE, "call.hangup", {}, 403),
    (DEVICE, "io.set", {"relay": "door", "seconds": 3}, 403),
    (DEVICE, "call.dial", {"to": "operator:*"}, 403),
    (ADMIN, "book.remove", {"name": "desk"}, 200),
])
async def test_a_token_does_what_its_scope_permits(
        tmp_path: Path, token: str, verb: str, args: dict[str, str], status: int) -> None:
    async with running_door(tmp_path) as at, at.http.post(
            f"{at.base}/v1/cmd/{verb}", json={"id": "c-1", "args": args}, headers=at.bearer(token)) as response:
        assert response.status == status, await response.text()
        assert len(at.desk.commands) == (status == 200)


async def test_another_appliance_may_call_and_nothing_else(tmp_path: Path) -> None:
    callers: list[str] = []

    async def attach(channel: PeerChannel) -> None:
        callers.append(channel.identity.name)

    async with running_door(tmp_path, Ports(attach=attach, simulation=Hands())) as at:
        gated = [route for route in at.door._runner.app.router.routes() if (path := route.resource.canonical)
                 not in {"/", "/operator", "/enter", "/console/{name}", "/favicon.ico", "/v1/health", "/v1/peer"}]
        assert len(gated) >= 12
        for route in gated:
            path = route.resource.canonical.format(verb="io.set", name="call", call="last")
            async with at.http.request(route.method, at.base + path, headers=at.bearer(DEVICE)) as response:
                assert response.status == 403, path
                if route.method != "HEAD":
                    assert "another appliance" in (await response.json())["message"]
        async with at.http.get(f"{at.base}/v1/health", headers=at.bearer(DEVICE)) as response:
            assert await response.json() == {"status": "ok"}
        async with at.http.ws_connect(f"{at.base}/v1/peer", headers=at.bearer(DEVICE)) as socket:
            await socket.receive()
        assert callers == ["device"]
        async with at.http.post(f"{at.base}/v1/address", json={"scope": "device"}, headers=at.bearer(ADMIN)) as asked:
            assert asked.status == 400


async def test_ten_thousand_wrong_tokens_disturb_nobody(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        refused = []
        with at.bulletin.subscribed(on_event=refused.append):
            statuses = [await _status(at, "wrong" * 5) for _ in range(40)]
            assert statuses[:10] == [401] * 10
            assert statuses[10:] == [429] * 30
            for n in range(10_000 - 40):
                at.door._gate._throttle.take(f"198.51.100.{n % 250}:{n}")
            assert await _status(at, OPERATOR) == 200
            at.clock.seconds += 1.5
            assert await _status(at, "wrong" * 5) == 401
        assert {event.type for event in refused} == {"security.refused"}
        assert len(refused) <= 12
        assert len(at.door._gate._throttle) <= 1024


async def _status(at: object, token: str) -> int:
    async with at.http.get(f"{at.base}/v1/state", headers=at.bearer(token)) as response:
        return response.status


async def test_an_address_opens_one_session_once(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        address = at.door.address()
        async with at.browser(address) as browser:
            async with browser.get(f"{at.base}/v1/session") as response:
                assert (await response.json())["scope"] == "admin"
            async with browser.get(address) as again:  # the same browser simply gets its page
                assert again.status == 200
        async with at.http.get(address) as stranger:
            assert stranger.status == 401
            assert "edgecall address" in await stranger.text()


async def test_an_address_expires_within_the_hour(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        address = at.door.address()
        at.clock.seconds += 3601
        async with at.http.get(address) as response:
            assert response.status == 401
            assert "edgecall address" in await response.text()


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        async with at.http.get(at.door.address(), allow_redirects=False) as response:
            cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("edgecall-lobby=")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}


async def test_a_link_from_another_site_still_arrives(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.http.get(
            at.door.address(), headers={"Sec-Fetch-Site": "cross-site"}, allow_redirects=False) as response:
        assert response.status == 200
        assert 'content="0;url=/"' in await response.text()


async def test_a_page_changes_things_only_from_its_own_origin(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.browser() as browser:
        url = f"{at.base}/v1/cmd/call.hangup"
        for origin, status in ((None, 403), ("null", 403), ("http://evil.example", 403),
                               (f"http://localhost:{at.door.port}", 403), (f"https://127.0.0.1:{at.door.port}", 403),
                               (at.base, 200)):
            headers = {"Origin": origin} if origin else {}
            async with browser.post(url, json=HANGUP, headers=headers) as response:
                assert response.status == status, origin
        assert len(at.desk.commands) == 1
        async with browser.get(f"{at.base}/v1/state") as reading:
            assert reading.status == 200


@pytest.mark.parametrize("path", ["/v1/peer", "/v1/sim"])
async def test_a_foreign_page_opens_no_websocket(tmp_path: Path, path: str) -> None:
    async with running_door(tmp_path) as at, at.browser() as browser:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await browser.ws_connect(at.base + path, headers={"Origin": "http://evil.example"})
        assert caught.value.status == 403


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:{port}", 200), ("localhost:1", 200), ("[::1]:9", 200), ("Localhost", 200),
    (socket.gethostname(), 200), (socket.gethostname().partition(".")[0] + ".local:80", 200),
    ("door.example.org", 200), ("evil.example", 421), ("evil.example:8080", 421), ("192.0.2.7", 421), ("", 421),
    ("127.0.0.1.evil.example", 421), ("door.example.org.evil.example", 421),
])
async def test_only_names_of_ours_are_answered(tmp_path: Path, host: str, status: int) -> None:
    async with running_door(tmp_path, names=("door.example.org",)) as at, at.http.get(
            f"{at.base}/v1/state", headers={"Host": host.format(port=at.door.port), **at.bearer(OPERATOR)}) as response:
        assert response.status == status
        if status == 421:
            assert "http.names" in (await response.json())["message"]


async def test_sign_out_ends_session_and_streams(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.browser() as browser:
        async with browser.get(f"{at.base}/v1/events") as stream:
            assert (await stream.content.readline()).startswith(b"retry")
            async with browser.delete(f"{at.base}/v1/session", headers={"Origin": at.base}) as response:
                assert response.status == 200
            assert b'"reason":"signedOut"' in await stream.content.read()
        async with browser.get(f"{at.base}/v1/state") as response:
            assert response.status == 401


async def test_an_idle_session_ends_and_one_with_a_stream_does_not(tmp_path: Path) -> None:
    async with (running_door(tmp_path) as at, at.browser() as idle, at.browser() as watching,
                watching.get(f"{at.base}/v1/events") as stream):
        await stream.content.readline()
        at.clock.seconds += 13 * 3600
        async with watching.get(f"{at.base}/v1/state") as response:
            assert response.status == 200
        async with idle.get(f"{at.base}/operator") as page:
            assert page.status == 401
            assert "edgecall address" in await page.text()


async def test_sessions_outlive_a_restart_and_are_bounded(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.http.get(at.door.address(), allow_redirects=False) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    kept = (tmp_path / "secrets" / "http-sessions.json").read_text()
    assert cookie.partition("=")[2] not in kept
    async with running_door(tmp_path) as at:
        async with at.http.get(f"{at.base}/v1/state", headers={"Cookie": cookie}) as response:
            assert response.status == 200
        for _ in range(64):
            async with at.http.get(at.door.address(), allow_redirects=False):
                pass
        assert len(at.door._sessions) == 64


async def test_a_session_expires_over_a_restart_too(tmp_path: Path) -> None:
    cookies = []
    async with running_door(tmp_path) as at:
        for _ in range(2):
            async with at.http.get(at.door.address(), allow_redirects=False) as response:
                cookies.append({"Cookie": response.headers["Set-Cookie"].partition(";")[0]})
        at.clock.seconds += 7 * 3600
        async with at.http.get(f"{at.base}/v1/state", headers=cookies[0]) as used:
            assert used.status == 200
    async with running_door(tmp_path, wall_s=1.7e9 + 13 * 3600) as at:  # 6 hours off
        for cookie, status in zip(cookies, (200, 401), strict=True):
            async with at.http.get(f"{at.base}/v1/state", headers=cookie) as response:
                assert response.status == status
    async with running_door(tmp_path, wall_s=1.7e9) as at:  # a clock that went back brings nobody back
        for cookie, status in zip(cookies, (200, 401), strict=True):
            async with at.http.get(f"{at.base}/v1/state", headers=cookie) as response:
                assert response.status == status


async def test_an_expired_session_leaves_the_file_while_we_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.doors.http.server.KEEP_SESSIONS_S", 0.02)
    kept = tmp_path / "secrets" / "http-sessions.json"
    async with (running_door(tmp_path) as at, at.browser(), at.browser() as watching,
                watching.get(f"{at.base}/v1/events") as stream):
        await stream.content.readline()
        assert len(json.loads(kept.read_text())) == 2
        at.clock.seconds += 13 * 3600
        await until(lambda: len(json.loads(kept.read_text())) == 1, 10)
        (row,) = json.loads(kept.read_text())
        assert row["used"] == round(1.7e9 + at.clock.seconds), "an open stream is use"


async def test_the_unix_socket_is_for_its_group_and_admin(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        assert stat.S_IMODE(at.door.socket_path.stat().st_mode) == 0o660
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(at.door.socket_path))) as cli:
            async with cli.post("http://cli/v1/cmd/book.remove", json={"id": "c-1", "args": {"name": "x"}}) as response:
                assert response.status == 200
            async with cli.post("http://cli/v1/address", json={"name": "desk", "scope": "operator",
                                                               "page": "/operator"}) as response:
                address = (await response.json())["address"]
            async with cli.post("http://cli/v1/address", json={"nmae": "desk"}) as response:
                assert response.status == 400
        assert at.desk.commands[0].origin == "cli"
        async with at.browser(address) as browser, browser.get(f"{at.base}/v1/session") as response:
            session = await response.json()
            assert (session["name"], session["scope"]) == ("desk", "operator")
    assert not at.door.socket_path.exists()


async def test_an_address_gives_no_more_than_its_asker_has(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at, at.http.post(
            f"{at.base}/v1/address", json={}, headers=at.bearer(OPERATOR)) as response:
        assert response.status == 403


async def test_a_busy_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortBusyError, match=rf"Port {port} on 127.0.0.1 is held by .+\(pid \d+\)"):
            async with running_door(tmp_path, port=port):
                pass
    assert not (tmp_path / "s").exists()


async def test_a_second_appliance_on_the_same_socket_is_refused(tmp_path: Path) -> None:
    async with running_door(tmp_path):
        with pytest.raises(PortBusyError, match="Another appliance"):
            async with running_door(tmp_path):
                pass


async def test_a_socket_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    async with running_door(tmp_path):
        pass


def test_short_and_doubled_tokens_are_refused(tmp_path: Path) -> None:
    tokens = (TokenSettings("a", "operator", Secret("short")), TokenSettings("b", "chef", Secret("x" * 20)),
              TokenSettings("c", "admin", Secret("y" * 20)), TokenSettings("d", "admin", Secret("y" * 20)))
    settings = Settings(http=HttpSettings(tokens=tokens), data_dir=tmp_path)
    from appliance.bulletin import Bulletin
    with pytest.raises(SettingsError) as caught:
        HttpDoor(settings, Desk(), Bulletin("b"), ports=Ports())
    assert len(caught.value.faults) == 3
    assert "short" not in str(caught.value).replace("too short", "")


async def test_wider_than_loopback_means_tls(tmp_path: Path) -> None:
    async with running_door(tmp_path, listen="0.0.0.0") as at:
        assert at.door.address().startswith("https://")
        fingerprint = bytes.fromhex(at.door.fingerprint.replace(":", ""))
        secure = f"https://127.0.0.1:{at.door.port}"
        pin = aiohttp.Fingerprint(fingerprint)
        async with at.http.get(f"{secure}/v1/health", ssl=pin) as response:
            assert response.status == 200
        token = at.door.address().partition("/enter")[2]
        async with at.http.get(f"{secure}/enter{token}", ssl=pin, allow_redirects=False) as response:
            cookie = response.headers["Set-Cookie"]
            assert cookie.startswith("__Host-edgecall-lobby=")
            assert "Secure" in cookie
        with pytest.raises(aiohttp.ClientError):
            await at.http.get(f"{at.base}/v1/health")
    assert stat.S_IMODE((tmp_path / "secrets" / "http-key.pem").stat().st_mode) == 0o600


async def test_stop_is_quick_with_everything_open_and_may_come_twice(tmp_path: Path) -> None:
    async with running_door(tmp_path) as at:
        async with at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as stream:
            await stream.content.readline()
            begun = time.monotonic()
            await at.door.stop()
            await at.door.stop()
            assert time.monotonic() - begun < 2
            assert b'"reason":"shutdown"' in await stream.content.read()
        await asyncio.sleep(0)


async def test_strangers_cannot_use_up_the_connections_of_the_owner(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.doors.http.server.CONNECTIONS_LIMIT", 8)
    async with running_door(tmp_path) as at:
        strangers = [await asyncio.open_connection("127.0.0.1", at.door.port) for _ in range(12)]
        assert await asyncio.wait_for(strangers[-1][0].read(), 5) == b""
        async with (aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(at.door.socket_path))) as cli,
                    cli.get("http://cli/v1/state") as response):
            assert response.status == 200
        for _, writer in strangers:
            writer.close()
            await writer.wait_closed()
        assert await _status(at, OPERATOR) == 200


async def test_a_connection_that_never_asks_is_closed_and_a_stream_is_not(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.doors.http.server.REQUEST_S", 0.05)
    monkeypatch.setattr("appliance.doors.http.server.SWEEP_S", 0.02)
    async with running_door(tmp_path) as at, at.http.get(
            f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as stream:
        assert (await stream.content.readline()).startswith(b"retry")
        reader, writer = await asyncio.open_connection("127.0.0.1", at.door.port)
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        at.bulletin.post("io.pressed", name="call")
        while b"io.pressed" not in await stream.content.readline():
            pass
