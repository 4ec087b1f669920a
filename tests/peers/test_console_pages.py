"""The console in a real browser, at a real HTTP door: what it shows of the state, and what it sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from appliance.doors.http import Ports
from tests.support.browser import Chromium, chromium
from tests.support.http_door import Hands, Running, running_door

pytestmark = pytest.mark.peer

IO = {
    "buttons": {"call": {"pressed": False}, "mute": {"pressed": False}},
    "lamps": {"call": {"pattern": [[1.0, False]]}, "mute": {"pattern": [[1.0, False]]},
              "status": {"pattern": [[1.0, True]]}, "capture": {"pattern": [[1.0, False]]}},
    "relays": {"door": {"closed": False}}, "inputs": {"door": {"closed": False}},
}
DEVICE = {"id": "lobby", "name": "Main entrance", "version": "0.1.0", "onDuty": [], "doNotDisturb": False,
          "addressBook": [{"name": "Operators", "uris": ["operator:*"], "autoAnswer": False, "members": []}]}


@asynccontextmanager
async def console(tmp_path: Path, page: str = "") -> AsyncIterator[tuple[Running, Chromium, Page]]:
    async with running_door(tmp_path, Ports(simulation=Hands())) as at, chromium() as browser:
        at.bulletin.set("device", DEVICE)
        at.bulletin.set("io", IO)
        at.bulletin.set("call", {"state": "None"})
        yield at, browser, await browser.open(at.door.address() + (f"&next={page}" if page else ""))


@pytest.mark.parametrize("path", ["/", "/operator"])
async def test_the_page_fits_and_is_named_at_every_width(tmp_path: Path, path: str) -> None:
    async with console(tmp_path, path) as (_, browser, page):
        await expect(page.locator("#device-name")).to_have_text("Main entrance")
        for width in (360, 768, 1360):
            await page.set_viewport_size({"width": width, "height": 760})
            assert await page.evaluate("() => document.documentElement.scrollWidth") <= width
        small = await page.evaluate("""() => [...document.querySelectorAll("button, a.button, input")]
            .filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 44)
            .map((node) => node.id)""")
        assert small == []
        unnamed = await page.evaluate("""() => [...document.querySelectorAll("button, a.button")]
            .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim())).map((node) => node.id)""")
        assert unnamed == []
        foreign = await page.evaluate("""() => performance.getEntriesByType("resource").map(({name}) => name)
            .filter((name) => !name.startsWith(location.origin) && !name.startsWith("blob:"))""")
        assert foreign == []
        assert [line for line in browser.console if "Content Security Policy" in line or "error:" in line] == []


async def test_the_device_page_mirrors_the_state(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        await expect(page.locator("#nobody")).to_be_visible()
        at.bulletin.merge("device", onDuty=["Olga"])
        await expect(page.locator("#nobody")).to_be_hidden()
        await expect(page.locator("#now-text")).to_contain_text("Olga")
        at.bulletin.set("io", {**IO, "lamps": {**IO["lamps"], "call": {"pattern": [[1.0, True]]}},
                               "relays": {"door": {"closed": True}}})
        await expect(page.locator("#call-key.lit")).to_be_visible()
        await expect(page.locator("#door-words")).to_have_text("Door open")
        at.bulletin.set("call", {"state": "Connected", "callerInfo": {"displayName": "Olga"}, "isMuted": True})
        await expect(page.locator("#now-title")).to_have_text("Talking with Olga")
        at.bulletin.set("diag", {"cameraFreeze": {"value": True, "detail": {"device": "cam0"}}})
        await expect(page.locator("#diag")).to_contain_text("The camera stopped delivering pictures.")
        at.bulletin.set("call", {"state": "Disconnected", "endReason": {"code": 487, "subCode": "noAnswer"}})
        await expect(page.locator("#now-text")).to_contain_text("Nobody answered in time.")


async def test_the_call_key_is_short_and_long_by_pointer_and_by_keyboard(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        key = page.locator("#call-key")
        await key.click()
        await at.desk.given(1)
        await key.press("Enter")
        await at.desk.given(2)
        await key.click(delay=900)
        await at.desk.given(3)
        assert [command.verb.name for command in at.desk.commands] == ["sim.press"] * 3
        assert [command.args["seconds"] > 1 for command in at.desk.commands] == [False, False, True]
        assert all(command.ttl_s and command.ts for command in at.desk.commands)


async def test_the_operator_page_commands_and_tells_what_is_lost(tmp_path: Path) -> None:
    async with console(tmp_path, "/operator") as (at, _, page):
        await page.locator("#dnd").click()
        await at.desk.given(1)
        assert (at.desk.commands[0].verb.name, at.desk.commands[0].args) == ("dnd.set", {"on": True})
        at.bulletin.merge("device", doNotDisturb=True)
        await expect(page.locator("#dnd")).to_have_attribute("aria-checked", "true")
        await page.locator("#auto-answer").click()
        await at.desk.given(2)
        assert at.desk.commands[1].args == {"name": "Operators", "uris": ["operator:*"], "autoAnswer": True}
        await page.evaluate("() => fetch('/v1/session', {method: 'DELETE'})")
        await expect(page.locator(".gate")).to_contain_text("edgecall address")


async def test_the_page_says_that_the_connection_is_lost(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        await expect(page.locator("#connection")).to_have_text("Connected")
        await at.door.stop()
        await expect(page.locator("#connection")).to_have_text("Connection lost")
