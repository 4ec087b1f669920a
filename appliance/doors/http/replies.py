"""From answers and errors to HTTP: one JSON body for all, status codes that follow the answer's code."""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import web

from appliance.vocabulary import Answer, Result

__all__ = ["json_reply", "reply", "status_of"]

_KEPT: Final = frozenset({400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 422, 429, 500, 501, 503, 504})
"""Codes that mean the same in HTTP (RFC 9110) and in our answers."""

_DEVICE_FAULT: Final = 410
"""Media or a device failed; in HTTP it would be what is gone for good, and kept by caches as such."""


def status_of(answer: Answer) -> int:
    """HTTP status of an answer: 200 done, 202 accepted, else its code; a SIP code without an HTTP meaning
    (480, 486, 487, 488, 603) is 409: right request, but the state of the world did not permit it."""
    if answer.result is Result.DONE:
        return 200
    if answer.result is Result.ACCEPTED:
        return 202
    if answer.code in _KEPT:
        return answer.code
    if answer.code == _DEVICE_FAULT:
        return 503
    return 502 if 500 <= answer.code < 600 else 409


def json_reply(body: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(body, separators=(",", ":")), status=status, content_type="application/json")


def reply(answer: Answer) -> web.Response:
    response = json_reply(answer.payload(), status_of(answer))
    if response.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="edgecall"'  # RFC 9110 11.6.1 demands one
    elif response.status == 429:
        response.headers["Retry-After"] = "1"
    return response
