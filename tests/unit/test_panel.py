"""The panel door over the simulated panel, in virtual time: pins go down, commands come out; documents change, lamps
follow."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics
from appliance.doors import panel as door_module
from appliance.doors.panel import CALL_LAMP, DOUBLE, FAST, OFF, ON, PULSE, SLOW, PanelDoor, without_panel
from appliance.errors import EdgecallError, Refused
from appliance.settings import BoardSettings, CallSettings
from appliance.vocabulary import VERB, Answer, CallState, Command, Event, Json, Origin, Result, Scope
from hw import contacts
from hw.api import Fault, Panel, Press, PressKind
from hw.faults import FaultLine
from hw.sim.panel import SIM_WIRING, SimPanel
from tests.support.clock import virtual_time
from tests.support.http_door import Desk
from tests.support.loop_pace import LoopPace

pytestmark = pytest.mark.usefixtures("never_blocks")
LONG_S = 1.0
SHORT_S = 0.3
LIVE = (CallState.CONNECTING, CallState.RINGING, CallState.EARLY_MEDIA, CallState.CONNECTED, CallState.LOCAL_HOLD,
        CallState.REMOTE_HOLD, CallState.RECONNECTING)


class Front:
    """A door with its panel, and what a person standing there sees."""

    def __init__(self, panel: Panel, **settings: Any) -> None:
        if isinstance(panel, SimPanel):
            self.panel = panel
        self.desk = Desk()
        self.bulletin = Bulletin("boot-1")
        self.diagnostics = Diagnostics(self.bulletin)
        self.screen: list[tuple[str, str]] = []
        self.hardware_mute: list[bool] = []
        self.talk: list[bool] = []
        self.events: list[Event] = []
        self.faults: queue.Queue[Fault] = queue.Queue()
        self.changed = asyncio.Event()
        self.door = PanelDoor(panel, self.desk, self.bulletin, settings=CallSettings(**settings),
                              show=self._show, blank=lambda: self._show("", "dark"),
                              board=BoardSettings(), on_talk=self.talk.append,
                              on_hardware_mute=self.hardware_mute.append, flag=self.diagnostics.flag)

    def _show(self, banner: str, hint: str) -> None:
        self.screen.append((banner, hint))
        self.changed.set()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], Any], within_s: float = 120.0) -> None:
        """Looked at whenever a document, an event or the screen has changed."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def call(self, state: CallState, **more: Any) -> None:
        self.bulletin.set("call", {"callId": "call-1", "state": state.value, "isMuted": False, "endReason": None,
                                   "callerInfo": {"displayName": "Lena", "uri": "operator:lena"}, **more})

    def pattern(self, lamp: str) -> list[list[float | bool]]:
        shown: list[list[float | bool]] = self.bulletin.document("io")["lamps"][lamp]["pattern"]
        return shown

    def lit(self, lamp: str, pattern: door_module.Pattern) -> bool:
        return self.pattern(lamp) == [list(step) for step in pattern]

    def posted(self, kind: str) -> list[Json]:
        return [event.data for event in self.events if event.type == kind]

    async def press(self, seconds: float, button: str = "call") -> Command:
        """Press and let go; the command that came of it."""
        before, ups = len(self.desk.commands), self.ups()
        self.panel.press(button, seconds)
        found = (await self.desk.given(before + 1))[-1]
        await self.until(lambda: self.ups() > ups)
        return found

    async def fault(self) -> Fault:
        """The next one; they come on a thread, for which no clock waits but during a job."""
        return await asyncio.to_thread(self.faults.get, timeout=5.0)

    def ups(self) -> int:
        """Presses whose kind is known."""
        return len(self.posted("io.released")) + len(self.posted("io.held"))


@asynccontextmanager
async def standing_at(**settings: Any) -> AsyncIterator[Front]:
    loop = asyncio.get_running_loop()
    faults = FaultLine()
    panel = SimPanel(LONG_S, faults, pace=LoopPace(loop))
    front = Front(panel, **settings)

    def told(fault: Fault) -> None:
        loop.call_soon_threadsafe(front.diagnostics.fault, fault)
        front.faults.put(fault)

    faults.listen(told)
    with front.bulletin.subscribed(on_document=lambda *_: front.changed.set(), on_event=front.tell):
        running = asyncio.create_task(front.door.run(), name="door")
        try:
            await front.until(lambda: "io" in front.bulletin.snapshot().documents and front.screen)
            yield front
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            front.diagnostics.close()
            await asyncio.to_thread(panel.close)
            await asyncio.to_thread(faults.close)


@virtual_time
async def test_a_press_without_a_call_dials_the_target_and_a_long_one_the_other() -> None:
    async with standing_at(button_target="Reception", long_press_target="tel:+4930123456") as front:
        short = await front.press(SHORT_S)
        assert (short.verb.name, short.args) == ("call.dial", {"to": "Reception"})
        assert (short.origin, short.ttl_s) == (Origin.PANEL, VERB["call.dial"].max_ttl_s)
    async with standing_at(button_target="Reception", long_press_target="tel:+4930123456") as front:
        front.call(CallState.DISCONNECTED)
        assert (await front.press(LONG_S + 0.2)).args == {"to": "tel:+4930123456"}


@virtual_time
async def test_a_long_press_without_a_second_target_dials_the_first() -> None:
    async with standing_at(button_target="operator:*") as front:
        assert (await front.press(LONG_S + 0.2)).args == {"to": "operator:*"}


@virtual_time
async def test_changed_targets_hold_from_the_next_press_on() -> None:
    async with standing_at(button_target="operator:*") as front:
        front.door.reconfigure(CallSettings(button_target="device:lobby-2"), BoardSettings())
        assert (await front.press(SHORT_S)).args == {"to": "device:lobby-2"}


@pytest.mark.parametrize(("state", "button", "verb"), [
    (CallState.NONE, "call", "call.dial"), (CallState.DISCONNECTED, "call", "call.dial"),
    (CallState.CONNECTED, "call", "call.hangup"), (CallState.RINGING, "call", "call.hangup"),
    (CallState.CONNECTED, "mute", "call.mute")])
@virtual_time
async def test_where_a_long_press_means_nothing_else_the_button_acts_as_it_goes_down_and_once(
        state: CallState, button: str, verb: str) -> None:
    async with standing_at() as front:
        front.call(state)
        front.panel.press(button, LONG_S + 0.2)
        assert (await front.desk.given(1))[0].verb.name == verb
        assert front.ups() == 0
        assert front.bulletin.document("io")["buttons"][button] == {"pressed": True}
        front.call(CallState.CONNECTED)  # what it did shows before it is let go
        await front.until(front.ups)
        front.bulletin.merge("device", name="Door")
        assert len(front.desk.commands) == 1


@virtual_time
async def test_what_a_press_means_is_settled_when_the_button_goes_down() -> None:
    async with standing_at() as front:
        front.call(CallState.INCOMING)
        front.panel.press("call", LONG_S / 2)
        await front.until(lambda: front.posted("io.pressed"))
        front.call(CallState.DISCONNECTED)  # the caller gives up
        command = (await front.desk.given(1))[0]
        assert (command.verb.name, command.args) == ("call.answer", {"callId": "call-1"}), "and nobody is dialled"


@virtual_time
async def test_somebody_who_drums_on_the_button_starts_one_call() -> None:
    async with standing_at() as front:
        await front.press(SHORT_S)
        for count in range(2, 5):
            front.panel.press("call", SHORT_S)
            await front.until(lambda count=count: len(front.posted("io.released")) == count)
        assert [command.verb.name for command in front.desk.commands] == ["call.dial"]
        assert front.screen[-1] == ("One moment, please", "Press again in a moment")


@virtual_time
async def test_an_incoming_call_is_answered_by_a_press_and_declined_by_a_long_one() -> None:
    async with standing_at() as front:
        front.call(CallState.INCOMING)
        answer = await front.press(SHORT_S)
        assert (answer.verb.name, answer.args) == ("call.answer", {"callId": "call-1"})
        reject = await front.press(LONG_S + 0.2)
        assert (reject.verb.name, reject.args) == ("call.reject", {"callId": "call-1"})
        assert "reason" not in reject.args, "declined is what the verb says by itself"


@virtual_time
async def test_in_a_call_a_press_hangs_up() -> None:
    async with standing_at() as front:
        for state in LIVE:
            front.call(state)
            command = await front.press(SHORT_S)
            assert (command.verb.name, command.args) == ("call.hangup", {"callId": "call-1"}), state
        front.call(CallState.DISCONNECTING)
        released = len(front.posted("io.released"))
        front.panel.press("call", SHORT_S)
        await front.until(lambda: len(front.posted("io.released")) > released)
        assert front.desk.commands[-1] is command, "a call that ends already is left alone"


@pytest.mark.parametrize("state", [CallState.CONNECTED, CallState.RINGING])
@virtual_time
async def test_in_a_call_a_long_press_hangs_up_as_well(state: CallState) -> None:
    async with standing_at(long_press_target="device:lobby-2") as front:
        front.call(state)
        command = await front.press(LONG_S + 0.2)
        assert (command.verb.name, command.args) == ("call.hangup", {"callId": "call-1"})


@pytest.mark.parametrize("state", [CallState.CONNECTED, CallState.INCOMING, CallState.RINGING])
@virtual_time
async def test_a_long_press_calls_the_help_point_also_in_a_call(state: CallState) -> None:
    async with standing_at(long_press_target="Help point", emergency_target="Help point") as front:
        front.call(CallState.CONNECTED, isEmergency=True, security={"verified": False})
        assert front.screen[-1] == ("Lena", "Emergency call · not encrypted")
        assert (await front.press(SHORT_S)).verb.name == "call.hangup", "in its own call it is not called again"
        front.call(state)
        command = await front.press(LONG_S + 0.2)
        assert (command.verb.name, command.args) == ("call.dial", {"to": "Help point"})


@virtual_time
async def test_somebody_who_drums_on_the_button_reaches_the_help_point() -> None:
    async with standing_at(long_press_target="Help point", emergency_target="Help point") as front:
        await front.press(SHORT_S)
        assert (await front.press(LONG_S + 0.2)).args == {"to": "Help point"}


@virtual_time
async def test_the_mute_button_mutes_and_unmutes_in_a_call_only() -> None:
    async with standing_at() as front:
        front.panel.press("mute", SHORT_S)
        await front.until(lambda: front.posted("io.released"))
        assert front.desk.commands == []
        front.call(CallState.CONNECTED)
        assert (await front.press(SHORT_S, "mute")).verb.name == "call.mute"
        front.call(CallState.CONNECTED, isMuted=True)
        assert front.lit("mute", ON)
        unmute = await front.press(SHORT_S, "mute")
        assert (unmute.verb.name, unmute.ttl_s) == ("call.unmute", 5)


class OneButton:
    """A panel with nothing but a button for attention."""

    buttons = ("hand",)
    inputs: tuple[str, ...] = ()
    lamps: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    press: Callable[[Press], None]

    def listen(self, on_press: Callable[[Press], None]) -> None:
        self.press = on_press

    def light(self, lamp: str, pattern: Sequence[tuple[float, bool]]) -> None: ...

    def lit(self, lamp: str) -> bool:
        return False

    def switch(self, relay: str, seconds: float) -> None: ...

    def closed(self, relay: str) -> bool:
        return False


@virtual_time
async def test_a_button_asks_the_others_for_attention_and_no_longer() -> None:
    panel = OneButton()
    front = Front(panel)
    task = asyncio.create_task(front.door.run(), name="test.panel")
    await asyncio.sleep(0)
    for raised, verb in ((False, "call.raiseHand"), (True, "call.lowerHand")):
        front.call(CallState.CONNECTED, isHandRaised=raised)
        before = len(front.desk.commands)
        panel.press(Press("hand", PressKind.PRESSED))
        assert (await front.desk.given(before + 1))[-1].verb.name == verb
        panel.press(Press("hand", PressKind.RELEASED, 0.1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_a_button_calls_the_help_point_whatever_goes_on() -> None:
    panel = OneButton()
    front = Front(panel, emergency_target="Help point")
    task = asyncio.create_task(front.door.run(), name="test.panel")
    await asyncio.sleep(0)
    for number, state in enumerate((CallState.NONE, CallState.CONNECTED, CallState.DISCONNECTING), 1):
        front.call(state)
        panel.press(Press("emergency", PressKind.PRESSED))
        command = (await front.desk.given(number))[-1]
        assert (command.verb.name, command.args) == ("call.dial", {"to": "Help point"}), "nor are presses too many"
        panel.press(Press("emergency", PressKind.RELEASED, 0.1))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_the_presses_are_told_as_events_and_in_the_document() -> None:
    async with standing_at() as front:
        front.call(CallState.CONNECTED)
        pressing = asyncio.create_task(front.press(SHORT_S))
        await front.until(lambda: front.bulletin.document("io")["buttons"]["call"] == {"pressed": True})
        await pressing
        await front.until(lambda: front.posted("io.released"))
        assert front.posted("io.pressed") == [{"name": "call"}]
        assert front.posted("io.released")[0]["heldSeconds"] == pytest.approx(SHORT_S, abs=0.001)
        assert front.bulletin.document("io")["buttons"]["call"] == {"pressed": False}
        await front.press(LONG_S + 0.2)
        await front.until(lambda: front.posted("io.held"))
        assert front.posted("io.held")[0]["heldSeconds"] == pytest.approx(LONG_S, abs=0.001)
        assert len(front.posted("io.released")) == 1, "a long press is not a short one too"


@virtual_time
async def test_a_contact_that_bounces_is_one_press() -> None:
    async with standing_at() as front:
        pin = front.panel._factory.pin(SIM_WIRING.buttons["call"].pin)

        def bounce(*, down: bool) -> None:
            for _ in range(5):
                pin.drive_low()
                pin.drive_high()
            if down:
                pin.drive_low()

        bounce(down=True)
        await front.until(lambda: front.posted("io.pressed"))
        bounce(down=False)
        await front.until(lambda: front.posted("io.released"))
        await front.desk.given(1)
        assert len(front.posted("io.pressed")) == len(front.posted("io.released")) == 1
        assert len(front.desk.commands) == 1


@virtual_time
async def test_a_stuck_button_is_a_diagnostic_until_it_is_free() -> None:
    async with standing_at() as front:
        front.panel.jam("call", True)
        await asyncio.sleep(contacts.STUCK_S - 1)
        assert front.faults.empty()
        await asyncio.sleep(2)
        assert (await front.fault()).active
        assert front.diagnostics.raised("buttonStuck")
        assert front.bulletin.document("diag")["buttonStuck"]["detail"]["device"] == "button:call"
        assert front.lit("status", PULSE)
        assert len(front.desk.commands) == 1, "what is jammed calls once"
        front.panel.jam("call", False)
        await asyncio.sleep(1)
        assert not (await front.fault()).active
        assert front.bulletin.document("diag")["buttonStuck"]["value"] is False
        assert front.lit("status", ON)


@virtual_time
async def test_inputs_are_told_and_the_hardware_mute_is_handed_on() -> None:
    async with standing_at() as front:
        front.panel.set_input("hardware_mute", True)
        await front.until(lambda: front.hardware_mute == [True])
        front.panel.set_input("tamper", True)
        await front.until(lambda: front.diagnostics.raised("tamper"))
        assert front.posted("io.input") == [{"name": "hardware_mute", "closed": True},
                                            {"name": "tamper", "closed": True}]
        assert front.bulletin.document("io")["inputs"]["tamper"] == {"closed": True}
        front.bulletin.merge("device", name="Door")
        assert front.lit("mute", ON), "also without a call: nobody would be heard"
        front.panel.set_input("hardware_mute", False)
        await front.until(lambda: front.hardware_mute == [True, False])


@virtual_time
async def test_the_talk_key_is_handed_on_for_as_long_as_it_is_held() -> None:
    async with standing_at() as front:
        front.panel.set_input("talk", True)
        await front.until(lambda: front.talk == [True])
        front.panel.set_input("talk", False)
        await front.until(lambda: front.talk == [True, False])


LAMPS = {
    CallState.NONE: OFF, CallState.CONNECTING: SLOW, CallState.RINGING: SLOW, CallState.EARLY_MEDIA: SLOW,
    CallState.INCOMING: FAST, CallState.IN_LOBBY: DOUBLE, CallState.CONNECTED: ON, CallState.LOCAL_HOLD: PULSE,
    CallState.REMOTE_HOLD: PULSE, CallState.RECONNECTING: FAST, CallState.TRANSFERRING: SLOW,
    CallState.DISCONNECTING: OFF, CallState.DISCONNECTED: OFF,
}


@virtual_time
async def test_the_call_lamp_has_a_pattern_for_every_state() -> None:
    assert set(CALL_LAMP) == set(LAMPS) == set(CallState)
    async with standing_at() as front:
        for state, pattern in LAMPS.items():
            front.call(state)
            assert front.lit("call", pattern), state
        for state, steady in ((CallState.CONNECTED, True), (CallState.DISCONNECTED, False)):
            front.call(state)
            assert front.panel.lit("call") is steady, "and the pin follows"


@virtual_time
async def test_the_capture_lamp_follows_what_is_captured() -> None:
    async with standing_at() as front:
        front.call(CallState.CONNECTED)
        assert not front.panel.lit("capture")
        front.bulletin.set("media", {"capturing": True})
        assert front.panel.lit("capture")
        front.bulletin.set("media", {"capturing": False})
        assert not front.panel.lit("capture")


@virtual_time
async def test_the_screen_says_what_is_going_on_and_what_to_press() -> None:
    async with standing_at() as front:
        front.bulletin.merge("device", name="Front door")
        assert front.screen[-1] == ("Front door", "Press the button to call")
        front.bulletin.merge("device", doNotDisturbNow=True)
        assert front.screen[-1] == ("Front door", "Do not disturb")
        front.call(CallState.INCOMING)
        assert front.screen[-1] == ("Incoming call", "Lena · press to answer, hold to decline")
        front.call(CallState.CONNECTED)
        assert front.screen[-1] == ("Lena", "")
        front.call(CallState.CONNECTED, isMuted=True)
        assert front.screen[-1] == ("Lena", "Muted")
        front.call(CallState.CONNECTED, isMuted=True, isRecordingActive=True)
        assert front.screen[-1] == ("Lena", "Muted · Recorded")
        front.call(CallState.RECONNECTING)
        assert front.screen[-1] == ("Reconnecting …", "Lena")


@virtual_time
async def test_a_call_that_fails_says_why_where_somebody_stands() -> None:
    async with standing_at() as front:
        command = await front.press(SHORT_S)
        await front.desk.waiting.wait()
        front.call(CallState.DISCONNECTED, endReason={"advice": "Open the operator page."})
        front.desk.finals[command.id].set_result(
            Answer(command.id, Result.FAILED, 480, "unreachable", message="Nobody is on duty."))
        await front.until(lambda: front.screen[-1] == ("Nobody is on duty.", "Open the operator page."))
        said_at = asyncio.get_running_loop().time()
        assert front.lit("status", FAST)
        front.bulletin.merge("device", onDuty=[])
        assert front.lit("status", FAST), "another document does not end the moment"
        await front.until(lambda: front.lit("status", ON))
        assert asyncio.get_running_loop().time() - said_at == pytest.approx(door_module.RED_S)
        await front.until(lambda: front.screen[-1] == ("", "Press the button to call"))
        assert asyncio.get_running_loop().time() - said_at == pytest.approx(door_module.WORDS_S)


@virtual_time
async def test_a_call_that_is_taken_back_says_nothing() -> None:
    async with standing_at() as front:
        command = await front.press(SHORT_S)
        await front.desk.waiting.wait()
        front.desk.finals[command.id].set_result(Answer(command.id, Result.FAILED, 0, "local", message="ended here"))
        front.bulletin.merge("device", name="Door")
        assert front.screen[-1] == ("Door", "Press the button to call")
        assert front.lit("status", ON)


@virtual_time
async def test_a_call_to_everybody_on_duty_rings_at_the_operator() -> None:
    async with standing_at() as front:
        front.call(CallState.RINGING, callerInfo={"displayName": "Operators", "uri": "operator:*"})
        await front.until(lambda: front.screen[-1:] == [("Ringing …", "Operator")])


@virtual_time
async def test_a_refused_press_is_answered_in_words_until_the_call_goes_on() -> None:
    async with standing_at() as front:
        def refuse(command: Command) -> Answer:
            raise Refused("use the switch on the device", code=403, sub_code="hardwareMuted")

        front.desk.answer = refuse
        front.call(CallState.CONNECTED, isMuted=True)
        await front.press(SHORT_S, "mute")
        await front.until(lambda: front.screen[-1] == ("use the switch on the device", ""))
        assert front.lit("status", FAST)
        front.call(CallState.DISCONNECTED)
        assert front.screen[-1][0] == ""


def io_set(**args: Any) -> Command:
    return Command("c1", VERB["io.set"], args, Origin.CLI, "boss", Scope.ADMIN)


@virtual_time
async def test_a_relay_closes_for_its_time_and_is_told_with_who_did_it() -> None:
    async with standing_at() as front:
        handler = front.door.handlers()["io.set"]
        await handler(io_set(relay="door", seconds=0.1))
        assert front.panel.closed("door")
        assert front.bulletin.document("io")["relays"]["door"] == {"closed": True}
        assert front.posted("io.relay") == [{"relay": "door", "closed": True, "seconds": 0.1, "origin": "cli",
                                             "sender": "boss"}]
        await front.until(lambda: front.bulletin.document("io")["relays"]["door"] == {"closed": False})
        assert front.posted("io.relay")[1:] == [{"relay": "door", "closed": False, "seconds": 0.0,
                                                 "origin": "internal", "sender": ""}]
        await handler(io_set(relay="door", seconds=0))
        assert len(front.posted("io.relay")) == 2, "it was open"
        await handler(io_set(relay="door", seconds=5))
        await handler(io_set(relay="door", seconds=0.2))
        await handler(io_set(relay="door", seconds=0))
        assert [(told["closed"], told["seconds"], told["origin"]) for told in front.posted("io.relay")[2:]] == [
            (True, 5, "cli"), (True, 0.2, "cli"), (False, 0, "cli")]
        await asyncio.sleep(0.4)  # that its time is over later is what must not be told
        assert len(front.posted("io.relay")) == 5
        with pytest.raises(EdgecallError, match=r"no relay 'gate'.*door"):
            await handler(io_set(relay="gate", seconds=1))


@virtual_time
async def test_a_board_without_a_panel_refuses_relays_with_the_reason() -> None:
    with pytest.raises(Refused, match="no relays") as refused:
        await without_panel()["io.set"](io_set(relay="door", seconds=1))
    assert refused.value.key == "501/FeatureNotSupported"


@virtual_time
async def test_the_screen_goes_dark_when_nobody_calls_or_presses() -> None:
    async with standing_at() as front:
        front.door.reconfigure(CallSettings(), BoardSettings(screen_off_s=60))
        await front.until(lambda: front.screen[-1] == ("", "dark"))
        shown = len(front.screen)
        front.bulletin.merge("device", name="Lobby")  # what changes meanwhile does not light it
        assert len(front.screen) == shown
        front.panel.press("mute", SHORT_S)
        await front.until(lambda: front.screen[-1][0] == "Lobby")
        await front.until(lambda: front.screen[-1] == ("", "dark"))
        front.call(CallState.INCOMING)
        assert front.screen[-1][0] == "Incoming call"
        await asyncio.sleep(120)
        assert front.screen[-1][0] == "Incoming call"
        front.call(CallState.NONE)
        await front.until(lambda: front.screen[-1] == ("", "dark"))
        front.door.reconfigure(CallSettings(), BoardSettings())
        assert front.screen[-1][0] == "Lobby"


@virtual_time
async def test_a_door_that_stands_open_is_told() -> None:
    async with standing_at() as front:
        front.panel.set_input("door", closed=True)
        await front.until(lambda: front.posted("io.input"))
        front.door.reconfigure(CallSettings(), BoardSettings(door_open_s=60))
        await asyncio.sleep(600)
        assert not front.diagnostics.raised("doorOpenTooLong")
        front.panel.set_input("door", closed=False)
        await front.until(lambda: front.diagnostics.raised("doorOpenTooLong"))
        front.panel.set_input("door", closed=True)
        await front.until(lambda: not front.diagnostics.raised("doorOpenTooLong"))


@virtual_time
async def test_the_handset_answers_and_hangs_up_and_is_missed_on_its_hook() -> None:
    async with standing_at() as front:
        front.call(CallState.INCOMING)
        front.panel.set_input("hook", closed=True)
        answer = (await front.desk.given(1))[-1]
        assert (answer.verb.name, answer.args) == ("call.answer", {"callId": "call-1"})
        front.call(CallState.CONNECTED)
        front.panel.set_input("hook", closed=False)
        assert (await front.desk.given(2))[-1].verb.name == "call.hangup"
        front.call(CallState.INCOMING)
        front.panel.set_input("hook", closed=True)
        await front.desk.given(3)
        front.call(CallState.CONNECTED)
        await asyncio.sleep(5 * door_module.HOOK_S)
        assert not front.diagnostics.raised("handsetOffHook")
        front.call(CallState.DISCONNECTED)  # the other side hung up
        await front.until(lambda: front.diagnostics.raised("handsetOffHook"))
        front.panel.set_input("hook", closed=False)
        await front.until(lambda: not front.diagnostics.raised("handsetOffHook"))
        assert len(front.desk.commands) == 3
