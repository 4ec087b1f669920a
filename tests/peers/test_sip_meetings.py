"""A meeting that is entered by telephone. Its service is a real baresip, by which the test speaks and hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.peers.test_sip_codes import appliance
from tests.support.baresip import Baresip, baresip
from tests.support.house import Running
from tests.support.waiting import until

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440


@asynccontextmanager
async def service_and_door(folder: Path) -> AsyncIterator[tuple[Baresip, Running]]:
    """It announces something (a tone) from the answer on."""
    line = "<sip:service@127.0.0.1>;regint=0;audio_codecs=PCMA/8000/1;answermode=auto"
    async with (
        baresip(folder / "service", line) as service,
        appliance(folder, (
            '[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
            f'servers = "127.0.0.1:{service.port}"\ntransport = "udp"\ntrusted = ["127.0.0.0/8"]\n'
            f'[[sip.meetings]]\nname = "board"\nnumber = "sip:service@127.0.0.1:{service.port}"\nid = "123456789"\n'),
            encrypt=False) as running,
    ):
        yield service, running


def keys(service: Baresip) -> str:
    return "".join(str(one["param"]) for one in service.events if one["type"] == "CALL_DTMF_START")


async def test_its_number_is_pressed_when_the_announcement_is_over(tmp_path: Path) -> None:
    async with service_and_door(tmp_path) as (service, door):
        joining = asyncio.create_task(door.give("room.join", target="meeting:board"))
        await door.until(lambda: door.document("call")["state"] == "EarlyMedia")
        await service.hear(DEVICE_HERTZ)
        assert keys(service) == "", "it is still speaking"
        await service.tell("mute")
        await until(lambda: keys(service) == "123456789#", f"the number at the service: {keys(service)}")
        assert door.document("call")["state"] == "EarlyMedia"
        await service.tell("mute")
        await door.until(lambda: door.document("call")["state"] == "Connected")
        await joining
        call = door.document("call")
        assert (call["kind"], call["callerInfo"]["uri"]) == ("Group", "meeting:board")
        assert [one["kind"] for one in door.document("roster")["participants"]] == ["pstn"]
        assert (await door.give("room.leave"))["result"] == "done"
        await service.until("CALL_CLOSED")


async def test_a_number_that_is_not_taken_is_tried_twice(tmp_path: Path) -> None:
    async with service_and_door(tmp_path) as (service, door):
        joining = asyncio.create_task(door.give("room.join", target="meeting:board"))
        for count in (1, 2):
            await until(lambda count=count: service.told.count("CALL_ESTABLISHED") == count, f"call {count}", 15)
            await service.hear(DEVICE_HERTZ)
            await service.tell("mute")
            await until(lambda count=count: keys(service) == "123456789#" * count, f"keys {count}: {keys(service)}", 30)
            await service.tell("hangup")
        await door.until(lambda: door.document("call")["state"] == "Disconnected")
        assert door.document("call")["endReason"]["subCode"] == "wrongMeetingId"
        await joining
