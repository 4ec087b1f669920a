"""What an account gives its legs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from appliance.providers.sip.agent import Agent
from appliance.providers.sip.leg_media import MediaGround
from appliance.providers.sip.uri import Uri
from appliance.vocabulary import Json

if TYPE_CHECKING:
    from appliance.providers.sip.leg import SipLeg

__all__ = ["Ground"]


class Ground(MediaGround, Protocol):
    """``account.Account`` is one."""

    @property
    def agent(self) -> Agent: ...

    @property
    def signalling(self) -> Json:
        """How signalling is protected, for ``state/call``."""

    @property
    def legs(self) -> set[SipLeg]:
        """Those that are not over; who makes one puts it there."""

    def address(self, uri: str) -> Uri:
        """Where a target is called. Raises Refused."""

    @property
    def admit(self) -> Callable[[Uri], None]:
        """Count a call to an address. Raises Refused for one that may not be called."""

    def server_silent(self) -> None:
        """It takes no call of ours, or says no word to it: what comes next goes to another one, where there is one."""

    async def settled(self) -> bool:
        """Wait while it is on its way to another server; returns whether it can be called through."""

    def impostor(self, peer: str) -> None:
        """Sound came of somebody else than signalling announces."""

    def leg_over(self, leg: SipLeg) -> None: ...
