"""Whether a camera sees anything."""

from __future__ import annotations

from typing import Final

from av.video.frame import VideoFrame

__all__ = ["is_dark"]

DARK_LUMA: Final = 24
"""Mean luma below which the lens counts as covered; video black is 16, sensor noise adds a few steps."""


def is_dark(picture: VideoFrame) -> bool:
    """By a sample of the luma of a planar picture; some microseconds."""
    sample = bytes(memoryview(picture.planes[0])[::1009])  # a prime: no column is favoured
    return sum(sample) < DARK_LUMA * len(sample)
