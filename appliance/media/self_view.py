"""The view of oneself: the camera's small raw pictures, or, of a camera that has none, what it sends, decoded again."""

from __future__ import annotations

import asyncio
from typing import Final

from appliance.media.api import AccessUnit
from appliance.media.camera import CameraFeed
from appliance.media.layout import SELF
from appliance.media.looks import LARGE, SMALL
from appliance.media.screen import Screen
from appliance.media.video_in import VideoIn
from hw.api import EncodedFrame, Picture

__all__ = ["SelfView"]

ENLARGED: Final = 1.5  # a small picture may be on the screen before a larger one is asked for
UNSHOWN: Final = 20  # frames on end without a raw picture: they are decoded, until one comes

_TIMESTAMPS: Final = 1 << 32  # of RTP


class SelfView:
    """On the screen while it is wanted and the camera is open; it opens no camera by itself."""

    def __init__(self, camera: CameraFeed, screen: Screen, loop: asyncio.AbstractEventLoop) -> None:
        self._camera = camera
        self._screen = screen
        self._width = 0
        self._unshown = 0  # frames since the last raw picture
        self._video = VideoIn("self view", loop, on_picture=self._on_decoded, on_lost=camera.want_keyframe,
                              on_asked=camera.want_keyframe)
        self._video.show(False)

    @property
    def decodes(self) -> bool:
        """Whether it decodes what is sent, because there is no raw picture."""
        return self._video.showing

    def show(self, width: int) -> None:
        """So many pixels wide; 0: not at all."""
        if width == self._width:
            return
        before, self._width = self._width, width
        if width:
            self._camera.looks.begin(self, self._on_raw, LARGE if width > SMALL * ENLARGED else SMALL)
        else:
            self._camera.looks.end(self)
            self._decode(False)
            self._screen.picture(self, None)
        if bool(before) != bool(width):
            self._unshown = 0
            self._camera.watch(self._on_frame if width else None)

    async def close(self) -> None:
        self.show(0)
        await self._video.close()

    def _on_frame(self, frame: EncodedFrame | None) -> None:
        if frame is None:  # the camera was closed
            self._unshown = 0
            self._video.on_new_source()
            self._screen.picture(self, None)
            return
        self._unshown += 1
        self._decode(not self._camera.looks.raw or self._unshown > UNSHOWN)
        if self.decodes:
            at = frame.pts_us / 1e6
            self._video.on_access_unit(AccessUnit(
                frame.data, frame.pts_us * 9 // 100 % _TIMESTAMPS, frame.keyframe, at, frame.delivered_us / 1e6))

    def _decode(self, wanted: bool) -> None:
        if self.decodes and not wanted:
            self._video.on_new_source()  # its decoder ends
        self._video.show(wanted)

    def _on_raw(self, picture: Picture) -> None:
        if self._camera.mode is not None:
            self._unshown = 0
            self._screen.picture(self, picture, SELF)

    def _on_decoded(self, picture: Picture) -> None:
        if self.decodes and self._camera.mode is not None:
            self._screen.picture(self, picture, SELF)
