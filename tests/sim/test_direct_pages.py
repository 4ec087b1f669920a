"""Pages that are on duty, ring together, come, go and come back; in virtual time, with scripted media."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.media.api import Directions, IceServers
from appliance.providers import api
from appliance.vocabulary import END_REASONS, Scope
from tests.support.clock import virtual_time
from tests.support.direct_parts import JPEG, Device, ScriptedSession, ScriptedStudio, Tab, Told


class Desk:
    """A device, its pages, and sessions that stand for the pages' own peer connections."""

    def __init__(self) -> None:
        self.world: dict[str, ScriptedSession] = {}
        self.device = Device("door-1", None, self.world)
        self.browser = ScriptedStudio("browser", self.world)
        self.tabs: list[Tab] = []

    async def tab(self, name: str = "olga", *, duty: bool = True, **more: Any) -> Tab:
        tab = Tab(self.device, name, **more)
        self.tabs.append(tab)
        return await (tab.on_duty() if duty else tab.connect())

    async def session(self) -> ScriptedSession:
        return self.browser.session(Directions(), ice=IceServers(), loopback=True)

    async def accepts(self, tab: Tab, call_id: str = "call-0001") -> ScriptedSession:
        """The page answers, as peer.js does."""
        session = await self.session()
        tab.say("accept", callId=call_id, sdp=await session.offer(), peer={"identity": "x", "displayName": "Claimed"},
                media={"audio": True, "video": True})
        await asyncio.sleep(0.1)
        if "answer" in tab.types():
            await session.accept_answer(tab.last("answer")["sdp"])
        await asyncio.sleep(0.05)
        return session

    async def call(self, tab: Tab) -> tuple[Told, ScriptedSession]:
        told = await self.device.dial("operator:*")
        await asyncio.sleep(0.05)
        tab.say("ringing", callId="call-0001")
        session = await self.accepts(tab)
        assert told.kinds == ["Ringing", "Accepted", "Connected"]
        return told, session


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    await made.device.start()
    try:
        yield made
    finally:
        await made.device.stop()
        for tab in made.tabs:
            await tab.vanish()
        for session in made.browser.open:
            await session.close()
        assert made.device.studio.open == []


@virtual_time
async def test_nobody_on_duty_is_said_at_once_with_what_to_do() -> None:
    async with desk() as d:
        await d.tab(duty=False)
        with pytest.raises(Refused, match="operator page") as refused:
            await d.device.dial("operator:*")
        assert refused.value.key == "480/unreachable"
        assert d.device.provider.reachable(api.Target("operator", "*")) is False


@virtual_time
async def test_duty_is_told_to_the_device_and_to_every_page() -> None:
    async with desk() as d:
        olga = await d.tab("olga")
        otto = await d.tab("otto")
        assert d.device.duty == [("Olga",), ("Olga", "Otto")]
        assert olga.last("onDuty")["names"] == ["Olga", "Otto"]
        otto.say("duty", on=False, displayName="Otto")
        await asyncio.sleep(0.01)
        assert olga.last("onDuty")["names"] == ["Olga"]
        assert d.device.provider.state()["onDuty"] == ["Olga"]


@virtual_time
async def test_an_appliance_cannot_go_on_duty() -> None:
    async with desk() as d:
        other = await d.tab("gate", scope=Scope.DEVICE)
        assert other.last("error")["code"] == 403
        assert d.device.duty == []


@virtual_time
async def test_the_ring_goes_out_first_and_the_picture_follows_within_a_second() -> None:
    async with desk() as d:
        olga = await d.tab()
        await d.device.dial("operator:*")
        await asyncio.sleep(0.2)
        kinds = olga.types()
        assert kinds.index("invite") < kinds.index("picture")
        assert olga.last("invite")["caller"] == {"identity": "door-1", "displayName": "Door-1"}
        assert base64.b64decode(olga.last("picture")["jpeg"]) == JPEG


@virtual_time
async def test_everybody_on_duty_rings_and_the_first_answer_wins() -> None:
    async with desk() as d:
        olga, otto, idle = await d.tab("olga"), await d.tab("otto"), await d.tab("idle", duty=False)
        told = await d.device.dial("operator:*")
        await asyncio.sleep(0.05)
        assert "invite" in olga.types()
        assert "invite" in otto.types()
        assert "invite" not in idle.types()
        await d.accepts(otto)
        assert told.kinds == ["Accepted", "Connected"]
        assert told.events[0] == api.Accepted(api.Peer("otto", "operator:otto", "Otto", verified=True))
        assert olga.types()[-1] == "answeredElsewhere"
        await d.accepts(olga)
        assert olga.last("bye")["reason"]["subCode"] == "answeredElsewhere"
        await told.leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_named_operator_rings_alone_and_one_who_comes_late_rings_too() -> None:
    async with desk() as d:
        olga, otto = await d.tab("olga"), await d.tab("otto")
        told = await d.device.dial("operator:otto")
        await asyncio.sleep(0.05)
        assert "invite" in otto.types()
        assert "invite" not in olga.types()
        second = await d.tab("otto")
        assert "invite" in second.types()
        await asyncio.sleep(0.1)
        assert "picture" in second.types()
        await told.leg.end(END_REASONS["487/noAnswer"])
        await asyncio.sleep(0.05)
        assert second.last("cancel")["reason"]["subCode"] == "noAnswer"


@virtual_time
async def test_a_page_whose_socket_breaks_comes_back_with_its_token_and_nothing_is_noticed() -> None:
    async with desk() as d:
        olga = await d.tab()
        told, _session = await d.call(olga)
        await olga.vanish()
        await asyncio.sleep(20)
        assert told.kinds[-1] == "Connected"
        back = await d.tab(token=olga.token)
        welcome = back.last("welcome")
        assert welcome["resumed"]
        assert welcome["calls"] == [{"callId": "call-0001", "generation": 0}]
        await told.leg.tell(muted=True, held=False, video=True)
        await asyncio.sleep(0.01)
        assert back.last("update")["muted"]
        await told.leg.end(END_REASONS["0/local"])
        await asyncio.sleep(0.05)
        assert back.last("bye")["reason"] == {"code": 0, "subCode": "local"}


@virtual_time
async def test_a_page_that_reloads_is_offered_or_offers_anew() -> None:
    async with desk() as d:
        olga = await d.tab()
        told, _ = await d.call(olga)
        await olga.vanish(leaving=True)
        assert d.device.duty[-1] == ()
        await asyncio.sleep(1)
        back = await d.tab(token=olga.token)
        back.say("resume", callId="call-0001")
        await asyncio.sleep(0.01)
        assert told.kinds[-1] == "Lost"
        session = await d.session()
        back.say("reoffer", callId="call-0001", generation=1, sdp=await session.offer())
        await asyncio.sleep(0.05)
        await session.accept_answer(back.last("reanswer")["sdp"])
        await asyncio.sleep(0.05)
        assert told.kinds[-1] == "Recovered"
        await told.leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_page_that_reloads_while_it_rings_rings_again_with_the_picture() -> None:
    async with desk() as d:
        olga = await d.tab()
        told = await d.device.dial("operator:*")
        await asyncio.sleep(0.1)
        olga.say("ringing", callId="call-0001")
        await olga.vanish(leaving=True)
        await asyncio.sleep(1)
        back = await d.tab(token=olga.token)
        assert [kind for kind in back.types() if kind in ("invite", "picture")] == ["invite", "picture"]
        await d.accepts(back)
        assert told.kinds[-1] == "Connected"
        await told.leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_closed_tab_ends_its_call_after_5_s() -> None:
    async with desk() as d:
        olga = await d.tab()
        told, _ = await d.call(olga)
        await olga.vanish(leaving=True)
        await asyncio.sleep(4.9)
        assert "Ended" not in told.kinds
        await asyncio.sleep(0.5)
        assert told.ended == "0/remote"
        fresh = await d.tab(token=olga.token)
        assert not fresh.last("welcome")["resumed"]


@virtual_time
async def test_a_page_that_dies_while_it_rings_or_calls_is_given_up_after_5_s() -> None:
    async with desk() as d:
        olga = await d.tab()
        told = await d.device.dial("operator:*")
        await asyncio.sleep(0.05)
        olga.say("ringing", callId="call-0001")
        await asyncio.sleep(0.05)
        await olga.vanish()
        await asyncio.sleep(6)
        assert told.ended == "480/unreachable"
        d.device.answers = False
        otto = await d.tab("otto", duty=False)
        otto.say("invite", callId="call-of-otto", caller={"identity": "otto", "displayName": "Otto"},
                 media={"audio": True, "video": True}, to="")
        await asyncio.sleep(0.05)
        await otto.vanish()
        await asyncio.sleep(6)
        assert d.device.told["call-of-otto"].ended == "487/cancelled"


@virtual_time
async def test_a_token_serves_only_its_own_user_and_its_newest_connection() -> None:
    async with desk() as d:
        olga = await d.tab()
        thief = await d.tab("mallory", duty=False, token=olga.token)
        assert not thief.last("welcome")["resumed"]
        assert thief.last("welcome")["token"] != olga.token
        assert ("the token of another's connection", "mallory") in d.device.refused
        twin = await d.tab(token=olga.token)
        assert twin.last("welcome")["resumed"]
        await asyncio.sleep(0.05)
        assert olga.closed == (4001, "replaced by a newer connection")
        assert d.device.provider.on_duty == ("Olga",)


@virtual_time
async def test_a_page_and_the_device_dial_each_other_and_the_smaller_name_lives() -> None:
    for name, lives in (("alma", "call-of-page"), ("olga", "call-0001")):
        async with desk() as d:
            tab = await d.tab(name)
            told = await d.device.dial("operator:*")
            tab.say("invite", callId="call-of-page", caller={"identity": name, "displayName": name},
                    media={"audio": True, "video": True}, to="")
            await asyncio.sleep(0.1)
            assert d.device.incoming == []
            assert set(d.device.provider.legs) == {lives}
            if lives == "call-of-page":
                assert tab.last("accept")["callId"] == "call-of-page"
                session = await d.session()
                tab.say("answer", callId="call-of-page", sdp=await session.answer(tab.last("accept")["sdp"]))
                await asyncio.sleep(0.05)
                assert told.kinds == ["Accepted", "Connected"]
            else:
                assert "accept" not in tab.types()
            await told.leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_connection_begins_with_hello_or_ends() -> None:
    async with desk() as d:
        rude = Tab(d.device, "rude")
        task = asyncio.create_task(rude.attached())
        rude.say("duty", on=True, displayName="Rude")
        await task
        mute = Tab(d.device, "mute")
        await mute.attached()
        assert rude.closed is not None
        assert mute.closed == (1008, "no hello")
        assert d.device.duty == []
        assert [sender for _, sender in d.device.refused] == ["rude"]


@virtual_time
async def test_a_page_that_floods_or_babbles_is_cut_off() -> None:
    async with desk() as d:
        flood, babble = await d.tab("flood", duty=False), await d.tab("babble", duty=False)
        for number in range(300):
            flood.say("leaving" if number % 2 else "resume", **({} if number % 2 else {"callId": "call-9999"}))
        for _ in range(30):
            babble.say_text("{")
        await asyncio.sleep(0.1)
        assert flood.closed is not None
        assert flood.closed[0] == 1008
        assert babble.closed is not None
        assert babble.closed[0] == 1008


@virtual_time
async def test_one_name_has_a_limited_number_of_connections_and_calls() -> None:
    async with desk() as d:
        d.device.answers = False
        tabs = [await d.tab(duty=False) for _ in range(9)]
        assert tabs[8].closed == (1008, "too many connections")
        for number in range(3):
            tabs[0].say("invite", callId=f"call-1{number:03}", caller={"identity": "", "displayName": ""},
                        media={"audio": True, "video": True})
        await asyncio.sleep(0.1)
        assert len(d.device.incoming) == 2
        assert tabs[0].last("reject")["reason"]["subCode"] == "busy"
