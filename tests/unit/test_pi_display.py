"""The screen of a real board without the screen: its table, connectors, backlight, and where pictures go."""

from __future__ import annotations

import pickle
import queue
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image, new

from appliance.media.screen import Screen
from hw import screen
from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    Fault,
    FaultKind,
    Fit,
    HardwareError,
    Kind,
    Picture,
    Tile,
)
from hw.faults import FaultLine
from hw.pi import sdl
from hw.pi.backlight import Backlight
from hw.pi.boardfile import BoardFile, BoardFileError, board_files, load_board_file
from hw.pi.display import (
    Connector,
    DisplayConfig,
    Message,
    Show,
    State,
    connectors,
    desktop,
    open_display,
    plugged,
)
from hw.screen import FAINT, INK, WARNING, Box, Content, Words, cut, inked, place, turned, upright
from tests.support.media_board import HandDisplay


def _press(button: str, down: bool) -> None:
    raise AssertionError(f"{button} {down}")


@pytest.mark.parametrize(("table", "words"), [
    ({"use": "yes"}, "use: 'yes' is none of auto, required, none"),
    ({"driver": "fbdev"}, "driver: 'fbdev' is none of auto, kmsdrm, wayland, x11"),
    ({"rotation": 45}, "rotation: 45 is none of 0, 90, 180, 270"),
    ({"connector": "HDMI-A-1", "driver": "x11"}, "connector: x11 places the window by itself; leave it out"),
    ({"touch": {"call": "0 0 1"}}, "touch.call = '0 0 1': LEFT TOP WIDTH HEIGHT"),
    ({"touch": {"call": "0.5 0 0.6 1"}}, "touch.call"),
    ({"touch": {"call": "0 0 0 1"}}, "touch.call"),
])
def test_a_wrong_table_is_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(BoardFileError, match=words):
        BoardFile("b.toml", tables={"display": table}).part("display", DisplayConfig)


def test_every_shipped_board_file_holds() -> None:
    for path in board_files().values():
        load_board_file(path).part("display", DisplayConfig)


def test_a_touch_presses_the_button_of_its_place() -> None:
    config = DisplayConfig(touch={"mute": "0 0.8 0.5 0.2", "call": "0 0 1 1"})
    assert config.touched(0.2, 0.9) == "mute"
    assert config.touched(0.7, 0.9) == "call"
    assert DisplayConfig(touch={"mute": "0 0.8 0.5 0.2"}).touched(0.7, 0.9) is None


def _connector(folder: Path, path: str, number: int, status: str) -> None:
    (folder / path).mkdir()
    (folder / path / "connector_id").write_text(f"{number}\n")
    (folder / path / "status").write_text(f"{status}\n")


def test_connectors_are_counted_as_the_kernel_does(tmp_path: Path) -> None:
    assert connectors(str(tmp_path)) == []
    (tmp_path / "card1").mkdir()
    _connector(tmp_path, "card1-HDMI-A-1", 33, "disconnected")
    _connector(tmp_path, "card1-HDMI-A-2", 44, "connected")
    _connector(tmp_path, "card1-DSI-1", 41, "connected")
    _connector(tmp_path, "card1-Writeback-1", 50, "unknown")
    _connector(tmp_path, "card0-HDMI-A-3", 90, "disconnected")
    there = connectors(str(tmp_path))
    assert there == [Connector(0, "HDMI-A-3", False), Connector(1, "HDMI-A-1", False), Connector(1, "DSI-1", True),
                     Connector(1, "HDMI-A-2", True)]
    assert plugged(there) == Connector(1, "DSI-1", True)
    assert plugged(there, "HDMI-A-2") == Connector(1, "HDMI-A-2", True)
    assert plugged(there, "HDMI-A-1") is None


class Sockets:
    """Two sockets of a card, where the screen's process opens a window. SDL's place is taken, its own logic is not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected = {"HDMI-A-1": True, "HDMI-A-2": True}
        self.refusal: HardwareError | None = None
        self.opened: queue.Queue[str] = queue.Queue()
        self.told: queue.Queue[Message] = queue.Queue()
        self._looked: queue.Queue[None] = queue.Queue()
        monkeypatch.setattr(sdl, "connectors", self.there)
        monkeypatch.setattr(sdl, "_Window", self.window)
        monkeypatch.setattr(sdl, "LOOK_S", 0.02)

    def there(self) -> list[Connector]:
        self._looked.put(None)
        return [Connector(0, name, connected) for name, connected in self.connected.items()]

    def window(self, driver: str, connector: Connector, rotation: int) -> Sockets.Window:
        if self.refusal is not None:
            raise self.refusal
        self.opened.put(connector.name)
        return Sockets.Window(connector)

    class Window:
        size, drew_s = (640, 360), 0.0

        def __init__(self, connector: Connector) -> None:
            self.connector = connector

        def draw(self, content: Content, *, read_back: bool) -> bytes:
            return b"drawn"

        def events(self) -> list[Any]:
            return []

        def close(self) -> None: ...

    def looked_at(self, times: int = 3) -> None:
        """Returns when they were, from now on."""
        while not self._looked.empty():
            self._looked.get()
        for _ in range(times):
            self._looked.get(timeout=5)

    def state(self) -> State:
        found = self.told.get(timeout=5)
        assert isinstance(found, State)
        return found


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    return Sockets(monkeypatch)


def test_of_two_screens_the_first_is_drawn_on_until_it_is_pulled(sockets: Sockets) -> None:
    process = sdl.Screen(DisplayConfig(), "kmsdrm", sockets.told.put)
    try:
        assert sockets.opened.get(timeout=5) == "HDMI-A-1"
        assert sockets.state().open
        sockets.connected["HDMI-A-1"] = False
        assert sockets.state().fault is FaultKind.PULLED
        assert sockets.opened.get(timeout=5) == "HDMI-A-2"
        assert sockets.state().open
        sockets.connected["HDMI-A-1"] = True  # back: the other is in use, and stays so
        sockets.looked_at()
        assert process.shoot() == b"drawn"
        assert (sockets.opened.empty(), sockets.told.empty()) == (True, True)
    finally:
        process.close()


def test_of_two_screens_the_one_that_is_named_is_drawn_on_and_no_other(sockets: Sockets) -> None:
    process = sdl.Screen(DisplayConfig(connector="HDMI-A-2"), "kmsdrm", sockets.told.put)
    try:
        assert sockets.opened.get(timeout=5) == "HDMI-A-2"
        assert sockets.state().open
        sockets.connected["HDMI-A-2"] = False
        assert sockets.state().fault is FaultKind.PULLED
        sockets.looked_at()
        assert sockets.opened.empty(), "the first is left alone"
        sockets.connected["HDMI-A-2"] = True
        assert sockets.opened.get(timeout=5) == "HDMI-A-2"
        assert sockets.state().open
    finally:
        process.close()


def test_a_screen_that_names_no_mode_is_found(tmp_path: Path) -> None:
    for number, (path, status, modes) in enumerate((
        ("card0-HDMI-A-1", "connected", "1920x1080\n"), ("card0-HDMI-A-2", "connected", ""),
        ("card1-DSI-1", "disconnected", ""),
    )):  # fmt: skip
        _connector(tmp_path, path, number, status)
        (tmp_path / path / "modes").write_text(modes)
    _connector(tmp_path, "card1-DP-1", 7, "connected")  # gone before its modes are read
    assert sdl.without_mode(str(tmp_path)) == ["HDMI-A-2"]


@pytest.mark.parametrize(("error", "fault"), [
    (DeviceBusyError("held by x (7)"), FaultKind.BUSY), (DeviceDeniedError("groups video"), FaultKind.DENIED),
    (DeviceFormatError("no mode"), FaultKind.FORMAT), (DeviceFailedError("no window"), FaultKind.FAILED),
])
def test_what_keeps_a_screen_from_being_opened_is_told_apart(
    sockets: Sockets, error: HardwareError, fault: FaultKind
) -> None:
    sockets.refusal = error
    process = sdl.Screen(DisplayConfig(), "kmsdrm", sockets.told.put)
    try:
        told = sockets.state()
        assert (told.fault, told.note) == (fault, str(error))
    finally:
        process.close()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_screen_has_everything_in_its_place(degrees: int) -> None:
    """As Pillow turns a picture of the upright screen, with a button where it is touched."""
    size, box = (40, 60), Box(4, 8, 20, 10)
    meant = new("L", size)
    meant.paste(255, (box.left, box.top, box.left + box.width, box.top + box.height))
    meant = meant.rotate(-degrees, expand=True)
    where = turned(box, size, degrees)
    middle = where.left + where.width // 2, where.top + where.height // 2
    half = [where.width // 2, where.height // 2][:: 1 if degrees in (0, 180) else -1]
    assert meant.getbbox() == (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
    x, y = upright(middle[0] / meant.width, middle[1] / meant.height, degrees)
    assert (x, y) == pytest.approx(((box.left + box.width / 2) / size[0], (box.top + box.height / 2) / size[1]))


def test_the_desktop_is_known_by_its_environment() -> None:
    assert desktop({"WAYLAND_DISPLAY": "wayland-1", "DISPLAY": ":0"}) == "wayland"
    assert desktop({"DISPLAY": ":0"}) == "x11"
    assert desktop({}) == ""


def test_no_screen_is_wanted() -> None:
    faults = FaultLine()
    assert open_display(DisplayConfig(use="none"), faults, _press) is None
    faults.close()


def test_a_screen_that_cannot_be_drawn_on_is_told_and_holds_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether SDL is there or not: a display server that does not exist."""
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    faults = FaultLine()
    told: queue.Queue[Fault] = queue.Queue()
    faults.listen(told.put)
    display = open_display(DisplayConfig(use="required", driver="x11"), faults, _press)
    assert display is not None
    display.show([], "Hello")
    fault = told.get(timeout=20)
    assert (fault.kind, fault.fault, fault.active) == (Kind.DISPLAY, FaultKind.FAILED, True)
    assert fault.detail
    assert not display.devices()[0].present
    with pytest.raises(DeviceMissingError):
        display.screenshot()
    with pytest.raises(ValueError, match="brightness"):
        display.set_brightness(0)
    display.close()
    display.close()
    faults.close()


# --- backlight


def test_the_backlight_is_set_and_switched_off(tmp_path: Path) -> None:
    light = tmp_path / "10-0045"
    light.mkdir()
    (light / "max_brightness").write_text("31\n")
    for name in ("brightness", "bl_power"):
        (light / name).write_text("9")
    backlight = Backlight(folder=str(tmp_path))
    assert backlight.name == "10-0045"
    backlight.set(50)
    assert ((light / "brightness").read_text(), (light / "bl_power").read_text()) == ("16", "0")
    backlight.set(1)
    assert (light / "brightness").read_text() == "1"
    backlight.set(50, on=False)
    assert ((light / "brightness").read_text(), (light / "bl_power").read_text()) == ("1", "4")


def test_without_a_backlight_nothing_happens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Backlight(folder=str(tmp_path)).set(50)
    assert not caplog.records
    assert Backlight("panel", str(tmp_path)).name == ""
    assert "there is no backlight 'panel'" in caplog.text


def test_a_backlight_that_may_not_be_set_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "panel").mkdir()
    backlight = Backlight(folder=str(tmp_path))
    backlight.set(50)
    backlight.set(60)
    assert caplog.text.count("cannot be set") == 1


# --- what is drawn


def test_a_picture_keeps_its_shape_in_the_middle_of_its_tile() -> None:
    wide, high = Picture(640, 360, b""), Picture(360, 640, b"")
    assert place(Tile(wide), (1280, 720)) == Box(0, 0, 1280, 720)
    assert place(Tile(wide), (1024, 768)) == Box(0, 96, 1024, 576)
    assert place(Tile(high, 0.5, 0.0, 0.5, 0.5), (1280, 720)) == Box(859, 0, 202, 360)
    assert place(Tile(None, 0.5, 0.5, 0.5, 0.5), (1280, 720)) == Box(640, 360, 640, 360)


def test_words_are_set_again_only_when_they_or_the_places_change() -> None:
    one, other = (Content((Tile(Picture(2, 2, bytes((n,)) * 6), label="Anna"),), "Hello", dark=False) for n in (1, 2))
    assert one.without_pictures() == other.without_pictures()
    assert one.without_pictures() != Content((Tile(None, label="Anna"),), "Hello", dark=False).without_pictures()
    assert one.without_pictures() != Content(one.tiles, "Hello", "there", dark=False).without_pictures()


def _lines(sheet: Image, ink: tuple[int, int, int]) -> list[int]:
    """Heights of the lines of capitals in that ink, top to bottom, in pixels."""
    pixels, width = sheet.tobytes(), 4 * sheet.width
    rows = [bytes((*ink, 255)) in pixels[at : at + width] for at in range(0, len(pixels), width)]
    return [len(list(run)) for inked, run in groupby(rows) if inked]


@pytest.mark.parametrize("size", [(1280, 720), (800, 480), (1024, 600), (600, 1024), (800, 600)])
@pytest.mark.parametrize("tiles", [(), (Tile(Picture(2, 2, bytes(6))),)], ids=["poster", "caption"])
@pytest.mark.parametrize("fonts", [screen.FONTS, ()], ids=["", "Pillow's font"])
def test_every_banner_is_readable_at_3_m(
    size: tuple[int, int], tiles: tuple[Tile, ...], fonts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Capitals of 9 mm where the shorter side is 87 mm (7 inch), however many words there are."""
    monkeypatch.setattr(screen, "FONTS", fonts)
    words, most = Words(size), 0
    for banner in ("H", "HELLO HH", "HHHH HHHHH HHHH", "HH HHHHHHH HHHHHH HHHH HHH HHHHHHHH HHHH", "HH " * 40):
        lines = _lines(words.sheet(Content(tiles, banner, "H", dark=False)), INK)
        assert min(lines) >= 9 / 87 * min(size) - 2, banner  # edges of letters are softened
        most = max(most, len(lines))
    assert most > 1
    assert most * min(lines) < size[1] * (0.36 if tiles else 0.8)


def test_hints_and_names_are_readable_at_1_m() -> None:
    size = (1024, 600)
    named = Content((Tile(None, label="H"),), dark=False)
    for content, ink in ((Content((), "", "H", dark=False), FAINT), (named, INK)):
        assert _lines(Words(size).sheet(content), ink)[0] >= 3 / 87 * min(size) - 2


def test_a_picture_fits_is_cut_or_is_stretched() -> None:
    wide = Picture(1280, 720, b"")
    upright = Tile(wide, 0.0, 0.0, 0.5, 1.0)
    assert (place(upright, (1280, 720)), cut(upright, (1280, 720))) == (Box(0, 180, 640, 360), None)
    stretched = replace(upright, fit=Fit.STRETCH)
    assert (place(stretched, (1280, 720)), cut(stretched, (1280, 720))) == (Box(0, 0, 640, 720), None)
    cropped = replace(upright, fit=Fit.CROP)
    assert (place(cropped, (1280, 720)), cut(cropped, (1280, 720))) == (Box(0, 0, 640, 720), Box(320, 0, 640, 720))
    assert cut(replace(cropped, picture=None), (1280, 720)) is None


def test_names_of_small_tiles_are_readable_and_stay_within_them() -> None:
    size = (1280, 720)
    small = Tile(Picture(2, 2, bytes(6)), 0.8, 0.0, 0.2, 0.125, label="H" * 60)
    sheet = Words(size).sheet(Content((small,), dark=False))
    assert _lines(sheet, INK)[0] >= 0.7 * 0.028 * 720 - 2
    box = sheet.getbbox()
    assert box is not None
    assert (box[0] >= 1024, box[2] <= 1280, box[3] <= 91) == (True, True, True)


def test_marks_tell_who_is_muted_who_is_away_and_how_good_a_network_is() -> None:
    size = (640, 360)

    def seen(colour: tuple[int, int, int], **marks: Any) -> int:
        sheet = Words(size).sheet(Content((Tile(Picture(2, 2, bytes(6)), label="Olga", **marks),), dark=False))
        pixels = sheet.tobytes()
        return sum(pixels[at : at + 3] == bytes(colour) and pixels[at + 3] > 200 for at in range(0, len(pixels), 4))

    assert seen(WARNING) == 0
    assert seen(WARNING, muted=True) > 50
    plain = seen(INK)
    assert seen(INK, away=True) > 2 * plain  # words across it; how many pixels they are is the font's affair
    levels = [seen(INK, bars=level) for level in (3, 4, 5)]
    assert plain < levels[0] < levels[1] < levels[2]
    assert seen(WARNING, bars=2) > seen(WARNING, bars=1) > 0 == seen(WARNING, bars=0)


def test_a_picture_that_the_process_has_is_not_sent_again() -> None:
    one, two, three = (Picture(2, 2, bytes((n,)) * 6) for n in range(3))
    first = Content((Tile(one, label="Anna"), Tile(None), Tile(two)), "Hello", dark=False)
    then = Content((Tile(two, 0.5), Tile(three), Tile(one, mirrored=True)), dark=False)
    at_first = Show.after(Content(), first)
    assert at_first.content == first
    further = Show.after(first, then)
    assert [tile.picture for tile in further.content.tiles] == [None, three, None]
    has = pickle.loads(pickle.dumps(at_first)).whole(Content())  # noqa: S301 - our own
    shown = pickle.loads(pickle.dumps(further)).whole(has)  # noqa: S301
    assert shown == then
    assert shown.tiles[2].picture is has.tiles[0].picture  # whose texture is there


def test_only_where_something_is_drawn_it_is_laid_over_pictures() -> None:
    size = (1280, 720)
    nine = tuple(Tile(Picture(2, 2, bytes(6)), n % 3 / 3, n // 3 / 3, 1 / 3, 1 / 3, label="Olga") for n in range(9))
    sheet = Words(size).sheet(Content(nine, dark=False))
    boxes = inked(sheet)
    seen = new("RGBA", size)
    for box in boxes:
        place = (box.left, box.top, box.left + box.width, box.top + box.height)
        seen.paste(sheet.crop(place), place[:2])
    assert seen.tobytes() == sheet.tobytes()
    assert sum(box.width * box.height for box in boxes) < 0.2 * size[0] * size[1]
    assert inked(Words(size).sheet(Content((Tile(Picture(2, 2, bytes(6))),), dark=False))) == []


def test_of_a_tile_below_nothing_is_drawn_over_a_picture() -> None:
    tiles = (Tile(None), Tile(Picture(2, 2, bytes(6)), 0.7, 0.1, 0.2, 0.2))
    sheet = Words((640, 360)).sheet(Content(tiles, dark=False))
    assert sheet.getpixel((100, 300))[3] == 255
    assert sheet.getpixel((500, 70)) == (0, 0, 0, 0)


def test_dots_never_stand_alone_in_a_line() -> None:
    sheet = Words((600, 1024)).sheet(Content((Tile(Picture(2, 2, bytes(6))),), "Reconnecting …", dark=False))
    assert len(_lines(sheet.crop((0, 0, 500, 1024)), INK)) == 1  # without the dots


def test_a_dark_screen_is_lit_by_the_same_words_again() -> None:
    display = HandDisplay()
    screen = Screen(display)
    screen.text("Front door", "Press")
    display.banner = ""
    screen.text("Front door", "Press")
    assert display.banner == ""  # nothing new: not drawn again
    screen.blank()
    screen.text("Front door", "Press")
    assert display.banner == "Front door"
