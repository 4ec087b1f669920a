"""Calls through a real TURN server, by each of its transports, with servers that are dead, wrong or impostors."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.media import servers as servers_of_settings
from appliance.media.api import Directions, IceServers, SessionClosed, SessionSilent, SessionUp
from appliance.media.ice_servers import is_of_use
from appliance.media.server_watch import ServerWatch
from appliance.media.servers import DOWN_S, ServerPool, why
from appliance.media.studio import Studio
from appliance.media.webrtc import WebRtcSession
from appliance.settings import VideoSettings
from tests.support.interface import ADDRESS, INTERFACE, changed_network, ip
from tests.support.media_board import HandBoard
from tests.support.media_pair import End, until
from tests.support.ports import free_port
from tests.support.turnserver import PASSWORD, USERNAME, Authority, TurnServer

pytestmark = pytest.mark.peer

CANDIDATES = re.compile(r"a=candidate:(?!.* typ relay)[^\r\n]*\r\n")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TurnServer]:
    authority = Authority(tmp_path)
    async with TurnServer(tmp_path, authority.issue("10.99.0.1")) as running:
        yield running


def trusted(tmp_path: Path) -> str:
    return str(tmp_path / "authority.crt")


@asynccontextmanager
async def ends(*servers: IceServers) -> AsyncIterator[list[End]]:
    """One end for each set of servers; the first hears 440 Hz, the second 1000 Hz."""
    made, listening = [], []
    for hertz, ice in zip((440.0, 1000.0), servers, strict=False):
        studio = Studio(HandBoard(hertz), VideoSettings())
        await studio.open()
        end = End(studio._board, studio, studio.session(Directions(), ice=ice, loopback=False))  # type: ignore[arg-type]
        made.append(end)
        listening.append(asyncio.create_task(end.listen()))
    try:
        yield made
    finally:
        for end in made:
            await end.studio.close()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


def login(*turn: str, ca_file: str = "") -> IceServers:
    return IceServers((), turn, USERNAME, PASSWORD, ca_file)


def relayed(sdp: str) -> str:
    """The description with its relayed candidates alone."""
    return CANDIDATES.sub("", sdp)


def relays(sdp: str) -> int:
    """Different relayed candidates: each line of a description repeats them."""
    return len({line for line in sdp.splitlines() if " typ relay" in line})


async def is_a_call(caller: End, callee: End) -> None:
    await caller.event(SessionUp, 10)
    await callee.event(SessionUp, 10)
    await until(lambda: caller.strength(1000) > 0.15 and callee.strength(440) > 0.15, 10, "tones")
    await until(lambda: callee.session.video_in.decoded > 10, 10, "pictures")


def kind_of_local(session: WebRtcSession) -> str:
    return str(session._pc.transport_facts()["local"].type)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_call_goes_through_a_relay(
    server: TurnServer, transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ice = login(getattr(server, transport), ca_file=trusted(tmp_path))
    async with ends(ice, ice) as (caller, callee):
        offer = await caller.session.offer()
        assert relays(offer) == 1
        answer = await callee.session.answer(relayed(offer))
        await caller.session.accept_answer(relayed(answer))
        await is_a_call(caller, callee)
        # the other side may well reach that relay from its own address: a peer-reflexive pair
        assert "relay" in (kind_of_local(caller.session), kind_of_local(callee.session))
        assert caller.session._pc.local_addresses() == {"10.99.0.1"}
    assert PASSWORD not in caplog.text
    assert USERNAME not in caplog.text


async def test_a_login_is_made_of_a_secret_and_the_call_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends after two seconds here. The server is asked to keep the relay for longer meanwhile."""
    monkeypatch.setattr(servers_of_settings, "LOGIN_S", 2.0)
    caplog.set_level(logging.DEBUG)
    async with TurnServer(tmp_path, Authority(tmp_path).issue("10.99.0.1"), secret="shared-by-both", lifetime_s=6
                          ) as running:
        ice = IceServers(turn=(running.udp,), secret="shared-by-both")
        async with ends(ice, ice) as (caller, callee):
            offer = await caller.session.offer()
            assert relays(offer) == 1
            answer = await callee.session.answer(relayed(offer))
            await caller.session.accept_answer(relayed(answer))
            await is_a_call(caller, callee)
            await until(lambda: any("refreshed" in line for line in running.log), 15, "the relay is asked for again")
            await is_a_call(caller, callee)
            assert not any(isinstance(event, SessionClosed | SessionSilent) for event in caller.told)
        pool = ServerPool(IceServers(turn=(running.udp,), secret="of-nobody"))
        with pytest.raises(ConnectionError, match="turn_secret_file"):
            await is_of_use(pool, pool.turn[0])
    assert "shared-by-both" not in caplog.text


async def test_a_server_that_is_named_after_the_offer_makes_the_path_by_a_candidate_that_is_told(
    server: TurnServer, tmp_path: Path
) -> None:
    async with ends(IceServers(), login(server.udp)) as (caller, callee):
        offer = await caller.session.offer()
        answer = await callee.session.answer(relayed(offer))  # which tells of no candidate at all
        await caller.session.accept_answer(relayed(answer))
        await asyncio.sleep(1.0)
        assert not caller.session.connected, "the callee's relay lets nobody in of whom it was not told"
        found = await caller.session.gather_more(login(server.udp))
        assert found is not None
        candidate, = found.candidates
        assert " typ relay" in candidate
        assert found.username in caller.session.description
        await callee.session.add_candidate(candidate, None, 0)
        await is_a_call(caller, callee)
        assert await caller.session.gather_more(login(server.udp)) is None


async def test_a_dead_server_is_followed_by_the_next(server: TurnServer) -> None:
    dead = [f"turn:10.99.0.1:{free_port()}?transport=tcp", f"turn:10.99.0.1:{free_port()}"]
    async with ends(login(*dead, server.udp)) as (caller,):
        began = time.monotonic()
        offer = await caller.session.offer()
        assert relays(offer) == 1
        assert time.monotonic() - began < 2.0
        again = caller.studio.session(Directions(), ice=login(*dead, server.udp), loopback=False)
        began = time.monotonic()
        assert relays(await again.offer()) == 1
        assert time.monotonic() - began < 0.4, "the dead ones are asked first again"
        await again.close()


@pytest.mark.parametrize("fault", ["authority", "name", "password"])
async def test_an_impostor_or_a_wrong_login_gives_no_relay(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate = authority.issue("10.99.0.9" if fault == "name" else "10.99.0.1")
    async with TurnServer(tmp_path, certificate) as server:
        ca_file = other.file if fault == "authority" else authority.file
        password = "wrong-password" if fault == "password" else PASSWORD
        ice = IceServers((), (server.tls,), USERNAME, password, str(ca_file))
        async with ends(ice) as (caller,):
            offer = await caller.session.offer()
            assert relays(offer) == 0
            assert " typ host" in offer, "the call goes on without it"
    (told,) = [record for record in caplog.records if "cannot be used" in record.getMessage()]
    assert ("ertificate" in told.getMessage()) == (fault != "password")
    assert password not in caplog.text


async def test_a_stun_server_that_is_dead_is_followed_by_the_next(server: TurnServer) -> None:
    ice = IceServers(stun=(f"stun:10.99.0.1:{free_port()}", server.stun))
    async with ends(ice) as (caller,):
        assert " typ srflx" in await caller.session.offer()


async def test_servers_at_ipv6_addresses_are_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, address = Authority(tmp_path), "fd99::1"
    async with changed_network():
        await ip(f"addr add {address}/64 dev {INTERFACE} nodad")
        async with TurnServer(tmp_path, authority.issue(address), address=address, relay=ADDRESS) as server:
            for turn in (server.udp, server.tcp, server.tls):
                servers = IceServers((server.stun,), (turn,), USERNAME, PASSWORD, str(authority.file))
                async with ends(servers) as (caller,):
                    offer = await caller.session.offer()
                    assert relays(offer) == 1, turn
                    assert f"{address} " in next(line for line in offer.splitlines() if " typ srflx" in line)
    assert not [record for record in caplog.records if "cannot be used" in record.getMessage()]


async def test_a_server_is_asked_outside_of_calls_and_nothing_of_it_is_kept(server: TurnServer, tmp_path: Path) -> None:
    pool = ServerPool(IceServers((server.stun,), (server.udp, server.tcp, server.tls), USERNAME, PASSWORD,
                                 trusted(tmp_path)))
    for one in pool.all:
        await asyncio.wait_for(is_of_use(pool, one), 3)
    assert "".join(server.log).count("closed (2nd stage)") >= 3, "allocations are deleted"


async def test_a_server_of_no_use_says_why(server: TurnServer, tmp_path: Path) -> None:
    port, wrong = free_port(), IceServers((), (server.udp, server.tls), USERNAME, "wrong-password")
    for servers, words in (
        (wrong, ("it refuses the login; check turn_username", "its certificate is not trusted")),
        (login(f"turn:10.99.0.1:{port}?transport=tcp", f"turn:10.99.0.1:{port}"), ("nobody listens", "no answer")),
        (IceServers((f"stun:10.99.0.1:{port}",)), ("no answer",)),
    ):
        pool = ServerPool(servers)
        for one, word in zip(pool.all, words, strict=True):
            with pytest.raises(OSError) as caught:
                await asyncio.wait_for(is_of_use(pool, one), 2)
            assert word in why(caught.value)


async def test_a_server_that_is_known_to_be_dead_does_not_hold_up_a_call() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("10.99.0.1", 0))
        port = silent.getsockname()[1]
        ice = IceServers((f"stun:10.99.0.1:{port}",), (f"turn:10.99.0.1:{port}",), USERNAME, PASSWORD)
        async with ends(ice) as (caller,):
            pool, told = caller.studio.servers(ice), []
            watch = ServerWatch(pool, lambda server: is_of_use(pool, server), told.append)
            watching = asyncio.create_task(watch.run())
            await until(lambda: bool(told) and len(told[-1]) == 2, 20, "both are known")
            assert set(told[-1].values()) == {"no answer in time"}
            began = time.monotonic()
            await caller.session.offer()
            assert time.monotonic() - began < DOWN_S + 0.5
            watching.cancel()
            await asyncio.wait([watching])


async def test_a_server_that_dies_in_a_call_is_noticed_and_the_next_call_goes_by_another(
    server: TurnServer, tmp_path: Path
) -> None:
    ice = login(server.tcp, ca_file=trusted(tmp_path))
    async with ends(ice, ice) as (caller, callee):
        answer = await callee.session.answer(relayed(await caller.session.offer()))
        await caller.session.accept_answer(relayed(answer))
        await is_a_call(caller, callee)
        began = time.monotonic()
        await server.stop()
        await until(lambda: any(type(event).__name__ in ("SessionSilent", "SessionClosed") for event in caller.told), 5)
        assert time.monotonic() - began < 3.8
