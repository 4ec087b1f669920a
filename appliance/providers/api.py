"""What the call controller asks of a way into the world, and what it is told.

A provider turns targets into legs; a leg is one connection to one peer (or room) and is used once. The controller
owns call state: a leg only reports facts as LegEvents and does what it is told. Everything runs on the loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.media.layout import Quality, Source
from appliance.vocabulary import CallKind, Json, KeyMethod, Reason

__all__ = [
    "Accepted",
    "CallProvider",
    "Connected",
    "ContentEnded",
    "DataReceived",
    "DataSent",
    "EarlyMedia",
    "Echo",
    "Echoes",
    "Ended",
    "Held",
    "IncomingCall",
    "Leg",
    "LegEvent",
    "Lost",
    "MediaWanted",
    "Member",
    "Members",
    "Moderated",
    "Peer",
    "PeerMedia",
    "Pictures",
    "Pressed",
    "Recording",
    "Recovered",
    "Returned",
    "Ringing",
    "Target",
    "Transferred",
    "Voices",
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to call: ``scheme:address`` of an address-book URI, e.g. ``device:lobby-2``, ``operator:desk``.

    ``pin``: what opens a room, where it is not the one of the settings; ``shown_as``: our name in the room, where it is
    not that of the device. ``emergency``: no guard of the provider stops
    it. ``plain``: nothing is encrypted, for that has failed, and the call matters more. ``digits``: what a telephone is
    told by its keys once it has answered, ``,`` a pause of 2 s and ``w`` until it has said what it says.
    """

    scheme: str
    address: str
    pin: str = field(default="", repr=False)
    emergency: bool = False
    plain: bool = False
    digits: str = field(default="", repr=False)
    shown_as: str = ""

    @property
    def uri(self) -> str:
        return f"{self.scheme}:{self.address}"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side. ``identity`` is proven (``verified``) by token or by the broker's ACL, else only claimed."""

    identity: str  # raw id: device id, user name, number
    uri: str  # where to call it back
    display_name: str
    kind: str = "voip"  # voip, pstn, device, bot, unknown
    verified: bool = False

    def payload(self) -> Json:
        """``callerInfo`` of events."""
        return {"rawId": self.identity, "uri": self.uri, "displayName": self.display_name, "kind": self.kind,
                "verified": self.verified}


@dataclass(frozen=True, slots=True)
class MediaWanted:
    """What we want to send and receive; a legal call may lack any of the four.

    ``listens_only``: nothing is sent in this call, nor will be: there is nothing to negotiate for it. ``view``: whose
    pictures of a room, and how large; None: those of everybody. ``content``: what the studio shares is sent, too.
    """

    send_audio: bool = True
    send_video: bool = True
    receive_audio: bool = True
    receive_video: bool = True
    listens_only: bool = False
    view: Mapping[Source, Quality] | None = None
    content: bool = False


# --- what a leg tells -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ringing:
    """The peer was reached and rings."""


@dataclass(frozen=True, slots=True)
class EarlyMedia:
    """The peer plays something before it answers: its own ringing tone, an announcement, a menu."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer answered; media is being connected. ``peer`` is who really answered.

    ``call_id``: the id the call has from now on, where it is another one: both sides called each other, and the
    peer's call lives. None: as it was.
    """

    peer: Peer
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """Transport is up and every negotiated direction that owed media has shown some."""

    security: Json = field(default_factory=dict)  # dtlsCipher, srtpCipher, tlsVersion, verified (F18)


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing arrived for 3 s on a transport where something was due, or signalling and media are gone."""

    cause: str  # media | signalling


@dataclass(frozen=True, slots=True)
class Recovered:
    """A new transport of the same leg is up."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """The call goes on with somebody else, to whom the peer has handed it, or who has taken the peer's place."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerMedia:
    """The peer's own mute, hold and video as it tells them."""

    muted: bool = False
    video: bool = False


@dataclass(frozen=True, slots=True)
class Pictures:
    """Whether pictures of ours are ``carried``, by what was said between both sides so far. Where they are not they may
    be asked for, unless there is a ``refusal``: why they cannot be."""

    carried: bool
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody else in a room. ``id`` is the room's, and unique there. ``video``: there is a picture to be had,
    ``receiving``: it comes; ``away``: nothing of this member arrives that should; ``connecting``: nothing yet;
    ``quality``: how well it arrives, 5 excellent to 0 not at all; ``content``: something is shared."""

    id: str
    identity: str
    display_name: str
    muted: bool = False
    speaking: bool = False
    video: bool = False
    receiving: bool = False
    away: bool = False
    quality: int | None = None
    content: bool = False
    content_receiving: bool = False
    connecting: bool = False


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in the room beside us, all of them, in the order in which they came."""

    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Voices:
    """How loud each member of the room has been in the last quarter of a second, in dBFS."""

    levels: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moderated:
    """What a moderator of the room keeps from being handed on of what we send, all of it."""

    audio: bool = False
    video: bool = False


@dataclass(frozen=True, slots=True)
class ContentEnded:
    """What we share is not sent any more, though it is wanted."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Recording:
    """The other side records the call by our word, or no longer. ``reason``: why it ended where nobody stopped it."""

    on: bool
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The peer holds (or resumes) the call."""

    held: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """``sender``: id of a member, as it says, or of the leg; ``lost``: of its messages before this one."""

    channel: str
    payload: str
    sender: str = ""
    lost: int = 0


@dataclass(frozen=True, slots=True)
class DataSent:
    channel: str
    size: int


@dataclass(frozen=True, slots=True)
class Pressed:
    """The peer pressed a key of its telephone: ``0`` to ``9``, ``*``, ``#``, ``A`` to ``D``. ``encrypted``: signalling
    and sound are, so that nobody on the way can have pressed it."""

    digit: str
    encrypted: bool = False
    method: KeyMethod = KeyMethod.EVENTS


@dataclass(frozen=True, slots=True)
class Ended:
    """The leg is over; nothing follows, its resources are gone or going."""

    reason: Reason


LegEvent = (Ringing | EarlyMedia | Accepted | Connected | ContentEnded | Lost | Recovered | PeerMedia | Pictures
            | Members | Voices | Moderated | Recording | Held | DataReceived | DataSent | Pressed | Transferred | Ended)


class Leg(Protocol):
    """One connection to one peer. Every method may be called after the end and then does nothing."""

    @property
    def id(self) -> str: ...

    @property
    def peer(self) -> Peer: ...

    def events(self) -> AsyncIterator[LegEvent]:
        """Facts in order; ends after Ended. One consumer."""

    async def ring(self) -> None:
        """Incoming: tell the caller that it rings here."""

    async def accept(self, media: MediaWanted) -> None:
        """Incoming: answer. Connected (or Ended) follows as an event."""

    async def end(self, reason: Reason) -> None:
        """Reject, cancel, or hang up, by the state of the leg; done within 2 s. Ended follows."""

    @property
    def moderates(self) -> bool:
        """Whether we moderate a room: ``end_for_all``, ``remove`` and ``mute_others`` have a chance."""

    async def end_for_all(self) -> None:
        """Send everybody else away, within 5 s; ``end`` for ourselves follows. Raises Refused (403) where the other
        side does not let us, and EdgecallError where it does not answer."""

    @property
    def records(self) -> bool:
        """Whether ``record`` has a chance."""

    async def record(self, *, on: bool) -> None:
        """Have the other side record everybody in the call, or no longer, within 5 s; Recording follows. It ends with
        the leg. Raises Refused (403) where the other side does not let us, and EdgecallError where it does not answer.
        """

    async def remove(self, participant: str) -> None:
        """Send one of the roster, by its id there, away within 5 s. Raises as ``end_for_all``."""

    async def mute_others(self, participant: str | None = None) -> None:
        """Mute the microphone of one of the roster, or of all others, within 5 s. Raises as ``end_for_all``."""

    async def set_media(self, media: MediaWanted) -> None:
        """Start or stop sending; takes effect without renegotiation where the transport can."""

    async def tell(self, *, muted: bool, held: bool, video: bool) -> None:
        """Tell the peer our own mute, hold and video."""

    async def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        """A data message, to those of these ids in the roster, or all. Reliable and ordered, unless ``lossy``;
        ``urgent``: also while others wait. Raises Refused when there is no channel, or it takes no more."""

    async def press(self, digits: str, seconds: float, method: KeyMethod | None = None) -> None:
        """Press keys of a telephone (0 to 9, *, #, A to D), each for so long; without a ``method`` by the best that the
        other side takes. Raises Refused where none can be."""

    async def transfer(self, target: Target, *, attended: bool) -> None:
        """Hand the peer on to somebody else, within 60 s; ``end`` for ourselves follows. ``attended``: only when that
        one has answered us. Raises Refused where it comes to nothing, and the call is as it was."""

    async def stats(self) -> Sequence[Json]:
        """W3C webrtc-stats dictionaries (SI units); of a leg that is over, those at its end."""

    async def replaced(self) -> Sequence[Sequence[Json]]:
        """The last ``stats`` of each connection that was given up since this was asked, oldest first; each is told
        once."""


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """Somebody calls. ``call_id`` is the caller's, shared by both sides."""

    call_id: str
    leg: Leg
    kind: CallKind = CallKind.P2P
    context: Mapping[str, Any] = field(default_factory=dict)


class CallProvider(Protocol):
    """One way into the world."""

    @property
    def name(self) -> str: ...

    @property
    def schemes(self) -> frozenset[str]:
        """Target schemes it serves, e.g. ``{"device", "operator", "lan"}``."""

    async def start(self, on_incoming: Callable[[IncomingCall], None]) -> None: ...

    async def stop(self) -> None:
        """End what is left within 2 s; may be called twice."""

    def reachable(self, target: Target) -> bool | None:
        """Whether the target is online right now; None: not known."""

    async def dial(self, target: Target, *, call_id: str, caller: Peer, media: MediaWanted) -> Leg:
        """Begin to call. Raises Refused (480/unreachable, 404/notFound) when that is known at once."""

    def state(self) -> Json:
        """For ``state/provider``: connections, who is there, calls, and by target scheme whether it can be called now
        or why not. Cheap: asked several times a second."""


# --- trying out -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back of one kind of our own media. Packets, and seconds; ``pictures``: whole ones."""

    sent: int
    received: int
    lost: int
    jitter_s: float
    round_trip_s: float | None
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class Echo:
    """What came of a test call to a server that sends us ourselves. Seconds from its beginning until the server was
    reached, has let us in, and sent something back; None: not so far. ``kinds``: audio and video, each only where it
    was sent; ``failure``: why it was not carried to its end."""

    server: str
    reached_s: float | None = None
    admitted_s: float | None = None
    connected_s: float | None = None
    kinds: Mapping[str, Returned] = field(default_factory=dict)
    failure: Reason | None = None


class Echoes(Protocol):
    """A provider whose server can be tried out before a call."""

    async def echo(self, seconds: float) -> Echo:
        """Call its echo service for so long, and 16 s more at most. May be cancelled at any moment, and leaves nothing.
        Raises Refused where the server has none."""
