"""Calls between the running appliance and the real operator page, judged at both ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.vocabulary import Scope
from tests.support.appliance import TONE_HERTZ, Appliance, Panel
from tests.support.broker import Broker, Client, User
from tests.support.browser import Chromium, chromium
from tests.support.operator_page import Operator

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

PAGE_HERTZ = 880.0
USERS = [User("boss", Scope.ADMIN), User("lena", Scope.OPERATOR)]


@dataclass
class House:
    """One appliance, one broker, one browser for all tests of this file."""

    door: Appliance
    boss: Client
    browser: Chromium
    panel: Panel


def figure(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Figures are for the record (EDGECALL_FIGURES=1), never for a verdict."""
    if os.environ.get("EDGECALL_FIGURES"):
        with capsys.disabled():
            print(f"\n  {words}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    broker = Broker(folder / "broker", users=USERS, devices=["door-1"])
    await broker.start()
    settings = {"call.ring_s": 5, "call.reconnect_s": 5, "board.screen": "1280x720"}
    try:
        async with (Appliance(folder / "door", broker=broker, settings=settings) as door, door.commander() as boss,
                    chromium(PAGE_HERTZ) as browser, door.panel(watch=True) as panel):
            yield House(door, boss, browser, panel)
    finally:
        await broker.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def house(shared: House) -> AsyncIterator[House]:
    yield shared
    door = shared.door
    if door.state("call").get("state") not in ("None", "Disconnected"):
        await door.give("call.hangup")
        await door.call_is("None", "Disconnected")
    for page in shared.browser.context.pages[1:]:
        await page.close()
    await door.wait_for_state("device", lambda device: not device["onDuty"])


@pytest_asyncio.fixture(loop_scope="module")
async def operator(house: House) -> Operator:
    return await Operator.on_duty(house.browser, house.door)


async def in_call(house: House, operator: Operator) -> None:
    await house.door.press(house.boss)
    await operator.rings()
    await operator.answer()
    await house.door.call_is("Connected")
    await operator.connected()
    await operator.picture()
    await operator.listen()


async def test_a_press_rings_is_answered_and_both_sides_see_and_hear(house: House, operator: Operator, capsys) -> None:
    begun = time.time()
    await asyncio.gather(house.door.press(house.boss), operator.rings())
    rang = time.time()
    assert (await operator.visitor()) >= (320, 180)
    call = house.door.state("call")
    assert call["state"] == "Ringing"
    answered = time.time()
    await operator.answer()
    await operator.picture()
    seen = time.time()
    await operator.listen()
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)
    heard = time.time()
    figure(capsys, f"press to ring {1000 * (rang - begun):.0f} ms, "
                   f"answer to picture {1000 * (seen - answered):.0f} ms, "
                   f"to sound proven both ways {1000 * (heard - answered):.0f} ms")
    first, frames, at = await operator.sees(), await operator.frames(), time.monotonic()
    mirrored = await house.panel.sees()
    await asyncio.sleep(2.0)
    last, frames_then, then = await operator.sees(), await operator.frames(), time.monotonic()
    assert first.mark is not None and last.mark is not None
    rate = (frames_then - frames) / (then - at)
    figure(capsys, f"pictures decoded at the operator {rate:.1f}/s of {last.width}x{last.height}")
    assert rate >= 20
    assert (last.mark.counter - first.mark.counter) / (then - at) >= 20
    assert (await house.panel.sees()).counter != mirrored.counter
    call = house.door.state("call")
    assert call["state"] == "Connected" and call["direction"] == "Outgoing"
    await operator.click("hangup")
    await house.door.ended("0/remote")
    await house.panel.silent()
    assert not house.door.state("media")["capturing"] or await house.door.wait_for_state(
        "media", lambda media: not media["capturing"])


async def test_mute_by_button_by_mqtt_and_by_the_page_is_silence_at_the_other_end(
        house: House, operator: Operator, capsys) -> None:
    door = house.door
    await in_call(house, operator)
    await operator.hears(TONE_HERTZ)
    for name in ("button", "mqtt"):
        begun = time.time()
        if name == "button":
            await door.press(house.boss, "mute")
        else:
            assert (await door.publish(house.boss, "call.mute"))["result"] == "done"
        muted = await door.wait_for_state("call", lambda call: call["isMuted"])
        assert muted
        done = time.time()
        await operator.silent()
        silence = await operator.last_loud()
        figure(capsys, f"mute by {name}: silent at the peer {1000 * (silence - begun):.0f} ms after the command")
        assert silence - done < 0.5
        await operator.until("return !document.querySelector('#chip-peer-muted').hidden", "shown as muted")
        begun = time.time()
        if name == "button":
            await door.press(house.boss, "mute")
        else:
            assert (await door.publish(house.boss, "call.unmute"))["result"] == "done"
        await operator.hears(TONE_HERTZ)
        figure(capsys, f"unmute by {name}: heard {1000 * (await operator.loud_since() - begun):.0f} ms after")
    await house.panel.hears(PAGE_HERTZ)
    begun = time.monotonic()
    await operator.click("mute")
    await house.panel.silent()
    figure(capsys, f"mute by the page: silent at the device {1000 * (time.monotonic() - begun):.0f} ms after the click")
    await operator.click("mute")
    await house.panel.hears(PAGE_HERTZ)


async def test_hold_from_either_side_is_silence_both_ways_and_resume_brings_it_back(
        house: House, operator: Operator) -> None:
    door = house.door
    await in_call(house, operator)
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)
    assert (await door.publish(house.boss, "call.hold"))["result"] == "done"
    await door.call_is("LocalHold")
    await operator.silent()
    await house.panel.silent()
    await operator.until("return !document.querySelector('#chip-held').hidden", "shown as held")
    assert (await door.publish(house.boss, "call.resume"))["result"] == "done"
    await door.call_is("Connected")
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)
    await operator.click("hold")
    await door.call_is("RemoteHold")
    await operator.silent()
    await house.panel.silent()
    await operator.click("hold")
    await door.call_is("Connected")
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)


async def test_stopped_video_closes_the_camera_and_comes_back(house: House, operator: Operator) -> None:
    door = house.door
    await in_call(house, operator)
    await door.wait_for_state("media", lambda media: media["video"]["actual"]["open"])
    assert (await door.publish(house.boss, "video.stop"))["result"] == "done"
    await door.wait_for_state("media", lambda media: not media["video"]["actual"]["open"])
    await operator.until("return !document.querySelector('#no-video').hidden", "shown as without picture")
    assert (await door.publish(house.boss, "call.mute"))["result"] == "done"
    await door.wait_for_state("media", lambda media: not media["capturing"])
    await door.wait_for_state("io", lambda io: io["lamps"]["capture"]["pattern"] == [[1.0, False]])
    assert (await door.publish(house.boss, "call.unmute"))["result"] == "done"
    assert (await door.publish(house.boss, "video.start"))["result"] == "done"
    await door.wait_for_state("media", lambda media: media["video"]["actual"]["open"])
    await door.wait_for_state("io", lambda io: io["lamps"]["capture"]["pattern"] == [[1.0, True]])
    await operator.picture()
    before = (await operator.sees()).mark
    await asyncio.sleep(0.5)
    after = (await operator.sees()).mark
    assert before is not None and after is not None and after.counter > before.counter
    await house.panel.sees()
    await operator.click("camera")
    await asyncio.sleep(0.3)
    house.panel.screens.clear()
    with pytest.raises(AssertionError):
        await house.panel.sees(0.7)
    await operator.click("camera")
    await house.panel.sees()


async def test_a_declined_call_says_so_on_the_device(house: House, operator: Operator) -> None:
    await house.door.press(house.boss)
    await operator.rings()
    await operator.click("decline")
    await house.door.ended("603/declined")
    await operator.view("idle")


async def test_nobody_answers_in_time(house: House, operator: Operator) -> None:
    begun = time.monotonic()
    await house.door.press(house.boss)
    await operator.rings()
    await house.door.ended("487/noAnswer", 8)
    assert 4.5 < time.monotonic() - begun < 7
    await operator.view("idle")


async def test_a_second_press_takes_the_call_back(house: House, operator: Operator) -> None:
    await house.door.press(house.boss)
    await operator.rings()
    await house.door.press(house.boss)
    await house.door.ended("0/local")
    await operator.view("idle")
    assert house.door.state("calls")["calls"][0]["endReason"]["subCode"] == "local"


async def test_who_calls_into_a_call_is_told_busy(house: House, operator: Operator) -> None:
    await in_call(house, operator)
    second = await Operator.on_duty(house.browser, house.door)
    since = len(house.door.events)
    await second.click("call-device")
    assert "in a call" in await second.ended()
    missed = await house.door.event("call.missed", since=since)
    assert missed["data"]["reason"]["subCode"] == "busy"
    assert house.door.state("call")["state"] == "Connected"
    await operator.hears(TONE_HERTZ)


async def test_a_press_with_nobody_on_duty_says_so_on_the_device(house: House) -> None:
    await house.door.wait_for_state("device", lambda device: not device["onDuty"])
    house.panel.screens.clear()
    await house.door.press(house.boss)
    call = await house.door.ended("480/unreachable")
    assert "operator page" in call["endReason"]["advice"]
    await house.door.wait_for_state("diag", lambda diag: diag.get("nobodyOnDuty", {}).get("value") is True)
    words = set(house.panel.screens)
    await house.panel.until(lambda: len(set(house.panel.screens) - words) > 0, "words on the screen", 3)
    await Operator.on_duty(house.browser, house.door)
    await house.door.wait_for_state("diag", lambda diag: not diag.get("nobodyOnDuty", {}).get("value"))


async def test_do_not_disturb_refuses_and_says_why(house: House, operator: Operator) -> None:
    assert (await house.door.publish(house.boss, "dnd.set", on=True))["result"] == "done"
    try:
        since = len(house.door.events)
        await operator.click("call-device")
        assert "disturb" in await operator.ended()
        missed = await house.door.event("call.missed", since=since)
        assert missed["data"]["reason"]["subCode"] == "doNotDisturb"
    finally:
        assert (await house.door.publish(house.boss, "dnd.set", on=False))["result"] == "done"


async def test_an_allowed_caller_is_answered_by_itself_after_a_tone(house: House, operator: Operator) -> None:
    entry = {"name": "Operators", "uris": ["operator:*"]}
    assert (await house.door.publish(house.boss, "book.put", **entry, autoAnswer=True))["result"] == "done"
    try:
        await operator.click("call-device")
        await house.panel.hears(1320, 3)
        assert house.door.state("call")["state"] == "Incoming"  # the tone is first, the microphone after it
        await house.door.call_is("Connected")
        await operator.picture()
        await operator.listen()
        await operator.hears(TONE_HERTZ)
        await house.panel.hears(PAGE_HERTZ)
    finally:
        assert (await house.door.publish(house.boss, "book.put", **entry, autoAnswer=False))["result"] == "done"


async def test_all_on_duty_ring_and_the_others_are_told_who_answered(house: House, operator: Operator) -> None:
    second = await Operator.arrive(house.browser, house.door)
    await second.duty()
    await asyncio.sleep(0.2)
    await house.door.press(house.boss)
    await asyncio.gather(operator.rings(), second.rings())
    await second.answer()
    await house.door.call_is("Connected")
    assert "else answered" in await operator.ended()
    await second.picture()
    await second.listen()
    await second.hears(TONE_HERTZ)


async def test_the_page_calls_and_the_button_answers_and_hangs_up(house: House, operator: Operator) -> None:
    await operator.click("call-device")
    call = await house.door.call_is("Incoming")
    assert call["direction"] == "Incoming" and call["callerInfo"]["verified"] is True
    await house.panel.until(lambda: house.panel.heard()[1] > -40, "the ring at the device")
    await house.door.press(house.boss)
    await house.door.call_is("Connected")
    await operator.picture()
    await operator.listen()
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)
    await house.door.press(house.boss)
    await house.door.ended("0/local")
    assert "ended" in await operator.ended()


async def test_a_reloaded_page_comes_back_to_its_call(house: House, operator: Operator, capsys) -> None:
    await in_call(house, operator)
    call = house.door.state("call")["callId"]
    begun = time.monotonic()
    await operator.page.reload()
    await operator.connected(15)
    await operator.picture()
    figure(capsys, f"reload to picture {1000 * (time.monotonic() - begun):.0f} ms")
    now = await house.door.call_is("Connected")
    assert now["callId"] == call
    await operator.listen()
    await operator.hears(TONE_HERTZ)
    await house.panel.hears(PAGE_HERTZ)


async def test_a_closed_tab_ends_the_call(house: House, operator: Operator, capsys) -> None:
    await in_call(house, operator)
    begun = time.monotonic()
    await operator.close()
    await house.door.ended("0/remote", 12)
    figure(capsys, f"closed tab: ended after {time.monotonic() - begun:.1f} s")
    await house.door.wait_for_state("device", lambda device: not device["onDuty"])
