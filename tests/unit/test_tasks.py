"""Tasks that nobody awaits tell of their unexpected end; changes are told to all who wait."""

from __future__ import annotations

import asyncio

from appliance.tasks import Changes, background


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


async def test_a_change_is_told_to_all_who_wait_and_once() -> None:
    changes = Changes()
    changes.tell()
    waiting = [asyncio.create_task(changes.next()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting), "what was before is seen by looking"
    changes.tell()
    await asyncio.gather(*waiting)
    later = asyncio.create_task(changes.next())
    await asyncio.sleep(0)
    assert not later.done()
    later.cancel()
