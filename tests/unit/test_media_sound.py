"""Sound without a board: sums, tones, the half-duplex guard, the loudspeaker's mix."""

from __future__ import annotations

import math
from array import array

import pytest

from appliance.media.api import Tone
from appliance.media.downlink import Loudspeaker, Screen
from appliance.media.echo import HOLD_BLOCKS, HalfDuplexGuard
from appliance.media.playout import START_BLOCKS, Playout
from appliance.media.sound import BLOCK_BYTES, SILENCE, attenuate, dbfs, mean_square, mix
from appliance.media.tones import REPEATING, TonePlayer, tone_pcm
from appliance.media.video_in import picture_of
from hw.api import Picture
from tests.support.media_board import HandDisplay
from tests.support.media_pair import goertzel


def sine(hertz: float, level: float, count: int = BLOCK_BYTES // 2) -> bytes:
    return array("h", [int(32767 * level * math.sin(2 * math.pi * hertz * n / 48_000)) for n in range(count)]).tobytes()


def test_levels_are_those_of_a_full_sine() -> None:
    assert dbfs(mean_square(sine(1000, 1.0), 1)) == pytest.approx(-3.01, abs=0.05)
    assert dbfs(mean_square(sine(440, 0.5), 4)) == pytest.approx(-9.03, abs=0.5)
    assert dbfs(mean_square(SILENCE)) == -127


def test_mixing_adds_and_limits() -> None:
    assert mix([b"\1\0", b"\2\0"]) == b"\3\0"
    loud = array("h", [30_000, -30_000]).tobytes()
    assert array("h", mix([loud, loud])).tolist() == [32_767, -32_768]
    assert mix([loud]) is loud
    assert dbfs(mean_square(attenuate(sine(440, 0.5), 4), 1)) == pytest.approx(-9.03 - 24.08, abs=0.1)


@pytest.mark.parametrize("tone", list(Tone))
def test_tones_are_whole_blocks_and_audible(tone: Tone) -> None:
    pcm = tone_pcm(tone)
    assert len(pcm) % BLOCK_BYTES == 0
    assert max(array("h", pcm)) > 4000
    assert pcm[:2] == b"\0\0", "a hard edge clicks"


def test_a_tone_repeats_or_ends() -> None:
    player = TonePlayer()
    assert player.block() is None
    for tone in (Tone.END, Tone.RINGBACK):
        player.play(tone)
        count = len(tone_pcm(tone)) // BLOCK_BYTES
        got = [player.block() for _ in range(count + 3)]
        assert (got[count] is not None) == (tone in REPEATING)
    player.play(None)
    assert player.block() is None
    assert goertzel(tone_pcm(Tone.RINGBACK)[: 20 * BLOCK_BYTES], 425) > 0.2


def test_the_guard_ducks_while_the_loudspeaker_is_loud_and_a_little_longer() -> None:
    guard = HalfDuplexGuard()
    near, loud = sine(300, 0.05), sine(500, 0.3)
    assert guard(near, SILENCE) is near
    assert dbfs(mean_square(guard(near, loud), 1)) < dbfs(mean_square(near, 1)) - 20
    let_through = [guard(near, SILENCE) is near for _ in range(HOLD_BLOCKS + 2)]
    assert let_through == [False] * (HOLD_BLOCKS - 1) + [True] * 3


def test_the_guard_lets_a_near_talker_through() -> None:
    guard = HalfDuplexGuard()
    near, quiet = sine(300, 0.5), sine(500, 0.05)
    assert guard(near, quiet) is near


def test_the_loudspeaker_mixes_peers_and_tones_and_mutes_peers_alone() -> None:
    loudspeaker, playouts = Loudspeaker(), [Playout(), Playout()]
    for playout in playouts:
        loudspeaker.add(playout)
        playout.put(b"\x10\0" * (BLOCK_BYTES // 2 * START_BLOCKS))
    assert loudspeaker.block() == b"\x20\0" * (BLOCK_BYTES // 2)
    for playout in playouts:
        playout.put(b"\x10\0" * (BLOCK_BYTES // 2 * 2))
    loudspeaker.muted = True
    assert loudspeaker.block() is SILENCE
    assert playouts[0].played == 2, "muted sound is consumed: nothing old is heard after it"
    loudspeaker.tones.play(Tone.END)
    loudspeaker.block()
    assert loudspeaker.block() != SILENCE
    loudspeaker.remove(playouts[0])
    loudspeaker.block()
    assert (playouts[0].played, playouts[1].played) == (4, 5)


def test_the_screen_shows_every_peer_and_the_words() -> None:
    display = HandDisplay()
    screen = Screen(display)
    screen.text("Calling")
    assert (display.banner, len(display.tiles)) == ("Calling", 0)
    first, second = object(), object()
    screen.picture(first, Picture(2, 2, b"123456"))
    screen.picture(second, Picture(2, 2, b"abcdef"))
    assert [(tile.x, tile.w) for tile in display.tiles] == [(0, 0.5), (0.5, 0.5)]
    screen.picture(first, None)
    assert [tile.w for tile in display.tiles] == [1.0]


def test_pictures_lose_the_padding_of_their_rows() -> None:
    import av

    frame = av.VideoFrame(98, 50, "yuv420p")  # 98 is no multiple of the alignment
    for plane, value in zip(frame.planes, (1, 2, 3), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    picture = picture_of(frame)
    assert picture.i420 == b"\1" * (98 * 50) + b"\2" * (49 * 25) + b"\3" * (49 * 25)
