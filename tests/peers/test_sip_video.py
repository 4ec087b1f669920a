"""Pictures in calls with a real baresip (its H.264 is FFmpeg's), each side's verified at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.media.plain_rtp import PlainSession
from appliance.providers import api
from appliance.providers.sip.call import FAST_UPDATE, MEDIA_CONTROL
from tests.support.baresip import Baresip, baresip
from tests.support.film import grey_film, sprop_of_film
from tests.support.gstreamer import SYSTEM_PYTHON
from tests.support.house import house, start_of
from tests.support.ports import free_port
from tests.support.sip_device import SipDevice, account, sip_device
from tests.support.sipp import sipp
from tests.support.waiting import until, until_true

pytestmark = pytest.mark.peer

GREY = 180
PLAYER = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst
Gst.init(None)
Gst.parse_launch(sys.argv[1]).set_state(Gst.State.PLAYING)
GLib.MainLoop().run()
"""
"""Plays a pipeline until it is killed."""

BOTH = api.MediaWanted()


@asynccontextmanager
async def phone_and_door(
    folder: Path, *, encrypt: bool = False, shows: int | None = GREY, line: str = "", **door: Any
) -> AsyncIterator[tuple[Baresip, SipDevice]]:
    user = f"<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMU/8000/1;answermode=auto{line}"
    async with (
        baresip(folder / "phone", user, shows=shows) as phone,
        sip_device("door", account(f"127.0.0.1:{phone.port}", **door), encrypt=encrypt) as made,
    ):
        made.media = BOTH
        await made.up()
        yield phone, made


async def sees_the_door(phone: Baresip, within_s: float = 15.0) -> None:
    """A picture of now, and a later one after it."""
    async with asyncio.timeout(within_s):
        counters: set[int] = set()
        while len(counters) < 2:
            mark, _ = await phone.sees()
            if mark is not None:
                counters.add(mark.counter)


async def fast_update(door: SipDevice) -> int:
    """Ask by INFO, as where the other side takes no PLI; returns the status of the answer."""
    (leg,) = door.provider.legs
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert leg.call.inform(MEDIA_CONTROL, FAST_UPDATE, answered.set_result)
    return await answered


def is_of_debian_13(phone: Baresip) -> bool:
    return "baresip v1.1." in "".join(phone.log)


def words_of(phone: Baresip) -> str:
    """The command for the direction of its picture."""
    return "videodir" if is_of_debian_13(phone) else "video_dir"


async def of_video(door: SipDevice, kind: str) -> dict[str, Any]:
    assert door.leg is not None
    report = await door.leg.stats()
    return next((one for one in report if one["type"] == kind and one.get("kind") == "video"), {})


async def grows(door: SipDevice, kind: str, name: str, by: int = 1, within_s: float = 10.0) -> None:
    before = (await of_video(door, kind)).get(name, 0)

    async def grown() -> bool:
        return bool((await of_video(door, kind)).get(name, 0) >= before + by)

    await until_true(grown, f"{by} more {name}", within_s)


async def test_we_call_and_both_see_each_other_by_packets_without_fragments(tmp_path: Path) -> None:
    """This baresip answers with packetization-mode 0, for which the encoder keeps to the size of a packet."""
    async with phone_and_door(tmp_path) as (phone, door):
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        await door.connected()
        assert door.of(api.Pictures) == [api.Pictures(True)]
        await door.sees(GREY)
        await sees_the_door(phone)
        assert "packetization-mode=0" in "".join(phone.log).partition("SIP/2.0 200")[2]
        assert door.of(api.PeerMedia) == [api.PeerMedia(video=True)]

        await grows(door, "inbound-rtp", "framesDecoded", 5)
        (session,) = door.studio._sessions
        asking = asyncio.create_task(grows(door, "inbound-rtp", "keyFramesDecoded"))
        tap = session.tap_encoded()  # which begins with a key frame, asked for by PLI
        await asking
        tap.close()
        assert (await of_video(door, "inbound-rtp"))["pliCount"] >= 1
        assert isinstance(session, PlainSession)
        if is_of_debian_13(phone):  # which takes no such INFO
            assert await fast_update(door) == 488
        else:
            assert await fast_update(door) == 200
            await grows(door, "inbound-rtp", "keyFramesDecoded")

        await phone.tell(words_of(phone), "recvonly")
        await until(lambda: door.of(api.PeerMedia)[-1] == api.PeerMedia(video=False), "it sends none any more")
        await sees_the_door(phone)
        await phone.tell(words_of(phone), "sendrecv")
        await until(lambda: door.of(api.PeerMedia)[-1] == api.PeerMedia(video=True), "and again")
        await grows(door, "inbound-rtp", "framesDecoded", 5)
        await door.hang_up()
        assert await door.ended() == "0/local"
        assert not door.studio.state()["video"]["actual"]["open"]


async def test_it_calls_us_and_both_see_each_other_encrypted(tmp_path: Path) -> None:
    """Each line with keys of its own, and packets in fragments (packetization-mode 1)."""
    more: Any = {"encrypt": True, "line": ";mediaenc=srtp-mand", "trust_caller_id": True}
    async with phone_and_door(tmp_path, **more) as (phone, door):
        await phone.tell("dial", door.address)
        await phone.until("CALL_ESTABLISHED")
        await door.connected()
        await door.sees(GREY)
        await sees_the_door(phone)
        assert door.of(api.Connected)[0].security["srtpCipher"].startswith("AES_CM_128")
        answer = "".join(phone.log).partition("SIP/2.0 200 OK")[2].partition("m=video")[2]
        assert "packetization-mode=1" in answer
        assert "a=crypto:" in answer


async def test_a_telephone_without_pictures_is_called_with_sound_alone(tmp_path: Path) -> None:
    async with phone_and_door(tmp_path, shows=None) as (phone, door):
        await door.dial(f"sip:phone@127.0.0.1:{phone.port}")
        await door.connected()
        assert [one.carried for one in door.of(api.Pictures)] == [False]
        assert "takes no pictures" in door.of(api.Pictures)[0].refusal
        await phone.hear(440)
        assert not await of_video(door, "outbound-rtp")
        assert not door.studio.state()["video"]["actual"]["open"]


async def test_the_appliance_starts_and_stops_its_pictures_by_command(tmp_path: Path) -> None:
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMA/8000/1;video_codecs=H264;answermode=auto"
    async with baresip(tmp_path / "phone", line, shows=GREY) as phone:
        tables = ('[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
                  f'servers = "127.0.0.1:{phone.port}"\ntransport = "udp"\nkeep_alive = false\n'
                  'trusted = ["127.0.0.0/8"]\n')
        settings = {"sip.require_encryption": False, "mqtt.enabled": False}
        async with house(await start_of(tmp_path, settings, tables=tables)) as running:
            await running.until(lambda: running.document("provider").get("providers", {}).get("sip", {}).get(
                "accounts", {}).get("trunk", {}).get("up"))
            answer = await running.give("call.dial", to=f"sip:phone@127.0.0.1:{phone.port}", video=False)
            assert answer["result"] == "done", answer
            document = running.document("call")
            assert (document["isLocalVideoStarted"], document["capabilities"]["turnVideoOn"]["isPresent"]) == (
                False, True)
            assert running.document("roster")["participants"][0]["videoStreams"][0]["isAvailable"] is True
            assert "m=video" in "".join(phone.log)
            started = await running.give("video.start")
            assert started["result"] == "done", started
            await running.until(lambda: running.document("call")["isLocalVideoStarted"])
            await sees_the_door(phone)
            assert (await running.give("call.hold"))["result"] == "done"
            await running.until(lambda: not running.document("media")["video"]["actual"]["open"])
            assert (await running.give("call.resume"))["result"] == "done"
            await sees_the_door(phone)
            assert (await running.give("video.stop"))["result"] == "done"
            await running.until(lambda: not running.document("media")["video"]["actual"]["open"])
            await until(lambda: "a=sendonly" in "".join(phone.log).rpartition("m=video")[2], "told to baresip")
            assert running.document("call")["state"] == "Connected"


@asynccontextmanager
async def played(film: Path, own: int, to: int) -> AsyncIterator[None]:
    """GStreamer sends a film as it is, without the parameter sets, from a port of its own."""
    process = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON, "-c", PLAYER, f"filesrc location={film} ! qtdemux ! h264parse ! rtph264pay pt=96 "
        f"config-interval=0 ! udpsink host=127.0.0.1 port={to} bind-address=127.0.0.1 bind-port={own}")
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def port_in(folder: Path) -> int:
    """Where pictures are taken by the answer that SIPp got."""
    (log,) = folder.glob("station_*_messages.log")
    return int(log.read_text().partition("SIP/2.0 200")[2].partition("m=video ")[2].split(" ")[0])


async def test_a_door_station_of_the_old_kind_shows_its_pictures(tmp_path: Path) -> None:
    """Its parameter sets stand in the description alone, it takes no fragments, says no feedback, and asks by INFO."""
    film = await asyncio.to_thread(grey_film, tmp_path / "film.mp4", 320, 240, luma=GREY, seconds=60)
    sets = await asyncio.to_thread(sprop_of_film, film)
    own = free_port()
    async with sip_device("door", account("127.0.0.1:9", trust_caller_id=True)) as door:
        door.media = BOTH
        await door.up()
        more = ("-key", "video_port", str(own), "-key", "sprop", sets, "-trace_msg")
        async with sipp(tmp_path, "station", target=door.address.removeprefix("sip:"), more=more) as station:
            await door.connected()
            (session,) = door.studio._sessions
            port = await asyncio.to_thread(port_in, tmp_path)
            async with played(film, own, port):
                await door.sees(GREY)
                assert (await of_video(door, "outbound-rtp"))["frameHeight"] <= 240, "as small as its level"
                asked = asyncio.create_task(grows(door, "outbound-rtp", "keyFramesEncoded"))
                session.incoming["video"].want_keyframe()
                await asked
            await door.hang_up()
            await station.done()
