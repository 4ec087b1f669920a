"""Watching what nobody reports: network, clock, storage, levels, ways into the world, memory.

One task looks at each thing in its own rhythm and reports facts to the diagnostics and to the documents ``media``,
``provider``, ``net`` and ``health``. What blocks (files of /proc, statvfs) runs in the executor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.care.quality import BAD, GOOD, POOR
from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.network import read_network
from appliance.vocabulary import CallState, Json
from hw.api import Health, Link

__all__ = ["Watch", "WatchPorts", "addresses"]

log = logging.getLogger(__name__)

LEVELS_S: Final = 0.25  # speakingWhileMicrophoneIsMuted within 1 s
BOARD_S: Final = 1.0  # heat and supply are over within 3 s, with what the board holds them for
NETWORK_S: Final = 2.0  # noNetwork within 3 s
STORAGE_S: Final = 2.0  # and the clock: over within 3 s
SLOW_S: Final = 30.0  # memory
SPEECH_LEVEL: Final = 0.02  # RMS of full scale, -34 dBFS: a voice at arm's length, not a fan
SPEECH_HOLD_S: Final = 1.0
BROKER_GRACE_S: Final = 5.0  # a broker that restarts is no trouble for people
RECONNECT_BAD_S: Final = 6.0
"""Media that are lost for so long did not come back by themselves. With the 3 s in which the loss is noticed, and the
time between two looks, networkReconnect is Bad within 10 s."""
BACKLOG: Final = 1000  # messages that wait for the broker
STORAGE_LOW: Final = 64 * 1024 * 1024  # bytes
STORAGE_ENOUGH: Final = 80 * 1024 * 1024
"""Free again: what is written and deleted all the time does not make the flag flutter."""
WORN: Final = 0.9  # of the life of the storage
SIGNAL_DB: Final = 6  # a Wi-Fi signal that changed by less is not told anew
_AUDIO: Final = ("wanted", "actual", "codec", "rate", "processing", "reason")
_VIDEO: Final = ("wanted", "actual", "codec", "limits", "paused", "qualityLimitationReasons", "layout", "reason")
UNABLE: Final = (frozenset({"safeMode"}), frozenset({"noMicrophoneDevicesEnumerated", "noSpeakerDevicesEnumerated"}))
"""With all of one of these nobody can talk through the device: its health is failed, and no longer just degraded."""
_LIVE_MEDIA: Final = frozenset({CallState.CONNECTED, CallState.LOCAL_HOLD, CallState.REMOTE_HOLD})


@dataclass(frozen=True, slots=True)
class WatchPorts:
    """What the watch asks. ``levels``: microphone and loudspeaker, 0..1."""

    levels: Callable[[], tuple[float, float]]
    broker: Callable[[], bool | None]  # None: none is configured
    backlog: Callable[[], Awaitable[int]]  # rows in the outbox; StoreError when the store does not answer
    note_speaking: Callable[[bool], None]
    media: Callable[[], Json]  # the studio's state
    providers: Callable[[], Json]  # each way into the world by name: its state
    health: Callable[[], Health]  # of the board


async def addresses() -> list[str]:
    """Own IP addresses that are not loopback or link-local, of interfaces with a carrier: an interface that is down, or
    has no cable, keeps its addresses, and nobody is reached from them. Raises OSError."""
    found = [ip_address(one) for one in (await read_network()).addresses]
    return [str(one) for one in sorted(found, key=lambda one: (one.version, int(one)))
            if not one.is_loopback and not one.is_link_local]


class Watch:
    """See the module. ``run`` serves until cancelled."""

    def __init__(self, bulletin: Bulletin, diagnostics: Diagnostics, clock: Clock, data: Path, ports: WatchPorts,
                 *, started: float) -> None:
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        self._clock = clock
        self._data = data
        self._ports = ports
        self._started = started
        self._spoke = float("-inf")  # the other side
        self._spoke_muted = float("-inf")  # somebody here
        self._muted = False  # at the last look
        self._reconnecting: tuple[str, float] | None = None  # call, since
        self._broker_lost: float | None = None
        self._low = False  # storage
        self._told_links: Sequence[Link] | None = None
        self._told_acute: tuple[bool | None, bool | None] | None = None  # throttled, undervoltage: not only every 30 s

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for look, every in ((self._levels, LEVELS_S), (self._media, LEVELS_S), (self._reconnect, LEVELS_S),
                                (self._providers, LEVELS_S), (self._health, LEVELS_S), (self._network, NETWORK_S),
                                (self._board, BOARD_S), (self._storage, STORAGE_S), (self._slow, SLOW_S),
                                (self._backlog, SLOW_S)):
                group.create_task(self._repeat(look, every), name=f"care.watch{look.__name__}")

    async def _repeat(self, look: Callable[[], Awaitable[None]], every: float) -> None:
        failing = False
        while True:
            try:
                await look()
                failing = False
            except (OSError, StoreError) as error:  # a /proc file that is not there just now; a card that hangs
                log.log(logging.DEBUG if failing else logging.WARNING, "a look at the device failed: %s", error)
                failing = True
            await asyncio.sleep(every)

    async def _levels(self) -> None:
        call = self._bulletin.document("call")
        now = self._clock.monotonic()
        state = CallState(call.get("state", "None"))
        microphone, speaker = self._ports.levels()
        live = state in _LIVE_MEDIA
        muted = live and bool(call.get("isMuted"))
        if live and speaker > SPEECH_LEVEL:
            self._spoke = now
        if muted and not self._muted:  # the meter still holds what was said before the mute
            self._spoke_muted = float("-inf")
        elif muted and microphone > SPEECH_LEVEL:
            self._spoke_muted = now
        self._muted = muted
        self._ports.note_speaking(live and now - self._spoke < SPEECH_HOLD_S)
        self._diagnostics.flag("speakingWhileMicrophoneIsMuted", muted and now - self._spoke_muted < SPEECH_HOLD_S)

    async def _reconnect(self) -> None:
        """Poor: the media of the call are lost. Bad: our network is, or a new connection does not come up."""
        call = self._bulletin.document("call")
        if call.get("state") != CallState.RECONNECTING.value:
            self._reconnecting = None
            self._diagnostics.quality("networkReconnect", GOOD)
            return
        now = self._clock.monotonic()
        if self._reconnecting is None or self._reconnecting[0] != call["callId"]:
            self._reconnecting = call["callId"], now
        cut_off = self._diagnostics.raised("noNetwork")
        hopeless = cut_off or now - self._reconnecting[1] >= RECONNECT_BAD_S
        what = "this device has no network" if cut_off else (
            f"no new connection for over {RECONNECT_BAD_S:g} s" if hopeless else "nothing arrives any more")
        self._diagnostics.quality("networkReconnect", BAD if hopeless else POOR, what=what)

    async def _providers(self) -> None:
        self._bulletin.set("provider", {"providers": self._ports.providers()})

    async def _media(self) -> None:
        """``state/media`` holds what people see change; counters and rates go with the statistics."""
        state = self._ports.media()
        audio, video = state["audio"], state["video"]
        capturing = bool(audio["actual"]["sending"] or video["actual"]["open"])
        self._diagnostics.flag("incomingVideoStalled", bool(video["stalled"]))
        self._bulletin.set("media", {
            "capturing": capturing, "sessions": state["sessions"], "without": state["without"],
            "optimalVideoCount": state["optimalVideoCount"],
            "audio": {key: audio[key] for key in _AUDIO if key in audio},
            "video": {key: _steady(video[key]) for key in _VIDEO if key in video}})

    async def _board(self) -> None:
        health = self._ports.health()
        celsius = health.temperature_c
        self._diagnostics.flag("thermalThrottled", health.throttled is True, celsius=celsius,
                               what=None if celsius is None else f"{celsius:.0f} °C")
        self._diagnostics.flag("powerUndervoltage", health.undervoltage is True)
        self._diagnostics.flag("storageLow", health.storage_full is True, cause="board")
        wear = health.storage_wear
        self._diagnostics.flag("storageWear", wear is not None and wear >= WORN,
                               what=None if wear is None else f"{wear:.0%} of its life is used up")
        if (acute := (health.throttled, health.undervoltage)) != self._told_acute:
            self._told_acute = acute
            self._tell_board(health)
        if self._told_links is None or _differ(health.links, self._told_links):
            self._told_links = health.links
            self._bulletin.merge("net", links=[
                {"name": link.name, "up": link.up, "mbps": link.mbps, "dbm": link.dbm} for link in health.links])

    async def _network(self) -> None:
        own = await addresses()
        self._diagnostics.flag("noNetwork", not own)
        broker = self._ports.broker()
        now = self._clock.monotonic()
        if broker is False:
            self._broker_lost = now if self._broker_lost is None else self._broker_lost
        else:
            self._broker_lost = None
        lost = self._broker_lost is not None and now - self._broker_lost >= BROKER_GRACE_S
        self._diagnostics.flag("mqttDisconnected", lost)
        self._bulletin.merge("net", online=bool(own), addresses=own, brokerConnected=broker)

    async def _storage(self) -> None:
        self._diagnostics.flag("clockNotSynchronised", not self._clock.synchronised())
        free, read_only = await asyncio.to_thread(_storage, self._data)
        self._low = free < (STORAGE_ENOUGH if self._low else STORAGE_LOW)
        self._diagnostics.flag("storageLow", self._low, freeBytes=free >> 20 << 20, what=f"{free / 1e6:.0f} MB free")
        self._diagnostics.flag("storageReadOnly", read_only, path=str(self._data))

    async def _slow(self) -> None:
        memory = await asyncio.to_thread(_pss)
        health = self._ports.health()
        self._tell_board(health)
        self._bulletin.merge("health", clock="synchronised" if self._clock.synchronised() else "unsynchronised",
                             pssBytes=memory, load=round(os.getloadavg()[0], 2),
                             uptimeSeconds=round(time.monotonic() - self._started))

    def _tell_board(self, health: Health) -> None:
        self._bulletin.merge("health", board={
            "celsius": None if health.temperature_c is None else round(health.temperature_c),
            "throttled": health.throttled, "undervoltage": health.undervoltage, "storageWear": health.storage_wear,
            "supply": health.supply})

    async def _backlog(self) -> None:
        waiting = await self._ports.backlog()
        self._diagnostics.flag("eventQueueBacklog", waiting > BACKLOG, messages=waiting,
                               what=f"{waiting} messages wait")

    async def _health(self) -> None:
        causes = [*(["safeMode"] if self._bulletin.document("device").get("safeMode") else []),
                  *self._diagnostics.standing()]
        failed = any(unable <= set(causes) for unable in UNABLE)
        self._bulletin.merge("health", status="failed" if failed else "degraded" if causes else "ok", causes=causes)


def _steady(value: Any) -> Any:
    """Without the bit rate, which follows the network all the time."""
    return {key: one for key, one in value.items() if key != "bitrate"} if isinstance(value, dict) else value


def _differ(links: Sequence[Link], told: Sequence[Link]) -> bool:
    """Whether something else is to be told of the links than was told."""
    if [(link.name, link.up, link.mbps) for link in links] != [(link.name, link.up, link.mbps) for link in told]:
        return True
    return any((one.dbm is None) != (other.dbm is None) or abs((one.dbm or 0) - (other.dbm or 0)) >= SIGNAL_DB
               for one, other in zip(links, told, strict=True))


def _storage(folder: Path) -> tuple[int, bool]:
    """Free bytes for us, and whether the file system is mounted read-only. Blocking."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize, bool(status.f_flag & os.ST_RDONLY)


def _pss() -> int | None:
    """Proportional set size of this process in bytes (proc(5), smaps_rollup). Blocking."""
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None
