"""Finds the kernel's H.264 encoder and proves it: one picture encoded and parsed, never a name believed."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from av.video.frame import VideoFrame

from hw.api import FaultKind, VideoMode
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.session import EncoderError
from hw.pi.v4l2 import CAN_ENCODE, Node, QueueKind, nodes_named

__all__ = ["Found", "encoder_nodes", "find_encoder", "plugged_encoders", "prove"]

_log = logging.getLogger("hw.encoder")

PROOF: Final = VideoMode(320, 240, 30, 500_000)
PROOF_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """The encoder at ``path``; empty: none of use, and ``reason`` why (empty too: this board has none), told as
    ``fault``."""

    path: str = ""
    reason: str = ""
    fault: FaultKind = FaultKind.FAILED


def encoder_nodes(sysfs: str = "/sys") -> list[str]:
    """Nodes that make H.264 of pictures, as their drivers say. One that is held or forbidden may be one."""
    found = []
    for path, name in nodes_named(sysfs):
        try:
            with Node(path) as node:
                bits, _ = node.capabilities()
                if bits & CAN_ENCODE and "H264" in node.formats(QueueKind.CODED):
                    found.append(path)
        except OSError as error:
            _log.info("%s (%s): %s", path, name, error)
            if "encode" in name:
                found.append(path)
    return found


def plugged_encoders(sysfs: str = "/sys") -> frozenset[tuple[str, int]]:
    """Nodes whose names are of encoders and which we may open. Asks no driver: nothing that hangs is touched.

    Each with its inode: one that went and returned between two looks is another.
    """
    found = set()
    for path, name in nodes_named(sysfs):
        with contextlib.suppress(OSError):  # unplugged while we look
            if "enc" in name and os.access(path, os.R_OK | os.W_OK):
                found.add((path, Path(path).stat().st_ino))
    return frozenset(found)


def prove(path: str) -> None:
    """Encode one picture. Waits a second at most. Raises EncoderError with what is wrong."""
    encoder = M2mEncoder(path, PROOF)
    try:
        grey = VideoFrame(PROOF.width, PROOF.height, "yuv420p")
        for plane in grey.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        encoder.encode(grey, 1)
        deadline = time.monotonic() + PROOF_S
        while (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(encoder.file, select.POLLIN)
            poll.poll(min(left, 0.1) * 1000)
            units = encoder.collect(time.monotonic())
            if units:
                if not units[0].keyframe:
                    raise EncoderError(f"encoder {path} begins without a key frame")
                return
        raise EncoderError(f"encoder {path} made nothing of a picture within {PROOF_S:g} s", FaultKind.STALLED)
    finally:
        encoder.close()


def find_encoder(sysfs: str = "/sys") -> Found:
    """The first encoder that proves itself. A driver that hangs is waited for: call it aside (``hw.pi.patience``)."""
    refusals = []
    for path in encoder_nodes(sysfs):
        try:
            prove(path)
        except EncoderError as error:
            refusals.append(error)
        else:
            return Found(path)
    return Found("", "; ".join(map(str, refusals)), refusals[0].fault) if refusals else Found()
