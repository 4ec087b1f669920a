"""A room without a clock: speech out of the loudspeaker, through the simulated echo path, into voice processing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.media.canceller import Filters, find_canceller
from appliance.media.echo import DuplexWanted
from appliance.media.sound import BLOCK_BYTES, dbfs, mean_square
from appliance.media.voice import Treatment, VoiceProcessing
from hw.pcm import mix
from hw.sim.audio import EchoPath
from hw.sim.sounds import Sound, open_sound

BLOCKS_S = 100


@dataclass
class EchoRoom:
    """``near`` and ``far`` talk while they are set; what happened is kept per block as mean squares."""

    filters: Filters = Filters(aec=True)  # noqa: RUF009 - frozen
    duplex: DuplexWanted = DuplexWanted.OFF
    talk_key: bool = False
    delay_ms: float = 60.0
    loss_db: float = 10.0
    reverberation_ms: float = 300.0
    drive_db: float = 0.0
    far: Sound | None = None
    near: Sound | None = None
    heard: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = EchoPath(self.delay_ms, self.loss_db)
        self.path.furnish(self.reverberation_ms, drive_db=self.drive_db)
        self.voice = VoiceProcessing(Treatment(self.filters, self.duplex), find_canceller, talk_key=self.talk_key)
        self.voice.load()
        self.voice.set_path(round(self.delay_ms))  # as after a chirp
        self.voice.want(self.voice.wanted)
        self._floor = open_sound("silence")
        self.run(0.6)  # the chain is faded in

    def move(self, place: int = 2) -> None:
        """Somebody walks up to the device."""
        self.path.furnish(self.reverberation_ms, place=place, drive_db=self.drive_db)

    def run(self, seconds: float, each: Callable[[int], None] = lambda _: None) -> None:
        for number in range(round(seconds * BLOCKS_S)):
            each(number)
            played = self.far.read(BLOCK_BYTES) if self.far is not None else bytes(BLOCK_BYTES)
            own = self._floor.read(BLOCK_BYTES)
            if self.near is not None:
                own = mix(own, self.near.read(BLOCK_BYTES), 0.5)
            heard = self.path.add(own, played)
            left = self.voice.process(heard, played)
            self.heard.append(mean_square(heard))
            self.left.append(mean_square(left))

    def gain_db(self, last_s: float) -> float:
        """What processing did to the level over the last seconds; its negative is the echo return loss enhancement."""
        count = round(last_s * BLOCKS_S)
        return dbfs(sum(self.left[-count:]) / count) - dbfs(sum(self.heard[-count:]) / count)
