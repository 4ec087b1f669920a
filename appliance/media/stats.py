"""Statistics of a session as W3C webrtc-stats dictionaries, in SI units. Only what is known is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from appliance.media.aiortc_seam import PeerConnection
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.sound import BLOCK_MS, RATE
from appliance.vocabulary import Json

if TYPE_CHECKING:
    from appliance.media.session import Session

__all__ = ["collect"]

BLOCK_SAMPLES: Final = RATE * BLOCK_MS // 1000


def collect(session: Session, connection: PeerConnection) -> list[Json]:
    """The report of one session; timestamps in milliseconds since 1970 as W3C has them."""
    stamp = time.time() * 1000
    report: list[Json] = []
    for kind, outgoing in session.outgoing.items():
        sends, receives = connection.negotiated(kind)
        if not (sends or receives):
            continue
        report.append(_codec(kind, connection))
        if sends:
            report += _outbound(kind, outgoing)
        if receives:
            report += _inbound(kind, session.incoming[kind], session)
    report += _transport(connection)
    playout = session.voice_in.playout
    report.append({
        "type": "media-playout", "id": "playout", "kind": "audio",
        "totalSamplesCount": (playout.played + playout.concealed) * BLOCK_SAMPLES,
        "totalSamplesDuration": (playout.played + playout.concealed) * BLOCK_MS / 1000,
        "synthesizedSamplesDuration": playout.concealed * BLOCK_MS / 1000,
        "synthesizedSamplesEvents": playout.underruns,
    })
    for entry in report:
        entry["timestamp"] = stamp
    return report


def _codec(kind: str, connection: PeerConnection) -> Json:
    codec = connection.codec(kind)
    entry: Json = {"type": "codec", "id": f"codec-{kind}", "transportId": "transport"}
    if codec is not None:
        entry |= {"mimeType": codec.mimeType, "payloadType": codec.payloadType, "clockRate": codec.clockRate}
        if codec.channels:
            entry["channels"] = codec.channels
        if codec.parameters:
            entry["sdpFmtpLine"] = ";".join(f"{key}={value}" for key, value in codec.parameters.items())
    return entry


def _outbound(kind: str, stream: RtpSendStream) -> list[Json]:
    counters = stream.counters
    outbound: Json = {
        "type": "outbound-rtp", "id": f"out-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "codecId": f"codec-{kind}", "transportId": "transport", "remoteId": f"remote-in-{kind}",
        "packetsSent": counters.packets, "bytesSent": counters.payload_bytes,
        "headerBytesSent": counters.header_bytes,
        "retransmittedPacketsSent": counters.resent_packets, "retransmittedBytesSent": counters.resent_bytes,
        "nackCount": counters.nacks,
    }
    if kind == "video":
        outbound |= {
            "framesSent": counters.frames, "keyFramesEncoded": counters.key_frames,
            "pliCount": counters.plis, "firCount": counters.firs,
        }
    report = [outbound]
    if counters.reports:
        remote: Json = {
            "type": "remote-inbound-rtp", "id": f"remote-in-{kind}", "kind": kind, "ssrc": counters.ssrc,
            "localId": f"out-{kind}", "fractionLost": counters.fraction_lost, "packetsLost": counters.packets_lost,
            "jitter": counters.jitter_s, "roundTripTimeMeasurements": counters.round_trips,
            "totalRoundTripTime": counters.round_trip_total_s,
        }
        if counters.round_trip_s is not None:
            remote["roundTripTime"] = counters.round_trip_s
        report.append(remote)
    return report


def _inbound(kind: str, stream: RtpReceiveStream, session: Session) -> list[Json]:
    counters = stream.counters
    if stream.reception is None:
        return []
    inbound: Json = {
        "type": "inbound-rtp", "id": f"in-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "codecId": f"codec-{kind}", "transportId": "transport",
        "packetsReceived": counters.packets, "bytesReceived": counters.payload_bytes,
        "headerBytesReceived": counters.header_bytes, "packetsLost": stream.reception.lost,
        "jitter": stream.reception.jitter_s, "packetsDiscarded": counters.discarded,
        "nackCount": counters.nacks, "retransmittedPacketsReceived": counters.resent_packets,
    }
    if kind == "audio":
        voice = session.voice_in
        inbound |= {
            "totalSamplesReceived": voice.samples + voice.concealed_samples,
            "concealedSamples": voice.concealed_samples, "silentConcealedSamples": voice.concealed_samples,
            "concealmentEvents": voice.concealments, "playoutId": "playout",
            "jitterBufferDelay": voice.playout.delay_total * BLOCK_MS / 1000 * BLOCK_SAMPLES,
            "jitterBufferEmittedCount": voice.playout.played * BLOCK_SAMPLES,
            "removedSamplesForAcceleration": voice.playout.dropped * BLOCK_SAMPLES,
        }
    else:
        video = session.video_in
        inbound |= {
            "framesReceived": counters.frames, "framesDecoded": video.decoded, "keyFramesDecoded": video.key_decoded,
            "framesDropped": video.dropped, "pliCount": counters.plis, "totalDecodeTime": video.decode_s,
        }
        if video.size != (0, 0):
            inbound |= {"frameWidth": video.size[0], "frameHeight": video.size[1]}
    report = [inbound]
    if counters.reports:
        inbound["remoteId"] = f"remote-out-{kind}"
        report.append({
            "type": "remote-outbound-rtp", "id": f"remote-out-{kind}", "kind": kind, "ssrc": counters.ssrc,
            "localId": f"in-{kind}", "packetsSent": counters.peer_packets, "bytesSent": counters.peer_bytes,
            "reportsSent": counters.reports,
        })
    return report


def _transport(connection: PeerConnection) -> list[Json]:
    facts = connection.transport_facts()
    if not facts:
        return []
    security = connection.security()
    transport: Json = {
        "type": "transport", "id": "transport",
        **{name: facts[name] for name in (
            "bytesSent", "bytesReceived", "packetsSent", "packetsReceived", "iceRole", "iceState", "dtlsState",
        )},
        **{name: security[name] for name in ("tlsVersion", "dtlsCipher", "srtpCipher", "dtlsRole") if name in security},
    }
    report = [transport]
    if "local" in facts:
        transport["selectedCandidatePairId"] = "pair"
        report.append({
            "type": "candidate-pair", "id": "pair", "transportId": "transport", "localCandidateId": "local",
            "remoteCandidateId": "remote", "state": "succeeded", "nominated": True,
        })
        report += [_candidate(side, facts[side]) for side in ("local", "remote")]
    return report


def _candidate(side: str, candidate: Any) -> Json:
    return {
        "type": f"{side}-candidate", "id": side, "transportId": "transport", "address": candidate.ip,
        "port": candidate.port, "protocol": candidate.protocol, "candidateType": candidate.type,
        "priority": candidate.priority,
    }
