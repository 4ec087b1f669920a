"""The microphone's way from the board to the encoder: canceller and filters, echo meter, half duplex, talk key.

``process`` runs on the audio thread and never waits; everything else on the loop. What is set there is taken over at
a block's end: a new chain runs beside the old one until it has converged, and is faded in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.media.canceller import EchoCanceller, Factory, Filters
from appliance.media.echo import WINDOW_BLOCKS, Duplex, DuplexPolicy, DuplexWanted, EchoMeter, HalfDuplexGuard
from appliance.media.sound import BLOCK_MS, SILENCE, crossfade, mean_square
from appliance.vocabulary import Json

__all__ = ["Treatment", "VoiceProcessing"]

NOTHING: Final = Filters()
OVERLAP_BLOCKS: Final = 500 // BLOCK_MS  # AEC3 is at 20 dB within half a second
UNKNOWN_PATH_DB: Final = 0.0  # an echo as loud as what is played, until it is measured


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is wanted for the microphone's sound."""

    filters: Filters = NOTHING
    duplex: DuplexWanted = DuplexWanted.OFF

    @property
    def any(self) -> bool:
        return self.filters.any or self.duplex is not DuplexWanted.OFF


class _Chain:
    """Through ``canceller`` when there is one, untouched otherwise."""

    def __init__(self, filters: Filters, canceller: EchoCanceller | None) -> None:
        self.filters = filters if canceller is not None else NOTHING
        self._canceller = canceller

    def process(self, heard: bytes, played: bytes) -> bytes:
        return heard if self._canceller is None else self._canceller.process(heard, played)

    @property
    def gain_db(self) -> float:
        return 0.0 if self._canceller is None else self._canceller.gain_db


class VoiceProcessing:
    """``find`` looks for a canceller; it is asked once, by ``load``, when a filter is wanted for the first time."""

    def __init__(self, treatment: Treatment, find: Callable[[], Factory | None], *, talk_key: bool = False) -> None:
        self._wanted = treatment
        self._find = find
        self._factory: Factory | None = None
        self._looked = False
        self._talk_key = talk_key
        self._delay_ms = 0
        self._chain = _Chain(NOTHING, None)
        self._next: _Chain | None = None
        self._overlap = 0
        self._guard = HalfDuplexGuard()
        self._ducked = 0  # blocks, at the last look
        self._policy = DuplexPolicy()
        self.meter = EchoMeter()
        self.talking = False  # the talk key is held
        self.on_taken: Callable[[], None] = _nobody
        """Called on the audio thread when the wanted filters have come into force."""

    # -- on the loop

    @property
    def wanted(self) -> Treatment:
        return self._wanted

    def must_load(self, treatment: Treatment) -> bool:
        return treatment.filters.any and not self._looked

    def load(self) -> None:
        """Import the canceller. Blocking; once, before it is wanted."""
        self._factory, self._looked = self._find(), True

    def want(self, treatment: Treatment) -> None:
        """Take over what is wanted within half a second, without a gap. ``load`` first if ``must_load``. Where there is
        no canceller although one is wanted, one side is heard at a time."""
        lacking = treatment.filters.aec and self._factory is None
        if treatment != self._wanted or lacking:
            self._policy = DuplexPolicy(Duplex.HALF if lacking else Duplex.FULL)
        self._wanted = treatment
        filters = treatment.filters if self._factory is not None else NOTHING
        if filters != (self._next or self._chain).filters:
            self._change(filters)

    def set_path(self, delay_ms: int) -> None:
        """The delay of the acoustic path, as measured; the canceller begins there to look for it."""
        if delay_ms != self._delay_ms:
            self._delay_ms = delay_ms
            self.meter.set_delay(delay_ms // BLOCK_MS)
            if self._chain.filters.aec:
                self._change((self._next or self._chain).filters)

    def _change(self, filters: Filters) -> None:
        factory = self._factory
        made = factory(filters, self._delay_ms) if factory is not None and filters.any else None
        self._overlap = OVERLAP_BLOCKS
        self._next = _Chain(filters, made)  # last: the audio thread looks at it alone

    @property
    def active(self) -> bool:
        """Whether ``process`` has anything to do."""
        return self._wanted.any or self._chain.filters.any or self._next is not None

    @property
    def settled(self) -> bool:
        """The wanted filters are in force."""
        return self._next is None

    @property
    def cancelling(self) -> bool:
        return self._chain.filters.aec

    @property
    def duplex(self) -> Duplex:
        match self._wanted.duplex:
            case DuplexWanted.OFF:
                return Duplex.FULL
            case DuplexWanted.ON:
                return Duplex.HALF
            case DuplexWanted.PUSH_TO_TALK:
                return Duplex.PUSH_TO_TALK
            case DuplexWanted.AUTO:
                return self._policy.now

    @property
    def defeated(self) -> bool:
        """The room defeats the canceller, or there is none although one is wanted."""
        return self._wanted.duplex is DuplexWanted.AUTO and self._policy.now is not Duplex.FULL

    @property
    def quiet(self) -> bool:
        """The loudspeaker must not play: somebody talks by the key."""
        return self.talking and self.duplex is Duplex.PUSH_TO_TALK

    # -- on the audio thread

    def process(self, heard: bytes, played: bytes) -> bytes:
        """What leaves of a block, given what the loudspeaker was playing at that moment."""
        cleaned = self._clean(heard, played)
        less_gain = 10 ** (-self._chain.gain_db / 10)
        verdict = self.meter.block(mean_square(played), mean_square(heard), mean_square(cleaned) * less_gain)
        if verdict is not None and self._wanted.duplex is DuplexWanted.AUTO:
            ducked, self._ducked = self._guard.ducked - self._ducked, self._guard.ducked
            self._policy.judge(verdict, self.meter, ducked=ducked == WINDOW_BLOCKS, talk_key=self._talk_key)
        return self._limit(cleaned, played)

    def rest(self) -> None:
        """A block that nobody is sent: what is wanted is taken over at once, for there is nothing to fade."""
        coming = self._next
        if coming is not None:
            self._take_over(coming)

    def _take_over(self, coming: _Chain) -> None:
        self._chain = coming
        self.meter.restart()
        if self._next is coming:  # else another is wanted since: the next block begins with it
            self._next = None
            self.on_taken()

    def _clean(self, heard: bytes, played: bytes) -> bytes:
        cleaned = self._chain.process(heard, played)
        coming = self._next
        if coming is None:
            return cleaned
        other = coming.process(heard, played)
        self._overlap -= 1
        if self._overlap > 0:
            return cleaned
        self._take_over(coming)
        return crossfade(cleaned, other)

    def _limit(self, cleaned: bytes, played: bytes) -> bytes:
        duplex = self.duplex
        if duplex is Duplex.PUSH_TO_TALK:
            return cleaned if self.talking else SILENCE
        if duplex is Duplex.HALF:
            return self._guard(cleaned, played, self._path_db())
        return cleaned

    def _path_db(self) -> float:
        """Gain from what is played to its echo in the cleaned block."""
        loss = self.meter.erl_db
        if loss is None:
            return UNKNOWN_PATH_DB
        return self._chain.gain_db - loss - max(0.0, self.meter.erle_db or 0.0)

    # -- facts

    def facts(self) -> Json:
        """For ``state/media``: what is wanted and in force; only what people change, so it is told seldom."""
        wanted, actual = self._wanted, self._chain.filters
        return {
            "wanted": {**_document(wanted.filters), "halfDuplex": wanted.duplex.value},
            "actual": {**_document(actual), "halfDuplex": self.duplex.value},
            **({} if self._factory is not None or not wanted.filters.any else {
                "reason": "no echo canceller is installed for this computer"}),
        }

    def source_stats(self) -> Json:
        """Members of W3C ``media-source``: decibels, while a canceller measures them."""
        meter = self.meter
        if not self.cancelling or meter.erle_db is None or meter.erl_db is None:
            return {}
        return {"echoReturnLoss": round(meter.erl_db, 1), "echoReturnLossEnhancement": round(meter.erle_db, 1)}

    def echo_stats(self) -> Json:
        """What W3C has no name for, as ``x-echo``; durations in seconds, levels in dBFS."""
        meter = self.meter
        known = meter.erle_db is not None
        return {
            "duplex": self.duplex.value, "farEndDuration": round(meter.far_s, 1),
            "doubleTalkDuration": round(meter.double_talk_s, 1),
            "residualEchoLevel": round(meter.residual_dbfs, 1) if known else None,
            "noiseLevel": round(meter.noise_dbfs, 1) if known else None, "gain": round(self._chain.gain_db, 1),
        }


def _document(filters: Filters) -> Json:
    return {"aec": filters.aec, "ns": filters.ns.value, "agc": filters.agc, "highpass": filters.highpass}


def _nobody() -> None:
    return None
