"""Who has the floor in a room of a real Janus: three others who speak in turns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.house import house, start_of
from tests.support.lag import lateness
from tests.support.room_device import ROOM, device, janus

pytestmark = pytest.mark.peer


async def test_who_speaks_has_the_floor_within_a_second(tmp_path: Path) -> None:
    (tmp_path / "janus").mkdir()
    async with (
        janus(tmp_path / "janus") as server, device(server.url, "one", 440) as one,
        device(server.url, "two", 660) as two, device(server.url, "three", 880) as three,
    ):
        others = {other.name.title(): other for other in (one, two, three)}
        for other in others.values():
            other.studio.mute(True)
            await other.join()
            await other.connected()
        async with (
            house(await start_of(tmp_path, {"janus.url": server.url, "mqtt.enabled": False})) as running,
            lateness() as late,
        ):
            joined = await running.give("room.join", target=str(ROOM))
            assert joined["result"] == "done", joined

            def names() -> dict[str, str]:
                return {each["participantId"]: each["displayName"]
                        for each in running.document("roster").get("participants", ())}

            def floor() -> str:
                ranking = running.document("roster").get("dominantSpeakers") or [""]
                return names().get(ranking[0], "")

            def speaking() -> set[str]:
                return {each["displayName"] for each in running.document("roster")["participants"]
                        if each["isSpeaking"]}

            await running.until(lambda: set(names().values()) == set(others))
            for speaker in ("One", "Three", "Two", "One"):
                others[speaker].studio.mute(False)
                begun, late_before = asyncio.get_running_loop().time(), late()
                await running.until(lambda speaker=speaker: floor() == speaker)  # type: ignore[misc]
                took = asyncio.get_running_loop().time() - begun
                assert took < 1.5 + late() - late_before  # 0.2 s of it on the way
                await running.until(lambda speaker=speaker: speaking() == {speaker})  # type: ignore[misc]
                others[speaker].studio.mute(True)
                await running.until(lambda: not speaking())
                assert floor() == speaker  # silence takes it from nobody
