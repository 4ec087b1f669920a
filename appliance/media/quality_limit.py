"""Why a picture is not what is wanted, and for how long (W3C webrtc-stats, RTCQualityLimitationReason). Pure."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Limit", "QualityLimit"]


class Limit(StrEnum):
    """The W3C's ``cpu`` is not among them: the encoder is the board's, and a slow camera is a fault of its own."""

    NONE = "none"
    BANDWIDTH = "bandwidth"
    OTHER = "other"  # another session's path: one encoder serves all


class QualityLimit:
    """One outgoing picture's account. The caller gives the time in seconds."""

    def __init__(self) -> None:
        self.reason = Limit.NONE
        self.resolution_changes = 0
        self._spent = dict.fromkeys(Limit, 0.0)
        self._since: float | None = None

    @property
    def limited(self) -> bool:
        return self.reason is not Limit.NONE

    def update(self, reason: Limit, now: float) -> None:
        """While the picture is sent: what holds from now on."""
        self._account(now)
        self.reason = reason

    def stop(self, now: float) -> None:
        """The picture is not sent any more; the account stands still."""
        self._account(now)
        self.reason, self._since = Limit.NONE, None

    def durations(self, now: float) -> dict[str, float]:
        """Seconds by reason, the one in force up to now; W3C wants all of its reasons named."""
        spent = {reason.value: seconds for reason, seconds in self._spent.items()} | {"cpu": 0.0}
        if self._since is not None:
            spent[self.reason.value] += now - self._since
        return spent

    def _account(self, now: float) -> None:
        if self._since is not None:
            self._spent[self.reason] += now - self._since
        self._since = now
