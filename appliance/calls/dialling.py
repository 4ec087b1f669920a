"""Dialling a plan: round after round of targets, the first answer wins, the last reason tells why nobody did."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.calls.active import TELEPHONES, ActiveCall
from appliance.calls.book import Round
from appliance.calls.terms import HouseRules, admit
from appliance.errors import EdgecallError, Refused
from appliance.providers.api import CallProvider, Leg, Peer, Target
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["Dialler", "reason_of"]

log = logging.getLogger(__name__)

HEARD: Final = ("487/noAnswer", "486/busy", "603/declined")
"""Reasons of calls that reached somebody: encryption has not kept them."""


def reason_of(error: EdgecallError) -> Reason:
    """The end reason an error stands for, with the error's own words."""
    known = END_REASONS.get(error.key)
    return Reason(error.code, error.sub_code, error.category, error.message, known.advice if known else "")


@dataclass(frozen=True, slots=True)
class Dialler:
    """Rings the rounds of a plan for one call.

    ``adopt`` makes a new leg one of the call's and starts reading its events; ``drop`` ends one with a reason.
    """

    providers: Mapping[str, CallProvider]  # by target scheme
    me: Peer
    adopt: Callable[[ActiveCall, Leg], None]
    drop: Callable[[Leg, Reason], None]
    rules: HouseRules
    wall: Callable[[], float]

    def check(self, plan: Sequence[Round]) -> None:
        """Raises Refused when no target of the plan can be dialled by this device (501/FeatureNotSupported), or the
        only one may not be called now (403/outsideSchedule)."""
        targets = [target for one in plan for target in one.targets]
        if not any(target.scheme in self.providers for target in targets):
            wanted = ", ".join(sorted({target.scheme for target in targets}))
            raise Refused(f"this device cannot call {wanted}: addresses; it can call "
                          f"{', '.join(sorted(self.providers))}: addresses",
                          code=501, sub_code="FeatureNotSupported", retryable=False)
        if len(targets) == 1:
            admit(self.rules, targets[0], self.wall())

    async def run(self, active: ActiveCall, plan: Sequence[Round]) -> Reason | None:
        """Ring round after round. None when a leg was accepted (or the call is being left), else why nobody was.

        An emergency call to telephones that came to nothing is tried once more, unencrypted: it may have been that.
        """
        reason = await self._ring(active, plan)
        if reason is not None and active.emergency and reason.key not in HEARD and (again := _plainly(plan)):
            log.warning("an emergency call failed with %s, and is tried without encryption", reason.key)
            reason = await self._ring(active, again)
        return reason

    async def _ring(self, active: ActiveCall, plan: Sequence[Round]) -> Reason | None:
        reason = END_REASONS["480/unreachable"]
        for one in plan:
            dialled = await self._dial_round(active, one)
            if not active.call.live:
                return None
            reason = active.last_leg_reason or reason
            if not dialled:
                continue
            ended = await self._wait(active, dialled, one.ring_s)
            if active.leg is not None or not active.call.live or active.call.reason is not None:
                return None
            reason = active.last_leg_reason or reason
            if not ended:
                reason = END_REASONS["487/noAnswer"]
                for leg in dialled:
                    if leg.id in active.legs:
                        self.drop(leg, reason)
        return reason

    async def _dial_round(self, active: ActiveCall, one: Round) -> list[Leg]:
        results = await asyncio.gather(*(self._dial(active, target) for target in one.targets), return_exceptions=True)
        legs = [result for result in results if not isinstance(result, BaseException)]
        for error in results:
            if isinstance(error, EdgecallError):
                active.last_leg_reason = reason_of(error)
            elif isinstance(error, BaseException):
                raise error
        return legs

    async def _dial(self, active: ActiveCall, target: Target) -> Leg:
        provider = self.providers.get(target.scheme)
        if provider is None:
            raise Refused(f"this device cannot call {target.scheme}: addresses", code=501,
                          sub_code="FeatureNotSupported", retryable=False)
        media = admit(self.rules, target, self.wall()).permit(active.media)
        caller = replace(self.me, display_name=target.shown_as) if target.shown_as else self.me
        leg = await provider.dial(target, call_id=active.id, caller=caller, media=media)
        if active.call.live and active.call.reason is None:
            self.adopt(active, leg)
        else:  # hung up while the provider was still reaching out
            self.drop(leg, active.call.reason or END_REASONS["487/cancelled"])
        return leg

    @staticmethod
    async def _wait(active: ActiveCall, dialled: Sequence[Leg], ring_s: float) -> bool:
        """Wait for an answer; True when every leg of the round has ended by itself, False when time ran out."""
        try:
            async with asyncio.timeout(ring_s):
                while active.leg is None and active.call.live and any(leg.id in active.legs for leg in dialled):
                    active.leg_changed.clear()
                    await active.leg_changed.wait()
        except TimeoutError:
            return False
        return True


def _plainly(plan: Sequence[Round]) -> list[Round]:
    """What of the plan is telephones, to be called unencrypted."""
    rounds = [replace(one, targets=tuple(
        replace(target, plain=True) for target in one.targets if target.scheme in TELEPHONES)) for one in plan]
    return [one for one in rounds if one.targets]
