"""The board's microphone and loudspeaker in one room: which filters are in force, and the measured path between them.

Lives on the loop, beside the studio, which calls ``voice`` and ``probe`` on the audio thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from appliance.errors import Refused
from appliance.media.canceller import Factory, Filters, NoiseSuppression, find_canceller
from appliance.media.chirp import AcousticPath, Probe, chirp
from appliance.media.echo import DuplexWanted
from appliance.media.voice import Treatment, VoiceProcessing
from appliance.settings import AudioSettings
from appliance.vocabulary import Json

__all__ = ["Acoustics", "Override"]



@dataclass(frozen=True, slots=True)
class Override:
    """What a command wants otherwise than the settings; None leaves it to them."""

    aec: bool | None = None
    ns: NoiseSuppression | None = None
    agc: bool | None = None
    highpass: bool | None = None
    duplex: DuplexWanted | None = None

    def merged(self, later: Override) -> Override:
        return Override(*(self._or(later, name) for name in ("aec", "ns", "agc", "highpass", "duplex")))

    def _or(self, later: Override, name: str) -> Any:
        wanted = getattr(later, name)
        return getattr(self, name) if wanted is None else wanted

    def of(self, base: Treatment) -> Treatment:
        changes = {name: wanted for name in ("aec", "ns", "agc", "highpass")
                   if (wanted := getattr(self, name)) is not None}
        return Treatment(replace(base.filters, **changes), self.duplex or base.duplex)


class Acoustics:
    """``echoes`` says whether the microphone may hear the loudspeaker at all; ``talk_key``: there is a key to talk."""

    def __init__(self, settings: AudioSettings, echoes: Callable[[], bool], *, talk_key: bool = False,
                 find: Callable[[], Factory | None] = find_canceller) -> None:
        self._settings = settings
        self._echoes = echoes
        self._override = Override()
        self._settling = asyncio.Lock()
        self.voice = VoiceProcessing(Treatment(), find, talk_key=talk_key)
        self.path: AcousticPath | None = None
        self.probe: Probe | None = None
        self._interruptions = 0

    def configure(self, settings: AudioSettings) -> None:
        """Other settings; ``settle`` takes them over."""
        self._settings = settings

    async def override(self, override: Override) -> None:
        """What a command wants, until the next start."""
        self._override = self._override.merged(override)
        await self.settle()

    async def in_force(self, within_s: float = 1.0) -> None:
        """Wait until the audio thread has taken over what is wanted; not longer, for without a device it never does."""
        loop, taken = asyncio.get_running_loop(), asyncio.Event()
        self.voice.on_taken = lambda: _tell(loop, taken)
        if not self.voice.settled:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await taken.wait()

    async def settle(self) -> None:
        """Bring what is in force to what is wanted. May be called as often as one likes."""
        async with self._settling:
            wanted = self._override.of(_treatment(self._settings, self._echoes()))
            if wanted == self.voice.wanted:
                return
            if self.voice.must_load(wanted):
                await asyncio.to_thread(self.voice.load)
            self.voice.want(wanted)

    def know(self, path: AcousticPath | None) -> None:
        """The path, as measured now or before the last restart."""
        self.path = path
        if path is not None:
            self.voice.set_path(round(path.delay_ms))

    async def calibrate(self) -> AcousticPath | None:
        """Play the chirp and listen: the path found, None when nothing of it was heard. Takes four seconds.

        Raises Refused when a measurement runs, when a call comes between, and where numpy is missing.
        """
        calls = self._interruptions
        sound = await asyncio.to_thread(chirp)
        if self.probe is not None:
            raise Refused("a measurement is running", sub_code="busy")
        self.probe = probe = Probe(sound)
        try:
            if self._interruptions != calls:  # while the chirp was made
                probe.interrupt()
            await probe.listened()
        finally:
            self.probe = None  # a call that comes while the result is worked out has its sound
        try:
            found = await probe.path()
        except ImportError as error:
            raise Refused("measuring needs numpy, which is not installed for this computer", code=501,
                          sub_code="FeatureNotSupported", retryable=False) from error
        self.know(found)
        return found

    def interrupt(self) -> None:
        """The loudspeaker is needed now."""
        self._interruptions += 1
        if self.probe is not None:
            self.probe.interrupt()

    def facts(self) -> Json:
        """For ``state/media``."""
        return self.voice.facts() | ({} if self.path is None else {"echoPath": self.path.document()})


def _tell(loop: asyncio.AbstractEventLoop, taken: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(taken.set)


def _treatment(settings: AudioSettings, echoes: bool) -> Treatment:
    """What the settings mean on a board: with ``auto``, nothing where the microphone cannot hear the loudspeaker."""
    if settings.echo == "auto" and not echoes:
        return Treatment()
    return Treatment(
        Filters(aec=settings.echo != "none", ns=NoiseSuppression(settings.noise_suppression),
                agc=settings.automatic_gain, highpass=settings.high_pass),
        DuplexWanted.OFF if settings.echo == "none" and settings.half_duplex == "auto"
        else DuplexWanted(settings.half_duplex))
