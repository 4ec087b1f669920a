"""picamera2 as it is on the index, with its own H264Encoder and under our camera, on the test kernel's devices."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _told(out: Path, program: str, *arguments: str, seconds: int = 200) -> dict[str, Any]:
    """Run a program of ``tests/hil/picamera2`` in the guest; the JSON line that it prints."""
    suite = subprocess.run([HERE / "picamera2" / "suite"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [HERE / "boot", "--out", out, "--load", "vimc", "--load", "hilenc", "--limit", str(seconds), "--",
         HERE / "picamera2" / "inside", suite, program, *arguments],
        capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return told


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_unmodified_picamera2_records_with_its_hardware_encoder(tmp_path: Path) -> None:
    told = _told(tmp_path, "record.py", "/hil/stream.h264")
    assert told["taken"] >= 12, "vimc computes each pixel, and gives two to four pictures a second"
    assert told["taken"] - 1 <= told["decoded"], "the picture under way at the stop may be lost"
    assert told["sizes"] == [[640, 360]]
    assert (tmp_path / "stream.h264").read_bytes().startswith(b"\0\0\0\1\x67"), "headers come first"


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_our_camera_takes_its_pictures_by_picamera2(tmp_path: Path) -> None:
    told = _told(tmp_path, "ours.py")
    print(told)
    assert told["cameras"] == [["platform/vimc.0 Sensor B", "Sensor B", True, True]]
    assert told["taken"] >= 10, told
    assert told["decoded"] >= told["taken"] - 1
    assert told["sizes"] == [[640, 360]]
    assert told["first"]
    assert told["keyed"]
    assert told["encoder"] == "hardware"
    assert told["masked"] <= 18
    assert told["seen"] >= 60
    assert told["still"] == [640, 360]
    assert told["stopped_s"] < 1.0
    small = [[640, 360], "YUV420"]
    assert told["configured"] == [
        {"main": [[1280, 720], "YUV420"], "lores": small},
        {"main": [[1280, 720], "NV12"], "lores": [[640, 360], "NV12"]},
        {"main": [[1280, 720], "BGR888"], "lores": small},
        {"main": [[1280, 720], "YUV420"]}, {"main": [[1280, 720], "NV12"]}, {"main": [[1280, 720], "BGR888"]},
    ], "picamera2 takes them as they are, and aligns nothing away"
    shared = told["shared"]
    assert shared["read"] >= shared["frames"] - 1 >= 9, "out of libcamera's own memory"
    assert shared["decoded"] >= shared["frames"] - 1
    assert shared["still"] == [640, 360]
    assert told["beside"] == {"taken": [704, 396], "small": False}, "vimc has one stream, and is used all the same"


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_snapshots_are_of_the_small_stream_of_a_camera_that_has_two(tmp_path: Path) -> None:
    told = _told(tmp_path, "small.py")
    assert told["taken"] - 1 <= told["decoded"], told
    assert (told["sizes"], told["still"]) == ([[1280, 720]], [640, 360])
    assert max(told["masked"]) <= 18, "in both"
    assert min(told["seen"]) >= 200, "the bars of its test picture"
    assert told["apart"] <= 40, "both show the same, squeezed to 40 columns; the encoder knows 16x16 blocks alone"


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_focus_zoom_and_frame_rate_reach_libcamera_in_its_types(tmp_path: Path) -> None:
    told = _told(tmp_path, "controls.py", "controls")
    assert told["modes"] == {"Manual": 0, "Continuous": 2}
    rate = {"FrameDurationLimits": ["Integer64", "(100000, 100000)"]}
    assert told["automatic"] == {"controls": rate | {"AfMode": ["Integer32", "2"]}, "arrived": True, "note": ""}
    assert told["fixed"] == {
        "controls": rate | {"AfMode": ["Integer32", "0"], "LensPosition": ["Float", "2.0"],
                            "ScalerCrop": ["Rectangle", "(2304, 1476)/1152x648"]},
        "arrived": True, "note": "",
    }  # fmt: skip
    assert told["infinity"]["controls"] == rate | {"AfMode": ["Integer32", "0"], "LensPosition": ["Float", "0.0"]}
    assert told["infinity"]["arrived"]
    assert "needs libcamera 0.5" in told["infinity"]["note"], "Debian 13 has 0.4"


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_a_csi_picture_is_turned_zoomed_and_masked_before_it_is_encoded(tmp_path: Path) -> None:
    told = _told(tmp_path, "controls.py", "pictures")
    plain = told["plain"]  # a bar each, from white to black
    assert all(before > after + 8 for before, after in itertools.pairwise(plain)), plain
    near = pytest.approx
    assert told["turned"] == near(plain[::-1], abs=8)
    assert told["zoomed"] == near([plain[1]] * 4 + [plain[2]] * 4, abs=8), "the second and the third bar"
    assert told["all"][:4] == near([16] * 4, abs=2), "the third bar is masked, and on the left of the turned picture"
    assert told["all"][4:] == near([plain[1]] * 4, abs=8)


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(360)
def test_picamera2_encodes_where_it_is_asked_to_and_is_left_for_software_in_trouble(tmp_path: Path) -> None:
    told = _told(tmp_path, "encoder.py", seconds=320)
    print(told)
    calm = told["none"]
    assert calm["kind"] == "hardware"
    assert calm["by_picamera2"] >= 10, "every picture went through its encoder class"
    assert (calm["keys_before"], calm["keys_asked"]) == (0, 1)
    assert calm["rate"] < 0.5, "of 4 Mbit/s; the test encoder goes no lower than what has changed in the picture takes"
    assert calm["decoded"] >= calm["frames"] - 1
    assert calm["sizes"] == [[640, 360]]
    for trouble, why in (("stall", "stalled"), ("error", "stalled"), ("damage", "failed"), ("unplug", "pulled")):
        found = told[trouble]
        assert (found["told"]["active"], found["told"]["why"]) == (True, why), found
        assert "software encodes instead" in found["told"]["detail"]
        assert found["waited_s"] < 2.0, found
        assert found["after"] >= 9, found
    assert told["unplug"]["back"]
    assert told["unplug"]["by_picamera2_again"] >= 8, "one or two were under way"
    for refused in (told["memory"], told["memory of others"]):
        assert (refused["kind"], refused["by_picamera2"]) == ("hardware", 0), "copied, by our own driver"
        assert refused["decoded"] >= refused["frames"] - 1
    assert all((found["stop_s"] < 1.0, found["left_open"]) == (True, 0) for found in told.values()), told
