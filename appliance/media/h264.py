"""H.264 as telephones agree on it (RFC 6184): profile and level, parameter sets, packets without fragments. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hw.api import VideoMode

__all__ = [
    "PACKET_MODE", "SLICE_BYTES", "PictureLimit", "has_parameter_sets", "level_of", "limit_of", "parameter_sets_of",
    "single_units", "sprop_of", "units_of",
]

PACKET_MODE: Final = "packetization-mode"
SLICE_BYTES: Final = 1200
"""Asked of an encoder whose NAL units have to fit into packets of their own (packetization-mode 0)."""

LARGEST_UNIT: Final = 1360  # bytes: with the headers of IPv6, UDP, RTP and SRTP a datagram of Ethernet
SETS_BYTES: Final = 2048  # of a peer's description; real ones have fifty
SPS, PPS, IDR = 7, 8, 5
START: Final = b"\0\0\0\1"

_LEVELS: Final[Mapping[int, tuple[int, int, int]]] = {
    9: (1485, 99, 128), 10: (1485, 99, 64), 11: (3000, 396, 192), 12: (6000, 396, 384), 13: (11_880, 396, 768),
    20: (11_880, 396, 2000), 21: (19_800, 792, 4000), 22: (20_250, 1620, 4000), 30: (40_500, 1620, 10_000),
    31: (108_000, 3600, 14_000), 32: (216_000, 5120, 20_000), 40: (245_760, 8192, 20_000), 41: (245_760, 8192, 50_000),
    42: (522_240, 8704, 50_000), 50: (589_824, 22_080, 135_000), 51: (983_040, 36_864, 240_000),
    52: (2_073_600, 36_864, 240_000),
}
"""By level_idc (9 stands for 1b): macroblocks a second, macroblocks of a picture, kbit/s (H.264, table A-1)."""

_PROFILE: Final = re.compile(r"[0-9A-Fa-f]{6}")


@dataclass(frozen=True, slots=True)
class PictureLimit:
    """The most that a peer takes: macroblocks (16 x 16 pixels) of a picture and a second, bits per second; 0: any."""

    blocks: int = 0
    blocks_per_s: int = 0
    bits_per_second: int = 0


def limit_of(parameters: Mapping[str, str], bits_per_second: int) -> PictureLimit:
    """By the ``a=fmtp`` of who receives, and the bandwidth of its line (0: none said). A peer that says no level means
    the least one by the letter of RFC 6184 8.1, and in truth that it does not care."""
    limits = _LEVELS.get(_level_idc(parameters.get("profile-level-id", "")))
    if limits is None:
        return PictureLimit(bits_per_second=bits_per_second)
    per_s, blocks, kilobits = (
        max(least, _number(parameters.get(name, "")))  # these only ever raise what the level says
        for name, least in zip(("max-mbps", "max-fs", "max-br"), limits, strict=True))
    bits = kilobits * 1000
    return PictureLimit(blocks, per_s, min(bits, bits_per_second) if bits_per_second else bits)


def _level_idc(profile_level_id: str) -> int:
    if not _PROFILE.fullmatch(profile_level_id):
        return 0
    profile, constraints, level = bytes.fromhex(profile_level_id)
    return 9 if level == 11 and constraints & 0x10 and profile in (66, 77, 88) else level


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def level_of(mode: VideoMode) -> int:
    """The least level_idc, from 3.1 on, whose limits a picture of this mode keeps."""
    blocks = -(-mode.width // 16) * -(-mode.height // 16)
    enough = (idc for idc, (per_s, most, _) in _LEVELS.items()
              if idc >= 31 and blocks <= most and blocks * mode.fps <= per_s)
    return next(enough, 52)


def units_of(access_unit: bytes) -> Iterator[bytes]:
    """The NAL units of an access unit in Annex B."""
    at = access_unit.find(b"\0\0\1")
    while at != -1:
        begin = at + 3
        at = access_unit.find(b"\0\0\1", begin)
        unit = access_unit[begin:] if at == -1 else access_unit[begin:at]
        if unit := unit.rstrip(b"\0"):  # the zero of a longer start code, and padding
            yield unit


def single_units(access_unit: bytes) -> list[bytes]:
    """RTP payloads of packetization-mode 0: each NAL unit alone. None at all where one is too large for a packet."""
    units = list(units_of(access_unit))
    return units if all(len(unit) <= LARGEST_UNIT for unit in units) else []


def has_parameter_sets(access_unit: bytes) -> bool:
    return any(unit[0] & 0x1F == SPS for unit in units_of(access_unit))


def parameter_sets_of(text: str) -> bytes:
    """``sprop-parameter-sets`` (RFC 6184 8.1) in Annex B; empty for what is none."""
    if len(text) > SETS_BYTES:
        return b""
    try:
        units = [base64.b64decode(part + "=" * (-len(part) % 4), validate=True) for part in text.split(",")]
    except (binascii.Error, ValueError):
        return b""
    return b"".join(START + unit for unit in units if unit and unit[0] & 0x1F in (SPS, PPS))


def sprop_of(access_unit: bytes) -> str:
    """``sprop-parameter-sets`` of a key frame; empty where it has none."""
    sets = [unit for unit in units_of(access_unit) if unit[0] & 0x1F in (SPS, PPS)]
    return ",".join(base64.b64encode(unit).decode() for unit in sets) if len(sets) >= 2 else ""
