"""What the screen is told to show: the latest picture of everybody with a seat, with what is known of them."""

from __future__ import annotations

from appliance.media.layout import PEER, SELF, Face, Layout, Seat, Shows, Source, arrange
from appliance.media.screen import Screen
from hw.api import Fit, Picture
from tests.support.media_board import HandDisplay


def picture(mark: int) -> Picture:
    return Picture(2, 2, bytes([mark]) * 6)


def seated(screen: Screen, layout: Layout, faces: list[Face], fit: Fit = Fit.FIT) -> None:
    screen.arrange(arrange(layout, faces), faces, fit)


def test_without_an_arrangement_all_pictures_stand_in_a_grid() -> None:
    display = HandDisplay()
    screen = Screen(display)
    screen.text("Calling")
    assert (display.banner, len(display.tiles)) == ("Calling", 0)
    first, second = object(), object()
    screen.picture(first, picture(1))
    screen.picture(second, picture(2))
    assert [(tile.x, tile.w) for tile in display.tiles] == [(0, 0.5), (0.5, 0.5)]
    screen.picture(first, None)
    assert [tile.w for tile in display.tiles] == [1.0]


def test_each_picture_is_in_the_seat_of_its_source_with_its_marks() -> None:
    display = HandDisplay()
    screen = Screen(display)
    faces = [Face("1", "Olga", muted=True, level=4), Face("2", "Otto", away=True), Face("3", "Ida", video=False)]
    seated(screen, Layout.GRID, faces, Fit.CROP)
    assert display.tiles == ()  # nobody's picture has come: the words have the screen
    screen.picture("line 2", picture(2), Source("2"))
    screen.picture("line 9", picture(9), Source("9"))  # nobody that has a seat
    olga, otto = display.tiles
    assert (olga.label, olga.picture, olga.muted, olga.bars, olga.away) == ("Olga", None, True, 4, False)
    assert (otto.label, otto.picture, otto.muted, otto.bars, otto.away) == ("Otto", picture(2), False, None, True)
    assert {tile.fit for tile in display.tiles} == {Fit.CROP}
    screen.picture("line 2", picture(3), Source("2"))
    assert display.tiles[1].picture == picture(3)
    seated(screen, Layout.NONE, faces)
    assert display.tiles == ()


def test_of_oneself_there_is_a_mirrored_inset_while_there_is_a_picture() -> None:
    display = HandDisplay()
    screen = Screen(display)
    seated(screen, Layout.PIP, [Face(PEER.feed)])
    screen.picture("self", picture(1), SELF)
    assert display.tiles == ()  # of the call there is none yet
    screen.picture("session", picture(2))
    assert [(tile.picture, tile.mirrored) for tile in display.tiles] == [(picture(2), False), (picture(1), True)]
    screen.picture("self", None)
    assert [tile.picture for tile in display.tiles] == [picture(2)]


def test_of_a_look_at_oneself_there_is_nothing_else() -> None:
    display = HandDisplay()
    screen = Screen(display)
    screen.arrange((Seat(SELF),), (), Fit.FIT)
    assert display.tiles == ()
    screen.picture("self view", picture(1), SELF)
    (tile,) = display.tiles
    assert (tile.picture, tile.mirrored) == (picture(1), True)


def test_of_content_nothing_is_cut_off() -> None:
    display = HandDisplay()
    screen = Screen(display)
    seated(screen, Layout.CONTENT, [Face("1", "Olga", content=True)], Fit.CROP)
    screen.picture("line 1", picture(1), Source("1", Shows.CONTENT))
    content, olga = display.tiles
    assert (content.fit, content.picture, content.label) == (Fit.FIT, picture(1), "Olga")
    assert (olga.fit, olga.picture) == (Fit.CROP, None)


def test_a_new_arrangement_lights_no_dark_screen() -> None:
    display = HandDisplay()
    screen = Screen(display)
    screen.blank()
    display.tiles = (None,)  # type: ignore[assignment]
    seated(screen, Layout.GRID, [])
    assert display.tiles == (None,)
    screen.text("Front door")
    assert display.tiles == ()


def test_without_a_screen_nothing_is_shown_and_nothing_fails() -> None:
    screen = Screen(None)
    seated(screen, Layout.GRID, [Face("1")])
    screen.picture("line", picture(1), Source("1"))
    assert not screen.present
    assert screen.document() == {"seats": []}
