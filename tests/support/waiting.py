"""Waiting for a peer that tells nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["until", "until_true"]


async def until(condition: Callable[[], object], what: str, within_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        await asyncio.sleep(0.01)


async def until_true(condition: Callable[[], Awaitable[object]], what: str, within_s: float = 10.0) -> None:
    """Of a condition that has to be awaited."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        await asyncio.sleep(0.05)
