"""Layouts by arithmetic: who has a seat, where it is, and how large the picture has to come."""

from __future__ import annotations

import itertools

import pytest

from appliance.media.layout import (
    MOST,
    SELF,
    Face,
    Layout,
    Quality,
    Seat,
    Shows,
    Source,
    arrange,
    quality_for,
    spoken,
)

WIDE, UPRIGHT = (1280, 720), (600, 1024)


def faces(count: int, **more: bool) -> list[Face]:
    return [Face(f"p{number}", f"P {number}", **more) for number in range(count)]


def feeds(seats: tuple[Seat, ...]) -> list[str]:
    return [seat.source.feed for seat in seats]


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("size", [WIDE, UPRIGHT, (800, 480), (1024, 768)])
@pytest.mark.parametrize("count", range(13))
def test_seats_lie_on_the_screen_and_never_two_in_one_place(layout: Layout, size: tuple[int, int], count: int) -> None:
    people = [*faces(count), Face("c", content=True, video=False)]
    seats = arrange(layout, people, size=size)
    for seat in seats:
        assert 0 <= seat.x < seat.x + seat.w <= 1.000001
        assert 0 <= seat.y < seat.y + seat.h <= 1.000001
    assert len({seat.source for seat in seats}) == len(seats)
    assert sum(seat.source.shows is Shows.PERSON for seat in seats) <= MOST
    assert sum(seat.source.shows is Shows.CONTENT for seat in seats) <= 1
    if layout is not Layout.PIP:  # an inset lies over
        for one, other in itertools.combinations(seats, 2):
            apart = (one.x + one.w <= other.x + 1e-6 or other.x + other.w <= one.x + 1e-6
                     or one.y + one.h <= other.y + 1e-6 or other.y + other.h <= one.y + 1e-6)
            assert apart, (one, other)


@pytest.mark.parametrize(("count", "size", "columns", "rows"), [
    (1, WIDE, 1, 1), (2, WIDE, 2, 1), (3, WIDE, 2, 2), (4, WIDE, 2, 2), (5, WIDE, 3, 2), (6, WIDE, 3, 2),
    (7, WIDE, 3, 3), (9, WIDE, 3, 3), (2, UPRIGHT, 1, 2), (3, UPRIGHT, 1, 3), (6, UPRIGHT, 1, 6), (8, UPRIGHT, 2, 4),
    (9, UPRIGHT, 2, 5),
])
def test_a_grid_leaves_the_pictures_the_most_room(count: int, size: tuple[int, int], columns: int, rows: int) -> None:
    seats = arrange(Layout.GRID, faces(count), size=size)
    assert feeds(seats) == [f"p{number}" for number in range(count)]
    assert {(round(seat.w, 6), round(seat.h, 6)) for seat in seats} == {(round(1 / columns, 6), round(1 / rows, 6))}


def test_a_last_row_that_is_not_full_is_centred() -> None:
    assert [(seat.x, seat.y) for seat in arrange(Layout.GRID, faces(3))] == [(0, 0), (0.5, 0), (0.25, 0.5)]


def test_of_more_people_than_seats_the_first_have_one_and_whoever_spoke() -> None:
    people = faces(12)
    assert feeds(arrange(Layout.GRID, people)) == [f"p{number}" for number in range(9)]
    assert feeds(arrange(Layout.GRID, people, order=("p11", "p3"))) == [*(f"p{number}" for number in range(8)), "p11"]
    assert feeds(arrange(Layout.GRID, people, order=("p11",), most=2)) == ["p0", "p11"]


def test_who_speaks_is_large_and_the_others_keep_their_order() -> None:
    seats = arrange(Layout.SPEAKER, faces(4), order=("p2", "p0"))
    assert feeds(seats) == ["p2", "p0", "p1", "p3"]
    assert (seats[0].w, seats[0].h) == (0.8, 1.0)
    assert all(seat.x == 0.8 and seat.w == pytest.approx(0.2) and seat.h == pytest.approx(0.2) for seat in seats[1:])
    upright = arrange(Layout.SPEAKER, faces(3), size=UPRIGHT)
    assert (upright[0].w, upright[0].h) == (1.0, 0.8)
    assert all(seat.y == 0.8 for seat in upright[1:])
    assert arrange(Layout.SPEAKER, faces(1)) == (Seat(Source("p0")),)


def test_content_is_large_with_people_beside_and_without_it_is_the_speaker() -> None:
    people = [*faces(2), Face("c", content=True)]
    seats = arrange(Layout.CONTENT, people)
    assert seats[0].source == Source("c", Shows.CONTENT)
    assert seats[0].w * seats[0].h > 0.85
    assert feeds(seats[1:]) == ["p0", "p1", "c"]
    assert arrange(Layout.CONTENT, faces(3)) == arrange(Layout.SPEAKER, faces(3))
    assert arrange(Layout.CONTENT, [Face("c", video=False, content=True)]) == (Seat(Source("c", Shows.CONTENT)),)


@pytest.mark.parametrize("size", [WIDE, UPRIGHT, (800, 480), (1920, 1080)])
def test_nine_people_sit_beside_content_that_stays_readable(size: tuple[int, int]) -> None:
    people = [*faces(12), Face("c", content=True, video=False)]
    seats = arrange(Layout.CONTENT, people, order=("p11",), size=size)
    assert feeds(seats) == ["c", *(f"p{number}" for number in range(8)), "p11"]
    assert seats[0].w * seats[0].h >= 7 / 8
    (strip,) = {(round(seat.w * size[0]), round(seat.h * size[1])) for seat in seats[1:]}
    assert strip[0] * strip[1] >= 0.9 * size[0] * size[1] / 81
    assert {quality_for(seat, size) for seat in seats[1:]} == {Quality.LOW}
    few = arrange(Layout.CONTENT, people[3:], order=("p11",), size=size, most=9)
    assert len(few) == 9, "a board that carries nine has eight beside"


def test_of_two_who_share_the_one_who_spoke_last_is_shown() -> None:
    sharing = [Face("a", content=True), Face("b", content=True)]
    assert arrange(Layout.CONTENT, sharing)[0].source.feed == "b"
    assert arrange(Layout.CONTENT, sharing, order=("a",))[0].source.feed == "a"


def test_single_and_pip_show_who_speaks_and_none_nobody() -> None:
    assert arrange(Layout.SINGLE, faces(3), order=("p1",)) == (Seat(Source("p1")),)
    whole, inset = arrange(Layout.PIP, faces(3))
    assert whole == Seat(Source("p0"))
    assert inset.source == SELF
    assert inset.x + inset.w == pytest.approx(1 - inset.y * 720 / 1280)  # the same margin at both sides
    assert arrange(Layout.PIP, faces(3, video=False)) == ()
    assert arrange(Layout.NONE, [*faces(3), Face("c", content=True)]) == ()


def test_a_picture_comes_as_large_as_its_seat() -> None:
    assert quality_for(arrange(Layout.SINGLE, faces(1))[0], WIDE) is Quality.HIGH
    large, small = arrange(Layout.SPEAKER, faces(2))
    assert (quality_for(large, WIDE), quality_for(small, WIDE)) == (Quality.HIGH, Quality.LOW)
    assert {quality_for(seat, WIDE) for seat in arrange(Layout.GRID, faces(4))} == {Quality.MID}
    assert {quality_for(seat, (1920, 1080)) for seat in arrange(Layout.GRID, faces(9))} == {Quality.MID}
    assert {quality_for(seat, (800, 480)) for seat in arrange(Layout.GRID, faces(9))} == {Quality.LOW}


def test_nobody_takes_the_place_of_one_who_speaks() -> None:
    def talk(order: tuple[str, ...], *speaking: str) -> tuple[str, ...]:
        return spoken(order, [Face(feed, speaking=feed in speaking) for feed in "abc"])

    order = talk((), "a")
    assert order == ("a",)
    order = talk(order, "a", "b")
    assert order == ("a", "b")
    order = talk(order, "b")
    assert order == ("b", "a")
    assert talk(order) == ("b", "a")
    assert talk(order, "c") == ("c", "b", "a")
    assert spoken(order, [Face("a")]) == ("a",)


def test_a_board_that_carries_less_shows_less_and_content_before_people() -> None:
    people = [*faces(5), Face("c", content=True)]
    assert feeds(arrange(Layout.CONTENT, people, order=("p4",), most=2)) == ["c", "p4"]
    assert feeds(arrange(Layout.CONTENT, people, most=1)) == ["c"]
    assert feeds(arrange(Layout.SPEAKER, people, order=("p4",), most=3)) == ["p4", "p0", "p1"]
    assert feeds(arrange(Layout.GRID, people, most=1)) == ["p0"]
