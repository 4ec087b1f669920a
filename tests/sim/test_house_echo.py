"""The whole appliance with its loudspeaker in its microphone's hearing: filters, chirp, and what is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.care import acoustics
from tests.support.house import house, start_of
from tests.support.media_pair import until

ECHO = {"mqtt.enabled": False, "board.microphone": "silence", "board.echo_delay_ms": 85.0, "board.echo_loss_db": 14.0}


async def test_a_board_that_hears_itself_is_treated_and_another_is_not(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, ECHO | {"board.echo_loss_db": 0.0})) as running:
        await running.until(lambda: running.document("media").get("audio"))
        assert running.document("media")["audio"]["processing"]["wanted"] == {
            "aec": False, "ns": "off", "agc": False, "highpass": False, "halfDuplex": "off"}
        assert (await running.give("sim.fault", fault="echo.path", value=10.0))["result"] == "done"
        await running.until(lambda: running.document("media")["audio"]["processing"]["wanted"] == {
            "aec": True, "ns": "low", "agc": False, "highpass": True, "halfDuplex": "auto"})
        await running.until(lambda: running.document("media")["audio"]["processing"]["actual"]["aec"])


async def test_filters_are_told_as_wanted(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, ECHO)) as running:
        answer = await running.give("audio.filters", ns="high", agc=True, halfDuplex="on")
        assert answer["result"] == "done"
        assert answer["data"]["processing"]["wanted"] == {
            "aec": True, "ns": "high", "agc": True, "highpass": True, "halfDuplex": "on"}
        assert (await running.give("audio.filters", ns="loud"))["result"] == "rejected"
        await running.until(lambda: running.document("media")["audio"]["processing"]["wanted"]["agc"])


async def test_push_to_talk_by_command_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acoustics, "TALK_S", 0.5)
    async with house(await start_of(tmp_path, ECHO)) as running:
        voice = running.house.studio.acoustics.voice
        for wanted, words in (("off", "open all the time"), ("on", "the louder side is heard")):
            await running.give("audio.filters", halfDuplex=wanted)
            refused = await running.give("audio.talk")
            assert (refused["result"], refused["code"], refused["subCode"]) == ("rejected", 409, "notPushToTalk")
            assert words in refused["message"] and "halfDuplex pushToTalk" in refused["message"]
            assert not voice.talking
        assert (await running.give("audio.listen"))["result"] == "done", "to let go is never wrong"
        assert (await running.give("audio.filters", halfDuplex="pushToTalk"))["result"] == "done"
        assert (await running.give("audio.talk"))["result"] == "done"
        assert voice.talking
        assert voice.quiet
        await until(lambda: not voice.talking, 3)
        await running.give("audio.talk")
        assert (await running.give("audio.listen"))["result"] == "done"
        assert not voice.talking
        await running.give("sim.input", input="talk", closed=True)
        await until(lambda: voice.talking, 3)
        await running.give("sim.input", input="talk", closed=False)
        await until(lambda: not voice.talking, 3)


async def test_the_chirp_measures_the_path_and_a_restart_remembers_it(tmp_path: Path) -> None:
    async with house(await start_of(tmp_path, ECHO)) as running:
        answer = await running.give("audio.calibrate")
        assert answer["result"] == "done", answer
        found = answer["data"]["echoPath"]
        assert found["delayMs"] == pytest.approx(85, abs=1)
        assert found["echoReturnLoss"] == pytest.approx(14, abs=2)
        assert found["clipped"] is False
        await running.until(lambda: running.document("media")["audio"]["processing"].get("echoPath") == found)
    async with house(await start_of(tmp_path, ECHO)) as running:
        await running.until(lambda: running.document("media").get("audio", {}).get("processing", {}).get("echoPath"))
        assert running.document("media")["audio"]["processing"]["echoPath"] == found
        await running.give("sim.fault", fault="echo.delayMs", value=120.0)
        assert (await running.give("audio.calibrate"))["data"]["echoPath"]["delayMs"] == pytest.approx(120, abs=1)
        assert running.raised("echoDelayChanged")
        await running.give("sim.fault", fault="speaker.mute")
        answer = await running.give("audio.calibrate")
        assert (answer["result"], answer["data"]) == ("done", {"echoPath": None})
        assert running.raised("speakerPathBroken")
        assert not running.raised("echoDelayChanged")
        await running.give("sim.fault", fault="speaker.mute", active=False)
        assert (await running.give("audio.calibrate"))["data"]["echoPath"]["delayMs"] == pytest.approx(120, abs=1)
        assert not running.raised("speakerPathBroken")
