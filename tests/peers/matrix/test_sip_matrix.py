"""Telephone calls over every transport, with every protection and codec, in packets of 10 to 60 ms: each side knows the
other's tone by its spectrum, and packets are as long as was asked for.

The other telephone is a baresip. Between both is a Kamailio, which the device reaches by the transport that is meant;
where a cipher is meant, the server lets no other pass. A column more is a row of ``PROTECTIONS`` more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from appliance.media.microphone import VOICE_QUEUE
from appliance.providers import api
from appliance.providers.sip.sdes import SUITES
from appliance.settings import Secret, SipAccountSettings
from appliance.vocabulary import Json
from tests.support.baresip import Baresip, baresip
from tests.support.kamailio import PASSWORD, WEBSOCKET, Kamailio, kamailio
from tests.support.sip_device import SipDevice, sip_device
from tests.support.turnserver import Authority
from tests.support.waiting import until

pytestmark = [pytest.mark.peer, pytest.mark.timeout(240)]

LANES: Final = 4  # calls beside each other
DEVICE_HERTZ: Final = 440
PURE: Final = 0.9  # of the power is the tone's
PACKETS: Final = 15  # are counted
WHOLE: Final = 0.84  # of the bytes of full packets: a machine that was late cuts one short
FRAME_MS: Final = 20  # of Opus, as it is encoded
ON_ITS_WAY_MS: Final = VOICE_QUEUE * FRAME_MS  # at most, of what is encoded and in no packet yet


@dataclass(frozen=True)
class Protection:
    """``telephone``: parameters of baresip's account, ``settings``: more lines of its settings. ``cipher``: what must
    come of it. ``device_calls``: the offer is ours, else theirs: a telephone offers what it likes best. ``encryption``:
    how ours is."""

    name: str
    telephone: str = ""
    cipher: str = ""
    device_calls: bool = False
    encryption: str = "sdes"
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{'out' if self.device_calls else 'in'}"

    @property
    def script(self) -> str:
        """What the server changes of an offer of ours: other ciphers go, and packets are of as many milliseconds as the
        name of the telephone says."""
        if not self.device_calls:
            return ""
        others = [number for number, suite in enumerate(SUITES, 1) if suite != self.cipher]
        return "\n".join([*(f'sdp_remove_line_by_prefix("a=crypto:{number}");' for number in others),
                          "$var(ms) = $(rU{s.select,1,-});", "subst_body('/a=ptime:20/a=ptime:$var(ms)/');"])


PROTECTIONS: Final = (
    Protection("RTP"),
    Protection("AES_CM_128_HMAC_SHA1_80", ";mediaenc=srtp-mand", "AES_CM_128_HMAC_SHA1_80"),
    *(Protection(suite, ";mediaenc=srtp-mand", suite, device_calls=True) for suite in SUITES),
    *(Protection("DTLS", ";mediaenc=dtls_srtp", cipher, calls, "dtls", ("module dtls_srtp.so", "rtcp_mux yes"))
      for calls, cipher in ((False, "SRTP_AES128_CM_SHA1_80"), (True, "SRTP_AEAD_AES_256_GCM"))),
)
TRANSPORTS: Final = ("udp", "tcp", "tls", "ws")


@dataclass(frozen=True)
class Voice:
    """``step_ms``: the packets that we send are a multiple of it."""

    codec: str
    milliseconds: int
    step_ms: int

    @property
    def sent_ms(self) -> int:
        return max(self.step_ms, self.milliseconds // self.step_ms * self.step_ms)

    def __str__(self) -> str:
        return f"{self.codec} of {self.milliseconds} ms"


VOICES: Final = [Voice(codec, milliseconds, step)
                 for codec, step in (("PCMU/8000/1", 10), ("PCMA/8000/1", 10), ("G722/16000/1", 10))
                 for milliseconds in range(10, 70, 10)]
VOICES += [Voice("opus/48000/2", milliseconds, 20) for milliseconds in (10, 20, 40, 60)]  # Opus has no others


@dataclass
class Lane:
    """One device, with telephones one after the other."""

    number: int
    door: SipDevice
    server: Kamailio
    protection: Protection
    folder: Path

    async def call(self, voice: Voice, hertz: int) -> None:
        door, user = self.door, f"phone{hertz}-{voice.milliseconds}"
        line = (f'<sip:{user}@example.test>;auth_pass={PASSWORD};outbound="sip:127.0.0.1:{self.server.port}";regint=60;'
                f"answermode=auto;audio_codecs={voice.codec};ptime={voice.milliseconds}{self.protection.telephone}")
        async with baresip(self.folder / user, line, hertz=hertz, config=self.protection.settings) as phone:
            await until(lambda: any("binding" in one for one in phone.log), "registered")
            if self.protection.device_calls:
                await door.dial(f"sip:{user}@example.test")
            else:
                door.leg, door.told = None, []
                await phone.tell("dial", f"sip:door{self.number}@example.test")
                await until(lambda: door.leg is not None, f"it rings; {phone.told}")
            await door.connected()
            security = door.of(api.Connected)[0].security
            assert security.get("srtpCipher", "") == self.protection.cipher
            await self._hear_each_other(phone, hertz)
            await self._packets(voice)
            await door.hang_up()
            await door.ended()
            await phone.until("CALL_CLOSED")

    async def _hear_each_other(self, phone: Baresip, hertz: int) -> None:
        await until(lambda: self.door.board.hears_tone(hertz) > PURE,
                    f"{hertz} Hz at the device, which hears {self.door.board.hears()}")
        await until(lambda: phone.hears_tone(DEVICE_HERTZ) > PURE,
                    f"{DEVICE_HERTZ} Hz at the telephone, which hears {phone.hears()}; {phone.log[-10:]}")

    async def _reports(self) -> dict[str, Json]:
        assert self.door.leg is not None
        return {str(one["type"]): one for one in await self.door.leg.stats()}

    async def _packets(self, voice: Voice) -> None:
        """As long as was asked for, by their bytes; of Opus, as many as the frames that they hold make up."""
        begun, encoded = await self._reports(), self._encoded()
        packets = 0
        async with asyncio.timeout(10):
            while packets < PACKETS:
                await asyncio.sleep(voice.sent_ms / 1000)
                ended = await self._reports()
                packets = ended["outbound-rtp"]["packetsSent"] - begun["outbound-rtp"]["packetsSent"]
        sent, came = ended["outbound-rtp"], ended["inbound-rtp"]
        assert came["packetsLost"] == 0
        if voice.codec.startswith("opus"):
            due_ms, sent_ms = (self._encoded() - encoded) * FRAME_MS, packets * voice.sent_ms
            assert abs(due_ms - sent_ms) <= ON_ITS_WAY_MS + voice.sent_ms, f"{packets} packets of {due_ms} ms"
            return
        for milliseconds in (sent["bytesSent"] / 8 / sent["packetsSent"],
                             came["bytesReceived"] / 8 / came["packetsReceived"]):
            assert voice.sent_ms * WHOLE < milliseconds <= voice.sent_ms

    def _encoded(self) -> int:
        """Frames of the microphone so far."""
        feed = self.door.studio._microphone
        assert feed is not None
        return feed.encoded


@asynccontextmanager
async def lanes(folder: Path, transport: str, protection: Protection) -> AsyncIterator[Sequence[Lane]]:
    authority = Authority(folder)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            kamailio(folder / "kamailio", tls=authority.issue("127.0.0.1"), passing=protection.script))
        port = server.tls_port if transport == "tls" else server.port
        made = []
        for number in range(LANES):
            account = SipAccountSettings(
                name="pbx", address=f"sip:door{number}@example.test", servers=(f"127.0.0.1:{port}",),
                transport=transport, password=Secret(PASSWORD), path=WEBSOCKET, encryption=protection.encryption,
                ca_file=str(folder / "authority.crt") if transport == "tls" else "")
            door = await stack.enter_async_context(sip_device(
                f"door{number}", account, hertz=DEVICE_HERTZ, encrypt=bool(protection.cipher)))
            made.append(Lane(number, door, server, protection, folder))
        for lane in made:
            await lane.door.up()
        yield made


@pytest.mark.parametrize("protection", PROTECTIONS, ids=str)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_codec_and_packet_time(tmp_path: Path, transport: str, protection: Protection) -> None:
    waiting = zip(VOICES, itertools.count(700, 40), strict=False)  # each call has a tone of its own
    failures = []

    async def work(lane: Lane) -> None:
        for voice, hertz in waiting:
            try:
                await lane.call(voice, hertz)
            except AssertionError as error:
                failures.append(f"{voice}: {error}")
                if lane.door.leg is not None:
                    await lane.door.hang_up()

    async with lanes(tmp_path, transport, protection) as made:
        await asyncio.gather(*map(work, made))
        assert not failures, "\n".join(failures)
        assert not any(lane.door.provider.legs for lane in made)
