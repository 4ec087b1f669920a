"""The network of the machine changes under a call: it goes on by the new one, and in time."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from appliance.care.watch import addresses
from appliance.link.session import Session as MqttSession
from appliance.network import Network
from appliance.providers import api
from appliance.settings import MqttSettings, Secret
from appliance.store import Store
from appliance.vocabulary import END_REASONS
from tests.sim.test_direct_media import End, call, two
from tests.support.broker import Broker
from tests.support.direct_parts import Told
from tests.support.interface import ADDRESS, INTERFACE, changed_network, ip, watching
from tests.support.media_pair import until
from tests.support.ports import free_port

ELSEWHERE = "10.99.5.1"
LINK_LOCAL = "169.254.7.1"


def paths(end: End) -> set[str]:
    return {address for session in end.studio._sessions for address in session._pc.local_addresses()}


async def test_the_watch_tells_of_addresses_routes_and_carriers() -> None:
    told: list[tuple[Network, Network]] = []
    async with changed_network(), watching(lambda *change: told.append(change)) as watch:
        assert watch.now is not None
        assert watch.now.addresses == {ADDRESS}
        for line, expected in (
            (f"addr add {ELSEWHERE}/24 dev {INTERFACE}", {ADDRESS, ELSEWHERE}),
            (f"addr del {ADDRESS}/24 dev {INTERFACE}", {ELSEWHERE}),
            (f"link set {INTERFACE} down", set()),
            (f"link set {INTERFACE} up", {ELSEWHERE}),
        ):
            await ip(line)
            began = time.monotonic()
            await until(lambda expected=expected: watch.now.addresses == expected, 2, line)
            assert time.monotonic() - began < 1.0
        gateway = "10.99.5.9"
        await ip(f"route replace default via {gateway}")
        await until(lambda: watch.now.ipv4 is not None and watch.now.ipv4.gateway == gateway, 2)
        assert all(before != now for before, now in told)


async def test_an_interface_that_is_down_has_no_address_to_be_reached_at() -> None:
    async with changed_network():
        await ip(f"addr add {LINK_LOCAL}/16 dev {INTERFACE}")
        assert await addresses() == [ADDRESS]
        await ip(f"link set {INTERFACE} down")  # the kernel keeps its addresses
        assert await addresses() == []


async def test_a_call_moves_to_the_new_address_within_5_s() -> None:
    async with (
        changed_network(), two() as (_broker, alpha, bravo),
        watching(alpha.studio.network_changed, bravo.studio.network_changed),
    ):
        mine, theirs = await call(alpha, bravo)
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 10.0, "tones")
        assert paths(alpha) == paths(bravo) == {ADDRESS}
        await ip(f"addr add {ELSEWHERE}/24 dev {INTERFACE}")
        await ip(f"addr del {ADDRESS}/24 dev {INTERFACE}")
        began = time.monotonic()
        await until(lambda: "Lost" in mine.kinds and "Lost" in theirs.kinds, 3.0, "told at once")
        await until(lambda: "Recovered" in mine.kinds and "Recovered" in theirs.kinds, 5.0, "recovered")
        assert time.monotonic() - began < 5.0
        await until(lambda: paths(alpha) == paths(bravo) == {ELSEWHERE}, 3.0, "the old ones are closed")
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 5.0, "tones again")
        await mine.leg.end(END_REASONS["0/local"])
        await until(lambda: theirs.ended == "0/remote")


async def test_a_call_waits_for_a_network_and_takes_it_when_it_comes() -> None:
    """Cable out, and in again three seconds later with another address: no waiting out of an attempt's time."""
    async with (
        changed_network(), two() as (_broker, alpha, bravo),
        watching(alpha.studio.network_changed, bravo.studio.network_changed),
    ):
        mine, theirs = await call(alpha, bravo)
        await ip(f"addr del {ADDRESS}/24 dev {INTERFACE}")
        await until(lambda: "Lost" in mine.kinds and "Lost" in theirs.kinds, 3.0)
        await ip(f"link set {INTERFACE} down")
        await ip("link set lo down")  # nor is there a way inside the machine
        await asyncio.sleep(3.0)  # the outage itself
        assert "Recovered" not in mine.kinds
        await ip("link set lo up")
        await ip(f"link set {INTERFACE} up")
        await ip(f"addr add {ELSEWHERE}/24 dev {INTERFACE}")
        began = time.monotonic()
        await until(lambda: "Recovered" in mine.kinds and "Recovered" in theirs.kinds, 5.0, "recovered")
        assert time.monotonic() - began < 5.0
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 5.0, "tones again")


@pytest.mark.parametrize("who", ["caller", "callee", "both"])
async def test_a_better_route_is_taken_without_a_loss(who: str) -> None:
    """``callee``: the side that offers, ``caller``: the one that must ask for it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(changed_network())
        _broker, alpha, bravo = await stack.enter_async_context(two())
        watchers = {"caller": [alpha], "callee": [bravo], "both": [alpha, bravo]}[who]
        await stack.enter_async_context(watching(*(end.studio.network_changed for end in watchers)))
        mine, theirs = await call(alpha, bravo)
        (before,) = bravo.studio._sessions
        await ip("route replace default via 10.99.0.7")
        await until(lambda: before not in bravo.studio._sessions, 10.0, "the old connection is closed")
        await until(lambda: len(bravo.studio._sessions) == 1, 5.0, "one connection is left")
        await until(lambda: bravo.hears(440) > 0.15 and alpha.hears(1000) > 0.15, 20.0, "tones")
        await until(lambda: len(alpha.studio._sessions) == 1, 5.0, "at the other side as well")
        assert "Lost" not in mine.kinds + theirs.kinds
        assert not (mine.ended or theirs.ended)


async def test_a_network_that_changes_while_a_call_is_set_up_does_not_end_it() -> None:
    """By itself a connection would look for its peer at the old address for half a minute, and then end the call."""
    async with (
        changed_network(), two() as (_broker, alpha, bravo),
        watching(alpha.studio.network_changed, bravo.studio.network_changed),
    ):
        me = api.Peer("alpha", "device:alpha", "Alpha", "device", True)
        mine = Told.of(await alpha.provider.dial(
            api.Target("device", "bravo"), call_id="call-0001", caller=me, media=api.MediaWanted()))
        await until(lambda: bool(bravo.incoming))
        theirs = Told.of(bravo.incoming[0].leg)
        await bravo.incoming[0].leg.accept(api.MediaWanted())
        await ip("link set lo down")  # nor is there a way inside the machine: nothing connects by the old address
        await ip(f"addr del {ADDRESS}/24 dev {INTERFACE}")
        await until(lambda: bool(alpha.studio._sessions), what="both have gathered")
        await ip("link set lo up")
        await ip(f"addr add {ELSEWHERE}/24 dev {INTERFACE}")
        await until(lambda: "Connected" in mine.kinds and "Connected" in theirs.kinds, 8.0, "connected")
        await until(lambda: paths(alpha) == paths(bravo) == {ELSEWHERE}, 3.0, "by the new address")


async def test_the_broker_is_reached_anew_at_once(tmp_path: Path) -> None:
    """TCP by itself would hold on to the address that is gone until the keep-alive has run out."""
    port = free_port()
    async with changed_network(), Broker(tmp_path / "broker", devices=["door-1"],
                                         extra=f"listener {port} {ADDRESS}\n") as _:
        (tmp_path / "data").mkdir(mode=0o700)
        store = Store(tmp_path / "data")
        await store.open()
        settings = MqttSettings(host=ADDRESS, port=port, username="door-1", password=Secret("door-1"))
        session = MqttSession(settings, "door-1", store)
        async with watching(session.network_changed):
            session.start()
            await until(lambda: session.connected, 10, "connected")
            await ip(f"addr add {ELSEWHERE}/24 dev {INTERFACE}")
            await ip(f"addr del {ADDRESS}/24 dev {INTERFACE}")
            await until(lambda: not session.connected, 2, "given up at once")
            await asyncio.sleep(1.5)  # the outage
            await ip(f"addr add {ADDRESS}/24 dev {INTERFACE}")
            began = time.monotonic()
            await until(lambda: session.connected, 5, "connected again")
            assert time.monotonic() - began < 2.0
        await session.stop()
        await store.close()
