"""Statistics of the call and of the device, with the verdict on them: the document ``quality``.

One when asked for, and a stream by lease: a lease of ``stats.subscribe`` ends by itself after a minute, that of an
event stream with the stream. Nothing is sampled while there is none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.bulletin import Bulletin
from appliance.care import acs
from appliance.errors import Refused
from appliance.intake import Handler
from appliance.vocabulary import DIALECTS, SAMPLE_S, Command, Json
from hw.api import Health

__all__ = ["Sampling", "SamplingPorts"]

log = logging.getLogger(__name__)

LEASE_S: Final = 60.0  # no forgotten firehose: who wants more asks again
LEASES: Final = 16  # of stats.subscribe; those of event streams are limited by the streams
MEMORY: Final = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class SamplingPorts:
    """What sampling asks. ``stats``: the W3C dictionaries of the call, empty without one; ``earlier``: a report of the
    same call from before the given one; ``quality``: the verdict on the call; ``health``: the board's; ``lag``: what
    each stage takes, and ``rates``: of the picture, both as members of ``x-device``; ``publish``: over MQTT,
    what came by no event stream alone."""

    stats: Callable[[], Awaitable[Sequence[Json]]]
    earlier: Callable[[Sequence[Json]], Sequence[Json]]
    quality: Callable[[], Json]
    health: Callable[[], Health]
    lag: Callable[[], Json]
    rates: Callable[[], Json]
    publish: Callable[[Json], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Lease:
    interval: int  # seconds
    dialect: str
    until: float = math.inf  # of the loop's clock; never: its owner gives it back


class Sampling:
    """A sample is a document ``{callId, quality, interval, stats, acs}``, with ``stats`` or ``acs`` or both, as the
    leases want. ``run`` serves until cancelled."""

    def __init__(self, bulletin: Bulletin, ports: SamplingPorts) -> None:
        self._bulletin = bulletin
        self._ports = ports
        self._subscribed: dict[tuple[str, str, str], _Lease] = {}  # by origin, sender and dialect
        self._following: list[_Lease] = []
        self._sampled = float("-inf")  # loop time of the last sample
        self._renewed = asyncio.Event()
        self._before: Sequence[Json] = ()
        self._failing = False

    def handlers(self) -> Mapping[str, Handler]:
        return {"stats.subscribe": self._subscribe}

    async def report(self) -> list[Json]:
        """Now: what W3C knows of the call, if there is one, and ``x-device``."""
        return [*await self._ports.stats(), await self._device()]

    async def document(self, dialect: str) -> Json:
        """One sample, now: ``{callId, quality, stats}``, or ``acs`` with rates since the last look at the call."""
        report = await self._ports.stats()
        return await self._document({dialect}, report, self._ports.earlier(report))

    @contextmanager
    def following(self, interval: int, dialect: str) -> Iterator[None]:
        """A lease for the duration of the block: samples are told to the subscribers of the bulletin."""
        lease = _Lease(interval, dialect)
        self._following.append(lease)
        self._renewed.set()
        try:
            yield
        finally:
            self._following.remove(lease)
            self._renewed.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._renewed.clear()
            interval = self._interval()
            try:
                async with asyncio.timeout_at(None if interval is None else self._sampled + interval):
                    await self._renewed.wait()
            except TimeoutError:
                self._sampled = loop.time()
                await self._sample(interval or 0)

    async def _sample(self, interval: int) -> None:
        try:
            await self._publish(interval)
            self._failing = False
        except Exception:  # a call must not end because its statistics have a defect
            log.log(logging.DEBUG if self._failing else logging.ERROR, "no sample: this is a defect", exc_info=True)
            self._failing = True

    def _interval(self) -> int | None:
        """Seconds between samples, None while there is no lease."""
        now = asyncio.get_running_loop().time()
        self._subscribed = {who: lease for who, lease in self._subscribed.items() if lease.until > now}
        if not self._leases():
            self._before = ()
        return min((lease.interval for lease in self._leases()), default=None)

    def _leases(self) -> list[_Lease]:
        return [*self._subscribed.values(), *self._following]

    async def _publish(self, interval: int) -> None:
        report = await self._ports.stats()
        document = await self._document({lease.dialect for lease in self._leases()}, report,
                                        self._before or self._ports.earlier(report))
        self._before = report
        document["interval"] = interval
        self._bulletin.sample(document)
        if self._subscribed:
            await self._ports.publish(document)

    async def _document(self, dialects: Set[str], report: Sequence[Json], before: Sequence[Json]) -> Json:
        """``before``: the report that rates count from."""
        document: Json = {"callId": self._bulletin.document("call").get("callId"), "quality": self._ports.quality()}
        if "w3c" in dialects:
            document["stats"] = [*report, await self._device()]
        if "acs" in dialects:
            document["acs"] = acs.sample(report, before)
        return document

    async def _subscribe(self, command: Command) -> None:
        dialect = command.args.get("dialect", DIALECTS[0])
        who = command.origin.value, command.sender, dialect
        if who not in self._subscribed and len(self._subscribed) >= LEASES:
            raise Refused("too many ask for statistics; try again within a minute", code=429, sub_code="tooMany")
        until = asyncio.get_running_loop().time() + LEASE_S
        self._subscribed[who] = _Lease(command.args.get("interval", SAMPLE_S[0]), dialect, until)
        self._renewed.set()

    async def _device(self) -> Json:
        health = self._ports.health()
        row: Json = {"type": "x-device", "id": "device", "timestamp": time.time() * 1000,
                     "cpuLoad": round(os.getloadavg()[0] / (os.cpu_count() or 1), 3)}
        row |= self._ports.lag() | self._ports.rates()
        known = {"memFree": await asyncio.to_thread(_memory_free), "socTemperature": health.temperature_c,
                 "throttled": health.throttled}
        return row | {name: value for name, value in known.items() if value is not None}


def _memory_free() -> int | None:
    """Bytes that programs may still take (proc_meminfo(5), MemAvailable). Blocking."""
    try:
        lines = MEMORY.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
