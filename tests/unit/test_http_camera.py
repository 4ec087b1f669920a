"""The camera as a stream of pictures over HTTP: what a browser gets, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from appliance.doors.http import Ports, camera
from hw.api import DeviceMissingError
from tests.support.http_door import DEVICE, OPERATOR, Running, running_door
from tests.support.waiting import until


@dataclass
class Eye:
    taken: int = 0
    tones: int = 0
    blind: bool = False

    async def preview(self) -> bytes:
        if self.blind:
            raise DeviceMissingError("the camera was pulled out")
        self.taken += 1
        return b"\xff\xd8\xff" + b"%d" % self.taken

    def tone(self) -> None:
        self.tones += 1


@asynccontextmanager
async def looking(tmp_path: Path) -> AsyncIterator[tuple[Running, Eye]]:
    eye = Eye()
    async with running_door(tmp_path, Ports(preview=eye.preview, camera_tone=eye.tone)) as running:
        yield running, eye


def preview(running: Running, token: str = OPERATOR) -> aiohttp.client._RequestContextManager:
    return running.http.get(f"{running.base}/v1/camera/preview", headers=running.bearer(token))


async def part(reader: aiohttp.MultipartReader) -> bytes | None:
    one = await reader.next()
    if one is None:
        return None
    assert isinstance(one, aiohttp.BodyPartReader)
    assert one.headers["Content-Type"] == "image/jpeg"
    return bytes(await one.read())


async def test_pictures_come_with_a_tone_at_the_device(tmp_path: Path) -> None:
    async with looking(tmp_path) as (running, eye):
        async with preview(running) as answer:
            assert answer.status == 200
            assert answer.content_type == "multipart/x-mixed-replace"
            assert answer.headers["Cache-Control"] == "no-store"
            reader = aiohttp.MultipartReader.from_response(answer).stream
            assert [await part(reader) for _ in range(3)] == [b"\xff\xd8\xff%d" % n for n in (1, 2, 3)]
            async with preview(running) as other:
                assert await part(aiohttp.MultipartReader.from_response(other).stream)
            assert eye.tones == 1, "who stands there knows already"
        await until(lambda: not running.door._camera, "both are gone")
        taken = eye.taken
        async with preview(running) as answer:
            assert await part(aiohttp.MultipartReader.from_response(answer).stream)
            assert eye.tones == 2
        assert eye.taken <= taken + 2, "nobody looks, nothing is taken"


async def test_a_call_ends_it_and_none_begins_in_a_call(tmp_path: Path) -> None:
    async with looking(tmp_path) as (running, eye):
        async with preview(running) as answer:
            reader = aiohttp.MultipartReader.from_response(answer).stream
            await part(reader)
            running.bulletin.set("call", {"state": "Incoming"})
            while await part(reader) is not None:
                pass
        taken = eye.taken
        async with preview(running) as answer:
            assert answer.status == 409
            assert (await answer.json())["subCode"] == "inCall"
        assert eye.taken == taken
        running.bulletin.set("call", {"state": "Disconnected"})
        async with preview(running) as answer:
            assert answer.status == 200


async def test_one_that_was_forgotten_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "LONGEST_S", 0.3)
    async with looking(tmp_path) as (running, eye), preview(running) as answer:
        assert (await answer.content.read()).count(b"Content-Type: image/jpeg") == eye.taken


async def test_a_camera_that_goes_ends_it_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with looking(tmp_path) as (running, eye):
        async with preview(running) as answer:
            await part(aiohttp.MultipartReader.from_response(answer).stream)
            eye.blind = True
            await answer.content.read()
        async with preview(running) as answer:
            assert answer.status == 503
            assert "pulled out" in (await answer.json())["message"]
    async with running_door(tmp_path) as running, preview(running) as answer:
        assert (await answer.json())["subCode"] == "noCamera"


async def test_who_may_not_look_and_how_many_may(tmp_path: Path) -> None:
    async with looking(tmp_path) as (running, eye):
        async with preview(running, DEVICE) as answer:
            assert answer.status == 403
        async with running.http.get(f"{running.base}/v1/camera/preview") as answer:
            assert answer.status == 401
        assert eye.taken == 0
        async with preview(running) as one, preview(running) as two, preview(running) as three:
            assert (one.status, two.status, three.status) == (200, 200, 503)


async def test_signing_out_ends_it(tmp_path: Path) -> None:
    async with looking(tmp_path) as (running, _), running.browser() as browser:
        async with browser.get(f"{running.base}/v1/camera/preview") as answer:
            await part(aiohttp.MultipartReader.from_response(answer).stream)
            async with browser.delete(f"{running.base}/v1/session", headers={"Origin": running.base}) as out:
                assert out.status == 200
            await answer.content.read()
        await until(lambda: not running.door._camera, "gone")


async def test_who_does_not_take_the_pictures_is_hung_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "SLOW_S", 0.2)
    monkeypatch.setattr(camera, "PERIOD_S", 0.0)

    async def large() -> bytes:
        return bytes(4_000_000)

    async with running_door(tmp_path, Ports(preview=large)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.door.port)
        writer.write(f"GET /v1/camera/preview HTTP/1.1\r\nHost: 127.0.0.1:{running.door.port}\r\n"
                     f"Authorization: Bearer {OPERATOR}\r\n\r\n".encode())
        await until(lambda: len(running.door._camera) == 1, "it begins")
        await until(lambda: not running.door._camera, "it is hung up")
        writer.close()
        del reader
