"""Several servers for one way: which is asked, when the next one is, and how far they are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from appliance.media.api import SessionSilent, SessionUp
from appliance.providers import api
from appliance.providers.whip import choice, way
from appliance.settings import Secret, WhipSettings
from appliance.vocabulary import Json
from tests.support.scripted_whip import LEAVE, TOKEN, Caller, ScriptedServer, caller, created, scripted, status


@asynccontextmanager
async def calls(*servers: ScriptedServer | str, **more: Any) -> AsyncIterator[Caller]:
    """``servers``: to publish to, in order."""
    first, *others = [one if isinstance(one, str) else f"{one.url}/whip" for one in servers]
    async with caller(WhipSettings("studio", first, token=Secret(TOKEN), other_publish=tuple(others), **more)) as one:
        yield one


def nobody() -> str:
    """Where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/whip"


def selected(one: Caller) -> Json:
    (server,) = one.provider.state()["servers"]
    found: Json = server["ways"]["publish"]
    return found


async def test_the_first_that_is_reached_is_used_and_gets_the_token() -> None:
    async with scripted() as second, calls(gone := nobody(), second) as one:
        await one.connected()
        (post,) = second.of("POST")
        assert post.headers["Authorization"] == f"Bearer {TOKEN}"
        state = selected(one)
        assert state["selectedEndpoint"]["url"] == f"{second.url}/whip"
        assert state["selectedEndpoint"]["reason"] == "failover"
        assert [bool(each["fault"]) for each in state["endpoints"]] == [True, False]
        assert state["endpoints"][0]["url"] == gone
        assert TOKEN not in str(state)


async def test_one_that_says_nothing_is_passed_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "HURRY_S", 1.0)
    async with scripted() as first, scripted() as second, calls(first, second) as one:
        first.open.clear()
        began = asyncio.get_running_loop().time()
        await one.connected()
        assert choice.HURRY_S <= asyncio.get_running_loop().time() - began < 5.0
        assert len(second.of("POST")) == 1
        assert one.leg is not None
        await one.leg.end(LEAVE)
        await one.ended()
        one.told.clear()
        await one.connected()  # and is not waited for by the next call
        assert (len(first.of("POST")), len(second.of("POST"))) == (1, 2)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_one_that_is_not_well_is_passed_over(code: int) -> None:
    async with scripted() as first, scripted() as second, calls(first, second) as one:
        first.gives("POST", status(code, Retry_After="3"))
        await one.connected()
        assert (len(first.of("POST")), len(second.of("POST"))) == (1, 1)


@pytest.mark.parametrize(("code", "key"), [(401, "401/token"), (404, "404/noSuchEndpoint"), (409, "409/endpointTaken")])
async def test_what_is_said_of_the_offer_itself_is_final(code: int, key: str) -> None:
    async with scripted() as first, scripted() as second, calls(first, second) as one:
        first.gives("POST", status(code))
        await one.dial()
        assert (await one.ended()).key == key
        assert not second.asked


async def test_where_none_answers_each_is_asked_once() -> None:
    async with scripted() as first, scripted() as second, calls(first, second) as one:
        for server in (first, second):
            server.gives("POST", status(500))
        await one.dial()
        assert (await one.ended()).key == "503/provider"
        assert (len(first.of("POST")), len(second.of("POST"))) == (1, 1)


async def test_a_pinned_one_is_the_only_one() -> None:
    async with scripted() as first, scripted() as second, calls(first, second, choose="pinned") as one:
        first.gives("POST", status(500))
        await one.dial()
        assert (await one.ended()).key == "503/provider"
        assert not second.asked
        assert one.provider.probes == []


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_server_that_dies_in_a_call_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, refuses: bool,
) -> None:
    """At once where nothing listens any more; one that says nothing is given a moment."""
    monkeypatch.setattr(way, "HURRIED_REPAIR_S", 60.0 if refuses else 0.5)
    async with scripted() as second, AsyncExitStack() as alive:
        first = await alive.enter_async_context(scripted())
        first.gives("POST", created(Accept_Patch="application/trickle-ice-sdpfrag"))
        async with calls(first, second) as one:
            session = await one.connected()
            if refuses:
                await alive.aclose()
            else:
                first.open.clear()
            began = asyncio.get_running_loop().time()
            session.tell(SessionSilent(3.0))
            await one.until(lambda: len(one.studio.sessions) == 2 and one.studio.sessions[-1].took)
            one.studio.sessions[-1].tell(SessionUp())
            await one.until(lambda: one.of(api.Recovered))
            assert asyncio.get_running_loop().time() - began < 5.0
            assert len(second.of("POST")) == 1
            assert not one.of(api.Ended)


async def test_servers_are_probed_by_options_without_the_token_and_never_in_a_call() -> None:
    async with scripted() as first, scripted() as second, calls(first, second, choose="nearest") as one:
        second.gives("OPTIONS", status(503))
        (probe,) = one.provider.probes
        probing = asyncio.create_task(probe.run(), name="test.probe")
        try:
            await one.until(lambda: selected(one)["endpoints"][1]["fault"])
            state = selected(one)
            assert 0 < state["selectedEndpoint"]["roundTripTime"] < 1
            assert state["selectedEndpoint"]["reason"] == "nearest"
            assert state["endpoints"][1]["fault"] == "it answers with status 503"
            assert {one.method for one in first.asked} == {"OPTIONS"}
            assert not any("Authorization" in one.headers for one in (*first.asked, *second.asked))
            asked = len(first.of("OPTIONS"))
            await one.connected()
            probe.soon()
            await asyncio.sleep(0.1)
            assert len(first.of("OPTIONS")) == asked
        finally:
            probing.cancel()
            await asyncio.wait({probing})
