"""End reasons in the words of the appliance from those of SIP, and back (RFC 3261 21, RFC 3326, Q.850)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from appliance.media.ways import STRANGER
from appliance.providers.sip.agent import reason_header
from appliance.providers.sip.events import Closed
from appliance.vocabulary import END_REASONS, Reason

__all__ = ["header_of", "reason_of", "reason_of_media", "status_of"]

_BY_STATUS: Final[Mapping[int, str]] = {
    **dict.fromkeys((401, 407), "401/credentials"), 403: "403/forbidden",
    **dict.fromkeys((404, 410, 416, 484, 485, 604), "404/notFound"), 408: "487/noAnswer", 480: "480/unreachable",
    481: "0/remote", 487: "487/cancelled", **dict.fromkeys((486, 600), "486/busy"),
    **dict.fromkeys((406, 415, 488, 606), "488/noCodec"), **dict.fromkeys((603, 607, 608), "603/declined"),
}
_BY_REASON: Final[Mapping[str, int]] = {
    "486/busy": 486, "603/declined": 603, "480/doNotDisturb": 480, "480/unreachable": 480, "403/notAllowed": 403,
    "487/noAnswer": 480, "503/shutdown": 503, "488/noCodec": 488, "500/internal": 500,
}
_BY_MEDIA: Final[Mapping[str, str]] = {
    "oneWayMedia": "410/oneWayMedia", "internal": "500/internal", "dtls": "488/dtls", "iceFailed": "410/iceFailed"}
_IMPOSTOR: Final = ("Somebody may listen in between: check the PBX and what stands before it; one that changes "
                    "descriptions has to take part in the encryption.")


def reason_of(closed: Closed, *, answered: bool, incoming: bool) -> Reason:
    """Why a call ended that the peer or the network ended. ``answered``: a 200 was there before."""
    elsewhere = any(cause.protocol == "SIP" and cause.code == 200 for cause in closed.causes)
    if incoming and (not answered or closed.status == 487):  # cancelled while it was being answered
        return _kept(END_REASONS["487/answeredElsewhere" if elsewhere else "487/cancelled"], closed)
    if answered:
        return _told(END_REASONS["0/remote" if closed.status in (200, 481) else "410/mediaLost"], closed)
    key = _BY_STATUS.get(closed.status, "503/provider")
    return _told(END_REASONS[key], closed)


def reason_of_media(why: str, detail: str) -> Reason:
    """Why a call ended whose media did, in the words of ``SessionClosed``."""
    known = END_REASONS[_BY_MEDIA.get(why, "410/mediaLost")]
    if detail != STRANGER:
        return known
    return replace(known, message=f"{known.message} ({detail})", advice=_IMPOSTOR)


def _told(known: Reason, closed: Closed) -> Reason:
    """With what the network said of it in the words: the cause of Q.850 is what carriers ask for."""
    said = [f"{cause.protocol} {cause.code}" for cause in closed.causes]
    if known.key == "503/provider":
        said.insert(0, f"SIP {closed.status}")
    kept = _kept(known, closed)
    return replace(kept, message=f"{kept.message} ({', '.join(said)})") if said else kept


def _kept(known: Reason, closed: Closed) -> Reason:
    """With what the network said of it for machines."""
    if not closed.causes:
        return known
    q850 = next((cause.code for cause in closed.causes if cause.protocol == "Q.850"), None)
    return replace(known, sip_reason=", ".join(str(cause) for cause in closed.causes), q850=q850)


def status_of(reason: Reason) -> int:
    """With which status an incoming call is refused."""
    return _BY_REASON.get(reason.key, 480)


def header_of(reason: Reason) -> str:
    """What the peer is told beside a CANCEL or BYE; empty where there is nothing to be told."""
    if reason.key == "487/answeredElsewhere":
        return reason_header(200, "Call completed elsewhere")
    return "" if reason.code == 0 else reason_header(reason.code, reason.sub_code)
