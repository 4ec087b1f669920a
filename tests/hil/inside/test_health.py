"""The health of the board from the kernel: link and signal of Wi-Fi, by two simulated radios (mac80211_hwsim).
Kernel real, hardware simulated.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hw.api import Link
from hw.pi.health import look

MODULES = ["mac80211_hwsim radios=2"]
pytestmark = pytest.mark.timeout(120)
ACCESS_POINT = 'network={\n ssid="edge"\n mode=2\n frequency=2412\n key_mgmt=NONE\n}\n'


def _until(condition: Callable[[], bool], what: str, seconds: float = 40.0) -> float:
    """For what the kernel shows and nobody tells; seconds until then."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"no {what} within {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture
def access_point(modules: None, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """On wlan0, for whoever comes."""
    file = tmp_path / "ap.conf"
    file.write_text(ACCESS_POINT)
    with subprocess.Popen(["wpa_supplicant", "-i", "wlan0", "-D", "nl80211", "-c", file],
                          stdout=subprocess.DEVNULL) as program:
        yield program
        program.terminate()


def _station() -> Link:
    return next(link for link in look().links if link.name == "wlan1")


def test_signal_and_link_of_wifi_are_the_kernel_s(access_point: subprocess.Popen[bytes]) -> None:
    subprocess.run(["ip", "link", "set", "wlan1", "up"], check=True)
    assert _station() == Link("wlan1", False, None, None)

    def joined() -> bool:
        subprocess.run(["iw", "wlan1", "connect", "edge"], check=False, capture_output=True)
        return _station().up

    _until(joined, "link to the access point")
    _until(lambda: _station().dbm == -30, "signal of full power")
    subprocess.run(["iw", "wlan0", "set", "txpower", "fixed", "500"], check=True)  # 5 dBm in place of 20
    _until(lambda: _station().dbm == -45, "weaker signal")
    access_point.terminate()
    took = _until(lambda: not _station().up, "end of the link")
    assert _station() == Link("wlan1", False, None, None)
    print(f"access point gone to link down: {took:.1f} s")
