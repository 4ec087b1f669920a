"""Statistics of a call with Chromium, held against what Chromium's own ``getStats`` counted at the other end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page

from appliance.providers import api
from appliance.vocabulary import Json
from tests.support.browser import chromium, wait_for
from tests.support.direct_page import Told, appliance
from tests.support.media_pair import until
from tests.support.reports import faults, row

pytestmark = pytest.mark.peer

SHARE, MS = 0.02, 0.005  # agreement: within 2 per cent, or 5 ms
CALL_S = 12.0


async def report_of(page: Page) -> list[Json]:
    """Of the browser, as our own."""
    found: list[Json] = await page.evaluate("async () => [...(await peer.stats()).values()]")
    return found


def by_kind(report: list[Json], type_: str, kind: str) -> Json:
    return next(one for one in report if one["type"] == type_ and one.get("kind") == kind)


def agrees(ours: float, theirs: float, *, least: float = 0.0) -> Any:
    return ours == pytest.approx(theirs, rel=SHARE, abs=least)


async def test_our_numbers_are_those_of_the_browser() -> None:
    async with appliance() as device, chromium() as browser:
        page = await browser.open(device.url)
        await page.evaluate("() => peer.goOnDuty('Olga')")
        await until(lambda: list(device.provider.on_duty) == ["Olga"], 10, "on duty")
        told = Told(await device.dial())
        await told.until(api.Ringing)
        await page.evaluate("() => peer.answer(peer.state.call.callId)")
        await told.until(api.Connected)
        await wait_for(page, "() => peer.state.call?.state === 'Connected'")
        await asyncio.sleep(CALL_S)  # a call of some length is what is measured
        before, theirs_before = list(await told.leg.stats()), await report_of(page)
        # both stop, so that what was sent and what came are the same packets
        await told.leg.set_media(api.MediaWanted(send_audio=False, send_video=False))
        await page.evaluate("() => { peer.setMuted(true); peer.setVideo(false); }")
        await asyncio.sleep(0.5)
        ours, theirs = list(await told.leg.stats()), await report_of(page)
        assert faults(ours) == []
        for kind in ("audio", "video"):
            sent, came = row(ours, "outbound-rtp", kind), by_kind(theirs, "inbound-rtp", kind)
            assert agrees(sent["packetsSent"], came["packetsReceived"])
            assert agrees(sent["bytesSent"], came["bytesReceived"])
            assert agrees(sent["headerBytesSent"], came["headerBytesReceived"])
            assert sent["ssrc"] == came["ssrc"]
            reported = row(ours, "remote-inbound-rtp", kind)
            assert reported["packetsLost"] == came["packetsLost"]
            assert reported["jitter"] == pytest.approx(came["jitter"], abs=MS)
            assert reported["roundTripTime"] < 0.1
            incoming, out = row(ours, "inbound-rtp", kind), by_kind(theirs, "outbound-rtp", kind)
            assert agrees(incoming["packetsReceived"], out["packetsSent"], least=60)  # on their way until it stopped
            assert incoming["ssrc"] == out["ssrc"]
            assert agrees(incoming["headerBytesReceived"], out["headerBytesSent"], least=2000)
            assert incoming["packetsLost"] == 0
            assert incoming["jitter"] == pytest.approx(by_kind(theirs, "remote-inbound-rtp", kind)["jitter"], abs=MS)
            assert by_kind(theirs, "remote-outbound-rtp", kind)["packetsSent"] <= sent["packetsSent"]
        video, seen = row(ours, "outbound-rtp", "video"), by_kind(theirs, "inbound-rtp", "video")
        assert agrees(video["framesSent"], seen["framesReceived"], least=2)
        assert video["keyFramesEncoded"] >= seen["keyFramesDecoded"] >= 1
        for out, incoming in ((row(before, "outbound-rtp", "video"), by_kind(theirs_before, "inbound-rtp", "video")),
                              (by_kind(theirs_before, "outbound-rtp", "video"), row(before, "inbound-rtp", "video"))):
            assert (out["frameWidth"], out["frameHeight"]) == (incoming["frameWidth"], incoming["frameHeight"])
            assert out["framesPerSecond"] == pytest.approx(incoming["framesPerSecond"], abs=3)
        pair = row(ours, "candidate-pair")
        mine = next(one for one in theirs if one["type"] == "candidate-pair" and one.get("nominated"))
        trip, other = (one["totalRoundTripTime"] / one["responsesReceived"] for one in (pair, mine))
        assert trip == pytest.approx(other, abs=4 * MS), "each measures when its own process has its turn"
        assert agrees(pair["bytesSent"], mine["bytesReceived"])
        transport = next(one for one in theirs if one["type"] == "transport")
        assert row(ours, "transport")["tlsVersion"] == transport["tlsVersion"]
        assert row(ours, "transport")["dtlsCipher"] == transport["dtlsCipher"]
        assert row(ours, "transport")["selectedCandidatePairChanges"] >= 1
        prints = {one["fingerprint"] for one in theirs if one["type"] == "certificate"}
        assert {one["fingerprint"] for one in ours if one["type"] == "certificate"} == prints
        await told.close()
