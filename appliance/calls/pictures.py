"""The verbs of what is shown: layouts, and how the picture of one participant is received."""

from __future__ import annotations

from collections.abc import Mapping

from appliance.calls.controller import CallController
from appliance.errors import BadRequest, Refused
from appliance.intake import Handler
from appliance.media.api import Studio
from appliance.media.layout import PEER, Layout, Quality
from appliance.vocabulary import CallKind, Command, Json
from hw.api import Fit

__all__ = ["PictureCommands"]


class PictureCommands:
    """Handlers by verb; the stage decides what comes of them."""

    def __init__(self, controller: CallController, studio: Studio) -> None:
        self._controller = controller
        self._studio = studio

    def handlers(self) -> Mapping[str, Handler]:
        """What ``__main__`` gives to the intake."""
        return {"video.layout": self._layout, "video.subscribe": self._subscribe}

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
        if who not in active.roster:
            raise BadRequest(f"nobody in the call has the id {who!r}; state/roster has those there are", code=404,
                             sub_code="notFound")
        asked = command.args["quality"]
        feed = who if active.call.kind is CallKind.ROOM else PEER.feed
        self._controller.stage.ask(feed, None if asked == "auto" else Quality[asked.upper()])

    def _need_screen(self) -> None:
        if not self._studio.shows:
            raise Refused("this board has no screen, and receives no pictures", code=501,
                          sub_code="FeatureNotSupported", retryable=False)
