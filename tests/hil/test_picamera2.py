"""picamera2 as it is on the index, with its own H264Encoder, on the test kernel's camera and encoder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.lg_feature("faults")
@pytest.mark.timeout(240)
def test_unmodified_picamera2_records_with_its_hardware_encoder(tmp_path: Path) -> None:
    suite = subprocess.run([HERE / "picamera2" / "suite"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [HERE / "boot", "--out", tmp_path, "--load", "vimc", "--load", "hilenc", "--limit", "200", "--",
         HERE / "picamera2" / "inside", suite, "/hil/stream.h264"],
        capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert told["taken"] >= 12, "vimc computes each pixel, and gives two to four pictures a second"
    assert told["taken"] - 1 <= told["decoded"], "the picture under way at the stop may be lost"
    assert told["sizes"] == [[640, 360]]
    assert (tmp_path / "stream.h264").read_bytes().startswith(b"\0\0\0\1\x67"), "headers come first"
