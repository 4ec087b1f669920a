"""Our own sound and picture back from a Janus server (plug-in EchoTest): what a call there would be like.

Nothing of it is played or shown, so that a loudspeaker beside a microphone does not howl.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from appliance.errors import Refused, SignalingError
from appliance.media.api import AccessUnit, Directions, Session, SessionClosed, SessionUp
from appliance.media.taps import Tap
from appliance.providers import api
from appliance.providers.endings import reason_of
from appliance.providers.janus import protocol as wire
from appliance.providers.janus.transport import Channel, Connect
from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = ["SENT", "echoed"]

ECHO_TEST: Final = wire.Dialect("janus.plugin.echotest", "echotest", "EchoTest", {}, gone=0, malformed=0)
SENT: Final = Directions(receive_audio=False, receive_video=False)
REACH_S: Final = 3.0  # as long as a room waits for its server
ANSWER_S: Final = 5.0
CONNECT_S: Final = 8.0  # with ICE by a relay
_CLOSED: Final = {"iceFailed": "410/iceFailed", "dtls": "488/dtls", "oneWayMedia": "410/oneWayMedia"}


class _NotHeardError(Exception):
    """It came to nothing, for this reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


async def echoed(
    connect: Connect, url: str, make: Callable[[], Session], seconds: float, *, keys: Json,
) -> api.Echo:
    """Of ``seconds`` of media, within REACH_S + ANSWER_S + CONNECT_S more. ``keys``: token and secret of the server,
    where it wants them. Raises Refused where the server has no such plug-in."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    echo = api.Echo(url)
    try:
        async with _reached(connect, url) as channel:
            echo = replace(echo, reached_s=loop.time() - begun)
            session, at = make(), dict(keys)
            tap = session.tap_encoded()
            counting = asyncio.create_task(_count(tap), name="janus.echo.pictures")
            try:
                await _let_in(channel, at)
                echo = replace(echo, admitted_s=loop.time() - begun)
                await _called(channel, session, at)
                echo = replace(echo, connected_s=loop.time() - begun)
                await _held(channel, seconds)
                stats = await session.stats()
                tap.close()
                echo = replace(echo, kinds=_kinds(stats, await counting))
            finally:
                tap.close()
                await session.close()
                await counting
                at.pop("handle_id", None)
                with contextlib.suppress(ConnectionError):
                    await channel.send({**at, "janus": "destroy", "transaction": secrets.token_urlsafe(12)})
    except _NotHeardError as error:
        return replace(echo, failure=error.reason)
    return echo


@asynccontextmanager
async def _reached(connect: Connect, url: str) -> AsyncIterator[Channel]:
    try:
        async with asyncio.timeout(REACH_S):
            channel = await connect(url)
    except (OSError, ValueError) as error:
        raise _NotHeardError(_unreached(str(error) or "no connection in time")) from error
    try:
        yield channel
    except ConnectionError as error:
        raise _NotHeardError(_unreached(str(error))) from error
    finally:
        await channel.close()


async def _count(pictures: Tap[AccessUnit]) -> int:
    count = 0
    async for _ in pictures:
        count += 1
    return count


async def _let_in(channel: Channel, at: Json) -> None:
    """``at`` is told what all requests from here on must name."""
    at["session_id"] = wire.new_id(await _asked(channel, {**at, "janus": "create"}))
    attached = await _asked(channel, {**at, "janus": "attach", "plugin": ECHO_TEST.plugin})
    at["handle_id"] = wire.new_id(attached)


async def _called(channel: Channel, session: Session, at: Json) -> None:
    """Until its media arrive."""
    offer = await session.offer()
    sent = wire.sent_kinds(offer)
    session.peer_sends(audio="audio" in sent, video="video" in sent)  # of what is not sent no echo is awaited
    answered = await _asked(channel, {**at, "janus": "message", "body": {"audio": True, "video": True},
                                      "jsep": {"type": "offer", "sdp": offer}})
    sdp = wire.sdp_of(answered, "answer")
    if sdp is None:
        raise _NotHeardError(replace(END_REASONS["503/provider"], message="The server does not answer an offer."))
    try:
        await session.accept_answer(sdp)
        async with asyncio.timeout(CONNECT_S):
            await _up(session)
    except (SignalingError, Refused) as error:
        raise _NotHeardError(reason_of(error)) from error
    except TimeoutError:
        raise _NotHeardError(END_REASONS["410/iceFailed"]) from None


async def _up(session: Session) -> None:
    async for event in session.events():
        if isinstance(event, SessionUp):
            return
        if isinstance(event, SessionClosed):
            raise _NotHeardError(END_REASONS[_CLOSED.get(event.why, "410/mediaLost")])


async def _held(channel: Channel, seconds: float) -> None:
    """For so long, unless the server ends it."""
    try:
        async with asyncio.timeout(seconds):
            while (await channel.receive()).get("janus") not in ("hangup", "detached", "timeout"):
                continue
    except TimeoutError:
        return
    raise _NotHeardError(END_REASONS["410/mediaLost"])


async def _asked(channel: Channel, message: Json) -> Mapping[str, Any]:
    """The answer, or the event that takes its place."""
    transaction = secrets.token_urlsafe(12)
    try:
        async with asyncio.timeout(ANSWER_S):
            await channel.send({**message, "transaction": transaction})
            while True:
                told = await channel.receive()
                if told.get("transaction") == transaction and told.get("janus") != "ack":
                    break
    except TimeoutError:
        raise _NotHeardError(_unreached("it does not answer")) from None
    refused, error = told.get("janus") == "error", wire.data_of(told)
    if refused or "error_code" in error:
        own = told.get("error") if refused else error
        _, reason = wire.fault_of(own if isinstance(own, dict) else {}, ECHO_TEST)
        if reason.sub_code == "noPlugin":
            raise Refused(reason.message, code=reason.code, sub_code=reason.sub_code, category=reason.category)
        raise _NotHeardError(reason)
    return told


def _unreached(words: str) -> Reason:
    return replace(END_REASONS["503/provider"], message=f"The room server is not reached: {words}")


def _kinds(stats: Sequence[Json], pictures: int) -> Mapping[str, api.Returned]:
    """By ``audio`` and ``video``, of those that were sent. ``pictures``: how many came whole."""
    by_type = {(one["type"], one.get("kind")): one for one in stats}
    path = by_type.get(("candidate-pair", None), {}).get("currentRoundTripTime")
    found = {}
    for kind in ("audio", "video"):
        sent = by_type.get(("outbound-rtp", kind), {}).get("packetsSent", 0)
        if not sent:
            continue
        back = by_type.get(("inbound-rtp", kind), {})
        there = by_type.get(("remote-inbound-rtp", kind), {})
        found[kind] = api.Returned(
            sent, back.get("packetsReceived", 0), max(0, back.get("packetsLost", 0)), back.get("jitter", 0.0),
            there.get("roundTripTime", path), pictures if kind == "video" else 0)
    return found
