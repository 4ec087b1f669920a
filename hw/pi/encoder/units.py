"""Judges access units as they come from an encoder that is not trusted. Pure but for the decoder of key frames."""

from __future__ import annotations

from typing import Final

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from hw.sim.sources import nal_units

__all__ = ["B_PICTURE", "IDR", "KNOWN", "OTHER_PROFILE", "PPS", "SLICE", "SPS", "fault_of_unit", "key_picture"]

SLICE, IDR, SPS, PPS = 1, 5, 7, 8
KNOWN: Final = frozenset({SLICE, IDR, 6, SPS, PPS, 9, 12})
"""And SEI, delimiter, filler: what one layer of baseline consists of."""

BASELINE: Final = 66
CONSTRAINED: Final = 0x40  # constraint_set1_flag
B_PICTURE: Final = "a B picture"
OTHER_PROFILE: Final = "another profile than constrained baseline"
NO_B: Final = frozenset({0, 2, 5, 7})  # slice_type: P, I, and the same for all slices of the picture


def fault_of_unit(data: bytes) -> str:
    """What is wrong with an Annex-B access unit; empty: nothing that can be seen.

    Headers are read, and a key frame is decoded (20 ms on the slowest board). What is damaged inside other pictures is
    seen by the far end alone, which asks for a key frame.
    """
    if not data.startswith((b"\0\0\1", b"\0\0\0\1")):
        return "no access unit"
    kinds, parameters = [], b""
    for kind, unit in nal_units(data):
        if not unit or unit[0] & 0x80 or kind not in KNOWN:
            return "no access unit"
        kinds.append(kind)
        if kind == SPS:
            parameters = unit
        elif kind in (SLICE, IDR) and (slice_type := _slice_type(unit)) not in NO_B:
            return B_PICTURE if slice_type in (1, 6) else "a slice of an unknown kind"
    if SLICE not in kinds and IDR not in kinds:
        return "no picture"
    if IDR not in kinds:
        return ""
    if SPS not in kinds or PPS not in kinds:
        return "a key frame without its headers"
    if len(parameters) < 4 or parameters[1] != BASELINE or not parameters[2] & CONSTRAINED:
        return OTHER_PROFILE
    return "" if key_picture(data) is not None else "a key frame that cannot be decoded"


def _slice_type(unit: bytes) -> int:
    """``slice_type`` (H.264, 7.3.3); -1 where there is none."""
    bits = int.from_bytes(unit[1:9].ljust(8, b"\0"), "big")
    at = 0

    def ue() -> int:
        nonlocal at
        zeros = 0
        while at < 64 and not bits >> (63 - at) & 1:
            zeros, at = zeros + 1, at + 1
        if at + zeros >= 64:
            return -1
        value = bits >> (63 - at - zeros) & ((1 << zeros + 1) - 1)
        at += zeros + 1
        return value - 1

    return -1 if ue() < 0 else ue()


def key_picture(data: bytes) -> VideoFrame | None:
    """The picture of a key frame with its headers; None: it cannot be decoded."""
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, VideoCodecContext)  # noqa: S101
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}
    try:
        pictures = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except (av.FFmpegError, ValueError):
        return None
    return pictures[0] if len(pictures) == 1 and not pictures[0].is_corrupt else None
