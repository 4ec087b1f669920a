"""The pre-call test: a server is asked to send our own sound and picture back, and what comes is graded.

Never beside a call: it is refused in one, and given up for one that comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from appliance.bulletin import Bulletin
from appliance.care.quality import BAD, GOOD, POOR, grade_of, mos
from appliance.errors import Refused
from appliance.intake import Handler
from appliance.providers.api import Echo, Echoes, Returned
from appliance.vocabulary import Command, Json

__all__ = ["PreCall", "report_of"]

SECONDS: Final = 5
LOOK_S: Final = 0.1  # a call that comes has camera and microphone beside the test for as long
WORDS: Final = {GOOD: "Good", POOR: "Average", BAD: "Bad"}
NOT_REACHED: Final = "The test did not come so far."


class PreCall:
    """``ways``: the providers that can be tried out, by name; ``idle`` says that there is no call."""

    def __init__(self, bulletin: Bulletin, ways: Mapping[str, Echoes], *, idle: Callable[[], bool]) -> None:
        self._bulletin = bulletin
        self._ways = ways
        self._idle = idle
        self._running = False

    def handlers(self) -> Mapping[str, Handler]:
        return {"precall.run": self._run}

    async def _run(self, command: Command) -> Json:
        provider = command.args.get("provider", next(iter(self._ways), ""))
        way = self._ways.get(provider)
        if way is None:
            known = ", ".join(self._ways) or "none is configured; set janus.url"
            raise Refused(f"no test is known of '{provider}'; servers that can be tried out: {known}", code=501,
                          sub_code="FeatureNotSupported", retryable=False)
        if not self._idle():
            raise Refused("a server is tried out between calls, not in one", sub_code="inCall")
        if self._running:
            raise Refused("a server is being tried out already; wait for its answer", sub_code="busy")
        self._running = True
        try:
            report = report_of(provider, await self._unless_called(way.echo(command.args.get("seconds", SECONDS))))
        finally:
            self._running = False
        self._bulletin.post("precall.completed", **report)
        return {"report": report}

    async def _unless_called(self, test: Coroutine[Any, Any, Echo]) -> Echo:
        task = asyncio.create_task(test, name="care.precall")
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
                if not self._idle():
                    raise Refused("the test was given up for a call; try again after it", sub_code="inCall")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})


def report_of(provider: str, echo: Echo) -> Json:
    """An item for each step, in order; ``result``: passed when none of them failed. ``mos`` of the sound that came
    back, so of both ways together."""
    why = echo.failure.message if echo.failure is not None else NOT_REACHED
    steps = (("signaling", echo.reached_s), ("admission", echo.admitted_s), ("mediaPath", echo.connected_s))
    last = next((item for item, seconds in steps if seconds is None), "")
    items = [_step(item, seconds, why if item == last else NOT_REACHED) for item, seconds in steps]
    items += [_kind(kind, echo, why) for kind in ("audio", "video")]
    audio = echo.kinds.get("audio")
    failed = any(item["result"] == "Failed" for item in items)
    return {
        "provider": provider, "server": echo.server, "result": "failed" if failed else "passed", "items": items,
        "mos": round(mos(audio.round_trip_s or 0.0, audio.jitter_s, _loss(audio)), 2)
        if audio is not None and audio.received else None,
    }


def _step(item: str, seconds: float | None, why: str) -> Json:
    if seconds is None:
        return {"item": item, "result": "NotTested" if why == NOT_REACHED else "Failed", "reason": why}
    return {"item": item, "result": "Good", "reason": None, "seconds": round(seconds, 3)}


def _kind(kind: str, echo: Echo, why: str) -> Json:
    if echo.connected_s is None:
        return {"item": kind, "result": "NotTested", "reason": NOT_REACHED}
    back = echo.kinds.get(kind)
    if back is None:
        failed = echo.failure is not None
        device = "microphone" if kind == "audio" else "camera"
        return {"item": kind, "result": "Failed" if failed else "NotTested",
                "reason": why if failed else f"Nothing was sent: this board has no {device}, or it does not deliver."}
    figures = {
        "packetsSent": back.sent, "packetsReceived": back.received, "packetLoss": round(_loss(back), 4),
        "jitter": round(back.jitter_s, 4), "roundTripTime": None if back.round_trip_s is None
        else round(back.round_trip_s, 4), **({"pictures": back.pictures} if kind == "video" else {})}
    if not back.received or (kind == "video" and not back.pictures):
        return {"item": kind, "result": "Failed", "reason": "The server sends nothing of it back.", **figures}
    grades = {name: grade_of(name, value) for name, value in (
        ("loss", _loss(back)), ("jitter", back.jitter_s), ("rtt", back.round_trip_s or 0.0))}
    worst = max(grades.values())
    fallen = ", ".join(name for name, grade in grades.items() if grade == worst) if worst != GOOD else None
    return {"item": kind, "result": WORDS[worst], "reason": fallen, **figures}


def _loss(back: Returned) -> float:
    """Share of what was sent that neither way brought."""
    come = back.received + back.lost
    return back.lost / come if come else 1.0
