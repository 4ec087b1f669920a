"""Tap points: what is read, what is lost when nobody reads, and that memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

from appliance.media.taps import Tap, TapPoint


@dataclass
class Unit:
    number: int
    key: bool = False
    size: int = 100


async def point(**more: object) -> TapPoint[Unit]:
    return TapPoint(lambda unit: unit.size, begins=lambda unit: unit.key, **more)  # type: ignore[arg-type]


async def numbers(tap: Tap[Unit]) -> list[int]:
    return [unit.number async for unit in tap]


async def test_a_consumer_begins_with_a_key_frame_and_gets_everything_after() -> None:
    units = await point()
    assert not units.active
    tap = units.open(10_000)
    assert units.active
    for number in range(6):
        units.put(Unit(number, key=number == 2))
    units.close()
    assert await numbers(tap) == [2, 3, 4, 5]
    assert tap.dropped == 0


async def test_a_slow_consumer_loses_up_to_the_next_key_frame_and_one_is_asked_for() -> None:
    asked: list[int] = []
    units = await point(on_loss=lambda: asked.append(1))
    tap = units.open(500)
    for number in range(8):
        units.put(Unit(number, key=number in (0, 4)))
    assert tap.waiting_bytes <= 500
    await asyncio.sleep(0)
    assert asked
    units.put(Unit(8))
    units.close()
    assert await numbers(tap) == [4, 5, 6, 7, 8]
    assert tap.dropped == 4


async def test_without_another_key_frame_everything_waits_for_one() -> None:
    units = await point()
    tap = units.open(500)
    for number in range(20):
        units.put(Unit(number, key=number in (0, 15)))
    units.close()
    assert await numbers(tap) == [15, 16, 17, 18, 19]
    assert tap.dropped == 6, "those behind the loss were never taken"


async def test_an_item_larger_than_the_bound_is_not_kept() -> None:
    units = await point()
    tap = units.open(500)
    units.put(Unit(0, key=True, size=600))
    assert (tap.waiting_bytes, tap.dropped) == (0, 1)


async def test_a_waiting_consumer_is_woken_by_what_fits_after_what_did_not() -> None:
    units = await point()
    reading = asyncio.create_task(anext(units.open(500)))
    await asyncio.sleep(0)
    units.put(Unit(0, key=True, size=600))
    units.put(Unit(1, key=True))
    async with asyncio.timeout(1):
        assert (await reading).number == 1


async def test_items_of_another_thread_arrive_and_wake_the_consumer() -> None:
    units = await point()
    tap = units.open(10_000)
    reading = asyncio.create_task(numbers(tap))
    await asyncio.sleep(0)

    def produce() -> None:
        for number in range(5):
            units.put(Unit(number, key=True))

    thread = threading.Thread(target=produce)
    thread.start()
    while len(tap._items) or thread.is_alive():  # noqa: ASYNC110 the thread is another's
        await asyncio.sleep(0.001)
    tap.close()
    tap.close()
    assert await reading == [0, 1, 2, 3, 4]
    assert not units.active


async def test_an_unread_tap_is_bounded() -> None:
    units = await point()
    tap = units.open(4_000_000)
    for number in range(60 * 30):  # a minute of 360p30 at 0.5 Mbit/s and the next at 8 Mbit/s
        units.put(Unit(number, key=number % 90 == 0, size=33_000))
    assert tap.waiting_bytes <= 4_000_000
