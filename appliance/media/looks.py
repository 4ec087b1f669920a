"""Looks at the camera itself: its small raw pictures for all who want them, and one at a time as JPEG.

Nothing is decoded for it. Of a camera that makes H.264 by itself there are none: who looks decodes what it sends, or
takes a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from appliance.handover import Inbox
from appliance.media.stills import jpeg_of
from hw.api import Camera, EncoderKind, Picture

__all__ = ["LARGE", "SMALL", "Glimpses", "Looks"]

SMALL: Final = 320  # pixels of the longer side: an inset of the screen
LARGE: Final = 640  # for who looks at oneself alone

_ENCODED: Final = (EncoderKind.CAMERA, EncoderKind.RECORDED)

FRESH_S: Final = 0.2  # a picture no older is the newest
NEXT_S: Final = 1.0  # until the next; a camera that runs gives fifteen
LINGER_S: Final = 2.0  # after the last glimpse nobody looks any more


class Looks:
    """The small raw pictures of one camera, for all who look; they come while it is open. Everything on the loop."""

    def __init__(self, camera: Camera, loop: asyncio.AbstractEventLoop) -> None:
        self._camera = camera
        self._loop = loop
        self._lookers: dict[object, tuple[Callable[[Picture], None], int]] = {}
        self._inbox: Inbox[Picture] | None = None
        self._side = 0

    @property
    def raw(self) -> bool:
        """Whether the camera has raw pictures to give."""
        return self._camera.encoder not in _ENCODED

    def begin(self, owner: object, on_picture: Callable[[Picture], None], side: int = SMALL) -> None:
        """``owner`` is given the newest picture whenever the loop has time for it, its longer side of ``side`` pixels,
        or more where somebody else wants that. Called again it changes both."""
        self._lookers[owner] = on_picture, side
        self._ask()

    def end(self, owner: object) -> None:
        if self._lookers.pop(owner, None) is not None:
            self._ask()

    def _ask(self) -> None:
        side = max((side for _, side in self._lookers.values()), default=0)
        if side == self._side:
            return
        self._side = side
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None
        if not side:
            self._camera.preview(None)
            return
        self._inbox = Inbox(self._loop, 1, "preview", deliver=self._deliver)
        self._camera.preview(self._inbox.put, side)

    def _deliver(self, picture: Picture) -> None:
        for on_picture, _ in list(self._lookers.values()):
            on_picture(picture)


class Glimpses:
    """One small picture at a time as JPEG, for who asks some times a second while the camera is open. Everything on the
    loop."""

    def __init__(self, looks: Looks, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._looks = looks
        self._loop = loop
        self._executor = executor
        self._newest: tuple[float, Picture] | None = None
        self._come = asyncio.Event()
        self._end: asyncio.TimerHandle | None = None

    async def take(self) -> bytes | None:
        """The newest; None: none comes."""
        if not self._looks.raw:
            return None
        if self._end is None:
            self._looks.begin(self, self._on_picture, LARGE)
        else:
            self._end.cancel()
        self._end = self._loop.call_later(LINGER_S, self.close)
        if self._newest is None or self._loop.time() - self._newest[0] > FRESH_S:
            self._come.clear()
            try:
                await asyncio.wait_for(self._come.wait(), NEXT_S)
            except TimeoutError:
                return None
        if self._newest is None:  # closed meanwhile
            return None
        return await self._loop.run_in_executor(self._executor, jpeg_of, self._newest[1])

    def close(self) -> None:
        """Look no longer."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self._newest = None
            self._come.set()
            self._looks.end(self)

    def _on_picture(self, picture: Picture) -> None:
        self._newest = self._loop.time(), picture
        self._come.set()
