"""Showing a file to a room, on virtual time: which files, who may, and what ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.calls.terms import Terms
from appliance.errors import BadRequest, Refused
from appliance.providers.api import ContentEnded
from appliance.vocabulary import END_REASONS, Role
from hw.api import DeviceDeniedError, DeviceFailedError, DeviceFormatError, DeviceMissingError, HardwareError
from tests.support.calls import House, ScriptedLeg, in_room, settle
from tests.support.clock import virtual_time

PRESENTER = {"room:1234": Terms(Role.PRESENTER)}


async def sharing(house: House, folder: Path) -> ScriptedLeg:
    (folder / "plan.png").write_bytes(b"picture")
    leg = await in_room(house)
    await house.give("content.start", source="plan.png")
    await settle()
    return leg


@virtual_time
async def test_a_file_is_shown_until_it_is_stopped(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await sharing(house, tmp_path)
        assert house.studio.shares == str(tmp_path / "plan.png")
        assert (leg.media[-1].content, house.call["isContentSharingOn"]) == (True, True)
        await house.give("call.hold")
        await settle()
        assert not leg.media[-1].content
        await house.give("call.resume")
        await settle()
        assert leg.media[-1].content
        await house.give("content.stop")
        await settle()
        assert (leg.media[-1].content, house.call["isContentSharingOn"], house.studio.shares) == (False, False, "")


@virtual_time
async def test_what_is_shown_ends_with_the_call(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        await sharing(house, tmp_path)
        await house.give("room.leave")
        await settle()
        assert house.studio.shares == ""
        assert not house.call["isContentSharingOn"]


@virtual_time
async def test_a_room_that_does_not_take_it_is_told(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await sharing(house, tmp_path)
        leg.peer_does(ContentEnded(END_REASONS["403/roomFull"]))
        await settle()
        (told,) = house.posted("media.contentEnded")
        assert told["reason"]["subCode"] == "roomFull"
        assert (leg.media[-1].content, house.studio.shares, house.call["state"]) == (False, "", "Connected")


@virtual_time
@pytest.mark.parametrize("name", ["../plan.png", "/etc/passwd", ".plan.png", "..", "a/plan.png"])
async def test_only_files_of_the_one_folder_are_shown(tmp_path: Path, name: str) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        with pytest.raises(BadRequest, match="give its name alone"):
            await house.give("content.start", source=name)
        with pytest.raises(BadRequest) as missing:
            await house.give("content.start", source="missing.png")
        assert missing.value.key == "404/notFound"
        await settle()
        assert not leg.media[-1].content


@virtual_time
@pytest.mark.parametrize(("error", "key", "words"), [
    (DeviceFormatError("file X is damaged"), "400/source", "'notes.txt' cannot be shown: file X is damaged; put"),
    (DeviceDeniedError("file X may not be read"), "400/source", "may not be read; put"),
    (DeviceMissingError("file X is not there"), "404/notFound", "put it there"),
])
async def test_a_file_that_cannot_be_shown_is_refused_with_what_is_wrong_and_changes_nothing(
    tmp_path: Path, error: HardwareError, key: str, words: str,
) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        (tmp_path / "notes.txt").write_text("words")
        house.studio.unreadable[str(tmp_path / "notes.txt")] = error
        with pytest.raises(BadRequest, match=words) as refused:
            await house.give("content.start", source="notes.txt")
        assert refused.value.key == key
        await settle()
        assert (leg.media[-1].content, house.call["isContentSharingOn"]) == (False, False)


@virtual_time
async def test_it_takes_a_room_and_the_role_of_a_presenter(tmp_path: Path) -> None:
    (tmp_path / "plan.png").write_bytes(b"picture")
    async with House(tmp_path) as house:
        await in_room(house)
        with pytest.raises(Refused) as attendee:
            await house.give("content.start", source="plan.png")
        assert attendee.value.key == "403/RoleRestricted"
        await house.give("room.leave")
        await settle()
        house.provider.dialled.clear()
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        house.provider.legs[-1].up()
        await dialling
        with pytest.raises(Refused) as direct:
            await house.give("content.start", source="plan.png")
        assert direct.value.key == "501/FeatureNotSupported"


@virtual_time
async def test_a_capture_device_is_shown_until_it_is_pulled(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        await house.give("content.start", source="device:usb-1-1.2:1.0")
        await settle()
        assert (house.studio.shares, leg.media[-1].content) == ("device:usb-1-1.2:1.0", True)
        house.studio.on_content_lost("it was unplugged")
        await settle()
        (told,) = house.posted("media.contentEnded")
        assert (told["reason"]["subCode"], told["callId"]) == ("deviceFault.media", house.call["callId"])
        assert "it was unplugged" in told["reason"]["message"]
        assert (leg.media[-1].content, house.studio.shares, house.call["isContentSharingOn"]) == (False, "", False)
        house.studio.on_content_lost("told twice")
        await settle()
        assert len(house.posted("media.contentEnded")) == 1


@virtual_time
async def test_a_capture_device_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await in_room(house)
        house.studio.unreadable["hdmi7"] = DeviceFailedError("hdmi7 gives nothing")
        with pytest.raises(DeviceFailedError):
            await house.give("content.start", source="device:hdmi7")
        await settle()
        assert (leg.media[-1].content, house.call["isContentSharingOn"]) == (False, False)


@virtual_time
async def test_the_next_source_is_sent_anew(tmp_path: Path) -> None:
    """The feed of the one before gives nothing any more: who sends it has to begin with another."""
    async with House(tmp_path, rules=PRESENTER) as house:
        leg = await sharing(house, tmp_path)
        begun = len(leg.media)
        await house.give("content.start", source="device:hdmi0")
        await settle()
        assert [media.content for media in leg.media[begun:]] == [False, True]
        assert (house.studio.shares, house.call["isContentSharingOn"]) == ("device:hdmi0", True)
        assert house.posted("media.contentEnded") == []
