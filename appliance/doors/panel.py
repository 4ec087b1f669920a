"""The panel door: buttons become commands, the Snapshot becomes lamps and the words of the screen.

Button ``call``, by the state of the call when it goes down: without one a press dials the configured target, a long one
the second target; while somebody calls a press answers, a long one declines; in a call (also one that is not answered
yet) both hang up. Button ``emergency`` calls the emergency target, whatever else goes on; so does a long press in a
call where it would without one. Button ``mute``: mutes and unmutes; ``hand``: asks the others for attention, and no
longer. Where a long press means nothing else, the button acts as it goes down, else when it is known which of both it
is. Input ``hardware_mute`` is the truth for mute, input ``talk`` the key of push-to-talk, input ``hook`` is closed
while the handset is lifted: that answers, and putting it back hangs up; input ``door`` is closed while the door is. The
lamp ``capture`` follows what is really captured, never what was asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from appliance.bulletin import Bulletin
from appliance.errors import BadRequest, EdgecallError, Refused
from appliance.faces.envelope import parse
from appliance.handover import Inbox
from appliance.intake import Handler, Submit
from appliance.settings import BoardSettings, CallSettings
from appliance.vocabulary import VERB, Answer, CallKind, CallState, Command, Json, Origin, Result, Scope
from hw.api import Panel, Press, PressKind

__all__ = ["PanelDoor", "without_panel"]

log = logging.getLogger(__name__)

Pattern = Sequence[tuple[float, bool]]
Meaning = tuple[str, Mapping[str, str]] | None
"""What a press does: a verb and its arguments, or nothing."""

ON: Final[Pattern] = ((1.0, True),)
OFF: Final[Pattern] = ((1.0, False),)
SLOW: Final[Pattern] = ((0.5, True), (0.5, False))
FAST: Final[Pattern] = ((0.125, True), (0.125, False))
DOUBLE: Final[Pattern] = ((0.1, True), (0.15, False), (0.1, True), (0.9, False))
PULSE: Final[Pattern] = ((0.2, True), (1.8, False))

CALL_LAMP: Final[Mapping[CallState, Pattern]] = {
    CallState.NONE: OFF, CallState.DISCONNECTED: OFF, CallState.DISCONNECTING: OFF,
    CallState.CONNECTING: SLOW, CallState.RINGING: SLOW, CallState.EARLY_MEDIA: SLOW, CallState.INCOMING: FAST,
    CallState.IN_LOBBY: DOUBLE, CallState.CONNECTED: ON, CallState.TRANSFERRING: SLOW,
    CallState.LOCAL_HOLD: PULSE, CallState.REMOTE_HOLD: PULSE, CallState.RECONNECTING: FAST,
}
"""Lamp per state."""

BANNER: Final[Mapping[CallState, str]] = {
    CallState.CONNECTING: "Calling …", CallState.RINGING: "Ringing …", CallState.EARLY_MEDIA: "Connecting …",
    CallState.INCOMING: "Incoming call", CallState.IN_LOBBY: "Please wait", CallState.CONNECTED: "",
    CallState.LOCAL_HOLD: "On hold", CallState.REMOTE_HOLD: "Please hold", CallState.RECONNECTING: "Reconnecting …",
    CallState.TRANSFERRING: "Transferring …", CallState.DISCONNECTING: "Goodbye",
}

RED_S: Final = 3.0  # the status lamp blinks this long after a failure
WORDS_S: Final = 6.0  # and the screen says why
DIAL_EVERY_S: Final = 3.0  # a child at the button starts one call in this time, not twenty
RELAY_LOOK_S: Final = 0.05  # after its time is over it is looked whether a relay is open
HOOK_S: Final = 60.0  # a handset beside its hook for so long was forgotten
HOOK_LEAVES: Final = (CallState.NONE, CallState.DISCONNECTED, CallState.DISCONNECTING, CallState.INCOMING)
"""Where putting the handset back does nothing: who calls goes on ringing."""

INBOX: Final = 32  # presses that may wait; a human makes fewer


class PanelDoor:
    """Between the board's panel and the appliance. ``show(banner, hint)`` writes on the screen, ``blank`` makes it dark
    when nobody called or pressed for the time that is set."""

    def __init__(
        self, panel: Panel, submit: Submit, bulletin: Bulletin, *, settings: CallSettings,
        show: Callable[[str, str], None], blank: Callable[[], None], on_hardware_mute: Callable[[bool], None],
        on_talk: Callable[[bool], None],
        flag: Callable[[str, bool], None], board: BoardSettings,
    ) -> None:
        self._panel = panel
        self._submit = submit
        self._bulletin = bulletin
        self._settings = settings
        self._show = show
        self._blank = blank
        self._board = board
        self._hook_off = False  # lifted without a call
        self._dark = False
        self._on_hardware_mute = on_hardware_mute
        self._on_talk = on_talk
        self._flag = flag
        self._inbox: Inbox[Press] | None = None
        self._task: asyncio.Task[None] | None = None
        self._commands: set[asyncio.Task[None]] = set()
        self._patterns: dict[str, Pattern] = {}
        self._inputs: dict[str, bool] = dict.fromkeys(panel.inputs, False)
        self._down: dict[str, bool] = dict.fromkeys(panel.buttons, False)
        self._undecided: dict[str, tuple[Meaning, Meaning]] = {}  # buttons down: what a short, what a long press does
        self._words: tuple[str, str] | None = None  # in place of the state's own, for a moment
        self._drawn = CallState.NONE
        self._failing = False  # the status lamp says so, for a moment
        self._moments: dict[str, asyncio.TimerHandle] = {}
        self._last_dial = float("-inf")

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        self._inbox = Inbox(loop, INBOX, "panel")
        self._panel.listen(self._inbox.put)
        with self._bulletin.subscribed(on_document=self._on_document):
            self._draw()
            self._watch_door()
            self._publish()
            try:
                while True:
                    self._on_press(await self._inbox.get())
            finally:
                self._inbox.close()
                for timer in self._moments.values():
                    timer.cancel()
                for task in tuple(self._commands):
                    task.cancel()
                await asyncio.gather(*self._commands, return_exceptions=True)

    def reconfigure(self, settings: CallSettings, board: BoardSettings) -> None:
        before, self._board = self._board, board
        self._settings = settings
        if board.screen_off_s != before.screen_off_s:
            self._wake_screen()
        if board.door_open_s != before.door_open_s:
            self._watch_door()

    def handlers(self) -> Mapping[str, Handler]:
        return {"io.set": self._do_io_set}

    async def _do_io_set(self, command: Command) -> None:
        relay, seconds = command.args["relay"], float(command.args["seconds"])
        if relay not in self._panel.relays:
            raise BadRequest(f"there is no relay {relay!r}; this board has: {', '.join(self._panel.relays) or 'none'}",
                             code=404, sub_code="notFound")
        was_closed = self._panel.closed(relay)
        await asyncio.to_thread(self._panel.switch, relay, seconds)
        if seconds > 0:
            self._later(f"relay {relay}", seconds + RELAY_LOOK_S, partial(self._look_at, relay))
        else:
            self._never(f"relay {relay}")
        if seconds > 0 or was_closed:
            self._tell_relay(relay, seconds=seconds, origin=command.origin.value, sender=command.sender)

    def _look_at(self, relay: str) -> None:
        """Its time is over: it has opened by itself, or does so any moment."""
        if self._panel.closed(relay):
            self._later(f"relay {relay}", RELAY_LOOK_S, partial(self._look_at, relay))
        else:
            self._tell_relay(relay, seconds=0.0, origin=Origin.INTERNAL.value, sender="")

    def _tell_relay(self, relay: str, **data: float | str) -> None:
        self._bulletin.post("io.relay", relay=relay, closed=self._panel.closed(relay), **data)
        self._publish()

    # --- presses ----------------------------------------------------------------------------------------------------

    def _on_press(self, press: Press) -> None:
        self._wake_screen()
        match press.kind:
            case PressKind.PRESSED:
                self._down[press.name] = True
                self._bulletin.post("io.pressed", name=press.name)
                self._begin(press.name)
            case PressKind.RELEASED:
                self._down[press.name] = False
                self._bulletin.post("io.released", name=press.name, heldSeconds=round(press.held_s, 3))
                self._decide(press.name, long=False)
            case PressKind.HELD:
                self._down[press.name] = False
                self._bulletin.post("io.held", name=press.name, heldSeconds=round(press.held_s, 3))
                self._decide(press.name, long=True)
            case PressKind.INPUT_ON | PressKind.INPUT_OFF:
                self._on_input(press.name, press.kind is PressKind.INPUT_ON)
        self._publish()

    def _on_input(self, name: str, closed: bool) -> None:
        self._inputs[name] = closed
        self._bulletin.post("io.input", name=name, closed=closed)
        if name == "hardware_mute":
            self._on_hardware_mute(closed)
        elif name == "talk":
            self._on_talk(closed)
        elif name == "tamper":
            self._flag("tamper", closed)
        elif name == "door":
            self._watch_door()
        elif name == "hook":
            self._on_hook(lifted=closed)

    def _watch_door(self) -> None:
        if "door" not in self._panel.inputs:
            return
        self._never("door")
        self._flag("doorOpenTooLong", False)
        if not self._inputs["door"] and self._board.door_open_s > 0:
            self._later("door", self._board.door_open_s, partial(self._flag, "doorOpenTooLong", True))

    def _on_hook(self, *, lifted: bool) -> None:
        call = self._bulletin.document("call")
        state = CallState(call.get("state", "None"))
        if lifted and state is CallState.INCOMING:
            self._give("call.answer", {"callId": call["callId"]})
        elif not lifted and state not in HOOK_LEAVES:
            self._give("call.hangup", {"callId": call["callId"]})
        self._watch_hook(state)

    def _watch_hook(self, state: CallState) -> None:
        """A handset that was put beside its hook after a call is missed by the next one."""
        off = self._inputs.get("hook", False) and state in (CallState.NONE, CallState.DISCONNECTED)
        if off and not self._hook_off:
            self._later("hook", HOOK_S, partial(self._flag, "handsetOffHook", True))
        elif self._hook_off and not off:
            self._never("hook")
            self._flag("handsetOffHook", False)
        self._hook_off = off

    def _begin(self, button: str) -> None:
        """A button goes down: what it means is settled by what is going on now, whatever happens until it is let go."""
        short, long = self._meanings(button)
        if short == long:
            self._act(short)
        else:
            self._undecided[button] = short, long

    def _decide(self, button: str, *, long: bool) -> None:
        """It is known whether it was a short press or a long one; nothing where it has acted already."""
        short_or_long = self._undecided.pop(button, None)
        if short_or_long is not None:
            self._act(short_or_long[long])

    def _meanings(self, button: str) -> tuple[Meaning, Meaning]:
        """What a short and what a long press of a button does now."""
        call = self._bulletin.document("call")
        state = CallState(call.get("state", "None"))
        idle = state in (CallState.NONE, CallState.DISCONNECTED)
        both: Meaning = None
        help_point = None if call.get("isEmergency") and not idle else self._settings.emergency_target
        if button == "emergency" and help_point:
            both = "call.dial", {"to": help_point}
        elif button == "mute" and not idle:
            both = ("call.unmute" if call.get("isMuted") else "call.mute"), {}
        elif button == "hand" and not idle:
            both = ("call.lowerHand" if call.get("isHandRaised") else "call.raiseHand"), {}
        elif button == "call" and idle:
            target = self._settings.button_target
            return ("call.dial", {"to": target}), ("call.dial", {"to": self._settings.long_press_target or target})
        elif button == "call" and state is CallState.INCOMING:
            return ("call.answer", {"callId": call["callId"]}), (
                self._urgently(help_point) or ("call.reject", {"callId": call["callId"]}))
        elif button == "call" and state is not CallState.DISCONNECTING:
            both = "call.hangup", {"callId": call["callId"]}
            return both, self._urgently(help_point) or both
        return both, both

    def _urgently(self, help_point: str | None) -> Meaning:
        """In a call a long press calls the help point, where that is what it does without one."""
        if not help_point or help_point != self._settings.long_press_target:
            return None
        return "call.dial", {"to": help_point}

    def _act(self, meaning: Meaning) -> None:
        if meaning is None:
            return
        verb, args = meaning
        if verb == "call.dial":
            self._dial(args)
        else:
            self._give(verb, args)

    def _dial(self, args: Mapping[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        if args["to"] != self._settings.emergency_target and (wait := self._last_dial + DIAL_EVERY_S - now) > 0:
            if self._words is None:  # why the last call failed is worth more
                self._words = ("One moment, please", "Press again in a moment")
                self._draw()
                self._later("words", wait, self._unsay)
            return
        self._last_dial = now
        self._give("call.dial", args)

    def _give(self, verb: str, args: Mapping[str, str]) -> None:
        body: Json = {"id": f"panel-{uuid.uuid4()}", "ts": time.time(), "args": dict(args)}
        if VERB[verb].acts:
            body["ttl_s"] = VERB[verb].max_ttl_s
        task = asyncio.get_running_loop().create_task(self._carry(verb, body), name=f"panel.{verb}")
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _carry(self, verb: str, body: Json) -> None:
        try:
            command = parse(verb, body, origin=Origin.PANEL, sender="panel", scope=Scope.ADMIN)
            answer: Answer | None = await self._submit.submit(command)
            if answer is not None and not answer.result.final:
                answer = await self._submit.final(command.id, 600.0)
        except EdgecallError as error:
            log.warning("%s from the panel: %s", verb, error.message)
            self._say(error.message, "")
            return
        if answer is not None and answer.result is not Result.DONE and answer.sub_code not in ("cancelled", "local"):
            advice = (self._bulletin.document("call").get("endReason") or {}).get("advice", "")
            self._say(answer.message, advice if answer.code < 500 else "")

    def _say(self, banner: str, hint: str) -> None:
        """Words and a red lamp for a moment: what went wrong, at the place where somebody stands."""
        self._words, self._failing = (banner, hint), True
        self._draw()
        self._later("words", WORDS_S, self._unsay)
        self._later("red", RED_S, self._calm)

    def _unsay(self) -> None:
        self._words = None
        self._draw()

    def _calm(self) -> None:
        self._failing = False
        self._draw()

    def _later(self, what: str, seconds: float, act: Callable[[], None]) -> None:
        """``act`` in a moment; one that still waits for the same is put off."""
        self._never(what)
        self._moments[what] = asyncio.get_running_loop().call_later(seconds, act)

    def _never(self, what: str) -> None:
        if (waiting := self._moments.pop(what, None)) is not None:
            waiting.cancel()

    # --- lamps and words --------------------------------------------------------------------------------------------

    def _on_document(self, name: str, _document: Json, _rev: int) -> None:
        if name in ("call", "roster", "media", "diag", "device"):
            self._draw()

    def _draw(self) -> None:
        call = self._bulletin.document("call")
        state = CallState(call.get("state", "None"))
        live = state not in (CallState.NONE, CallState.DISCONNECTED)
        if state is not self._drawn:  # the call went on: what was said of it is over
            self._drawn, self._words = state, None
            self._watch_hook(state)
        self._light("call", CALL_LAMP[state])
        self._light("mute", ON if call.get("isMuted") or (not live and self._inputs.get("hardware_mute")) else OFF)
        raised = any(entry["value"] is True or entry["value"] in (2, 3)
                     for entry in self._bulletin.document("diag").values())
        self._light("status", FAST if self._failing else PULSE if raised else ON)
        media = self._bulletin.document("media")
        self._light("capture", ON if media.get("capturing") else OFF)
        self._light("recording", ON if live and call.get("isRecordingActive") else OFF)
        if live or self._words is not None:
            self._dark = False
        elif "dark" not in self._moments and not self._dark:
            self._darken_later()
        if not self._dark:
            self._show(*(self._words or self._state_words(state, call)))

    def _wake_screen(self) -> None:
        was_dark, self._dark = self._dark, False
        self._darken_later()
        if was_dark:
            self._draw()

    def _darken_later(self) -> None:
        if self._board.screen_off_s > 0:
            self._later("dark", self._board.screen_off_s, self._darken)
        else:
            self._never("dark")

    def _darken(self) -> None:
        del self._moments["dark"]
        if self._words is None and self._drawn in (CallState.NONE, CallState.DISCONNECTED):
            self._dark = True
            self._blank()

    def _state_words(self, state: CallState, call: Json) -> tuple[str, str]:
        device = self._bulletin.document("device")
        caller = call.get("callerInfo") or {}
        peer = "Operator" if caller.get("uri") == "operator:*" else caller.get("displayName", "")
        if state is CallState.INCOMING:
            return BANNER[state], f"{peer} · press to answer, hold to decline"
        if call.get("isEmergency") and state in BANNER:
            clear = state is CallState.CONNECTED and (call.get("security") or {}).get("verified") is False
            return BANNER[state] or peer, "Emergency call" + (" · not encrypted" if clear else "")
        if state is CallState.CONNECTED and call.get("kind") == CallKind.ROOM.value and \
                self._bulletin.document("roster").get("participants"):
            return "", _marks(call)  # their pictures have their names
        if state in BANNER:
            return BANNER[state] or peer, peer if BANNER[state] else _marks(call)
        if device.get("lockedDown"):
            return device.get("name", ""), "Locked: emergency calls only"
        if device.get("doNotDisturbNow"):
            return device.get("name", ""), "Do not disturb"
        return device.get("name", ""), "Press the button to call"

    def _light(self, lamp: str, pattern: Pattern) -> None:
        if lamp in self._panel.lamps and self._patterns.get(lamp) is not pattern:
            self._patterns[lamp] = pattern
            self._panel.light(lamp, pattern)
            self._publish()

    def _publish(self) -> None:
        self._bulletin.set("io", {
            "buttons": {name: {"pressed": down} for name, down in self._down.items()},
            "inputs": {name: {"closed": closed} for name, closed in self._inputs.items()},
            "lamps": {name: {"pattern": [list(step) for step in self._patterns.get(name, OFF)]}
                      for name in self._panel.lamps},
            "relays": {name: {"closed": self._panel.closed(name)} for name in self._panel.relays},
        })


def _marks(call: Json) -> str:
    """What people in front of the device are to know of a call besides its pictures."""
    marks = (("isMuted", "Muted"), ("isRecordingActive", "Recorded"))
    return " · ".join(words for name, words in marks if call.get(name))


def without_panel() -> Mapping[str, Handler]:
    """``io.set`` where the board has no panel."""

    async def refuse(_: Command) -> None:
        raise Refused("this board has no relays", code=501, sub_code="FeatureNotSupported", retryable=False)

    return {"io.set": refuse}
