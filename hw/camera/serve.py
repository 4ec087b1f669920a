"""The camera process's side of the pipe: what every such process does, whatever its sensor is.

The process ends when either pipe closes, so it never outlives the daemon. (PR_SET_PDEATHSIG would not do: Linux ties it
to the *thread* that started the process, and that one may end earlier.)
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hw.api import EncodedFrame, Picture
from hw.camera.wire import (
    CONTROL,
    EVENT,
    FRAME,
    FRAME_HEAD,
    PICTURE,
    PREVIEW,
    PREVIEW_HEAD,
    SNAPSHOT,
    Unframer,
    message,
    pack,
)

__all__ = ["Owner", "Served", "serve"]


class Owner:
    """The board, as the process sees it."""

    def __init__(self, output: int) -> None:
        self._output = output

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]

    def tell(self, event: str, **fields: Any) -> None:
        self._write(message(EVENT, {"event": event, **fields}))

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        """``generation`` is the number of the start it belongs to."""
        dwell_us = -1 if frame.dwell_us is None else min(frame.dwell_us, 0x7FFFFFFF)
        self._write(pack(FRAME, FRAME_HEAD.pack(generation, frame.keyframe, frame.pts_us, dwell_us) + frame.data))

    def preview(self, generation: int, picture: Picture) -> None:
        """Left out where the board is behind with its reading: no frame is to wait for it, and a newer one follows."""
        data = pack(PREVIEW, PREVIEW_HEAD.pack(generation, picture.width, picture.height) + picture.i420)
        unread = int.from_bytes(fcntl.ioctl(self._output, termios.FIONREAD, bytes(4)), sys.byteorder)
        room = fcntl.fcntl(self._output, fcntl.F_GETPIPE_SZ) * 3 // 4  # for frames, and for pages that are not full
        if not unread or unread + len(data) <= room:
            self._write(data)

    def snapshot(self, number: int, jpeg: bytes) -> None:
        self._write(pack(SNAPSHOT, number.to_bytes(4, "big") + jpeg))


class Served(Protocol):
    """What a camera process does with its one thread."""

    def handle(self, fields: Mapping[str, Any]) -> None:
        """One command of the board (``hw.camera.owner``)."""

    def lend(self, data: bytes) -> None:
        """A JPEG from elsewhere."""

    def files(self) -> Sequence[tuple[int, int]]:
        """What else wakes the process: descriptors with the events of ``poll``."""

    def wait_s(self) -> float | None:
        """Seconds until ``tick`` has something to do by itself; None: not before somebody wakes it."""

    def tick(self) -> None:
        """Do what is due now. Never blocks."""


def serve(make: Callable[[Owner], Served]) -> None:
    """Be the camera process until the board hangs up."""
    # Ctrl-C reaches the terminal's whole group and systemd's SIGTERM the whole unit: the board decides, not we.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not end up among the frames
    try:
        owner = Owner(output)
        served = make(owner)
        owner.tell("ready", pid=os.getpid())
        _serve(served, sys.stdin.fileno())
    except BrokenPipeError:
        return  # the board is gone


def _serve(served: Served, commands: int) -> None:
    unframer = Unframer()
    while True:
        poll = select.poll()
        poll.register(commands, select.POLLIN)
        for file, events in served.files():
            poll.register(file, events)
        wait = served.wait_s()
        ready = {file for file, _ in poll.poll(None if wait is None else wait * 1000)}
        if commands in ready:
            data = os.read(commands, 1 << 16)
            if not data:
                return
            for kind, payload in unframer.feed(data):
                if kind == CONTROL:
                    served.handle(json.loads(payload))
                elif kind == PICTURE:
                    served.lend(payload)
        served.tick()
