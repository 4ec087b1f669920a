"""Calls that are handed on: by us, and by the other side to us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.calls.active import TELEPHONES, ActiveCall
from appliance.calls.book import Round
from appliance.calls.machine import Signal
from appliance.errors import EdgecallError, Refused
from appliance.providers.api import Target
from appliance.vocabulary import END_REASONS, CallState

if TYPE_CHECKING:
    from appliance.calls.controller import CallController

__all__ = ["hand_on"]


async def hand_on(controller: CallController, active: ActiveCall, plan: Sequence[Round], *, attended: bool) -> None:
    """Hand the other side on to the first telephone of the plan; then the call is over here. Raises Refused where it
    comes to nothing, and the call goes on."""
    leg = active.leg
    if leg is None:
        raise Refused("nobody has answered yet", sub_code="callState")
    controller.check_callable(plan)
    target = _telephone(plan)
    controller.happen(active, Signal.TRANSFER)
    try:
        await leg.transfer(target, attended=attended)
    except EdgecallError:
        if active.call.state is CallState.TRANSFERRING:
            controller.happen(active, Signal.TRANSFER_FAILED)
        raise
    if active.call.live:
        controller.happen(active, Signal.HANG_UP, END_REASONS["0/transferred"])


def _telephone(plan: Sequence[Round]) -> Target:
    for one in plan:
        for target in one.targets:
            if target.scheme in TELEPHONES:
                return target
    raise Refused("a call can be handed on to a telephone only: tel:, sip: or sips:", code=404, sub_code="notFound",
                  retryable=False)
