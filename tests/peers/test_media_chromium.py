"""The media engine and Chromium in a call without the console's page: H.264 and Opus both ways, whatever it offers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from appliance.media.api import SessionClosed, SessionUp
from tests.support.browser import Chromium, chromium
from tests.support.impair import Conditions, relay
from tests.support.media_page import MediaPage, media_page
from tests.support.media_pair import End, marks, one_end, until

pytestmark = pytest.mark.peer
OURS: float = 440
ITS: float = 880
HOST = "10.99.0.1"  # of scripts/netns
_SOURCES = re.compile(r"a=(?:ssrc|ssrc-group|msid):[^\r\n]*\r\n")


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    async with chromium(ITS) as browser:
        yield browser


async def judge(end: End, peer: MediaPage) -> None:
    """Each sees and hears the other."""
    await end.event(SessionUp, 10)
    await until(lambda: end.strength(ITS) > 0.1, 10, "its tone")
    await until(lambda: len(end.board.display.pictures) > 40, 15, "its pictures")
    counters = marks(end)
    assert len(counters) > 20, "its pictures can be read"
    await Chromium.listen(peer.page)
    await Chromium.hears(peer.page, OURS)
    before = await Chromium.frames_decoded(peer.page)
    await peer.page.wait_for_function(
        """async (frames) => [...(await peer.stats()).values()].some((row) =>
             row.type === "inbound-rtp" && row.kind === "video" && row.framesDecoded > frames)""", arg=before + 30)
    assert not any(isinstance(event, SessionClosed) for event in end.told)


async def test_we_offer_and_it_answers(browser: Chromium) -> None:
    async with media_page(browser) as peer, one_end(OURS) as end:
        await end.session.accept_answer(await peer.answer(await end.session.offer()))
        await judge(end, peer)


async def test_it_offers_and_we_answer(browser: Chromium) -> None:
    async with media_page(browser) as peer, one_end(OURS) as end:
        await peer.accept(await end.session.answer(await peer.offer()))
        await judge(end, peer)


async def test_a_line_with_a_codec_of_which_we_know_nothing_is_rejected_alone(browser: Chromium) -> None:
    """Under the policy max-bundle the browser itself cannot do without its first line."""
    async with media_page(browser) as peer, one_end(OURS) as end:
        answer = await end.session.answer(await peer.offer(foreign="VP9"))
        assert re.findall(r"(?m)^m=(\w+) (\d+)", answer)[0] == ("video", "0")
        await peer.accept(answer)
        await judge(end, peer)


async def test_sources_need_not_be_signalled(browser: Chromium) -> None:
    """As many conference servers do: nothing in the description says which SSRC is whose."""
    async with media_page(browser) as peer, one_end(OURS) as end:
        offer = await peer.offer()
        assert _SOURCES.search(offer)
        await peer.accept(await end.session.answer(_SOURCES.sub("", offer)))
        await judge(end, peer)


async def test_a_call_through_a_bad_network_stays_a_call(browser: Chromium) -> None:
    near = Conditions(delay_s=0.02)
    async with relay(near, seed=5, host=HOST) as between, media_page(browser) as peer, one_end(OURS) as end:
        answer = await peer.answer(between.from_left(await end.session.offer()))
        await end.session.accept_answer(between.from_right(answer))
        await end.event(SessionUp, 10)
        between.change(replace(near, loss=0.05))
        await judge(end, peer)
        links = [between.left_to_right, between.right_to_left]
        await until(lambda: all(link.counters.lost > 5 for link in links), 10, "the network was bad both ways")


@pytest.mark.parametrize("offers", ["we", "it"])
async def test_each_estimates_the_path_by_what_the_other_reports(browser: Chromium, offers: str) -> None:
    """Its answer is no REMB of ours: ours would hold its estimate down."""
    async with media_page(browser) as peer, one_end(OURS) as end:
        if offers == "we":
            await end.session.accept_answer(await peer.answer(await end.session.offer()))
        else:
            await peer.accept(await end.session.answer(await peer.offer()))
        await end.event(SessionUp, 10)
        ours = end.session.transmission
        await until(lambda: ours.reports_received > 30 and ours.reports_sent > 30, 10, "reports both ways")
        assert ours.reported
        assert ours.reports_malformed == 0
        assert ours.packets_lost < ours.packets_arrived / 20
        assert (ours.round_trip_s or 9) < 1
        assert end.session.outgoing["video"].counters.estimate is None
        assert end.session.incoming["video"].allowed is None
        await peer.page.wait_for_function(
            """async () => [...(await peer.stats()).values()].some((row) =>
                 row.type === "candidate-pair" && row.nominated && row.availableOutgoingBitrate > 600_000)""")
        await until(lambda: (ours.available_bps or 0) > 1_500_000, 10, "probes went through its RTX")
        assert end.session.outgoing["video"].counters.padding_packets > 0
