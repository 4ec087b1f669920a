"""The pre-call test against the EchoTest of a real Janus: what comes back, what is missing, and a call that comes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.care.precall import report_of
from appliance.errors import Refused
from appliance.settings import Secret
from tests.support.appliance import Appliance
from tests.support.broker import Broker
from tests.support.janus import JanusServer
from tests.support.room_device import ROOM, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

ECHO = ("echotest",)


def results(report: Any) -> dict[str, str]:
    return {item["item"]: item["result"] for item in report["items"]}


async def gone(server: JanusServer) -> None:
    """It keeps nothing of us."""
    deadline = asyncio.get_running_loop().time() + 3
    while (await server.admin("list_sessions"))["sessions"]:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


async def test_our_own_media_come_back_and_nobody_hears_them(tmp_path: Path) -> None:
    async with janus(tmp_path, plugins=ECHO) as server, device(server.url, "door", 440) as door:
        echo = await door.provider.echo(2.0)
        assert echo.failure is None
        assert echo.reached_s is not None
        assert echo.connected_s is not None
        assert echo.reached_s < echo.connected_s < 2
        sound, pictures = echo.kinds["audio"], echo.kinds["video"]
        assert sound.received > 0.8 * sound.sent > 60  # 50 a second, and those of the last moment are under way
        assert pictures.pictures > 20  # of 15 a second
        assert sound.lost == pictures.lost == 0
        assert pictures.round_trip_s is not None
        assert 0 < pictures.round_trip_s < 0.2
        report = report_of("janus", echo)
        assert set(results(report).values()) == {"Good"}, report
        assert report["result"] == "passed"
        assert report["mos"] > 4
        assert door.board.hears()[1] < -60
        assert not door.tiles
        await gone(server)


async def test_a_server_without_it_and_one_that_is_not_there(tmp_path: Path) -> None:
    async with janus(tmp_path) as server, device(server.url, "door") as door:
        with pytest.raises(Refused, match="no EchoTest plug-in") as refused:
            await door.provider.echo(2.0)
        assert (refused.value.code, refused.value.sub_code) == (501, "noPlugin")
        await server.kill()
        report = report_of("janus", await door.provider.echo(2.0))
        assert results(report) == {
            "signaling": "Failed", "admission": "NotTested", "mediaPath": "NotTested", "audio": "NotTested",
            "video": "NotTested"}
        assert "not reached" in report["items"][0]["reason"]


async def test_a_token_that_is_wrong_and_a_server_that_dies_meanwhile(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, plugins=ECHO, general={"token_auth": True}) as server,
        device(server.url, "door", token=Secret("wrong")) as door,
    ):
        report = report_of("janus", await door.provider.echo(2.0))
        assert results(report) | {"mediaPath": "NotTested"} == results(report)
        assert (report["items"][1]["item"], report["items"][1]["result"]) == ("admission", "Failed")
        assert "token" in report["items"][1]["reason"]
        await server.admin("add_token", token="wrong", plugins=["janus.plugin.echotest"])
        test = asyncio.create_task(door.provider.echo(20.0))
        await until(lambda: any(one.up for one in door.studio._sessions), "the test is under way")
        await server.kill()
        report = report_of("janus", await asyncio.wait_for(test, 5))
        assert results(report)["audio"] == "Failed"
        assert "closed the connection" in report["items"][3]["reason"]


async def test_it_goes_through_a_broker_as_well(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", devices=("rooms", "door"))
    await asyncio.to_thread((broker.folder / "acl").write_text, "topic readwrite rooms/#\nuser rooms\n"
                            "topic readwrite rooms/#\nuser door\ntopic readwrite rooms/#\n")
    (tmp_path / "janus").mkdir()
    login: dict[str, Any] = {"trusted_broker": True, "mqtt_username": "door", "mqtt_password": Secret("door")}
    async with (
        broker, janus(tmp_path / "janus", broker=broker.port, plugins=ECHO) as server,
        device(f"mqtt://127.0.0.1:{broker.port}/rooms", "door", **login) as door,
    ):
        while (report := report_of("janus", await door.provider.echo(2.0)))["items"][0]["result"] != "Good":
            continue  # until the server is at the broker
        assert report["result"] == "passed", report
        assert report["server"].startswith("mqtt://")
        await gone(server)


async def test_the_whole_appliance_tries_its_server_out_and_a_call_goes_first(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with janus(tmp_path / "janus", plugins=ECHO) as server, Appliance(
            tmp_path / "door", settings={"janus.url": server.url}) as door:
        answer = await door.give("precall.run", provider="sip")
        assert (answer["code"], answer["subCode"]) == (501, "FeatureNotSupported")
        answer = await door.give("precall.run", seconds=2)
        assert answer["result"] == "done", answer
        report = answer["data"]["report"]
        assert report["result"] == "passed", report
        assert report["server"] == server.url
        await door.wait_for_state("media", lambda state: not state["video"]["actual"]["open"])

        test = asyncio.create_task(door.give("precall.run", seconds=30))
        await door.wait_for_state("media", lambda state: state["audio"]["actual"]["sending"])
        answer = await door.give("precall.run")
        assert (answer["code"], answer["subCode"]) == (409, "busy")
        joined = await door.give("room.join", target=str(ROOM))
        assert joined["result"] == "done", joined
        async with asyncio.timeout(5):
            answer = await test
        assert (answer["code"], answer["subCode"]) == (409, "inCall")
        answer = await door.give("precall.run")
        assert (answer["code"], answer["subCode"]) == (409, "inCall")
        await door.call_is("Connected")
        assert not door.state("media")["without"]
