"""A call between the installed service on kernel devices and an appliance outside, with eyes and ears at both ends.

The peer is an appliance on a simulated board on this machine, at the other end of the guest's network cable. What the
service tells is followed through its own door, over the same cable.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from appliance.doors.panel import DIAL_EVERY_S
from tests.hil.conftest import Device, switched_on
from tests.hil.scene import CALL_BUTTON, TONE_HERTZ
from tests.support.appliance import Appliance, Json, Panel
from tests.support.event_stream import events
from tests.support.waiting import until_true

__all__ = ["LOBBY_HERTZ", "Line", "Service", "ready_line"]

HERE: Final = "10.98.0.1"
THERE: Final = "10.98.0.2"
PORT: Final = 18080
LOBBY_HERTZ: Final = 1500
MUTE_BUTTON: Final = 27
MUTE_LAMP: Final = 6
BOARD: Final = f"""
[audio] # the near end of the loop: the far end is the scene's
microphones = ["alsa:Loopback"]
speakers = ["alsa:Loopback"]
[panel]
chip = "pinctrl-bcm2835"
buttons = {{ call = "{CALL_BUTTON}", mute = "{MUTE_BUTTON}" }}
lamps = {{ mute = "{MUTE_LAMP}" }}
"""


class Service:
    """What the service tells, as it comes."""

    def __init__(self) -> None:
        self.documents: dict[str, Json] = {}
        self.events: list[Json] = []
        self._changed = asyncio.Event()

    async def follow(self, token: str) -> None:
        """Until cancelled."""
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with (aiohttp.ClientSession(headers=headers, timeout=timeout) as http,
                    http.get(f"https://{THERE}:{PORT}/v1/events", ssl=False) as response):
            response.raise_for_status()
            async for name, body in events(response):
                if name == "state":
                    self.documents[body["name"]] = body["document"]
                elif name == "event":
                    self.events.append(body)
                self._changed.set()

    def raised(self, diagnostic: str) -> Json | None:
        """What stands of it while it is raised."""
        standing = self.documents.get("diag", {}).get(diagnostic)
        return standing if standing is not None and standing["value"] else None

    async def until(self, condition: Callable[[], Any], what: str, within_s: float) -> Any:
        try:
            async with asyncio.timeout(within_s):
                while not (found := condition()):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            told = [name for name in self.documents.get("diag", {}) if self.raised(name)]
            raise AssertionError(f"not within {within_s} s: {what}; raised are {told}") from None


@dataclass
class Line:
    """The service in the guest, and the peer out here."""

    guest: Device
    service: Service
    lobby: Appliance
    at_lobby: Panel
    _dialled: float = -math.inf

    async def run(self, command: str, seconds: float = 30.0) -> str:
        return await asyncio.to_thread(self.guest.run, command, seconds)

    async def press(self, line: int = CALL_BUTTON) -> None:
        """A button, for 0.2 s."""
        pull = f"/sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio{line}/pull"
        await self.run(f"for p in {pull}; do echo pull-down >$p; sleep 0.2; echo pull-up >$p; done")

    async def lamp(self, line: int, *, lit: bool, within_s: float = 10.0) -> None:
        """Until it is."""
        wanted = f"grep -q {int(lit)} /sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio{line}/value"
        await self.run(f"timeout {within_s} sh -c 'until {wanted}; do sleep 0.1; done'", within_s + 10)

    async def connected(self) -> None:
        """The button is pressed, the lobby answers."""
        # sooner after the last press than a person would, it would be answered by "One moment, please"
        await asyncio.sleep(self._dialled + DIAL_EVERY_S - time.monotonic())
        await self.press()
        await self.lobby.call_is("Incoming", within_s=30)
        self._dialled = time.monotonic()  # at the latest
        answered = await self.lobby.give("call.answer", wait=30)
        assert answered["result"] == "done", answered
        await self.lobby.call_is("Connected", within_s=30)

    async def flows(self, within_s: float = 30.0) -> None:
        """The guest's tone is here, and the lobby's at the guest's loudspeaker."""
        await self.at_lobby.hears(TONE_HERTZ, within_s)
        await self.plays(within_s)

    async def plays(self, within_s: float = 30.0) -> None:
        """The lobby's tone is at the guest's loudspeaker."""
        heard: Json = {}
        try:
            async with asyncio.timeout(within_s):
                while abs(heard.get("hertz", 0) - LOBBY_HERTZ) > 15:
                    heard = json.loads(await self.run("cat /run/scene.json"))
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s at the guest's loudspeaker: {heard}") from None

    async def counts(self, after: int, within_s: float = 30.0) -> int:
        """The picture that the lobby decodes carries a counter above ``after`` that goes on; returns where it is."""
        first: int | None = None
        end = time.monotonic() + within_s
        while (left := end - time.monotonic()) > 0:
            mark = await self.at_lobby.sees(left)
            if first is not None and mark.counter > first:
                return mark.counter
            if mark.counter > after:
                first = mark.counter
        raise AssertionError(f"not within {within_s} s: a picture above {after} and then a later one")

    async def received(self, kind: str) -> Json:
        rows = (await self.lobby.get("/v1/stats"))["stats"]
        return next(row for row in rows if (row["type"], row.get("kind")) == ("inbound-rtp", kind))

    async def round_trip(self) -> float:
        """Seconds from the lobby to the device and back, by the latest consent check: the first one is made after some
        seconds."""
        found: list[float] = []

        async def measured() -> bool:
            rows = (await self.lobby.get("/v1/stats"))["stats"]
            found[:] = [float(row["currentRoundTripTime"]) for row in rows if row.get("currentRoundTripTime")]
            return bool(found)

        await until_true(measured, "a consent check is answered", 15)
        return max(found)

    async def over(self) -> None:
        await self.lobby.give("call.hangup")
        await self.lobby.ended("0/local")
        documents = self.service.documents  # a press before it knows would be for this call
        await self.service.until(lambda: documents["call"]["state"] == "Disconnected", "the call is over there too", 30)


@asynccontextmanager
async def ready_line(env: Any, folder: Path, board: str = "") -> AsyncIterator[Line]:
    """Both ends are up, and no call yet. ``board``: more of the service's board file."""
    tokens = {name: folder / name for name in ("peer", "tester")}
    for path in tokens.values():
        path.write_text(secrets.token_urlsafe(24))
        path.chmod(0o600)
    (folder / "lobby").mkdir()
    tables = f"""
[[http.tokens]]
name = "door-1"
scope = "device"
token_file = "{tokens["peer"]}"
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
            texts = {name: path.read_text() for name, path in tokens.items()}
            await asyncio.to_thread(install, guest, BOARD + board, texts, seen[1])
            service = Service()
            following = asyncio.create_task(service.follow(texts["tester"]))
            try:
                await service.until(lambda: "call" in service.documents, "the service's events", 60)
                yield Line(guest, service, lobby, at_lobby)
            finally:
                following.cancel()
                # what it did, where a test failed
                print(await asyncio.to_thread(guest.run, "journalctl -u edgecall -n 100 --no-pager -o cat"))
                await asyncio.gather(following, return_exceptions=True)


def install(guest: Device, board: str, tokens: dict[str, str], fingerprint: str) -> None:
    """Settings, the scene around the device, and the service up."""
    for name, token in tokens.items():
        guest.write(f"/etc/edgecall/{name}.token", token)
    guest.run("chown edgecall: /etc/edgecall/*.token && chmod 600 /etc/edgecall/*.token")
    guest.write("/etc/edgecall/boards/guest.toml", board)
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
[audio] # two tones that never pause are to the guard an echo that cannot be cancelled
half_duplex = "off"
[mqtt]
enabled = false
[call]
button_target = "lan:lobby"
[http]
listen = "{THERE}"
port = {PORT}
[[http.tokens]]
name = "tester"
token_file = "/etc/edgecall/tester.token"
[[direct.peers]]
name = "lobby"
url = "https://{HERE}:{PORT}"
token_file = "/etc/edgecall/peer.token"
fingerprint = "{fingerprint}"
""")
    guest.background("scene", "-m", "tests.hil.scene", "/run")
    guest.run("until [ -e /run/scene.json ]; do sleep 0.2; done; udevadm settle", 60)
    guest.run("systemctl start edgecall || { journalctl -u edgecall -o cat | tail -n 20; false; }", 190)
