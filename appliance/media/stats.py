"""The report of one session: W3C webrtc-stats dictionaries (https://www.w3.org/TR/webrtc-stats/), in SI units.

One function per type, one line per member. A member that is None is not known here and is left out: nothing is
guessed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from appliance.media.aiortc_seam import PeerConnection
from appliance.media.rtp_receive import RtpReceiveStream
from appliance.media.rtp_send import RtpSendStream
from appliance.media.sound import BLOCK_MS, RATE
from appliance.vocabulary import Json

if TYPE_CHECKING:
    from aiortc.rtcrtpparameters import RTCRtpCodecParameters

    from appliance.media.session import Session

__all__ = ["collect"]

BLOCK_SAMPLES: Final = RATE * BLOCK_MS // 1000
TRANSPORT: Final = "transport"
PLAYOUT: Final = "playout"
PAIR: Final = "pair"


def collect(session: Session, connection: PeerConnection) -> list[Json]:
    """The report of one session; timestamps in milliseconds since 1970 as W3C has them."""
    stamp = time.time() * 1000
    report: list[Json] = []
    for kind, outgoing in session.outgoing.items():
        sends, receives = connection.negotiated(kind)
        codec = connection.codec(kind)
        if codec is not None and (sends or receives):
            report.append(_codec(kind, codec))
        if sends:
            report += [_outbound(kind, outgoing), *_remote_inbound(kind, outgoing)]
        if receives:
            report += [*_inbound(kind, session), *_remote_outbound(kind, session.incoming[kind])]
    report += [_media_playout(session), *_transport(connection)]
    return [_known(entry, stamp) for entry in report]


def _known(entry: Json, stamp: float) -> Json:
    return {"timestamp": stamp, **{name: value for name, value in entry.items() if value is not None}}


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


def _outbound(kind: str, stream: RtpSendStream) -> Json:
    counters = stream.counters
    entry: Json = {
        "type": "outbound-rtp", "id": f"out-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}",
        "remoteId": f"remote-in-{kind}" if counters.reports else None,
        "packetsSent": counters.packets,
        "bytesSent": counters.payload_bytes,
        "headerBytesSent": counters.header_bytes,
        "retransmittedPacketsSent": counters.resent_packets,
        "retransmittedBytesSent": counters.resent_bytes,
        "nackCount": counters.nacks,
    }
    if kind == "video":
        entry |= {
            "framesSent": counters.frames,
            "keyFramesEncoded": counters.key_frames,
            "pliCount": counters.plis,
            "firCount": counters.firs,
        }
    return entry


def _remote_inbound(kind: str, stream: RtpSendStream) -> list[Json]:
    """What the peer reports of ours (RFC 3550 6.4), once it did."""
    counters = stream.counters
    if not counters.reports:
        return []
    return [{
        "type": "remote-inbound-rtp", "id": f"remote-in-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}", "localId": f"out-{kind}",
        "fractionLost": counters.fraction_lost,
        "packetsLost": counters.packets_lost,
        "jitter": counters.jitter_s,
        "roundTripTime": counters.round_trip_s,
        "totalRoundTripTime": counters.round_trip_total_s,
        "roundTripTimeMeasurements": counters.round_trips,
    }]


# --- what is received -------------------------------------------------------------------------------------------------


def _inbound(kind: str, session: Session) -> list[Json]:
    stream = session.incoming[kind]
    counters, reception = stream.counters, stream.reception
    if reception is None:  # nothing has come: there is no stream yet
        return []
    return [{
        "type": "inbound-rtp", "id": f"in-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}",
        "remoteId": f"remote-out-{kind}" if counters.reports else None,
        "trackIdentifier": f"{kind}-in",
        "packetsReceived": counters.packets,
        "bytesReceived": counters.payload_bytes,
        "headerBytesReceived": counters.header_bytes,
        "packetsLost": reception.lost,
        "jitter": reception.jitter_s,
        "packetsDiscarded": counters.discarded,
        "retransmittedPacketsReceived": counters.resent_packets,
        "nackCount": counters.nacks,
        **(_inbound_audio(session) if kind == "audio" else _inbound_video(session)),
    }]


def _inbound_audio(session: Session) -> Json:
    voice, playout = session.voice_in, session.voice_in.playout
    return {
        "playoutId": PLAYOUT,
        "totalSamplesReceived": voice.samples + voice.concealed_samples,
        "concealedSamples": voice.concealed_samples,
        "silentConcealedSamples": voice.concealed_samples,
        "concealmentEvents": voice.concealments,
        "jitterBufferDelay": playout.delay_total * BLOCK_MS / 1000 * BLOCK_SAMPLES,
        "jitterBufferEmittedCount": playout.played * BLOCK_SAMPLES,
        "removedSamplesForAcceleration": playout.dropped * BLOCK_SAMPLES,
    }


def _inbound_video(session: Session) -> Json:
    counters, video = session.incoming["video"].counters, session.video_in
    smoothness = video.smoothness
    return {
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
        "pliCount": counters.plis,
    }


def _remote_outbound(kind: str, stream: RtpReceiveStream) -> list[Json]:
    """What the peer says it sent, once it did."""
    counters = stream.counters
    if stream.reception is None or not counters.reports:
        return []
    return [{
        "type": "remote-outbound-rtp", "id": f"remote-out-{kind}", "kind": kind, "ssrc": counters.ssrc,
        "transportId": TRANSPORT, "codecId": f"codec-{kind}", "localId": f"in-{kind}",
        "packetsSent": counters.peer_packets,
        "bytesSent": counters.peer_bytes,
        "reportsSent": counters.reports,
    }]


def _media_playout(session: Session) -> Json:
    playout = session.voice_in.playout
    return {
        "type": "media-playout", "id": PLAYOUT, "kind": "audio",
        "totalSamplesCount": (playout.played + playout.concealed) * BLOCK_SAMPLES,
        "totalSamplesDuration": (playout.played + playout.concealed) * BLOCK_MS / 1000,
        "synthesizedSamplesDuration": playout.concealed * BLOCK_MS / 1000,
        "synthesizedSamplesEvents": playout.underruns,
    }


# --- the way between --------------------------------------------------------------------------------------------------


def _transport(connection: PeerConnection) -> list[Json]:
    facts = connection.transport_facts()
    if not facts:
        return []
    security = connection.security()
    paired = "local" in facts
    report: list[Json] = [{
        "type": "transport", "id": TRANSPORT,
        "packetsSent": facts["packetsSent"],
        "packetsReceived": facts["packetsReceived"],
        "bytesSent": facts["bytesSent"],
        "bytesReceived": facts["bytesReceived"],
        "iceRole": facts["iceRole"],
        "iceState": facts["iceState"],
        "dtlsState": facts["dtlsState"],
        "selectedCandidatePairId": PAIR if paired else None,
        "tlsVersion": security.get("tlsVersion"),
        "dtlsCipher": security.get("dtlsCipher"),
        "dtlsRole": security.get("dtlsRole"),
        "srtpCipher": security.get("srtpCipher"),
    }]
    if paired:
        report.append(_candidate_pair())
        report += [_candidate(side, facts[side]) for side in ("local", "remote")]
    return report


def _candidate_pair() -> Json:
    return {
        "type": "candidate-pair", "id": PAIR, "transportId": TRANSPORT,
        "localCandidateId": "local", "remoteCandidateId": "remote",
        "state": "succeeded",
        "nominated": True,
    }


def _candidate(side: str, candidate: Any) -> Json:
    return {
        "type": f"{side}-candidate", "id": side, "transportId": TRANSPORT,
        "address": candidate.ip,
        "port": candidate.port,
        "protocol": candidate.protocol,
        "candidateType": candidate.type,
        "priority": candidate.priority,
    }
