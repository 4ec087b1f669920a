"""The outbox pump: rows of the store to the broker, in order, each forgotten only when the broker acknowledged it.

A poison row (one the broker ends the connection for) must not stop the rest: after an end with rows under way the first
of them is sent alone; if it ends connections again, it is set aside in quarantine and told.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

from appliance.link.connection import Connection, Ending
from appliance.store import Gap, Row, Store

__all__ = ["OutboxPump"]

log = logging.getLogger(__name__)

WINDOW: Final = 8  # rows under way; TCP and the broker keep their order
CUTS_BY_WORD: Final = 2
CUTS_SILENT: Final = 5
"""Connections a row may end: 2 when the broker said that the packet was at fault, 5 when it just went away (brokers
are also killed, and nobody's answer may be lost for that)."""
BLAMES_PACKET: Final = frozenset({0x81, 0x82, 0x83, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B})
"""MQTT 5 reason codes of DISCONNECT that speak of a packet: malformed, protocol error, ours, topic name, too large,
quota, payload format, retain or QoS not supported."""


class OutboxPump:
    """``run`` for each connection; ``wake`` when rows came."""

    def __init__(self, store: Store, gap_topic: str, wall: Callable[[], float],
                 on_poison: Callable[[str, str], None]) -> None:
        """``on_poison``: told of topic and reason for each row set aside."""
        self._store = store
        self._gap_topic = gap_topic
        self._wall = wall
        self._on_poison = on_poison
        self._wake = asyncio.Event()
        self._under_way: list[Row] = []
        self.idle = asyncio.Event()
        store.on_enqueue(self._wake.set)

    async def run(self, connection: Connection) -> None:
        """Until cancelled or the connection ends."""
        gap_refused = False
        while not connection.ended.done():
            self._wake.clear()
            rows, gap = await self._store.outbox(WINDOW)
            if gap is not None and not gap_refused:
                code = await self._tell_gap(connection, gap)
                if code is None:
                    return
                gap_refused = code >= 0x80  # the marker stays; the rest flows
            if not rows:
                self.idle.set()
                await self._wake.wait()
                self.idle.clear()
                continue
            suspect = rows[0].cuts > 0
            if not await self._send(connection, rows[:1] if suspect else rows):
                return

    async def blame(self, ending: Ending) -> None:
        """The connection ended: the first row still under way is the suspect."""
        under_way, self._under_way = self._under_way, []
        if not under_way or ending.keepalive or not ending.established:
            return
        by_word = ending.code in BLAMES_PACKET
        if ending.code is not None and not by_word:  # shutting down, taken over: not the row's fault
            return
        row = under_way[0]
        cuts = await self._store.cut(row.seq)
        if cuts >= (CUTS_BY_WORD if by_word else CUTS_SILENT):
            await self._set_aside(row, f"it ended {cuts} connections ({ending.words})")

    async def _send(self, connection: Connection, rows: list[Row]) -> bool:
        """Whether all are dealt with: delivered, run out, or set aside."""
        now, gone, pending = self._wall(), [], []
        for row in rows:
            if row.expires is not None and row.expires <= now:
                gone.append(row.seq)
            elif not connection.fits(row.topic, row.payload):
                await self._set_aside(row, f"the broker takes at most {connection.largest_packet} bytes")
            else:
                expiry_s = None if row.expires is None else int(row.expires - now)
                self._under_way.append(row)
                pending.append((row, connection.publish(
                    row.topic, row.payload, qos=1, retain=False, expiry_s=expiry_s)))
        codes = await asyncio.gather(*(ack for _, ack in pending))
        complete = True
        for (row, _), code in zip(pending, codes, strict=True):
            if code is None:
                complete = False
                continue
            self._under_way.remove(row)
            if code >= 0x80:
                await self._set_aside(row, f"the broker refused it (0x{code:02x})")
            else:
                gone.append(row.seq)
        if gone:
            await self._store.sent(gone)
        if not complete:
            self._unacknowledged(connection)
        return complete

    @staticmethod
    def _unacknowledged(connection: Connection) -> None:
        if not connection.ended.done():
            log.debug("the broker did not acknowledge within its time; the connection is made anew")
            connection.abandon("no acknowledgement")

    async def _tell_gap(self, connection: Connection, gap: Gap) -> int | None:
        """The broker's reason code; None when none came, and the connection is given up."""
        body = {"v": 1, "ts": self._wall(), "dropped": gap.dropped, "from": gap.first, "to": gap.last}
        code = await connection.publish(self._gap_topic, json.dumps(body).encode(), qos=1, retain=False, expiry_s=None)
        if code is None:
            self._unacknowledged(connection)
        elif code >= 0x80:
            log.error("the broker refused to be told of %d messages that were thrown away (0x%02x)", gap.dropped, code)
        else:
            log.warning("%d messages were thrown away while the broker was not reached", gap.dropped)
            await self._store.gap_told(gap.dropped)
        return code

    async def _set_aside(self, row: Row, why: str) -> None:
        log.error("a message on %s is set aside: %s", row.topic, why)
        await self._store.quarantine(row.seq, why)
        self._on_poison(row.topic, why)
