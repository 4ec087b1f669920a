"""What goes wrong with slots and partitions, in words for the person who must act."""

from __future__ import annotations

__all__ = ["ImageError"]


class ImageError(Exception):
    """Says what, where and why, and what can be done."""
