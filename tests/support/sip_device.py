"""Appliances with nothing but media and telephony."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from appliance.clock import SystemClock
from appliance.media.api import IceServers
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.sip.provider import SipProvider
from appliance.settings import SipAccountSettings, SipSettings, VideoSettings
from appliance.vocabulary import END_REASONS
from tests.support.direct_page import SeenBoard
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["SipDevice", "account", "face_to_face", "sip_device"]

MANY_CALLS = {"calls_per_hour": 3600, "calls_per_target": 3600}
VOICE = api.MediaWanted(send_video=False, receive_video=False)


def account(server: str, **more: Any) -> SipAccountSettings:
    """A trunk over UDP without a registration, which takes calls from this machine."""
    return SipAccountSettings(**{
        "name": "trunk", "address": "sip:door@127.0.0.1", "servers": (server,), "transport": "udp", "register": False,
        "keep_alive": False,
        "trusted": ("127.0.0.0/8",), **more})


@dataclass
class SipDevice:
    """``told`` has the facts of the latest leg, with the moment they came; ``rings``: the calls that came in."""

    name: str
    board: SeenBoard
    studio: Studio
    provider: SipProvider
    leg: api.Leg | None = None
    told: list[tuple[float, api.LegEvent]] = field(default_factory=list)
    rings: list[api.IncomingCall] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None
    answers: bool = True
    media: api.MediaWanted = VOICE
    """What its calls begin with."""

    async def up(self, within_s: float = 5.0) -> None:
        await until(lambda: self.provider.state()["capabilities"]["sip"]["isPresent"],
                    f"{self.name} up; {self.provider.state()}", within_s)

    @property
    def address(self) -> str:
        """Where others reach it without a registrar."""
        contact = self.provider._accounts[0].agent.contact()
        return str(contact.uri)

    async def dial(self, uri: str, media: api.MediaWanted | None = None, *, emergency: bool = False) -> api.Leg:
        me = api.Peer(self.name, f"device:{self.name}", self.name.title(), "device", True)
        scheme, _, address = uri.partition(":")
        leg = await self.provider.dial(api.Target(scheme, address, emergency=emergency), call_id=self.name, caller=me,
                                       media=media or self.media)
        self._follow(leg)
        return leg

    def invited(self, incoming: api.IncomingCall) -> None:
        self.rings.append(incoming)
        self._follow(incoming.leg)
        asyncio.get_running_loop().create_task(self._take(incoming.leg), name="test.answer")

    async def _take(self, leg: api.Leg) -> None:
        await leg.ring()
        if self.answers:
            await leg.accept(self.media)

    def _follow(self, leg: api.Leg) -> None:
        self.leg, self.told = leg, []
        self.reader = asyncio.create_task(self._read(leg), name=f"test.{self.name}")

    async def _read(self, leg: api.Leg) -> None:
        async for event in leg.events():
            if leg is self.leg:
                self.told.append((asyncio.get_running_loop().time(), event))

    def of(self, kind: type[api.LegEvent]) -> list[Any]:
        return [event for _, event in self.told if isinstance(event, kind)]

    def when(self, kind: type[api.LegEvent]) -> float:
        return next(at for at, event in self.told if isinstance(event, kind))

    async def connected(self, within_s: float = 10.0) -> None:
        await until(lambda: self.of(api.Connected) or self.of(api.Ended), f"{self.name} connected", within_s)
        assert not self.of(api.Ended), self.told

    async def ended(self, within_s: float = 10.0) -> str:
        await until(lambda: self.of(api.Ended), f"{self.name} ended; {self.told}", within_s)
        return str(self.of(api.Ended)[0].reason.key)

    async def hang_up(self, key: str = "0/local") -> None:
        assert self.leg is not None
        await self.leg.end(END_REASONS[key])

    async def hears(self, hertz: float, within_s: float = 10.0) -> None:
        await until(lambda: abs(self.board.hears()[0] - hertz) < 8 and self.board.hears()[1] > -45,
                    f"{hertz} Hz at {self.name}", within_s)

    async def sees(self, luma: float, within_s: float = 10.0) -> None:
        """Until a picture of one grey is on the screen."""
        def mean() -> float:
            shown = self.board.pictures
            return sum(shown[-1].i420[: shown[-1].width * shown[-1].height : 97]) / len(
                range(0, shown[-1].width * shown[-1].height, 97)) if shown else 0.0

        await until(lambda: abs(mean() - luma) < 6, f"luma {luma} at {self.name}, which sees {mean():.0f}", within_s)

    async def hears_nothing(self, within_s: float = 5.0) -> None:
        await until(lambda: self.board.hears()[1] < -60, f"silence at {self.name}", within_s)


@asynccontextmanager
async def sip_device(
    name: str, *accounts: SipAccountSettings, hertz: float = 440.0, encrypt: bool = False, country: str = "",
    sip: Mapping[str, Any] | None = None,
) -> AsyncIterator[SipDevice]:
    loop = asyncio.get_running_loop()
    board = await loop.run_in_executor(None, SeenBoard, hertz)
    studio = Studio(board, VideoSettings())
    await studio.open()
    kept: dict[str, str] = {}

    async def remember(key: str, value: str) -> str:
        return kept.setdefault(key, value)

    made: SipDevice

    def troubled(troubles: dict[str, str]) -> None:
        made.troubles = troubles

    provider = SipProvider(
        SipSettings(require_encryption=encrypt, accounts=accounts, **{**MANY_CALLS, **(sip or {})}), studio,
        SystemClock(), name=name.title(), country=country, remember=remember, keep=kept.__setitem__,
        troubled=troubled, refused=lambda *what: made.refused.append(what), ice=IceServers())
    made = SipDevice(name, board, studio, provider)
    try:
        await provider.start(made.invited)
        yield made
    finally:
        await provider.stop()
        if made.reader is not None:
            await asyncio.wait({made.reader}, timeout=2)
        await studio.close()
        await loop.run_in_executor(None, board.close)


@asynccontextmanager
async def face_to_face(
    *, door: Mapping[str, Any] | None = None, desk: Mapping[str, Any] | None = None, encrypt: bool = False,
) -> AsyncIterator[tuple[SipDevice, SipDevice]]:
    """A door (440 Hz) and a desk (1 kHz), each the other's server. ``door``, ``desk``: more of the account of each;
    ``encrypt``: the door calls in no other way."""
    here, there = free_port(), free_port()
    async with (
        sip_device("door", account(f"127.0.0.1:{there}", port=here, **(door or {})), hertz=440, encrypt=encrypt) as one,
        sip_device("desk", account(f"127.0.0.1:{here}", port=there, **(desk or {})), hertz=1000) as other,
    ):
        await one.up()
        await other.up()
        yield one, other
