"""Names of boards, holders of devices, nodes of this computer, the fault line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hw.api import BoardOptions, Fault, FaultKind, HardwareError, Kind
from hw.boards import open_board
from hw.faults import FaultLine
from hw.host.holders import holders
from hw.host.sound import sound_card
from hw.host.v4l2 import V4l2Source, cameras
from hw.sim.sources import SourceError


def test_unknown_board_names_the_known_ones() -> None:
    with pytest.raises(HardwareError, match=r"'pie'.*sim, pi, auto"):
        open_board("pie", BoardOptions())


def test_a_board_that_cannot_be_opened_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with pytest.raises(HardwareError, match="no-such"):
        open_board("sim", BoardOptions(microphone="no-such"))
    assert set(threading.enumerate()) == before


def test_faults_of_a_health_that_is_not_simulated_are_refused() -> None:
    board = open_board("auto", BoardOptions())
    try:
        hands = board.simulation
        assert hands is not None
        assert not {"thermal", "power.undervoltage", "storage.full"} & set(hands.faults)
        with pytest.raises(KeyError, match="thermal"):
            hands.fault("thermal", active=True)
    finally:
        board.close()


def test_holders_are_found_by_their_open_files(tmp_path: Path) -> None:
    rows = (("17", "cheese", "/dev/video0"), ("4", "kernel", "/dev/null"), ("200", "obs", "/dev/video0"))
    for pid, name, target in rows:
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text(name + "\n")
        (tmp_path / pid / "fd" / "5").symlink_to(target)
    (tmp_path / "9").mkdir()  # ended while we look
    assert holders("/dev/video0", str(tmp_path)) == "cheese (17), obs (200)"
    assert holders("/dev/video1", str(tmp_path)) == ""


def test_cameras_are_the_nodes_with_pictures(tmp_path: Path) -> None:
    for node, name, index in (("video10", "Second", "0"), ("video0", "USB Camera", "0"), ("video1", "USB Camera", "1")):
        folder = tmp_path / "class" / "video4linux" / node
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "index").write_text(index + "\n")
    assert [(node.path, node.name) for node in cameras(str(tmp_path))] == [
        ("/dev/video0", "USB Camera"),
        ("/dev/video10", "Second"),
    ]


def test_a_missing_camera_node_is_missing_and_not_broken() -> None:
    from hw.api import VideoMode

    with pytest.raises(SourceError, match="not there") as refused:
        V4l2Source("/dev/video97", VideoMode())
    assert refused.value.why == "missing"


def test_sound_card_by_its_name(tmp_path: Path) -> None:
    assert sound_card(str(tmp_path)) == ""
    (tmp_path / "cards").write_text("--- no soundcards ---\n")
    assert sound_card(str(tmp_path)) == ""
    (tmp_path / "cards").write_text(" 1 [PCH            ]: HDA-Intel - HDA Intel PCH\n      HDA Intel PCH at 0xf\n")
    assert sound_card(str(tmp_path)) == "HDA Intel PCH"


def test_the_fault_line_tells_each_change_once_and_what_is_active_to_who_comes_late() -> None:
    line, told, ready = FaultLine(), list[Fault](), threading.Semaphore(0)

    def sink(fault: Fault) -> None:
        told.append(fault)
        ready.release()

    line.report(Kind.CAMERA, FaultKind.STALLED, "cam0", True, "why")
    line.report(Kind.CAMERA, FaultKind.STALLED, "cam0", True, "again")
    line.report(Kind.SPEAKER, FaultKind.MUTED, "spk0", True)
    line.report(Kind.SPEAKER, FaultKind.MUTED, "spk0", False)
    line.listen(sink)
    assert ready.acquire(timeout=2)
    line.report(Kind.CAMERA, FaultKind.STALLED, "cam0", False)
    assert ready.acquire(timeout=2)
    line.close()
    line.close()
    line.report(Kind.CAMERA, FaultKind.BUSY, "cam0", True)
    assert [(fault.fault, fault.active, fault.detail) for fault in told] == [
        (FaultKind.STALLED, True, "why"),
        (FaultKind.STALLED, False, ""),
    ]
