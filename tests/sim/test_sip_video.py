"""Two appliances show each other their pictures over SIP, with no server between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.providers import api
from appliance.providers.sip import video_line
from tests.support.sip_device import SipDevice, face_to_face
from tests.support.waiting import until, until_true

BOTH = api.MediaWanted()
SOUND = api.MediaWanted(send_video=False)
HELD = api.MediaWanted(False, False, False, False)


@asynccontextmanager
async def two(
    *, desk: Mapping[str, Any] | None = None, both: Mapping[str, Any] | None = None,
) -> AsyncIterator[tuple[SipDevice, SipDevice]]:
    async with face_to_face(door=both, desk=desk or both) as (first, second):
        first.media = second.media = BOTH
        yield first, second


async def call(door: SipDevice, desk: SipDevice) -> None:
    await door.dial("sip:desk@127.0.0.1")
    await door.connected()
    await desk.connected()


async def video(device: SipDevice, kind: str) -> Mapping[str, Any]:
    assert device.leg is not None
    report = await device.leg.stats()
    return next((one for one in report if one["type"] == kind and one.get("kind") == "video"), {})


async def grows(device: SipDevice, kind: str, name: str, by: int = 1) -> None:
    before = (await video(device, kind)).get(name, 0)

    async def grown() -> bool:
        return bool((await video(device, kind)).get(name, 0) >= before + by)

    await until_true(grown, f"{by} more {name} at {device.name}")


async def seen(device: SipDevice) -> None:
    """A new picture of the other side is on the screen."""
    count = len(device.board.pictures)
    await until(lambda: len(device.board.pictures) > count + 2, f"pictures at {device.name}")


def closed(device: SipDevice) -> bool:
    return not device.studio.state()["video"]["actual"]["open"]


async def test_pictures_go_both_ways_and_rest_while_one_side_holds() -> None:
    async with two() as (door, desk):
        await call(door, desk)
        await seen(door)
        await seen(desk)
        for device in (door, desk):
            assert device.of(api.Pictures) == [api.Pictures(True)]
            assert device.of(api.PeerMedia) == [api.PeerMedia(video=True)]
        assert door.leg is not None
        await door.leg.set_media(HELD)
        await door.leg.tell(muted=False, held=True, video=True)
        await until(lambda: desk.of(api.Held), "held")
        await until(lambda: closed(door), "the camera at the door is closed")
        await until(lambda: desk.of(api.PeerMedia)[-1] == api.PeerMedia(video=False), "and told")
        await door.leg.set_media(BOTH)
        await door.leg.tell(muted=False, held=False, video=True)
        await seen(door)
        await seen(desk)
        await door.hang_up()
        assert await desk.ended() == "0/remote"
        await until(lambda: closed(door) and closed(desk), "both cameras are closed")


async def test_pictures_are_begun_and_ended_in_a_call_of_sound() -> None:
    async with two() as (door, desk):
        door.media = api.MediaWanted(send_video=False, receive_video=False)
        await call(door, desk)
        assert [one.carried for one in (*door.of(api.Pictures), *desk.of(api.Pictures))] == []
        assert door.leg is not None
        await door.leg.set_media(BOTH)
        await door.leg.tell(muted=False, held=False, video=True)
        await seen(desk)
        await seen(door)
        assert door.of(api.Pictures)[-1] == desk.of(api.Pictures)[-1] == api.Pictures(True)
        await door.leg.set_media(SOUND)
        await door.leg.tell(muted=False, held=False, video=False)
        await until(lambda: desk.of(api.PeerMedia)[-1] == api.PeerMedia(video=False), "the door has stopped")
        assert closed(door)
        await seen(door)
        await door.leg.set_media(BOTH)
        await door.leg.tell(muted=False, held=False, video=True)
        await seen(desk)


async def test_a_side_that_takes_no_pictures_has_a_call_of_sound() -> None:
    async with two(desk={"video": False}) as (door, desk):
        await call(door, desk)
        await door.hears(1000)
        (told,) = door.of(api.Pictures)
        assert (told.carried, "takes no pictures" in told.refusal) == (False, True)
        assert not await video(door, "outbound-rtp")
        assert closed(door)


async def test_a_key_frame_comes_by_a_packet_loss_indication() -> None:
    async with two() as (door, desk):
        await call(door, desk)
        await grows(desk, "inbound-rtp", "framesDecoded", 5)
        (session,) = desk.studio._sessions
        session.incoming["video"].need_keyframe()
        await grows(desk, "inbound-rtp", "keyFramesDecoded")
        assert (await video(door, "outbound-rtp"))["pliCount"] >= 1


async def test_a_key_frame_comes_by_sip_where_no_feedback_is_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_line, "FEEDBACK", ())
    async with two() as (door, desk):
        await call(door, desk)
        await grows(desk, "inbound-rtp", "framesDecoded", 5)
        for device in (door, desk):
            (session,) = device.studio._sessions
            session.incoming["video"].need_keyframe()
            await grows(device, "inbound-rtp", "keyFramesDecoded")
        assert (await video(door, "outbound-rtp"))["pliCount"] == 0


async def test_the_picture_is_as_small_as_the_other_side_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its level (1.3: 352 x 288) and the bandwidth of its line."""
    monkeypatch.setattr("appliance.providers.sip.leg_media.level_of", lambda _: 13)
    async with two() as (door, desk):
        desk.studio.constrain(desk.studio.constraints.changed({"recv": {"maxBitrate": 200_000}}))
        await call(door, desk)
        await until(lambda: desk.board.pictures and desk.board.pictures[-1].height <= 240, "small pictures")
        assert door.studio.state()["video"]["actual"]["bitrate"] <= 200_000


async def test_pictures_have_an_association_of_their_own_with_dtls() -> None:
    async with two(both={"encryption": "dtls"}) as (door, desk):
        await call(door, desk)
        await seen(door)
        await seen(desk)
        assert door.of(api.Connected)[0].security["dtlsCipher"]
        await door.hears(1000)
        assert door.leg is not None
        await door.leg.set_media(SOUND)
        await door.leg.tell(muted=False, held=False, video=False)
        await until(lambda: desk.of(api.PeerMedia)[-1] == api.PeerMedia(video=False), "the door has stopped")
        await seen(door)
        await door.leg.set_media(BOTH)
        await door.leg.tell(muted=False, held=False, video=True)
        await seen(desk)
        await door.hang_up()
        assert await desk.ended() == "0/remote"
