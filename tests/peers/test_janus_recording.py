"""Recording at a real Janus, by the word of an appliance: what the server writes, who is told, and when it ends."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.settings import JanusRoomSettings, Secret
from tests.support.appliance import Appliance
from tests.support.janus import JanusServer
from tests.support.room_device import H264, ROOM, Device, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

BEEP_HERTZ = 1400
SECRET = "s3cret"


def frames(path: Path) -> tuple[str, int]:
    """Codec and packets of a recording (https://janus.conf.meetecho.com/docs/recordings.html), which is written by the
    block. Blocking."""
    data = path.read_bytes()
    if len(data) < 10 or not data.startswith(b"MJR00002"):  # nothing has come of it yet
        return "", 0
    length = struct.unpack_from(">H", data, 8)[0]
    if len(data) < 10 + length:
        return "", 0
    codec, at, count = str(json.loads(data[10:10 + length])["c"]), 10 + length, 0
    while len(data) >= at + 10 and data[at:at + 4] == b"MEET":
        at += 10 + struct.unpack_from(">H", data, at + 8)[0]
        count += 1
    return codec, count


class Files:
    """What the server has written of sound and pictures; of data messages it writes too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def now(self) -> Mapping[str, tuple[str, int]]:
        return {path.name: found for path in sorted(self._folder.glob("*-[av]*o-?.mjr"))
                if (found := frames(path))[1]}

    async def found(self, fits: Callable[[Mapping[str, tuple[str, int]]], bool]) -> Mapping[str, tuple[str, int]]:
        written: Mapping[str, tuple[str, int]] = {}
        deadline = asyncio.get_running_loop().time() + 10
        while not fits(written := await asyncio.to_thread(self.now)):
            assert asyncio.get_running_loop().time() < deadline, written
            await asyncio.sleep(0.1)
        return written

    async def still(self) -> Mapping[str, tuple[str, int]]:
        """Nothing more is written, while people send 50 packets a second."""
        before = await asyncio.to_thread(self.now)
        await asyncio.sleep(0.5)
        after = await asyncio.to_thread(self.now)
        assert after == before
        return after


def kinds(written: Mapping[str, tuple[str, int]]) -> list[str]:
    return sorted(codec for codec, count in written.values() if count > 5)


@asynccontextmanager
async def recorded(folder: Path) -> AsyncIterator[tuple[JanusServer, Files]]:
    (folder / "janus").mkdir()
    (folder / "rec").mkdir()
    rooms = {ROOM: {**H264, "secret": SECRET, "rec_dir": str(folder / "rec"), "lock_record": True}}
    async with janus(folder / "janus", rooms) as server:
        yield server, Files(folder / "rec")


async def appliance(folder: Path, server: JanusServer, role: str, secret: str = "") -> Appliance:
    await asyncio.to_thread(folder.mkdir)
    table = f'[[janus.rooms]]\nname = "lobby"\nid = "{ROOM}"\nrole = "{role}"\n'
    if secret:
        path = folder / "secret"
        await asyncio.to_thread(path.write_text, secret)
        await asyncio.to_thread(path.chmod, 0o600)
        table += f'secret_file = "{path}"\n'
    return Appliance(folder, settings={"device.id": folder.name, "device.name": folder.name.title(),
                                       "janus.url": server.url}, tables=table)


def participant(one: Appliance, name: str) -> Any:
    return next(member for member in one.state("roster")["participants"] if member["displayName"] == name)


async def test_a_presenter_has_the_room_recorded_and_all_are_told(tmp_path: Path) -> None:
    async with (
        recorded(tmp_path) as (server, files), await appliance(tmp_path / "door", server, "presenter", SECRET) as door,
        await appliance(tmp_path / "gate", server, "attendee", SECRET) as gate, device(server.url, "desk", 660) as desk,
    ):
        for one in (door, gate):
            joined = await one.give("room.join", target="lobby")
            assert joined["result"] == "done", joined
        await door.wait_for_state("call", lambda state: state["capabilities"]["startRecording"] == {
            "isPresent": True, "reason": "Capable"})
        refused = await gate.give("record.start")
        assert (refused["code"], refused["subCode"]) == (403, "RoleRestricted")
        await gate.wait_for_state("roster", lambda state: state["participants"])

        for one in (door, gate):
            await one.give("call.mute")
        begun = await door.give("record.start")
        assert begun["result"] == "done", begun
        assert (await door.event("recording.stateChanged"))["data"]["state"] == "Started"
        await door.wait_for_state("call", lambda state: state["isRecordingActive"])
        await gate.wait_for_state("call", lambda state: state["isRecordingActive"])
        await gate.wait_for_state("roster", lambda _: participant(gate, "Door")["isRecording"])
        told = (await gate.event("recording.stateChanged"))["data"]
        assert (told["state"], told["participantId"]) == ("Started", participant(gate, "Door")["participantId"])
        await files.found(lambda written: kinds(written) == ["h264", "h264", "opus", "opus"])
        await desk.join()
        await desk.hears(BEEP_HERTZ)
        await files.found(lambda written: kinds(written) == ["h264"] * 3 + ["opus"] * 3)  # who comes later too

        refused = await gate.give("record.stop")
        assert (refused["code"], refused["subCode"]) == (403, "MeetingRestricted")
        assert "Door" in refused["message"]
        stopped = await door.give("record.stop")
        assert stopped["result"] == "done", stopped
        await gate.wait_for_state("call", lambda state: not state["isRecordingActive"])
        await door.wait_for_state("call", lambda state: not state["isRecordingActive"])
        await gate.event("recording.stateChanged", state="Ended")
        assert len(await files.still()) == 6

        await door.give("record.start")
        await gate.wait_for_state("call", lambda state: state["isRecordingActive"])
        await files.found(lambda written: len(written) >= 12)
        left = await door.give("room.leave")
        assert left["result"] == "done", left
        await gate.wait_for_state("call", lambda state: not state["isRecordingActive"])
        await door.event("recording.stateChanged", state="Ended")
        await files.still()


def presenter(secret: str) -> dict[str, Any]:
    return {"rooms": (JanusRoomSettings("lobby", str(ROOM), secret=Secret(secret), role="presenter"),)}


def told(one: Device) -> list[bool]:
    return [event.on for event in one.of(api.Recording)]


async def test_the_wrong_secret_records_nobody(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (server, files), device(server.url, "door", **presenter("wrong")) as door:
        leg = await door.join("lobby")
        await door.connected()
        with pytest.raises(Refused) as refused:
            await leg.record(on=True)
        assert refused.value.key == "403/roomSecret"
        assert not told(door)
        assert not await files.still()


async def test_it_ends_with_one_who_is_removed(tmp_path: Path) -> None:
    async with (
        recorded(tmp_path) as (server, files), device(server.url, "door", **presenter(SECRET)) as door,
        device(server.url, "gate", 880) as gate,
    ):
        await gate.join()
        leg = await door.join("lobby")
        await door.connected()
        await leg.record(on=True)
        await files.found(lambda written: kinds(written) == ["h264", "h264", "opus", "opus"])
        async with server.control() as control:
            answer = await control.request({"request": "kick", "room": ROOM, "secret": SECRET,
                                            "id": int(gate.members["Door"].id)})
            assert answer["videoroom"] == "success", answer
        assert await door.ended() == "0/removed"
        assert len(await files.still()) == 4


async def test_it_goes_on_at_a_server_that_was_started_again(tmp_path: Path) -> None:
    async with recorded(tmp_path) as (server, files), device(server.url, "door", **presenter(SECRET)) as door:
        leg = await door.join("lobby")
        await door.connected()
        await leg.record(on=True)
        before = await files.found(lambda written: kinds(written) == ["h264", "opus"])
        await server.kill()
        await until(lambda: door.of(api.Lost), "it is missed")
        await server.start()
        await until(lambda: door.of(api.Recovered), "it is back")
        await files.found(lambda written: len([one for one in written if one not in before]) == 2)
        assert told(door) == [True]
        await leg.record(on=False)
        assert told(door) == [True, False]
        await files.still()
