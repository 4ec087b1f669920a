"""Calls between the appliance (simulated board, real media) and a real browser, judged by what each receives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from playwright.async_api import Page

from appliance.handover import PeerIdentity
from appliance.media.session import Session
from appliance.network import DefaultRoute, Network
from appliance.providers import api
from appliance.vocabulary import END_REASONS, Scope
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.direct_page import Appliance, Told, appliance
from tests.support.interface import ADDRESS
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440.0
PAGE_HERTZ = 880.0


@asynccontextmanager
async def on_duty(identity: PeerIdentity | None = None) -> AsyncIterator[tuple[Appliance, Chromium, Page]]:
    """An appliance and an operator on duty in a browser."""
    async with appliance(hertz=DEVICE_HERTZ, identity=identity) as device, chromium(PAGE_HERTZ) as browser:
        page = await browser.open(device.url)
        await page.evaluate("() => peer.goOnDuty('Olga')")
        await until(lambda: list(device.provider.on_duty) == ["Olga"], "on duty")
        yield device, browser, page


async def answered(device: Appliance, page: Page) -> Told:
    """The device calls and the page answers: connected at both ends."""
    told = Told(await device.dial())
    await told.until(api.Ringing)
    await page.evaluate("() => peer.answer(peer.state.call.callId)")
    await told.until(api.Accepted)
    await told.until(api.Connected)
    await state(page, "Connected")
    return told


async def state(page: Page, name: str, within_s: float = 10.0) -> None:
    try:
        await wait_for(page, "(name) => peer.state.call?.state === name", within_s, name)
    except Exception as error:
        raise AssertionError(f"no {name}: {await page.evaluate('() => JSON.stringify(peer.state)')}") from error


async def device_hears(device: Appliance, hertz: float, within_s: float = 10.0) -> None:
    await until(lambda: abs(device.board.hears()[0] - hertz) < 6 and device.board.hears()[1] > -40,
                f"{hertz} Hz at the device", within_s)


async def device_sees_rising(device: Appliance) -> None:
    """Three different valid counters in a row: the page's file is played in a loop."""
    seen: list[int] = []

    def look() -> bool:
        mark = device.board.mark()
        if mark is not None and (not seen or seen[-1] != mark.counter):
            seen.append(mark.counter)
        return len(seen) >= 4

    await until(look, "rising counters at the device")
    assert sum(later > earlier for earlier, later in pairwise(seen)) >= 2, seen


async def page_sees_rising(page: Page) -> None:
    async def counter() -> int:
        for _ in range(200):
            mark = (await Chromium.sees(page)).mark
            if mark is not None:
                return mark.counter
            await asyncio.sleep(0.05)
        raise AssertionError("no test picture is seen in the page")

    first = await counter()
    frames = await Chromium.frames_decoded(page)
    await asyncio.sleep(0.5)
    assert await counter() > first
    assert await Chromium.frames_decoded(page) > frames


async def test_a_picture_that_the_device_does_not_show_is_not_sent() -> None:
    async with on_duty() as (device, _browser, page):
        told = await answered(device, page)
        await told.leg.tell(muted=False, held=False, video=True)
        await device_sees_rising(device)

        async def sent() -> int:
            return int(await page.evaluate("""async () => [...(await peer.stats()).values()].find(
                ({ type, kind }) => type === "outbound-rtp" && kind === "video").bytesSent"""))

        async def rests() -> None:
            """Nothing within a second, once what was on its way has left."""
            async with asyncio.timeout(10):
                while True:
                    before = await sent()
                    await asyncio.sleep(1)
                    if await sent() == before > 0:
                        return

        await told.leg.set_media(api.MediaWanted(receive_video=False))
        await rests()
        await device_hears(device, PAGE_HERTZ)
        assert (await page.evaluate("() => peer.state.call.state")) == "Connected"
        await told.leg.set_media(api.MediaWanted())
        await device_sees_rising(device)


async def test_the_operator_answers_and_both_see_and_hear_each_other() -> None:
    async with on_duty() as (device, _browser, page):
        told = Told(await device.dial())
        await told.until(api.Ringing)
        await wait_for(page, "() => peer.state.call?.picture?.startsWith('blob:')", 1.0)
        await page.evaluate("() => peer.answer(peer.state.call.callId)")
        accepted = await told.until(api.Accepted)
        assert isinstance(accepted, api.Accepted)
        assert (accepted.peer.identity, accepted.peer.display_name, accepted.peer.verified) == ("olga", "Olga", True)
        connected = await told.until(api.Connected)
        assert isinstance(connected, api.Connected)
        assert connected.security["srtpCipher"]
        await state(page, "Connected")
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await page_sees_rising(page)
        await device_hears(device, PAGE_HERTZ)
        await device_sees_rising(device)

        await page.evaluate("() => peer.setMuted(true)")
        muted = await told.until(api.PeerMedia)
        assert isinstance(muted, api.PeerMedia)
        assert muted.muted
        await until(lambda: device.board.hears()[1] < -70, "silence of the muted page")
        await page.evaluate("() => peer.setMuted(false)")
        await device_hears(device, PAGE_HERTZ)

        device.studio.mute(True)
        await told.leg.tell(muted=True, held=False, video=True)
        await wait_for(page, "() => peer.state.call.peerMuted")
        await Chromium.hears_silence(page)

        assert await page.evaluate("() => peer.send('text', 'hello device')")
        data = await told.until(api.DataReceived)
        assert data == api.DataReceived("text", "hello device", told.leg.id)
        await told.leg.send("text", "hello page")
        await wait_for(page, "() => window.data.length === 1 && window.data[0].payload === 'hello page'")
        await told.leg.send("text", "\x01" * 60_000)  # more than one frame
        await told.leg.send("text", "bye", lossy=True)
        await wait_for(page, "() => window.data.some(({ payload }) => payload === '\\x01'.repeat(60000))")
        await wait_for(page, "() => window.data.some(({ payload }) => payload === 'bye')")

        await told.leg.end(END_REASONS["0/local"])
        assert await told.until(api.Ended) == api.Ended(END_REASONS["0/local"])
        await state(page, "Disconnected")
        assert await page.evaluate("() => peer.state.call.reason.subCode") == "remote"


async def test_the_page_calls_and_hangs_up() -> None:
    async with on_duty() as (device, _browser, page):
        await page.evaluate("() => peer.call()")
        incoming = await asyncio.wait_for(device.incoming.get(), 5)
        assert (incoming.leg.peer.identity, incoming.leg.peer.verified) == ("olga", True)
        told = Told(incoming.leg)
        await incoming.leg.ring()
        await state(page, "Ringing")
        await incoming.leg.accept(api.MediaWanted())
        await told.until(api.Connected)
        await state(page, "Connected")
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await device_hears(device, PAGE_HERTZ)
        await page_sees_rising(page)
        await device_sees_rising(device)
        await page.evaluate("() => peer.hangup()")
        assert await told.until(api.Ended) == api.Ended(END_REASONS["0/remote"])


async def test_the_page_rejects() -> None:
    async with on_duty() as (device, _browser, page):
        told = Told(await device.dial())
        await told.until(api.Ringing)
        await page.evaluate("() => peer.reject(peer.state.call.callId)")
        assert await told.until(api.Ended) == api.Ended(END_REASONS["603/declined"])


@pytest.mark.parametrize("caller", ["device", "page"])
async def test_a_reloaded_page_comes_back_to_its_call(caller: str) -> None:
    async with on_duty() as (device, _browser, page):
        if caller == "device":
            told = await answered(device, page)
        else:
            await page.evaluate("() => peer.call()")
            incoming = await asyncio.wait_for(device.incoming.get(), 5)
            told = Told(incoming.leg)
            await incoming.leg.accept(api.MediaWanted())
            await told.until(api.Connected)
            await state(page, "Connected")
        await page.reload()
        await told.until(api.Lost)
        await told.until(api.Recovered)
        await state(page, "Connected")
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await device_hears(device, PAGE_HERTZ)
        await page_sees_rising(page)
        assert await page.evaluate("() => peer.state.duty")
        await told.leg.end(END_REASONS["0/local"])


@pytest.mark.parametrize("caller", ["device", "page"])
async def test_a_better_route_is_taken_and_neither_side_sees_a_loss(caller: str) -> None:
    """``device``: the page offers, and is asked to; ``page``: the device does."""
    elsewhere = PeerIdentity("olga", Scope.OPERATOR, "Olga", loopback=False, session="s1")
    async with on_duty(elsewhere) as (device, _browser, page):
        if caller == "device":
            told = await answered(device, page)
        else:
            await page.evaluate("() => peer.call()")
            incoming = await asyncio.wait_for(device.incoming.get(), 5)
            told = Told(incoming.leg)
            await incoming.leg.accept(api.MediaWanted())
            await told.until(api.Connected)
            await state(page, "Connected")
        await device_hears(device, PAGE_HERTZ)
        (before,) = device.studio._sessions
        old, new = (Network(frozenset({ADDRESS}), DefaultRoute(2, gateway)) for gateway in ("10.99.0.2", "10.99.0.7"))
        device.studio.network_changed(old, new)
        await until(lambda: before not in device.studio._sessions, "the old connection is closed")
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await device_hears(device, PAGE_HERTZ)
        await device_sees_rising(device)
        assert "Reconnecting" not in await page.evaluate("() => window.states")
        assert not any(isinstance(event, api.Lost) for event in told.events)
        await told.leg.end(END_REASONS["0/local"])


@pytest.mark.parametrize("caller", ["device", "page"])
async def test_a_network_that_changes_while_a_call_is_set_up_does_not_end_it(caller: str) -> None:
    elsewhere = PeerIdentity("olga", Scope.OPERATOR, "Olga", loopback=False, session="s1")
    before, now = Network(frozenset({ADDRESS})), Network(frozenset({ADDRESS, "10.99.0.8"}))
    async with on_duty(elsewhere) as (device, _browser, page):

        def change() -> Session:
            (first,) = device.studio._sessions
            device.studio.network_changed(before, now)
            return first

        if caller == "device":
            told = Told(await device.dial())
            await told.until(api.Ringing)
            answering = asyncio.create_task(page.evaluate("() => peer.answer(peer.state.call.callId)"))
            await told.until(api.Accepted)
            first = change()  # at once: a tenth of a second later the connection is up
            await answering
        else:
            await page.evaluate("() => peer.call()")
            incoming = await asyncio.wait_for(device.incoming.get(), 5)
            told = Told(incoming.leg)
            await incoming.leg.accept(api.MediaWanted())
            first = change()
        await told.until(api.Connected)
        await state(page, "Connected")
        await until(lambda: first not in device.studio._sessions, "the first connection is closed")
        await device_hears(device, PAGE_HERTZ)
        await told.leg.end(END_REASONS["0/local"])


async def test_a_page_that_is_reloaded_while_it_rings_rings_again() -> None:
    async with on_duty() as (device, _browser, page):
        told = Told(await device.dial())
        await told.until(api.Ringing)
        await page.reload()
        await state(page, "Incoming")
        await wait_for(page, "() => peer.state.call.picture?.startsWith('blob:')")
        await page.evaluate("() => peer.answer(peer.state.call.callId)")
        await told.until(api.Connected)
        await told.leg.end(END_REASONS["0/local"])


async def test_a_reloaded_page_takes_its_unanswered_call_back() -> None:
    async with on_duty() as (device, _browser, page):
        await page.evaluate("() => peer.call()")
        incoming = await asyncio.wait_for(device.incoming.get(), 5)
        told = Told(incoming.leg)
        await incoming.leg.ring()
        await state(page, "Ringing")
        await page.reload()
        assert await told.until(api.Ended) == api.Ended(END_REASONS["487/cancelled"])


async def test_two_tabs_ring_and_the_second_is_told_that_the_first_answered() -> None:
    async with on_duty() as (device, browser, page):
        other = await browser.open(device.url)
        await other.evaluate("() => peer.goOnDuty('Otto')")
        await until(lambda: len(device.provider.on_duty) == 2, "both on duty")
        told = Told(await device.dial())
        await state(page, "Incoming")
        await state(other, "Incoming")
        await other.evaluate("() => peer.answer(peer.state.call.callId)")
        accepted = await told.until(api.Accepted)
        assert isinstance(accepted, api.Accepted)
        assert accepted.peer.display_name == "Otto"
        await told.until(api.Connected)
        await state(page, "Disconnected")
        assert await page.evaluate("() => peer.state.call.reason.subCode") == "answeredElsewhere"
        await told.leg.end(END_REASONS["0/local"])


async def test_page_and_device_dial_each_other_and_are_connected_once() -> None:
    call_while_busy = """() => {
      console.log("busy");
      const until = performance.now() + 1000;
      while (performance.now() < until);
      return peer.call();
    }"""
    async with on_duty() as (device, browser, page):
        # "olga" is larger than "door-1": the device's call lives and the page answers it without a click. The page
        # calls before it can read that it is called.
        clicked = asyncio.create_task(page.evaluate(call_while_busy))
        await until(lambda: "busy" in browser.console, "the page is busy")
        told = Told(await device.dial())
        await clicked
        await told.until(api.Connected)
        await state(page, "Connected")
        assert device.incoming.empty()
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await told.leg.end(END_REASONS["0/local"])


@pytest.mark.parametrize("missing", [pytest.param("video", marks=pytest.mark.long), "both"])
async def test_an_operator_without_devices_sees_and_hears_and_is_told_why(missing: str) -> None:
    refuse = """(missing) => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (wanted.video || missing === "both") throw new DOMException("none", "NotFoundError");
        return real(wanted);
      };
    }"""
    async with appliance(hertz=DEVICE_HERTZ) as device, chromium(PAGE_HERTZ) as browser:
        page = await browser.open(device.url)
        await page.evaluate(refuse, missing)
        devices = await page.evaluate("() => peer.goOnDuty('Olga')")
        assert devices["video"] is False
        assert devices["audio"] is (missing == "video")
        assert devices["without"]["video"] == "NotFoundError"
        await until(lambda: list(device.provider.on_duty) == ["Olga"], "on duty")
        told = await answered(device, page)
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await page_sees_rising(page)
        if missing == "video":
            await device_hears(device, PAGE_HERTZ)
        await asyncio.sleep(11)  # longer than media that is owed is waited for: none is owed
        assert not any(isinstance(event, api.Ended | api.Lost) for event in told.events)
        await told.leg.end(END_REASONS["0/local"])


async def test_hold_stops_both_ways_and_resume_brings_both_back() -> None:
    async with on_duty() as (device, _browser, page):
        told = await answered(device, page)
        await Chromium.listen(page)
        await Chromium.hears(page, DEVICE_HERTZ)
        await page.evaluate("() => peer.setHold(true)")
        held = await told.until(api.Held)
        assert held == api.Held(True)
        await state(page, "LocalHold")
        await until(lambda: device.board.hears()[1] < -70, "silence of the page that holds")
        await told.leg.set_media(api.MediaWanted(False, False, False, False))
        await told.leg.tell(muted=False, held=True, video=False)
        await Chromium.hears_silence(page)
        await asyncio.sleep(5)  # nothing is due, so nothing is lost
        assert not any(isinstance(event, api.Lost) for event in told.events)
        await page.evaluate("() => peer.setHold(false)")
        await told.leg.set_media(api.MediaWanted())
        await told.leg.tell(muted=False, held=False, video=True)
        await device_hears(device, PAGE_HERTZ)
        await Chromium.hears(page, DEVICE_HERTZ)
        await page_sees_rising(page)
        await device_sees_rising(device)
        await told.leg.end(END_REASONS["0/local"])


@pytest.mark.long  # on every run with the whole appliance: test_calls_operator.py
async def test_a_closed_tab_ends_the_call_after_its_time_to_come_back() -> None:
    async with on_duty() as (device, _browser, page):
        told = await answered(device, page)
        began = asyncio.get_running_loop().time()
        await page.close()
        assert await told.until(api.Ended) == api.Ended(END_REASONS["0/remote"])
        assert 4 < asyncio.get_running_loop().time() - began < 9
        assert list(device.provider.on_duty) == []


async def test_a_killed_browser_is_noticed_and_the_controller_ends_the_call() -> None:
    async with on_duty() as (device, browser, page):
        told = await answered(device, page)
        began = asyncio.get_running_loop().time()
        await browser.kill()
        await told.until(api.Lost)
        assert asyncio.get_running_loop().time() - began < 5
        await told.leg.end(END_REASONS["410/mediaLost"])
        assert await told.until(api.Ended) == api.Ended(END_REASONS["410/mediaLost"])
