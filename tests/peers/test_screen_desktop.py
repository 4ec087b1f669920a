"""The screen of a real board on a desktop: a full-screen window at an X server (Xvfb), and at a Wayland compositor."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from hw.api import Fit, Picture, Tile
from hw.faults import FaultLine
from hw.pi.display import DisplayConfig, SdlDisplay, open_display
from hw.sim.display import SimDisplay

pytestmark = pytest.mark.peer

SIZE = (1024, 600)


@pytest.fixture(scope="module")
def x11() -> Iterator[str]:
    """An X server that nobody sees; its number is told when it serves."""
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    try:
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def wayland(x11: str, tmp_path: Path) -> Iterator[str]:
    """A compositor in that X server: one without any input device (headless) is more than SDL 2.26 survives."""
    tmp_path.chmod(0o700)
    environment = {**os.environ, "DISPLAY": x11, "XDG_RUNTIME_DIR": str(tmp_path)}
    log = tmp_path / "weston.log"
    compositor = subprocess.Popen(
        ["weston", "--backend=x11-backend.so", "--socket=screen", "--idle-time=0",
         f"--width={SIZE[0]}", f"--height={SIZE[1]}", f"--log={log}"], env=environment, stderr=subprocess.DEVNULL)
    pause = threading.Event()
    try:
        while not (tmp_path / "screen").exists():
            assert compositor.poll() is None, log.read_text()
            pause.wait(0.05)
        yield "screen"
    finally:
        compositor.terminate()
        compositor.wait(10)


def _draws_as_the_simulated_screen(driver: str) -> None:
    faults = FaultLine()
    display = open_display(DisplayConfig(driver="auto"), faults, lambda button, down: None)
    assert isinstance(display, SdlDisplay)
    pause = threading.Event()
    while not display.devices()[0].present:
        pause.wait(0.05)
    assert driver in display.devices()[0].name
    simulated = SimDisplay(display.size)
    luma = bytes(column % 200 + 20 for column in range(320)) * 180
    picture = Picture(320, 180, luma + bytes((90,)) * 14400 + bytes((200,)) * 14400)
    for content in (([Tile(picture, w=0.5, label="Anna", muted=True, bars=4, fit=Fit.CROP),
                      Tile(picture, x=0.5, w=0.5, mirrored=True, away=True, fit=Fit.STRETCH)],
                     "Incoming call", "Reception"),
                    ([], "Front door", "Press the button to call")):
        display.show(*content)
        simulated.show(*content)
        drawn, meant = (Image.open(io.BytesIO(one.screenshot())) for one in (display, simulated))
        assert drawn.size == SIZE
        assert max(ImageStat.Stat(ImageChops.difference(drawn, meant)).mean) < 2.0
    display.close()
    simulated.close()
    faults.close()


@pytest.mark.timeout(60)
def test_a_window_at_an_x_server(x11: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", x11)
    _draws_as_the_simulated_screen("x11")


@pytest.mark.timeout(60)
def test_a_window_at_a_wayland_compositor(
    x11: str, wayland: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", wayland)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DISPLAY", x11)
    _draws_as_the_simulated_screen("wayland")
