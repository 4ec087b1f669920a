"""The verbs of what is shown here, layouts and the pictures of participants, and of what is shown to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from appliance.calls.attendance import Attendance
from appliance.calls.controller import CallController
from appliance.errors import BadRequest, Refused
from appliance.intake import Handler
from appliance.media.api import Studio
from appliance.media.layout import PEER, Layout, Quality
from appliance.vocabulary import END_REASONS, CallKind, Command, Json
from hw.api import DeviceDeniedError, DeviceFormatError, DeviceMissingError, Fit

__all__ = ["PictureCommands"]

DEVICE: Final = "device:"
"""Before the id of a capture device; anything else is the name of a file."""


class PictureCommands:
    """Handlers by verb; the stage decides what comes of layouts. ``folder``: of the files that may be shown."""

    def __init__(self, controller: CallController, studio: Studio, folder: Callable[[], Path]) -> None:
        self._controller = controller
        self._studio = studio
        self._folder = folder
        studio.on_content_lost = self._content_lost

    def handlers(self) -> Mapping[str, Handler]:
        """What ``__main__`` gives to the intake."""
        return {"video.layout": self._layout, "video.subscribe": self._subscribe,
                "preview.start": self._preview_start, "preview.stop": self._preview_stop,
                "content.start": self._content_start, "content.stop": self._content_stop}

    async def _layout(self, command: Command) -> Json:
        self._need_screen()
        layout, fit = command.args.get("layout"), command.args.get("fit")
        self._controller.stage.choose(
            None if layout is None else Layout(layout), None if fit is None else Fit(fit),
            in_call=not self._controller.idle)
        return {"layout": self._controller.stage.document()}

    async def _subscribe(self, command: Command) -> None:
        self._need_screen()
        active, who = self._controller.current(), command.args["participantId"]
        Attendance.find(active, who)
        asked = command.args["quality"]
        feed = who if active.call.kind is CallKind.ROOM else PEER.feed
        self._controller.stage.ask(feed, None if asked == "auto" else Quality[asked.upper()])

    async def _preview_start(self, _: Command) -> None:
        await self._controller.preview.start()

    async def _preview_stop(self, _: Command) -> None:
        self._controller.preview.stop()

    async def _content_start(self, command: Command) -> None:
        active = self._controller.current(command.args.get("callId"))
        self._controller.require(active, "shareScreen")
        source: str = command.args["source"]
        if source.startswith(DEVICE):
            opening = self._studio.share(source.removeprefix(DEVICE), device=True)
        else:
            opening = self._open(await asyncio.to_thread(self._file, source))
        if active.content:  # who sends it has to begin anew; the studio closes what it opens another in place of
            self._controller.show_content(active, on=False, closing=False)
        await opening
        if active.call.live:
            self._controller.show_content(active, on=True)
        else:  # it has ended meanwhile
            await self._studio.unshare()

    async def _open(self, path: Path) -> None:
        """What is wrong with the file is no fault of a device."""
        try:
            await self._studio.share(str(path))
        except DeviceMissingError as error:
            raise _no_file(path) from error
        except (DeviceFormatError, DeviceDeniedError) as error:
            raise BadRequest(f"{path.name!r} cannot be shown: {error}; put a picture (PNG, JPEG) or a video in its "
                             "place that opens elsewhere and that the appliance may read", sub_code="source") from error

    async def _content_stop(self, command: Command) -> None:
        active = self._controller.current(command.args.get("callId"))
        self._controller.show_content(active, on=False)

    def _content_lost(self, why: str) -> None:
        """Of the device or file itself, while it is shown."""
        if not self._controller.idle:
            reason = replace(END_REASONS["410/deviceFault.media"], message=f"What was shown has ended: {why}.",
                             advice="Plug it in again, or show another.")
            self._controller.content_ended(self._controller.current(), reason)

    def _file(self, name: str) -> Path:
        """Only of the one folder: who may give this verb may not look around on the device. Blocking."""
        folder = self._folder()
        if Path(name).name != name or name.startswith("."):
            raise BadRequest(f"{name!r} is no name of a file; put the file into {folder} and give its name alone",
                             sub_code="source")
        path = folder / name
        if not path.is_file():
            raise _no_file(path)
        return path

    def _need_screen(self) -> None:
        if not self._studio.shows:
            raise Refused("this board has no screen, and receives no pictures", code=501,
                          sub_code="FeatureNotSupported", retryable=False)


def _no_file(path: Path) -> BadRequest:
    return BadRequest(f"there is no file {path.name!r} in {path.parent}; put it there", code=404, sub_code="notFound")
