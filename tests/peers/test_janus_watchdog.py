"""What stands still in a room of a real Janus and moves again: one picture, all of them, a server, a network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from tests.support.impair import Conditions
from tests.support.janus import JanusServer
from tests.support.room_device import ANEW_S, Device, device, janus, same_as_server
from tests.support.rough_way import RoughWay, is_media, rough_way
from tests.support.waiting import until

pytestmark = pytest.mark.peer


@asynccontextmanager
async def seen(folder: Path) -> AsyncIterator[tuple[JanusServer, RoughWay, Device]]:
    """The door, which comes by a way of its own, sees two."""
    async with (
        janus(folder) as server, rough_way(server.url, seed=1) as way, device(way.url, "door") as door,
        device(server.url, "gate", 880) as gate, device(server.url, "yard") as yard,
    ):
        for one in (door, gate, yard):
            await one.join()
            await one.connected()
        await door.sees("Gate", "Yard")
        yield server, way, door


def sources(offer: dict[str, Any], label: str) -> set[bytes]:
    """The SSRCs of somebody's picture in the room's offer, with that of what is sent again."""
    mid = next(one["mid"] for one in offer["plugindata"]["data"]["streams"]
               if one["type"] == "video" and one.get("feed_display") == label)
    sections = re.split(r"^(?=m=)", offer["jsep"]["sdp"], flags=re.MULTILINE)
    section = next(one for one in sections if f"a=mid:{mid}\r\n" in one)
    return {int(number).to_bytes(4, "big") for number in re.findall(r"^a=ssrc:(\d+)", section, re.MULTILINE)}


async def stands(door: Device, *labels: str) -> None:
    """For a second."""
    await asyncio.sleep(0.5)  # for what was under way
    before = {label: door.tiles[label].picture for label in labels}
    await asyncio.sleep(1)
    assert {label: door.tiles[label].picture for label in labels} == before, "it moves"


async def test_a_picture_that_stands_is_fetched_anew_and_all_of_them_by_another_connection(tmp_path: Path) -> None:
    async with seen(tmp_path) as (server, way, door):
        first, gone = way.subscriber, sources(way.offered, "Gate")
        assert len(gone) == 2, "the picture, and what is sent again of it"
        way.drop(first, lambda packet: is_media(packet) and packet[8:12] in gone)
        await stands(door, "Gate")
        await door.sees("Yard")
        await door.sees("Gate", within_s=ANEW_S)
        await door.sees("Yard")
        assert way.subscriber == first, "nobody else was disturbed"

        way.drop(first, is_media)  # ICE and RTCP go on: nobody tells of a loss
        await stands(door, "Gate", "Yard")
        await until(lambda: {one.away for one in door.members.values()} == {True}, "both are told to be away")
        await until(lambda: way.subscriber != first, "another connection", ANEW_S)
        await door.sees("Gate", "Yard")
        await door.hears(880)
        await until(lambda: {one.away for one in door.members.values()} == {False}, "both are there")
        await same_as_server(server, door)
        assert not door.of(api.Lost)


async def test_who_is_not_heard_though_the_server_answers_and_reports_joins_again(tmp_path: Path) -> None:
    """Whoever receives can do nothing about it."""
    async with (
        janus(tmp_path) as server, rough_way(server.url, seed=1) as way, device(way.url, "gate", 880) as gate,
        device(server.url, "door") as door,
    ):
        for one in (door, gate):
            await one.join()
            await one.connected()
        await door.sees("Gate")
        before = way.publisher
        way.drop(before, is_media, sent=True)
        await stands(door, "Gate")
        await until(lambda: door.members["Gate"].away, "it is told to be away")
        await until(lambda: way.publisher != before, "another connection", ANEW_S)
        await until(lambda: gate.of(api.Recovered), "it is back")
        await door.sees("Gate", within_s=5)
        await door.hears(880)
        await same_as_server(server, door)
        assert len(gate.of(api.Lost)) == 1
        assert not door.of(api.Lost)


async def test_a_picture_that_pauses_on_a_thin_path_is_sent_again_when_it_is_wide(tmp_path: Path) -> None:
    """Janus reports on pictures alone: with nothing sent, nothing more was ever known of the path."""
    async with (
        janus(tmp_path) as server, rough_way(server.url, seed=1) as way, device(way.url, "gate") as gate,
        device(server.url, "door") as door,
    ):
        for one in (door, gate):
            await one.join()
            await one.connected()
        await door.sees("Gate")
        way.change(Conditions(rate_bps=60_000, queue_ms=300, delay_s=0.03))
        await until(lambda: gate.studio.state()["video"]["paused"], "the picture pauses", 20)
        await asyncio.sleep(2)
        way.change(Conditions())
        await until(lambda: not gate.studio.state()["video"]["paused"], "the picture is sent", 15)
        await door.sees("Gate", within_s=ANEW_S)
        assert not gate.of(api.Lost)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_server_that_stands_still_for_a_while(tmp_path: Path) -> None:
    async with seen(tmp_path) as (server, _, door):
        for seconds in (2.0, 8.0, 20.0):
            server.pause()
            await asyncio.sleep(seconds)
            server.go_on()
            await door.sees("Gate", "Yard", within_s=10)
            await same_as_server(server, door)
        assert not door.of(api.Ended)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_network_that_is_dark_for_a_while_is_used_within_two_seconds_of_its_return(tmp_path: Path) -> None:
    """The signalling is there meanwhile: the room is joined again at once, and its connections look for a path."""
    async with seen(tmp_path) as (server, way, door):
        for seconds in (5.0, 12.0, 40.0):
            way.change(Conditions(dark=True))
            await asyncio.sleep(seconds)
            way.change(Conditions())
            await door.sees("Gate", "Yard", within_s=3)
            await same_as_server(server, door)
        assert not door.of(api.Ended)


@pytest.mark.long
async def test_a_handshake_that_an_outage_hits_is_begun_anew(tmp_path: Path) -> None:
    """The one that is under way sends again after 1, 2, 4 and 8 s: 7 s after the return."""
    async with janus(tmp_path) as server, rough_way(server.url, seed=3) as way, device(way.url, "door") as door:
        await door.join()
        await door.connected()
        loop, dark, back = asyncio.get_running_loop(), Conditions(dark=True), list[float]()

        def returns() -> None:
            back.append(loop.time())
            way.on_handshake = lambda: None
            way.change(Conditions())

        def hit() -> None:
            way.on_handshake = lambda: None
            way.change(dark)
            loop.call_later(8, returns)

        way.change(dark)
        await until(lambda: door.of(api.Lost), "the loss is told", 15)
        way.on_handshake = hit
        way.change(Conditions())
        await until(lambda: back, "the outage is over", 30)
        assert not door.of(api.Recovered)
        await until(lambda: door.of(api.Recovered), "it is back", 30)
        assert door.when(api.Recovered) - back[0] < 5
        await same_as_server(server, door)


async def test_an_offer_that_is_lost_on_its_way(tmp_path: Path) -> None:
    async with seen(tmp_path) as (server, way, door), device(server.url, "hall") as hall:
        lost: list[dict[str, Any]] = []

        def first_offer(message: dict[str, Any]) -> bool:
            if lost or message.get("plugindata", {}).get("data", {}).get("videoroom") != "updated":
                return False
            lost.append(message)
            return True

        way.loses = first_offer
        await hall.join()
        await until(lambda: lost, "the offer is lost")
        await door.sees("Gate", "Yard", "Hall", within_s=15)
        await same_as_server(server, door)
        assert not door.of(api.Ended)
