"""Who has the floor, by loudness alone: known schedules, pauses, noise, and how often it changes."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from appliance.calls.speakers import CHANGE_S, Speakers
from appliance.providers.api import Member, Members, Voices
from tests.support.calls import House, settle
from tests.support.clock import virtual_time

STEP_S = 0.25
ROOM_DB = -62.0


def course(levels_at: Callable[[float], Mapping[str, float]], seconds: float) -> list[tuple[float, tuple[str, ...]]]:
    """The ranking after each look."""
    speakers = Speakers()
    found = []
    for number in range(round(seconds / STEP_S)):
        now = number * STEP_S
        speakers.update(levels_at(now), now)
        found.append((now, speakers.ranking))
    return found


def changes(found: list[tuple[float, tuple[str, ...]]]) -> list[float]:
    return [now for (_, before), (now, after) in pairwise(found) if after != before]


def test_three_take_turns_and_the_floor_is_theirs() -> None:
    """Turns of 3 to 6 s, words with pauses of up to 0.5 s, of different loudness, over the noise of three rooms."""
    dice = random.Random(4)
    names = ("anna", "berta", "carl")
    loud = dict(zip(names, (-18.0, -24.0, -30.0), strict=True))
    turns: list[tuple[float, str]] = []
    at = 0.0
    while at < 300:
        turns.append((at, dice.choice([name for name in names if not turns or name != turns[-1][1]])))
        at += dice.uniform(3, 6)

    def who(now: float) -> str:
        return [name for begin, name in turns if begin <= now][-1]

    def levels(now: float) -> Mapping[str, float]:
        pause = math.sin(now * 5) > 0.8
        return {name: loud[name] + dice.uniform(-6, 6) if name == who(now) and not pause
                else ROOM_DB + dice.uniform(-6, 6) for name in names}

    found = course(levels, 300)
    windows = right = 0
    for begin in range(1, 300):
        during = [(now, ranking) for now, ranking in found if begin <= now < begin + 1]
        speaker = who(begin)
        if any(begin - 1 < turn <= begin + 1 for turn, _ in turns):
            continue  # within a second of a change
        windows += 1
        right += all(ranking[:1] == (speaker,) for _, ranking in during)
    assert windows > 100
    assert right / windows >= 0.95, (right, windows)
    for turn, name in turns[1:]:
        if turn < 298:
            assert any(ranking[:1] == (name,) for now, ranking in found if turn <= now <= turn + 1.25), (turn, name)


def test_nothing_changes_more_than_twice_a_second_whatever_is_heard() -> None:
    dice = random.Random(1)
    found = course(lambda _: {str(one): dice.uniform(-60, -10) for one in range(12)}, 120)
    assert all(later - earlier >= CHANGE_S for earlier, later in pairwise(changes(found)))
    assert len(changes(found)) > 10


def test_silence_and_the_noise_of_rooms_change_nothing() -> None:
    dice = random.Random(2)

    def levels(now: float) -> Mapping[str, float]:
        spoken = {"anna": -20.0} if now < 2 else {}
        return {name: dice.uniform(-70, -50) for name in ("anna", "berta", "carl")} | spoken

    found = course(levels, 60)
    assert {ranking for now, ranking in found if now > 1} == {("anna",)}


def test_two_at_once_the_louder_one_has_the_floor_and_keeps_it_at_a_tie() -> None:
    found = course(lambda now: {"anna": -30.0 if now < 4 else -25.0, "berta": -20.0 if now < 4 else -25.0}, 8)
    assert {ranking[0] for now, ranking in found if now > 1} == {"berta"}


def test_who_leaves_is_out_at_once() -> None:
    speakers = Speakers()
    for number in range(8):
        speakers.update({"anna": -20.0, "berta": -40.0}, number * STEP_S)
    assert speakers.ranking == ("anna", "berta")
    assert speakers.update({"berta": -40.0}, 2.0)
    assert (speakers.ranking, speakers.speaking) == (("berta",), {"berta"})


@virtual_time
async def test_the_roster_tells_who_speaks_and_who_has_the_floor(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        joining = house.giving("room.join", target="1234")
        await house.provider.dialled.wait()
        leg = house.provider.legs[-1]
        leg.up()
        await joining
        olga, otto = Member("7", "olga", "Olga", speaking=True), Member("8", "otto", "Otto")
        leg.peer_does(Members((olga, otto)))
        await settle()
        roster = house.bulletin.document("roster")
        assert [one["isSpeaking"] for one in roster["participants"]] == [True, False]  # as the server says
        updated = len(house.posted("call.participant.updated"))
        leg.peer_does(Voices({"7": -127.0, "8": -20.0, "99": -1.0}), Members((olga, otto)))
        await settle()
        roster = house.bulletin.document("roster")
        assert [one["isSpeaking"] for one in roster["participants"]] == [False, True]  # as it is heard
        assert roster["dominantSpeakers"] == ["8"]
        assert len(house.posted("call.participant.updated")) == updated
        told = [{"callId": house.call["callId"], "dominantSpeakers": ["8"]}]
        assert house.posted("call.dominantSpeakersChanged") == told
        await asyncio.sleep(1)
        leg.peer_does(Voices({"7": -127.0, "8": -20.0}), Voices({"7": -127.0, "8": -127.0}))
        await settle()
        assert house.posted("call.dominantSpeakersChanged") == told  # silence and the same one change nothing
        leg.peer_does(Members((olga,)))
        await settle()
        assert house.bulletin.document("roster")["dominantSpeakers"] == []
