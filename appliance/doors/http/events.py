"""Server-sent events: a full snapshot, then every change and event as it happens, and samples while somebody asks."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from typing import Any, Final

from aiohttp import web

from appliance.bulletin import Bulletin
from appliance.errors import Refused
from appliance.faces.cloudevents import cloud_event
from appliance.vocabulary import VOLATILE, Event, Json

__all__ = ["EventStreams"]

log = logging.getLogger(__name__)

STREAMS_LIMIT: Final = 32
QUEUE_LIMIT: Final = 256
"""Messages that may wait for one client; a page that is further behind starts again with a snapshot."""

SAMPLES_BEHIND: Final = 16
"""With more messages waiting, a sample of statistics (some 10 kB each) is left out."""

HEARTBEAT_S: Final = 15.0
WRITE_S: Final = 10.0


def _message(name: str, body: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n".encode()


class _Client:
    """What waits for one client. Fed on the loop by the bulletin, which must not be kept waiting."""

    def __init__(self, device: str, boot: str) -> None:
        self.waiting: deque[bytes] = deque()
        self.ready = asyncio.Event()
        self.cut = ""
        self._device = device
        self._boot = boot

    def document(self, name: str, document: Json, rev: int) -> None:
        self._put(_message("state", {"name": name, "rev": rev, "document": document}))

    def sample(self, document: Json, rev: int) -> None:
        """The next one is soon there: it is not kept for a client that reads slowly."""
        if len(self.waiting) < SAMPLES_BEHIND:
            self.document(VOLATILE, document, rev)

    def event(self, event: Event) -> None:
        self._put(_message("event", cloud_event(event, self._device, self._boot)))

    def end(self, reason: str) -> None:
        self.cut = self.cut or reason
        self.ready.set()

    def _put(self, message: bytes) -> None:
        if len(self.waiting) >= QUEUE_LIMIT:
            self.end("slow")
        else:
            self.waiting.append(message)
            self.ready.set()


class EventStreams:
    """All open streams of ``GET /v1/events``.

    Messages: ``hello`` {boot, rev, time}, then one ``state`` {name, rev, document} per document, then ``state`` and
    ``event`` (CloudEvents) as they come, and a ``state`` named ``quality`` while anybody asks for statistics; ``cut``
    {reason} before we end a stream: ``slow``, ``signedOut`` or ``shutdown``. ``Last-Event-ID`` is not used: every
    stream starts with the whole truth.
    """

    def __init__(self, bulletin: Bulletin, device: str) -> None:
        self._bulletin = bulletin
        self._device = device
        self._clients: set[_Client] = set()
        self.cut_slow = 0

    def __len__(self) -> int:
        return len(self._clients)

    def close(self) -> None:
        for client in self._clients:
            client.end("shutdown")

    async def serve(self, request: web.Request, on_end: list[Any] | None = None) -> web.StreamResponse:
        """Serve one client until it leaves. ``on_end`` is the session's list of what ends with it.

        Raises Refused (503) when too many streams are open.
        """
        if len(self._clients) >= STREAMS_LIMIT:
            raise Refused(f"There are {STREAMS_LIMIT} event streams open already. Close one.",
                          code=503, sub_code="streams")
        response = web.StreamResponse(headers={
            "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        client = _Client(self._device, self._bulletin.boot)
        signed_out = lambda: client.end("signedOut")  # noqa: E731 - the same object is needed to take it out again
        self._clients.add(client)
        if on_end is not None:
            on_end.append(signed_out)
        try:
            await response.prepare(request)
            # Snapshot and subscription in one step of the loop: nothing is lost or told twice between them.
            with self._bulletin.subscribed(
                    on_document=client.document, on_event=client.event,
                    on_sample=lambda document: client.sample(document, self._bulletin.rev)):
                await self._write(response, self._snapshot())
                await self._follow(response, client)
        except (ConnectionError, TimeoutError):
            log.debug("event stream ended by its client")
        finally:
            self._clients.discard(client)
            if on_end is not None:
                on_end.remove(signed_out)
            if client.cut == "slow":
                self.cut_slow += 1
        return response

    def _snapshot(self) -> bytes:
        snapshot = self._bulletin.snapshot()
        parts = [b"retry: 1000\n", _message("hello", {
            "boot": self._bulletin.boot, "rev": snapshot.rev, "time": time.time()})]
        parts += [_message("state", {"name": name, "rev": snapshot.rev, "document": document})
                  for name, document in snapshot.documents.items()]
        return b"".join(parts)

    async def _follow(self, response: web.StreamResponse, client: _Client) -> None:
        while not client.cut:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await client.ready.wait()
            except TimeoutError:
                await self._write(response, b": heartbeat\n\n")
                continue
            client.ready.clear()
            chunk = b"".join(client.waiting)
            client.waiting.clear()
            if chunk:
                await self._write(response, chunk)
        await self._write(response, _message("cut", {"reason": client.cut}), limit_s=1.0)

    @staticmethod
    async def _write(response: web.StreamResponse, chunk: bytes, limit_s: float = WRITE_S) -> None:
        """Write, or give up on a client that takes nothing for ``limit_s``."""
        async with asyncio.timeout(limit_s):
            await response.write(chunk)
