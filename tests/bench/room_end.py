"""People of a room for the bench of watching, in a process of their own: those who send, or the one who watches.

    python -m tests.bench.room_end senders URL ROOM COUNT
    python -m tests.bench.room_end watcher URL ROOM

Senders pass 640x360 at 15 pictures a second through (a clip, 0.3 Mbit/s), no sound. The watcher is the engine with the
screen of a real board (SDL) on the desktop of DISPLAY. Commands and answers are JSON lines; the process ends with its
standard input.

    {"do": "show", "count": n}      so many pictures from now on, in a grid
    {"do": "numbers"}               totals so far: processes, decoded pictures, seconds of decoding and drawing
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

import psutil

from appliance.calls.stage import Stage
from appliance.media.api import IceServers
from appliance.media.layout import Face, Layout
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.janus.provider import JanusProvider
from appliance.providers.janus.token import Token
from appliance.settings import JanusSettings, VideoSettings
from hw.api import EncodedFrame, VideoMode
from hw.faults import FaultLine
from hw.pi.display import DisplayConfig, open_display
from tests.bench.bench_send_path import ClipCamera, clip
from tests.support.media_board import HandBoard
from tests.support.room_device import Known

SIZE: Final = (640, 360)
FPS: Final = 15
TURN_S: Final = 30.0
OPEN_S: Final = 20.0


class Slow(ClipCamera):
    """At 15 pictures a second; goes on with the next key frame when one is asked for."""

    def __init__(self, units: list[tuple[bytes, bool]]) -> None:
        super().__init__(units)
        self._wanted = False

    def request_keyframe(self) -> None:
        self._wanted = True

    def _run(self, sink: Callable[[EncodedFrame], None]) -> None:
        due, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / FPS
            if self._wanted:
                self._wanted = False
                while not self._units[number % len(self._units)][1]:
                    number += 1
            data, key = self._units[number % len(self._units)]
            number += 1
            sink(EncodedFrame(data, time.monotonic_ns() // 1000, key))

    @property
    def mode(self) -> VideoMode | None:
        return VideoMode(*SIZE, FPS, 300_000) if self._thread is not None else None


async def enter(stack: AsyncExitStack, board: HandBoard, url: str, room: str, name: str) -> tuple[Studio, api.Leg]:
    """In the room, with nothing received yet."""
    studio = Studio(board, VideoSettings(*SIZE, FPS, 300_000))
    await studio.open()
    stack.push_async_callback(studio.close)
    settings = JanusSettings(url=url)
    token = Token(settings.token, Known(), kept=None, flag=lambda *_, **__: None)
    provider = JanusProvider(settings, studio, token, ice=IceServers(), refused=lambda why, sender: None)
    stack.push_async_callback(provider.stop)
    leg = await provider.dial(api.Target("room", room), call_id=name, caller=api.Peer(name, f"device:{name}", name),
                              media=api.MediaWanted(view={}))
    return studio, leg


async def up(leg: api.Leg) -> None:
    async with asyncio.timeout(TURN_S):
        async for event in leg.events():
            if isinstance(event, api.Ended):
                raise RuntimeError(f"a sender was not let in: {event.reason.message}")  # noqa: TRY004 - no matter of type
            if isinstance(event, api.Connected):
                return


async def send(url: str, room: str, count: int) -> None:
    async with AsyncExitStack() as stack:
        units = clip(8, width=SIZE[0], height=SIZE[1])
        for number in range(count):
            board = HandBoard(audio=False)
            board.camera = Slow(units)  # type: ignore[assignment]
            board.display = None  # type: ignore[assignment]
            _, leg = await enter(stack, board, url, room, f"p{number}")
            await up(leg)
        print(json.dumps({"ready": count}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


class Watcher:
    """The engine and its screen."""

    def __init__(self, studio: Studio, leg: api.Leg) -> None:
        self._leg = leg
        self._stage = Stage(studio, Layout.GRID)
        self._stage.limit(9)
        self._stage.choose(Layout.NONE, None, in_call=False)
        self._stage.on_view = self._look
        self._receiving = 0
        self._changed = asyncio.Event()
        self._looking: set[asyncio.Task[None]] = set()

    def _look(self) -> None:
        wanted = replace(api.MediaWanted(), view=self._stage.view)
        task = asyncio.create_task(self._leg.set_media(wanted))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def read(self) -> None:
        async for event in self._leg.events():
            if isinstance(event, api.Members):
                self._receiving = sum(one.receiving for one in event.members)
                self._changed.set()
                self._stage.cast([Face(one.id, one.display_name, video=one.video) for one in event.members])

    async def show(self, count: int) -> None:
        self._stage.limit(max(1, count))
        self._stage.choose(Layout.GRID if count else Layout.NONE, None, in_call=False)
        async with asyncio.timeout(TURN_S):
            while self._receiving != count:
                self._changed.clear()
                await self._changed.wait()

    async def numbers(self, drawn_s: float) -> dict[str, Any]:
        rows = [one for one in await self._leg.stats() if one["type"] == "inbound-rtp" and one["kind"] == "video"]
        me = psutil.Process()
        return {"pids": [me.pid, *(child.pid for child in me.children(recursive=True))],
                "decoded": sum(one["framesDecoded"] for one in rows),
                "decodeS": sum(one["totalDecodeTime"] for one in rows), "drawS": drawn_s}


async def watch(url: str, room: str) -> None:
    faults = FaultLine()
    display = open_display(DisplayConfig(use="required", driver="x11"), faults, lambda button, down: None)
    if display is None:
        raise RuntimeError("there is no desktop to draw on")
    pause, begun = threading.Event(), time.monotonic()
    while not display.devices()[0].present:
        if time.monotonic() - begun > OPEN_S:
            raise RuntimeError(f"the screen does not open: {display.devices()[0].note}")
        await asyncio.to_thread(pause.wait, 0.05)
    board = HandBoard(audio=False, camera=False)
    board.display = display  # type: ignore[assignment]
    try:
        async with AsyncExitStack() as stack:
            studio, leg = await enter(stack, board, url, room, "watcher")
            watcher = Watcher(studio, leg)
            reading = asyncio.create_task(watcher.read())
            print(json.dumps({"ready": True}), flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                command = json.loads(line)
                if command["do"] == "show":
                    await watcher.show(command["count"])
                    print(json.dumps({"shown": command["count"]}), flush=True)
                else:
                    print(json.dumps(await watcher.numbers(display.drawn_s)), flush=True)
            reading.cancel()
    finally:
        display.close()
        faults.close()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=("senders", "watcher"))
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("count", type=int, nargs="?", default=9)
    arguments = parser.parse_args(words)
    if arguments.what == "senders":
        asyncio.run(send(arguments.url, arguments.room, arguments.count))
    else:
        asyncio.run(watch(arguments.url, arguments.room))


if __name__ == "__main__":
    main()
