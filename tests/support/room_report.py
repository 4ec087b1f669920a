"""What is needed to find out why pictures of a room stand: who waits for what, and what was done about it.

    report = RoomReport(server, way, door, monkeypatch)
    ...
    raise AssertionError(await report.tell())
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from appliance.media.gallery import Gallery
from appliance.media.smoothness import Remedy, StallWatch
from appliance.media.video_in import VideoIn
from appliance.providers import api
from appliance.providers.janus.effects import Effect, Send
from appliance.providers.janus.leg import JanusLeg
from appliance.providers.janus.subscription import Subscription
from hw.api import Tile
from tests.support.janus import JanusServer
from tests.support.room_device import Device
from tests.support.rough_way import RoughWay

__all__ = ["RoomReport", "Shown"]

DEEDS: Final = 60
LAG_S: Final = 0.1
LAGS: Final = 600


class Shown:
    """How many pictures of each label came to the screen."""

    def __init__(self, one: Device) -> None:
        self.count: Counter[str] = Counter()
        self.stood: Counter[str] = Counter()  # milliseconds at the longest, since it was cleared
        self.at: dict[str, float] = {}
        self._last: dict[str, object] = {}
        show = one.board.display.show

        def counting(tiles: Any, banner: str = "", hint: str = "") -> None:
            show(tiles, banner, hint)
            one.board.pictures.clear()  # hundreds of thousands
            for tile in tiles:
                self._note(tile)

        one.board.display.show = counting  # type: ignore[method-assign]

    def _note(self, tile: Tile) -> None:
        if tile.picture is not None and self._last.get(tile.label) is not tile.picture:
            self._last[tile.label] = tile.picture
            self.count[tile.label] += 1
            now = time.monotonic()
            stood = round(1000 * (now - self.at.get(tile.label, now)))
            self.at[tile.label], self.stood[tile.label] = now, max(stood, self.stood[tile.label])


class RoomReport:
    """Counts and remembers from now on what the appliance does about pictures that do not come (``done``)."""

    def __init__(
        self, server: JanusServer, way: RoughWay, door: Device, shown: Shown, monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._server, self._way, self._door, self._shown = server, way, door, shown
        self._deeds: deque[tuple[float, str, object]] = deque(maxlen=DEEDS)
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._sampling = asyncio.create_task(self._sample(), name="test.room_report")
        self._watch(monkeypatch)

    def close(self) -> None:
        self._sampling.cancel()

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        look = StallWatch.look

        def looked(watch: StallWatch, now: float, **counters: Any) -> Remedy:
            remedy = look(watch, now, **counters)
            if remedy is not Remedy.NONE:
                self._note(remedy.name, watch)
            return remedy

        monkeypatch.setattr(StallWatch, "look", looked)
        for name in ("renew", "overdue", "forgive", "_anew"):
            monkeypatch.setattr(Subscription, name, self._noting(name, getattr(Subscription, name)))

    def _noting(self, name: str, act: Callable[[Subscription], Sequence[Effect]]) -> Callable[..., Sequence[Effect]]:
        def noting(subscription: Subscription) -> Sequence[Effect]:
            effects = act(subscription)
            asked = [str(one.message.get("body", {}).get("request") or one.message["janus"])
                     for one in effects if isinstance(one, Send)]
            if "unsubscribe" in asked:
                self._note("GIVEN_BACK", asked)
            elif name != "renew" and effects:
                self._note(name.strip("_").upper(), asked)
            return effects

        return noting

    def _note(self, what: str, more: object) -> None:
        self.done[what] += 1
        self._deeds.append((time.monotonic(), what, more))

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(LAG_S)
            self._lags.append(loop.time() - before - LAG_S)

    # --- words

    async def tell(self) -> str:
        leg = self._door.leg
        assert isinstance(leg, JanusLeg)
        gallery = leg._gallery[1] if leg._gallery is not None else None
        lags = sorted(self._lags)
        parts = [
            f"load {os.getloadavg()}, the loop was late by {lags[len(lags) // 2]:.3f} s in the middle and "
            f"{lags[-1]:.3f} at the most of the last minute",
            *self._pictures(gallery), *self._connection(gallery), *self._membership(leg), *self._facts(),
            *self._did(gallery), *self._network(), *await self._janus(leg)]
        return "\n  ".join(["what stands, and why:", *parts])

    def _pictures(self, gallery: Gallery | None) -> Sequence[str]:
        """When the last packet, access unit, picture and picture on the screen were, of each line."""
        if gallery is None:
            return ["there is no connection on which anything is received"]
        names, now, loop_now = self._door.names, time.monotonic(), asyncio.get_running_loop().time()
        found = []
        for mid, line in gallery._by_mid.items():
            counters, video = line.stream.counters, line.video
            label = names.get(line.on.feed, line.on.feed) if line.on is not None else "nobody"
            words = (f"line {mid} {line.kind} of {label}: there for {_ago(line.since, now)}, last packet "
                     f"{_ago(line.heard_at, now)} ago ({counters.packets}, {counters.resent_packets} of them again), "
                     f"{counters.nacks} NACK, {counters.plis} PLI, {counters.given_up} holes given up")
            if video is not None and line.on is not None:
                words += f"; {self._decoding(video, now, loop_now)}; {self._repairing(line.stream)}"
                words += f"; shown {self._shown.count[label]}, last {_ago(self._shown.at.get(label, 0.0), now)} ago"
            found.append(words)
        return found

    @staticmethod
    def _decoding(video: VideoIn, now: float, loop_now: float) -> str:
        alive = video._decoder is not None and video._decoder.thread.is_alive()
        decoded_at = video.position[1] if video.position is not None else 0.0
        return (f"access units {video.emitted}, last {_ago(video._decoding_at, loop_now)} ago, {len(video._held)} "
                f"held; decoded {video.decoded} ({video.key_decoded} key), last {_ago(decoded_at, now)} ago, "
                f"{video.dropped} dropped, {video.undecodable} bad, {video.restarts} restarts, decoder "
                f"{'there' if alive else 'away'}, showing {video.showing}, stalled {video.stalled}, handing "
                f"{video._handing}")

    @staticmethod
    def _repairing(stream: Any) -> str:
        repair = stream._repair
        if repair is None:
            return "no source"
        kept = repair._assembler
        return (f"wants a key frame {kept.wants_key}, {len(kept.losses)} holes, {kept.buffered_bytes} bytes behind "
                f"them, retry {kept.losses.retry_s:.3f} s")

    @staticmethod
    def _connection(gallery: Gallery | None) -> Sequence[str]:
        if gallery is None:
            return []
        now = asyncio.get_running_loop().time()
        pc = gallery._pc
        return [f"connection: {pc.connectionState}, ICE {pc.iceConnectionState}, up {gallery._up}, silent "
                f"{gallery._silent}, ended {gallery._ended}, heard {_ago(gallery._heard_at, now)} ago; away "
                f"{sorted(gallery.absent)}, still {sorted(gallery.still)}"]

    @staticmethod
    def _membership(leg: JanusLeg) -> Sequence[str]:
        stay, mine = leg._stay, leg._stay._subscription
        waiting = [one.body.get("body", {}).get("request") or one.body["janus"]
                   for one in stay._requests._waiting.values()]
        timers = {timer.name: round(handle.when() - asyncio.get_running_loop().time(), 1)
                  for timer, handle in leg._chores._timers.items() if not handle.cancelled()}
        return [f"room: generation {stay.generation}, linked {stay._linked}, lost {stay._lost}, in it as "
                f"{stay._me_there or None}; waiting for answers to {waiting}; {leg._chores._jobs.qsize()} jobs wait; "
                f"timers {timers}",
                f"subscription: handle {mine.handle}, attached {mine._attached}, negotiating {mine._negotiating}, owed "
                f"{mine._owed}, unanswered {mine._unanswered}, singly {mine._singly}, lines {mine._mids}, still "
                f"{sorted(mine._still)}, looks {mine._looks}, renewing {mine._renewing}, not to be had "
                f"{mine._unusable}, wanted {sorted(mine._wanted())}"]

    def _facts(self) -> Sequence[str]:
        now = asyncio.get_running_loop().time()
        told = [(round(at - now, 1), type(one).__name__) for at, one in self._door.told[-20:]
                if not isinstance(one, api.Voices)]
        lost, recovered = len(self._door.of(api.Lost)), len(self._door.of(api.Recovered))
        return [f"lost {lost} times, recovered {recovered}; last told {told}"]

    def _did(self, gallery: Gallery | None) -> Sequence[str]:
        now = time.monotonic()
        lines = {id(line.video._watch): line.on.feed for line in (gallery._lines if gallery is not None else ())
                 if line.video is not None and line.on is not None}
        last = [f"-{now - at:.1f} {what} " + (self._door.names.get(lines.get(id(more), ""), "?")
                if isinstance(more, StallWatch) else str(more)) for at, what, more in self._deeds]
        return [f"done about it: {dict(self.done)}; last: {', '.join(last)}"]

    def _network(self) -> Sequence[str]:
        return [f"relay of handle {handle}: to Janus {one.left_to_right.counters}, from it {one.right_to_left.counters}"
                for handle, one in self._way.used.items()]

    async def _janus(self, leg: JanusLeg) -> Sequence[str]:
        session = leg._stay._requests.session
        try:
            listed = await self._server.admin("list_handles", session_id=session)
            told = [await self._server.admin("handle_info", session_id=session, handle_id=handle)
                    for handle in listed.get("handles", [])]
        except (OSError, TimeoutError) as error:
            return [f"Janus does not say ({type(error).__name__})", *self._server.log[-10:]]
        return [f"Janus, session {session}, handle {one.get('handle_id')}: {json.dumps(_short(one.get('info', {})))}"
                for one in told] + ["Janus' log: " + "".join(self._server.log[-15:])]


def _short(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without descriptions, candidates and what never changes."""
    left_out = {"sdps", "local-candidates", "remote-candidates", "local-fingerprint", "remote-fingerprint", "codecs"}

    def cut(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cut(part) for name, part in value.items() if name not in left_out}
        return [cut(part) for part in value] if isinstance(value, list) else value

    short: Mapping[str, Any] = cut(info)
    return short


def _ago(at: float, now: float) -> str:
    return f"{now - at:.1f} s" if at else "never"
