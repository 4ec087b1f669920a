"""The whole appliance on the simulated board: what its screen is told to carry."""

from __future__ import annotations

import asyncio
import threading
from io import BytesIO
from pathlib import Path

import aiohttp
from PIL import Image, ImageOps

from hw.sim import pattern
from hw.sim.display import SimDisplay
from tests.support.house import house, start_of


async def test_a_board_that_is_too_hot_carries_fewer_pictures(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, {"mqtt.enabled": False})) as running:
        await running.until(lambda: running.document("media").get("optimalVideoCount")
                            == {"value": 9, "reason": "externalLimit"})
        assert (await running.give("sim.fault", fault="thermal"))["result"] == "done"
        await running.until(lambda: running.document("media")["optimalVideoCount"]
                            == {"value": 4, "reason": "performance"}, within_s=10)


async def test_a_look_at_oneself_is_mirrored_lights_the_lamp_and_sends_nothing(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, {"mqtt.enabled": False})) as running:
        assert (await running.give("preview.start"))["result"] == "done"
        display = running.house.board.display
        assert isinstance(display, SimDisplay)
        seen = set[int]()
        async with asyncio.timeout(15):
            while len(seen) < 3:
                png = await asyncio.to_thread(display.screenshot)
                shot = ImageOps.mirror(Image.open(BytesIO(png)).convert("L"))
                mark = pattern.read(shot.tobytes(), *shot.size)
                seen |= set() if mark is None else {mark.counter}
        assert not [one.name for one in threading.enumerate() if one.name.startswith("media.decode")], "it is raw"
        await running.until(lambda: running.document("media")["capturing"])
        media = running.document("media")
        assert (media["sessions"], media["video"]["layout"]["actual"]) == (0, "preview")
        await running.until(lambda: running.document("io")["lamps"]["capture"]["pattern"] == [[1.0, True]])
        assert (await running.give("preview.stop"))["result"] == "done"
        await running.until(lambda: not running.document("media")["capturing"])


async def test_the_installer_s_stream_shows_what_the_camera_sees_and_how_it_goes_on(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, {"mqtt.enabled": False})) as running:
        counters = list[int]()
        connector = aiohttp.UnixConnector(str(running.house.http.socket_path))
        async with (asyncio.timeout(30), aiohttp.ClientSession(connector=connector) as http,
                    http.get("http://edgecall/v1/camera/preview") as reply):
            reader = aiohttp.MultipartReader.from_response(reply).stream
            while len(set(counters)) < 4:
                part = await reader.next()
                assert isinstance(part, aiohttp.BodyPartReader)
                shot = Image.open(BytesIO(await part.read())).convert("L")
                mark = pattern.read(shot.tobytes(), *shot.size)
                assert mark is not None
                counters.append(mark.counter)
                assert shot.size == (640, 360)
            await running.until(lambda: running.document("media")["capturing"])
        assert counters == sorted(counters)
        await running.until(lambda: not running.document("media")["capturing"])


async def test_the_settings_layout_stands_in_the_state_and_is_changed_by_command(tmp_path: Path) -> None:
    settings = {"mqtt.enabled": False, "screen.layout": "speaker", "screen.fit": "crop"}
    async with house(await start_of(tmp_path, settings)) as running:
        await running.until(lambda: running.document("media").get("video", {}).get("layout", {}).get("wanted")
                            == "speaker")
        answer = await running.give("video.layout", layout="single")
        assert answer["data"] == {"layout": {"wanted": "single", "actual": "single", "fit": "crop"}}
        await running.until(lambda: running.document("media")["video"]["layout"]["wanted"] == "single")
        bad = await running.give("video.layout", layout="mosaic")
        assert (bad["result"], bad["code"]) == ("rejected", 400)
