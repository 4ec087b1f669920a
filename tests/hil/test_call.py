"""Whole calls: the installed service on kernel devices, called by its button and heard by a peer outside of it.

The peer is an appliance on a simulated board on this machine, at the other end of the guest's network cable.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.hil.conftest import Device, switched_on
from tests.hil.scene import CALL_BUTTON, TONE_HERTZ
from tests.support.appliance import Appliance, Json, Panel

pytestmark = [
    pytest.mark.lg_feature(["camera", "sound", "panel", "faults"]), pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]  # fmt: skip

HERE = "10.98.0.1"
PORT = 18080
LOBBY_HERTZ = 1500
BOARD = f"""
[panel]
chip = "pinctrl-bcm2835"
buttons = {{ call = "{CALL_BUTTON}" }}
"""


@dataclass
class Line:
    """The service in the guest, and the peer out here."""

    guest: Device
    lobby: Appliance
    at_lobby: Panel

    async def run(self, command: str, seconds: float = 30.0) -> str:
        return await asyncio.to_thread(self.guest.run, command, seconds)

    async def press(self) -> None:
        """The call button, for 0.2 s."""
        pull = f"/sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio{CALL_BUTTON}/pull"
        await self.run(f"for p in {pull}; do echo pull-down >$p; sleep 0.2; echo pull-up >$p; done")

    async def connected(self) -> None:
        """The button is pressed, the lobby answers."""
        await self.press()
        await self.lobby.call_is("Incoming", within_s=30)
        answered = await self.lobby.give("call.answer", wait=30)
        assert answered["result"] == "done", answered
        await self.lobby.call_is("Connected", within_s=30)

    async def flows(self, within_s: float = 30.0) -> None:
        """The guest's tone is here, and the lobby's at the guest's loudspeaker."""
        await self.at_lobby.hears(TONE_HERTZ, within_s)
        heard: Json = {}
        try:
            async with asyncio.timeout(within_s):
                while abs(heard.get("hertz", 0) - LOBBY_HERTZ) > 15:
                    heard = json.loads(await self.run("cat /run/scene.json"))
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s at the guest's loudspeaker: {heard}") from None

    async def received(self, kind: str) -> Json:
        rows = (await self.lobby.get("/v1/stats"))["stats"]
        return next(row for row in rows if (row["type"], row.get("kind")) == ("inbound-rtp", kind))

    async def over(self) -> None:
        await self.lobby.give("call.hangup")
        await self.lobby.ended("0/local")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(env: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    folder = tmp_path_factory.mktemp("call")
    token = folder / "token"
    token.write_text(secrets.token_urlsafe(24))
    token.chmod(0o600)
    (folder / "lobby").mkdir()
    tables = f"""
[[http.tokens]]
name = "door-1"
scope = "device"
token_file = "{token}"
[[book]]
name = "Door"
uris = ["lan:door-1"]
"""
    with switched_on(env, "service") as guest:
        lobby = Appliance(folder / "lobby", device="lobby-2", tables=tables, settings={
            "board.name": "sim", "board.microphone": f"tone:{LOBBY_HERTZ}", "board.screen": "640x360",
            "video.width": 320, "video.height": 180, "video.fps": 10, "http.listen": HERE, "http.port": PORT})
        async with lobby, lobby.panel(watch=True) as at_lobby:
            seen = re.search(r"fingerprint SHA-256 (\S+)", lobby.log(1000))
            assert seen is not None, lobby.log()
            await asyncio.to_thread(install, guest, token.read_text(), seen[1])
            yield Line(guest, lobby, at_lobby)


def install(guest: Device, token: str, fingerprint: str) -> None:
    """Settings, the scene around the device, and the service up."""
    guest.write("/etc/edgecall/peer.token", token)
    guest.run("chown edgecall: /etc/edgecall/peer.token && chmod 600 /etc/edgecall/peer.token")
    guest.write("/etc/edgecall/boards/guest.toml", BOARD)
    guest.write("/etc/edgecall/edgecall.toml", f"""
[device]
id = "door-1"
[board]
name = "pi"
file = "guest"
[video]
width = 640
height = 360
fps = 15
[mqtt]
enabled = false
[call]
button_target = "lan:lobby"
[http]
port = 0
[[direct.peers]]
name = "lobby"
url = "https://{HERE}:{PORT}"
token_file = "/etc/edgecall/peer.token"
fingerprint = "{fingerprint}"
""")
    guest.background("scene", "-m", "tests.hil.scene", "/run")
    guest.run("until [ -e /run/scene.json ]; do sleep 0.2; done; udevadm settle", 60)
    guest.run("systemctl start edgecall || { journalctl -u edgecall -o cat | tail -n 20; false; }", 190)


async def test_a_call_by_the_button_is_heard_on_both_sides(line: Line) -> None:
    await line.connected()
    await line.flows()
    assert (await line.received("audio"))["packetsLost"] == 0
    assert "\nSeccomp:\t2\n" in await line.run("cat /proc/$(systemctl show --value -p MainPID edgecall)/status")
    await line.over()


async def test_a_call_on_a_network_that_loses_and_delays(line: Line) -> None:
    both = "netem delay 50ms 10ms loss 3%"
    await line.run(f"tc qdisc add dev vec0 root {both} && tc qdisc add dev vec0 ingress && ip link set ifb0 up && "
                   "tc filter add dev vec0 parent ffff: matchall action mirred egress redirect dev ifb0 && "
                   f"tc qdisc add dev ifb0 root {both}")
    try:
        await line.connected()
        await line.flows(60)
        await line.over()
    finally:
        await line.run("tc qdisc del dev vec0 root; tc qdisc del dev vec0 ingress; tc qdisc del dev ifb0 root")
