"""What the HTTP door needs from the rest of the house, handed in by ``__main__``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from appliance.errors import Refused
from appliance.handover import PeerAttach
from appliance.vocabulary import Json
from hw.api import Simulation

__all__ = ["Ports"]


async def _no_picture() -> bytes:
    raise FileNotFoundError("this device has no camera")


async def _no_stats() -> Sequence[Json]:
    return ()


async def _no_report(_dialect: str) -> Json:
    return {"callId": None, "quality": {}, "stats": []}


def _nothing_to_follow(_interval: int, _dialect: str) -> AbstractContextManager[None]:
    return nullcontext()


async def _no_summary(_call_id: str | None, _dialect: str) -> Json:
    raise Refused("This device keeps no calls.", code=404, sub_code="notFound", retryable=False)


def _healthy() -> Json:
    return {"status": "ok"}


@dataclass(frozen=True, slots=True)
class Ports:
    """Callables and Protocols; every one runs on the loop.

    ``snapshot``: JPEG of the camera; raises HardwareError or FileNotFoundError when there is none.
    ``preview``: the same, for who asks some times a second.
    ``camera_tone``: sounds at the device, for whoever stands before the camera.
    ``stats``: W3C webrtc-stats dictionaries of the running call, if there is one, and ``x-device``.
    ``report``: a sample, now, in a dialect of ``DIALECTS``: what ``GET /v1/stats`` and ``/v1/state/quality`` answer.
    ``follow``: seconds and dialect; samples are told to the bulletin's subscribers for the duration of the block.
    ``summary``: what a call was like, or is so far; None: the running one, else the last; raises Refused when not kept.
    ``health``: the document of ``state/health``; its ``status`` is ``ok``, ``degraded`` or ``failed``.
    ``openapi``: the OpenAPI document, or None where it was not built in.
    ``attach``: takes a WebSocket whose identity is proven and speaks signalling over it; None: no direct calls.
    ``simulation``: hands of the simulated board; None on a real one, which then has no front-panel stream.
    """

    snapshot: Callable[[], Awaitable[bytes]] = _no_picture
    preview: Callable[[], Awaitable[bytes]] = _no_picture
    camera_tone: Callable[[], None] = lambda: None
    stats: Callable[[], Awaitable[Sequence[Json]]] = _no_stats
    report: Callable[[str], Awaitable[Json]] = _no_report
    follow: Callable[[int, str], AbstractContextManager[None]] = _nothing_to_follow
    summary: Callable[[str | None, str], Awaitable[Json]] = _no_summary
    health: Callable[[], Json] = _healthy
    openapi: Callable[[], Json] | None = None
    attach: PeerAttach | None = None
    simulation: Simulation | None = None
