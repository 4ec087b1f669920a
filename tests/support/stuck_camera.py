"""A call whose camera gets into trouble: what the daemon's loop notices of it."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Final

from appliance.__main__ import SWITCH_S
from appliance.media.api import Directions, IceServers
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from hw.api import Board, HardwareError, Tile
from tests.support.lag import Lag, loop_lag
from tests.support.media_board import HandBoard, HandDisplay
from tests.support.media_pair import connect, until

__all__ = ["BLOCKED_S", "lag_in_trouble"]

BLOCKED_S: Final = 0.2
"""The loop never stands still for longer, whatever a camera does."""

TROUBLED_S: Final = 5.0
"""Long enough for a stuck process to be found out, killed and begun again."""


class _Watcher(HandDisplay):
    """Counts pictures and keeps none: a minute of them takes 2.5 GB."""

    seen = 0

    def show(self, tiles: Sequence[Tile], banner: str = "", hint: str = "") -> None:
        self.seen += sum(tile.picture is not None for tile in tiles)


@contextmanager
def _as_the_daemon() -> Iterator[None]:
    """The interpreter is set as ``appliance.__main__`` sets it: that is part of how late its loop may be."""
    switch = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(switch)


async def lag_in_trouble(board: Board, trouble: Callable[[], None], end: Callable[[], None],
                         video: VideoSettings | None = None) -> Lag:
    """``board`` is in a call with pictures when ``trouble`` begins. All that the loop asks of a camera is asked while
    it lasts, and after ``end`` the peer must see pictures again.

    The peer has the same loop, so it does no more than decode: it has neither camera nor sound.
    """
    camera, far, watcher = board.camera, HandBoard(audio=False, camera=False), _Watcher()
    far.display = watcher
    assert camera is not None
    async with AsyncExitStack() as stack:
        sessions = []
        for one in (board, far):
            studio = Studio(one, video or VideoSettings())
            stack.push_async_callback(studio.close)
            await studio.open()
            sessions.append((studio, studio.session(Directions(), ice=IceServers(), loopback=True)))
        (studio, session), (_, peer) = sessions
        await connect(session, peer)

        async def seen(count: int, within_s: float, what: str) -> None:
            already = watcher.seen
            await until(lambda: watcher.seen >= already + count, within_s, what)

        await seen(10, 30.0, "pictures before the trouble")
        stack.enter_context(_as_the_daemon())
        async with loop_lag() as lag:
            await asyncio.to_thread(trouble)  # a driver takes its time to be pulled, and this is no hand of the daemon
            begun = time.monotonic()
            while time.monotonic() - begun < TROUBLED_S:
                camera.request_keyframe()
                camera.set_bitrate(500_000)
                studio.state()
                with suppress(HardwareError):
                    await studio.snapshot()
                await asyncio.sleep(0.1)
            await asyncio.to_thread(end)
            await seen(10, 60.0, "pictures after the trouble")
        return lag
