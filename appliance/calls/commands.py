"""The verbs of calls, address book and do-not-disturb: from checked arguments to the controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from appliance.calls import moderation
from appliance.calls.active import ActiveCall
from appliance.calls.book import SCHEMES, Entry, Round
from appliance.calls.controller import CallController
from appliance.calls.machine import Signal
from appliance.calls.messages import RESERVED
from appliance.calls.terms import ROOMS
from appliance.calls.transfer import hand_on
from appliance.errors import BadRequest, Refused
from appliance.intake import Handler
from appliance.media.layout import Layout
from appliance.providers.api import MediaWanted, Target
from appliance.vocabulary import END_REASONS, CallKind, CallState, Command, Json, KeyMethod, Origin

__all__ = ["CallCommands"]

NUMBERS: Final = ("tel", "sip", "sips")
"""Schemes of what takes keys after the answer."""
JOINED: Final = (*ROOMS, "meeting")
"""Schemes of what is joined and left."""
DIGIT_MS: Final = 100  # what exchanges of every country understand


class CallCommands:
    """Handlers by verb; they decide nothing about the call, the machine does."""

    def __init__(self, controller: CallController) -> None:
        self._controller = controller

    def handlers(self) -> Mapping[str, Handler]:
        """What ``__main__`` gives to the intake."""
        return {
            "call.dial": self._dial, "call.answer": self._answer, "call.reject": self._reject,
            "call.raiseHand": self._hand(raised=True), "call.lowerHand": self._hand(raised=False),
            "call.transfer": self._transfer, "call.hangup": self._hang_up, "call.hold": self._signal(Signal.HOLD),
            "room.join": self._join, "room.leave": self._leave,
            "call.resume": self._signal(Signal.RESUME), "call.mute": self._mute, "call.unmute": self._unmute,
            "call.remove": self._remove, "call.muteOthers": self._mute_others,
            "call.muteIncoming": self._incoming(muted=True), "call.unmuteIncoming": self._incoming(muted=False),
            "video.start": self._video_start, "video.stop": self._video_stop,
            "video.constraints": self._video_constraints,
            "call.dtmf": self._dtmf, "data.send": self._data_send, "dnd.set": self._dnd,
            "lockdown.set": self._lock_down,
            "book.list": self._book_list, "book.put": self._book_put, "book.remove": self._book_remove,
        }

    # --- the call ---------------------------------------------------------------------------------------------------

    async def _dial(self, command: Command) -> Json:
        plan = self._plan(command.args)
        await self._controller.make_way(plan)
        active = self._controller.dial(plan, _wanted(command.args))
        self._begin_with(command.args)
        return await active.outcome()

    def _plan(self, args: Mapping[str, Any]) -> list[Round]:
        names = [*((args["to"],) if args.get("to") else ()), *args.get("targets", ())]
        if not names:
            raise BadRequest("who is to be called? give 'to' or 'targets'", sub_code="target")
        ring_s = args.get("ringSeconds") or self._controller.ring_s
        plan = self._controller.book.plan(names, args.get("strategy"), ring_s)
        return plan if "digits" not in args else _keyed(plan, args["digits"])

    async def _join(self, command: Command) -> Json:
        active = self._controller.dial(self._room(command.args), _wanted(command.args))
        self._begin_with(command.args)
        return await active.outcome()

    def _room(self, args: Mapping[str, Any]) -> list[Round]:
        """The one room that is meant: of an entry of the address book its first room, else by the text itself."""
        name, book = args["target"], self._controller.book
        if book.get(name) is not None:
            targets = [one for step in book.plan([name], None, self._controller.ring_s) for one in step.targets]
        else:
            scheme, colon, address = name.partition(":")
            if colon and scheme.lower() in SCHEMES.difference(JOINED):
                raise BadRequest(f"{name!r} is no room; it is called with call.dial. A room of that name is joined as "
                                 f"room:{name}", sub_code="target")
            targets = [Target(scheme, address) if colon and scheme in JOINED else Target("room", name)]
        room = next((one for one in targets if one.scheme in JOINED and one.address), None)
        if room is None:
            raise BadRequest(f"{name!r} is no room", code=404, sub_code="notFound")
        if room.scheme == "meeting":
            if "pin" in args:
                raise BadRequest("a meeting by telephone has its passcode in [[sip.meetings]]; leave pin out",
                                 sub_code="pin")
            if "displayName" in args:
                raise BadRequest("nobody has a name in a meeting by telephone; leave displayName out",
                                 sub_code="displayName")
            return book.plan([room.uri], None, self._controller.ring_s)
        room = replace(room, pin=args.get("pin", ""), shown_as=args.get("displayName", "").strip())
        return [Round((room,), self._controller.ring_s)]

    def _begin_with(self, args: Mapping[str, Any]) -> None:
        """The layout and the limits that a call begins with, where they are not those that hold without."""
        if "layout" in args:
            self._controller.stage.choose(Layout(args["layout"]), None, in_call=True)
        if "constraints" in args:
            self._controller.limits.begin_call_with(args["constraints"])

    async def _leave(self, command: Command) -> None:
        active = self._the_call(command)
        if active.call.kind not in (CallKind.ROOM, CallKind.GROUP):
            raise Refused("the call in progress is no room; end it with call.hangup", sub_code="noRoom",
                          retryable=False)
        self._controller.happen(active, Signal.HANG_UP)

    async def _answer(self, command: Command) -> Json:
        active = self._the_call(command)
        if active.call.state is CallState.INCOMING:
            active.media = _wanted(command.args)
            self._begin_with(command.args)
        self._controller.happen(active, Signal.ANSWER)
        return await active.outcome()

    async def _reject(self, command: Command) -> None:
        reason = END_REASONS["486/busy" if command.args.get("reason") == "busy" else "603/declined"]
        self._controller.happen(self._the_call(command), Signal.REJECT, reason)

    async def _hang_up(self, command: Command) -> None:
        active = self._the_call(command)
        if command.args.get("forEveryone"):
            await moderation.end_for_all(self._controller, active)
        else:
            self._controller.happen(active, Signal.HANG_UP)

    async def _transfer(self, command: Command) -> Json:
        active = self._the_call(command)
        await hand_on(self._controller, active, self._plan(command.args), attended=command.args.get("attended", False))
        return {"callId": active.id}

    async def _remove(self, command: Command) -> None:
        await moderation.remove(self._controller, self._the_call(command), command.args["participantId"])

    async def _mute_others(self, command: Command) -> None:
        await moderation.mute_others(self._controller, self._the_call(command), command.args.get("participantId"))

    def _hand(self, *, raised: bool) -> Handler:
        async def handle(command: Command) -> None:
            self._controller.raise_hand(self._the_call(command), raised=raised)

        return handle

    def _signal(self, signal: Signal) -> Handler:
        async def handle(command: Command) -> None:
            self._controller.happen(self._the_call(command), signal)

        return handle

    def _the_call(self, command: Command) -> ActiveCall:
        return self._controller.current(command.args.get("callId"))

    # --- its media --------------------------------------------------------------------------------------------------

    async def _mute(self, command: Command) -> None:
        active = self._the_call(command)
        active.muted = True
        self._controller.media_changed(active)

    async def _unmute(self, command: Command) -> None:
        active = self._the_call(command)
        self._controller.require(active, "unmuteMic")
        active.muted = active.muted_by_peer = False
        self._controller.media_changed(active)

    def _incoming(self, *, muted: bool) -> Handler:
        async def handle(command: Command) -> None:
            active = self._the_call(command)
            active.incoming_muted = muted
            self._controller.media_changed(active)

        return handle

    async def _video_start(self, command: Command) -> None:
        self._controller.require(self._the_call(command), "turnVideoOn")
        self._video(command, on=True)

    async def _video_stop(self, command: Command) -> None:
        self._video(command, on=False)

    def _video(self, command: Command, *, on: bool) -> None:
        active = self._the_call(command)
        active.media, active.video_asked = replace(active.media, send_video=on), on
        self._controller.media_changed(active)

    async def _video_constraints(self, command: Command) -> Json:
        return {"constraints": self._controller.limits.take(command.args)}

    async def _dtmf(self, command: Command) -> None:
        active = self._the_call(command)
        if active.leg is None:
            raise Refused("nobody has answered yet", sub_code="callState")
        method = KeyMethod(command.args["method"]) if "method" in command.args else None
        await active.leg.press(command.args["digits"], command.args.get("ms", DIGIT_MS) / 1000, method)

    async def _data_send(self, command: Command) -> None:
        active = self._the_call(command)
        args = command.args
        channel = args.get("channel", "edgecall")
        if channel in RESERVED and command.origin is not Origin.INTERNAL:
            raise BadRequest(f"the channel {channel!r} is the appliance's own; take another label", sub_code="channel")
        await self._controller.messages.send(
            active, channel, args["payload"], to=args.get("to", ()),
            lossy=args.get("reliability") == "lossy", urgent=args.get("priority") == "high")

    # --- address book, do not disturb -------------------------------------------------------------------------------

    async def _dnd(self, command: Command) -> None:
        await self._controller.admission.do_not_disturb(command.args["on"])

    async def _lock_down(self, command: Command) -> None:
        await self._controller.admission.lock_down(command.args["on"])

    async def _book_list(self, _: Command) -> Json:
        return {"entries": [entry.payload() for entry in self._controller.book.entries()]}

    async def _book_put(self, command: Command) -> None:
        args = command.args
        self._controller.book.put(Entry(
            args["name"], tuple(args.get("uris", ())), args.get("ringSeconds"), args.get("autoAnswer", False),
            args.get("allowed", True), tuple(args.get("members", ())), args.get("strategy", "sequence"),
            args.get("fallback", "")))
        await self._controller.save_book()

    async def _book_remove(self, command: Command) -> None:
        self._controller.book.remove(command.args["name"])
        await self._controller.save_book()


def _wanted(args: Mapping[str, Any]) -> MediaWanted:
    return MediaWanted(send_audio=args.get("audio", True), send_video=args.get("video", True))


def _keyed(plan: Sequence[Round], digits: str) -> list[Round]:
    """The plan with keys for its telephones. Raises BadRequest where it has none."""
    keyed = [replace(one, targets=tuple(
        replace(target, digits=digits) if target.scheme in NUMBERS else target for target in one.targets))
        for one in plan]
    if keyed == list(plan):
        raise BadRequest("digits: who is called is no telephone; leave them out", sub_code="digits")
    return keyed
