"""A telephone call in which keys are pressed once it is answered: an extension, a menu, the way into a meeting.

A ``meeting`` counts as answered when it has been entered: what answers is a machine. Until then its announcements are
heard as early media. Where it hangs up after the keys, or says once more what it said before them, its number or
passcode was not taken: that is tried once more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol

from appliance.errors import EdgecallError, Refused
from appliance.providers import api
from appliance.providers.endings import reason_of
from appliance.providers.facts import Facts
from appliance.providers.sip.announcement import Recording, is_repeated
from appliance.providers.sip.keying import PROMPT_S, Ears, Pause, Prompt, Step, turns_of
from appliance.providers.two import CallOfTwo
from appliance.tasks import background, fail_loudly
from appliance.vocabulary import END_REASONS, Json, KeyMethod, Reason

__all__ = ["DialIn"]

log = logging.getLogger(__name__)

KEY_S: Final = 0.1  # what exchanges of every country understand
FIRST_S: Final = 1.0  # after the answer: machines do not listen at once
LISTEN_S: Final = 0.05  # between two looks at what is heard
ENTERED_S: Final = 6.0  # in which a service that does not take the number begins to say so, or hangs up
WATCHED_S: Final = 12.0  # and at most so long until it has said that
TRIES: Final = 2


class Telephone(api.Leg, Protocol):
    """A call whose sound can be listened to."""

    @property
    def heard_energy(self) -> float:
        """Of all that was heard of the other side so far (W3C totalAudioEnergy)."""


class DialIn(CallOfTwo):
    """A Leg (``providers.api``) around the calls that ``call`` makes; the last one is that of this leg."""

    def __init__(self, leg_id: str, call: Callable[[], Telephone], steps: Sequence[Step], *, meeting: bool) -> None:
        self._id = leg_id
        self._dial = call
        self._steps = steps
        self._meeting = meeting
        self._facts = Facts()
        self._ending = False
        self._tries = 1
        self._entered = not meeting
        self._answer: api.Accepted | None = None  # that of the machine
        self._keys: asyncio.Task[None] | None = None
        self._failed: Reason | None = None  # keys cannot be pressed, or were not taken
        self._recording = Recording()
        self._call = call()
        self._reader = background(self._follow(), name=f"sip.dialin.{leg_id[:12]}", failed=self._defect)

    # --- Leg --------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def peer(self) -> api.Peer:
        return self._call.peer

    def events(self) -> AsyncIterator[api.LegEvent]:
        return self._facts.read()

    async def ring(self) -> None:
        """Of calls that come in."""

    async def accept(self, media: api.MediaWanted) -> None:
        """Of calls that come in."""

    async def end(self, reason: Reason) -> None:
        self._ending = True
        await self._stop_keys()
        await self._call.end(reason)

    async def set_media(self, media: api.MediaWanted) -> None:
        await self._call.set_media(media)

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        await self._call.tell(muted=muted, held=held, video=video)

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        await self._call.send(channel, payload, to=to, lossy=lossy, urgent=urgent)

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        await self._call.press(digits, seconds, method)

    async def transfer(self, target: api.Target, *, attended: bool) -> None:
        await self._call.transfer(target, attended=attended)

    async def stats(self) -> Sequence[Json]:
        return await self._call.stats()

    async def replaced(self) -> Sequence[Sequence[Json]]:
        return await self._call.replaced()

    # --- the call ---------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            reason = await self._one(self._call)
            await self._stop_keys()
            if self._turned_away(reason):
                if self._tries < TRIES:
                    log.info("the meeting's service hung up on what was pressed; it is tried once more")
                    self._tries += 1
                    self._answer = None
                    try:
                        self._call = self._dial()
                    except EdgecallError as error:
                        reason = reason_of(error)
                    else:
                        continue
                else:
                    reason = END_REASONS["403/wrongMeetingId"]
            self._facts.put(api.Ended(self._failed or reason))
            return

    def _turned_away(self, reason: Reason) -> bool:
        hung_up = reason.code == 0 and reason.sub_code == "remote" and self._failed is None
        return hung_up and self._answer is not None and not self._entered and not self._ending

    async def _one(self, call: Telephone) -> Reason:
        """Until the call is over, and why."""
        why = END_REASONS["500/internal"]
        async for event in call.events():
            match event:
                case api.Ended(reason):
                    why = reason
                case api.Accepted() if not self._entered:
                    self._answer = event
                    self._facts.put(api.EarlyMedia())
                case api.Connected():
                    if self._entered:
                        self._facts.put(event)
                    if self._keys is None:
                        self._keys = background(self._press_all(call, event), name=f"sip.keys.{self._id[:12]}",
                                                failed=self._defect)
                case api.Ringing() | api.EarlyMedia() if self._tries > 1:
                    pass  # what was told of the first try holds
                case _ if self._entered or isinstance(event, api.Ringing | api.EarlyMedia):
                    self._facts.put(event)
                case _:
                    log.debug("nothing to tell of %s before the meeting is entered", type(event).__name__)
        return why

    async def _press_all(self, call: Telephone, connected: api.Connected) -> None:
        """Every step, and then the meeting is entered, unless it ends the call soon."""
        try:
            if self._steps and self._steps[0] is not Prompt.OVER:  # which listens from the first sound on
                await self._listen(call, FIRST_S)
            taken = await self._do_all(call)
        except Refused as error:
            self._failed = reason_of(error)
            log.warning("keys cannot be pressed after the answer: %s", error.message)
            await call.end(self._failed)
            return
        if not taken:
            self._failed = END_REASONS["403/wrongMeetingId"]
            await call.end(self._failed)
        elif not self._entered and self._answer is not None:
            self._entered = True
            self._facts.put(self._answer)
            self._facts.put(connected)

    async def _do_all(self, call: Telephone) -> bool:
        """Whether all that was pressed was taken, as far as it can be heard: keys that are asked for again are pressed
        once more."""
        turns = turns_of(self._steps)
        asked: dict[int, Sequence[float]] = {}  # what was said before the keys of a turn
        number = 0
        self._recording = Recording()
        while True:
            keys = turns[number].keys
            for wait in turns[number].waits:
                await self._wait(call, wait)
            again = None
            if not self._entered:
                again = await self._asked_again(asked) if keys or not asked else await self._watch(call, asked)
            said, self._recording = self._recording, Recording()
            if again is None:
                asked[number] = said.levels()
            elif self._tries >= TRIES:
                return False
            else:
                log.info("the meeting's service asks again for what was pressed; it is tried once more")
                self._tries += 1
                number, keys = again, turns[again].keys
            if not keys:
                return True
            await call.press(keys, KEY_S)
            number += 1

    async def _wait(self, call: Telephone, wait: Pause | Prompt) -> None:
        match wait:
            case Pause(seconds):
                await self._listen(call, seconds)
            case Prompt.OVER:
                if not await self._listen(call, PROMPT_S, Ears()):
                    log.info("no announcement was heard to its end in %.0f s; keys are pressed all the same", PROMPT_S)

    async def _watch(self, call: Telephone, asked: Mapping[int, Sequence[float]]) -> int | None:
        """What comes of the last keys: the turn whose keys are wanted once more; None where the meeting is entered."""
        loop = asyncio.get_running_loop()
        ears, began = Ears(), loop.time()
        while (passed := loop.time() - began) < WATCHED_S:
            until = ENTERED_S if passed < ENTERED_S else WATCHED_S
            if await self._listen(call, until - passed, ears):
                again = await self._asked_again(asked)
                if again is not None:
                    return again
            if loop.time() - began >= ENTERED_S and ears.hears_nothing:
                break
        return None

    async def _asked_again(self, asked: Mapping[int, Sequence[float]]) -> int | None:
        """The turn before which the same was said as just now."""
        said = self._recording.levels()
        for number, before in asked.items():
            if await asyncio.to_thread(is_repeated, before, said):
                return number
        return None

    async def _listen(self, call: Telephone, seconds: float, ears: Ears | None = None) -> bool:
        """For so long, or until ``ears`` say that an announcement is over; returns whether that is so."""
        loop = asyncio.get_running_loop()
        at, energy = loop.time(), call.heard_energy
        end = at + seconds
        self._recording.hear(at, energy)
        while at < end:
            await asyncio.sleep(min(LISTEN_S, end - at))
            before, since = energy, at
            at, energy = loop.time(), call.heard_energy
            self._recording.hear(at, energy)
            passed = max(at - since, 1e-3)
            level = 10 * math.log10(max(energy - before, 0.0) / passed + 1e-12)
            if ears is not None and ears.hear(level, passed):
                return True
        return False

    async def _stop_keys(self) -> None:
        keys, self._keys = self._keys, None
        if keys is not None and keys is not asyncio.current_task():
            keys.cancel()
            await asyncio.gather(keys, return_exceptions=True)

    def _defect(self, error: Exception) -> None:
        log.error("keys after the answer failed; this is a defect", exc_info=error)
        self._failed = END_REASONS["500/internal"]
        self._facts.put(api.Ended(self._failed))
        background(self._call.end(self._failed), name=f"sip.dialin.end.{self._id[:12]}", failed=fail_loudly)
