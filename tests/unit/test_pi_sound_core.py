"""The core of the sound part without a card: formats and rates, the drift of two clocks on virtual time, and which
device is taken."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from hw.api import Kind
from hw.pi.audio.cards import SERVER, endpoints, rank
from hw.pi.audio.convert import RATES, Resampler, Shape, from_mono, negotiate, to_mono
from hw.pi.audio.drift import MOST_DRIFT_PPM, Drift
from hw.pi.audio.dropouts import Dropouts

PEAK = 20_000


def tone(hertz: float, rate: float, samples: int) -> list[int]:
    return [round(PEAK * math.sin(2 * math.pi * hertz * n / rate)) for n in range(samples)]


def pcm(samples: Sequence[int]) -> bytes:
    return array("h", samples).tobytes()


def fit(samples: Sequence[int], hertz: float, rate: float) -> tuple[float, float]:
    """Amplitude of a tone in ``samples``, and what is left beside it in dB of it."""
    turn = 2 * math.pi * hertz / rate
    waves = [[math.sin(turn * n) for n in range(len(samples))], [math.cos(turn * n) for n in range(len(samples))]]
    a, b, c = (sum(x * y for x, y in zip(waves[i], waves[j], strict=True)) for i, j in ((0, 0), (0, 1), (1, 1)))
    p, q = (sum(x * y for x, y in zip(wave, samples, strict=True)) for wave in waves)
    det = a * c - b * b
    sine, cosine = (p * c - q * b) / det, (q * a - p * b) / det
    left = sum((s - sine * x - cosine * y) ** 2 for s, x, y in zip(samples, *waves, strict=True))
    power = sum((sine * x + cosine * y) ** 2 for x, y in zip(*waves, strict=True))
    return math.hypot(sine, cosine), 10 * math.log10(max(left, 1e-9) / power)


def stream(resampler: Resampler, samples: Sequence[int], block: int) -> list[int]:
    out = array("h")
    for at in range(0, len(samples), block):
        out.frombytes(resampler.process(pcm(samples[at : at + block])))
    return out.tolist()


# --- formats


@pytest.mark.parametrize(("rates", "channels", "formats", "wanted", "shape"), [
    (RATES, (1, 2), ("S16_LE", "S32_LE"), 48_000, Shape(48_000, 1, "S16_LE")),
    ((44_100, 48_000, 96_000), (2,), ("S24_3LE", "S32_LE"), 48_000, Shape(48_000, 2, "S32_LE")),
    ((44_100,), (2, 6), ("S24_3LE",), 48_000, Shape(44_100, 2, "S24_3LE")),
    ((8_000, 16_000, 32_000), (4,), ("S16_LE",), 22_050, Shape(32_000, 4, "S16_LE")),
    ((8_000, 16_000), (1,), ("S16_LE",), 48_000, Shape(16_000, 1, "S16_LE")),
])
def test_the_cheapest_shape_is_taken(
    rates: Sequence[int], channels: Sequence[int], formats: Sequence[str], wanted: int, shape: Shape
) -> None:
    assert negotiate(rates, channels, formats, wanted) == shape


@pytest.mark.parametrize(("rates", "channels", "formats", "words"), [
    ((96_000,), (1,), ("S16_LE",), "at 96000 Hz; usable"),
    ((48_000,), (16,), ("S16_LE",), "with 16 channels"),
    ((48_000,), (1,), ("FLOAT_LE", "U8"), "offers FLOAT_LE, U8 with"),
    ((), (), (), "offers nothing with nothing channels"),
])
def test_a_card_that_speaks_nothing_of_ours_says_what_it_speaks(
    rates: Sequence[int], channels: Sequence[int], formats: Sequence[str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        negotiate(rates, channels, formats, 48_000)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("kind", ["S16_LE", "S24_3LE", "S32_LE"])
def test_mono_survives_every_shape(channels: int, kind: str) -> None:
    shape, samples = Shape(48_000, channels, kind), pcm([0, 1000, -1000, 32_767, -32_768])
    frames = from_mono(samples, shape)
    assert len(frames) == 5 * shape.frame
    back = array("h", to_mono(frames, shape)).tolist()
    assert all(abs(one - other) <= 1 for one, other in zip(back, array("h", samples), strict=True))


def test_two_channels_are_averaged_and_more_give_the_first() -> None:
    assert array("h", to_mono(pcm([100, 300, -100, 100]), Shape(48_000, 2, "S16_LE"))).tolist() == [200, 0]
    assert array("h", to_mono(pcm([1, 2, 3, 4, 5, 6]), Shape(48_000, 3, "S16_LE"))).tolist() == [1, 4]
    assert array("h", from_mono(pcm([7]), Shape(48_000, 3, "S16_LE"))).tolist() == [7, 7, 0]


# --- rates


@pytest.mark.parametrize(("hertz", "rate_in", "rate_out", "ppm", "left_db"), [
    (1000, 48_000, 48_000, 0.0, -75), (1000, 48_000, 48_000, 5000.0, -75), (1000, 48_000, 48_000, -5000.0, -75),
    (4000, 48_000, 48_000, 100.0, -55), (1000, 44_100, 48_000, 0.0, -75), (1000, 16_000, 48_000, 0.0, -60),
    (1000, 48_000, 44_100, 30.0, -75), (1000, 48_000, 16_000, 30.0, -75), (1000, 8_000, 48_000, 0.0, -40),
])
def test_a_tone_keeps_its_pitch_and_its_level_at_another_rate(
    hertz: int, rate_in: int, rate_out: int, ppm: float, left_db: float
) -> None:
    resampler = Resampler(rate_in, rate_out)
    resampler.ppm = ppm
    seconds = 0.25
    out = stream(resampler, tone(hertz, rate_in, round(rate_in * seconds)), rate_in // 100)
    assert abs(len(out) - rate_out * seconds * (1 + ppm * 1e-6)) < 3
    level, left = fit(out[200:], hertz, rate_out * (1 + ppm * 1e-6))
    assert abs(20 * math.log10(level / PEAK)) < 0.1
    assert left < left_db


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000])
def test_the_band_of_speech_comes_through_whole_at_the_rates_of_handsets(rate: int) -> None:
    """Up to 85 % of what the card's rate carries in: no image of it above. Out: up to 70 %, as loud as it was."""
    for share, left_db in ((0.25, -60), (0.6, -50), (0.85, -40)):
        out = stream(Resampler(rate, 48_000), tone(share * rate / 2, rate, rate // 4), rate // 100)
        level, left = fit(out[1000:], share * rate / 2, 48_000)
        assert abs(20 * math.log10(level / PEAK)) < 0.2
        assert left < left_db
    for share in (0.25, 0.6, 0.7):
        out = stream(Resampler(48_000, rate), tone(share * rate / 2, 48_000, 12_000), 480)
        level, left = fit(out[200:], share * rate / 2, rate)
        assert abs(20 * math.log10(level / PEAK)) < 0.5
        assert left < -55


@pytest.mark.parametrize(("rate", "hertz"), [(8_000, 5_000), (11_025, 7_000), (16_000, 9_000), (22_050, 14_000)])
def test_what_the_lower_rate_cannot_carry_is_taken_away(rate: int, hertz: int) -> None:
    out = stream(Resampler(48_000, rate), tone(hertz, 48_000, 9600), 480)
    assert max(map(abs, out[200:])) < PEAK / 1000


def test_blocks_of_any_length_make_the_same_stream() -> None:
    samples = tone(440, 48_000, 4800)
    for rate in (44_100, 8_000):
        assert stream(Resampler(48_000, rate), samples, 480) == stream(Resampler(48_000, rate), samples, 127)
    assert Resampler(48_000, 48_000).process(b"") == b""


def test_a_bend_of_the_rate_is_no_click() -> None:
    resampler, out = Resampler(48_000, 48_000), array("h")
    samples = tone(500, 48_000, 19_200)
    for number in range(40):
        resampler.ppm = (0.0, 5000.0, -5000.0, 1.0)[number // 10]
        out.frombytes(resampler.process(pcm(samples[number * 480 : number * 480 + 480])))
    most = PEAK * 2 * math.pi * 500 / 48_000 * 1.01  # the steepest that the tone itself is
    steps = [abs(after - before) for before, after in itertools.pairwise(out[50:])]
    assert max(steps) < most


# --- drift


def run(drift: Drift, seconds: float, *, ppm: float, grain: int, jitter_s: float, level_s: float = 0.0,
        start_s: float = 0.0) -> tuple[float, float, float]:
    """A loudspeaker ``ppm`` faster whose driver tells its level in steps of ``grain`` samples. Returns the worst error,
    the worst error of the last third, and how far the correction wanders there, in seconds and millionths."""
    dice = random.Random(3)
    step = grain / 48_000
    pushed, worst, errors, corrections = level_s, 0.0, [], []
    count = round(seconds / 0.01)
    for number in range(count):
        eaten = (start_s + number * 0.01) * (1 + ppm * 1e-6) - start_s * (1 + ppm * 1e-6)
        seen = math.floor(eaten / step) * step + step / 2
        correction = drift.update(pushed - seen + dice.uniform(0, jitter_s))
        worst = max(worst, abs(pushed - eaten))
        if number > count * 2 // 3:
            errors.append(abs(pushed - eaten))
            corrections.append(correction)
        pushed += 0.01 * (1 + correction * 1e-6)
    return worst, max(errors), max(corrections) - min(corrections)


@pytest.mark.parametrize("ppm", [0.0, 30.0, -300.0, 5000.0, -5000.0])
@pytest.mark.parametrize("grain", [1, 48, 240])
def test_two_clocks_are_held_together(ppm: float, grain: int) -> None:
    drift = Drift(0.01, 0.005)
    worst, last, wander = run(drift, 60.0, ppm=ppm, grain=grain, jitter_s=0.0003)
    assert drift.settled
    assert abs(drift.ppm - ppm) < 60
    assert worst < 0.005, "a buffer of 20 ms neither runs empty nor grows"
    assert last < 0.003
    assert wander < 150 + 4 * grain, "held, and not followed: a wow of 0.1 % is not heard"


def test_a_clock_that_changes_is_caught_again() -> None:
    drift = Drift(0.01, 0.005)
    run(drift, 30.0, ppm=0.0, grain=48, jitter_s=0.0)
    worst, _, _ = run(drift, 30.0, ppm=-5000.0, grain=48, jitter_s=0.0)
    assert abs(drift.ppm + 5000) < 60
    assert worst < 0.015


def test_a_pause_of_the_machine_is_not_learnt() -> None:
    drift = Drift(0.01)
    run(drift, 30.0, ppm=50.0, grain=1, jitter_s=0.0)
    assert min(drift.update(0.03) for _ in range(200)) < -5000
    assert abs(drift.ppm - 50) < 100
    for _ in range(5000):
        drift.update(0.005)
    assert drift.ppm >= -MOST_DRIFT_PPM
    drift.restart()
    assert drift.update(0.0) == pytest.approx(drift.ppm)


# --- devices


@pytest.fixture
def system(tmp_path: Path) -> tuple[str, str]:
    """A soldered card, the loop, and two USB ones of the same name at different ports."""
    proc, sysfs = tmp_path / "asound", tmp_path / "sys"
    rows = ((0, "vc4hdmi0", "vc4-hdmi-0", "platform/soc/107c701400.hdmi"),
            (1, "Device", "USB Speaker", "usb1/1-1/1-1.3"), (2, "Device_1", "USB Speaker", "usb1/1-1/1-1.2"),
            (3, "Loopback", "Loopback", "platform/snd_aloop.0"))
    words, links = [], sysfs / "class/sound"
    links.mkdir(parents=True)
    for number, name, title, place in rows:
        (proc / f"card{number}").mkdir(parents=True)
        (proc / f"card{number}" / "id").write_text(f"{name}\n")
        words.append(f" {number} [{name:<15}]: Driver - {title}\n                      {title} at somewhere\n")
        folder = sysfs / "devices" / place / f"{place.rpartition('/')[2]}:1.0"
        (folder / "sound" / f"card{number}").mkdir(parents=True)
        (folder / "sound" / f"card{number}" / "device").symlink_to(folder)
        (links / f"card{number}").symlink_to(folder / "sound" / f"card{number}")
    (proc / "cards").write_text("".join(words))
    (proc / "pcm").write_text(
        "00-00: MAI PCM : MAI PCM : playback 1\n01-00: USB Audio : USB Audio : playback 1 : capture 1\n"
        "02-00: USB Audio : USB Audio : playback 1 : capture 1\n03-00: Loopback PCM : Loopback PCM : playback 8 : "
        "capture 8\n03-01: Loopback PCM : Loopback PCM : playback 8 : capture 8\nrubbish\n"
        "09-00: gone : gone : capture 1\n")
    return str(proc), str(sysfs)


def test_devices_are_known_by_their_port_or_name_and_never_by_their_number(system: tuple[str, str]) -> None:
    found = endpoints(*system, {})
    assert [(one.kind, one.id) for one in found if one.kind is Kind.MICROPHONE] == [
        (Kind.MICROPHONE, name) for name in ("alsa:Loopback", "alsa:Loopback/1", "usb:1-1.2", "usb:1-1.3")]
    port = next(one for one in found if one.id == "usb:1-1.2" and one.kind is Kind.SPEAKER)
    assert (port.name, port.device, port.node, port.mixer) == (
        "USB Speaker", "hw:CARD=Device_1,DEV=0", "/dev/snd/pcmC2D0p", "hw:Device_1")
    loop = [one for one in found if one.id.startswith("alsa:Loopback") and one.kind is Kind.SPEAKER]
    assert loop[0].clock == loop[1].clock != port.clock
    assert endpoints("/nowhere", "/nowhere", {}) == []


def test_the_list_decides_and_what_it_does_not_name_is_left_alone(system: tuple[str, str]) -> None:
    found = endpoints(*system, {})

    def ids(*wanted: str) -> list[str]:
        return [one.id for one in rank(found, Kind.SPEAKER, wanted)]

    assert ids("usb:1-1.3", "vc4-*") == ["usb:1-1.3", "alsa:vc4hdmi0"]
    assert ids("USB speaker") == ["usb:1-1.2", "usb:1-1.3"]
    assert ids("usb:*", "*") == ["usb:1-1.2", "usb:1-1.3", "alsa:Loopback", "alsa:Loopback/1", "alsa:vc4hdmi0"]
    assert ids() == []


def test_the_session_s_sound_server_is_one_more_device(system: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "pipewire-0").touch()
    found = endpoints(*system, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert [one.id for one in rank(found, Kind.MICROPHONE, ("server:*", "usb:*"))][:2] == [SERVER, "usb:1-1.2"]
    assert rank(found, Kind.SPEAKER, ("*",))[-1].device == "pipewire"
    assert len({one.clock for one in found if one.id == SERVER}) == 2  # may be of two cards


# --- xruns


def test_more_than_ten_xruns_a_minute_are_told_and_five_are_few_again() -> None:
    dropouts = Dropouts(0.02)
    assert [dropouts.count(float(at), at) for at in range(11)] == [False] * 11
    assert not dropouts.many, "ten are not"
    assert dropouts.count(11.0, 11)
    assert (dropouts.many, dropouts.lately) == (True, 11)
    assert [at for at in range(12, 68) if dropouts.count(float(at), 11)] == [67], "six of eleven are a minute old"
    assert (dropouts.many, dropouts.lately) == (False, 5)


def test_a_burst_counts_as_what_it_is() -> None:
    dropouts = Dropouts(0.02)
    assert dropouts.count(1.0, 40)
    assert not dropouts.count(2.0, 40), "told once"
    assert dropouts.count(61.5, 40)
    assert dropouts.lately == 0


def test_a_loudspeaker_that_keeps_running_empty_gets_more_sound_to_wait_for_it() -> None:
    dropouts = Dropouts(0.02)
    assert not dropouts.ran_empty(10.0), "once may be a pause of the machine"
    assert not dropouts.ran_empty(31.0)
    assert dropouts.ran_empty(40.0)
    assert dropouts.latency_s == pytest.approx(0.03)
    for at in range(41, 60):
        dropouts.ran_empty(float(at))
    assert dropouts.latency_s == 0.1, "and no more"
    assert not Dropouts(0.1).ran_empty(1.0)
