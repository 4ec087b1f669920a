"""Keys after the answer: what they are, when they are pressed, and when a meeting has been entered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.book import Entry
from appliance.errors import BadRequest, Refused
from appliance.providers import api
from appliance.providers.sip.dialin import ENTERED_S, WATCHED_S, DialIn
from appliance.providers.sip.keying import PAUSE_S, PROMPT_S, Digits, Ears, Pause, Prompt, sequence_of, steps_of
from appliance.settings import MeetingSettings, Secret
from appliance.vocabulary import END_REASONS, KeyMethod
from tests.support.calls import House, ScriptedLeg, settle
from tests.support.clock import virtual_time
from tests.support.waiting import until
from tests.unit.test_settings_file import faults_of, settings_of

HANGS_UP = api.Ended(END_REASONS["0/remote"])


def meeting(**more: Any) -> MeetingSettings:
    return MeetingSettings(**{"name": "board", "number": "tel:+4969123456", "id": "123456789", **more})


def test_a_sequence_is_digits_pauses_and_prompts() -> None:
    assert steps_of("w12a#,,*w") == (
        Prompt.OVER, Digits("12A#"), Pause(2 * PAUSE_S), Digits("*"), Prompt.OVER)


@pytest.mark.parametrize(("settings", "pressed"), [
    ({}, "w123456789#"), ({"profile": "zoom"}, "w123456789#w#"),
    ({"profile": "zoom", "passcode": Secret("0815")}, "w123456789#w#w0815#"),
    ({"profile": "twilio", "id": ""}, ""), ({"profile": "twilio"}, "w123456789#"),
    ({"profile": "digits", "digits": ",5"}, ",5")])
def test_what_services_ask_for(settings: dict[str, Any], pressed: str) -> None:
    assert sequence_of(meeting(**settings)) == pressed


def test_an_announcement_is_over_after_a_second_of_silence() -> None:
    ears = Ears()
    assert not any(ears.hear(-70, 0.1) for _ in range(100)), "nothing was said yet"
    assert not any(ears.hear(-20, 0.1) for _ in range(20))
    assert not any(ears.hear(-70, 0.1) for _ in range(8)), "between two sentences"
    assert not any(ears.hear(-20, 0.1) for _ in range(20))
    assert [ears.hear(-70, 0.1) for _ in range(11)].count(True) >= 1


class Machine(ScriptedLeg):
    """What answers: it speaks, hears the keys, and does with them what the test says."""

    def __init__(self, number: int, no_keys: Refused | None) -> None:
        super().__init__(f"call-{number}", api.Peer("1", "meeting:board", "board", "pstn"))
        self.loud = False
        self.keys = ""
        self._no_keys = no_keys
        self._since = asyncio.get_running_loop().time()
        self._energy = 0.0

    @property
    def heard_energy(self) -> float:
        now = asyncio.get_running_loop().time()
        self._energy += (now - self._since) * (0.01 if self.loud else 0.0)
        self._since = now
        return self._energy

    def speaks(self, loud: bool) -> None:
        _ = self.heard_energy
        self.loud = loud

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        if self._no_keys is not None:
            raise self._no_keys
        await asyncio.sleep(2 * seconds * len(digits))
        self.keys += digits


class At:
    """A leg, the machines it called, and what it told."""

    def __init__(self, text: str, *, meeting: bool = True, no_keys: Refused | None = None) -> None:
        self.machines: list[Machine] = []
        self.told: list[api.LegEvent] = []

        def call() -> Machine:
            self.machines.append(Machine(len(self.machines), no_keys))
            return self.machines[-1]

        self.leg = DialIn("leg", call, steps_of(text), meeting=meeting)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.leg.events():
            self.told.append(event)

    async def answers(self, number: int = 0) -> Machine:
        await self.until(lambda: len(self.machines) > number)
        self.machines[number].up()
        await settle()
        return self.machines[number]

    async def until(self, condition: Callable[[], Any], within_s: float = 60.0) -> None:
        await until(condition, f"{self.told}", within_s)

    def kinds(self) -> Sequence[type[api.LegEvent]]:
        return [type(one) for one in self.told]

    async def over(self) -> str:
        await self._reading
        assert isinstance(self.told[-1], api.Ended)
        return self.told[-1].reason.key


@virtual_time
async def test_a_meeting_is_entered_when_its_keys_were_taken() -> None:
    at = At("w123#")
    machine = await at.answers()
    machine.speaks(True)
    await asyncio.sleep(5)
    assert machine.keys == "", "it is still speaking"
    machine.speaks(False)
    await asyncio.sleep(0.8)
    assert machine.keys == ""
    await at.until(lambda: machine.keys == "123#", 2)
    assert at.kinds() == [api.EarlyMedia], "what answers is a machine"
    began = asyncio.get_running_loop().time()
    await at.until(lambda: api.Connected in at.kinds())
    assert asyncio.get_running_loop().time() - began == pytest.approx(ENTERED_S, abs=0.2)
    assert at.kinds() == [api.EarlyMedia, api.Accepted, api.Connected]
    machine.peer_does(api.Pressed("5"), HANGS_UP)
    assert await at.over() == "0/remote"
    assert at.kinds()[-2] is api.Pressed
    assert len(at.machines) == 1, "a meeting that is over is not entered again"


@virtual_time
async def test_one_that_says_nothing_gets_its_keys_all_the_same() -> None:
    at = At("w123#")
    machine = await at.answers()
    await asyncio.sleep(PROMPT_S - 1)
    assert machine.keys == ""
    await at.until(lambda: machine.keys == "123#", 3)
    await at.leg.end(END_REASONS["0/local"])
    assert await at.over() == "0/local"


@pytest.mark.parametrize("after_s", [0.5, ENTERED_S - 1])
@virtual_time
async def test_a_number_that_is_not_taken_is_tried_once_more(after_s: float) -> None:
    at = At("123#")
    for number in range(2):
        machine = await at.answers(number)
        await at.until(lambda machine=machine: machine.keys == "123#")
        await asyncio.sleep(after_s)
        machine.peer_does(HANGS_UP)
    assert await at.over() == "403/wrongMeetingId"
    assert len(at.machines) == 2
    assert at.kinds() == [api.EarlyMedia, api.EarlyMedia, api.Ended]


@virtual_time
async def test_the_second_try_may_enter() -> None:
    at = At("123#")
    (await at.answers(0)).peer_does(HANGS_UP)
    machine = await at.answers(1)
    await at.until(lambda: api.Connected in at.kinds())
    assert machine.keys == "123#"
    assert at.machines[0].keys == ""
    await at.leg.end(END_REASONS["0/local"])
    assert await at.over() == "0/local"
    assert machine.ended == END_REASONS["0/local"]


async def say(machine: Machine, *seconds: float) -> None:
    """Sound and silence, in turns."""
    for number, part in enumerate(seconds):
        machine.speaks(number % 2 == 0)
        await asyncio.sleep(part)
    machine.speaks(False)


ASKS, WELCOMES = (1.0, 0.4, 0.7, 0.3, 1.2), (0.5, 0.4, 1.7, 0.3, 0.4, 0.2, 0.3)


@virtual_time
async def test_a_service_that_asks_again_is_not_a_meeting() -> None:
    """Its words are pressed once more, and then it is over; the call is not answered."""
    at = At("w123#")
    machine = await at.answers()
    for tries in (1, 2):
        await say(machine, *ASKS)
        await at.until(lambda tries=tries: machine.keys == "123#" * tries, 3)
        await asyncio.sleep(0.5)
    await say(machine, 0.4, 0.6, *ASKS)
    assert await at.over() == "403/wrongMeetingId"
    assert machine.keys == "123#123#"
    assert machine.ended == END_REASONS["403/wrongMeetingId"]
    assert at.kinds() == [api.EarlyMedia, api.Ended]
    assert len(at.machines) == 1


@virtual_time
async def test_one_that_asks_again_may_take_the_second_try() -> None:
    at = At("w123#")
    machine = await at.answers()
    for tries in (1, 2):
        await say(machine, *ASKS)
        await at.until(lambda tries=tries: machine.keys == "123#" * tries, 3)
    await say(machine, *WELCOMES)
    await at.until(lambda: api.Connected in at.kinds(), 10)
    assert machine.keys == "123#123#"
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


@virtual_time
async def test_of_several_questions_that_is_answered_which_is_asked_again() -> None:
    at = At("w123#w77#")
    machine = await at.answers()
    await say(machine, *ASKS)
    await at.until(lambda: machine.keys == "123#", 3)
    await say(machine, *WELCOMES)
    await at.until(lambda: machine.keys == "123#77#", 3)
    await say(machine, 0.4, 0.5, *WELCOMES)
    await at.until(lambda: machine.keys == "123#77#77#", 10)
    await at.until(lambda: api.Connected in at.kinds(), 20)
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


@virtual_time
async def test_without_a_prompt_in_the_sequence_it_is_known_all_the_same() -> None:
    at = At(",,,123#")
    machine = await at.answers()
    await say(machine, *ASKS)
    await at.until(lambda: machine.keys == "123#", 8)
    await say(machine, *ASKS)
    await at.until(lambda: machine.keys == "123#123#", 10)
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


@virtual_time
async def test_people_who_talk_all_the_time_do_not_keep_us_outside() -> None:
    at = At("w123#")
    machine = await at.answers()
    await say(machine, *ASKS)
    await at.until(lambda: machine.keys == "123#", 3)
    machine.speaks(True)
    began = asyncio.get_running_loop().time()
    await at.until(lambda: api.Connected in at.kinds(), 30)
    assert asyncio.get_running_loop().time() - began == pytest.approx(WATCHED_S, abs=0.3)
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


@virtual_time
async def test_in_a_call_that_is_no_meeting_nothing_is_pressed_twice() -> None:
    at = At("w21", meeting=False)
    machine = await at.answers()
    await say(machine, *ASKS)
    await at.until(lambda: machine.keys == "21", 3)
    await say(machine, *ASKS)
    await asyncio.sleep(20)
    assert machine.keys == "21"
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


@pytest.mark.parametrize("key", ["486/busy", "480/unreachable", "410/oneWayMedia"])
@virtual_time
async def test_one_that_is_not_reached_is_not_tried_again(key: str) -> None:
    at = At("123#")
    at.machines[0].peer_does(api.Ringing(), api.Ended(END_REASONS[key]))
    assert await at.over() == key
    assert at.kinds() == [api.Ringing, api.Ended]


@virtual_time
async def test_hung_up_by_us_in_between_it_is_over() -> None:
    at = At("w123#")
    machine = await at.answers()
    await at.leg.end(END_REASONS["487/cancelled"])
    assert await at.over() == "487/cancelled"
    assert (len(at.machines), machine.keys) == (1, "")


@virtual_time
async def test_a_peer_that_takes_no_keys_ends_it_with_the_reason() -> None:
    at = At("123#", no_keys=Refused("the other side takes no digits", code=488, sub_code="noCodec"))
    await at.answers()
    assert await at.over() == "488/noCodec"
    reason = at.told[-1].reason  # type: ignore[union-attr]
    assert "takes no digits" in reason.message


@virtual_time
async def test_an_extension_is_dialled_in_a_call_that_is_up() -> None:
    at = At(",21", meeting=False)
    machine = await at.answers()
    assert at.kinds() == [api.Accepted, api.Connected]
    await at.until(lambda: machine.keys == "21", 4)
    machine.peer_does(HANGS_UP)
    assert await at.over() == "0/remote"
    assert len(at.machines) == 1


@virtual_time
async def test_one_whose_number_asks_for_nothing_is_entered_at_once() -> None:
    at = At("")
    await at.answers()
    assert at.kinds() == [api.EarlyMedia, api.Accepted, api.Connected]
    await at.leg.end(END_REASONS["0/local"])
    await at.over()


# --- by command


@virtual_time
async def test_digits_go_to_the_telephones_of_a_plan(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[Entry("Both", ("operator:desk", "tel:+4930123456"))]) as house:
        dialling = house.giving("call.dial", to="Both", digits="w21#")
        while not house.provider.legs:
            await settle()
        house.provider.legs[0].peer_does(api.Ended(END_REASONS["486/busy"]))
        while len(house.provider.legs) < 2:
            await settle()
        house.provider.legs[1].up()
        await dialling
        assert [one.digits for one in house.provider.targets] == ["", "w21#"]
        assert "w21#" not in repr(house.provider.targets)
    async with House(tmp_path) as house:
        with pytest.raises(BadRequest, match="no telephone"):
            await house.give("call.dial", to="operator:desk", digits="1")


def test_a_meeting_of_the_settings() -> None:
    text = ("[[sip.accounts]]\nname = 'pbx'\naddress = 'sip:1001@pbx.example.org'\n"
            "[[sip.meetings]]\nname = 'board'\nnumber = 'tel:+4969123456'\nid = '123456789'\n"
            "[[book]]\nname = 'Board'\nuris = ['meeting:board']\n")
    (found,) = settings_of(text).sip.meetings
    assert (found.profile, found.id) == ("teams", "123456789")
    for wrong, fault in (
        (text.replace("id = '123456789'\n", ""), "teams asks for it"),
        (text.replace("123456789", "123 456"), "at most 32 digits"),
        (text.replace("id =", "digits = 'w1#'\nid ="), "has an effect only with profile"),
        (text.replace("id =", "profile = 'digits'\nid ="), "digits: is missing"),
        (text.replace("tel:+4969123456", "device:x"), "must be tel:NUMBER"),
        (text.replace("meeting:board", "meeting:other"), "is no name of [[sip.meetings]]"),
        (text.partition("[[sip.meetings]]")[1] + text.partition("[[sip.meetings]]")[2], "called through one"),
    ):
        faults = faults_of(wrong)
        assert any(fault in one for one in faults), (fault, faults)
