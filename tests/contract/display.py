"""What every ``hw.api.Display`` promises, for a board's own test to call with its device."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from hw.api import Display, Fit, Picture, Tile

__all__ = [
    "fills_a_tile_with_bars_cut_off_or_stretched", "keeps_brightness_in_bounds", "mirrors_a_tile_and_fits_long_words",
    "shot_of", "shows_what_it_was_told",
]


def _flat(luma: int, blue: int, red: int, width: int = 64, height: int = 36) -> Picture:
    size = width * height
    return Picture(width, height, bytes([luma]) * size + bytes([blue]) * (size // 4) + bytes([red]) * (size // 4))


def shot_of(display: Display) -> Image.Image:
    shot = Image.open(io.BytesIO(display.screenshot()))
    assert shot.format == "PNG"
    assert shot.size == display.size
    return shot.convert("RGB")


def shows_what_it_was_told(display: Display) -> None:
    """Tiles in their places and colours, words that are read at 3 m; it is dark at the end."""
    red, blue = _flat(81, 90, 240), _flat(41, 240, 110)
    display.show([Tile(red, 0.0, 0.0, 0.5, 0.5), Tile(blue, 0.5, 0.0, 0.5, 0.5, label="Anna")])
    shot = shot_of(display)
    width, height = shot.size
    left, right = shot.getpixel((width // 4, height // 4)), shot.getpixel((width * 3 // 4, height // 4))
    assert left[0] > 200
    assert left[2] < 60
    assert right[2] > 200
    assert right[0] < 60
    assert max(shot.getpixel((width // 2, height * 3 // 4))) < 60
    display.show([], "Calling the front desk", "Please wait")
    words = shot_of(display).convert("L").point(lambda value: 255 if value > 200 else 0)
    box = words.getbbox()
    assert box is not None
    assert box[3] - box[1] > height * 0.05  # letters of that height are read at 3 m
    assert box[2] - box[0] > width * 0.4
    display.blank()
    assert shot_of(display).getextrema() == ((0, 0), (0, 0), (0, 0))


def mirrors_a_tile_and_fits_long_words(display: Display) -> None:
    half = (bytes([235]) * 32 + bytes([16]) * 32) * 36
    picture = Picture(64, 36, half + bytes([128]) * (2 * 32 * 18))
    display.show([Tile(picture, mirrored=True)], "W" * 200, "x" * 500)
    shot = shot_of(display).convert("L")
    assert shot.getpixel((shot.width // 8, shot.height // 8)) < 50
    assert shot.getpixel((shot.width * 7 // 8, shot.height // 8)) > 200


def keeps_brightness_in_bounds(display: Display) -> None:
    for percent in (1, 50, 100):
        display.set_brightness(percent)
    for wrong in (0, 101):
        with pytest.raises(ValueError, match="brightness"):
            display.set_brightness(wrong)


def fills_a_tile_with_bars_cut_off_or_stretched(display: Display) -> None:
    """A picture three times as wide as high, in thirds of red, blue and red, on a tile that is half as wide."""
    luma = (bytes([81]) * 32 + bytes([41]) * 32 + bytes([81]) * 32) * 32
    blue, red = ((bytes([one]) * 16 + bytes([other]) * 16 + bytes([one]) * 16) * 16
                 for one, other in ((90, 240), (240, 110)))
    picture = Picture(96, 32, luma + blue + red)

    def seen(fit: Fit) -> tuple[str, str, str]:
        display.show([Tile(picture, 0.0, 0.0, 0.5, 1.0, fit=fit)])
        shot = shot_of(display)
        width, height = shot.size
        places = ((width // 16, height // 2), (width // 4, height // 2), (width // 4, height // 40))
        colours = [shot.getpixel(place) for place in places]
        left, middle, top = ("red" if one[0] > 180 else "blue" if one[2] > 180 else "none" for one in colours)
        return left, middle, top

    assert seen(Fit.FIT) == ("red", "blue", "none")
    assert seen(Fit.CROP) == ("blue", "blue", "blue")
    assert seen(Fit.STRETCH) == ("red", "blue", "blue")
