"""The call controller: the one writer of call state.

Commands, legs and timers become `Happening`s; the pure machine answers with the next state and effects; the effects
are run here. One call at a time: a second caller is told 486/busy. Everything runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.calls.admission import Admission
from appliance.calls.attendance import Attendance
from appliance.calls.book import AddressBook, Entry, Round, save
from appliance.calls.deadlines import Deadlines
from appliance.calls.dialling import Dialler
from appliance.calls.errands import Errands
from appliance.calls.ledger import Conclusion, Ledger, Records
from appliance.calls.machine import Call, Effect, Happening, IllegalEvent, Signal, step
from appliance.calls.media import CallMedia
from appliance.calls.messages import Messages
from appliance.calls.orders import Orders
from appliance.calls.presence import Presence
from appliance.calls.recording import CallRecording
from appliance.calls.telling import Telling
from appliance.calls.terms import HouseRules, terms_of
from appliance.errors import Refused, StoreError
from appliance.media.api import Studio, Tone
from appliance.providers.api import (
    Accepted,
    CallProvider,
    Connected,
    ContentEnded,
    DataReceived,
    EarlyMedia,
    Ended,
    Held,
    IncomingCall,
    Leg,
    LegEvent,
    Lost,
    MediaWanted,
    Members,
    Moderated,
    Peer,
    PeerMedia,
    Pictures,
    Pressed,
    Recording,
    Recovered,
    Ringing,
    Transferred,
    Voices,
)
from appliance.settings import CallSettings
from appliance.vocabulary import (
    END_REASONS,
    CallKind,
    CallState,
    Direction,
    Json,
    KeyPress,
    ParticipantState,
    Reason,
)

__all__ = ["CallController"]

log = logging.getLogger(__name__)

LEAVE_S: Final = 2.0  # how long the other side may take to say goodbye; then the call is over without it
RECORD_S: Final = 2.0  # how long the records of the last call may take to be stored at a stop

_KIND_OF_SCHEME: Final = {"tel": CallKind.PSTN, "meeting": CallKind.GROUP, "sip": CallKind.PSTN, "sips": CallKind.PSTN,
                         "room": CallKind.ROOM, "audio": CallKind.ROOM, "lan": CallKind.LAN}


class CallController:
    """See the module. ``me`` is how this device presents itself; ``book_path`` is where the book is kept."""

    def __init__(
        self, *, me: Peer, settings: CallSettings, providers: Sequence[CallProvider], studio: Studio,
        book: AddressBook, book_path: Path, bulletin: Bulletin, records: Records, conclusion: Conclusion | None = None,
        features: Mapping[str, str] | None = None, rules: HouseRules | None = None,
        local_time: Callable[[], datetime] = datetime.now, wall: Callable[[], float] = time.time,
    ) -> None:
        self._me = me
        self._settings = settings
        self._providers = tuple(providers)
        self._studio = studio
        self.book = book
        self._book_path = book_path
        self._bulletin = bulletin
        self._rules = rules or {}
        self.on_over: Callable[[ActiveCall], None] = lambda _: None
        """Told of every call that is over."""
        self.on_key: Callable[[KeyPress], bool] = lambda _: True
        """Told of every key that the other side presses; returns whether others may be told which one."""
        self.admission = Admission(book, settings, records, local_time, self._admission_changed)
        self._making_way = False  # for an emergency call
        self._active: ActiveCall | None = None
        self._errands = Errands()
        self._orders = Orders(self._errands, self._fail)
        self._ledger = Ledger(records, bulletin, self._errands, conclusion)
        self._media = CallMedia(studio, self._orders, self._errands, lambda: self._active)
        self.stage, self.limits, self.preview = self._media.stage, self._media.limits, self._media.preview
        self._telling = Telling(
            bulletin, self.admission, book, dict(features or {}), lambda: self._media.hardware_muted)
        self._deadlines = Deadlines(bulletin, self.happen, wall)
        self._recording = CallRecording(bulletin, self._telling.call, lambda: studio.announce(Tone.RECORDED))
        self._attendance = Attendance(bulletin, lambda: self._active, self._attended)
        self.messages = Messages(bulletin)
        self._presence = Presence(self._attendance, self._media.is_muted)
        self._stopping = False
        by_scheme = {scheme: provider for provider in providers for scheme in provider.schemes}
        self._dialler = Dialler(by_scheme, me, self._adopt, self._drop, self._rules, wall)
        self._effects: Mapping[Effect, Callable[[ActiveCall], None]] = {
            Effect.DIAL_TARGETS: lambda a: self._errands.begin(self._dial(a), f"call.dial[{a.id}]"),
            Effect.TELL_RINGING: lambda a: self._on_leg(a, lambda leg: leg.ring(), "ring"),
            Effect.ACCEPT_LEG: lambda a: self._on_leg(a, lambda leg: leg.accept(self._media.wanted(a)), "accept"),
            Effect.END_LEGS: self._end_legs,
            Effect.KEEP_ONE_LEG: self._keep_one_leg,
            Effect.RING: lambda _: studio.play(Tone.RING),
            Effect.RINGBACK: lambda _: studio.play(Tone.RINGBACK),
            Effect.QUIET: lambda _: studio.play(None),
            Effect.WARM_CAMERA: self._media.keep_warm,
            Effect.ARM_SETUP: lambda a: self._deadlines.arm(a, self._setup_s(a), "408/setupTimeout"),
            Effect.ARM_RING: lambda a: self._deadlines.arm(a, self._settings.ring_s, "487/noAnswer"),
            Effect.ARM_RECONNECT: lambda a: self._deadlines.arm(a, self._settings.reconnect_s, "410/mediaLost"),
            Effect.ARM_LEAVE: lambda a: self._deadlines.arm(a, LEAVE_S, "0/local"),
            Effect.DISARM: lambda _: self._deadlines.disarm(),
            Effect.APPLY_MEDIA: self._media.apply,
            Effect.TELL_HOLD: self._media.tell,
            Effect.NOTE_STARTED: self._note_started,
            Effect.NOTE_LOST: self._telling.lost,
            Effect.NOTE_BACK: self._telling.back,
            Effect.CLOSE: self._close,
        }

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load what outlived the restart and open the providers for incoming calls."""
        try:
            await self.admission.load()
            await self._ledger.load()
        except StoreError as error:
            log.warning("do-not-disturb, lock-down and past calls are not known: %s", error.message)
        self._publish_idle()
        self.admission.dnd.follow()
        for provider in self._providers:
            await provider.start(self._on_incoming)

    async def report_interrupted_call(self) -> None:
        """A call that was up when the appliance died gets its end told, once: when the doors are open to tell it."""
        await self._ledger.report_interrupted()

    async def stop(self) -> None:
        """End the call with 503/shutdown within 3 s, then the providers; its record is stored within RECORD_S more.
        May be called twice."""
        self._stopping = True
        self.preview.stop()
        active = self._active
        if active is not None and active.call.live:
            self.happen(active, Signal.HANG_UP, END_REASONS["503/shutdown"])
            try:
                await asyncio.wait_for(active.closed.wait(), LEAVE_S + 0.5)
            except TimeoutError:
                log.warning("the call did not end in time at shutdown")
        for provider in self._providers:
            await provider.stop()
        self.admission.dnd.stop()
        self._deadlines.disarm()
        await self._errands.stop(RECORD_S)

    def reconfigure(self, settings: CallSettings, entries: Sequence[Entry]) -> None:
        """Take new settings; a call in progress keeps its timers."""
        self._settings = settings
        self.admission.configure(settings)
        self.book.rebase(entries)
        self._telling.device()

    @property
    def idle(self) -> bool:
        return self._active is None or not self._active.call.live

    def is_known(self, identity: str) -> bool:
        """Whether the address book has this device (fleet signalling is accepted from those only)."""
        return self.book.caller(Peer(identity, f"device:{identity}", identity)) is not None

    def hardware_mute(self, muted: bool) -> None:
        """The mute line of the board: the truth for mute, in and out of calls."""
        if muted == self._media.hardware_muted:
            return
        self._media.hardware_muted = muted
        if self._active is not None:
            self._media.apply(self._active)
            self._media.tell(self._active)
            self._telling.call(self._active)
        else:
            self._studio.mute(muted)
            self._publish_idle()

    async def stats(self) -> list[Json]:
        """W3C statistics of the call; empty without one."""
        if self._active is None or self._active.leg is None or not self._active.call.live:
            return []
        return list(await self._active.leg.stats())

    async def replaced(self) -> Sequence[Sequence[Json]]:
        """Of the call, the last statistics of each connection given up since this was asked, oldest first."""
        if self._active is None or self._active.leg is None:
            return ()
        return await self._active.leg.replaced()

    def record_so_far(self, call_id: str | None) -> Json | None:
        """The record of the call in progress as it would be if it ended now; None without one, or when ``call_id``
        names another."""
        try:
            active = self.current(call_id)
        except Refused:
            return None
        return self._telling.record(active)

    def note_speaking(self, speaking: bool) -> None:
        """Whether the other side is heard speaking right now (from the loudspeaker's level)."""
        if self._active is not None and self._active.leg is not None and self._active.call.live:
            # the roster alone: an event each time somebody draws breath would wear the flash
            self._attendance.change(self._active, self._active.leg.id, told=False, speaking=speaking)

    def note_level(self, level: int | None) -> None:
        """The network quality of the call; of a room each has its own."""
        active = self._active
        if active is not None and active.leg is not None and active.call.live and active.call.kind is not CallKind.ROOM:
            self._attendance.change(active, active.leg.id, told=False, quality=level)

    # --- what commands ask ------------------------------------------------------------------------------------------

    def dial(self, plan: Sequence[Round], media: MediaWanted, *, unattended: bool = False) -> ActiveCall:
        """Begin to call. Raises Refused when there is a call, or no target that may be called now by any provider.

        ``unattended``: nobody waits for it. Of one that comes to nothing there is no event and no record.
        """
        if self._stopping:
            raise Refused("the appliance is shutting down", code=503, sub_code="shutdown")
        self.admission.check(plan)
        emergency = self.admission.is_emergency(plan)
        if not self.idle or (self._making_way and not emergency):
            raise Refused("there is a call already; end it first", sub_code="inCall")
        self._dialler.check(plan)
        if emergency:
            plan = self.admission.urgent(plan)
        first = plan[0].targets[0]
        peer = self.book.named(Peer(first.address, first.uri, first.address))
        call = Call(str(uuid.uuid4()), kind=_KIND_OF_SCHEME.get(first.scheme, CallKind.P2P))
        if call.kind is CallKind.ROOM:
            media = replace(media, view={})  # of nobody, until it is known who is there
        active = self._active = ActiveCall(
            call, media, plan, peer, terms=terms_of(self._rules, first.uri), unattended=unattended,
            emergency=emergency)
        if emergency:
            self._bulletin.post("call.emergency", callId=active.id, target=first.uri)
        self.happen(active, Signal.DIAL)
        return active

    async def make_way(self, plan: Sequence[Round]) -> None:
        """Where ``plan`` is that of the emergency target, end the call in progress, unless it is an emergency too."""
        if not self.admission.is_emergency(plan):
            return
        self._making_way = True
        try:
            while not self.idle and self._active is not None and not self._active.emergency:
                if self._active.call.state is not CallState.DISCONNECTING:
                    self.happen(self._active, Signal.HANG_UP, END_REASONS["0/emergency"])
                await self._active.closed.wait()  # LEAVE_S at most
        finally:
            self._making_way = False

    def check_callable(self, plan: Sequence[Round]) -> None:
        """Raises Refused (403/lockedDown) where nobody of the plan may be called now."""
        self.admission.check(plan)

    def current(self, call_id: str | None = None) -> ActiveCall:
        """The call in progress. Raises Refused when there is none, or another than ``call_id``."""
        active = self._active
        if active is None or not active.call.live:
            raise Refused("there is no call; call.dial or room.join begins one", sub_code="noCall", retryable=False)
        if call_id and call_id not in (active.id, active.former_id):
            raise Refused("that call is over; another one is in progress", sub_code="otherCall", retryable=False)
        return active

    def require(self, active: ActiveCall, capability: str) -> None:
        """Raises Refused (403) with the reason where the device may not do this in the call."""
        self._telling.standing(active).require(capability)

    def media_changed(self, active: ActiveCall) -> None:
        """What is wanted of the call's media has changed: do it, tell the other side, publish."""
        self._media.apply(active)
        self._media.tell(active)
        self._telling.call(active)

    def raise_hand(self, active: ActiveCall, *, raised: bool) -> None:
        """Ask the others for attention, or no longer. Raises Refused (403) where nothing can be said to them."""
        if raised:
            self.require(active, "raiseHand")
        active.hand_raised = raised
        active.to_say.set()
        self._telling.call(active)

    def show_content(self, active: ActiveCall, *, on: bool, closing: bool = True) -> None:
        """What the studio shares is shown to the others, or no longer, and then it is closed, unless ``closing`` is
        left to who calls."""
        self._media.show_content(active, on=on, closing=closing)
        if active.call.live:
            self.media_changed(active)

    def content_ended(self, active: ActiveCall, reason: Reason) -> None:
        """What is shown to the others is gone, and nobody stopped it."""
        if active.content:
            self._bulletin.post("media.contentEnded", callId=active.id, reason=reason.payload())
            self.show_content(active, on=False)

    async def save_book(self) -> None:
        """Write the address book and publish it."""
        await asyncio.to_thread(save, self._book_path, self.book.dump())
        self._telling.device()

    @property
    def ring_s(self) -> int:
        """Seconds a target rings where neither command nor address book says so."""
        return self._settings.ring_s

    @property
    def hardware_muted(self) -> bool:
        return self._media.hardware_muted

    # --- legs -------------------------------------------------------------------------------------------------------

    async def _dial(self, active: ActiveCall) -> None:
        try:
            reason = await self._dialler.run(active, active.plan)
        except Exception:
            log.exception("dialling failed; this is a defect", extra={"call_id": active.id})
            reason = END_REASONS["500/internal"]
        if reason is not None and active.call.live:
            offline = reason.key == "503/provider" and self._bulletin.document("net").get("online") is False
            self.happen(active, Signal.GONE, END_REASONS["496/networkLost"] if offline else reason)

    def _on_incoming(self, incoming: IncomingCall) -> None:
        """A provider tells of a caller."""
        peer = incoming.leg.peer
        # what a telephone network only claims is nobody's entry: the book says who may ring
        known = incoming.kind is not CallKind.PSTN or peer.verified
        entry = self.book.caller(peer) if known else None
        refusal = self._refusal(peer, entry)
        if refusal is not None:
            log.info("incoming call refused: %s", refusal.key, extra={"call_id": incoming.call_id})
            self._drop(incoming.leg, refusal)
            if refusal.sub_code in ("busy", "doNotDisturb", "lockedDown"):
                self._bulletin.post("call.missed", callId=incoming.call_id, callerInfo=peer.payload(),
                                    reason=refusal.payload())
            return
        call = Call(incoming.call_id, direction=Direction.INCOMING, kind=incoming.kind)
        active = ActiveCall(call, MediaWanted(), peer=self.book.named(peer) if known else peer, leg=incoming.leg)
        self._active = active
        self._adopt(active, incoming.leg)
        self._bulletin.post("call.incoming", callId=call.id, callerInfo=(active.peer or peer).payload())
        self.happen(active, Signal.INVITED)
        if entry is not None and entry.auto_answer and peer.verified:
            active.auto_answer = True
            self._errands.begin(self._auto_answer(active), f"call.autoAnswer[{call.id}]")

    def _refusal(self, peer: Peer, entry: Entry | None) -> Reason | None:
        if self._stopping:
            return END_REASONS["503/shutdown"]
        return self.admission.refusal(peer, entry, busy=self._making_way or not self.idle)

    async def _auto_answer(self, active: ActiveCall) -> None:
        """The caller is let in, but never unheard: a tone first, the microphone after it."""
        self._studio.play(Tone.AUTO_ANSWER)
        await asyncio.sleep(self._settings.auto_answer_delay_s)
        if active.call.state is CallState.INCOMING:
            self.happen(active, Signal.ANSWER)

    def _adopt(self, active: ActiveCall, leg: Leg) -> None:
        active.legs[leg.id] = leg
        self._errands.begin(self._read(active, leg), f"call.leg[{leg.id}]")
        self._attendance.seat(active, leg)

    async def _read(self, active: ActiveCall, leg: Leg) -> None:
        async for event in leg.events():
            try:
                self._take(active, leg, event)
            except IllegalEvent as error:  # the peer did something at a moment when it means nothing
                log.info("ignored from the peer: %s", error.message, extra={"call_id": active.id})
        if leg.id in active.legs:
            self._leg_ended(active, leg, END_REASONS["500/internal"])

    def _take(self, active: ActiveCall, leg: Leg, event: LegEvent) -> None:
        if leg.id not in active.legs:
            return  # dropped already; its last words change nothing
        ours = active.leg is None or active.leg is leg
        match event:
            case Ringing():
                self._attendance.change(active, leg.id, state=ParticipantState.RINGING)
                if active.leg is None:
                    self.happen(active, Signal.PEER_RINGS)
            case EarlyMedia():
                self._attendance.change(active, leg.id, state=ParticipantState.EARLY_MEDIA)
                if active.leg is None:
                    self.happen(active, Signal.PEER_PLAYS)
            case Accepted(peer, call_id) if ours:
                active.go_on_as(call_id)
                active.leg, active.peer = leg, self.book.named(peer)
                active.terms = terms_of(self._rules, peer.uri)
                if active.terms.closes is not None:
                    self._errands.begin(self._deadlines.keep_hours(active), f"call.hours[{active.id}]")
                active.leg_changed.set()
                self._attendance.change(active, leg.id, raw_id=peer.identity, display_name=active.peer.display_name)
                self.happen(active, Signal.PEER_ACCEPTS)
            case Connected(security) if ours:
                active.security = security
                active.begin_pictures()
                self._attendance.change(active, leg.id, state=ParticipantState.CONNECTED, joined=time.time())
                self.happen(active, Signal.MEDIA_UP)
            case Transferred(peer) if ours:
                active.handed_on, active.peer = True, self.book.named(peer) if peer.verified else peer
                self._attendance.change(active, leg.id, raw_id=peer.identity, display_name=active.peer.display_name)
                self._bulletin.post("call.transferred", callId=active.id, peer=active.peer.payload())
                self._telling.call(active)
            case Lost():
                self._attendance.change(active, leg.id, state=ParticipantState.RECONNECTING)
                self.happen(active, Signal.MEDIA_LOST)
            case Recovered():
                self._attendance.change(active, leg.id, state=ParticipantState.CONNECTED)
                self.happen(active, Signal.MEDIA_BACK)
            case PeerMedia(muted, video):
                self._attendance.change(active, leg.id, muted=muted, video=video)
            case Pictures():
                active.pictures[leg.id] = event
                if active.leg is leg:
                    self.media_changed(active)
            case Members(members):
                self._attendance.take(active, members)
            case Voices(levels) if ours:
                self._attendance.hear(active, levels, self._now())
            case Moderated() if ours:
                for kind in active.moderated(event):
                    self._bulletin.post("call.mutedByOthers", callId=active.id, kind=kind)
                self.media_changed(active)
            case Recording() if ours:
                self._recording.take(active, event)
            case ContentEnded(reason) if ours:
                self.content_ended(active, reason)
            case Held(held):
                state = ParticipantState.HOLD if held else ParticipantState.CONNECTED
                self._attendance.change(active, leg.id, state=state)
                self.happen(active, Signal.PEER_HOLDS if held else Signal.PEER_RESUMES)
            case DataReceived():
                if not self._presence.take(active, event):
                    self.messages.take(active, event)
            case Pressed() if active.leg is leg and active.call.connected is not None:
                if active.data_limits.take(leg.peer.identity):
                    told = self.on_key(active.key(event, leg.peer, self.book.caller(leg.peer)))
                    self._bulletin.post("call.dtmf.received", callId=active.id, digit=event.digit if told else None,
                                        method=event.method.value)
            case Ended(reason):
                self._leg_ended(active, leg, reason)
            case _:
                log.debug("nothing to do for %s", type(event).__name__)

    def _attended(self, active: ActiveCall) -> None:
        """The roster is another one."""
        self._media.cast(active)
        self._recording.look(active)

    def _leg_ended(self, active: ActiveCall, leg: Leg, reason: Reason) -> None:
        del active.legs[leg.id]
        active.last_leg_reason = reason
        active.leg_changed.set()
        self._attendance.leave(active, leg, reason)
        last_while_leaving = active.call.state is CallState.DISCONNECTING and not active.legs
        if active.call.live and (active.leg is leg or last_while_leaving):
            self.happen(active, Signal.GONE, reason)

    def _drop(self, leg: Leg, reason: Reason) -> None:
        self._orders.give(leg, leg.end(reason), "end")

    # --- the machine ------------------------------------------------------------------------------------------------

    def happen(self, active: ActiveCall, signal: Signal, reason: Reason | None = None) -> None:
        """Step the machine and run the effects. Raises IllegalEvent and changes nothing."""
        before = active.call.state
        active.call, effects = step(active.call, Happening(signal, reason), self._now())
        after = active.call.state
        if after is not before:
            log.info("call %s -> %s", before.value, after.value, extra={"call_id": active.id, "event": signal.value})
            self._telling.stepped(active, before)
        for effect in effects:
            self._effects[effect](active)
        self._telling.call(active)
        if active.call.connected is not None and not active.connected.done():
            active.connected.set_result(None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _setup_s(self, active: ActiveCall) -> float:
        """Until somebody has answered, every round of the plan may ring for its time."""
        ringing = sum(one.ring_s for one in active.plan) if active.leg is None else 0
        return self._settings.setup_s + ringing

    def _on_leg(self, active: ActiveCall, act: Callable[[Leg], Coroutine[Any, Any, None]], what: str) -> None:
        if active.leg is not None:
            self._orders.give(active.leg, act(active.leg), what)

    def _fail(self, leg: Leg, reason: Reason) -> None:
        active = self._active
        if active is not None and leg.id in active.legs and active.call.live and active.leg is leg:
            self.happen(active, Signal.HANG_UP, reason)

    def _end_legs(self, active: ActiveCall) -> None:
        reason = active.call.reason or END_REASONS["0/local"]
        for leg in tuple(active.legs.values()):
            self._drop(leg, reason)
        if not active.legs and active.call.state is CallState.DISCONNECTING:
            asyncio.get_running_loop().call_soon(self._nobody_left, active)

    def _nobody_left(self, active: ActiveCall) -> None:
        if active.call.state is CallState.DISCONNECTING and not active.legs:
            self.happen(active, Signal.GONE)

    def _keep_one_leg(self, active: ActiveCall) -> None:
        for leg in tuple(active.legs.values()):
            if leg is not active.leg:
                self._drop(leg, END_REASONS["487/answeredElsewhere"])

    # --- telling ----------------------------------------------------------------------------------------------------

    def _note_started(self, active: ActiveCall) -> None:
        self._telling.started(active)
        self._ledger.begun(active)
        self._media.tell(active)
        self._errands.begin(self._presence.keep_saying(active), f"call.presence[{active.id}]")

    def _close(self, active: ActiveCall) -> None:
        reason = active.call.reason or END_REASONS["0/local"]
        active.recording = False
        self._attendance.clear(active)
        self.stage.clear()
        if active.content:
            self.show_content(active, on=False)
        if not active.idle_try:
            self._ledger.ended(active, self._telling.record(active), reason)
        self._media.apply(active)
        if active.idle_try:
            self._studio.play(None)
        elif reason.sub_code == "busy":
            self._studio.play(Tone.BUSY)
        elif active.call.connected is not None:
            self._studio.play(Tone.END)
        active.closed.set()
        active.to_say.set()
        active.leg_changed.set()
        self.on_over(active)

    def _admission_changed(self) -> None:
        self._telling.device()

    def _publish_idle(self) -> None:
        self._telling.no_call()
        self._ledger.publish()
        self._telling.device()
