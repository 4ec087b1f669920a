"""How much of the loudspeaker comes back through the microphone, and what is done when cancelling does not help.

Plain sums over the energy of blocks: no clock, no thread, no numpy. ``EchoMeter`` judges the path and the canceller,
``DuplexPolicy`` draws the consequence, ``HalfDuplexGuard`` carries it out.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

from appliance.media.sound import BLOCK_MS, attenuate, dbfs, mean_square

__all__ = ["WINDOW_BLOCKS", "Duplex", "DuplexPolicy", "DuplexWanted", "EchoMeter", "HalfDuplexGuard", "Verdict"]

LOUD_DBFS: Final = -42.0  # a loudspeaker above this may be heard by its own microphone
NEAR_LOUDER_DB: Final = 9.0  # a near talker this much above the expected echo is let through
HOLD_BLOCKS: Final = 200 // BLOCK_MS  # the room rings on for about 200 ms after the loudspeaker fell silent
SHIFT: Final = 4  # 24 dB

WINDOW_BLOCKS: Final = 100 // BLOCK_MS
WINDOW_S: Final = WINDOW_BLOCKS * BLOCK_MS / 1000
SMEAR: Final = 0.5  # of a window's energy is kept in the next: a delay not known exactly, and reverberation
NOISE_WINDOWS: Final = 100  # the quietest of the last 10 s is the noise of the place: speech pauses by then
USUAL_DELAY_BLOCKS: Final = 50 // BLOCK_MS  # of a sound card and the air, until it is measured
AUDIBLE_DB: Final = 6.0  # above that noise an echo can be measured
ONLY_ECHO_DB: Final = 5.0  # louder than the path explains by less: nobody else is talking
BOTH_DB: Final = 8.0  # louder by more: somebody talks at the same time
RISE: Final = 0.15  # weight of a new window in the loss of the path
FALL: Final = 0.02
PATIENCE_WINDOWS: Final = 40  # 4 s
SETTLE: Final = 0.1  # weight of a new window of echo alone in what is told: 1 s
FIRST_WINDOWS: Final = 5  # of echo alone before anything is told

DEFEATED_DB: Final = 10.0  # an enhancement below this is no cancelling
HELPED_DB: Final = 15.0
DISTURBING_DBFS: Final = -55.0  # a residual echo below this is masked by any line
DEFEATED_WINDOWS: Final = 15  # 1.5 s of echo alone: cancellers converge within 0.5 s
STARVED_WINDOWS: Final = 200  # 20 s in which the other side never paused: nobody here got a word in
HELPED_WINDOWS: Final = 30  # 3 s of echo alone were cancelled


class DuplexWanted(StrEnum):
    """Who may be heard while the loudspeaker plays."""

    OFF = "off"  # both, whatever comes back
    AUTO = "auto"  # both, unless the canceller is defeated
    ON = "on"  # one at a time, the louder
    PUSH_TO_TALK = "pushToTalk"  # here only while the talk key is held, and the loudspeaker is silent then


class Duplex(StrEnum):
    """What is in force."""

    FULL = "full"
    HALF = "half"
    PUSH_TO_TALK = "pushToTalk"


class Verdict(StrEnum):
    """What a window of 100 ms was."""

    SILENT = "silent"  # nothing of the loudspeaker can be heard
    ECHO = "echo"  # the loudspeaker alone
    DOUBLE_TALK = "doubleTalk"  # the loudspeaker and somebody at the microphone
    UNCLEAR = "unclear"


class EchoMeter:
    """Echo return loss and its enhancement (ITU-T G.168, W3C webrtc-stats), measured while only the loudspeaker talks.

    ``block`` takes mean squares (0..1 of full scale): of what was played, of what was heard, and of that after
    the canceller less its gain.
    """

    def __init__(self) -> None:
        self.set_delay(USUAL_DELAY_BLOCKS)
        self._sums = [0.0, 0.0, 0.0]  # of the window that is being filled
        self._count = 0
        self._smooth = [0.0, 0.0, 0.0]
        self._noise: deque[float] = deque(maxlen=NOISE_WINDOWS)
        self._least_loss = 0.0  # dB: what the path loses at least when nobody talks at the microphone
        self._since_echo = 0  # windows in which the loudspeaker was heard, but not alone
        self._echoes = 0  # windows of echo alone since ``restart``
        self._erl = self._erle = 0.0
        self._residual = -127.0
        self.far_s = 0.0  # seconds in which the loudspeaker could be heard
        self.double_talk_s = 0.0  # of these, with somebody talking at the microphone as well

    def set_delay(self, blocks: int) -> None:
        """How long the sound is on its way from what ``block`` calls played to what it calls heard."""
        self._way: deque[float] = deque([0.0] * (blocks + 1), blocks + 1)

    def restart(self) -> None:
        """Another canceller is at work: what was measured of the last one counts no more."""
        self._echoes = 0

    @property
    def erl_db(self) -> float | None:
        """Echo return loss, played to heard; positive where the room attenuates. None until it was heard."""
        return self._erl if self._echoes >= FIRST_WINDOWS else None

    @property
    def erle_db(self) -> float | None:
        """Echo return loss enhancement, heard to cancelled. None until it was heard."""
        return self._erle if self._echoes >= FIRST_WINDOWS else None

    @property
    def residual_dbfs(self) -> float:
        """Level of what the canceller leaves of the echo."""
        return self._residual

    @property
    def noise_dbfs(self) -> float:
        """Level of the place when it is quietest."""
        return dbfs(min(self._noise, default=0.0))

    def block(self, played: float, heard: float, cancelled: float) -> Verdict | None:
        """One block; each tenth gives the verdict on the window it closes."""
        way, sums = self._way, self._sums
        way.append(played)
        sums[0] += way[0]
        sums[1] += heard
        sums[2] += cancelled
        self._count += 1
        if self._count < WINDOW_BLOCKS:
            return None
        means = [value / WINDOW_BLOCKS for value in sums]
        self._sums, self._count = [0.0, 0.0, 0.0], 0
        self._noise.append(means[1])
        self._smooth = [SMEAR * old + new for old, new in zip(self._smooth, means, strict=True)]
        verdict = self._judge()
        if verdict is not Verdict.SILENT:
            self.far_s += WINDOW_S
        if verdict is Verdict.DOUBLE_TALK:
            self.double_talk_s += WINDOW_S
        elif verdict is Verdict.ECHO:
            self._settle()
        return verdict

    def _judge(self) -> Verdict:
        played, heard, _ = self._levels()
        if played < LOUD_DBFS or heard < self.noise_dbfs + AUDIBLE_DB:
            return Verdict.SILENT
        loss = played - heard
        if not self._least_loss:
            self._least_loss = loss
        # Somebody talking can only make the loss look smaller: so it rises soon and falls late, but nobody talks for
        # seconds without a pause.
        down = FALL if self._since_echo < PATIENCE_WINDOWS else RISE
        self._least_loss += (RISE if loss > self._least_loss else down) * (loss - self._least_loss)
        self._since_echo += 1
        if loss > self._least_loss - ONLY_ECHO_DB:
            self._since_echo = 0
            return Verdict.ECHO
        return Verdict.DOUBLE_TALK if loss < self._least_loss - BOTH_DB else Verdict.UNCLEAR

    def _settle(self) -> None:
        played, heard, cancelled = self._levels()
        self._echoes += 1
        weight = max(SETTLE, 1 / self._echoes)
        self._erl += weight * (played - heard - self._erl)
        self._erle += weight * (heard - cancelled - self._erle)
        self._residual += weight * (cancelled - self._residual)

    def _levels(self) -> tuple[float, float, float]:
        """In dBFS: played, heard, cancelled."""
        played, heard, cancelled = (dbfs(value * (1 - SMEAR)) for value in self._smooth)
        return played, heard, cancelled


class DuplexPolicy:
    """From full to half duplex when the canceller is defeated; to push-to-talk when the other side (or the noise there)
    then never pauses; back once the canceller works. Of the canceller only windows of echo alone count: silence and
    double talk prove nothing."""

    def __init__(self, begin: Duplex = Duplex.FULL) -> None:
        self.now = begin
        self._defeated = self._helped = self._starved = 0  # windows in a row

    def judge(self, verdict: Verdict, meter: EchoMeter, *, ducked: bool, talk_key: bool) -> Duplex:
        """What shall be in force after this window. ``ducked``: the guard held the microphone down all through it;
        ``talk_key``: there is a key to talk."""
        self._starved = self._starved + 1 if ducked and self.now is Duplex.HALF else 0
        if verdict is Verdict.ECHO and meter.erle_db is not None:
            disturbing = max(DISTURBING_DBFS, meter.noise_dbfs + AUDIBLE_DB)
            defeated = meter.erle_db < DEFEATED_DB and meter.residual_dbfs > disturbing
            helped = meter.erle_db >= HELPED_DB or meter.residual_dbfs < DISTURBING_DBFS - AUDIBLE_DB
            self._defeated = self._defeated + 1 if defeated else 0
            self._helped = self._helped + 1 if helped else 0
        if self.now is Duplex.FULL and self._defeated >= DEFEATED_WINDOWS:
            self._turn(Duplex.HALF)
        elif self.now is not Duplex.FULL and self._helped >= HELPED_WINDOWS:
            self._turn(Duplex.FULL)
        elif talk_key and self._starved >= STARVED_WINDOWS:
            self._turn(Duplex.PUSH_TO_TALK)
        return self.now

    def _turn(self, to: Duplex) -> None:
        self.now = to
        self._defeated = self._helped = self._starved = 0


class HalfDuplexGuard:
    """While the loudspeaker is loud the microphone is made quieter by 24 dB, except when somebody at the microphone is
    clearly louder than the echo to be expected. The price is that both cannot talk at once.

    Plain function with a little memory; runs on the audio thread (at most 60 us per block).
    """

    def __init__(self) -> None:
        self._played: deque[float] = deque(maxlen=HOLD_BLOCKS)  # levels; their echoes may still ring
        self.ducked = 0  # blocks made quieter so far

    def __call__(self, heard: bytes, played: bytes, path_db: float = 0.0) -> bytes:
        """The block to send. ``path_db``: the level of the echo in ``heard`` over that of the sound in ``played``."""
        self._played.append(dbfs(mean_square(played)))
        loud = max(self._played)
        if loud <= LOUD_DBFS or dbfs(mean_square(heard)) > loud + path_db + NEAR_LOUDER_DB:
            return heard
        self.ducked += 1
        return attenuate(heard, SHIFT)
