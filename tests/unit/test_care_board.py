"""The board as people see it: its devices, its faults, and the verbs of the simulated one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.bulletin import Bulletin
from appliance.care.board import BoardCare
from appliance.care.choice import DeviceChoice
from appliance.care.diagnostics import Diagnostics
from appliance.errors import BadRequest, EdgecallError, Refused, StoreError
from appliance.vocabulary import DEVICE_KINDS, VERB, Command, Event, Json, Origin
from hw.api import Board, BoardOptions, DeviceFact, Kind, Press, PressKind
from hw.bare import BareBoard
from hw.sim.board import SimBoard


class Marks(dict[str, str]):
    """What outlives a restart; full when told so."""

    full = False

    async def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name, default)

    async def set(self, name: str, value: str) -> None:
        if self.full:
            raise StoreError("the card is full")
        self[name] = value


class Scene:
    def __init__(self, board: Board, marks: Marks | None = None) -> None:
        self.board = board
        self.marks = Marks() if marks is None else marks
        self.choice = DeviceChoice(board, self.marks)
        self.bulletin = Bulletin("boot-1")
        self.diagnostics = Diagnostics(self.bulletin)
        self.care = BoardCare(board, self.choice, self.bulletin, self.diagnostics)
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


def test_the_kinds_of_the_schema_are_those_of_the_boards() -> None:
    assert tuple(kind.value for kind in Kind) == DEVICE_KINDS


async def test_the_devices_are_told_and_a_pulled_one_twice(scene: Scene) -> None:
    assert scene.devices["cam0"] == {
        "kind": "camera", "id": "cam0", "name": "Simulated camera", "present": True, "selected": False,
        "used": True, "simulated": True, "note": ""}
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
        super().__init__(BoardOptions())
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
        board.there.append(DeviceFact(Kind.MICROPHONE, "usb:1-2", "Spare", used=False))
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
        return [DeviceFact(kind, "usb:1-1", "Speakerphone", used=kind is Kind.SPEAKER)
                for kind in (Kind.MICROPHONE, Kind.SPEAKER)]


async def test_both_directions_of_one_card_are_shown() -> None:
    scene = Scene(OneCard(BoardOptions()))
    with scene.bulletin.subscribed(on_document=lambda *_: scene.changed.set()):
        running = asyncio.create_task(scene.care.run(), name="care")
        await scene.until(lambda: "devices" in scene.bulletin.snapshot().documents)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    told = scene.bulletin.document("devices")["devices"]
    assert [(one["kind"], one["used"]) for one in told] == [("microphone", False), ("speaker", True)]
    scene.diagnostics.close()


async def select(scene: Scene, kind: str, device: str) -> Json:
    """The answer, which is what the state says too."""
    answer = await scene.give("devices.select", kind=kind, id=device)
    assert answer is not None
    told = dict(answer["choice"])
    assert told.pop("kind") == kind
    assert scene.bulletin.document("devices")["choice"][kind] == told
    return told


async def test_what_is_selected_is_used_and_told_until_the_board_chooses_again(scene: Scene) -> None:
    assert scene.bulletin.document("devices")["choice"] == {
        kind: {"selected": "auto", "used": device, "why": "the first of the board's own order that works"}
        for kind, device in (("camera", "cam0"), ("microphone", "mic0"), ("speaker", "spk0"))}
    await scene.give("sim.plug", device="microphone", source="tone:880")
    assert await select(scene, "microphone", "mic1") == {"selected": "mic1", "used": "mic1", "why": "it is selected"}
    assert [(one["selected"], one["used"]) for one in (scene.devices["mic0"], scene.devices["mic1"])] == [
        (False, False), (True, True)]
    await scene.give("sim.plug", device="microphone", plugged=False)
    await scene.until(lambda: scene.diagnostics.raised("microphoneUnplugged"))
    assert scene.bulletin.document("devices")["choice"]["microphone"] == {
        "selected": "mic1", "used": "mic0", "why": "mic1 (Second simulated microphone) is selected and not plugged in"}
    assert not scene.devices["mic1"]["present"]
    assert (await select(scene, "microphone", "mic1"))["used"] == "mic0", "the same again while it is away"
    await scene.give("sim.plug", device="microphone")
    await scene.until(lambda: not scene.diagnostics.raised("microphoneUnplugged"))
    assert scene.bulletin.document("devices")["choice"]["microphone"]["used"] == "mic1"
    told = [event.data for event in scene.events if event.type == "devices.selected"]
    assert [(one["kind"], one["selected"], one["used"]) for one in told] == [
        ("microphone", "mic1", "mic1"), ("microphone", "mic1", "mic0"), ("microphone", "mic1", "mic1")]
    assert told[1]["why"].endswith("is selected and not plugged in")
    for nothing in ("auto", ""):
        await select(scene, "microphone", "mic1")
        assert (await select(scene, "microphone", nothing))["used"] == "mic0"
        assert not scene.devices["mic1"]["selected"]


async def test_one_that_is_selected_and_busy_says_by_whom(scene: Scene) -> None:
    await scene.give("sim.plug", device="speaker")
    await scene.give("sim.fault", fault="speaker.busy")
    assert await select(scene, "speaker", "spk0") == {
        "selected": "spk0", "used": "spk1",
        "why": "spk0 is selected and cannot be used: the loudspeaker is held by another program (simulated): end "
               "it"}
    await scene.until(lambda: scene.diagnostics.raised("speakerBusy"))
    assert not scene.diagnostics.raised("speakerUnplugged")


@pytest.mark.parametrize(("kind", "device", "key", "words"), [
    ("microphone", "mic7", "404/notFound", "there is no microphone 'mic7' now; there are: mic0; or auto"),
    ("microphone", "mic1", "404/notFound", "there is no microphone 'mic1' now"),
    ("microphone", "spk0", "400/wrongKind",
     "'spk0' is a speaker and no microphone; each microphone that is there: mic0"),
    ("camera", "screen0", "400/wrongKind", "'screen0' is a display and no camera; each camera that is there: cam0"),
    ("display", "screen0", "501/FeatureNotSupported",
     "on this board no display can be selected; there is a choice of camera, microphone, speaker"),
    ("panel", "auto", "501/FeatureNotSupported", "on this board no panel can be selected")])
async def test_what_cannot_be_selected_is_refused_in_words_and_nothing_changes(
        scene: Scene, kind: str, device: str, key: str, words: str) -> None:
    before = scene.bulletin.document("devices")
    with pytest.raises(EdgecallError, match=re.escape(words)) as refused:
        await scene.give("devices.select", kind=kind, id=device)
    assert refused.value.key == key
    assert scene.bulletin.document("devices") == before
    assert scene.marks == {}


async def test_a_choice_outlives_a_restart_and_a_device_that_is_not_there_at_the_start(scene: Scene) -> None:
    await scene.give("sim.plug", device="camera")
    await scene.give("sim.plug", device="speaker")
    await select(scene, "camera", "cam1")
    await select(scene, "speaker", "spk1")
    await select(scene, "speaker", "auto")
    board = await asyncio.to_thread(SimBoard, BoardOptions(microphone="silence"))
    after = Scene(board, scene.marks)
    try:
        await after.choice.restore()
        with after.bulletin.subscribed(on_document=lambda *_: after.changed.set()):
            running = asyncio.create_task(after.care.run(), name="care")
            await after.until(lambda: after.diagnostics.raised("cameraUnplugged"))
            row, told = after.devices["cam1"], after.bulletin.document("devices")["choice"]
            assert (row["name"], row["present"], row["selected"], row["used"]) == (
                "Second simulated camera", False, True, False)
            assert (told["camera"]["selected"], told["camera"]["used"]) == ("cam1", "cam0")
            assert told["speaker"]["selected"] == "auto"
            await after.give("sim.plug", device="camera")
            await after.until(lambda: not after.diagnostics.raised("cameraUnplugged"))
            assert after.bulletin.document("devices")["choice"]["camera"]["used"] == "cam1"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        after.diagnostics.close()
        await asyncio.to_thread(board.close)


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"ear": {"id": "x", "name": "x"}}', '{"camera": "cam1"}'])
async def test_what_another_version_kept_is_no_choice(scene: Scene, kept: str) -> None:
    scene.marks["devices.selected"] = kept
    await scene.choice.restore()
    assert {one["selected"] for one in scene.choice.documents(scene.board.devices()).values()} == {"auto"}


async def test_a_choice_that_cannot_be_kept_is_in_force_and_says_so(scene: Scene) -> None:
    await scene.give("sim.plug", device="microphone")
    scene.marks.full = True
    with pytest.raises(StoreError, match="full"):
        await scene.give("devices.select", kind="microphone", id="mic1")
    assert scene.bulletin.document("devices")["choice"]["microphone"]["used"] == "mic1"


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
    ("sim.fault", {"fault": "echo.erlDb", "value": 5000}, "outside 0 to 120 dB"),
    ("sim.fault", {"fault": "mic.noise", "value": 1e9}, "mic.noise: 1e\\+09 is outside -100 to 0 dBFS"),
    ("sim.fault", {"fault": "thermal", "value": 1e9}, "outside -40 to 150 °C"),
    ("sim.fault", {"fault": "mic.busy", "value": 3}, "mic.busy has no value"),
    ("sim.source", {"device": "microphone", "source": "wav:/nowhere.wav"}, "no file '/nowhere.wav'"),
    ("sim.source", {"device": "microphone", "source": "radio"}, "radio"),
    ("sim.plug", {"device": "microphone", "source": "wav:/nowhere.wav"}, "no file '/nowhere.wav'"),
    ("sim.plug", {"device": "camera", "source": "radio"}, "radio"),
    ("sim.plug", {"device": "speaker", "source": "tone:300"}, "a speaker has no source")])
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
    with pytest.raises(Refused, match="no microphone can be selected; it has no device") as refused:
        await scene.give("devices.select", kind="microphone", id="mic0")
    assert refused.value.key == "501/FeatureNotSupported"
