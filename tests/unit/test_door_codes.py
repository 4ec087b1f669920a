"""The door by keys of a telephone: what opens it, and everything that does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.book import Entry
from appliance.doors.codes import LOCK_S, LOCKED_MOST_S, PAUSE_S, WRONG
from appliance.doors.digits import DigitDoor
from appliance.providers.api import Peer, Pressed
from appliance.settings import CodeSettings, DoorSettings, Secret
from appliance.vocabulary import Answer, Command, Direction, Json, KeyMethod, KeyPress, Origin, Result
from tests.support.calls import House, settle
from tests.support.clock import virtual_time
from tests.unit.test_settings_file import faults_of, settings_of

PIN = "4711"
DESK = "sip:desk@pbx.example.org"


def rule(name: str = "caretaker", **more: Any) -> CodeSettings:
    return CodeSettings(**{"name": name, "relay": "door", "direction": "outgoing", "peers": ("Reception",),
                           "pin": Secret(PIN), **more})


class At:
    """A door, what it gave to the intake and told, and the time in the test's hand."""

    def __init__(self, *rules: CodeSettings) -> None:
        self.now = 50.0
        self.commands: list[Command] = []
        self.told: list[Json] = []
        self.refused: list[tuple[str, str]] = []
        self.tampered: list[tuple[float, str]] = []
        self.answer = Answer("x", Result.DONE)
        self.kept = ["{}"]
        self._rules = rules
        self.restart()

    def restart(self) -> None:
        """As the device does; its time begins anew."""
        self.now = 50.0
        self.door = DigitDoor(
            self, DoorSettings(codes=self._rules), told=self.told.append, monotonic=lambda: self.now,
            refused=lambda *what: self.refused.append(what), tampered=lambda *what: self.tampered.append(what),
            keep=self.kept.append)
        self.door.recall(self.kept[-1])

    # as the intake

    async def submit(self, command: Command) -> Answer:
        self.commands.append(command)
        return self.answer

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        raise AssertionError("nobody waits")

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None: ...

    # as the other side

    async def press(self, keys: str, *, pause_s: float = 0.3, call: str = "call-1", incoming: bool = False,
                    name: str = "Reception", verified: bool = True, encrypted: bool = True,
                    method: KeyMethod = KeyMethod.EVENTS) -> Sequence[bool]:
        """Press keys; what of each may be told."""
        direction = Direction.INCOMING if incoming else Direction.OUTGOING
        tellable = []
        for digit in keys:
            self.now += pause_s
            tellable.append(self.door.press(
                KeyPress(call, digit, direction, "desk", DESK, name, verified, encrypted, method)))
        await asyncio.gather(*self.door._tasks)
        return tellable

    @property
    def why(self) -> list[str]:
        return [one["subCode"] for one in self.told]

    @property
    def opened(self) -> int:
        return len(self.commands)


async def test_code_and_pin_close_the_relay_and_are_told_without_the_pin() -> None:
    at = At(rule(code="*1", seconds=2.5))
    assert await at.press("*1" + PIN) == [False] * 6, "nobody is told what may be a PIN"
    assert at.opened == 0
    await at.press("#")
    command, = at.commands
    assert (command.verb.name, dict(command.args)) == ("io.set", {"relay": "door", "seconds": 2.5})
    assert (command.origin, command.sender) == (Origin.DIGITS, "caretaker")
    assert at.told == [{"callId": "call-1", "rule": "caretaker", "relay": "door", "rawId": "desk", "result": "done",
                        "code": 0, "subCode": "", "message": ""}]
    assert (at.refused, at.tampered) == ([], [])
    assert PIN not in json.dumps(at.told)


async def test_what_the_relay_says_is_told() -> None:
    at = At(rule())
    at.answer = Answer("x", Result.REJECTED, 404, "notFound", message="there is no relay 'door'")
    await at.press(PIN + "#")
    (told,) = at.told
    assert (told["result"], told["subCode"], told["message"]) == ("rejected", "notFound", "there is no relay 'door'")


@pytest.mark.parametrize("keys", ["4712#", "471#", "47111#", "4711", "A#"])
async def test_another_pin_does_not(keys: str) -> None:
    at = At(rule())
    await at.press(keys)
    assert at.opened == 0
    assert at.why == (["wrongPin"] if keys.endswith("#") else [])
    assert at.refused == ([("wrongPin", "desk")] if keys.endswith("#") else [])


async def test_a_pause_or_a_star_begins_anew() -> None:
    at = At(rule())
    await at.press("99")
    at.now += PAUSE_S + 1
    await at.press("47*" + PIN + "#")
    assert at.opened == 1


async def test_what_was_pressed_in_another_call_counts_for_nothing() -> None:
    at = At(rule())
    await at.press("47", call="call-1")
    await at.press("11#", call="call-2")
    assert at.opened == 0


async def test_five_wrong_pins_lock_the_rule_for_ever_longer_until_the_right_one() -> None:
    at = At(rule())
    lock_s = LOCK_S
    for _ in range(8):
        for _ in range(WRONG):
            await at.press("0000#", pause_s=1)
        assert at.tampered[-1] == (lock_s, "caretaker")
        before = at.opened
        at.now += lock_s - 20
        await at.press(PIN + "#", call="call-2")
        assert (at.opened, at.why[-1]) == (before, "locked")
        at.now += 20
        lock_s = min(2 * lock_s, LOCKED_MOST_S)
    assert lock_s == LOCKED_MOST_S
    await at.press(PIN + "#")
    assert at.opened == 1
    for _ in range(WRONG):
        await at.press("0000#")
    assert at.tampered[-1] == (LOCK_S, "caretaker"), "the right one has set it back"


async def test_a_restart_forgets_no_wrong_pin() -> None:
    at = At(rule(), rule("cleaner", pin=Secret("0815")))
    await at.press("0000#" * (WRONG - 1))
    at.restart()
    assert (at.why.count("wrongPin"), at.tampered) == (WRONG - 1, [])
    await at.press("0000#")
    assert at.tampered == [(LOCK_S, "caretaker")]
    at.now += LOCK_S - 1
    at.restart()
    assert at.tampered[1:] == [(LOCK_S, "caretaker"), (LOCK_S, "cleaner")], "each begins anew, and is told"
    at.now += LOCK_S - 3
    await at.press(PIN + "#")
    assert (at.opened, at.why[-1]) == (0, "locked")
    at.now += 3
    for _ in range(WRONG):
        await at.press("0000#")
    assert at.tampered[-1] == (2 * LOCK_S, "caretaker"), "for longer than before the restart"
    at.now += 2 * LOCK_S
    await at.press(PIN + "#")
    await at.press("0815#")
    assert at.opened == 2
    assert at.kept[-1] == "{}"
    at.restart()
    await at.press("0000#" * (WRONG - 1))
    assert at.tampered[-1][0] == 2 * LOCK_S, "nothing has been added to it"


@virtual_time
async def test_a_lock_that_is_over_does_not_come_back_with_a_restart() -> None:
    at = At(rule())
    await at.press("0000#" * WRONG)
    at.now += LOCK_S + 1
    await asyncio.sleep(LOCK_S + 1)
    at.restart()
    assert len(at.tampered) == 1
    await at.press("0000#" * WRONG)
    assert at.tampered[1] == (2 * LOCK_S, "caretaker"), "nobody has given the right one meanwhile"
    await at.door.stop()
    await at.door.stop()


@pytest.mark.parametrize("kept", ["", "{", "7", "[]", '{"caretaker": 3}', '{"caretaker": [-1, 60, 0]}',
                                  '{"caretaker": [0, 60, 1e12]}', '{"caretaker": [9, 60, 0]}', '{"x": ["a", 60, 0]}'])
async def test_what_was_kept_and_cannot_be_read_is_left_out(kept: str, caplog: pytest.LogCaptureFixture) -> None:
    at = At(rule())
    at.kept.append(kept)
    at.restart()
    assert "cannot be read" in caplog.text
    await at.press(PIN + "#")
    assert at.opened == 1


async def test_keys_that_change_nothing_are_not_written() -> None:
    at = At(rule())
    await at.press(f"{PIN}#{PIN}#12")
    assert (at.opened, at.kept) == (2, ["{}"])


async def test_a_right_pin_does_not_set_back_another_rule() -> None:
    """Who has one PIN must not be able to guess the others'."""
    at = At(rule("gate", code="2", pin=Secret("1234"), relay="gate"), rule())
    for _ in range(WRONG - 1):
        await at.press("20000#")
    await at.press(PIN + "#")
    assert at.opened == 1
    await at.press("20000#")
    assert ("gate" in {name for _, name in at.tampered}), at.tampered


async def test_a_wrong_pin_is_counted_for_each_it_might_have_been_and_the_right_one_opens() -> None:
    at = At(rule("anna", pin=Secret("1111")), rule("bert", pin=Secret("2222"), relay="gate"))
    await at.press("2222#")
    assert at.commands[0].args["relay"] == "gate"
    for _ in range(WRONG):
        await at.press("3333#")
    await at.press("1111#")
    await at.press("2222#")
    assert at.opened == 1
    assert at.why[-2:] == ["locked", "locked"]


async def test_a_code_without_a_pin_acts_at_once_and_is_no_secret() -> None:
    at = At(rule(pin=Secret(), without_pin=True, code="5"))
    assert await at.press("35") == [True, True], "a slip of the finger does no harm"
    assert at.opened == 1
    await at.press("5")
    assert at.opened == 2
    assert at.why == ["", ""]


@pytest.mark.parametrize(("how", "why"), [
    ({"encrypted": False}, "notEncrypted"), ({"incoming": True, "verified": False}, "notVerified")])
async def test_a_call_that_may_not_learns_nothing_of_the_pin(how: dict[str, Any], why: str) -> None:
    at = At(rule(direction="both"))
    for pin in (PIN, *["0000"] * (WRONG + 1)):
        await at.press(pin + "#", **how)
    assert at.opened == 0
    assert set(at.why) == {why}
    assert at.tampered == []
    message = at.told[0]["message"]
    assert "allow_plain" in message or "trust_caller_id" in message
    await at.press(PIN + "#")
    assert at.opened == 1


async def test_tones_move_nothing_and_are_told_to_nobody() -> None:
    at = At(rule(allow_plain=True), rule("five", pin=Secret(), without_pin=True, code="*5", allow_plain=True))
    assert await at.press(f"{PIN}#*5", method=KeyMethod.TONES) == [False] * 7
    assert (at.opened, at.told, at.refused) == (0, [], [])
    await at.press(PIN, method=KeyMethod.TONES)
    await at.press("#")
    assert at.opened == 0, "not a part of it either"
    await at.press(PIN + "#", method=KeyMethod.INFO)
    assert at.opened == 1


@pytest.mark.parametrize("how", [{"name": "Somebody"}, {"incoming": True}])
async def test_whom_the_rule_does_not_name_it_does_not_concern(how: dict[str, Any]) -> None:
    at = At(rule())
    assert await at.press(PIN + "#", **how) == [True] * 5
    assert (at.opened, at.told, at.refused) == (0, [], [])


@pytest.mark.parametrize(("peers", "how"), [
    ((DESK,), {"name": ""}), (("reception",), {}), (("*",), {"name": "", "verified": False, "incoming": True})])
async def test_peers_are_names_addresses_or_everybody_who_knows_the_pin(
    peers: tuple[str, ...], how: dict[str, Any],
) -> None:
    at = At(rule(peers=peers, direction="both"))
    await at.press(PIN + "#", **how)
    assert at.opened == 1


async def test_plain_calls_may_where_the_rule_says_so() -> None:
    at = At(rule(allow_plain=True))
    await at.press(PIN + "#", encrypted=False)
    assert at.opened == 1


async def test_whoever_presses_all_day_does_not_wear_the_flash() -> None:
    at = At(rule())
    for _ in range(1000):
        await at.press("1#", pause_s=0.01)
    assert len(at.told) < 40
    assert at.opened == 0


# --- in a call


def phone_house(folder: Path, *rules: CodeSettings, verified: bool = True) -> tuple[House, At, Peer]:
    house = House(folder, entries=[Entry("Reception", (DESK,))], allow_unknown=True)
    at = At(*rules)
    house.controller.on_key = at.door.press
    return house, at, Peer("desk", DESK, "Reception", "pstn", verified=verified)


async def test_keys_of_a_call_that_is_not_answered_yet_do_nothing(tmp_path: Path) -> None:
    house, at, peer = phone_house(tmp_path, rule(direction="incoming"))
    async with house:
        leg = house.provider.call_in(peer)
        leg.peer_does(*(Pressed(digit, True) for digit in PIN + "#"))
        await settle()
        assert (at.opened, at.told, house.posted("call.dtmf.received")) == (0, [], [])
        answering = house.giving("call.answer")
        await settle()
        leg.up()
        await answering
        leg.peer_does(*(Pressed(digit, True) for digit in PIN + "#"))
        await settle()
        assert at.opened == 1
        assert [one["digit"] for one in house.posted("call.dtmf.received")] == [None] * 5


@pytest.mark.parametrize("name", ["Reception", "reception"])
async def test_a_name_that_a_caller_gives_itself_is_none_of_the_book(tmp_path: Path, name: str) -> None:
    house, at, _ = phone_house(tmp_path, rule(direction="incoming"))
    async with house:
        leg = house.provider.call_in(Peer("thief", "sip:thief@pbx.example.org", name, "pstn", verified=True))
        answering = house.giving("call.answer")
        await settle()
        leg.up()
        await answering
        leg.peer_does(*(Pressed(digit, True) for digit in PIN + "#"))
        await settle()
        assert at.opened == 0


# --- settings

RULE = "[[door.codes]]\nname = 'caretaker'\nrelay = 'door'\ndirection = 'both'\npeers = ['Reception']\n"
FIVE = "without_pin = true\ncode = '5'\n"


def test_a_rule_of_the_settings(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    (code,) = settings_of(f"{RULE}pin_file = '{pin}'\n").door.codes
    assert (code.pin.reveal(), code.direction, code.allow_plain, code.without_pin) == (PIN, "both", False, False)


@pytest.mark.parametrize(("text", "fault"), [
    (RULE, "pin_file: is missing"),
    (RULE + "without_pin = true\n", "code: is missing"),
    (RULE + "without_pin = true\ncode = '1*'\n", "at most 16 keys"),
    (RULE.replace("'both'", "'sideways'") + FIVE, "must be one of outgoing"),
    (RULE.replace("['Reception']", "[]") + FIVE, "names nobody"),
    (RULE.replace("['Reception']", "['*']") + FIVE, "who then needs a PIN"),
    (RULE.replace("Reception", "tel:030123456") + FIVE, "is a national number"),
    (f"{RULE}{FIVE}{RULE.replace('caretaker', 'other')}{FIVE.replace('5', '56')}", "cannot be told apart")])
def test_what_is_wrong_with_a_rule_is_said(text: str, fault: str) -> None:
    found = faults_of(text)
    assert any(fault in one for one in found), found


@pytest.mark.parametrize(("pin", "fault"), [("471", "4 to 12 digits"), ("47a1", "4 to 12 digits")])
def test_a_pin_is_digits(tmp_path: Path, pin: str, fault: str) -> None:
    path = tmp_path / "pin"
    path.write_text(pin)
    path.chmod(0o600)
    found = faults_of(f"{RULE}pin_file = '{path}'\n")
    assert any(fault in one for one in found), found


def test_rules_of_different_people_may_share_a_code() -> None:
    other = RULE.replace("caretaker", "other").replace("Reception", "Caretaker")
    assert len(settings_of(f"{RULE}{FIVE}{other}{FIVE}").door.codes) == 2
