"""What stands in a statistics report: types, members and units of W3C webrtc-stats, and ``x-`` types of our own.

The names and units are those of https://www.w3.org/TR/webrtc-stats/. Only what the appliance publishes
is declared: a member that is not here is in no report. JSON Schema, reference and the tests of live reports are made of
this. Times are seconds, rates bits per second, levels and shares 0..1; ``timestamp`` alone is milliseconds since 1970,
as in W3C.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["COMMON", "TYPES", "Member", "StatsType", "Unit"]


class Unit(Enum):
    """What a value counts in; ``integer`` ones are never fractions."""

    TEXT = ""
    FLAG = "true or false"
    IDENTITY = "id of another dictionary of the report"
    NUMBER = "a number without unit"
    SECONDS = "seconds"
    SQUARED_SECONDS = "seconds squared"
    MILLISECONDS = "milliseconds since 1970"
    BITS_PER_SECOND = "bits per second"
    PER_SECOND = "per second"
    HERTZ = "hertz"
    DECIBEL = "decibels"
    CELSIUS = "degrees Celsius"
    SHARE = "0..1"
    ENERGY = "seconds of full scale"
    BYTES = "bytes"
    PACKETS = "packets"
    SIGNED_PACKETS = "packets, below 0 when duplicates came"
    FRAMES = "frames"
    SAMPLES = "samples"
    PIXELS = "pixels"
    COUNT = "times"
    DURATIONS = "seconds by reason"

    @property
    def integer(self) -> bool:
        return self in _INTEGERS


_INTEGERS: Final = frozenset({
    Unit.BYTES, Unit.PACKETS, Unit.SIGNED_PACKETS, Unit.FRAMES, Unit.SAMPLES, Unit.PIXELS, Unit.COUNT, Unit.HERTZ})


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a dictionary. ``always``: it is in every report that has the dictionary."""

    name: str
    unit: Unit
    always: bool = False
    choices: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class StatsType:
    """One type of dictionary; ``kind`` is ``audio`` or ``video`` where the two differ, else empty."""

    type: str
    summary: str
    members: tuple[Member, ...]
    kind: str = ""

    @property
    def key(self) -> str:
        return f"{self.type}/{self.kind}" if self.kind else self.type


def _always(name: str, unit: Unit, *choices: str, note: str = "") -> Member:
    return Member(name, unit, True, choices, note)


def _known(name: str, unit: Unit, *choices: str, note: str = "") -> Member:
    """A member that is there once it is known."""
    return Member(name, unit, False, choices, note)


COMMON: Final = (
    _always("type", Unit.TEXT), _always("id", Unit.TEXT),
    _always("timestamp", Unit.MILLISECONDS, note="when the report was made"),
)
"""Members of every dictionary."""

_TRANSPORT_ID: Final = _always("transportId", Unit.IDENTITY)
_CODEC_ID: Final = _always("codecId", Unit.IDENTITY)

_STREAM: Final = (
    _always("kind", Unit.TEXT, "audio", "video"), _always("ssrc", Unit.NUMBER), _TRANSPORT_ID, _CODEC_ID)

_OUTBOUND: Final = (
    *_STREAM,
    _known("mid", Unit.TEXT), _known("mediaSourceId", Unit.IDENTITY), _known("remoteId", Unit.IDENTITY),
    _known("rtxSsrc", Unit.NUMBER),
    _always("active", Unit.FLAG, note="something is wanted to be sent now"),
    _always("packetsSent", Unit.PACKETS, note="retransmissions included"),
    _always("bytesSent", Unit.BYTES, note="payload, retransmissions included"),
    _always("headerBytesSent", Unit.BYTES), _always("retransmittedPacketsSent", Unit.PACKETS),
    _always("retransmittedBytesSent", Unit.BYTES), _always("nackCount", Unit.COUNT),
    _always("totalPacketSendDelay", Unit.SECONDS, note="sum over packets, from packetised to handed to the socket"),
    _known("targetBitrate", Unit.BITS_PER_SECOND),
)

_INBOUND: Final = (
    *_STREAM,
    _always("trackIdentifier", Unit.TEXT),
    _known("mid", Unit.TEXT), _known("remoteId", Unit.IDENTITY),
    _always("packetsReceived", Unit.PACKETS, note="retransmissions included"),
    _always("bytesReceived", Unit.BYTES, note="payload, retransmissions included"),
    _always("headerBytesReceived", Unit.BYTES, note="padding included"),
    _always("packetsLost", Unit.SIGNED_PACKETS), _always("jitter", Unit.SECONDS),
    _always("packetsDiscarded", Unit.PACKETS, note="too late or too early to be used"),
    _always("nackCount", Unit.COUNT),
    _known("fecPacketsReceived", Unit.PACKETS), _known("fecBytesReceived", Unit.BYTES),
    _known("fecPacketsDiscarded", Unit.PACKETS),
    _always("retransmittedPacketsReceived", Unit.PACKETS), _known("retransmittedBytesReceived", Unit.BYTES),
    _known("lastPacketReceivedTimestamp", Unit.MILLISECONDS),
    _known("jitterBufferDelay", Unit.SECONDS, note="sum over what was emitted"),
    _known("jitterBufferTargetDelay", Unit.SECONDS,
           note="sum over what was emitted, of what was aimed at, the wait for sound or picture included"),
    _known("jitterBufferMinimumDelay", Unit.SECONDS,
           note="the same without that wait: what the network alone takes"),
    _known("jitterBufferEmittedCount", Unit.SAMPLES, note="samples of audio, frames of video"),
    _known("totalProcessingDelay", Unit.SECONDS, note="sum over decoded frames, from the first packet"),
    _known("estimatedPlayoutTimestamp", Unit.MILLISECONDS,
           note="by the peer's clock, when it captured what is heard or seen now"),
)

_QUALITY_REASON: Final = ("none", "cpu", "bandwidth", "other")

TYPES: Final[tuple[StatsType, ...]] = (
    StatsType("codec", "A codec in use.", (
        _TRANSPORT_ID, _always("mimeType", Unit.TEXT), _always("payloadType", Unit.NUMBER),
        _always("clockRate", Unit.HERTZ), _known("channels", Unit.NUMBER), _known("sdpFmtpLine", Unit.TEXT),
    )),
    StatsType("media-source", "The microphone, as it leaves: silent while muted.", (
        _always("kind", Unit.TEXT, "audio"), _always("trackIdentifier", Unit.TEXT),
        _always("audioLevel", Unit.SHARE), _always("totalAudioEnergy", Unit.ENERGY),
        _always("totalSamplesDuration", Unit.SECONDS),
        _known("echoReturnLoss", Unit.DECIBEL), _known("echoReturnLossEnhancement", Unit.DECIBEL),
    ), "audio"),
    StatsType("media-source", "The camera, as it delivers.", (
        _always("kind", Unit.TEXT, "video"), _always("trackIdentifier", Unit.TEXT),
        _known("width", Unit.PIXELS), _known("height", Unit.PIXELS), _always("frames", Unit.FRAMES),
        _always("framesPerSecond", Unit.PER_SECOND, note="in the last second"),
    ), "video"),
    StatsType("outbound-rtp", "What is sent.", (*_OUTBOUND,), "audio"),
    StatsType("outbound-rtp", "What is sent.", (
        *_OUTBOUND,
        _known("frameWidth", Unit.PIXELS), _known("frameHeight", Unit.PIXELS),
        _always("framesPerSecond", Unit.PER_SECOND, note="encoded in the last second"),
        _always("framesSent", Unit.FRAMES), _known("hugeFramesSent", Unit.FRAMES),
        _always("framesEncoded", Unit.FRAMES), _always("keyFramesEncoded", Unit.FRAMES),
        _always("totalEncodeTime", Unit.SECONDS, note="sum over encoded frames, from capture to the encoder's output"),
        _known("totalEncodedBytesTarget", Unit.BYTES),
        _always("pliCount", Unit.COUNT), _always("firCount", Unit.COUNT),
        _known("encoderImplementation", Unit.TEXT, note="hardware, software, camera or recorded"),
        _known("powerEfficientEncoder", Unit.FLAG),
        _known("qualityLimitationReason", Unit.TEXT, *_QUALITY_REASON),
        _known("qualityLimitationDurations", Unit.DURATIONS),
        _known("qualityLimitationResolutionChanges", Unit.COUNT),
    ), "video"),
    StatsType("remote-inbound-rtp", "What the peer reports of what is sent.", (
        *_STREAM, _always("localId", Unit.IDENTITY),
        _always("packetsReceived", Unit.PACKETS), _always("packetsLost", Unit.SIGNED_PACKETS),
        _always("jitter", Unit.SECONDS), _always("fractionLost", Unit.SHARE),
        _known("roundTripTime", Unit.SECONDS), _always("totalRoundTripTime", Unit.SECONDS),
        _always("roundTripTimeMeasurements", Unit.COUNT),
    )),
    StatsType("inbound-rtp", "What is received.", (
        *_INBOUND,
        _always("playoutId", Unit.IDENTITY),
        _known("audioLevel", Unit.SHARE), _known("totalAudioEnergy", Unit.ENERGY),
        _known("totalSamplesDuration", Unit.SECONDS),
        _always("totalSamplesReceived", Unit.SAMPLES, note="concealed ones included"),
        _always("concealedSamples", Unit.SAMPLES), _always("silentConcealedSamples", Unit.SAMPLES),
        _always("concealmentEvents", Unit.COUNT),
        _known("insertedSamplesForDeceleration", Unit.SAMPLES), _known("removedSamplesForAcceleration", Unit.SAMPLES),
    ), "audio"),
    StatsType("inbound-rtp", "What is received.", (
        *_INBOUND,
        _known("frameWidth", Unit.PIXELS), _known("frameHeight", Unit.PIXELS),
        _always("framesPerSecond", Unit.PER_SECOND, note="decoded in the last second"),
        _always("framesReceived", Unit.FRAMES), _always("framesDecoded", Unit.FRAMES),
        _always("keyFramesDecoded", Unit.FRAMES), _known("framesRendered", Unit.FRAMES),
        _always("framesDropped", Unit.FRAMES), _always("totalDecodeTime", Unit.SECONDS),
        _always("totalInterFrameDelay", Unit.SECONDS), _always("totalSquaredInterFrameDelay", Unit.SQUARED_SECONDS),
        _always("freezeCount", Unit.COUNT, note="intervals of at least max(3 avg, avg + 150 ms) of the last 30"),
        _always("totalFreezesDuration", Unit.SECONDS),
        _always("pauseCount", Unit.COUNT, note="intervals over 5 s"), _always("totalPausesDuration", Unit.SECONDS),
        _always("pliCount", Unit.COUNT), _known("firCount", Unit.COUNT),
        _known("framesAssembledFromMultiplePackets", Unit.FRAMES), _known("totalAssemblyTime", Unit.SECONDS),
        _known("decoderImplementation", Unit.TEXT), _known("powerEfficientDecoder", Unit.FLAG),
    ), "video"),
    StatsType("remote-outbound-rtp", "What the peer says it sent.", (
        *_STREAM, _always("localId", Unit.IDENTITY),
        _always("packetsSent", Unit.PACKETS), _always("bytesSent", Unit.BYTES), _always("reportsSent", Unit.COUNT),
        _always("remoteTimestamp", Unit.MILLISECONDS, note="of the peer's clock"),
        _known("roundTripTime", Unit.SECONDS), _known("totalRoundTripTime", Unit.SECONDS),
        _known("roundTripTimeMeasurements", Unit.COUNT),
    )),
    StatsType("media-playout", "The play-out of what is received.", (
        _always("kind", Unit.TEXT, "audio"),
        _always("synthesizedSamplesDuration", Unit.SECONDS, note="played although nothing was there"),
        _always("synthesizedSamplesEvents", Unit.COUNT), _always("totalSamplesDuration", Unit.SECONDS),
        _known("totalPlayoutDelay", Unit.SECONDS, note="sum over samples"), _always("totalSamplesCount", Unit.SAMPLES),
    )),
    StatsType("peer-connection", "The connection as a whole.", (
        _always("dataChannelsOpened", Unit.COUNT), _always("dataChannelsClosed", Unit.COUNT),
    )),
    StatsType("data-channel", "A data channel.", (
        _always("label", Unit.TEXT), _always("protocol", Unit.TEXT), _known("dataChannelIdentifier", Unit.NUMBER),
        _always("state", Unit.TEXT, "connecting", "open", "closing", "closed"),
        _always("messagesSent", Unit.COUNT), _always("bytesSent", Unit.BYTES),
        _always("messagesReceived", Unit.COUNT), _always("bytesReceived", Unit.BYTES),
    )),
    StatsType("transport", "The one DTLS transport.", (
        _always("packetsSent", Unit.PACKETS), _always("packetsReceived", Unit.PACKETS),
        _always("bytesSent", Unit.BYTES), _always("bytesReceived", Unit.BYTES),
        _always("iceRole", Unit.TEXT, "unknown", "controlling", "controlled"),
        _known("iceLocalUsernameFragment", Unit.TEXT),
        _always("iceState", Unit.TEXT, "new", "checking", "connected", "completed", "disconnected", "failed", "closed"),
        _always("dtlsState", Unit.TEXT, "new", "connecting", "connected", "closed", "failed"),
        _known("dtlsRole", Unit.TEXT, "client", "server", "unknown"),
        _known("selectedCandidatePairId", Unit.IDENTITY), _always("selectedCandidatePairChanges", Unit.COUNT),
        _known("localCertificateId", Unit.IDENTITY), _known("remoteCertificateId", Unit.IDENTITY),
        _known("tlsVersion", Unit.TEXT, note="four hexadecimal digits: FEFD is DTLS 1.2, FEFC is DTLS 1.3"),
        _known("dtlsCipher", Unit.TEXT, note="name of the IANA registry"),
        _known("srtpCipher", Unit.TEXT, note="name of the IANA registry"),
        _known("ccfbMessagesSent", Unit.COUNT), _known("ccfbMessagesReceived", Unit.COUNT),
    )),
    StatsType("candidate-pair", "The selected pair of candidates.", (
        _TRANSPORT_ID, _always("localCandidateId", Unit.IDENTITY), _always("remoteCandidateId", Unit.IDENTITY),
        _always("state", Unit.TEXT, "frozen", "waiting", "in-progress", "failed", "succeeded"),
        _always("nominated", Unit.FLAG),
        _always("packetsSent", Unit.PACKETS), _always("packetsReceived", Unit.PACKETS),
        _always("bytesSent", Unit.BYTES), _always("bytesReceived", Unit.BYTES),
        _known("lastPacketSentTimestamp", Unit.MILLISECONDS), _known("lastPacketReceivedTimestamp", Unit.MILLISECONDS),
        _known("currentRoundTripTime", Unit.SECONDS, note="by the latest check that was answered"),
        _always("totalRoundTripTime", Unit.SECONDS),
        _known("availableOutgoingBitrate", Unit.BITS_PER_SECOND),
        _known("availableIncomingBitrate", Unit.BITS_PER_SECOND),
        _always("requestsReceived", Unit.COUNT), _always("responsesReceived", Unit.COUNT),
        _always("consentRequestsSent", Unit.COUNT),
        _known("packetsDiscardedOnSend", Unit.PACKETS), _known("bytesDiscardedOnSend", Unit.BYTES),
    )),
    *(StatsType(f"{side}-candidate", f"The {side} end of the selected pair.", (
        _TRANSPORT_ID, _always("address", Unit.TEXT), _always("port", Unit.NUMBER),
        _always("protocol", Unit.TEXT, "udp", "tcp"),
        _always("candidateType", Unit.TEXT, "host", "srflx", "prflx", "relay"),
        _always("priority", Unit.NUMBER), _always("foundation", Unit.TEXT),
        _known("relatedAddress", Unit.TEXT), _known("relatedPort", Unit.NUMBER),
        _known("usernameFragment", Unit.TEXT), _known("url", Unit.TEXT),
        _known("relayProtocol", Unit.TEXT, "udp", "tcp", "tls"),
    )) for side in ("local", "remote")),
    StatsType("certificate", "A certificate of the DTLS handshake.", (
        _always("fingerprint", Unit.TEXT), _always("fingerprintAlgorithm", Unit.TEXT),
        _always("base64Certificate", Unit.TEXT),
    )),
    StatsType("x-echo", "The echo of the loudspeaker in the microphone, while it is processed; not of W3C.", (
        _always("mediaSourceId", Unit.IDENTITY), _always("duplex", Unit.TEXT, "full", "half", "pushToTalk"),
        _always("farEndDuration", Unit.SECONDS, note="in which the microphone heard the loudspeaker"),
        _always("doubleTalkDuration", Unit.SECONDS, note="of these, with somebody talking at the microphone as well"),
        _known("residualEchoLevel", Unit.DECIBEL, note="relative to full scale, after cancelling"),
        _known("noiseLevel", Unit.DECIBEL, note="relative to full scale, of the place when it is quietest"),
        _always("gain", Unit.DECIBEL, note="added by the automatic gain"),
    )),
    StatsType("x-device", "The device itself; not of W3C.", (
        _always("cpuLoad", Unit.NUMBER, note="load average over a minute, per processor"),
        _known("memFree", Unit.BYTES), _known("socTemperature", Unit.CELSIUS), _known("throttled", Unit.FLAG),
        _known("encoderQueue", Unit.FRAMES, note="encoded and not yet sent, of the session that lags most"),
        _known("videoAllocatedBitrate", Unit.BITS_PER_SECOND, note="what the narrowest path leaves for the picture"),
        _known("videoConfiguredBitrate", Unit.BITS_PER_SECOND, note="what the encoder is set to"),
        _known("videoProducedBitrate", Unit.BITS_PER_SECOND, note="what it made in the last second"),
        _known("encoderDwell", Unit.SECONDS, note="of the latest frame, in the encoder, where one is encoded here"),
        _known("captureToFirstPacketLatency", Unit.SECONDS,
               note="of the latest frame, from the sensor to its first packet"),
        _known("captureToSendLatency", Unit.SECONDS, note="of the latest frame, from the sensor to its last packet"),
        _known("audioLoopDelay", Unit.SECONDS,
               note="from a block of the microphone to the one heard while the answer to it is played"),
    )),
)
"""Every type of dictionary, ``inbound-rtp``, ``outbound-rtp`` and ``media-source`` by kind."""
