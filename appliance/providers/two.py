"""What a call between two has not: others in it."""

from __future__ import annotations

from appliance.errors import Refused

__all__ = ["CallOfTwo"]


class CallOfTwo:
    """Part of a Leg (``providers.api``)."""

    @property
    def moderates(self) -> bool:
        return False

    async def end_for_all(self) -> None:
        """It ends for the other one with ours."""

    @property
    def records(self) -> bool:
        return False

    async def record(self, *, on: bool) -> None:
        raise Refused("in a call of two nobody is asked to record", code=501, sub_code="FeatureNotSupported",
                      retryable=False)

    async def remove(self, participant: str) -> None:
        raise Refused("only in rooms is anybody removed; call.hangup ends a call of two", code=501,
                      sub_code="FeatureNotSupported", retryable=False)

    async def mute_others(self, participant: str | None = None) -> None:
        raise Refused("only in rooms is anybody muted by others; call.muteIncoming silences the loudspeaker", code=501,
                      sub_code="FeatureNotSupported", retryable=False)
