"""The seam to aiortc's codecs and packets: what of them is offered, and the versions whose private names are known.

Importing it makes aiortc offer what we speak: Opus with FEC, transport-wide feedback, RIDs; and refuses other versions
than those tested, since private names change without notice.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Final

from aiortc.codecs import CODECS, HEADER_EXTENSIONS, depayload, get_capabilities, is_rtx
from aiortc.codecs.h264 import H264Encoder
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rate import RemoteBitrateEstimator
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpCodecCapability,
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    HeaderExtensionsMap,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    RtpPacket,
    clamp_packets_lost,
    pack_remb_fci,
    unpack_remb_fci,
    unwrap_rtx,
)

from appliance.media.congestion import transport_cc

__all__ = [
    "FEEDBACK",
    "ONE_BYTE_ID",
    "AnyRtcpPacket",
    "HeaderExtensionsMap",
    "MediaStreamTrack",
    "RTCRtcpParameters",
    "RTCRtpCodecParameters",
    "RTCRtpReceiveParameters",
    "RTCRtpSendParameters",
    "RemoteBitrateEstimator",
    "RtcpPacket",
    "RtcpPsfbPacket",
    "RtcpReceiverInfo",
    "RtcpRrPacket",
    "RtcpRtpfbPacket",
    "RtcpSdesPacket",
    "RtcpSenderInfo",
    "RtcpSourceInfo",
    "RtcpSrPacket",
    "RtpPacket",
    "UnsupportedVersionError",
    "check_versions",
    "clamp_packets_lost",
    "codec_preferences",
    "depayload",
    "h264_payloads",
    "is_rtx",
    "pack_remb_fci",
    "transport_wide_id",
    "unpack_remb_fci",
    "unwrap_rtx",
]

TESTED: Final = {"aiortc": "1.16.", "aioice": "0.13."}
ONE_BYTE_ID: Final = 14  # the highest id of the one-byte form (RFC 8285 4.2), which is the only one we write
TRANSPORT_WIDE_ID: Final = 4  # of the header extension, in our offers; free in aiortc's own numbering
STREAM_IDS: Final = (
    (5, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"), (6, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
)

# What we tell of our own Opus decoder (RFC 7587 6.1); stock says nothing, so that peers send no FEC. Pauses (usedtx)
# are understood and not asked for: encoders take a steady sound, an alarm or a hum, for noise and send nothing of it.
OPUS_FORMAT: Final = {"minptime": 10, "useinbandfec": 1}

FEEDBACK: Final = {
    "pli": RTCP_PSFB_PLI,
    "fir": RTCP_PSFB_FIR,
    "app": RTCP_PSFB_APP,
    "nack": RTCP_RTPFB_NACK,
}
"""Feedback message types (RFC 4585 6.2.1, 6.3.1; RFC 5104 4.3.1)."""


class UnsupportedVersionError(ImportError):
    """The installed aiortc or aioice is not one whose internals are known."""


def check_versions() -> None:
    """Raise UnsupportedVersionError, naming what is installed and what is needed."""
    for package, tested in TESTED.items():
        installed = version(package)
        if not installed.startswith(tested):
            raise UnsupportedVersionError(
                f"{package} {installed} is installed, but Edgecall is built on internals of {package} {tested}*: "
                f"install it with  pip install '{package}=={tested}*'"
            )


check_versions()

for _codec in CODECS["audio"]:
    if _codec.mimeType == "audio/opus":
        _codec.parameters = dict(OPUS_FORMAT)

# INFO lines of aioice are addresses of people, for every check; DEBUG ones of aiortc hold the passwords of ICE.
for _talkative in ("aioice", "aiortc"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)


def h264_payloads(access_unit: bytes) -> list[bytes]:
    """RTP payloads of one Annex-B access unit: single NAL, STAP-A and FU-A (RFC 6184, packetization-mode 1)."""
    return H264Encoder._packetize(H264Encoder._split_bitstream(access_unit))


def codec_preferences(kind: str) -> list[RTCRtpCodecCapability]:
    """Opus before G.722 and G.711 (RFC 7874 3), or constrained baseline and baseline H.264 with retransmission.

    Without this VP8 stands first and H.264 packets would leave under its payload type without any error.
    """
    codecs = get_capabilities(kind).codecs
    if kind == "audio":
        return [codec for codec in codecs if codec.mimeType in ("audio/opus", "audio/G722", "audio/PCMU", "audio/PCMA")]
    profiles = {"42e01f": 0, "42001f": 1}
    h264 = [codec for codec in codecs if codec.parameters.get("profile-level-id") in profiles]
    h264.sort(key=lambda codec: profiles[str(codec.parameters["profile-level-id"])])
    return h264 + [codec for codec in codecs if codec.mimeType == "video/rtx"]


def _offer_transport_wide() -> None:
    """Put transport-wide feedback into what aiortc offers and accepts, for sound and picture alike."""
    for kind in ("audio", "video"):
        if not any(extension.uri == transport_cc.URI for extension in HEADER_EXTENSIONS[kind]):
            HEADER_EXTENSIONS[kind].append(
                RTCRtpHeaderExtensionParameters(id=TRANSPORT_WIDE_ID, uri=transport_cc.URI)
            )
            for codec in CODECS[kind]:
                if not is_rtx(codec):
                    codec.rtcpFeedback.append(RTCRtcpFeedback(type="transport-cc"))


_offer_transport_wide()


def _offer_stream_ids() -> None:
    """Accept the RIDs of a room that sends neither SSRCs nor a MID with its retransmissions (RFC 8852)."""
    for number, uri in STREAM_IDS:
        if not any(extension.uri == uri for extension in HEADER_EXTENSIONS["video"]):
            HEADER_EXTENSIONS["video"].append(RTCRtpHeaderExtensionParameters(id=number, uri=uri))


_offer_stream_ids()


def transport_wide_id(parameters: RTCRtpParameters) -> int | None:
    """Id of the header extension that carries the transport-wide sequence number, when both sides do transport-cc."""
    if not any(feedback.type == "transport-cc" for codec in parameters.codecs for feedback in codec.rtcpFeedback):
        return None
    ids = (each.id for each in parameters.headerExtensions if each.uri == transport_cc.URI)
    return next((number for number in ids if 1 <= number <= ONE_BYTE_ID), None)
