"""Why a direct call ended, from what the other side said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.providers.direct import protocol as wire
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["of_all", "remote_reason"]

_PRIORITY: Final = ("603/declined", "486/busy", "480/doNotDisturb", "403/notAllowed", "488/noCodec")
"""When all branches said no: the most telling no is the caller's reason (RFC 3261 16.7.6 in spirit)."""


def remote_reason(signal: wire.CallSignal) -> Reason:
    """The end reason here of a message by which the other side ends: its *local* is our *remote*."""
    match signal:
        case wire.AnsweredElsewhere():
            return END_REASONS["487/answeredElsewhere"]
        case wire.Cancel(reason=cause):
            told = cause.reason
            return told if told is not None and told.code in (487, 503) else END_REASONS["487/cancelled"]
        case wire.Reject(reason=cause):
            told = cause.reason
            return told if told is not None and told.code != 0 else END_REASONS["603/declined"]
        case wire.Bye(reason=cause):
            told = cause.reason
            return told if told is not None and told.code != 0 else END_REASONS["0/remote"]
        case _:
            return END_REASONS["503/provider"]


def of_all(noes: Sequence[Reason]) -> Reason:
    """The caller's reason when all branches said no, in this order."""
    telling = [END_REASONS[key] for key in _PRIORITY if any(no.key == key for no in noes)]
    return telling[0] if telling else noes[-1]
