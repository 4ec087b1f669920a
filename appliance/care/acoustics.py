"""Echo, as people meet it: filters by command, the path measured and remembered, trouble told.

The measured path outlives a restart in the store; a measurement that differs from the last one is told.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from appliance.care.diagnostics import Diagnostics
from appliance.care.restarts import Marks
from appliance.errors import Refused, StoreError
from appliance.intake import Handler
from appliance.media.acoustics import Override
from appliance.media.canceller import NoiseSuppression
from appliance.media.chirp import AcousticPath
from appliance.media.echo import Duplex, DuplexWanted
from appliance.media.studio import Studio
from appliance.vocabulary import Command, Json

__all__ = ["AcousticsCare"]

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
TALK_S: Final = 30.0  # a talk key held by command, and not again: who held it may be gone
REMEMBERED: Final = "audio.echoPath"
DELAY_CHANGED_MS: Final = 5.0  # 1.7 m of air: no door or visitor makes that much
LOSS_CHANGED_DB: Final = 10.0  # a covered microphone, a torn membrane
_NO_KEY: Final = {Duplex.FULL: "the microphone is open all the time",
                  Duplex.HALF: "the louder side is heard, with no key to hold"}


class AcousticsCare:
    """``marks`` keeps the measured path; ``idle`` says that nobody calls. ``run`` serves until cancelled."""

    def __init__(self, studio: Studio, marks: Marks, diagnostics: Diagnostics, *, idle: Callable[[], bool]) -> None:
        self._studio = studio
        self._acoustics = studio.acoustics
        self._marks = marks
        self._diagnostics = diagnostics
        self._idle = idle
        self._letting_go: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        try:
            self._acoustics.know(_path_of(await self._marks.get(REMEMBERED)))
        except StoreError as error:
            log.warning("the measured echo path is not known: %s", error.message)
        try:
            while True:
                await self._acoustics.settle()
                self._diagnostics.flag("echoHigh", self._acoustics.voice.defeated, cause="room",
                                       duplex=self._acoustics.voice.duplex.value)
                await asyncio.sleep(LOOK_S)
        finally:
            self._let_go()

    def handlers(self) -> Mapping[str, Handler]:
        return {"audio.filters": self._filters, "audio.calibrate": self._calibrate,
                "audio.talk": self._talk, "audio.listen": self._listen}

    async def _filters(self, command: Command) -> Json:
        args = command.args
        ns, duplex = args.get("ns"), args.get("halfDuplex")
        await self._acoustics.override(Override(
            args.get("aec"), None if ns is None else NoiseSuppression(ns), args.get("agc"), args.get("highpass"),
            None if duplex is None else DuplexWanted(duplex)))
        await self._acoustics.in_force()
        return {"processing": self._acoustics.facts()}

    async def _calibrate(self, _: Command) -> Json:
        if not self._idle():
            raise Refused("the echo path is measured between calls, not in one", sub_code="inCall")
        if not self._studio.sounding:
            raise Refused("there is no sound device to measure with", code=503, sub_code="noSound")
        if lacking := self._studio.lacks_for_measuring():
            raise Refused(f"the echo path cannot be measured: {lacking}", code=409, sub_code="noSound")
        before = self._acoustics.path
        found = await self._acoustics.calibrate()
        self._diagnostics.flag("speakerPathBroken", found is None, cause="chirp")
        moved = before is not None and found is not None and _differ(before, found)
        self._diagnostics.flag("echoDelayChanged", moved, cause="chirp")
        await self._marks.set(REMEMBERED, "" if found is None else json.dumps(found.document()))
        return {"echoPath": None if found is None else found.document()}

    async def _talk(self, _: Command) -> None:
        duplex = self._acoustics.voice.duplex
        if duplex is not Duplex.PUSH_TO_TALK:
            raise Refused(f"push to talk is not in force, {_NO_KEY[duplex]}; to talk by a key, give audio.filters with "
                          f"halfDuplex {DuplexWanted.PUSH_TO_TALK.value} first, or set audio.half_duplex",
                          sub_code="notPushToTalk", retryable=False)
        self._let_go()
        self._studio.talk(True)
        self._letting_go = asyncio.get_running_loop().call_later(TALK_S, self._let_go)

    async def _listen(self, _: Command) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None
            self._studio.talk(False)


def _differ(one: AcousticPath, other: AcousticPath) -> bool:
    return (abs(one.delay_ms - other.delay_ms) > DELAY_CHANGED_MS
            or abs(one.loss_db - other.loss_db) > LOSS_CHANGED_DB)


def _path_of(text: str | None) -> AcousticPath | None:
    """What was kept; None for nothing, or what another version kept."""
    try:
        kept = json.loads(text) if text else None
        return None if kept is None else AcousticPath(
            kept["delayMs"], kept["echoReturnLoss"], kept["peak"], kept["clipped"])
    except (ValueError, KeyError, TypeError):
        return None
