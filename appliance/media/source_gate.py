"""Which source speaks on a line of RTP without signalling that would name it (RFC 3550 A.1). Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["SourceGate"]

SEQUENTIAL: Final = 2  # packets in sequence that make a source
CHANGE_S: Final = 1.0  # between two changes of source


class SourceGate:
    """The first source (SSRC) is taken at once; another after two packets in sequence and at most once a second, so
    that stray packets do not tear the play-out to and fro."""

    def __init__(self) -> None:
        self._ssrc: int | None = None
        self._changed_at = float("-inf")
        self._candidate: tuple[int, int, int] | None = None  # (SSRC, next sequence number, packets in sequence)

    def admit(self, ssrc: int, sequence: int, now: float) -> bool:
        if ssrc == self._ssrc:
            return True
        if self._ssrc is None:
            self._ssrc = ssrc
            return True
        known, due, count = self._candidate or (ssrc, sequence, 0)
        count = count + 1 if known == ssrc and due == sequence else 1
        self._candidate = (ssrc, sequence + 1 & 0xFFFF, count)
        if count < SEQUENTIAL or now - self._changed_at < CHANGE_S:
            return False
        self._ssrc, self._changed_at, self._candidate = ssrc, now, None
        return True
