"""Sound and pictures of a call, on virtual time: mute, hold, who opens the camera, and limits on the picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.errors import Refused
from appliance.media.ladder import Constraints, Preference
from appliance.providers.api import DataReceived, Held, MediaWanted, PeerMedia, Pictures
from tests.support.calls import House, connected, settle
from tests.support.clock import virtual_time


@virtual_time
async def test_mute_is_told_applied_and_beaten_by_the_switch_on_the_device(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("call.mute")
        await settle()
        assert (house.studio.muted, house.call["mutedBy"], leg.told[-1]["muted"]) == (True, "local", True)
        house.controller.hardware_mute(True)
        assert house.call["mutedBy"] == "hardware"
        with pytest.raises(Refused, match="switch on the device") as refusal:
            await house.give("call.unmute")
        assert refusal.value.key == "403/hardwareMuted"
        house.controller.hardware_mute(False)
        assert house.call["mutedBy"] == "local"  # wanted is kept beside actual
        await house.give("call.unmute")
        assert (house.studio.muted, house.call["isMuted"]) == (False, False)
        house.controller.hardware_mute(True)
        await house.give("call.hangup")
        await settle()
        assert house.studio.muted  # the switch holds outside of calls too


@virtual_time
async def test_hold_of_both_sides_stops_media_and_is_told(tmp_path: Path) -> None:
    nothing = MediaWanted(False, False, False, False)
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("call.hold")
        await settle()
        assert (house.call["state"], leg.media[-1], leg.told[-1]["held"]) == ("LocalHold", nothing, True)
        leg.peer_does(Held(True))
        await settle()
        await house.give("call.resume")
        await settle()
        assert (house.call["state"], leg.media[-1]) == ("RemoteHold", nothing)
        leg.peer_does(Held(False))
        await settle()
        assert (house.call["state"], leg.media[-1]) == ("Connected", MediaWanted())
        with pytest.raises(Refused, match="not possible now"):
            await house.give("call.answer")
        assert house.call["state"] == "Connected"


@virtual_time
async def test_video_incoming_mute_data_and_the_peers_own_state(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await connected(house)
        await house.give("video.stop")
        await settle()
        assert (leg.media[-1].send_video, house.call["isLocalVideoStarted"]) == (False, False)
        await house.give("video.start")
        await house.give("call.muteIncoming")
        await house.give("data.send", payload="hello")
        leg.peer_does(PeerMedia(muted=True, video=True), DataReceived("edgecall", "open please"))
        await settle()
        assert house.studio.incoming_muted
        assert leg.sent == [("edgecall", "hello")]
        member = house.bulletin.document("roster")["participants"][0]
        assert (member["isMuted"], member["videoStreams"][0]["isAvailable"]) == (True, True)
        assert house.posted("data.received")[0]["payload"] == "open please"


@virtual_time
async def test_a_device_without_a_camera_refuses_video_with_the_reason(tmp_path: Path) -> None:
    async with House(tmp_path, features={"turnVideoOn": "this board has no camera"}) as house:
        await connected(house)
        with pytest.raises(Refused, match="no camera") as refusal:
            await house.give("video.start")
        assert refusal.value.sub_code == "FeatureNotSupported"
        assert house.call["capabilities"]["turnVideoOn"] == {"isPresent": False, "reason": "FeatureNotSupported"}
        assert house.call["capabilities"]["blurBackground"]["isPresent"] is False


@virtual_time
async def test_a_telephone_call_leaves_the_camera_closed_and_says_so(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="tel:+4930123456")
        await house.provider.dialled.wait()
        assert not house.studio.warm
        house.provider.legs[0].up()
        await dialling
        assert house.call["isLocalVideoStarted"] is False
        assert house.call["capabilities"]["turnVideoOn"]["isPresent"] is True, "nobody has asked"
        leg = house.provider.legs[0]
        leg.peer_does(Pictures(False, "the other side takes no pictures"))
        await settle()
        with pytest.raises(Refused, match="takes no pictures"):
            await house.give("video.start")
        assert house.call["capabilities"]["turnVideoOn"]["isPresent"] is False


@virtual_time
async def test_pictures_that_a_telephone_begins_in_a_call_of_sound_open_no_camera(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="tel:+4930123456")
        await house.provider.dialled.wait()
        leg = house.provider.legs[0]
        leg.up()
        await dialling
        leg.peer_does(Pictures(True), PeerMedia(video=True))
        await settle()
        assert (house.call["isLocalVideoStarted"], leg.media[-1].send_video) == (False, False)
        await house.give("video.start")
        await settle()
        assert (house.call["isLocalVideoStarted"], leg.media[-1].send_video) == (True, True)


@virtual_time
async def test_a_telephone_is_sent_pictures_once_it_takes_them_or_somebody_asks(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="tel:+4930123456")
        await house.provider.dialled.wait()
        leg = house.provider.legs[0]
        leg.up()
        await dialling
        await settle()
        assert leg.media[-1].send_video is leg.told[-1]["video"] is False
        await house.give("video.start")
        await settle()
        assert leg.told[-1]["video"] is True, "the leg asks the other side"
        leg.peer_does(Pictures(True))
        await house.give("video.stop")
        await settle()
        assert (house.call["isLocalVideoStarted"], leg.media[-1].send_video) == (False, False)
        leg.peer_does(Pictures(False))
        await settle()
        assert house.call["isLocalVideoStarted"] is False


@virtual_time
async def test_an_operator_who_answers_beside_a_telephone_is_seen(tmp_path: Path) -> None:
    both = Entry("Both", members=("Porter", "Desk"), strategy="parallel")
    book = [both, Entry("Porter", ("tel:+4930123456",)), Entry("Desk", ("operator:desk",))]
    async with House(tmp_path, entries=book) as house:
        dialling = house.giving("call.dial", to="Both")
        await settle()
        assert house.studio.warm
        next(leg for leg in house.provider.legs if leg.peer.kind == "voip").up()
        await dialling
        assert house.call["isLocalVideoStarted"] is True


@virtual_time
async def test_without_a_call_there_is_nothing_to_mute(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        for verb in ("call.mute", "call.hangup", "call.answer", "call.hold", "video.stop"):
            with pytest.raises(Refused, match="there is no call"):
                await house.give(verb)


@virtual_time
async def test_limits_on_the_picture_are_taken_live_and_kept_until_lifted(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        answer = await house.give("video.constraints", send={"frameHeight": 360, "bitrate": 400_000},
                                  recv={"maxBitrate": 300_000}, degradationPreference="maintain-resolution")
        assert answer == {"constraints": {
            "send": {"frameHeight": 360, "frameRate": 0, "bitrate": 400_000},
            "recv": {"frameHeight": 0, "maxBitrate": 300_000, "maxVideos": 0},
            "degradationPreference": "maintain-resolution",
            "inForce": {"send": {"frameWidth": 640, "frameHeight": 360, "frameRate": 30, "bitrate": 400_000},
                        "recv": {"maxBitrate": 300_000}}}}
        await house.give("video.constraints", send={"frameHeight": 0, "frameRate": 15})
        assert house.studio.constraints == Constraints(0, 15, 400_000, 0, 300_000, Preference.RESOLUTION)
