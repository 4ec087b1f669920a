"""Tasks that nobody awaits tell of their unexpected end."""

from __future__ import annotations

import asyncio

from appliance.tasks import background


async def fails() -> None:
    raise KeyError("slot")


async def test_an_exception_is_told_and_cancelling_is_not() -> None:
    told: list[Exception] = []
    failing = background(fails(), name="test.fails", failed=told.append)
    waiting = background(asyncio.Event().wait(), name="test.waits", failed=told.append)  # type: ignore[arg-type]
    await asyncio.wait([failing])
    waiting.cancel()
    await asyncio.wait([waiting])
    assert [repr(error) for error in told] == ["KeyError('slot')"]
    assert failing.get_name() == "test.fails"
