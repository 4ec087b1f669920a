"""A call into a device that hears itself: what the caller hears of its own voice, on real clocks and real transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from appliance.media.acoustics import Override
from appliance.media.api import Directions, IceServers
from appliance.media.echo import DuplexWanted
from appliance.media.session import Session
from appliance.media.sound import dbfs, mean_square
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from hw.api import BoardOptions
from hw.sim import sounds
from hw.sim.board import SimBoard
from tests.support.media_pair import connect, until

AUDIO = Directions(send_video=False, receive_video=False)


@dataclass
class Phone:
    board: SimBoard
    studio: Studio
    session: Session
    played: list[float] = field(default_factory=list)

    async def hears(self, seconds: float) -> float:
        """Level of its loudspeaker from now on, dBFS."""
        self.played.clear()
        await until(lambda: len(self.played) >= seconds * 100, seconds + 5)
        return dbfs(sum(self.played) / len(self.played))


@pytest.fixture
async def call(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Phone, Phone]]:
    """The caller talks; the device is silent but for the echo of its own loudspeaker."""
    monkeypatch.setattr(sounds, "SPEECH_FILES", ())  # the made speech, on every machine the same
    async with AsyncExitStack() as stack:
        phones = []
        for options in (BoardOptions(microphone="speech"),
                        BoardOptions(microphone="silence", echo_delay_ms=70, echo_loss_db=10)):
            board = await asyncio.to_thread(SimBoard, options)
            stack.push_async_callback(asyncio.to_thread, board.close)
            studio = Studio(board, VideoSettings())
            stack.push_async_callback(studio.close)
            await studio.open()
            phone = Phone(board, studio, studio.session(AUDIO, ice=IceServers(), loopback=True))
            board.simulation.tap_speaker(lambda pcm, phone=phone: phone.played.append(mean_square(pcm)))
            phones.append(phone)
        await asyncio.to_thread(phones[1].board.audio.echo.furnish, 250)
        await connect(phones[0].session, phones[1].session)
        await until(lambda: phones[0].session.up and phones[1].session.up, 10)
        yield phones[0], phones[1]


async def test_the_caller_does_not_hear_itself_and_would_without_the_canceller(call: tuple[Phone, Phone]) -> None:
    caller, device = call
    assert device.studio.state()["audio"]["processing"]["wanted"]["aec"]
    await caller.hears(3)  # two to converge, and what was on its way
    played, with_canceller = await asyncio.gather(device.hears(4), caller.hears(4))
    assert played > -45, "the device plays what the caller says"
    report = {entry["type"]: entry for entry in await device.session.stats() if entry.get("kind") != "video"}
    assert report["media-source"]["echoReturnLossEnhancement"] > 20
    assert report["media-source"]["echoReturnLoss"] == pytest.approx(10, abs=4)
    assert report["outbound-rtp"]["mediaSourceId"] == report["media-source"]["id"]
    assert report["x-echo"]["duplex"] == "full"
    await device.studio.acoustics.override(Override(aec=False, duplex=DuplexWanted.OFF))
    await caller.hears(1)
    # 30 dB and more by the figures of test_echo_room; here the call's own concealment and noise are in it too.
    assert await caller.hears(4) - with_canceller > 20
