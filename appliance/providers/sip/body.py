"""What of a message's body is a session description: all of it, or one part of several (RFC 3261 7.4, RFC 5621).
Gateways put what the old network said beside it."""

from __future__ import annotations

import re
from typing import Final

from appliance.providers.sip.grammar import Malformed, params_of
from appliance.providers.sip.message import Message

__all__ = ["SDP", "description_of", "sdp_of"]

SDP: Final = "application/sdp"
MAX_PARTS: Final = 16
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_TYPE: Final = re.compile(rb"^(?:content-type|c)[ \t]*:[ \t]*([^\s;]+)", re.IGNORECASE | re.MULTILINE)


def description_of(message: Message) -> bytes | None:
    """The session description; empty where there is none, None where the body is something else that has to be
    understood."""
    body, kind = message.body, message.content_type
    if not body:
        return b""
    if message.headers.get("content-encoding").strip().lower() not in ("", "identity"):
        return None
    if kind in ("", SDP):
        return body
    found = _part(message) if kind.startswith("multipart/") else None
    if found is None and "handling=optional" in re.sub(r"\s", "", message.headers.get("content-disposition").lower()):
        return b""
    return found


def sdp_of(message: Message) -> bytes:
    """The session description; empty where there is none that could be read."""
    return description_of(message) or b""


def _part(message: Message) -> bytes | None:
    _, _, params = message.headers.get("content-type").partition(";")
    try:
        boundary = params_of(f";{params}").get("boundary", "")
    except Malformed:
        return None
    if not boundary:
        return None
    parts = (b"\r\n" + message.body).split(b"\r\n--" + boundary.encode("utf-8", "surrogateescape"), MAX_PARTS + 1)
    for part in parts[1 : MAX_PARTS + 1]:
        end = _HEAD_END.search(part)
        kind = _TYPE.search(part, 0, end.start()) if end is not None else None
        if end is not None and kind is not None and kind[1].lower() == SDP.encode():
            return part[end.end() :] + b"\r\n"  # the last line break was the boundary's
    return None
