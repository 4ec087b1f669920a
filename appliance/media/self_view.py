"""The view of oneself: what the camera's encoder makes, decoded again, so that it is what the others get."""

from __future__ import annotations

import asyncio
from typing import Final

from appliance.media.api import AccessUnit
from appliance.media.camera import CameraFeed
from appliance.media.layout import SELF
from appliance.media.screen import Screen
from appliance.media.video_in import VideoIn
from hw.api import EncodedFrame, Picture

__all__ = ["SelfView"]

_TIMESTAMPS: Final = 1 << 32  # of RTP


class SelfView:
    """On the screen while it is wanted and the camera is open; it opens no camera by itself."""

    def __init__(self, camera: CameraFeed, screen: Screen, loop: asyncio.AbstractEventLoop) -> None:
        self._camera = camera
        self._screen = screen
        self._shown = False
        self._video = VideoIn("self view", loop, on_picture=self._on_picture, on_lost=camera.want_keyframe,
                              on_asked=camera.want_keyframe)
        self._video.show(False)

    def show(self, shown: bool) -> None:
        if shown == self._shown:
            return
        self._shown = shown
        self._camera.watch(self._on_frame if shown else None)
        self._video.show(shown)
        if not shown:
            self._screen.picture(self, None)

    async def close(self) -> None:
        self.show(False)
        await self._video.close()

    def _on_frame(self, frame: EncodedFrame | None) -> None:
        if frame is None:  # the camera was closed
            self._video.on_new_source()
            self._screen.picture(self, None)
            return
        at = frame.pts_us / 1e6
        self._video.on_access_unit(AccessUnit(
            frame.data, frame.pts_us * 9 // 100 % _TIMESTAMPS, frame.keyframe, at, frame.delivered_us / 1e6))

    def _on_picture(self, picture: Picture) -> None:
        if self._shown and self._camera.mode is not None:
            self._screen.picture(self, picture, SELF)
