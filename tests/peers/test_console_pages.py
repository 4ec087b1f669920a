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

CALLER = {"uri": "operator:Olga", "displayName": "Olga"}


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
        await expect(page.locator("#now-title")).to_have_text("Ready")
        await expect(page.locator("#now-text")).to_contain_text("Olga")
        at.bulletin.set("io", {**IO, "lamps": {**IO["lamps"], "call": {"pattern": [[1.0, True]]}},
                               "relays": {"door": {"closed": True}}})
        await expect(page.locator("#call-key.lit")).to_be_visible()
        await expect(page.locator("#door-words")).to_have_text("Door unlocked")
        await expect(page.locator("#contacts")).to_contain_text("Switched on")
        at.bulletin.set("call", {"state": "Connected", "callerInfo": {"displayName": "Olga"}, "isMuted": True})
        await expect(page.locator("#now-title")).to_have_text("Talking with Olga")
        at.bulletin.set("diag", {"cameraFreeze": {"value": True, "detail": {"device": "cam0"}}})
        await expect(page.locator("#diag")).to_contain_text("The camera stopped delivering pictures.")
        at.bulletin.set("call", {"state": "Disconnected", "endReason": {"code": 487, "subCode": "noAnswer"}})
        await expect(page.locator("#now-text")).to_contain_text("Nobody answered in time.")


async def test_the_call_button_says_what_a_press_does(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        for state, hint in [("None", "Press to call"), ("Ringing", "Press to cancel"),
                            ("Incoming", "Press to answer, hold to decline"), ("Connected", "Press to hang up"),
                            ("LocalHold", "Press to hang up"), ("RemoteHold", "Press to hang up"),
                            ("Reconnecting", "Press to hang up"), ("Transferring", "Press to hang up")]:
            at.bulletin.set("call", {"state": state, "callerInfo": CALLER})
            await expect(page.locator("#keys-hint")).to_have_text(hint)
            key = page.locator("#call-key")
            await expect(key).to_have_attribute("aria-label", f"Call button of the device. {hint}.")


async def test_nobody_on_duty_is_said_once_and_ends_with_duty(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        at.bulletin.set("diag", {"nobodyOnDuty": {"value": True}})
        at.bulletin.set("call", {"state": "Disconnected", "direction": "Outgoing", "callerInfo": CALLER,
                                 "endReason": {"code": 480, "subCode": "unreachable", "category": "ExpectedError"}})
        await expect(page.locator("#now-title")).to_have_text("Nobody is on duty")
        words = await page.locator("#main").inner_text()
        assert (words.count("Nobody is on duty"), words.count("Go on duty")) == (1, 1), words
        at.bulletin.merge("device", onDuty=["Olga"])
        await expect(page.locator("#now-title")).to_have_text("Ready")
        assert "obody is on duty" not in await page.locator("#main").inner_text()


async def test_the_device_page_shows_what_the_operator_does_not_send(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        at.bulletin.set("call", {"state": "Connected", "callerInfo": CALLER})
        member = {"displayName": "Olga", "state": "Connected"}
        at.bulletin.set("roster", {"participants": [
            {**member, "isMuted": True, "videoStreams": [{"isAvailable": False}]}]})
        await expect(page.locator("#peer-muted")).to_have_text("Olga is muted")
        await expect(page.locator("#peer-no-video")).to_be_visible()
        at.bulletin.set("roster", {"participants": [
            {**member, "isMuted": False, "videoStreams": [{"isAvailable": True}]}]})
        await expect(page.locator("#peer-muted")).to_be_hidden()
        await expect(page.locator("#peer-no-video")).to_be_hidden()


async def test_the_operator_page_shows_who_asks_for_attention(tmp_path: Path) -> None:
    async with console(tmp_path, "/operator") as (at, _, page):
        at.bulletin.set("call", {"state": "Connected", "callerInfo": CALLER, "isHandRaised": True})
        await expect(page.locator("#call-pill")).to_have_text("The device asks for attention")
        member = {"displayName": "Olga", "state": "Connected"}
        at.bulletin.set("roster", {"participants": [{**member, "isHandRaised": True}]})
        await expect(page.locator("#roster")).to_contain_text("Asks for attention")
        at.bulletin.set("call", {"state": "Connected", "callerInfo": CALLER, "isHandRaised": False})
        at.bulletin.set("roster", {"participants": [{**member, "isHandRaised": False}]})
        await expect(page.locator("#call-pill")).to_have_text("The device is in a call")
        await expect(page.locator("#roster")).not_to_contain_text("Asks for attention")


async def test_a_refused_settings_file_is_told_with_its_lines(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        at.bulletin.set("diag", {"configRejected": {"value": True, "detail": {"errors": [
            "line 3: unknown key", "line 5: not a number", "line 7: too long", "line 9: twice"]}}})
        await expect(page.locator("#diag")).to_contain_text("line 3: unknown key; line 5: not a number")
        await expect(page.locator("#diag")).to_contain_text("and 1 more")


async def test_the_last_calls_name_who_did_what(tmp_path: Path) -> None:
    async with console(tmp_path, "/operator") as (at, _, page):
        declined = {"code": 603, "subCode": "declined", "message": "The other side declined the call."}
        everybody = {"uri": "operator:*", "displayName": "Operators"}
        at.bulletin.set("calls", {"calls": [
            {"direction": "Outgoing", "callerInfo": everybody, "endReason": declined},
            {"direction": "Incoming", "callerInfo": CALLER, "endReason": declined}]})
        rows = page.locator("#calls li")
        await expect(rows.nth(0)).to_contain_text("The operator declined.")
        await expect(rows.nth(1)).to_contain_text("The device declined.")
        await expect(rows.nth(0).locator("b")).to_have_text("Operator")
        for state, words in [("Incoming", "Olga calls the device"), ("LocalHold", "Held by the device"),
                             ("RemoteHold", "Held by Olga")]:
            at.bulletin.set("call", {"state": state, "callerInfo": CALLER})
            await expect(page.locator("#call-pill")).to_have_text(words)


async def test_the_call_key_goes_down_and_up_by_pointer_and_by_keyboard(tmp_path: Path) -> None:
    async with console(tmp_path) as (at, _, page):
        key = page.locator("#call-key")
        await key.hover()
        await page.mouse.down()
        await at.desk.given(1)
        assert at.desk.commands[0].args["seconds"] > 10, "longer than any long press"
        await page.mouse.up()
        await at.desk.given(2)
        await key.press("Enter")
        await at.desk.given(4)
        await page.evaluate("() => document.getElementById('call-key').click()")  # as assistive technology does
        await at.desk.given(5)
        assert {command.verb.name for command in at.desk.commands} == {"sim.press"}
        assert [command.args["seconds"] > 1 for command in at.desk.commands] == [True, False, True, False, False]
        assert all(command.ttl_s and command.ts for command in at.desk.commands)


async def test_a_double_click_on_lend_leaves_no_camera_on(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, _browser, page):
        await page.evaluate("""() => {
            const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
            window.given = [];
            devices.getUserMedia = async (wish) => {
                const media = await open(wish);
                window.given.push(...media.getTracks());
                return media;
            };
        }""")
        live = "() => window.given.filter((track) => track.readyState === 'live').length"
        lend = page.locator("#lend")
        await page.evaluate("() => { const key = document.getElementById('lend'); key.click(); key.click(); }")
        await expect(lend).to_have_attribute("aria-checked", "true")
        assert await page.evaluate(live) == 2, "one camera and one microphone"
        await lend.click()
        await expect(lend).to_have_attribute("aria-checked", "false")
        assert await page.evaluate(live) == 0
        await page.evaluate("""() => { HTMLMediaElement.prototype.play = async () => { throw new Error("no"); }; }""")
        await lend.click()
        await page.wait_for_function("() => window.given.length === 4")
        await page.wait_for_function(f"() => ({live})() === 0")
        await expect(lend).to_have_attribute("aria-checked", "false")


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
        at.bulletin.set("call", {"state": "Connected", "callerInfo": CALLER, "connectedAt": "2026-01-01T00:00:00Z"})
        at.bulletin.set("io", {**IO, "lamps": {**IO["lamps"], "call": {"pattern": [[1.0, True]]}}})
        await expect(page.locator("#call-key.lit")).to_be_visible()
        await at.door.stop()
        await expect(page.locator("#connection")).to_have_text("Connection lost")
        await expect(page.locator("#now-title")).to_have_text("Connection to the appliance lost")
        await expect(page.locator("#call-pill")).to_have_text("Not known")
        await expect(page.locator("#keys-hint")).to_have_text("Not connected")
        assert await page.locator(".lit").count() == 0
