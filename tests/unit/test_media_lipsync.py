"""Sound and picture in step: a model of both play-outs on virtual time, whichever of them is late."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from appliance.media.lipsync import AUDIO_MOST_S, VIDEO_MOST_S, LipSync, Pace, SenderClock

LOOK_S = 0.25
STRETCH = 0.12  # share by which the play-out stretches sound: so fast follows its delay
NTP_1_S = 1 << 32


@dataclass
class Playing:
    """A peer whose sound takes ``audio_path`` and a play-out buffer, its picture ``video_path`` and what it waits."""

    audio_path: float
    video_path: float
    target: float = 0.04  # of the play-out buffer, by its own reckoning
    repaired: float = 0.05  # share of pictures that are 100 ms late because a packet had to be asked for again
    sync: LipSync = field(default_factory=LipSync)

    def __post_init__(self) -> None:
        self.waits = self.target
        self.random = random.Random(1)

    def run(self, seconds: float) -> list[float]:
        """By how much the sound is behind the picture, at each look."""
        offsets = []
        for _ in range(round(seconds / LOOK_S)):
            wanted = max(self.target, self.sync.audio_delay_s)
            self.waits += max(-STRETCH * LOOK_S, min(STRETCH * LOOK_S, wanted - self.waits))
            audio = 1e9 + self.audio_path + self.waits
            video = 1e9 + self.video_path + self.sync.video_delay_s
            offsets.append(audio - video)
            late = self.random.random() * 0.01 + (0.1 if self.random.random() < self.repaired else 0)
            self.sync.update(audio, video + late, self.waits)
        return offsets


@pytest.mark.parametrize(("audio_path", "video_path"), [
    (0.02, 0.02), (0.05, 0.01), (0.20, 0.02), (0.35, 0.01),  # a good network, and ever slower sound
    (0.02, 0.10), (0.02, 0.25), (0.02, 0.45),  # an encoder that takes its time
])
def test_both_are_within_40_ms_after_a_few_seconds_and_stay(audio_path: float, video_path: float) -> None:
    playing = Playing(audio_path, video_path)
    playing.run(10)
    assert max(abs(offset) for offset in playing.run(20)) <= 0.040
    assert min(playing.sync.video_delay_s, playing.sync.audio_delay_s) == 0.0, "one of them waits for nothing"


def test_what_is_in_step_is_left_alone() -> None:
    playing = Playing(0.02, 0.06)
    playing.run(20)
    assert (playing.sync.video_delay_s, playing.sync.audio_delay_s) == (0.0, 0.0)


def test_a_busy_moment_does_not_hold_the_sound_up() -> None:
    playing = Playing(0.02, 0.02)
    playing.run(8)
    playing.video_path = 0.3
    playing.run(2)
    playing.video_path = 0.02
    playing.run(4)
    assert playing.sync.audio_delay_s == 0.0


def test_sound_does_not_wait_for_pictures_that_were_lost_on_the_way() -> None:
    playing = Playing(0.02, 0.03, repaired=0.6)
    playing.run(60)
    assert playing.sync.audio_delay_s == 0.0


def test_sound_waits_no_longer_than_it_must() -> None:
    playing = Playing(0.02, 0.25)
    playing.run(20)
    assert playing.waits < 0.25 - 0.02 - 0.015, "it is left to be a little early"
    playing.video_path = 0.21
    playing.run(10)
    assert playing.waits < 0.21 - 0.02, "and gives back what the picture no longer needs"
    assert max(abs(offset) for offset in playing.run(10)) <= 0.040


def test_a_change_in_the_call_is_followed_both_ways() -> None:
    playing = Playing(0.15, 0.02)
    playing.run(8)
    assert playing.sync.video_delay_s > 0.1
    playing.audio_path, playing.video_path = 0.02, 0.25
    playing.run(12)
    assert playing.sync.video_delay_s == 0.0
    assert playing.sync.audio_delay_s > 0.1
    assert max(abs(offset) for offset in playing.run(10)) <= 0.040
    playing.video_path = 0.02
    playing.run(8)
    assert max(abs(offset) for offset in playing.run(10)) <= 0.040


def test_nobody_waits_for_ever() -> None:
    late_sound, late_picture = Playing(3.0, 0.0), Playing(0.0, 3.0)
    late_sound.run(60)
    late_picture.run(60)
    assert late_sound.sync.video_delay_s == VIDEO_MOST_S
    assert late_picture.sync.audio_delay_s == AUDIO_MOST_S
    assert late_sound.sync.offset_s is not None
    late_sound.sync.rest()
    assert (late_sound.sync.video_delay_s, late_sound.sync.offset_s) == (0.0, None)


def test_clocks_that_have_nothing_to_do_with_each_other_are_not_compared() -> None:
    sync = LipSync()
    for _ in range(20):
        sync.update(1e9, 0.0, 0.04)
    assert (sync.video_delay_s, sync.audio_delay_s, sync.offset_s) == (0.0, 0.0, None)


def test_the_capture_time_follows_from_a_sender_report() -> None:
    clock = SenderClock(90_000)
    assert clock.captured_at(5) is None
    clock.report(3_900_000_000 * NTP_1_S + NTP_1_S // 2, 0xFFFFFF00)
    assert clock.captured_at(0xFFFFFF00) == pytest.approx(3_900_000_000.5)
    assert clock.captured_at(90_000 - 0x100) == pytest.approx(3_900_000_001.5), "over the wrap"
    assert clock.captured_at(0xFFFFFF00 - 45_000) == pytest.approx(3_900_000_000.0), "before the report"


# --- pace -------------------------------------------------------------------------------------------------------------


def test_pictures_that_wait_come_evenly() -> None:
    pace, jitter = Pace(), random.Random(1)
    dues = []
    for number in range(300):
        arrived = 100 + number / 30 + jitter.random() * 0.05
        dues.append(pace.due(number * 3000 & 0xFFFFFFFF, arrived, 0.1))
        assert arrived <= dues[-1] <= arrived + 0.1
    steps = [later - earlier for earlier, later in pairwise(dues[60:])]
    assert max(steps) - min(steps) < 0.01, "the jitter of 50 ms is gone"


def test_a_late_picture_is_due_at_once_and_a_slower_way_is_followed() -> None:
    pace = Pace()
    for number in range(100):
        pace.due(number * 3000, 100 + number / 30, 0.05)
    assert pace.due(100 * 3000, 100 + 100 / 30 + 0.3, 0.05) == 100 + 100 / 30 + 0.3
    for number in range(101, 600):
        due = pace.due(number * 3000, 100.2 + number / 30, 0.05)
    assert due == pytest.approx(100.25 + 599 / 30)


def test_timestamps_that_jump_begin_anew() -> None:
    pace = Pace()
    pace.due(1000, 100.0, 0.1)
    assert pace.due(1000 + (1 << 31), 100.033, 0.1) == pytest.approx(100.133)
    assert pace.due(1000 + (1 << 31) + 3000, 100.066, 0.1) == pytest.approx(100.166, abs=0.002)
