"""The board as people see it: its devices, its faults, and the verbs of the simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.bulletin import Bulletin
from appliance.care.board import BoardCare
from appliance.care.diagnostics import Diagnostics
from appliance.errors import BadRequest, Refused
from appliance.vocabulary import VERB, Command, Event, Json, Origin
from hw.api import Board, BoardOptions, DeviceFact, Kind, Press, PressKind
from hw.bare import BareBoard
from hw.sim.board import SimBoard


class Scene:
    def __init__(self, board: Board) -> None:
        self.board = board
        self.bulletin = Bulletin("boot-1")
        self.diagnostics = Diagnostics(self.bulletin)
        self.care = BoardCare(board, self.bulletin, self.diagnostics)
        self.events: list[Event] = []
        self.changed = asyncio.Event()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def give(self, verb: str, **args: Any) -> Json | None:
        return await self.care.handlers()[verb](Command("c1", VERB[verb], args, Origin.CLI))

    @property
    def devices(self) -> dict[str, Json]:
        return {one["id"]: one for one in self.bulletin.document("devices")["devices"]}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    board = await asyncio.to_thread(SimBoard, BoardOptions(microphone="silence"))
    found = Scene(board)
    with found.bulletin.subscribed(on_document=lambda *_: found.changed.set(), on_event=found.tell):
        running = asyncio.create_task(found.care.run(), name="care")
        await found.until(lambda: "devices" in found.bulletin.snapshot().documents)
        yield found
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        found.diagnostics.close()
        await asyncio.to_thread(board.close)


async def test_the_devices_are_told_and_a_pulled_one_twice(scene: Scene) -> None:
    assert scene.devices["cam0"] == {
        "kind": "camera", "id": "cam0", "name": "Simulated camera", "present": True, "selected": True,
        "simulated": True, "note": ""}
    await scene.give("sim.fault", fault="mic.unplug")
    await scene.until(lambda: scene.diagnostics.raised("noMicrophoneDevicesEnumerated"))
    await scene.until(lambda: scene.devices["mic0"]["present"] is False)
    updated = next(event for event in scene.events if event.type == "devices.updated")
    assert (updated.data["added"], updated.data["removed"]) == ([], ["mic0"])
    await scene.give("sim.fault", fault="mic.unplug", active=False)
    await scene.until(lambda: scene.devices["mic0"]["present"])
    assert [event.data["added"] for event in scene.events if event.type == "devices.updated"] == [[], ["mic0"]]


class Shelf(BareBoard):
    """A board where somebody plugs in a device that nobody needs."""

    def __init__(self) -> None:
        self.there = [DeviceFact(Kind.MICROPHONE, "usb:1-1", "Desk")]
        self.plugged: Callable[[], None] = lambda: None

    def devices(self) -> Sequence[DeviceFact]:
        return list(self.there)

    def on_devices(self, sink: Callable[[], None]) -> None:
        self.plugged = sink


async def test_one_that_is_plugged_in_and_not_used_is_told_too() -> None:
    board = Shelf()
    scene = Scene(board)
    with scene.bulletin.subscribed(on_document=lambda *_: scene.changed.set(), on_event=scene.tell):
        running = asyncio.create_task(scene.care.run(), name="care")
        await scene.until(lambda: scene.bulletin.document("devices").get("devices"))
        board.there.append(DeviceFact(Kind.MICROPHONE, "usb:1-2", "Spare", selected=False))
        await asyncio.to_thread(board.plugged)
        await scene.until(lambda: "usb:1-2" in scene.devices)
        board.there.pop()
        await asyncio.to_thread(board.plugged)
        await scene.until(lambda: "usb:1-2" not in scene.devices)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    told = [(event.data["added"], event.data["removed"]) for event in scene.events if event.type == "devices.updated"]
    assert told == [(["usb:1-2"], []), ([], ["usb:1-2"])]
    scene.diagnostics.close()


class OneCard(BareBoard):
    """A board whose microphone and loudspeaker are one USB card, and have its one id."""

    def devices(self) -> Sequence[DeviceFact]:
        return [DeviceFact(kind, "usb:1-1", "Speakerphone", selected=kind is Kind.SPEAKER)
                for kind in (Kind.MICROPHONE, Kind.SPEAKER)]


async def test_both_directions_of_one_card_are_shown() -> None:
    scene = Scene(OneCard(BoardOptions()))
    with scene.bulletin.subscribed(on_document=lambda *_: scene.changed.set()):
        running = asyncio.create_task(scene.care.run(), name="care")
        await scene.until(lambda: "devices" in scene.bulletin.snapshot().documents)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    told = scene.bulletin.document("devices")["devices"]
    assert [(one["kind"], one["selected"]) for one in told] == [("microphone", False), ("speaker", True)]
    scene.diagnostics.close()


async def test_the_volume_is_set_shown_and_silence_is_a_diagnostic(scene: Scene) -> None:
    await scene.give("devices.volume", percent=0)
    assert scene.bulletin.document("devices")["volume"] == 0
    assert scene.diagnostics.raised("speakerVolumeIsZero")
    await scene.give("devices.volume", percent=55)
    assert scene.bulletin.document("devices")["volume"] == 55
    assert scene.board.audio is not None
    assert scene.board.audio.volume == 55


async def test_hands_press_buttons_and_close_contacts(scene: Scene) -> None:
    presses: asyncio.Queue[Press] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    assert scene.board.panel is not None
    scene.board.panel.listen(lambda press: loop.call_soon_threadsafe(presses.put_nowait, press))
    await scene.give("sim.press", button="call")
    await scene.give("sim.input", input="door", closed=True)
    async with asyncio.timeout(10):
        kinds = {(press.name, press.kind) for press in [await presses.get() for _ in range(3)]}
    assert kinds == {("call", PressKind.PRESSED), ("call", PressKind.RELEASED), ("door", PressKind.INPUT_ON)}


@pytest.mark.parametrize(("verb", "args", "words"), [
    ("sim.press", {"button": "bell"}, "no button 'bell'; there are: call, mute"),
    ("sim.input", {"input": "roof", "closed": True}, "no input 'roof'; there are: door"),
    ("sim.fault", {"fault": "camera.fire"}, "no fault 'camera.fire'; there are: camera.freeze"),
    ("sim.fault", {"fault": "echo.delayMs", "value": -5}, "outside 0 to 1000 ms"),
    ("sim.fault", {"fault": "echo.erlDb", "value": 5000}, "outside 0 to 1000 ms and 0 to 120 dB"),
    ("sim.source", {"device": "microphone", "source": "wav:/nowhere.wav"}, "no file '/nowhere.wav'"),
    ("sim.source", {"device": "microphone", "source": "radio"}, "radio")])
async def test_what_is_not_there_is_named_with_what_is(scene: Scene, verb: str, args: Json, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        await scene.give(verb, **args)


async def test_a_source_is_changed_while_it_runs(scene: Scene, tmp_path: Path) -> None:
    await scene.give("sim.source", device="microphone", source="tone:440")
    (tmp_path / "door.h264").write_bytes(b"no clip")
    with pytest.raises(BadRequest):
        await scene.give("sim.source", device="camera", source=f"film:{tmp_path}/door.h264")


async def test_a_real_board_has_no_hands_and_one_without_sound_no_volume() -> None:
    scene = Scene(BareBoard(BoardOptions()))
    with pytest.raises(Refused, match="this one is real") as refused:
        await scene.give("sim.fault", fault="camera.freeze")
    assert refused.value.key == "403/realBoard"
    with pytest.raises(Refused, match="no loudspeaker") as refused:
        await scene.give("devices.volume", percent=10)
    assert refused.value.key == "501/FeatureNotSupported"
