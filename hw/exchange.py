"""The receiver of sound as a sound thread calls it: what it does wrong never ends the sound."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from hw.api import AudioBlock

__all__ = ["Exchange"]

_log = logging.getLogger("hw.audio")


class Exchange:
    """Calls ``receiver`` with blocks of ``size`` bytes, on one thread, and gives as much to play.

    A wrong length is cut or padded with silence; an exception is silence, told in the log the first time.
    """

    def __init__(self, receiver: Callable[[AudioBlock], bytes], size: int) -> None:
        self._receiver: Final = receiver
        self._size: Final = size
        self._failed = False

    def __call__(self, block: AudioBlock) -> bytes:
        try:
            answer = self._receiver(block)
        except Exception:  # outermost frame of the callback: the card goes on, loud once
            if not self._failed:
                _log.exception("the receiver of sound failed; silence is played instead")
            self._failed = True
            answer = b""
        if len(answer) != self._size:
            answer = answer[: self._size].ljust(self._size, b"\0")
        return answer
