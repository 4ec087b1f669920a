"""Parts for tests of the call controller: a scripted way into the world, a studio and records that only remember.

They implement the Protocols of ``providers/api.py`` and ``media/api.py`` and refuse what those forbid.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.bulletin import Bulletin
from appliance.calls.book import AddressBook, Entry
from appliance.calls.commands import CallCommands
from appliance.calls.controller import CallController
from appliance.calls.ledger import Conclusion
from appliance.calls.pictures import PictureCommands
from appliance.calls.recording import RecordCommands
from appliance.calls.terms import HouseRules
from appliance.errors import Refused
from appliance.media.api import Directions, IceServers, Session, Tone
from appliance.media.ladder import Constraints
from appliance.media.layout import Face, Seat
from appliance.providers.api import (
    Accepted,
    Connected,
    Ended,
    IncomingCall,
    LegEvent,
    MediaWanted,
    Member,
    Members,
    Peer,
    Recording,
    Ringing,
    Target,
)
from appliance.settings import CallSettings
from appliance.vocabulary import END_REASONS, VERB, Command, Event, Json, Origin, Reason
from hw.api import DeviceMissingError, Fit, HardwareError, VideoMode

MONDAY_NOON = datetime(2026, 11, 23, 12, 0)  # noqa: DTZ001 - the schedule of the device is in local time


class ScriptedLeg:
    """A leg whose peer is the test: ``peer_does`` is its hand; what we did to the leg is recorded."""

    def __init__(self, leg_id: str, peer: Peer) -> None:
        self.id = leg_id
        self.peer = peer
        self.rang = False
        self.accepted: MediaWanted | None = None
        self.ended: Reason | None = None
        self.over = asyncio.Event()
        self.media: list[MediaWanted] = []
        self.told: list[dict[str, bool]] = []
        self.sent: list[tuple[str, str]] = []
        self.tries = 0  # to send
        self.no_channel: Refused | None = None  # for data messages
        self.sent_how: list[tuple[tuple[str, ...], bool, bool]] = []  # to, lossy, urgent
        self.report: list[Json] = []
        self.given_up: list[list[Json]] = []
        self.moderates = False
        self.ended_for_all: Refused | bool = False  # whether it was; or what it is refused by
        self.transfers: list[tuple[str, bool]] = []  # to whom, attended
        self.handed_on: asyncio.Future[None] | None = None  # how that goes; None: at once
        self.records = False
        self.refuses_recording: Refused | None = None
        self.ordered: list[tuple[str, str | None]] = []  # as a moderator
        self.says_goodbye = True  # whether the peer confirms an end
        self._events: asyncio.Queue[LegEvent] = asyncio.Queue()

    def peer_does(self, *events: LegEvent) -> None:
        for event in events:
            self._events.put_nowait(event)

    def up(self) -> None:
        """The peer answers and its media flows."""
        self.peer_does(Accepted(self.peer), Connected({"dtlsCipher": "test"}))

    async def events(self) -> AsyncIterator[LegEvent]:
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, Ended):
                return

    async def ring(self) -> None:
        self.rang = True

    async def accept(self, media: MediaWanted) -> None:
        self.accepted = media

    async def end(self, reason: Reason) -> None:
        if self.ended is None:
            self.ended = reason
            self.over.set()
            if self.says_goodbye:
                self.peer_does(Ended(reason))

    async def end_for_all(self) -> None:
        if isinstance(self.ended_for_all, Refused):
            raise self.ended_for_all
        self.ended_for_all = True

    async def record(self, *, on: bool) -> None:
        if self.refuses_recording is not None:
            raise self.refuses_recording
        self.peer_does(Recording(on))

    async def remove(self, participant: str) -> None:
        self.ordered.append(("remove", participant))

    async def mute_others(self, participant: str | None = None) -> None:
        self.ordered.append(("mute", participant))

    async def set_media(self, media: MediaWanted) -> None:
        self.media.append(media)

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        self.told.append({"muted": muted, "held": held, "video": video})

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        self.tries += 1
        if self.no_channel is not None:
            raise self.no_channel
        self.sent.append((channel, payload))
        self.sent_how.append((tuple(to), lossy, urgent))

    async def transfer(self, target: Target, *, attended: bool) -> None:
        self.transfers.append((target.uri, attended))
        if self.handed_on is not None:
            await self.handed_on

    async def stats(self) -> Sequence[Json]:
        return self.report

    async def replaced(self) -> Sequence[Sequence[Json]]:
        given_up, self.given_up = self.given_up, []
        return given_up


class ScriptedProvider:
    """Serves ``device``, ``operator``, ``room``, ``audio`` and ``tel``; a target in ``offline`` is refused at once."""

    name = "scripted"
    schemes = frozenset({"device", "operator", "room", "audio", "tel"})

    def __init__(self) -> None:
        self.legs: list[ScriptedLeg] = []
        self.callers: list[Peer] = []
        self.targets: list[Target] = []
        self.media: list[MediaWanted] = []  # as it was dialled with
        self.refusal: Refused | None = None  # of every target
        self.offline: set[str] = set()
        self.incoming: Callable[[IncomingCall], None] | None = None
        self.stopped = False
        self.dialled = asyncio.Event()

    async def start(self, on_incoming: Callable[[IncomingCall], None]) -> None:
        self.incoming = on_incoming

    async def stop(self) -> None:
        self.stopped = True

    def reachable(self, target: Target) -> bool | None:
        return target.uri not in self.offline

    async def dial(self, target: Target, *, call_id: str, caller: Peer, media: MediaWanted) -> ScriptedLeg:
        if self.refusal is not None:
            raise self.refusal
        if target.uri in self.offline:
            raise Refused("not online", code=480, sub_code="unreachable")
        kind = "pstn" if target.scheme == "tel" else "voip"
        leg = ScriptedLeg(f"leg-{len(self.legs) + 1}",
                          Peer(target.address, target.uri, target.address, kind, verified=True))
        self.legs.append(leg)
        self.targets.append(target)
        self.callers.append(caller)
        self.media.append(media)
        self.dialled.set()
        return leg

    def state(self) -> Json:
        return {}

    def call_in(self, peer: Peer, call_id: str = "call-1") -> ScriptedLeg:
        """Somebody calls the device."""
        assert self.incoming is not None, "the controller has not started the provider"
        leg = ScriptedLeg(f"in-{call_id}", peer)
        self.incoming(IncomingCall(call_id, leg))
        return leg


class RememberingStudio:
    """What the controller asked of the studio."""

    exchange_tick = 0.0
    shows = True
    screen_size = (1280, 720)

    def __init__(self) -> None:
        self.seats: Sequence[Seat] = ()
        self.faces: Sequence[Face] = ()
        self.fit = Fit.FIT
        self.layout: Json = {}
        self.shares = ""
        self.on_content_lost: Callable[[str], None] = lambda _why: None
        self.unreadable: dict[str, HardwareError] = {}
        self.muted = False
        self.incoming_muted = False
        self.tone: Tone | None = None
        self.tones: list[Tone] = []
        self.announced: list[Tone] = []
        self.warm = self.looking = False
        self.blind = False
        self.constraints = Constraints()

    def constrain(self, constraints: Constraints) -> None:
        self.constraints = constraints

    def limits(self) -> Json:
        return self.constraints.document() | {"inForce": self.constraints.in_force(VideoMode())}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def session(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> Session:
        raise AssertionError("the controller never makes sessions")

    def arrange(self, seats: Sequence[Seat], faces: Sequence[Face], fit: Fit, layout: Json) -> None:
        self.seats, self.faces, self.fit, self.layout = seats, faces, fit, layout

    async def share(self, source: str, *, device: bool = False) -> None:
        await self.unshare()
        if source in self.unreadable:
            raise self.unreadable[source]
        self.shares = f"device:{source}" if device else source

    async def unshare(self) -> None:
        self.shares = ""

    def mute(self, muted: bool) -> None:
        self.muted = muted

    def mute_incoming(self, muted: bool) -> None:
        self.incoming_muted = muted

    def play(self, tone: Tone | None) -> None:
        self.tone = tone
        if tone is not None:
            self.tones.append(tone)

    def announce(self, tone: Tone) -> None:
        self.announced.append(tone)

    async def warm_camera(self, warm: bool) -> None:
        self.warm = warm

    async def look(self) -> None:
        self.looking = True
        if self.blind:
            raise DeviceMissingError("it is unplugged")

    def look_away(self) -> None:
        self.looking = False

    async def snapshot(self, width: int = 640) -> bytes:
        return b""

    async def preview(self) -> bytes:
        return b""

    def levels(self) -> tuple[float, float]:
        return 0.0, 0.0

    def show(self, banner: str, hint: str = "") -> None: ...

    def blank(self) -> None: ...

    def state(self) -> Json:
        return {}


class MemoryRecords:
    """``Records`` without a disk."""

    def __init__(self) -> None:
        self.past: list[Json] = []
        self.values: dict[str, str] = {}
        self.summaries: dict[str, Json] = {}

    async def add_call(self, record: Json) -> None:
        self.past.insert(0, record)

    async def calls(self, limit: int) -> list[Json]:
        return self.past[:limit]

    async def add_summary(self, call_id: str, summary: Json) -> None:
        self.summaries[call_id] = summary

    async def get(self, name: str, default: str | None = None) -> str | None:
        return self.values.get(name, default)

    async def set(self, name: str, value: str) -> None:
        self.values[name] = value


class House:
    """A controller with its rooms; use as ``async with House() as house``."""

    def __init__(self, folder: Path, *, entries: Sequence[Entry] = (), records: MemoryRecords | None = None,
                 conclusion: Conclusion | None = None, features: dict[str, str] | None = None,
                 now: datetime = MONDAY_NOON, rules: HouseRules | None = None, **call_settings: Any) -> None:
        self.now = now
        self.wall = 0.0
        self.provider = ScriptedProvider()
        self.studio = RememberingStudio()
        self.bulletin = Bulletin("boot-1")
        self.events: list[Event] = []
        self.records = records or MemoryRecords()
        self.controller = CallController(
            me=Peer("front-door", "device:front-door", "Front door"), settings=CallSettings(**call_settings),
            providers=[self.provider], studio=self.studio, book=AddressBook(entries), book_path=folder / "book.json",
            bulletin=self.bulletin, records=self.records, conclusion=conclusion, features=features,
            rules=rules, local_time=lambda: self.now, wall=lambda: self.wall)
        self.handlers = {**CallCommands(self.controller).handlers(),
                         **PictureCommands(self.controller, self.studio, lambda: folder).handlers(),
                         **RecordCommands(self.controller).handlers()}
        self._subscription = self.bulletin.subscribed(on_event=self.events.append)
        self._count = 0

    async def __aenter__(self) -> House:
        self._subscription.__enter__()
        await self.controller.start()
        await self.controller.report_interrupted_call()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.controller.stop()
        self._subscription.__exit__(None, None, None)

    async def give(self, verb: str, **args: Any) -> Json | None:
        """Give a command and wait until it is carried out."""
        self._count += 1
        command = Command(f"c{self._count}", VERB[verb], args, Origin.INTERNAL)
        return await self.handlers[verb](command)

    def giving(self, verb: str, **args: Any) -> asyncio.Task[Json | None]:
        """Give a long command and go on."""
        return asyncio.create_task(self.give(verb, **args), name=f"test.{verb}")

    @property
    def call(self) -> Json:
        return self.bulletin.document("call")

    @property
    def reason(self) -> str:
        reason = self.call["endReason"]
        return f"{reason['code']}/{reason['subCode']}"

    def posted(self, event_type: str) -> list[Json]:
        return [event.data for event in self.events if event.type == event_type]


async def connected(house: House) -> ScriptedLeg:
    """A call from the device to the desk, answered."""
    dialling = house.giving("call.dial", to="operator:desk")
    await house.provider.dialled.wait()
    leg = house.provider.legs[-1]
    leg.peer_does(Ringing())
    leg.up()
    assert await dialling == {"callId": house.call["callId"]}
    return leg


async def in_room(house: House, *members: Member) -> ScriptedLeg:
    """A room that the device has joined, with these people in it."""
    joining = house.giving("room.join", target="1234")
    await house.provider.dialled.wait()
    leg = house.provider.legs[-1]
    leg.up()
    assert await joining == {"callId": house.call["callId"]}
    if members:
        leg.peer_does(Members(members))
        await settle()
    return leg


async def settle() -> None:
    """Let everything that is ready run; virtual time does not move."""
    for _ in range(20):
        await asyncio.sleep(0)


OPERATOR = Peer("desk", "operator:desk", "Reception", verified=True)
OPERATORS = Entry("Operators", ("operator:*",))
BUSY = END_REASONS["486/busy"]
RINGS = Ringing()
