"""The whole appliance on the simulated board: what its screen is told to carry."""

from __future__ import annotations

from pathlib import Path

from tests.support.house import house, start_of


async def test_a_board_that_is_too_hot_carries_fewer_pictures(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, {"mqtt.enabled": False})) as running:
        await running.until(lambda: running.document("media").get("optimalVideoCount")
                            == {"value": 9, "reason": "externalLimit"})
        assert (await running.give("sim.fault", fault="thermal"))["result"] == "done"
        await running.until(lambda: running.document("media")["optimalVideoCount"]
                            == {"value": 4, "reason": "performance"}, within_s=10)


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
