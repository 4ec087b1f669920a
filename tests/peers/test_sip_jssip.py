"""Calls with a telephone in a browser: JsSIP in Chromium, by Kamailio over WebSockets, sound by DTLS-SRTP and ICE."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page

from appliance.providers import api
from appliance.vocabulary import KeyMethod
from hw.api import Picture
from hw.sim import pattern
from tests.peers.test_sip_kamailio import door_at, proxy
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.jssip_page import jssip_page
from tests.support.kamailio import PASSWORD, WEBSOCKET
from tests.support.sip_device import VOICE, SipDevice, sip_device
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ, PAGE_HERTZ = 440, 880


@asynccontextmanager
async def page_and_door(
    folder: Path, *, video: bool = False, policy: str = "balanced", transport: str = "wss",
) -> AsyncIterator[tuple[Page, SipDevice]]:
    async with (
        proxy(folder) as server, jssip_page() as address, chromium(PAGE_HERTZ, camera=video) as browser,
        sip_device("door", door_at(server, transport, folder, encryption="dtls"), hertz=DEVICE_HERTZ,
                   encrypt=True) as door,
    ):
        door.media = api.MediaWanted() if video else VOICE
        await door.up()
        page = await browser.open(address)
        await page.evaluate("(all) => phone.start(...all)", [
            f"ws://127.0.0.1:{server.port}{WEBSOCKET}", "sip:phone@example.test", PASSWORD, video, policy])
        try:
            yield page, door
        except BaseException:
            print(browser.console[-40:], await page.evaluate("phone.told"), "".join(server.log[-20:]))
            raise


async def does(page: Page, what: str) -> None:
    """Which it refuses while what it asked for before is not through."""
    await wait_for(page, f"phone.session.{what}")


async def both_hear(page: Page, door: SipDevice) -> None:
    await Chromium.listen(page)
    await door.hears(PAGE_HERTZ)
    await Chromium.hears(page, DEVICE_HERTZ)


async def test_we_call_the_browser_it_holds_and_presses_keys_and_we_hang_up(tmp_path: Path) -> None:
    async with page_and_door(tmp_path) as (page, door):
        await door.dial("sip:phone@example.test")
        await door.connected()
        (up,) = door.of(api.Connected)
        assert (up.security["verified"], up.security["signalling"]) == (True, "WSS")
        await both_hear(page, door)
        association = await page.evaluate("phone.fingerprints()")
        assert len(association) == 2

        await does(page, "hold()")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "held by the browser")
        await Chromium.hears_silence(page)
        await does(page, "unhold()")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True, False], "resumed by the browser")
        await both_hear(page, door)
        assert await page.evaluate("phone.fingerprints()") == association, "no handshake but the first"

        await page.evaluate("phone.session.sendDTMF('12#', {transportType: 'RFC2833', duration: 100})")
        await until(lambda: [one.digit for one in door.of(api.Pressed)] == ["1", "2", "#"], "digits at the door")
        assert all(one.encrypted for one in door.of(api.Pressed))

        await door.hang_up()
        assert await door.ended() == "0/local"
        await wait_for(page, "phone.told.at(-1) === 'ended remote Terminated'")


async def test_the_browser_calls_finds_another_path_and_hangs_up(tmp_path: Path) -> None:
    async with page_and_door(tmp_path) as (page, door):
        await page.evaluate("phone.call('sip:door@example.test')")
        await door.connected()
        (ring,) = door.rings
        assert (ring.leg.peer.uri, ring.leg.peer.verified) == ("sip:phone@example.test", True)
        await both_hear(page, door)
        association, port = await page.evaluate("phone.fingerprints()"), await page.evaluate("phone.port()")
        await does(page, "renegotiate({rtcOfferConstraints: {iceRestart: true}})")
        await wait_for(page, "async (before) => ![undefined, before].includes(await phone.port())", arg=port)
        await both_hear(page, door)
        assert await page.evaluate("phone.fingerprints()") == association, "ICE is restarted, DTLS is not"
        await page.evaluate("phone.session.sendDTMF('7', {transportType: 'INFO'})")
        await until(lambda: [one.digit for one in door.of(api.Pressed)] == ["7"], "a digit by INFO")
        await page.evaluate("phone.session.terminate()")
        assert await door.ended() == "0/remote"


async def test_we_hold_and_press_a_key(tmp_path: Path) -> None:
    async with page_and_door(tmp_path) as (page, door):
        await door.dial("sip:phone@example.test")
        await door.connected()
        await both_hear(page, door)
        assert door.leg is not None
        await door.leg.set_media(api.MediaWanted(False, False, False, False))
        await door.leg.tell(muted=False, held=True, video=False)
        await wait_for(page, "phone.told.includes('hold remote')")
        await door.hears_nothing()
        await door.leg.set_media(api.MediaWanted(send_video=False, receive_video=False))
        await door.leg.tell(muted=False, held=False, video=False)
        await wait_for(page, "phone.told.includes('unhold remote')")
        await both_hear(page, door)
        await door.leg.press("5", 0.1, KeyMethod.INFO)
        await wait_for(page, "phone.digits.join('') === '5'")


async def both_see(page: Page, door: SipDevice) -> None:
    """Pictures that move, at each side."""
    await Chromium.sees_moving(page, within_s=15)
    seen = door.board.pictures
    await until(lambda: seen and read(seen[-1]) is not None, "the page's picture at the door", 15)
    before = read(seen[-1])
    await until(lambda: read(seen[-1]) not in (None, before), "a later one", 15)


def read(picture: Picture) -> int | None:
    mark = pattern.read(picture.i420, picture.width, picture.height)
    return None if mark is None else mark.counter


@pytest.mark.parametrize("policy", ["balanced", "max-bundle"])
async def test_the_browser_calls_with_pictures_on_one_path(tmp_path: Path, policy: str) -> None:
    async with page_and_door(tmp_path, video=True, policy=policy) as (page, door):
        await page.evaluate("phone.call('sip:door@example.test')")
        await door.connected()
        await both_hear(page, door)
        await both_see(page, door)
        assert await page.evaluate("phone.transports()") == 1, "sound and pictures are a bundle"
        await does(page, "hold()")
        await until(lambda: [one.held for one in door.of(api.Held)] == [True], "held by the browser")
        await does(page, "unhold()")
        await both_hear(page, door)
        await both_see(page, door)
        await does(page, "renegotiate({rtcOfferConstraints: {iceRestart: true}})")
        await both_hear(page, door)
        await both_see(page, door)
        await page.evaluate("phone.session.terminate()")
        assert await door.ended() == "0/remote"


async def test_pictures_come_to_a_call_of_sound(tmp_path: Path) -> None:
    async with page_and_door(tmp_path) as (page, door):
        await door.dial("sip:phone@example.test")
        await door.connected()
        await both_hear(page, door)
        assert door.leg is not None
        await door.leg.set_media(api.MediaWanted())
        await door.leg.tell(muted=False, held=False, video=True)
        await Chromium.sees_moving(page, within_s=15)
        assert await page.evaluate("phone.transports()") == 1, "no other path was needed"
        await both_hear(page, door)


async def test_we_call_with_pictures_on_one_path(tmp_path: Path) -> None:
    async with page_and_door(tmp_path, video=True) as (page, door):
        await door.dial("sip:phone@example.test")
        await door.connected()
        await both_hear(page, door)
        await both_see(page, door)
        assert await page.evaluate("phone.transports()") == 1, "sound and pictures are a bundle"
        await door.hang_up()
        assert await door.ended() == "0/local"
