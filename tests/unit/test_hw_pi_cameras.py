"""Several cameras on a real board: which one is opened, and what is told of the others. Sensors are made here."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from av.video.frame import VideoFrame

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFact,
    DeviceFailedError,
    DeviceMissingError,
    DevicePulledError,
    EncodedFrame,
    Fault,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.camera.trouble import CameraTrouble
from hw.faults import FaultLine
from hw.pi.camera import process as module
from hw.pi.camera.config import CameraConfig, ranked
from hw.pi.camera.csi import CSI_NODES, csi_lacks
from hw.pi.camera.known import KnownCameras
from hw.pi.camera.process import RealCamera
from hw.pi.camera.usb import UsbCamera
from hw.pi.encoder.ladder import CameraEncoder
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.probe import Found
from hw.pi.shot import Shot
from tests.contract.seen import until

FRONT, SIDE, ROOF = (UsbCamera(f"usb-{name}", name.capitalize(), f"/dev/{name}") for name in ("front", "side", "roof"))
MODE = {"width": 320, "height": 180, "fps": 30, "bitrate": 300_000}


def ids(cameras: list[UsbCamera]) -> str:
    return " ".join(camera.name for camera in cameras)


@pytest.mark.parametrize(("wanted", "selected", "order"), [
    ((), "", "Front Side Roof"), ((), "usb-roof", "Roof Front Side"), (("usb-side", "Fr"), "", "Side Front"),
    (("usb-side",), "usb-roof", "Roof Side"), (("R",), "usb-gone", "Roof"), (("nothing",), "", ""),
])
def test_the_selected_camera_comes_first_then_the_list(wanted: tuple[str, ...], selected: str, order: str) -> None:
    assert ids(ranked([FRONT, SIDE, ROOF], wanted, selected)) == order


class Sensor:
    """An open camera with a picture whenever it is asked."""

    zooms, steering, note, layout, driver = False, None, "", None, M2mEncoder

    def __init__(self, camera: UsbCamera) -> None:
        self.camera, self.what, self.closed = camera, camera.name, False
        self.file = os.eventfd(1)
        self.error: HardwareError | None = None
        self.pts_us = 0

    def take(self) -> Shot:
        if self.error is not None:
            raise self.error
        self.pts_us += 33_334
        return Shot(self.pts_us, lambda: VideoFrame(320, 180, "yuv420p"))

    def units(self) -> list[tuple[bytes, int]]:
        return []

    def close(self) -> None:
        if not self.closed:
            os.close(self.file)
        self.closed = True


class Yard:
    """What is plugged in, what refuses, what is open; and what the process tells its owner."""

    def __init__(self) -> None:
        self.there = [FRONT, SIDE]
        self.refusals: dict[str, HardwareError] = {}
        self.open: list[Sensor] = []
        self.told: list[dict[str, Any]] = []
        self.frames = 0

    def make(self, camera: UsbCamera, *_: object, **__: object) -> Sensor:
        if camera.id in self.refusals:
            raise self.refusals[camera.id]
        self.open.append(Sensor(camera))
        return self.open[-1]

    def tell(self, event: str, **fields: Any) -> None:
        self.told.append({"event": event, **fields})

    def frame(self, generation: int, frame: EncodedFrame) -> None:
        assert generation == 7
        self.frames += 1

    def snapshot(self, number: int, jpeg: bytes) -> None:
        self.told.append({"event": "snapshot", "id": number})

    @property
    def seen(self) -> str:
        """The cameras that are open."""
        return ids([sensor.camera for sensor in self.open if not sensor.closed])

    def news(self, *names: str) -> list[tuple[Any, ...]]:
        """What was told since, in short."""
        told, self.told = self.told, []
        return [tuple(one.get(key) for key in ("event", "id", "why") if key in one) for one in told
                if one["event"] in (names or ("using", "refused", "device"))]


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    found = Yard()
    monkeypatch.setattr(module, "find_usb", lambda: list(found.there))
    monkeypatch.setattr(module, "find_csi", lambda: ())
    monkeypatch.setattr(module, "nodes_named", lambda: [(camera.path, camera.name) for camera in found.there])
    monkeypatch.setattr(module, "UsbSensor", found.make)
    monkeypatch.setattr(module, "CameraEncoder", functools.partial(CameraEncoder, find=Found, speed=lambda: 1e9))
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr(module, "REFUSED_S", 0.0)
    yield found
    for sensor in found.open:
        sensor.close()


Make = Callable[..., RealCamera]


@pytest.fixture
def started(yard: Yard) -> Make:
    def make(*devices: str, **more: Any) -> RealCamera:
        camera = RealCamera(CameraConfig(devices=devices, **more), yard)  # type: ignore[arg-type]
        camera.handle({"do": "start", "generation": 7, **MODE})
        return camera

    return make


def test_what_is_selected_is_taken_in_the_same_stream_and_given_back(yard: Yard, started: Make) -> None:
    camera = started("Front", "Side")
    assert (yard.seen, yard.news()) == ("Front", [("using", "usb-front")])
    camera.handle({"do": "select", "id": "usb-side"})
    assert yard.seen == "Side"
    assert yard.news("using", "started", "selected") == [("using", "usb-side"), ("started",), ("selected",)]
    camera.tick()
    assert yard.frames >= 1
    camera.handle({"do": "select", "id": ""})
    assert (yard.seen, yard.news()) == ("Front", [("using", "usb-front")])
    camera.handle({"do": "select", "id": "usb-nowhere"})
    assert (yard.seen, yard.news()) == ("Front", [])
    camera.handle({"do": "stop", "generation": 7})
    camera.handle({"do": "select", "id": "usb-side"})
    assert yard.seen == "", "a sensor is not opened before it is wanted"
    camera.handle({"do": "start", "generation": 7, **MODE})
    assert yard.seen == "Side"


def test_while_the_best_is_held_the_next_is_used_until_it_is_free(yard: Yard, started: Make) -> None:
    yard.refusals["usb-front"] = DeviceBusyError("held by x (7)")
    camera = started()
    assert yard.seen == "Side"
    assert yard.news() == [("refused", "usb-front", "busy"), ("using", "usb-side")]
    for _ in range(3):
        camera.tick()
    assert yard.seen == "Side"
    assert yard.frames >= 2, "the one in use goes on while the better one is tried"
    del yard.refusals["usb-front"]
    yard.news()
    camera.tick()
    assert (yard.seen, yard.news()) == ("Front", [("using", "usb-front")])


def test_a_selected_camera_that_refuses_costs_no_picture_of_the_other(yard: Yard, started: Make) -> None:
    camera = started()
    yard.refusals["usb-side"] = DeviceBusyError("held by x (7)")
    camera.handle({"do": "select", "id": "usb-side"})
    assert yard.news() == [("using", "usb-front"), ("refused", "usb-side", "busy")]
    assert [sensor.closed for sensor in yard.open] == [False]
    del yard.refusals["usb-side"]
    camera.tick()
    assert yard.seen == "Side"


def test_where_the_bus_has_no_room_for_both_the_one_in_use_is_closed_first(
        yard: Yard, started: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = started()

    def full(which: UsbCamera, *rest: object, **more: object) -> Sensor:
        if yard.seen:
            raise DeviceFailedError("no space left on device")
        return yard.make(which, *rest, **more)

    monkeypatch.setattr(module, "UsbSensor", full)
    camera.handle({"do": "select", "id": "usb-side"})
    assert yard.seen == "Side"


def test_pulled_in_use_the_next_takes_over_at_once_until_it_returns(yard: Yard, started: Make) -> None:
    camera = started()
    yard.news()
    yard.open[0].error = DevicePulledError("camera Front was unplugged")
    yard.refusals["usb-front"] = DeviceMissingError("it is not there")  # and the list lags behind
    camera.tick()
    assert (yard.seen, yard.news()) == ("Side", [("refused", "usb-front", "pulled"), ("using", "usb-side")])
    yard.there.remove(FRONT)
    camera.tick()
    assert yard.news("cameras") == [("cameras",)]
    yard.there.insert(0, FRONT)
    yard.refusals["usb-front"] = DeviceDeniedError("group video")
    camera.tick()
    assert yard.seen == "Side"
    del yard.refusals["usb-front"]
    camera.tick()
    assert yard.seen == "Front"


def test_one_alone_is_told_as_before(yard: Yard, started: Make) -> None:
    yard.there = [FRONT]
    camera = started()
    yard.news()
    yard.open[0].error = DevicePulledError("camera Front was unplugged")
    camera.tick()
    assert (yard.seen, yard.news()) == ("", [("device", "usb-front", "pulled")])
    yard.refusals["usb-front"] = DeviceBusyError("held by x (7)")
    camera.handle({"do": "start", "generation": 7, **MODE})
    assert yard.news() == [("device", "usb-front", "busy")]


def test_where_none_opens_it_is_told_of_the_best(yard: Yard, started: Make) -> None:
    yard.refusals = {"usb-front": DeviceBusyError("held by x (7)"), "usb-side": DeviceDeniedError("group video")}
    started("Side", "Front")
    assert yard.news() == [("device", "usb-side", "denied")]
    yard.there = []
    started("Side", "Front")
    assert yard.news() == [("device", "", "missing")], "of none that is there"


def test_a_snapshot_of_a_closed_camera_is_of_the_next_where_the_best_refuses(yard: Yard, started: Make) -> None:
    yard.refusals["usb-front"] = DeviceBusyError("held by x (7)")
    camera = started()
    camera.handle({"do": "stop", "generation": 7})
    yard.news()
    camera.handle({"do": "snapshot", "id": 3})
    assert yard.news("snapshot") == [("snapshot", 3)]
    assert yard.seen == ""


@pytest.mark.parametrize(("encoder", "missed"), [("hardware", True), ("auto", False), ("software", False)])
def test_an_encoder_that_is_gone_at_the_start_is_missed_where_the_board_has_one(
        yard: Yard, started: Make, encoder: str, missed: bool) -> None:
    started(encoder=encoder)
    told = next(one for one in yard.told if one["event"] == "fallback")
    assert (told["active"], "is not there" in told["detail"]) == (missed, missed)


def test_of_three_the_best_that_is_free_is_used(yard: Yard, started: Make) -> None:
    yard.there = [FRONT, SIDE, ROOF]
    yard.refusals = {"usb-front": DeviceBusyError("held by x (7)"), "usb-side": DeviceBusyError("held by x (7)")}
    camera = started()
    assert yard.seen == "Roof"
    del yard.refusals["usb-side"]
    camera.tick()
    assert yard.seen == "Side"


class Known:
    """``KnownCameras`` with what it tells."""

    def __init__(self, *wanted: str) -> None:
        self.line = FaultLine()
        self.faults: list[Fault] = []
        self.line.listen(self.faults.append)
        self.cameras = KnownCameras(wanted, self.line)
        self.cameras.plugged([("a", "Front"), ("b", "Side")])

    def used(self, *, running: bool = True) -> list[str]:
        return [fact.id for fact in self.facts(running=running) if fact.used]

    def facts(self, *, running: bool = True) -> list[DeviceFact]:
        return self.cameras.facts(running=running, note="")

    def tells(self, *expected: tuple[FaultKind, str, bool]) -> bool:
        return until(lambda: [(one.fault, one.device, one.active) for one in self.faults] == list(expected), 2.0)


@pytest.fixture
def known() -> Iterator[Known]:
    found = Known()
    yield found
    found.line.close()


def test_the_one_that_will_be_opened_is_told_and_then_the_one_that_is(known: Known) -> None:
    assert (known.used(running=False), known.used()) == (["a"], ["a"])
    known.cameras.selected = "b"
    assert known.used(running=False) == ["b"]
    known.cameras.using("a")
    assert known.used() == ["a"]
    known.cameras.plugged([])
    assert known.facts() == []


def test_one_that_refuses_is_told_by_its_id_until_it_opens_or_nobody_tries(known: Known) -> None:
    known.cameras.refused("a", FaultKind.BUSY, "held by x (7)")
    known.cameras.using("b")
    assert known.tells((FaultKind.BUSY, "a", True))
    assert [(fact.used, fact.note) for fact in known.facts()] == [(False, "held by x (7)"), (True, "")]
    known.cameras.closed()
    assert known.tells((FaultKind.BUSY, "a", True), (FaultKind.BUSY, "a", False))


def test_one_that_was_pulled_is_told_until_it_is_back_also_while_nobody_looks(known: Known) -> None:
    known.cameras.using("a")
    known.cameras.refused("a", FaultKind.PULLED, "it was unplugged")
    known.cameras.using("b")
    known.cameras.plugged([("b", "Side")])
    known.cameras.closed()
    gone = known.facts()[-1]
    assert (gone.kind, gone.id, gone.name, gone.present, gone.used, gone.note) == (
        Kind.CAMERA, "a", "Front", False, False, "it was unplugged")
    assert known.tells((FaultKind.PULLED, "a", True))
    known.cameras.plugged([("a", "Front"), ("b", "Side")])
    assert known.tells((FaultKind.PULLED, "a", True), (FaultKind.PULLED, "a", False))
    assert [fact.present for fact in known.facts()] == [True, True]


def test_trouble_has_the_name_of_the_camera_in_use_and_is_over_with_the_next() -> None:
    line, told = FaultLine(), list[Fault]()
    line.listen(told.append)
    trouble = CameraTrouble("cam0", line)

    def tells(*expected: tuple[FaultKind, str, bool]) -> bool:
        return until(lambda: [(one.fault, one.device, one.active) for one in told] == list(expected), 2.0)

    trouble.report(FaultKind.STALLED, True, "no picture")
    trouble.report(FaultKind.BUSY, True, "held by x (7)")
    before = ((FaultKind.STALLED, "cam0", True), (FaultKind.BUSY, "cam0", True))
    assert tells(*before)
    trouble.become("cam0")
    trouble.become("usb-front", {FaultKind.BUSY})
    assert tells(*before, (FaultKind.STALLED, "cam0", False)), "what others go on telling stands"
    assert (trouble.active(FaultKind.STALLED), trouble.active(FaultKind.BUSY)) == (False, False)
    trouble.report(FaultKind.SLOW, True)
    trouble.report(FaultKind.SLOW, False)
    trouble.fallback(True, "it hangs", FaultKind.STALLED)
    assert until(lambda: told[-1] == Fault(Kind.CAMERA, FaultKind.FALLBACK, "encoder0", True, "it hangs",
                                           FaultKind.STALLED), 2.0)
    line.close()


def test_one_that_refused_and_is_gone_is_not_missed(known: Known) -> None:
    known.cameras.refused("a", FaultKind.BUSY, "held by x (7)")
    assert known.tells((FaultKind.BUSY, "a", True))
    known.cameras.plugged([("b", "Side")])
    assert known.tells((FaultKind.BUSY, "a", True), (FaultKind.BUSY, "a", False))
    assert [fact.id for fact in known.facts()] == ["b"]


def test_a_receiver_without_picamera2_is_told_as_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "class/video4linux/video0"
    node.mkdir(parents=True)
    (node / "name").write_text(f"{CSI_NODES[0]}-image\n")
    assert csi_lacks(str(tmp_path / "nowhere")) == ""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert "picamera2" in csi_lacks(str(tmp_path))
    assert "--system-site-packages" in csi_lacks(str(tmp_path))
    monkeypatch.setitem(sys.modules, "picamera2", ModuleType("picamera2"))
    assert csi_lacks(str(tmp_path)) == ""
