"""What is tapped of a session over loopback: sound and pictures, as they came and as they are shown."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from io import BytesIO
from itertools import pairwise
from typing import TypeVar

import av

from appliance.media.api import Directions, SessionUp, SoundBlock, Tone
from appliance.media.taps import Tap
from tests.support.media_pair import goertzel, pair, until

T = TypeVar("T")


async def test_a_recording_keeps_the_picture_as_it_came() -> None:
    async with pair() as (_, callee):
        await callee.event(SessionUp)
        await until(lambda: callee.session.video_in.decoded > 10)
        video = callee.session.video_in
        callee.session.set_directions(Directions(receive_video=False))
        await until(lambda: video.decoded == video.emitted, what="what its decoder was given before")
        decoded = video.decoded
        tap = callee.session.tap_encoded()
        recorded = [unit async for unit in take(tap, 30)]
        tap.close()
        assert recorded[0].key
        assert video.decoded == decoded, "recording costs no decoding"
        steps = {later.timestamp - earlier.timestamp & 0xFFFFFFFF for earlier, later in pairwise(recorded)}
        assert all(1_000 < step < 90_000 for step in steps), "30 a second, on a busy machine less"
        with av.open(BytesIO(b"".join(unit.data for unit in recorded)), format="h264") as film:
            assert len(list(film.decode(video=0))) == 30


async def test_sound_is_tapped_as_it_leaves_and_as_it_is_heard() -> None:
    async with pair() as (_, callee):
        whole = 6_000_000  # a minute: a tone that lasts is noise to the suppressor, so it is looked for from the start
        received, microphone = callee.studio.tap_received(whole), callee.studio.tap_microphone(whole)
        callee.studio.mute_incoming(True)
        callee.studio.play(Tone.RINGBACK)
        heard = await until_heard(received, 440)  # although the loudspeaker is muted
        assert goertzel(heard, 425) < goertzel(heard, 440) / 2, "the tone is not theirs"
        await until_heard(microphone, 1000)
        callee.studio.mute(True)
        async for block in microphone:
            if not any(block.pcm):
                break
        last = block.at_s
        async for block in take(microphone, 20):
            assert len(block.pcm) == 960
            assert block.at_s > last
            last = block.at_s
    assert not any([any(block.pcm) async for block in microphone]), "it ends with the studio"


async def until_heard(tap: Tap[SoundBlock], hertz: float) -> bytes:
    """The 200 ms in which the tone is heard for the first time."""
    blocks: deque[bytes] = deque(maxlen=20)
    async for block in tap:
        blocks.append(block.pcm)
        if goertzel(sound := b"".join(blocks), hertz) > 0.15:
            return sound
    raise AssertionError(f"no {hertz} Hz")


async def test_pictures_are_tapped_while_they_are_not_shown() -> None:
    async with pair() as (_, callee):
        await callee.event(SessionUp)
        callee.session.set_directions(Directions(receive_video=False))
        tap = callee.session.tap_pictures()
        pictures = [picture async for picture in take(tap, 5)]
        assert all((picture.width, picture.height) == (160, 96) for picture in pictures)
        tap.close()


async def take(tap: Tap[T], count: int) -> AsyncIterator[T]:
    """The first ``count`` items."""
    for _ in range(count):
        yield await anext(tap)
