"""An appliance on a machine of its own moves between addresses, in a call and out of one: over a broker, on the LAN."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support.appliance import Appliance, Panel
from tests.support.broker import Broker
from tests.support.elsewhere import Machine, elsewhere
from tests.support.interface import ADDRESS
from tests.support.pair import connect, online
from tests.support.ports import free_port
from tests.support.turnserver import Authority

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]

DOOR_HERTZ, LOBBY_HERTZ = 1000, 1500
VIDEO = {"video.width": 640, "video.height": 360, "video.fps": 15, "board.screen": "640x360", "call.reconnect_s": 30}
BOOK = '[[book]]\nname = "{}"\nuris = ["{}"]\n'
BACK_S = 10.0
"""Five seconds, for a machine that has to share its processors with two whole appliances."""


async def is_back(call_id: str, *ends: Appliance) -> None:
    """Both are in the call that they were in."""
    for end in ends:
        await end.call_is("Connected", within_s=BACK_S)
        assert end.state("call")["callId"] == call_id


async def carried(machine: Machine, address: str, call_id: str, door: Appliance, lobby: Appliance,
                  ears: Sequence[tuple[Panel, int]]) -> None:
    """The lobby's machine gets another address in the middle of the call, which goes on."""
    begun = time.monotonic()
    await machine.moves_to(address)
    await lobby.call_is("Reconnecting", within_s=4)
    await is_back(call_id, lobby, door)
    assert time.monotonic() - begun < BACK_S
    for panel, hertz in ears:
        panel.sound.clear()
        await panel.hears(hertz)
    await lobby.wait_for_state("net", lambda net: net.get("addresses") == [address], 5)


async def test_over_a_broker_the_same_call_goes_on_at_every_address(tmp_path: Path) -> None:
    port = free_port()
    async with (
        elsewhere("10.99.8.2") as machine,
        Broker(tmp_path / "broker", devices=["door-1", "lobby-2"], extra=f"listener {port} {ADDRESS}\n") as broker,
    ):
        door = Appliance(tmp_path / "door", broker=broker, settings=VIDEO | {"board.microphone": f"tone:{DOOR_HERTZ}"},
                         tables=BOOK.format("Lobby", "device:lobby-2"))
        lobby = Appliance(tmp_path / "lobby", device="lobby-2", broker=broker, port=port, through=machine.command,
                          settings=VIDEO | {"board.microphone": f"tone:{LOBBY_HERTZ}"},
                          tables=BOOK.format("Door", "device:door-1"))
        lobby.settings["mqtt.host"] = ADDRESS
        async with door, lobby, door.panel() as at_door, lobby.panel() as at_lobby:
            ears = ((at_door, LOBBY_HERTZ), (at_lobby, DOOR_HERTZ))
            await asyncio.gather(online(door), online(lobby))
            call_id = await connect(door, lobby, "Lobby")
            for address in ("10.99.9.2", "10.99.8.3"):
                await carried(machine, address, call_id, door, lobby, ears)
                await online(lobby)
            await machine.moves_to(None)
            await door.call_is("Reconnecting", within_s=5)
            await lobby.wait_for_state("net", lambda net: not net["addresses"] and net["brokerConnected"] is False, 10)
            await machine.moves_to("10.99.9.7")
            await is_back(call_id, lobby, door)
            await lobby.give("call.hangup")
            await door.ended("0/remote")
            await machine.moves_to("10.99.8.4")  # between two calls
            await lobby.wait_for_state(
                "net", lambda net: net["addresses"] == ["10.99.8.4"] and net["brokerConnected"], 15)
            call_id = await connect(lobby, door, "Door")
            await carried(machine, "10.99.9.2", call_id, door, lobby, ears)
            await door.give("call.hangup")
            await lobby.ended("0/remote")


async def test_on_the_lan_the_same_call_goes_on_at_every_address(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue(ADDRESS)
    pin = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    token = tmp_path / "lobby.token"
    token.write_text("a-token-of-the-lobby-2")
    token.chmod(0o600)
    port = free_port()
    async with elsewhere("10.99.8.2") as machine:
        door = Appliance(
            tmp_path / "door", tables=f'[[http.tokens]]\nname = "lobby-2"\nscope = "device"\ntoken_file = "{token}"\n',
            settings=VIDEO | {"board.microphone": f"tone:{DOOR_HERTZ}", "http.listen": ADDRESS, "http.port": port,
                              "http.cert_file": certificate, "http.key_file": key, "call.allow_unknown": True})
        lobby = Appliance(
            tmp_path / "lobby", device="lobby-2", through=machine.command,
            settings=VIDEO | {"board.microphone": f"tone:{LOBBY_HERTZ}"},
            tables=f'[[direct.peers]]\nname = "door"\nurl = "https://{ADDRESS}:{port}"\ntoken_file = "{token}"\n'
                   f'fingerprint = "{pin}"\n')
        async with door, lobby, door.panel() as at_door, lobby.panel() as at_lobby:
            ears = ((at_door, LOBBY_HERTZ), (at_lobby, DOOR_HERTZ))
            call_id = await connect(lobby, door, "lan:door")
            for address in ("10.99.9.2", "10.99.8.3"):
                await carried(machine, address, call_id, door, lobby, ears)
            await machine.moves_to(None)
            await door.call_is("Reconnecting", within_s=5)
            await machine.moves_to("10.99.9.7")
            await is_back(call_id, lobby, door)
            await door.give("call.hangup")  # which the lobby hears by its new connection alone
            await lobby.ended("0/remote")
