"""Data messages on data channels: cut into frames, put together again, numbered, so that a gap is seen. Pure.

A frame is a JSON text of a data channel: ``{"channel", "payload"}``, and where the sender has more to say ``seq``
(rises by one with each message of a ``run``, for what is sent reliably and for what may be ``lossy`` apart), ``part``
and ``of`` (of a message in several frames), and ``to`` (in a room, where all get it). Who sends plain frames without
the rest is understood too; then no gap is seen. All of it is what the sender says.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.media.api import DataMessage

__all__ = ["FRAME_LIMIT", "MESSAGE_LIMIT", "Inbound", "Outbound"]

FRAME_LIMIT: Final = 64 * 1024  # bytes on the wire: what every peer takes (RFC 8841 6.1)
MESSAGE_LIMIT: Final = 64 * 1024  # bytes of channel and payload together
NAME_LIMIT: Final = 128  # characters of a channel, or of one who is meant
RECIPIENTS: Final = 64
PARTS: Final = 64
LEAST: Final = 1024  # bytes of payload in a frame, beside those who are meant
PARTIAL: Final = 16  # messages of which parts are missing; the oldest of whoever has the most goes first
PARTIAL_BYTES: Final = 512 * 1024  # of their parts together
PARTIAL_S: Final = 10.0  # what has not come by then does not come
RUNS: Final = 64  # senders whose numbers are remembered; the one heard longest ago goes first


class Outbound:
    """Of one connection. ``frame_limit``: bytes of a frame at most."""

    def __init__(self, frame_limit: int = FRAME_LIMIT) -> None:
        self._limit = frame_limit
        self._run = secrets.token_hex(4)
        self._sequence = {False: 0, True: 0}

    def frames(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False,
    ) -> list[str]:
        """The next message. Raises ValueError when it is larger than MESSAGE_LIMIT, or names too many."""
        if len(channel.encode()) + len(payload.encode()) > MESSAGE_LIMIT:
            raise ValueError("too large")
        head: dict[str, Any] = {
            "channel": channel, "run": self._run, "seq": self._sequence[lossy] + 1,
            **({"lossy": True} if lossy else {}), **({"to": list(to)} if to else {})}
        frames = self._frames(head, payload)
        self._sequence[lossy] += 1
        return frames

    def _frames(self, head: dict[str, Any], payload: str) -> list[str]:
        whole = _dump({**head, "payload": payload})
        if len(whole.encode()) <= self._limit:
            return [whole]
        room = self._limit - len(_dump({**head, "payload": "", "part": PARTS, "of": PARTS}).encode())
        parts = _cut(payload, room) if room >= LEAST else []
        if not 0 < len(parts) <= PARTS:
            raise ValueError("too large")
        return [_dump({**head, "payload": one, "part": number, "of": len(parts)}) for number, one in enumerate(parts)]


_Run = tuple[str, str]  # sender, and its own word for it: nobody speaks in the run of another
_Key = tuple[_Run, bool, int, int]  # run, lossy, number, parts


@dataclass(slots=True)
class _Partial:
    since: float
    parts: dict[int, str] = field(default_factory=dict)
    size: int = 0


class Inbound:
    """Of one connection, which may carry many senders. ``malformed`` counts frames that are none; ``abandoned``
    messages of which parts never came, or did not fit."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._partial: OrderedDict[_Key, _Partial] = OrderedDict()
        self._size = 0
        self._latest: OrderedDict[tuple[_Run, bool], int] = OrderedDict()  # number of the last message of a run
        self.malformed = 0
        self.abandoned = 0

    def take(self, frame: str | bytes, sender: str = "") -> DataMessage | None:
        """A frame as it came from ``sender``; the message that it completes, if any."""
        self._forget_late()
        parsed = _parse(frame)
        if parsed is None:
            self.malformed += 1
            return None
        lossy, number = parsed.lossy, parsed.sequence
        if parsed.run is None or number is None:
            return DataMessage(parsed.channel, parsed.payload, sender, parsed.to)
        run = sender, parsed.run
        if not lossy and number <= self._latest.get((run, lossy), 0):
            return None  # it came already
        payload = parsed.payload if parsed.of == 1 else self._assemble((run, lossy, number, parsed.of), parsed)
        if payload is None:
            return None
        return DataMessage(parsed.channel, payload, sender, parsed.to, self._missing(run, lossy, number))

    def _missing(self, run: _Run, lossy: bool, number: int) -> int:
        """How many messages before this one have not come; one that was overtaken is none that is missing twice."""
        latest = self._latest.pop((run, lossy), None)
        self._latest[run, lossy] = max(number, latest or 0)
        while len(self._latest) > RUNS:
            self._latest.popitem(last=False)
        return 0 if latest is None else max(0, number - latest - 1)

    def _assemble(self, key: _Key, frame: _Frame) -> str | None:
        found = self._partial.setdefault(key, _Partial(self._monotonic()))
        if frame.part not in found.parts:
            found.parts[frame.part] = frame.payload
            found.size += len(frame.payload)
            self._size += len(frame.payload)
        if found.size > MESSAGE_LIMIT:
            self._drop(key)
            return None
        if len(found.parts) == frame.of:
            self._size -= self._partial.pop(key).size
            return "".join(found.parts[number] for number in sorted(found.parts))
        while len(self._partial) > PARTIAL or self._size > PARTIAL_BYTES:
            self._drop(self._superfluous())
        return None

    def _superfluous(self) -> _Key:
        """The oldest message of whoever takes the most of what there is too much of."""
        many, taken = len(self._partial) > PARTIAL, Counter[str]()
        for (run, *_), one in self._partial.items():
            taken[run[0]] += 1 if many else one.size
        (sender, _), = taken.most_common(1)
        return next(key for key in self._partial if key[0][0] == sender)

    def _forget_late(self) -> None:
        now = self._monotonic()
        for key in [key for key, one in self._partial.items() if now - one.since > PARTIAL_S]:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        self._size -= self._partial.pop(key).size
        self.abandoned += 1


@dataclass(frozen=True, slots=True)
class _Frame:
    channel: str
    payload: str
    run: str | None
    sequence: int | None
    lossy: bool
    part: int
    of: int
    to: tuple[str, ...]


def _parse(frame: str | bytes) -> _Frame | None:
    """None for anything but a frame."""
    if len(frame) > FRAME_LIMIT:
        return None
    try:
        found = json.loads(frame)
        parsed = _Frame(
            _name(found["channel"]), _text(found["payload"]), _maybe(found, "run", _name),
            _maybe(found, "seq", lambda value: _integer(value, 1, 2**53)), found.get("lossy") is True,
            _integer(found.get("part", 0), 0, PARTS - 1), _integer(found.get("of", 1), 1, PARTS),
            _names(found.get("to", [])))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return parsed if parsed.part < parsed.of else None


def _maybe(found: dict[str, Any], name: str, take: Callable[[Any], Any]) -> Any:
    return take(found[name]) if name in found else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # half a surrogate pair is no text, and no door could hand it on
    return value


def _name(value: object) -> str:
    if len(_text(value)) > NAME_LIMIT:
        raise ValueError
    return str(value)


def _integer(value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if not least <= value <= most:
        raise ValueError
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError
    if len(value) > RECIPIENTS:
        raise ValueError
    return tuple(_name(one) for one in value)


def _dump(frame: dict[str, Any]) -> str:
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str, room: int) -> list[str]:
    """Pieces that take ``room`` bytes at most as JSON strings."""
    pieces = []
    at = 0
    while at < len(text):
        step = room
        while len(_dump({"": text[at : at + step]}).encode()) - len('{"":""}') > room:
            step = step * 3 // 4
        pieces.append(text[at : at + step])
        at += step
    return pieces
