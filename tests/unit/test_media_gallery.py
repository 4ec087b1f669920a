"""What is left of a room's pictures when its connection goes."""

from __future__ import annotations

from appliance.media.api import IceServers, OnLine
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.gallery import Gallery
from appliance.media.screen import Screen
from appliance.media.servers import ServerPool
from hw.api import Picture
from tests.support.media_board import HandDisplay

GREY = Picture(16, 16, bytes(384))


async def test_a_picture_that_is_decoded_after_the_end_is_not_shown() -> None:
    """It stayed on the screen, under the next call too, and the screen held the whole connection for good."""
    screen = Screen(HandDisplay())
    gallery = Gallery("room", servers=ServerPool(IceServers()), loopback=True, marks=Marks(0, 0),
                      loudspeaker=Loudspeaker(), screen=screen)
    gallery._streams("video")
    line, = gallery._lines
    line.carry(OnLine("7", "Olga"), wanted=True)
    line._on_picture(GREY)
    assert screen.pictures == 1
    line.release()
    line._on_picture(GREY)
    assert screen.pictures == 0
    await gallery.close()
