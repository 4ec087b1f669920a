"""Sound without a board: sums, tones, the half-duplex guard, the loudspeaker's mix."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.api import Tone
from appliance.media.downlink import Loudspeaker
from appliance.media.echo import HOLD_BLOCKS, HalfDuplexGuard
from appliance.media.sound import (
    BLOCK_BYTES,
    FADE_STEPS,
    SILENCE,
    Limiter,
    attenuate,
    audioop,
    crossfade,
    dbfs,
    mean_square,
    scaled,
)
from appliance.media.tones import REPEATING, TonePlayer, tone_pcm
from appliance.media.video_in import picture_of
from hw.pcm import scale
from tests.support.media_pair import goertzel


def sine(hertz: float, level: float, count: int = BLOCK_BYTES // 2) -> bytes:
    return array("h", [int(32767 * level * math.sin(2 * math.pi * hertz * n / 48_000)) for n in range(count)]).tobytes()


def test_levels_are_those_of_a_full_sine() -> None:
    assert dbfs(mean_square(sine(1000, 1.0))) == pytest.approx(-3.01, abs=0.05)
    assert dbfs(mean_square(sine(440, 0.5))) == pytest.approx(-9.03, abs=0.5)
    assert dbfs(mean_square(SILENCE)) == -127


def test_mixing_adds_and_one_voice_is_handed_on() -> None:
    limiter = Limiter()
    quiet = sine(440, 0.2)
    assert limiter.mix([quiet]) is quiet
    both = limiter.mix([quiet, sine(1000, 0.3)])
    assert (goertzel(both, 440), goertzel(both, 1000)) == pytest.approx((0.2, 0.3), abs=0.01)


def test_nine_loud_voices_are_limited_without_clipping_and_the_level_returns() -> None:
    limiter = Limiter()
    voices = [sine(hertz, 0.4, 48_000) for hertz in (200, 300, 500, 700, 1100, 1300, 1700, 1900, 2300)]
    for at in range(0, len(voices[0]), BLOCK_BYTES):
        block = limiter.mix([voice[at : at + BLOCK_BYTES] for voice in voices])
        if at > 10 * BLOCK_BYTES:
            assert audioop.max(block, 2) <= 32_000
    strengths = [goertzel(block, hertz) for hertz in (300, 1100, 2300)]
    assert max(strengths) < 1.1 * min(strengths), "distortion is not even"
    calm = sine(440, 0.1)
    blocks = [limiter.mix([calm]) for _ in range(200)]
    assert audioop.rms(blocks[0], 2) < audioop.rms(calm, 2)
    assert blocks[-1] is calm


def test_more_than_sixteen_voices_are_the_loudest_of_them() -> None:
    block = Limiter().mix([*[sine(500, 0.001)] * 16, sine(1000, 0.2)])
    assert goertzel(block, 1000) == pytest.approx(0.2, abs=0.01)


@given(st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=60), st.floats(0.0, 80.0))
def test_sound_is_rounded_as_on_every_board(samples: list[int], gain: float) -> None:
    block = array("h", samples).tobytes()
    assert scaled(block, gain) == scale(block, gain)


@given(st.lists(st.integers(-32_768, 32_767), min_size=FADE_STEPS, max_size=200))
def test_a_fade_from_a_sound_to_itself_is_that_sound(samples: list[int]) -> None:
    block = array("h", samples).tobytes()
    assert crossfade(block, block) == block


@pytest.mark.parametrize("quieter", [
    lambda tone: scaled(tone, 0.31416), lambda tone: attenuate(tone, 3), lambda tone: crossfade(tone, bytes(len(tone))),
    lambda tone: Limiter().mix([tone] * 3)], ids=["scaled", "attenuated", "faded", "limited"])
def test_what_is_turned_down_has_no_direct_current(quieter: Callable[[bytes], bytes]) -> None:
    tone = sine(1000, 0.9, 480 * FADE_STEPS)  # whole periods in each step of a fade
    left = array("h", quieter(tone))
    assert abs(sum(left)) < 0.1 * len(left), "rounded downwards it is half a step"


def test_levels_of_a_quieter_block() -> None:
    assert dbfs(mean_square(attenuate(sine(440, 0.5), 4))) == pytest.approx(-9.03 - 24.08, abs=0.1)


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
    assert dbfs(mean_square(guard(near, loud))) < dbfs(mean_square(near)) - 20
    let_through = [guard(near, SILENCE) is near for _ in range(HOLD_BLOCKS + 2)]
    assert let_through == [False] * (HOLD_BLOCKS - 1) + [True] * 3


def test_the_guard_lets_a_near_talker_through() -> None:
    guard = HalfDuplexGuard()
    near, quiet = sine(300, 0.5), sine(500, 0.05)
    assert guard(near, quiet) is near


class Voice:
    """A play-out with as many blocks of one value as are wanted."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self) -> bytes | None:
        self.taken += 1
        return b"\x10\0" * (BLOCK_BYTES // 2)


def test_the_loudspeaker_mixes_peers_and_tones_and_mutes_peers_alone() -> None:
    loudspeaker, voices = Loudspeaker(), [Voice(), Voice()]
    for voice in voices:
        loudspeaker.add(voice)
    assert loudspeaker.block() == b"\x20\0" * (BLOCK_BYTES // 2)
    loudspeaker.muted = True
    assert loudspeaker.block() is SILENCE
    assert voices[0].taken == 2, "muted sound is consumed: nothing old is heard after it"
    loudspeaker.tones.play(Tone.END)
    loudspeaker.block()
    assert loudspeaker.block() != SILENCE
    loudspeaker.remove(voices[0])
    loudspeaker.block()
    assert (voices[0].taken, voices[1].taken) == (4, 5)


def test_pictures_lose_the_padding_of_their_rows() -> None:
    import av

    frame = av.VideoFrame(98, 50, "yuv420p")  # 98 is no multiple of the alignment
    for plane, value in zip(frame.planes, (1, 2, 3), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    picture = picture_of(frame)
    assert picture.i420 == b"\1" * (98 * 50) + b"\2" * (49 * 25) + b"\3" * (49 * 25)
