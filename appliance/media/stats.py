"""The report of one session: W3C webrtc-stats dictionaries (https://www.w3.org/TR/webrtc-stats/), in SI units.

One function per type, one line per member. A member that is None is not known here and is left out: nothing is
guessed. The names and units of what may stand in a report are declared in ``appliance.webrtc_stats``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from appliance.media.dtls_seam import CertificateFacts
from appliance.media.playout import Playout
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.sound import RATE
from appliance.media.transmission import NTP_UNIX_S
from appliance.media.transport import MediaTransport
from appliance.media.video_in import VideoIn
from appliance.vocabulary import Json
from hw.api import EncoderKind

if TYPE_CHECKING:
    from aiortc.rtcrtpparameters import RTCRtpCodecParameters

    from appliance.media.session import Channel, Session

__all__ = ["Received", "collect", "collect_room", "named_apart"]

TRANSPORT: Final = "transport"
PLAYOUT: Final = "playout"
PAIR: Final = "pair"
EFFICIENT: Final = frozenset({EncoderKind.HARDWARE, EncoderKind.CAMERA})
TLS_VERSIONS: Final = {"DTLSv1": "FEFF", "DTLSv1.2": "FEFD", "DTLSv1.3": "FEFC"}
CIPHERS: Final = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-SHA": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "ECDHE-ECDSA-AES256-SHA": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "ECDHE-RSA-AES128-SHA": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
}
"""OpenSSL's names of the suites we negotiate, as the IANA registry has them."""


def collect(session: Session, connection: MediaTransport) -> list[Json]:
    """The report of one session; timestamps in milliseconds since 1970 as W3C has them."""
    moment = _Moment(time.monotonic(), time.time() * 1000)
    report: list[Json] = [_peer_connection(session)]
    for kind, outgoing in session.outgoing.items():
        sends, receives = connection.negotiated(kind)
        codec = connection.codec(kind)
        if codec is None or not (sends or receives):
            continue
        report.append(_codec(kind, codec))
        if sends:
            sources = _source(kind, session, moment)
            outbound = _outbound(kind, outgoing, session, connection, moment)
            if sources:
                outbound["mediaSourceId"] = sources[0]["id"]
            report += [*sources, outbound, *_remote_inbound(kind, outgoing)]
        if receives:
            received = Received(kind, kind, session.incoming[kind], connection.mid(kind),
                                session.voice_in if kind == "audio" else None,
                                session.video_in if kind == "video" else None)
            report += [*_inbound(received, moment), *_remote_outbound(received)]
    report += [_playout(session.voice_in, PLAYOUT), *_echo(session)]
    report += [_data_channel(number, one) for number, one in enumerate(session.channels)]
    incoming = session.incoming.get("video")
    report += _transport(connection, session.transmission.available_bps, incoming.allowed if incoming else None)
    return [_known(entry, moment.stamp) for entry in report]


@dataclass(frozen=True, slots=True)
class Received:
    """One stream that is received, and what plays or shows it. ``name`` is unique in the report."""

    name: str
    kind: str
    stream: RtpReceiveStream
    mid: str | None
    voice: Playout | None = None
    video: VideoIn | None = None


def collect_room(lines: Sequence[Received], connection: MediaTransport) -> list[Json]:
    """The report of a connection that receives many streams. Its ids begin with ``room-``: it stands beside that of
    the session that sends to the room."""
    moment = _Moment(time.monotonic(), time.time() * 1000)
    report: list[Json] = []
    for kind in ("audio", "video"):
        codec = connection.codec(kind)
        if codec is not None and any(line.kind == kind for line in lines):
            report.append(_codec(kind, codec))
    for line in lines:
        report += [*_inbound(line, moment), *_remote_outbound(line)]
    report += _transport(connection, None, None)
    named_apart(report, "room")
    report += [_playout(line.voice, f"room-{PLAYOUT}-{line.name}") for line in lines if line.voice is not None]
    return [_known(entry, moment.stamp) for entry in report]


def named_apart(report: Sequence[Json], prefix: str) -> Sequence[Json]:
    """The report of a connection that stands beside another one: each id in it begins with ``PREFIX-``."""
    for entry in report:
        for key, value in entry.items():
            if value is not None and (key == "id" or key.endswith("Id")):
                entry[key] = f"{prefix}-{value}"
    return report


@dataclass(frozen=True, slots=True)
class _Moment:
    """When the report is made: monotonic seconds, and W3C's milliseconds since 1970."""

    monotonic: float
    stamp: float

    def wall(self, monotonic: float) -> float:
        """Milliseconds since 1970 of a monotonic moment."""
        return self.stamp - (self.monotonic - monotonic) * 1000


def _known(entry: Json, stamp: float) -> Json:
    entry["timestamp"] = stamp
    for name in [name for name, value in entry.items() if value is None]:
        del entry[name]
    return entry


def _peer_connection(session: Session) -> Json:
    states = [one.channel.readyState for one in session.channels]
    return {
        "type": "peer-connection", "id": "connection",
        "dataChannelsOpened": sum(state in ("open", "closing", "closed") for state in states),
        "dataChannelsClosed": states.count("closed"),
    }


def _codec(kind: str, codec: RTCRtpCodecParameters) -> Json:
    return {
        "type": "codec", "id": f"codec-{kind}", "transportId": TRANSPORT,
        "mimeType": codec.mimeType,
        "payloadType": codec.payloadType,
        "clockRate": codec.clockRate,
        "channels": codec.channels,
        "sdpFmtpLine": ";".join(f"{key}={value}" for key, value in codec.parameters.items()) or None,
    }


# --- what is sent -----------------------------------------------------------------------------------------------------


def _source(kind: str, session: Session, moment: _Moment) -> list[Json]:
    """Microphone and camera: there when the session has them."""
    entry: Json = {"type": "media-source", "id": f"source-{kind}", "kind": kind, "trackIdentifier": f"{kind}-out"}
    if kind == "audio" and session.microphone_track is not None:
        return [entry | {
            "audioLevel": session.voice.level,
            "totalAudioEnergy": session.voice.energy,
            "totalSamplesDuration": session.voice.seconds,
            **(session.processing.source_stats() if session.processing is not None else {}),
        }]
    if kind == "video" and session.camera is not None:
        mode, rate = session.camera.mode, session.camera.rate
        return [entry | {
            "width": mode.width if mode is not None else None,
            "height": mode.height if mode is not None else None,
            "frames": rate.frames,
            "framesPerSecond": rate.per_second(moment.monotonic),
        }]
    return []


def _echo(session: Session) -> list[Json]:
    """What W3C has no name for, while the microphone's sound is processed."""
    processing = session.processing
    if processing is None or not processing.active:
        return []
    return [{"type": "x-echo", "id": "echo", "mediaSourceId": "source-audio", **processing.echo_stats()}]


def _outbound(
    kind: str, stream: RtpSendStream, session: Session, connection: MediaTransport, moment: _Moment
) -> Json:
    counters = stream.counters
    audio, video = session.sending
    entry: Json = {
        "type": "outbound-rtp", "id": f"out-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}",
        "remoteId": f"remote-in-{kind}" if counters.reports else None,
        "mid": connection.mid(kind),
        "rtxSsrc": stream.rtx_ssrc,
        "active": audio if kind == "audio" else video,
        "packetsSent": counters.packets + counters.resent_packets,
        "bytesSent": counters.payload_bytes + counters.resent_bytes,
        "headerBytesSent": counters.header_bytes,
        "retransmittedPacketsSent": counters.resent_packets,
        "retransmittedBytesSent": counters.resent_bytes,
        "totalPacketSendDelay": counters.send_delay_s,
        "nackCount": counters.nacks,
    }
    own = _outbound_video(stream, session, moment) if kind == "video" else {"targetBitrate": session.voice_bitrate}
    return entry | own


def _outbound_video(stream: RtpSendStream, session: Session, moment: _Moment) -> Json:
    counters, camera, track = stream.counters, session.camera, session.camera_track
    mode = camera.mode if camera is not None else None
    return {
        "framesSent": counters.frames,
        "framesEncoded": track.encoded if track is not None else 0,
        "keyFramesEncoded": track.key_encoded if track is not None else 0,
        "totalEncodeTime": track.encode_s if track is not None else 0.0,
        "frameWidth": mode.width if mode is not None else None,
        "frameHeight": mode.height if mode is not None else None,
        "framesPerSecond": camera.rate.per_second(moment.monotonic) if camera is not None else 0.0,
        "targetBitrate": camera.bitrate if camera is not None else None,
        "encoderImplementation": camera.encoder.value if camera is not None else None,
        "powerEfficientEncoder": camera.encoder in EFFICIENT if camera is not None else None,
        "qualityLimitationReason": track.quality.reason.value if track is not None else None,
        "qualityLimitationDurations": track.quality.durations(moment.monotonic) if track is not None else None,
        "qualityLimitationResolutionChanges": track.quality.resolution_changes if track is not None else None,
        "pliCount": counters.plis,
        "firCount": counters.firs,
    }


def _remote_inbound(kind: str, stream: RtpSendStream) -> list[Json]:
    """What the peer reports of ours (RFC 3550 6.4), once it did."""
    counters = stream.counters
    if not counters.reports:
        return []
    return [{
        "type": "remote-inbound-rtp", "id": f"remote-in-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}", "localId": f"out-{kind}",
        "fractionLost": counters.fraction_lost,
        "packetsReceived": counters.packets_come,
        "packetsLost": counters.packets_lost,
        "jitter": counters.jitter_s,
        "roundTripTime": counters.latest_round_trip_s,
        "totalRoundTripTime": counters.round_trip_total_s,
        "roundTripTimeMeasurements": counters.round_trips,
    }]


# --- what is received -------------------------------------------------------------------------------------------------


def _inbound(one: Received, moment: _Moment) -> list[Json]:
    counters, reception = one.stream.counters, one.stream.reception
    if reception is None:  # nothing has come: there is no stream yet
        return []
    discarded = one.voice.of_source.discarded if one.voice is not None else 0
    entry: Json = {
        "type": "inbound-rtp", "id": f"in-{one.name}", "kind": one.kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{one.kind}",
        "remoteId": f"remote-out-{one.name}" if counters.reports else None,
        "trackIdentifier": f"{one.name}-in",
        "mid": one.mid,
        "packetsReceived": counters.packets,
        "bytesReceived": counters.payload_bytes,
        "headerBytesReceived": counters.header_bytes,
        "lastPacketReceivedTimestamp": moment.wall(counters.last_at),
        "packetsLost": reception.lost,
        "jitter": reception.jitter_s,
        "packetsDiscarded": counters.discarded + discarded,
        "estimatedPlayoutTimestamp": _playing(one, moment),
        "retransmittedPacketsReceived": counters.resent_packets,
        "retransmittedBytesReceived": counters.resent_bytes,
        "nackCount": counters.nacks,
    }
    if one.voice is not None:
        entry |= _inbound_audio(one.voice, PLAYOUT if one.name == one.kind else f"{PLAYOUT}-{one.name}")
    if one.video is not None:
        entry |= _inbound_video(one.stream, one.video, moment)
    return [entry]


def _playing(one: Received, moment: _Moment) -> float | None:
    """When the peer captured what is heard or seen now, by the peer's own clock; None before it reported that."""
    shown = one.voice or one.video
    position = shown.position if shown is not None else None
    captured = one.stream.captured_at(position[0]) if position is not None else None
    if position is None or captured is None:
        return None
    return (captured - NTP_UNIX_S + moment.monotonic - position[1]) * 1000


def _inbound_audio(voice: Playout, playout: str) -> Json:
    played = voice.of_source
    return {
        "playoutId": playout,
        "totalSamplesReceived": played.received,
        "concealedSamples": played.concealed,
        "silentConcealedSamples": played.silent_concealed,
        "concealmentEvents": played.concealments,
        "insertedSamplesForDeceleration": played.inserted,
        "removedSamplesForAcceleration": played.removed,
        "jitterBufferDelay": played.delay_s,
        "jitterBufferTargetDelay": played.target_s,
        "jitterBufferMinimumDelay": played.minimum_s,
        "jitterBufferEmittedCount": played.received,
        "audioLevel": played.level,
        "totalAudioEnergy": played.energy,
        "totalSamplesDuration": played.received / RATE,
    }


def _inbound_video(stream: RtpReceiveStream, video: VideoIn, moment: _Moment) -> Json:
    counters, smoothness = stream.counters, video.smoothness
    return {
        "framesPerSecond": video.rate.per_second(moment.monotonic),
        "framesReceived": counters.frames,
        "framesDecoded": video.decoded,
        "keyFramesDecoded": video.key_decoded,
        "framesDropped": video.dropped,
        "frameWidth": video.size[0] or None,
        "frameHeight": video.size[1] or None,
        "framesRendered": smoothness.frames_rendered,
        "freezeCount": smoothness.freeze_count,
        "totalFreezesDuration": smoothness.total_freezes_s,
        "pauseCount": smoothness.pause_count,
        "totalPausesDuration": smoothness.total_pauses_s,
        "totalInterFrameDelay": smoothness.total_inter_frame_delay_s,
        "totalSquaredInterFrameDelay": smoothness.total_squared_inter_frame_delay_s2,
        "totalDecodeTime": video.decode_s,
        "totalProcessingDelay": video.processing_s,
        "jitterBufferDelay": video.buffered_s,
        "jitterBufferTargetDelay": video.target_s,
        "jitterBufferMinimumDelay": video.minimum_s,
        "jitterBufferEmittedCount": video.emitted,
        "decoderImplementation": "FFmpeg",
        "powerEfficientDecoder": False,
        "pliCount": counters.plis,
    }


def _remote_outbound(one: Received) -> list[Json]:
    """What the peer says it sent, once it did."""
    counters = one.stream.counters
    if one.stream.reception is None or not counters.reports:
        return []
    return [{
        "type": "remote-outbound-rtp", "id": f"remote-out-{one.name}", "kind": one.kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{one.kind}", "localId": f"in-{one.name}",
        "packetsSent": counters.peer_packets,
        "bytesSent": counters.peer_bytes,
        "reportsSent": counters.reports,
        "remoteTimestamp": (counters.peer_ntp / (1 << 32) - NTP_UNIX_S) * 1000,
    }]


def _playout(voice: Playout, name: str) -> Json:
    played = voice.counters
    return {
        "type": "media-playout", "id": name, "kind": "audio",
        "totalSamplesCount": played.received,
        "totalSamplesDuration": played.received / RATE,
        "synthesizedSamplesDuration": played.concealed / RATE,
        "synthesizedSamplesEvents": played.concealments,
    }


# --- the way between --------------------------------------------------------------------------------------------------


def _data_channel(number: int, one: Channel) -> Json:
    return {
        "type": "data-channel", "id": f"channel-{number}",
        "label": one.channel.label,
        "protocol": one.channel.protocol,
        "dataChannelIdentifier": one.channel.id,
        "state": one.channel.readyState,
        "messagesSent": one.sent,
        "bytesSent": one.sent_bytes,
        "messagesReceived": one.received,
        "bytesReceived": one.received_bytes,
    }


def _transport(connection: MediaTransport, outgoing: float | None, incoming: int | None) -> list[Json]:
    """``outgoing``, ``incoming``: bits per second that are there, where somebody estimates them."""
    facts = connection.transport_facts()
    if not facts:
        return []
    security, certificates = connection.security(), connection.certificates()
    paired = "local" in facts
    report: list[Json] = [{
        "type": "transport", "id": TRANSPORT,
        "packetsSent": facts["packetsSent"],
        "packetsReceived": facts["packetsReceived"],
        "bytesSent": facts["bytesSent"],
        "bytesReceived": facts["bytesReceived"],
        "iceRole": facts.get("iceRole"),
        "iceState": facts.get("iceState"),
        "iceLocalUsernameFragment": facts.get("localUsername"),
        "dtlsState": facts.get("dtlsState"),
        "selectedCandidatePairId": PAIR if paired else None,
        "selectedCandidatePairChanges": facts["checks"].pair_changes if "checks" in facts else None,
        "localCertificateId": "certificate-local" if "local" in certificates else None,
        "remoteCertificateId": "certificate-remote" if "remote" in certificates else None,
        "tlsVersion": TLS_VERSIONS.get(security.get("tlsVersion", "")),
        "dtlsCipher": CIPHERS.get(security.get("dtlsCipher", "")),
        "dtlsRole": security.get("dtlsRole"),
        "srtpCipher": security.get("srtpCipher"),
    }]
    if paired:
        report.append(_candidate_pair(facts, outgoing, incoming))
        report += [_candidate(side, facts[side], facts[f"{side}Username"]) for side in ("local", "remote")]
    return report + [_certificate(side, one) for side, one in certificates.items()]


def _candidate_pair(facts: Mapping[str, Any], outgoing: float | None, incoming: int | None) -> Json:
    checks = facts["checks"]
    return {
        "type": "candidate-pair", "id": PAIR, "transportId": TRANSPORT,
        "localCandidateId": "local", "remoteCandidateId": "remote",
        "state": "succeeded",
        "nominated": True,
        "packetsSent": facts["packetsSent"],
        "packetsReceived": facts["packetsReceived"],
        "bytesSent": facts["bytesSent"],
        "bytesReceived": facts["bytesReceived"],
        "currentRoundTripTime": checks.round_trip_s,
        "totalRoundTripTime": checks.round_trip_total_s,
        "availableOutgoingBitrate": outgoing,
        "availableIncomingBitrate": incoming,
        "requestsReceived": checks.requests,
        "responsesReceived": checks.answers,
        "consentRequestsSent": checks.consents_sent,
        "packetsDiscardedOnSend": facts["discardedOnSend"],
    }


def _candidate(side: str, candidate: Any, username: str) -> Json:
    return {
        "type": f"{side}-candidate", "id": side, "transportId": TRANSPORT,
        "address": candidate.ip,
        "port": candidate.port,
        "protocol": candidate.protocol,
        "candidateType": candidate.type,
        "priority": candidate.priority,
        "foundation": candidate.foundation,
        "relatedAddress": candidate.relatedAddress,
        "relatedPort": candidate.relatedPort,
        "usernameFragment": username,
    }


def _certificate(side: str, certificate: CertificateFacts) -> Json:
    return {
        "type": "certificate", "id": f"certificate-{side}",
        "fingerprint": certificate.fingerprint,
        "fingerprintAlgorithm": certificate.algorithm,
        "base64Certificate": certificate.base64,
    }
