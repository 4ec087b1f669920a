"""The media of one SIP call: the session, the lines that it has, and what is agreed for them.

``leg`` has the call itself, and decides what a fact of these means for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Final, Protocol

from appliance.media.api import Directions, SessionEvent
from appliance.media.h264 import level_of
from appliance.media.plain_rtp import Line, PlainSession
from appliance.media.transport import StreamFormat
from appliance.media.ways import Place, Protection
from appliance.providers import api
from appliance.providers.endings import last_report
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.offer import Agreed, Carrier, Negotiation, NotAcceptable, Outline
from appliance.providers.sip.sdes import MediaProtection
from appliance.providers.sip.video_line import MODE, Pictures, parameters_of
from appliance.vocabulary import Json

__all__ = ["LegMedia", "MediaGround", "Move"]

KINDS: Final = ("audio", "video")
NO_PICTURES: Final = "calls of this account carry sound alone (video, in [[sip.accounts]])"
SOUND_ALONE: Final = "there is neither camera nor screen"
NOT_SLICED: Final = (
    "the other side takes pictures in packets without fragments alone (packetization-mode 0), and the encoder of this "
    "camera does not make pieces that small")


class MediaGround(Protocol):
    """What an account gives to the media of its calls."""

    @property
    def carrier(self) -> Carrier:
        """What our calls offer, unless they are to be ``plain``."""

    def negotiation(
        self, places: Mapping[str, Place], pictures: Pictures | None, *, sending: bool, asked: bool,
        plain: bool = False,
    ) -> Negotiation:
        """``pictures``, ``sending``, ``asked``: as of a Negotiation. ``plain``: nothing is encrypted, whatever the
        settings say."""

    @property
    def pictures(self) -> bool:
        """Whether its calls may carry pictures."""

    def session(self, wanted: Directions, protections: Mapping[str, Protection]) -> PlainSession: ...

    @property
    def media_host(self) -> str: ...


class Move(Enum):
    """What an offer in the call wants of our side before it can be answered."""

    NOTHING = "all stays where it is"
    PATH = "the other side looks for another path (RFC 8445 9)"
    ANEW = "other ports, or another association (RFC 8842 3.1)"


class LegMedia:
    """On the loop. ``open`` first, and ``close`` in any case."""

    def __init__(self, ground: MediaGround, wanted: api.MediaWanted) -> None:
        self._ground = ground
        self._wanted = wanted
        self._protections = {kind: MediaProtection() for kind in KINDS}
        self._kinds: Sequence[str] = KINDS  # those that have a place
        self._sending = wanted.send_video  # as far as we want, held or not
        self._answered = False
        self._session: PlainSession | None = None
        self._last_stats: Sequence[Json] = ()
        self.negotiation: Negotiation | None = None
        """There once it is open."""
        self._agreed: Mapping[str, Agreed] = {}

    async def open(self, *, plain: bool, offer: bytes = b"") -> AsyncIterator[SessionEvent]:
        """Make the session, with its ports; returns its facts. ``offer``: of the peer, where it has made one. Raises
        OSError where the machine gives none, Malformed."""
        asked = self._wanted.send_video or self._wanted.receive_video
        outline = Outline.of(offer) if offer else Outline(
            Carrier.PORTS if plain else self._ground.carrier, pictures=asked)
        session = self._session = self._ground.session(self._directions(), self._protections)
        pictures = _able(session) if self._ground.pictures else None
        if pictures is None:
            self._kinds = KINDS[:1]
        bundled = outline.bundled or not outline.pictures
        places = await self._places(session, outline.carrier, bundled=bundled, mux=outline.mux)
        self.negotiation = self._ground.negotiation(
            places, pictures, sending=self._sending, asked=asked, plain=plain)
        return session.events()

    async def _places(
        self, session: PlainSession, carrier: Carrier, *, bundled: bool, mux: bool,
    ) -> Mapping[str, Place]:
        """``bundled``: one association will do: the other side bundles, or there are no pictures yet (paths that nobody
        needs take time). ``mux``: it says that it takes RTCP on the port of RTP."""
        host = self._ground.media_host
        if carrier is Carrier.PORTS:
            return await session.open(host, self._kinds)
        ends = await session.associate(
            host, self._kinds[:1] if bundled else self._kinds, ice=carrier is Carrier.ICE, mux=mux)
        return {kind: ends.get(kind, ends["audio"]) for kind in self._kinds}

    def accept(self, wanted: api.MediaWanted) -> None:
        """The call begins with this."""
        self._sending = wanted.send_video
        if self.negotiation is not None and self.negotiation.video is not None:
            self.negotiation.video.sending = self._sending
        self.want(wanted)

    # --- moving in the call -----------------------------------------------------------------------------------------

    def wanted_move(self, offer: bytes) -> Move:
        """What an offer in the call wants; what is wrong with it shows when it is answered."""
        session, negotiation = self._session, self.negotiation
        if session is None or negotiation is None:
            return Move.NOTHING
        try:
            if Outline.of(offer).carrier is not self._carrier:
                return Move.ANEW
            ends = negotiation.ends(offer)
        except (Malformed, NotAcceptable):
            return Move.NOTHING
        ways = [(way, end) for kind, end in ends.items() if (way := session.association(kind)) is not None]
        if not all(way.continues(end) for way, end in ways):
            return Move.ANEW
        return Move.PATH if any(way.restarts(end) for way, end in ways) else Move.NOTHING

    @property
    def _carrier(self) -> Carrier:
        """That in use."""
        end = self.agreed.end if self.agreed is not None else None
        if end is None:
            return Carrier.PORTS
        return Carrier.DTLS if end.ice is None else Carrier.ICE

    async def move(self, wanted: Move, offer: bytes = b"") -> None:
        """To other places of ours: what is agreed next is agreed for them. Without an ``offer`` one of ours follows.
        Raises OSError."""
        session, negotiation = self._session, self.negotiation
        if session is None or negotiation is None:
            return
        if wanted is Move.ANEW:
            outline = Outline.of(offer) if offer else Outline(
                self._carrier if self.agreed else self._ground.carrier)
            negotiation.move(await self._places(
                session, outline.carrier, bundled=outline.bundled, mux=outline.mux))
        elif wanted is Move.PATH:
            places = dict(negotiation.places)
            for way in session.associations:
                here = await way.restart_ice()
                places |= {kind: here for kind, place in places.items() if way.carries(place)}
            negotiation.move(places)

    async def stay(self) -> None:
        """Nothing came of the move."""
        if self._session is not None:
            await self._session.stay()

    def want(self, wanted: api.MediaWanted) -> None:
        """Send and play as wanted from now on."""
        self._wanted = wanted
        if self._session is not None:
            self._session.set_directions(self._directions())

    def tell(self, *, held: bool, video: bool) -> bool:
        """What the peer is to know of us; returns whether it takes a new description."""
        negotiation = self.negotiation
        self._sending = video
        if negotiation is None:
            return False
        changed, negotiation.held = negotiation.held is not held, held
        line = negotiation.video
        if line is not None:
            line.sending = video
            line.asked = line.asked or video
        return changed or negotiation.outdated

    def _directions(self) -> Directions:
        media, pictures = self._wanted, self._agreed.get("video")
        sees = pictures is not None and self._answered
        return Directions(
            media.send_audio, media.send_video and pictures is not None and pictures.sends and sees,
            media.receive_audio, media.receive_video and sees)

    def agree(self, agreed: Mapping[str, Agreed], *, answered: bool) -> bool:
        """Both descriptions say so. ``answered``: the call is; before, nothing is due. False: nothing of it can be
        used; it speaks of another association than that which our places are in use for."""
        session = self._session
        if session is None:
            return True
        left = self._agreed.keys() - agreed.keys()
        stopped = {kind: replace(self._agreed[kind], sends=False, receives=False) for kind in left}
        lines = {kind: _line_of(kind, line) for kind, line in (stopped | dict(agreed)).items()}
        if not all(session.can_agree(kind, line) for kind, line in lines.items()):
            return False
        self._agreed, self._answered = agreed, answered
        for kind, line in agreed.items():
            self._protections[kind].agree(line.keys)
        session.peer_sends(audio=agreed["audio"].receives and answered, video=self.peer_shows and answered)
        session.set_directions(self._directions())
        session.agree(lines)
        return True

    def send_key_frame(self) -> None:
        if self._session is not None:
            self._session.send_key_frame()

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def agreed(self) -> Agreed | None:
        """For the sound."""
        return self._agreed.get("audio")

    @property
    def peer_shows(self) -> bool:
        """Whether the peer sends pictures, by its word."""
        pictures = self._agreed.get("video")
        return pictures is not None and pictures.receives

    @property
    def pictures(self) -> api.Pictures:
        """Whether pictures can be sent, by what has been said so far."""
        line = self.negotiation.video if self.negotiation is not None else None
        if line is None:
            return api.Pictures(False, SOUND_ALONE if self._ground.pictures else NO_PICTURES)
        if line.agreed is None:
            return api.Pictures(False, line.refusal)
        return api.Pictures(True) if line.sendable else api.Pictures(False, NOT_SLICED)

    @property
    def session(self) -> PlainSession | None:
        return self._session

    @property
    def sound_has_come(self) -> bool:
        stream = self._session.incoming.get("audio") if self._session is not None else None
        return stream is not None and bool(stream.counters.packets or stream.counters.reports)

    @property
    def heard_energy(self) -> float:
        """Of all that was heard of the other side so far (W3C totalAudioEnergy)."""
        return 0.0 if self._session is None else self._session.voice_in.counters.energy

    @property
    def sound_encrypted(self) -> bool:
        return self._session is not None and bool(self._session.security)

    async def stats(self) -> Sequence[Json]:
        """Of media that are closed, those at their end."""
        return await self._session.stats() if self._session is not None else self._last_stats

    # --- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._last_stats = await last_report(session)
            await session.close()


def _able(session: PlainSession) -> Pictures | None:
    """What the board can; None where it has neither camera nor screen."""
    camera = session.camera
    if camera is None:
        return Pictures(camera=False, receive_bps=session.receive_limit) if session.shows else None
    return Pictures(screen=session.shows, slices=camera.slices, level=level_of(camera.wanted_mode), sprop=camera.sprop,
                    receive_bps=session.receive_limit)


def _line_of(kind: str, agreed: Agreed) -> Line:
    chosen, parameters = agreed.format, parameters_of(agreed.format)
    if kind == "video":
        parameters.setdefault(MODE, "0")
    return Line(
        StreamFormat(
            f"{kind}/{chosen.spelt}", chosen.payload_type, chosen.clock_rate, chosen.channels, agreed.packet_time_ms,
            agreed.event, agreed.noise, parameters, agreed.feedback, agreed.bandwidth, sends=agreed.sends,
            receives=agreed.receives),
        (agreed.host, agreed.port), None if agreed.rtcp is None else (agreed.host, agreed.rtcp), agreed.end,
        agreed.place, agreed.mux)
