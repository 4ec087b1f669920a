"""What the camera sees, as a stream of JPEG for who puts the device up and has no screen there.

``multipart/x-mixed-replace`` (one part a picture), which a browser shows like a picture. It ends by itself, and as soon
as somebody is called or calls: then the camera is theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from appliance.bulletin import Bulletin
from appliance.doors.http.ports import Ports
from appliance.errors import Refused
from appliance.vocabulary import Json, calling
from hw.api import HardwareError

__all__ = ["LONGEST_S", "CameraStream"]

LONGEST_S: Final = 120.0  # one that was forgotten shows whoever passes by
PERIOD_S: Final = 0.2
VIEWERS: Final = 2
SLOW_S: Final = 5.0  # a picture that is not taken within this ends its stream
BOUNDARY: Final = "edgecall-picture"


class CameraStream:
    """All who look. Lives on the loop."""

    def __init__(self, ports: Ports, bulletin: Bulletin) -> None:
        self._ports = ports
        self._bulletin = bulletin
        self._ends: dict[asyncio.Event, str] = {}  # of each who looks, and the session

    def __len__(self) -> int:
        return len(self._ends)

    async def serve(self, request: web.Request, session: str) -> web.StreamResponse:
        """Until ``LONGEST_S`` are over, a call begins, or who looks is gone. Raises Refused, and as
        ``Ports.preview`` where there is no picture to begin with."""
        if calling(self._bulletin.document("call")):
            raise Refused("a call is in progress, and the camera is its own", sub_code="inCall")
        if len(self._ends) >= VIEWERS:
            raise Refused(f"{VIEWERS} look through the camera already.", code=503, sub_code="viewers")
        begins, end = not self._ends, asyncio.Event()
        self._ends[end] = session

        def called(name: str, document: Json, _rev: int) -> None:
            if name == "call" and calling(document):
                end.set()

        try:
            with self._bulletin.subscribed(on_document=called):
                return await self._serve(request, end, begins=begins)
        finally:
            del self._ends[end]

    async def _serve(self, request: web.Request, end: asyncio.Event, *, begins: bool) -> web.StreamResponse:
        first = await self._ports.preview()
        response = web.StreamResponse(headers={
            "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}", "Cache-Control": "no-store"})
        await response.prepare(request)
        if begins:
            self._ports.camera_tone()  # whoever stands there learns that the camera sees now
        with contextlib.suppress(TimeoutError, ConnectionError, HardwareError):
            async with asyncio.timeout(LONGEST_S):
                await self._show(request, response, first, end)
        return response

    async def _show(
        self, request: web.Request, response: web.StreamResponse, jpeg: bytes, end: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        while not end.is_set():
            due = loop.time() + PERIOD_S
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            slow = loop.call_later(SLOW_S, _hang_up, request)
            await response.write(head.encode() + jpeg + b"\r\n")
            slow.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await end.wait()
            if not end.is_set():
                jpeg = await self._ports.preview()
        await response.write(f"--{BOUNDARY}--\r\n".encode())

    def close(self, session: str | None = None) -> None:
        """End all, or those of one session."""
        for end, whose in self._ends.items():
            if session is None or whose == session:
                end.set()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
