"""Publishing by WHIP and playing by WHEP, with a real browser's media at the other end of the HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.network import DefaultRoute, Network
from appliance.providers import api
from appliance.settings import Secret, WhipSettings
from appliance.vocabulary import END_REASONS
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.house import house, start_of
from tests.support.interface import ADDRESS, changed_network, ip
from tests.support.lag import lateness
from tests.support.turnserver import PASSWORD, USERNAME, Authority, TurnServer
from tests.support.waiting import until
from tests.support.whip_device import Device, device
from tests.support.whip_server import MediaServer, Scripted, media_server

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

DEVICE_HERTZ = 440.0
SERVER_HERTZ = 880.0
ME = api.Peer("door-1", "device:door-1", "Front door", "device", True)
LEAVE = END_REASONS["0/local"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with chromium(SERVER_HERTZ) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def server(browser: Chromium) -> AsyncIterator[MediaServer]:
    async with media_server(browser) as server:
        yield server


def door(settings: WhipSettings) -> AbstractAsyncContextManager[Device]:
    return device(settings, DEVICE_HERTZ)


def both(server: MediaServer, token: str = "") -> WhipSettings:
    return WhipSettings("studio", server.publish, server.play, Secret(token))


async def published(server: MediaServer) -> None:
    """The browser hears the device's tone and decodes its picture, from now on."""
    await wait_for(server.page, "() => window.remoteStream?.getTracks().length === 2")
    await Chromium.listen(server.page)
    await Chromium.hears(server.page, DEVICE_HERTZ)
    await Chromium.sees_moving(server.page, "video")


async def played(one: Device) -> None:
    await one.hears(SERVER_HERTZ)
    await one.sees()


async def test_published_and_played_in_one_call(server: MediaServer) -> None:
    server.token = "t0p-secret-token"
    async with door(both(server, server.token)) as one:
        await one.dial()
        await published(server)
        await played(one)
        assert [event.video for event in one.of(api.PeerMedia)] == [True]
        assert one.leg is not None
        await one.leg.set_media(api.MediaWanted(False, False, False, False))  # as on hold
        await Chromium.hears_silence(server.page)
        await until(lambda: one.board.hears()[1] < -70 and not one.shows, "nothing is heard or shown")
        await one.leg.set_media(api.MediaWanted())
        await published(server)
        await played(one)
        report = await one.leg.stats()
        ids = [entry["id"] for entry in report]
        assert len(ids) == len(set(ids))
        assert {"outbound-rtp", "inbound-rtp"} <= {str(entry["type"]) for entry in report}
        assert server.token not in str([*one.told, one.provider.state(), one.leg.peer])
        await one.leg.end(LEAVE)
        await until(lambda: one.of(api.Ended) == [api.Ended(LEAVE)], "the end")
        await until(lambda: not server.sessions, "both resources are deleted")
        assert [request.status for request in server.of("DELETE")] == [200, 200]
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("whip.")]


async def test_published_alone_and_played_alone(server: MediaServer) -> None:
    async with door(WhipSettings("studio", publish=server.publish)) as one:
        await one.dial()
        await published(server)
        assert [request.path for request in server.of("POST")] == ["/whip/door?key=1"]
        assert not one.of(api.PeerMedia)
    await until(lambda: not server.sessions, "deleted when the appliance stops")
    server.requests.clear()
    async with door(WhipSettings("studio", play=server.play)) as one:
        await one.dial()
        await played(one)
        assert [request.path for request in server.of("POST")] == ["/whep/desk"]


@pytest.mark.parametrize("code", [201, 406])
async def test_a_server_that_offers_is_answered(server: MediaServer, code: int) -> None:
    server.counters = code
    async with door(WhipSettings("studio", play=server.play)) as one:
        await one.dial()
        await played(one)
        answer, = server.of("PATCH")
        assert (answer.status, answer.headers["Content-Type"]) == (204, "application/sdp")


async def test_a_redirect_to_another_server(browser: Chromium, server: MediaServer) -> None:
    server.token = "t0p-secret-token"
    async with media_server(browser) as other, door(both(server, server.token)) as one:
        server.script["POST"].extend(
            Scripted(307, {"Location": f"{other.url}/{place}"}) for place in ("whip/moved", "whep/moved"))
        await one.dial()
        await published(other)
        await played(one)
        assert not server.sessions
        assert not any("Authorization" in request.headers for request in other.requests)
        assert one.leg is not None
        await one.leg.end(LEAVE)
        await until(lambda: not other.sessions, "deleted where it was made")


async def test_a_path_by_a_relay_that_the_server_names(server: MediaServer, tmp_path: Path) -> None:
    """Its media sit behind a relay that lets in only who it was told of, and it is told of nobody but by PATCH."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with TurnServer(tmp_path, authority.issue("10.99.0.1")) as turn, door(WhipSettings(
        "studio", publish=server.publish,
    )) as one:
        server.forgets = True
        server.configuration = {"iceTransportPolicy": "relay", "iceServers": [
            {"urls": turn.udp, "username": USERNAME, "credential": PASSWORD}]}
        server.link = [f'<{turn.udp}>; rel="ice-server"; username="{USERNAME}"; credential="{PASSWORD}"; '
                       'credential-type="password"', f'<{turn.stun}>; rel="ice-server"']
        await one.dial()
        await published(server)
        told, = server.of("PATCH")
        assert told.status == 204
        assert " typ relay" in told.body
        assert len(server.of("POST")) == 1


async def test_a_short_cut_of_the_network_leaves_nothing_but_a_gap(server: MediaServer) -> None:
    async with changed_network(), door(both(server)) as one:
        await one.dial()
        await published(server)
        await ip("link set lo down")  # all of this machine's own traffic, whatever its address
        await asyncio.sleep(2.0)
        await ip("link set lo up")
        await published(server)
        await played(one)
        assert not one.of(api.Lost)
        assert not one.of(api.Ended)
        assert len(server.of("POST")) == 2


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_longer_cut_is_repaired_where_the_server_can_and_else_all_made_anew(
    server: MediaServer, restarts: bool,
) -> None:
    server.restarts = restarts
    async with changed_network(), door(both(server)) as one:
        await one.dial()
        await published(server)
        before = set(server.sessions)
        await ip("link set lo down")
        await until(lambda: one.of(api.Lost), "the call is lost")
        await asyncio.sleep(1.0)
        await ip("link set lo up")
        await until(lambda: one.of(api.Recovered), "the call is back", 15)
        await published(server)
        await played(one)
        assert not one.of(api.Ended)
        await until(lambda: len(server.sessions) == 2, "the old ones are deleted")
        assert len(before & set(server.sessions)) == (2 if restarts else 0), "both ways have noticed"


async def test_another_default_route_is_taken_in_the_same_session_without_a_loss(
    browser: Chromium, tmp_path: Path,
) -> None:
    """Over TLS, from another address than a loopback one, whose paths no route changes."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(ADDRESS))
    async with media_server(browser, ADDRESS, context) as server, door(
        replace(both(server), ca_file=str(authority.file)),
    ) as one:
        await one.dial()
        await published(server)
        old, new = (Network(frozenset({ADDRESS}), DefaultRoute(2, gateway)) for gateway in ("10.99.0.2", "10.99.0.7"))
        one.studio.network_changed(old, new)
        await until(lambda: len(server.of("PATCH")) == 2, "both paths are made anew")
        assert {request.headers["If-Match"] for request in server.of("PATCH")} == {"*"}
        await published(server)
        await played(one)
        assert len(server.of("POST")) == 2
        assert not one.of(api.Lost)
        one.studio.network_changed(old, Network(frozenset({"10.99.0.8"}), DefaultRoute(2, "10.99.0.2")))
        await until(lambda: one.of(api.Lost), "the address is gone")
        await until(lambda: one.of(api.Recovered), "and the path made anew once more")
        assert len(server.of("PATCH")) == 4
        assert len(server.of("POST")) == 2


async def test_the_server_is_killed_and_comes_back(browser: Chromium, server: MediaServer) -> None:
    async with door(both(server)) as one:
        await one.dial()
        await published(server)
        browser.freeze()  # its media stop dead, without a word
        await server.stop()
        await until(lambda: one.of(api.Lost), "the call is lost")
        await asyncio.sleep(1.0)
        browser.thaw()
        await server.page.evaluate("() => Object.keys(sessions).forEach((id) => server.close(id))")
        await server.start()
        await until(lambda: one.of(api.Recovered), "the call is back", 20)
        await published(server)
        await played(one)
        assert len(server.sessions) == 2
        assert not one.of(api.Ended)


async def test_the_next_server_takes_over_from_one_that_dies(browser: Chromium, server: MediaServer) -> None:
    async with media_server(browser) as second:
        settings = replace(both(server), other_publish=(second.publish,), other_play=(second.play,))
        async with door(settings) as one:
            await one.dial()
            await published(server)
            assert not second.requests
            killed = asyncio.get_running_loop().time()
            async with lateness() as late:
                await server.stop()
                await server.page.evaluate("() => Object.keys(sessions).forEach((id) => server.close(id))")
                await until(lambda: one.of(api.Recovered), "the call goes on", 15)
            took = one.when(api.Recovered) - killed
            print(f"{took:.1f} s from the end to the next, noticed after {one.when(api.Lost) - killed:.1f} s")
            assert took < 5.0 + late()
            await published(second)
            await played(one)
            assert not one.of(api.Ended)
            (state,) = one.provider.state()["servers"]
            for way, url in (("publish", second.publish), ("play", second.play)):
                found = state["ways"][way]["selectedEndpoint"]
                assert (found["url"], found["reason"]) == (url, "failover")


@pytest.mark.parametrize("way", ["play", "publish"])
async def test_the_next_server_takes_over_from_one_that_is_killed_without_a_word(browser: Chromium, way: str) -> None:
    """Both notice within 3 s: what does not come any more, and that nobody answers who is asked."""
    async with chromium(SERVER_HERTZ) as mortal, media_server(browser) as second, media_server(mortal) as first:
        settings = WhipSettings("studio", **{way: getattr(first, way), f"other_{way}": (getattr(second, way),)})
        async with door(settings) as one:
            await one.dial()
            await (published(first) if way == "publish" else played(one))
            await asyncio.sleep(1.0)
            killed = asyncio.get_running_loop().time()
            async with lateness() as late:
                await mortal.kill()
                await first.stop()
                await until(lambda: one.of(api.Recovered), "the call goes on", 40)
            took = one.when(api.Recovered) - killed
            print(f"{way}: {took:.1f} s from the kill to the next, noticed after {one.when(api.Lost) - killed:.1f} s")
            assert took < 5.0 + late()
            await (published(second) if way == "publish" else played(one))
            assert not one.of(api.Ended)


async def test_the_publisher_notices_a_dead_server_by_its_silence(browser: Chromium, server: MediaServer) -> None:
    async with door(WhipSettings("studio", publish=server.publish)) as one:
        await one.dial()
        await published(server)
        await asyncio.sleep(1.0)
        browser.freeze()
        frozen = asyncio.get_running_loop().time()
        try:
            async with lateness() as late:
                await server.stop()
                await until(lambda: one.of(api.Lost), "the call is lost", 15)
        finally:
            browser.thaw()
        assert 2.5 < one.when(api.Lost) - frozen < 3.5 + late(), "long before consent runs out"


async def test_hanging_up_while_the_answer_is_awaited(server: MediaServer) -> None:
    async with door(both(server)) as one:
        server.hold.clear()
        await one.begin("studio", ME)
        await until(lambda: len(server.of("POST")) == 2, "both are asked")
        assert one.leg is not None
        await one.leg.end(LEAVE)
        await until(lambda: one.of(api.Ended) == [api.Ended(LEAVE)], "the end")
        server.hold.set()
        await until(lambda: len(server.of("DELETE")) == 2, "both are deleted when they are there")
        assert not server.sessions


async def test_the_whole_appliance_calls_by_command_book_and_button(server: MediaServer, tmp_path: Path) -> None:
    server.token = "t0p-secret-token"
    secret = tmp_path / "studio.token"
    secret.write_text(server.token)
    secret.chmod(0o600)
    start = await start_of(tmp_path, {"mqtt.enabled": False, "call.button_target": "whip:studio"}, tables=f"""
[[whip]]
name = "studio"
publish = "{server.publish}"
play = "{server.play}"
token_file = "{secret}"

[[book]]
name = "The studio"
uris = ["whip:studio"]
""")
    async with house(start) as running:
        for target in ("whip:studio", "the studio"):
            answer = await running.give("call.dial", to=target)
            assert answer["result"] == "done", answer
            assert running.document("call")["state"] == "Connected"
            await published(server)
            seat, = running.document("roster")["participants"]
            assert (seat["state"], seat["videoStreams"][0]["isAvailable"]) == ("Connected", True)
            assert (await running.give("call.hangup"))["result"] == "done"
            await running.until(lambda: running.document("call")["state"] == "Disconnected")
        simulation = running.house.board.simulation
        assert simulation is not None
        simulation.press("call", 0.2)
        await running.until(lambda: running.document("call")["state"] == "Connected")
        await until(lambda: len(server.sessions) == 2, "published and played")
        await running.give("call.hangup")
        await running.until(lambda: running.document("call")["state"] == "Disconnected")
        server.script["POST"].extend([Scripted(403), Scripted(403)])
        refused = await running.give("call.dial", to="whip:studio")
        assert (refused["result"], refused["code"], refused["subCode"]) == ("failed", 403, "notPermitted"), refused
        assert server.token not in str(running.house.bulletin.snapshot().documents)
        _, settings = await running.ask("GET", "/v1/state/config")
        assert server.token not in str(settings)
