"""``POST /v1/cmd/<verb>``: the envelope of every door, its answer, and waiting for the final one."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Final

from aiohttp import web

from appliance.bulletin import Bulletin
from appliance.doors.http.auth import Caller, Proof
from appliance.doors.http.replies import reply
from appliance.errors import BadRequest, EdgecallError
from appliance.faces.envelope import parse, refusal
from appliance.intake import Submit
from appliance.vocabulary import MAX_PAYLOAD, Json, Origin, Result

__all__ = ["Commands", "read_body", "read_object"]

WAIT_MAXIMUM_S: Final = 180.0
BODY_S: Final = 10.0
"""A body that trickles in for longer is a client that will not come to an end."""


async def read_body(request: web.Request) -> bytes:
    """At most 64 KiB within 10 s; raises BadRequest (413, 408)."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BadRequest(f"The body is over {MAX_PAYLOAD} bytes.", code=413, sub_code="tooLarge") from error
    except TimeoutError as error:
        raise BadRequest("The body did not arrive in time.", code=408, sub_code="bodyTimeout") from error
    except (web.RequestPayloadError, ValueError) as error:  # broken chunks or compression
        raise BadRequest("The body could not be read.") from error


def read_object(body: bytes) -> Json:
    """A JSON object, ``{}`` for an empty body; raises BadRequest."""
    try:
        found = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(found, dict):
        raise BadRequest("The body is not a JSON object.")
    return found


def _id_of(body: bytes) -> str:
    """The id of an envelope that may be anything, for the answer that refuses it."""
    try:
        found = read_object(body).get("id")
    except BadRequest:
        return ""
    return found if isinstance(found, str) and len(found) <= 64 else ""


def _wait_of(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        wait = float(text)
    except ValueError:
        wait = math.nan
    if not 0 <= wait <= WAIT_MAXIMUM_S:
        raise BadRequest(f"wait is a number of seconds from 0 to {WAIT_MAXIMUM_S:g}.")
    return wait


class Commands:
    """Hands commands in."""

    def __init__(self, submit: Submit, bulletin: Bulletin) -> None:
        self._submit = submit
        self._bulletin = bulletin

    async def post(self, request: web.Request, caller: Caller) -> web.Response:
        body = await read_body(request)
        try:
            wait = _wait_of(request)
            command = parse(
                request.match_info["verb"], body,
                origin=Origin.CLI if caller.proof is Proof.SOCKET else Origin.HTTP,
                sender=caller.grant.name, scope=caller.grant.scope)
            answer = await self._submit.submit(command)
            if answer.result is Result.ACCEPTED and wait:
                answer = await self._submit.final(command.id, wait) or answer
        except EdgecallError as error:
            answer = refusal(_id_of(body), error, self._bulletin.rev)
        return reply(answer)
