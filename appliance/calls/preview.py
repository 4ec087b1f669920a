"""A look at oneself on the device's own screen, while nobody is called: for who puts the camera up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from appliance.calls.stage import Stage
from appliance.errors import Refused
from appliance.media.api import Studio, Tone

__all__ = ["LONGEST_S", "Preview"]

LONGEST_S: Final = 120.0  # one that was forgotten shows whoever passes by


class Preview:
    """Lives on the loop. ``idle``: whether there is no call; who begins one calls ``stop``."""

    def __init__(self, studio: Studio, stage: Stage, idle: Callable[[], bool]) -> None:
        self._studio = studio
        self._stage = stage
        self._idle = idle
        self._end: asyncio.TimerHandle | None = None

    @property
    def on(self) -> bool:
        return self._end is not None

    async def start(self) -> None:
        """Show it, from now on for LONGEST_S; nothing is sent. Raises Refused, and DeviceMissingError where the camera
        does not open."""
        if not self._idle():
            raise Refused("a call is in progress; in a call the layout pip shows what is sent", sub_code="inCall")
        if not self._studio.shows:
            raise Refused("this board has no screen; take a snapshot instead", code=501, sub_code="FeatureNotSupported",
                          retryable=False)
        begins = not self.on
        self._forget()
        self._end = asyncio.get_running_loop().call_later(LONGEST_S, self.stop)
        try:
            await self._studio.look()
        except BaseException:
            self.stop()
            raise
        if not self.on:  # stopped meanwhile
            return
        self._stage.preview(True)
        if begins:
            self._studio.play(Tone.CAMERA)  # whoever stands there learns that the camera sees now

    def stop(self) -> None:
        """Show it no longer. May be called at any time."""
        if self.on:
            self._forget()
            self._stage.preview(False)
            self._studio.look_away()

    def _forget(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
