"""A device that is held, forbidden or of no usable format, before and in a call: told as that, and the call goes on
with what is left until the device is well again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest

from appliance.bulletin import Bulletin
from appliance.care.board import BoardCare
from appliance.care.choice import DeviceChoice
from appliance.care.diagnostics import Diagnostics
from appliance.media.api import Directions, IceServers, SessionClosed
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from appliance.vocabulary import Json
from hw.api import BoardOptions, Kind
from hw.sim.board import SimBoard
from tests.support.media_board import HandBoard
from tests.support.media_pair import End, connect, goertzel, until

pytestmark = pytest.mark.timeout(120)

OURS: Final = 440.0
OTHER: Final = 1320.0  # of the second microphone
THEIRS: Final = 880.0
AGAIN_S: Final = 2.0
GRACE_S: Final = 3.0  # for play-out, encoder and a machine that does something else
HEARD: Final = 0.05
TOLD: Final = {
    "mic.busy": ("microphoneBusy", "the microphone is held by another program"),
    "mic.denied": ("microphonePermissionDenied", "add the user to the group audio"),
    "mic.format": ("microphoneFormatUnsupported", "take another"),
    "speaker.busy": ("speakerBusy", "the loudspeaker is held by another program"),
    "speaker.denied": ("speakerPermissionDenied", "add the user to the group audio"),
    "speaker.format": ("speakerFormatUnsupported", "take another"),
    "camera.busy": ("cameraStartFailed", "the camera is held by another program"),
    "camera.denied": ("cameraPermissionDenied", "add the user to the group video"),
    "camera.format": ("cameraFormatUnsupported", "take another"),
}
REFUSALS: Final = ("busy", "denied", "format")
SCREEN: Final = {
    "missing": ("noDisplayDevicesEnumerated", "missing", "no screen is connected"),
    "unplug": ("displayDisconnected", "pulled", "was unplugged"),
    "busy": ("displayBusy", "busy", "held by another program"),
    "denied": ("displayPermissionDenied", "denied", "add the user to the group video"),
    "format": ("displayFormatUnsupported", "format", "names no size"),
}
IDS: Final = {"mic": "mic0", "speaker": "spk0", "camera": "cam0"}


class Marks:
    async def get(self, name: str, default: str | None = None) -> str | None:
        return default

    async def set(self, name: str, value: str) -> None: ...


class Call:
    """The simulated board in a call with a peer that records what it hears and sees."""

    def __init__(self, board: SimBoard, studio: Studio, bulletin: Bulletin, diagnostics: Diagnostics, far: End) -> None:
        self.board, self.studio, self.bulletin, self.diagnostics, self.far = board, studio, bulletin, diagnostics, far
        self._played = bytearray()
        board.simulation.tap_speaker(self._tap)

    def _tap(self, pcm: bytes) -> None:
        self._played += pcm
        del self._played[:-19_200]  # the last 200 ms

    def _flowing(self, device: str) -> Callable[[], bool]:
        """What of this device reaches whom it is for, from now on."""
        pictures = len(self.far.board.display.pictures)
        return {
            "mic": lambda: self.far.strength(OURS) > HEARD,
            "speaker": lambda: goertzel(bytes(self._played), THEIRS) > HEARD,
            "camera": lambda: len(self.far.board.display.pictures) > pictures + 3,
        }[device]

    async def flows(self, *devices: str) -> None:
        for device in devices:
            await until(self._flowing(device), AGAIN_S + GRACE_S, f"{device} in the call")

    async def rests(self, device: str) -> None:
        """Nothing of it reaches anybody once what was under way is through."""
        if device == "camera":
            await asyncio.sleep(0.5)
            begun = len(self.far.board.display.pictures)
            await asyncio.sleep(0.5)
            assert len(self.far.board.display.pictures) <= begun + 1
        else:
            flowing = self._flowing(device)
            await until(lambda: not flowing(), GRACE_S, f"silence of {device}")

    async def fault(self, name: str, active: bool) -> None:
        await asyncio.to_thread(self.board.simulation.fault, name, active)

    async def tells(self, fault: str) -> Json:
        """The diagnostic of its own, with what to do."""
        name, words = TOLD[fault]
        await until(lambda: self.diagnostics.raised(name), AGAIN_S, name)
        told: Json = self.bulletin.document("diag")[name]
        device, _, refusal = fault.partition(".")
        assert (told["detail"]["device"], told["detail"]["fault"]) == (IDS[device], refusal)
        assert words in told["detail"]["what"]
        assert told["advice"]
        return told

    async def is_well(self, fault: str) -> None:
        await until(lambda: not self.diagnostics.raised(TOLD[fault][0]), AGAIN_S, f"end of {fault}")

    def goes_on(self) -> bool:
        return not any(isinstance(event, SessionClosed) for event in self.far.told)

    @property
    def raised(self) -> set[str]:
        return set(self.diagnostics.standing())


@asynccontextmanager
async def call(*faults: str) -> AsyncIterator[Call]:
    """``faults`` are there before the media are opened."""
    async with AsyncExitStack() as stack:
        board = await asyncio.to_thread(SimBoard, BoardOptions(microphone=f"tone:{OURS:g}"))
        stack.push_async_callback(asyncio.to_thread, board.close)
        for name in faults:
            await asyncio.to_thread(board.simulation.fault, name, True)
        bulletin = Bulletin("boot-1")
        diagnostics = Diagnostics(bulletin)
        stack.callback(diagnostics.close)
        care = asyncio.create_task(BoardCare(board, DeviceChoice(board, Marks()), bulletin, diagnostics).run(),
                                   name="care.board")
        stack.push_async_callback(asyncio.gather, care, return_exceptions=True)
        stack.callback(care.cancel)
        ends = []
        for one in (board, HandBoard(THEIRS)):
            studio = Studio(one, VideoSettings(width=320, height=180))
            stack.push_async_callback(studio.close)
            await studio.open()
            ends.append(End(one, studio, studio.session(  # type: ignore[arg-type]
                Directions(), ice=IceServers(), loopback=True)))
        near, far = ends
        listening = asyncio.create_task(far.listen(), name="far.listen")
        stack.push_async_callback(asyncio.gather, listening, return_exceptions=True)
        stack.callback(listening.cancel)
        await connect(near.session, far.session)
        yield Call(board, near.studio, bulletin, diagnostics, far)


@pytest.mark.parametrize("device", ["mic", "speaker", "camera"])
async def test_in_a_call_it_is_told_and_the_rest_goes_on_until_it_is_well(device: str) -> None:
    others = [other for other in ("mic", "speaker", "camera") if other != device]
    async with call() as running:
        await running.flows(device, *others)
        for refusal in REFUSALS:
            fault = f"{device}.{refusal}"
            await running.fault(fault, True)
            told = await running.tells(fault)
            await running.rests(device)
            await running.flows(*others)
            state = running.studio.state()["video" if device == "camera" else "audio"]
            assert told["detail"]["what"] in state["reason"]
            assert state["actual"]["playing" if device == "speaker" else "sending"] is False
            assert running.raised == {TOLD[fault][0]}
            await running.fault(fault, False)
            await running.flows(device)
            await running.is_well(fault)
        assert running.goes_on()


@pytest.mark.parametrize("turn", [0, 1, 2])
async def test_a_call_that_begins_with_none_of_them_has_each_when_it_comes(turn: int) -> None:
    faults = [f"{device}.{REFUSALS[(turn + at) % 3]}" for at, device in enumerate(("mic", "speaker", "camera"))]
    async with call(*faults) as running:
        for fault in faults:
            await running.tells(fault)
        assert running.raised == {TOLD[fault][0] for fault in faults}
        audio = running.studio.state()["audio"]
        assert (audio["actual"]["sending"], audio["actual"]["playing"]) == (False, False)
        there: list[str] = []
        for fault in faults:
            await running.fault(fault, False)
            there.append(fault.partition(".")[0])
            await running.flows(*there)
            await running.is_well(fault)
        assert running.goes_on()


async def test_what_is_wrong_with_the_screen_is_told_and_the_rest_goes_on() -> None:
    async with call() as running:
        for fault, (name, kind, words) in SCREEN.items():
            await running.fault(f"screen.{fault}", True)
            await until(lambda name=name: running.diagnostics.raised(name), AGAIN_S, name)
            told = running.bulletin.document("diag")[name]
            assert (told["detail"]["device"], told["detail"]["fault"]) == ("screen0", kind)
            assert words in told["detail"]["what"]
            assert told["advice"]
            assert running.raised == {name}
            await running.flows("mic", "speaker", "camera")
            await running.fault(f"screen.{fault}", False)
            await until(lambda name=name: not running.diagnostics.raised(name), AGAIN_S, f"end of {name}")
        assert running.goes_on()


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_second_one_stands_in_for_each_that_refuses(refusal: str) -> None:
    async with call() as running:
        board = running.board
        await running.flows("mic", "speaker", "camera")
        await asyncio.to_thread(board.simulation.plug, Kind.MICROPHONE, True, f"tone:{OTHER:g}")
        for kind in (Kind.SPEAKER, Kind.CAMERA):
            await asyncio.to_thread(board.simulation.plug, kind, True)
        for device in ("mic", "speaker", "camera"):
            await running.fault(f"{device}.{refusal}", True)
        await until(lambda: running.far.strength(OTHER) > HEARD, AGAIN_S + GRACE_S, "the second microphone")
        await running.flows("speaker", "camera")
        for device in ("mic", "speaker", "camera"):
            await running.tells(f"{device}.{refusal}")
        assert "reason" not in running.studio.state()["audio"]
        for device in ("mic", "speaker", "camera"):
            await running.fault(f"{device}.{refusal}", False)
        await running.flows("mic", "speaker", "camera")
        await until(lambda: running.far.strength(OTHER) < HEARD, GRACE_S, "the first microphone alone")
        assert running.goes_on()
