"""Layouts in a room of a real Janus: what the screen shows, and what the server sends for it by its own counters."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps
from playwright.async_api import Page

from appliance.media.layout import Face, Layout, Quality, Seat, Source, arrange
from appliance.providers import api
from appliance.vocabulary import END_REASONS
from hw.api import DeviceFormatError, Fit, Kind
from hw.sim import pattern
from hw.sim.display import SimDisplay
from hw.sim.pattern import PatternPainter
from tests.support.browser import chromium, wait_for
from tests.support.coded_video import units
from tests.support.janus import JanusServer
from tests.support.likeness import structural_similarity
from tests.support.media_board import HandDisplay
from tests.support.room_device import H264, ROOM, Device, device, janus, same_as_server
from tests.support.room_page import room_page
from tests.support.waiting import until, until_true

pytestmark = pytest.mark.peer

SIZE = (1280, 720)
SENDS = api.MediaWanted(send_audio=False, receive_audio=False, receive_video=False)


def screen() -> SimDisplay:
    return SimDisplay(SIZE)


def nothing() -> None:
    """The board has no screen."""


def inside(seat: Seat) -> tuple[int, int, int, int]:
    """Left, top, width and height of a picture of 16:9 in this place, in pixels."""
    left, top, width, height = (round(share * of) for share, of in zip(
        (seat.x, seat.y, seat.w, seat.h), SIZE * 2, strict=True))
    wide = min(width, height * 16 // 9) // 2 * 2
    high = min(height, width * 9 // 16) // 2 * 2
    return left + (width - wide) // 2, top + (height - high) // 2, wide, high


def counter(shot: Image.Image, seat: Seat, *, mirrored: bool = False) -> int | None:
    """Of the test picture that stands in this place."""
    left, top, wide, high = inside(seat)
    part = shot.crop((left, top, left + wide, top + high))
    mark = pattern.read((ImageOps.mirror(part) if mirrored else part).tobytes(), wide, high)
    return None if mark is None else mark.counter


async def moves(one: Device, *seats: Seat, mirrored: bool = False) -> None:
    """In each of these places three other pictures from now on."""
    seen: list[set[int]] = [set() for _ in seats]
    async with asyncio.timeout(10):
        while not all(len(counters) >= 3 for counters in seen):
            shot = await one.shown()
            for seat, counters in zip(seats, seen, strict=True):
                if (found := counter(shot, seat, mirrored=mirrored)) is not None:
                    counters.add(found)
            await asyncio.sleep(0.05)


async def sent(server: JanusServer, seconds: float = 1.0) -> tuple[int, float]:
    """On how many lines the server sends pictures, and the bits per second of all of them."""
    loop = asyncio.get_running_loop()
    before, began = await server.pictures_sent(), loop.time()
    await asyncio.sleep(seconds)
    after = await server.pictures_sent()
    grown = [after[line] - before.get(line, 0) for line in after]
    return sum(bytes_ > 0 for bytes_ in grown), sum(grown) * 8 / (loop.time() - began)


async def sends_on(server: JanusServer, lines: int) -> None:
    """On so many lines, once what was on its way has left."""
    async with asyncio.timeout(10):
        while (await sent(server, 0.5))[0] != lines:
            pass


async def test_the_screen_shows_the_layout_and_the_server_sends_what_is_shown(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(janus(tmp_path))
        door = await stack.enter_async_context(device(server.url, "door", screen=screen))
        others = [await stack.enter_async_context(device(server.url, f"p{number}", height=90, screen=nothing))
                  for number in range(3)]
        await door.join()
        await door.connected()
        for other in others:
            await other.join()
            await other.connected()
        await until(lambda: len(door.members) == 3, "three others")

        await moves(door, *arrange(Layout.GRID, [Face(str(number)) for number in range(3)]))
        await sends_on(server, 3)
        door.stage.limit(1)
        await until(lambda: sum(one.receiving for one in door.members.values()) == 1, "one is received, the others off")
        await sends_on(server, 1)
        door.stage.limit(9)
        door.stage.choose(Layout.SPEAKER, None, in_call=True)
        await moves(door, *arrange(Layout.SPEAKER, [Face(str(number)) for number in range(3)]))
        door.stage.choose(Layout.PIP, None, in_call=True)
        whole, inset = arrange(Layout.PIP, [Face("1")])
        await moves(door, inset, mirrored=True)
        floor = (0, SIZE[1] * 13 // 16, SIZE[0] * 2 // 3, SIZE[1])  # of the large one the inset lies over the mark
        before = (await door.shown()).crop(floor)
        await sends_on(server, 1)
        assert ImageChops.difference(before, (await door.shown()).crop(floor)).getbbox() is not None
        door.stage.choose(Layout.NONE, None, in_call=True)
        await until(lambda: not any(one.receiving for one in door.members.values()), "nobody is received")
        await sends_on(server, 0)
        shot = await door.shown()
        assert counter(shot, whole) is None
        door.stage.choose(Layout.SINGLE, None, in_call=True)
        await moves(door, whole)


def marked_clip(folder: Path, number: int) -> str:
    """Two seconds of the test picture, encoded once; its counter begins at ``number`` thousands. Ten of them are sent
    and one screen decodes nine in a single process: there are few pictures a second."""
    painter, path = PatternPainter(320, 180), folder / f"{number}.ts"
    coded = units(10, size=(320, 180), fps=5, key_every=5,
                  paint=lambda at: painter.paint(1000 * number + at, 200_000 * at))
    with av.open(path, "w", format="mpegts") as film:  # by itself H.264 has no rate, and counts as of 25 a second
        stream = film.add_stream("h264", rate=5, width=320, height=180)
        for at, unit in enumerate(coded):
            packet = av.Packet(unit.data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, at, at, Fraction(1, 5)
            packet.is_keyframe = unit.key
            film.mux(packet)
    return f"clip:{path}"


async def are_shown(one: Device, seats: Sequence[Seat], numbers: Sequence[int]) -> None:
    """In the places, one after the other, the clips of these numbers, and each moves."""
    seen: list[set[int]] = [set() for _ in seats]
    assert len(seats) == len(numbers)
    try:
        async with asyncio.timeout(20):
            while not all(len(counters) >= 3 for counters in seen):
                shot = await one.shown()
                for seat, number, counters in zip(seats, numbers, seen, strict=True):
                    found = counter(shot, seat)
                    if found is not None and found // 1000 == number:
                        counters.add(found)
                    elif found is not None:
                        counters.clear()  # of the arrangement of before
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"of {numbers} there came {seen}") from None


async def test_nine_people_and_what_one_of_them_shares_are_shown_and_nothing_else_is_sent(tmp_path: Path) -> None:
    plan = Image.new("L", (1280, 720), 255)
    draw, font = ImageDraw.Draw(plan), ImageFont.load_default(40)
    for line in range(14):
        draw.text((40, 30 + 48 * line), "Deliveries from 7 to 19 at gate 4, ring twice", font=font, fill=0)
    plan.save(tmp_path / "plan.png")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(janus(tmp_path, {ROOM: {**H264, "publishers": 20}}))
        door = await stack.enter_async_context(device(server.url, "door", screen=screen))
        people = [await stack.enter_async_context(
            device(server.url, f"p{number}", camera=await asyncio.to_thread(marked_clip, tmp_path, number),
                   screen=nothing)) for number in range(10)]
        await door.join()
        await door.connected()
        for one in people[:9]:
            await one.join(media=SENDS)
            await one.connected()
        await until(lambda: len(door.members) == 9, "nine others")
        await same_as_server(server, door)

        def grid() -> tuple[Seat, ...]:
            return arrange(Layout.GRID, [Face(str(number)) for number in range(9)], size=SIZE)

        await are_shown(door, grid(), range(9))
        await sends_on(server, 9)

        await people[4].share(tmp_path / "plan.png")
        await until(lambda: door.stage.layout is Layout.CONTENT, "the layout of content")
        content, *beside = arrange(Layout.CONTENT, [Face(str(n), content=n == 4) for n in range(9)], size=SIZE)
        await are_shown(door, beside, range(9))
        await likens(door, content, plan)
        await sends_on(server, 10)
        await same_as_server(server, door, shares={"P4 (content)"})
        await until(lambda: sum(one.receiving for one in door.members.values()) == 9, "nine are received")

        await people[9].join(media=SENDS)
        await people[9].connected()
        await until(lambda: len(door.members) == 10, "a tenth")
        await same_as_server(server, door, shares={"P4 (content)"})
        assert not door.members["P9"].receiving
        await sends_on(server, 10)

        leg = people[2].leg
        assert leg is not None
        await leg.end(END_REASONS["0/local"])
        await until(lambda: "P2" not in door.members, "one has left")
        await same_as_server(server, door, shares={"P4 (content)"})
        await are_shown(door, beside, [0, 1, 3, 4, 5, 6, 7, 8, 9])
        await sends_on(server, 10)

        await people[4].share(None)
        await until(lambda: door.stage.layout is Layout.GRID, "the layout of before")
        await are_shown(door, grid(), [0, 1, 3, 4, 5, 6, 7, 8, 9])
        await sends_on(server, 9)
        await same_as_server(server, door)
        assert not door.of(api.Lost)
        assert not any(one.of(api.Lost) for one in people)


async def test_without_a_screen_no_picture_crosses_the_network(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", 440, screen=nothing) as door,
        device(server.url, "gate", 880, screen=nothing) as gate,
    ):
        await door.join()
        await gate.join()
        await door.hears(880)
        assert await sent(server) == (0, 0)


async def test_a_browser_of_several_qualities_is_received_in_the_one_that_is_shown(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, {ROOM: {**H264, "bitrate": 4_000_000}}) as server,
        device(server.url, "door", screen=HandDisplay) as door, room_page() as url, chromium() as browser,
    ):
        await door.join(media=api.MediaWanted(send_video=False))  # all pictures that the server sends are for us
        await door.connected()
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga', { simulcast: true })", [server.url, ROOM])

        def lines() -> int:
            tile = door.tiles.get("Olga")
            return 0 if tile is None or tile.picture is None else tile.picture.height

        async def comes_in(height: int) -> None:
            try:
                await until(lambda: lines() == height, f"{height} lines", 15)
            except AssertionError as error:
                sent = await page.evaluate("() => layers('Olga')")
                raise AssertionError(f"{error}; the browser sends {sent}") from None

        async def pictures() -> int:
            return sum(one["framesReceived"] for one in await door.stats()
                       if one["type"] == "inbound-rtp" and one["kind"] == "video")

        async def bytes_of_each() -> float:
            """That the server sends, of ten pictures: how many a second a busy browser makes says nothing of their
            quality."""
            first, before = await pictures(), sum((await server.pictures_sent()).values())

            async def ten() -> bool:
                return await pictures() >= first + 10

            await until_true(ten, "ten pictures", 20)
            return (sum((await server.pictures_sent()).values()) - before) / (await pictures() - first)

        await comes_in(288)  # of the seat, which has 360
        olga = door.members["Olga"].id
        sizes = {}
        for quality, height in ((Quality.HIGH, 576), (Quality.LOW, 144)):
            door.stage.ask(olga, quality)
            await comes_in(height)
            await door.sees("Olga")
            sizes[quality] = await bytes_of_each()
        assert sizes[Quality.LOW] < sizes[Quality.HIGH] / 2, sizes
        door.stage.ask(olga, Quality.OFF)
        await until(lambda: not door.members["Olga"].receiving, "she is not received")
        await sends_on(server, 0)
        door.stage.ask(olga, None)
        await comes_in(288)


async def test_another_person_comes_onto_the_screen_by_a_switch(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, device(server.url, "door", screen=HandDisplay) as door,
        device(server.url, "gate", height=90, screen=nothing) as gate,
        device(server.url, "hall", height=180, screen=nothing) as hall,
    ):
        door.stage.choose(Layout.SINGLE, None, in_call=False)
        await door.join()
        for one in (door, gate, hall):
            await one.join() if one is not door else None
            await one.connected()
        await until(lambda: len(door.members) == 2, "two others")
        await door.sees("Gate")
        lines = sum(one["type"] == "inbound-rtp" for one in await door.stats())
        for _ in range(3):
            for hidden, shown in (("Gate", "Hall"), ("Hall", "Gate")):
                door.stage.ask(door.members[hidden].id, Quality.OFF)
                door.stage.ask(door.members[shown].id, None)
                await door.sees(shown)
                assert {name for name, one in door.members.items() if one.receiving} == {shown}
                tile = door.tiles[shown].picture
                assert tile is not None
                assert tile.height == {"Gate": 90, "Hall": 180}[shown]
        assert sum(one["type"] == "inbound-rtp" for one in await door.stats()) == lines
        await until(lambda: {one.quality for one in door.members.values()} == {5}, "nothing is lost of either")


async def test_what_a_browser_shares_is_shown_large_by_itself_and_can_be_read(tmp_path: Path) -> None:
    async with (
        janus(tmp_path, {ROOM: {**H264, "bitrate": 3_000_000}}) as server,
        device(server.url, "door", screen=screen) as door, room_page() as url, chromium() as browser,
    ):
        door.stage.choose(Layout.SPEAKER, Fit.STRETCH, in_call=False)  # her camera is not of 16:9
        await door.join()
        await door.connected()
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, ROOM])
        await moves(door, Seat(Source("Olga")))
        await page.evaluate("() => people.Olga.share('Terms: deliveries from 7 to 19 at gate 4')")
        await until(lambda: door.stage.layout is Layout.CONTENT, "the layout of content")
        content, olga = arrange(Layout.CONTENT, [Face("Olga", content=True)])
        await moves(door, olga)
        meant = Image.open(io.BytesIO(base64.b64decode(
            (await page.evaluate("() => people.Olga.canvas.toDataURL()")).partition(",")[2]))).convert("L")
        words = (0, 0, 1280, 640)  # above what moves
        likeness = 0.0
        async with asyncio.timeout(15):
            while likeness < 0.9:
                left, top, width, height = inside(content)
                seen = (await door.shown()).crop((left, top, left + width, top + height))
                part = seen.crop((0, 0, width, height * 640 // 720))
                likeness = structural_similarity(part, meant.crop(words).resize(part.size))
                await asyncio.sleep(0.1)
        await page.evaluate("() => people.Olga.unshare()")
        await until(lambda: door.stage.layout is Layout.SPEAKER, "the layout of before")
        await moves(door, Seat(Source("Olga")))


async def test_a_picture_that_the_device_shares_is_shown_to_all_beside_its_camera(tmp_path: Path) -> None:
    plan = Image.new("L", (1280, 720), 255)
    draw, font = ImageDraw.Draw(plan), ImageFont.load_default(40)
    for line in range(14):
        draw.text((40, 30 + 48 * line), "Evacuation: leave by the stairs at the left, floor 4", font=font, fill=0)
    plan.save(tmp_path / "plan.png")
    async with (
        janus(tmp_path, {ROOM: {**H264, "bitrate": 3_000_000}}) as server,
        device(server.url, "door", height=360, screen=nothing) as door,
        device(server.url, "gate", height=90, screen=screen) as gate, room_page() as url, chromium() as browser,
    ):
        await gate.join()
        await gate.connected()
        await door.join()
        await door.connected()
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga')", [server.url, ROOM])
        await wait_for(page, "() => people.Olga.streams.Door?.getTracks().length === 2")
        await moves(gate, *arrange(Layout.GRID, [Face("Door"), Face("Olga")])[:1])
        before = await pictures_a_second(page, "Door")

        await door.share(tmp_path / "plan.png")
        await until(lambda: gate.stage.layout is Layout.CONTENT, "the layout of content at the gate")
        assert set(gate.members) == {"Door", "Olga"}  # what shares is no person
        content = arrange(Layout.CONTENT, [Face("Door", content=True)])[0]
        await likens(gate, content, plan)
        await wait_for(page, """() => { const video = document.getElementById("Door-(content)");
            return video?.videoWidth === 1280 && video.getVideoPlaybackQuality().totalVideoFrames > 10; }""")
        async with asyncio.timeout(15):  # others on this machine may take their share of two seconds, but not of all
            while await pictures_a_second(page, "Door") < 0.8 * before:
                pass

        await door.share(None)
        await until(lambda: gate.stage.layout is Layout.GRID, "the layout of before")
        await wait_for(page, "() => !Object.values(people.Olga.others).includes('Door (content)')")
        with pytest.raises(DeviceFormatError, match="damaged, or neither picture nor video"):
            await door.studio.share(str(Path(__file__)))
        await door.share(tmp_path / "plan.png")
        await until(lambda: gate.stage.layout is Layout.CONTENT, "shared again")
        await door.share(None)
        await until(lambda: gate.stage.layout is Layout.GRID, "the layout of before, again")

        hands, lost = door.board.simulation, list[str]()
        assert hands is not None
        hands.source(Kind.CAPTURE, f"file:{tmp_path / 'plan.png'}")
        door.studio.on_content_lost = lost.append
        await door.share("hdmi0", device=True)
        await until(lambda: gate.stage.layout is Layout.CONTENT, "an HDMI input is shared")
        await likens(gate, content, plan)
        hands.fault("hdmi.unplug", active=True)
        await until(lambda: lost, "the pull is told", 2.0)
        assert "unplugged" in lost[0]


async def likens(gate: Device, seat: Seat, plan: Image.Image) -> None:
    """Wait until the seat on the gate's screen shows that."""
    left, top, width, height = inside(seat)
    likeness = 0.0
    async with asyncio.timeout(15):
        while likeness < 0.9:
            seen = (await gate.shown()).crop((left, top, left + width, top + height))
            likeness = structural_similarity(seen, plan.resize(seen.size))
            await asyncio.sleep(0.1)


async def pictures_a_second(page: Page, element: str, seconds: float = 2.0) -> float:
    """That the page has shown of a video element."""
    count = "(id) => document.getElementById(id).getVideoPlaybackQuality().totalVideoFrames"
    loop = asyncio.get_running_loop()
    first, began = await page.evaluate(count, element), loop.time()
    await asyncio.sleep(seconds)
    return float(await page.evaluate(count, element) - first) / (loop.time() - began)
