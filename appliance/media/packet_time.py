"""Voice in packets of another length than the encoder makes: several frames in one, or one in several."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import av

from appliance.media.rtp_send import EncodedTrack

__all__ = ["PacketTimeTrack", "join_opus"]

MOST_FRAMES: Final = 48  # of one Opus packet: 120 ms (RFC 6716 3.2.5)


class PacketTimeTrack(EncodedTrack):
    """``source`` with ``milliseconds`` of voice in each packet, pts in ``clock_rate`` as its own, until ``agree``.

    Opus frames are joined whole, so that its packets are the next multiple of a frame; the bytes of G.711 and G.722
    are cut wherever it falls. A gap in the source (a pause, a loss) ends a packet early: nothing is joined over it.
    """

    kind = "audio"

    def __init__(self, source: EncodedTrack, milliseconds: int, clock_rate: int, *, opus: bool) -> None:
        super().__init__()
        self._source = source
        self._ready: deque[av.Packet[Any]] = deque()
        self.agree(milliseconds, clock_rate, opus=opus)

    def agree(self, milliseconds: int, clock_rate: int, *, opus: bool) -> None:
        """What the source gives from now on, and how it is to be packed; what is held of before is left out."""
        self._ticks = milliseconds * clock_rate // 1000
        self._clock_rate = clock_rate
        self._opus = opus
        self._held: list[bytes] = []
        self._held_ticks = 0
        self._begun = 0  # pts of what is held
        self._ready.clear()

    async def recv(self) -> av.Packet[Any]:
        while not self._ready:
            self._take(await self._source.recv())
        return self._ready.popleft()

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return self._source.captured_at(packet)

    def stop(self) -> None:
        self._source.stop()
        super().stop()

    def _take(self, packet: av.Packet[Any]) -> None:
        data, pts = bytes(packet), packet.pts or 0
        if self._held and (pts != self._begun + self._held_ticks or not self._joins(data)):
            self._release()
        if not self._held:
            self._begun = pts
        self._held.append(data)
        self._held_ticks += self._clock_rate // 50 if self._opus else len(data)  # 20 ms; one byte a tick (RFC 3551)
        self.level_dbov = self._source.level_dbov
        if self._opus:
            if self._held_ticks >= self._ticks or len(self._held) == MOST_FRAMES:
                self._release()
            return
        while self._held_ticks >= self._ticks:
            self._release(self._ticks)

    def _joins(self, data: bytes) -> bool:
        """Opus: only frames of one configuration share a packet, and a pause has none."""
        return not self._opus or (min(len(data), len(self._held[0])) > 1 and not (data[0] ^ self._held[0][0]) & 0xFC)

    def _release(self, ticks: int | None = None) -> None:
        """Make a packet of what is held, or of its first ``ticks``."""
        if self._opus:
            payload, rest = join_opus(self._held), b""
        else:
            whole = b"".join(self._held)
            payload, rest = whole[:ticks], whole[ticks or len(whole) :]
        packet = av.Packet(payload)
        packet.pts, packet.time_base = self._begun, Fraction(1, self._clock_rate)
        self._ready.append(packet)
        self._begun += self._held_ticks - len(rest)
        self._held, self._held_ticks = [rest] if rest else [], len(rest)


def join_opus(packets: Sequence[bytes]) -> bytes:
    """One packet of packets with one frame each, all of the same configuration (RFC 6716 3.2.5, code 3 with VBR)."""
    if len(packets) == 1:
        return packets[0]
    frames = [packet[1:] for packet in packets]
    head = bytes([packets[0][0] & 0xFC | 3, len(frames) | 0x80])
    return head + b"".join(_length(len(frame)) for frame in frames[:-1]) + b"".join(frames)


def _length(size: int) -> bytes:
    """RFC 6716 3.2.1."""
    if size < 252:
        return bytes([size])
    first = 252 + (size & 3)
    return bytes([first, (size - first) >> 2])
