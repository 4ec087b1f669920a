"""Lines of a room: which of them stand, and what is left of their pictures when the connection goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from appliance.media.api import IceServers, OnLine
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.gallery import ABSENT_S, HOPELESS_S, Gallery
from appliance.media.screen import Screen
from appliance.media.servers import ServerPool
from appliance.media.smoothness import STALLED_S
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


async def test_a_line_stands_whose_packets_cease_or_make_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("appliance.media.gallery.time", SimpleNamespace(monotonic=lambda: now))
    gallery = Gallery("room", servers=ServerPool(IceServers()), loopback=True, marks=Marks(0, 0),
                      loudspeaker=Loudspeaker(), screen=Screen(HandDisplay()))
    gallery._streams("video")
    line, = gallery._lines
    assert line.video is not None
    line.carry(OnLine("7"), wanted=True)
    begun, told, stood = now, 0.0, 0.0
    while not stood:
        now += 0.25
        line.stream.counters.last_at = now  # packets come, and nothing can be made of them
        line.look(now, up=True)
        told = told or (now if line.video.stalled else 0.0)
        stood = now if line.still(now) else 0.0
    assert told - begun == pytest.approx(STALLED_S, abs=0.5)
    assert stood - told == pytest.approx(HOPELESS_S, abs=0.5)
    line.video.decoded += 1
    line.look(now, up=True)
    assert not line.still(now), "a picture has come"
    assert line.still(now + ABSENT_S + 0.25), "nothing comes any more"
    line.carry(None, wanted=True)
    assert not line.still(now + 60), "nobody is on it"
    await gallery.close()
