"""What calls and providers ask of the media rooms. Implemented by ``studio.Studio`` and ``webrtc.WebRtcSession``.

Everything here runs on the loop. ``Studio`` owns the board's microphone, loudspeaker, camera and screen; a
``Session`` is one RTCPeerConnection to one peer and is used once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from appliance.media.ladder import Constraints
from appliance.media.layout import Face, Seat, Shows
from appliance.media.taps import Tap
from appliance.network import Network
from appliance.vocabulary import Json
from hw.api import Fit, Picture

__all__ = [
    "ENCODED_LIMIT",
    "PICTURES_LIMIT",
    "SOUND_LIMIT",
    "AccessUnit",
    "DataLine",
    "DataMessage",
    "Directions",
    "Gallery",
    "IceFragment",
    "IceServers",
    "OnLine",
    "ServerSession",
    "Session",
    "SessionBlocked",
    "SessionClosed",
    "SessionDigit",
    "SessionEvent",
    "SessionKeyWanted",
    "SessionPassed",
    "SessionSilent",
    "SessionSound",
    "SessionStranded",
    "SessionUp",
    "SoundBlock",
    "Studio",
    "Tone",
]

ENCODED_LIMIT: Final = 4_000_000  # bytes that wait for a consumer at most: 10 s of 3 Mbit/s
PICTURES_LIMIT: Final = 8_000_000  # five pictures of 720p
SOUND_LIMIT: Final = 480_000  # 5 s


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN from settings, best first; empty means host candidates only (never a public default).

    The login is for all TURN servers; with a ``secret`` shared with them one is made of it for each connection.
    ``ca_file``: authority of the certificates of ``turns:`` ones, else the system's.
    """

    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class IceFragment:
    """What one side tells of its ICE session apart from a description: credentials, and candidates as text
    (``candidate:…``). ``lite``: it only answers checks (RFC 8445 2.5)."""

    username: str
    password: str = field(repr=False)
    candidates: tuple[str, ...] = ()
    lite: bool = False


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One encoded picture of the peer: H.264 in Annex B, as it came over the network."""

    data: bytes
    timestamp: int  # RTP, 90 kHz, 32 bits
    key: bool  # an IDR picture with its parameter sets: decoding may begin here
    began_s: float  # monotonic: when the first packet came that was needed for it
    arrived_s: float  # monotonic: when it was complete and everything before it was handed on


@dataclass(frozen=True, slots=True)
class SoundBlock:
    """10 ms of sound: 480 samples of 16 bit, little-endian, mono at 48 kHz."""

    pcm: bytes
    at_s: float  # monotonic: when the sound card took or gave it


@dataclass(frozen=True, slots=True)
class Directions:
    """Wanted media of one session, seen from us."""

    send_audio: bool = True
    send_video: bool = True
    receive_audio: bool = True
    receive_video: bool = True


@dataclass(frozen=True, slots=True)
class SessionUp:
    """The transport is up, and of what is negotiated to be received RTP or an RTCP SR of the sound has come; without
    sound of the picture, which is not waited for longer than 10 s.

    ``security``: names of protocol and ciphers, and ``verified``, false where nothing is encrypted."""

    security: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionSilent:
    """Nothing at all (RTP, RTCP, authenticated STUN, data) arrived for 3 s on a transport where something was due, or
    of a peer that was asked. Of a path that was there also before SessionUp: a new session may be up sooner."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SessionSound:
    """Something arrives again after SessionSilent."""


@dataclass(frozen=True, slots=True)
class SessionBlocked:
    """Of a connection to a server that is there and reports: for 5 s no media have passed. Nothing comes to it of what
    is sent, by its reports; or here nothing of sound that it owes without a pause. ``before``: on this connection some
    have; without that it may be a server that never reports, or has nothing to send."""

    before: bool


@dataclass(frozen=True, slots=True)
class SessionPassed:
    """Media pass: for the first time, or again after SessionBlocked."""


@dataclass(frozen=True, slots=True)
class SessionStranded:
    """The network of this machine is another one, and only a new session can use it (there is no ICE restart).

    ``gone``: the address that the path begins at does not exist any more. Else the default route has changed: the path
    may still carry, but a better one is there.
    """

    gone: bool


@dataclass(frozen=True, slots=True)
class SessionDigit:
    """The peer pressed a key of its telephone: ``0`` to ``9``, ``*``, ``#``, ``A`` to ``D``. ``heard``: in the sound
    itself, where anybody may have made it."""

    digit: str
    heard: bool = False


@dataclass(frozen=True, slots=True)
class SessionKeyWanted:
    """A key frame of the peer is needed, and RTCP is no way to ask it for one."""


@dataclass(frozen=True, slots=True)
class DataMessage:
    """``sender``: in a room, its id there, as the server says; ``to``: the ids of those who are meant, as the sender
    says; ``lost``: how many of its messages before this one have not come."""

    channel: str
    payload: str
    sender: str = ""
    to: tuple[str, ...] = ()
    lost: int = 0


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is over. ``why``: ``closed`` by us, ``iceFailed``, ``dtls``, ``lost`` (no consent for 30 s, or the
    peer closed DTLS without a word of signalling), ``oneWayMedia``, ``internal`` (a fault of ours ended a stream)."""

    why: str
    detail: str = ""


SessionEvent = (SessionUp | SessionSilent | SessionSound | SessionBlocked | SessionPassed | SessionStranded
                | SessionDigit | SessionKeyWanted | DataMessage | SessionClosed)


class Session(Protocol):
    """One peer connection, H.264 passed through from the board, voice both ways, one data channel ``edgecall``."""

    @property
    def up(self) -> bool:
        """SessionUp has been told, and SessionClosed has not: from here on silence is told."""

    async def offer(self) -> str:
        """Create and set the local offer; SDP with all candidates (they are gathered within 300 ms without STUN)."""

    async def answer(self, offer: str) -> str:
        """Take the peer's offer (at most 64 KiB) and return our answer. Raises SignalingError for any bad SDP,
        and Refused(488/noCodec) when no media line has a codec in common."""

    async def accept_answer(self, answer: str) -> None:
        """Take the peer's answer to our offer. Raises SignalingError."""

    async def add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        """Trickled candidate (RFC 8838), ``""`` is the end of candidates. A bad one raises SignalingError."""

    def events(self) -> AsyncIterator[SessionEvent]:
        """Facts in order, ends after SessionClosed. One consumer."""

    def set_directions(self, wanted: Directions) -> None:
        """Start or stop sending and playing at once, without renegotiation: a stopped track sends nothing."""

    def peer_sends(self, *, audio: bool, video: bool) -> None:
        """What the peer says it sends now (its mute, hold, video state): what is not sent is not missed."""

    def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        """Data message of at most 64 KiB, in frames of ``messages``; ``to``: of a room, where all get it. It goes on
        the RTCDataChannel ``edgecall``, reliable and ordered; where ``lossy`` on ``edgecall-lossy``, in any order and
        never twice, if the peer has one. The side that offers opens both. ``urgent``: also while others wait. Raises
        Refused when the channel is not open (409/noDataChannel), backed up (409/dataBacklog) or the message too large
        (413/tooLarge)."""

    def tap_encoded(self, limit_bytes: int = ENCODED_LIMIT) -> Tap[AccessUnit]:
        """The peer's pictures as they came, from the next key frame on, which is asked for: what a recording keeps
        without encoding it again. Nothing is decoded for it."""

    def tap_pictures(self, limit_bytes: int = PICTURES_LIMIT) -> Tap[Picture]:
        """The peer's pictures decoded, also while they are not shown."""

    async def stats(self) -> Sequence[Json]: ...

    async def close(self) -> None:
        """Within 1 s, may be called twice; the loop is never blocked by a decoder."""


class ServerSession(Session, Protocol):
    """One peer connection to a media server, which takes news of ICE after the descriptions (RFC 8838, RFC 8839 4.4).
    """

    @property
    def description(self) -> str:
        """Ours, once there is one."""

    @property
    def connected(self) -> bool:
        """There is a path, and it is encrypted."""

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        """Whether ``kind`` is sent and received as agreed."""

    async def gather_more(self, ice: IceServers) -> IceFragment | None:
        """Ask these servers too, while there is no path; what they give is checked at once. None: nothing new."""

    async def restart_ice(self) -> IceFragment:
        """Credentials and candidates anew, by the network as it is now; media go on by the old path as far as it
        carries. Raises ConnectionError when it is over."""

    async def ice_restarted(self, theirs: IceFragment) -> bool:
        """Take the server's, and look for a path, for up to a minute: whether there is one. Without one, and where this
        is cancelled, the session is of no use any more."""


@dataclass(frozen=True, slots=True)
class OnLine:
    """Who is on a media line of a room. ``feed``: the room's id of the person; ``shows``: what a picture is of."""

    feed: str
    shows: Shows = Shows.PERSON


class DataLine(Protocol):
    """One connection without media, with one data channel to a server, which offers it. Events are those of a session:
    SessionUp when the channel is open, and a DataMessage for each text; of silence none."""

    async def answer(self, offer: str) -> str:
        """Take the server's offer (at most 64 KiB) and return the answer. Raises SignalingError for any bad SDP."""

    def require(self, *, urgent: bool) -> None:
        """Raises Refused where nothing can be written: 409/noDataChannel, 409/dataBacklog. ``urgent``: also while
        others wait."""

    def write(self, texts: Sequence[str]) -> None:
        """In order and reliably, each of at most 64 KiB; to nobody where the channel is not open."""

    def events(self) -> AsyncIterator[SessionEvent]:
        """Facts in order, ends after SessionClosed. One consumer."""

    async def close(self) -> None:
        """Within 1 s, may be called twice."""


class Gallery(Protocol):
    """One connection that only receives, many voices and pictures; the room's server offers, at first and anew."""

    on_absence: Callable[[], None]
    """Called when ``absent`` or ``still`` is another set, or ``levels`` are others."""

    on_voices: Callable[[Mapping[str, float]], None]
    """Called every quarter of a second with how loud each feed on a line has been, in dBFS; played or not."""

    async def answer(self, offer: str, lines: Mapping[str, OnLine]) -> str:
        """Take an offer of the room (at most 64 KiB) and return the answer. ``lines``: who is on each media line, by
        MID; a line that is not named carries nobody. Raises SignalingError for any bad SDP."""

    async def add_candidate(self, candidate: str) -> None:
        """Trickled candidate of the server, ``""`` is the end of candidates. A bad one raises SignalingError."""

    def carry(self, lines: Mapping[str, OnLine]) -> None:
        """Without an offer other people are on the lines from here on."""

    def events(self) -> AsyncIterator[SessionEvent]:
        """Facts in order, ends after SessionClosed. One consumer."""

    def set_wanted(self, *, audio: bool, video: bool) -> None:
        """Play and show what is received, or not; at once."""

    @property
    def up(self) -> bool:
        """As of a session."""

    @property
    def levels(self) -> Mapping[str, int]:
        """How well what people send arrives, 5 excellent to 1 bad, by feed, as far as it is known."""

    @property
    def absent(self) -> Set[str]:
        """Feeds of which nothing has arrived for two seconds."""

    @property
    def still(self) -> Set[str]:
        """MIDs of the lines with somebody on them on which nothing has arrived for two seconds."""

    async def stats(self) -> Sequence[Json]: ...

    async def close(self) -> None:
        """Within 1 s, may be called twice."""


class Tone(Enum):
    """What the loudspeaker plays by itself."""

    RING = "ring"  # somebody calls us; repeats
    RINGBACK = "ringback"  # we call somebody; repeats
    AUTO_ANSWER = "autoAnswer"  # once, before the microphone opens
    BUSY = "busy"  # three beeps
    END = "end"  # one low beep
    CAMERA = "camera"  # a click: the camera has opened, and nobody has called
    RECORDED = "recorded"  # two high beeps: the call is recorded


class Studio(Protocol):
    """The board's media, shared by all sessions."""

    async def open(self) -> None:
        """Start the audio exchange and warm the codecs; a missing device is a diagnostic, not an error."""

    async def close(self) -> None: ...

    def session(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> Session:
        """A new session that sends microphone and camera and plays and shows what it receives.

        ``loopback``: the peer came by a loopback address, so 127.0.0.1 and ::1 are gathered as well; so they are
        when there is no other address.
        """

    def publication(
        self, wanted: Directions, *, ice: IceServers, loopback: bool, data: bool = False,
    ) -> ServerSession | None:
        """A session that only sends, microphone and camera: to a server; None where the board has neither. ``data``:
        and data messages."""

    def playback(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> ServerSession:
        """A session that only receives: what a server plays."""

    def conversation(self, wanted: Directions, *, ice: IceServers, loopback: bool, speaks: bool) -> ServerSession:
        """A session of sound alone, with a server that mixes what many say. ``speaks``: the microphone is sent, too,
        where there is one."""

    def gallery(self, *, ice: IceServers, loopback: bool) -> Gallery:
        """What a room sends: each voice is played, each picture shown."""

    on_content_lost: Callable[[str], None]
    """Told that nothing comes any more of what is shared, though it was opened, and why. It is still to be closed."""

    def data_line(self, *, ice: IceServers, loopback: bool) -> DataLine:
        """A connection for texts alone."""

    async def share(self, source: str, *, device: bool = False) -> None:
        """Open a picture or video file (its path), or a capture ``device`` (its id), that is to be shown to others, in
        place of the one that is; it is encoded from here on. Raises HardwareError where it cannot be opened or decoded,
        and then nothing is shared."""

    async def unshare(self) -> None:
        """Close it; nothing happens where there is none."""

    def shared(self, *, ice: IceServers, loopback: bool) -> Session | None:
        """A session that only sends its picture; None where nothing is shared."""

    @property
    def sends(self) -> bool:
        """Whether there is a microphone or a camera."""

    @property
    def shows(self) -> bool:
        """Whether there is a screen for pictures."""

    @property
    def screen_size(self) -> tuple[int, int]:
        """Of the screen, in pixels; of a usual one where there is none."""

    def arrange(self, seats: Sequence[Seat], faces: Sequence[Face], fit: Fit, layout: Json) -> None:
        """Who sits where on the screen from now on, and what is known of them; ``layout`` stands in the state. Before
        the first time all pictures stand in a grid."""

    def mute(self, muted: bool) -> None:
        """Microphone: from the next block on only silence leaves, in every session."""

    def mute_incoming(self, muted: bool) -> None:
        """Loudspeaker: received sound is not played (it is still received)."""

    def network_changed(self, before: Network, now: Network) -> None:
        """Sessions whose path begins where nothing is any more, or goes another way now, tell SessionStranded."""

    def tap_received(self, limit_bytes: int = SOUND_LIMIT) -> Tap[SoundBlock]:
        """What all peers say, mixed, also while the loudspeaker is muted and without the device's own tones. A block
        every 10 ms, silence too."""

    def tap_microphone(self, limit_bytes: int = SOUND_LIMIT) -> Tap[SoundBlock]:
        """What leaves for the peers before it is encoded: without the echo, and silence while muted."""

    def play(self, tone: Tone | None) -> None:
        """Play a tone; None stops a repeating one."""

    def announce(self, tone: Tone) -> None:
        """Play a tone here and to everybody who is sent the microphone, muted or not."""

    @property
    def constraints(self) -> Constraints:
        """Limits on the picture that somebody asked for."""

    def constrain(self, constraints: Constraints) -> None:
        """Take other limits, at once and for sessions to come: on what is sent by the encoder's size, rate and bit
        rate, on what is received by telling each peer."""

    def limits(self) -> Json:
        """``constraints`` in the form of ``video.constraints``, and as ``inForce`` what they come to: the size,
        rate and bit rate of the picture sent at most (absent without a camera whose encoder can be set), and the bit
        rate peers are asked for."""

    async def warm_camera(self, warm: bool) -> None:
        """Open the camera before a call is answered (the visitor's picture), or let it go; sessions keep it too."""

    async def look(self) -> None:
        """Open the camera for a look at oneself, until ``look_away``. Raises HardwareError when it does not open."""

    def look_away(self) -> None: ...

    async def snapshot(self, width: int = 640) -> bytes:
        """JPEG of the camera, which counts as open for two seconds at the least. Raises HardwareError."""

    async def preview(self) -> bytes:
        """The newest picture of the camera as JPEG, of 640 pixels at most, for who asks some times a second: it costs
        less than a snapshot. The camera counts as open as for that. Raises HardwareError."""

    def levels(self) -> tuple[float, float]:
        """Level of microphone and loudspeaker over the last 100 ms, 0..1 (RMS of full scale)."""

    def show(self, banner: str, hint: str = "") -> None:
        """Text of the board's screen beside the pictures that sessions show."""

    def blank(self) -> None:
        """A dark screen, until there is another text or picture."""

    @property
    def exchange_tick(self) -> float:
        """Monotonic time of the last audio exchange, for the watchdog; it ticks without a device too."""

    @property
    def sending_tick(self) -> float:
        """Monotonic time since which the oldest frame in the hands of a send task is being sent, now while there is
        none, for the watchdog: a frame is not in hand while its stream waits for a source or for the network."""

    def lag(self) -> Json:
        """What each stage on the way of picture and sound takes, as members of ``x-device``: of the session whose
        picture lags most. What is not known is not there."""

    def state(self) -> Json:
        """For ``state/media``: per kind wanted and actual, codec, encoder kind, sizes, rates, dropped counters."""
