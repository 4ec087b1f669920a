"""Codecs of telephones: through and back, what is lost, and the noise of a pause."""

from __future__ import annotations

import itertools
import math
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.media.opus import OpusDecoder, OpusEncoder
from appliance.media.playout import Playout
from appliance.media.sound import RATE, audioop, mean_square
from appliance.media.voice_codecs import VOICE_CODECS, Noise, Resampler
from tests.support.media_pair import goertzel

FRAME = RATE // 50
PHONES = [codec for codec in VOICE_CODECS.values() if codec.encoder is not None]


def sine(hertz: float, samples: int, level: float = 0.3) -> bytes:
    return array("h", [int(32767 * level * math.sin(2 * math.pi * hertz * n / RATE)) for n in range(samples)]).tobytes()


def frames(pcm: bytes, size: int = FRAME) -> list[bytes]:
    return [pcm[at : at + size * 2] for at in range(0, len(pcm), size * 2)]


def test_resampling_keeps_length_and_tone_and_removes_what_does_not_fit() -> None:
    down, up = Resampler(RATE, 8000), Resampler(8000, RATE)
    through = b"".join(up(down(frame)) for frame in frames(sine(1000, RATE)))
    assert len(through) == RATE * 2
    assert goertzel(through[RATE:], 1000) == pytest.approx(0.3, abs=0.02)
    down = Resampler(RATE, 8000)
    aliased = b"".join(down(frame) for frame in frames(sine(7000, RATE)))
    assert mean_square(aliased[8000:]) < 1e-6


@pytest.mark.parametrize("codec", PHONES, ids=lambda codec: codec.mime_type)
def test_a_tone_comes_back(codec: object) -> None:
    assert isinstance(codec, type(PHONES[0]))
    assert codec.encoder is not None
    encoder, decoder = codec.encoder(), codec.decoder()
    packets = [encoder.encode(frame) for frame in frames(sine(700, RATE))]
    assert {len(packet) for packet in packets} == {160}
    assert {decoder.duration(packet) for packet in packets} == {FRAME}
    heard = b"".join(decoder.decode(packet) for packet in packets)
    assert len(heard) == RATE * 2
    assert goertzel(heard[RATE:], 700) == pytest.approx(0.3, abs=0.05)
    gone_on = decoder.conceal(FRAME)
    assert goertzel(gone_on[:FRAME], 700) > 0.1
    with pytest.raises(ValueError, match="empty"):
        decoder.duration(b"")


def test_ten_and_sixty_milliseconds_are_packets_too() -> None:
    for size in (FRAME // 2, FRAME * 3):
        for codec in PHONES:
            if size < FRAME and codec.mime_type == "audio/G722":
                continue
            assert codec.encoder is not None
            encoder, decoder = codec.encoder(), codec.decoder()
            packets = [encoder.encode(frame) for frame in frames(sine(700, FRAME * 6), size)]
            assert sum(decoder.duration(packet) for packet in packets) == FRAME * 6


def test_comfort_noise_has_the_level_and_colour_that_are_told() -> None:
    decoder = VOICE_CODECS["audio/pcmu"].decoder()
    white = b"".join(decoder.decode(Noise([40])) for _ in range(50))
    level = 10 * math.log10(mean_square(white))
    assert level == pytest.approx(-43, abs=2), "0 dBov is the level of a full-scale square, a sine is 3 dB less"
    dull = b"".join(decoder.decode(Noise([40, 10])) for _ in range(50))
    assert 10 * math.log10(mean_square(dull)) == pytest.approx(level, abs=1.5)

    def brightness(pcm: bytes) -> float:
        samples = array("h", pcm)
        steps = array("h", [b - a for a, b in itertools.pairwise(samples)])
        return mean_square(steps.tobytes()) / mean_square(pcm)

    assert brightness(dull) < 0.6 * brightness(white)
    decoder.decode(Noise(b""))
    assert decoder.conceal(FRAME) == bytes(FRAME * 2), "no level: silence"


def test_a_pause_with_comfort_noise_is_not_loss_and_speech_returns() -> None:
    codec = VOICE_CODECS["audio/pcma"]
    assert codec.encoder is not None
    encoder, playout = codec.encoder(), Playout(codec.decoder(), codec.clock_rate)
    packets = [encoder.encode(frame) for frame in frames(sine(500, RATE * 2))]
    heard: list[bytes | None] = []
    for n in range(150):
        now = n * 0.02
        if n < 50 or n >= 100:
            playout.put(n * 160, packets[n % 100], now)
        elif n == 50:
            playout.put(n * 160, Noise([50]), now)
        heard += [playout.take(now), playout.take(now + 0.01)]
    assert playout.counters.concealed == 0
    assert None not in heard[6:]
    pause, speech = b"".join(block or b"" for block in heard[130:180]), b"".join(block or b"" for block in heard[230:])
    assert 0 < audioop.rms(pause, 2) < 400
    assert goertzel(speech, 500) > 0.25


def test_the_codec_may_change_while_it_plays() -> None:
    playout, heard = Playout(), []
    phone = VOICE_CODECS["audio/pcmu"]
    assert phone.encoder is not None
    encoder = phone.encoder()
    voice = OpusEncoder(32_000)
    tone = frames(sine(600, RATE * 2))
    for n in range(100):
        if n < 50:
            playout.put(n * 960, voice.encode(tone[n]), n * 0.02)
        else:
            if n == 50:
                playout.use(phone.decoder(), phone.clock_rate)
            playout.put(777 + n * 160, encoder.encode(tone[n]), n * 0.02)
        heard += [playout.take(n * 0.02), playout.take(n * 0.02 + 0.01)]
    assert playout.counters.late == 0
    assert sum(block is None for block in heard) < 20
    for part in (heard[20:90], heard[130:]):
        assert goertzel(b"".join(block or b"" for block in part), 600) > 0.2


def test_a_gap_is_never_longer_than_a_packet_of_the_codec_that_plays() -> None:
    asked: list[int] = []

    class Noting(OpusDecoder):
        def conceal(self, samples: int) -> bytes:
            asked.append(samples)
            return super().conceal(samples)

    playout, phone = Playout(), VOICE_CODECS["audio/pcmu"]
    playout.use(phone.decoder(), phone.clock_rate)
    playout.put(0, bytes(1400), 0.0)  # 175 ms
    assert any(playout.take(block * 0.01) for block in range(5))
    playout.use(Noting(), RATE)
    broken = b"\x0b\x82\xf0" + bytes(40)  # two frames, the first longer than the packet
    for n in range(3):
        playout.put(n * 960, broken, 0.2 + n * 0.02)
    assert any(playout.take(0.2 + block * 0.01) for block in range(12))
    assert playout.counters.undecodable > 0
    assert 0 < max(asked) <= 960


@settings(deadline=None)
@given(st.sampled_from(PHONES), st.lists(st.binary(min_size=1, max_size=200), max_size=6), st.booleans())
def test_any_bytes_are_decoded_or_refused(codec: object, packets: list[bytes], noise: bool) -> None:
    assert isinstance(codec, type(PHONES[0]))
    decoder = codec.decoder()
    for packet in packets:
        data = Noise(packet) if noise else packet
        assert len(decoder.decode(data)) == decoder.duration(data) * 2
        assert len(decoder.conceal(480)) == 960
