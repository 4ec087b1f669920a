"""Reports of a made-up call: what a line of given round trip, jitter, loss and frame rate would have counted."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.vocabulary import Json

BEGIN_MS = 1_700_000_000_000.0


@dataclass
class CalmCall:
    """``report(seconds)`` is the report of a call that lasts since so long; change what it is like between two."""

    rtt: float = 0.02
    jitter: float = 0.002
    loss: float = 0.0
    fps: float = 30.0
    sent_fps: float = 30.0
    target: float = 1_500_000
    ssrc: int = 1
    limited_by: str = "bandwidth"

    def __post_init__(self) -> None:
        self.now = 0.0
        self.frozen = 0.0
        self.concealed = 0.0  # seconds of sound, of which a tenth is silence
        self.frames = self.frames_sent = self.packets = self.lost = 0.0
        self.silent_since: float | None = None  # nothing comes, although the peer sends

    def after(self, seconds: float) -> list[Json]:
        self.now += seconds
        if self.silent_since is None:
            self.packets += 50 * seconds * (1 - self.loss)
            self.lost += 50 * seconds * self.loss
            self.frames += self.fps * seconds
        self.frames_sent += self.sent_fps * seconds
        return self.report()

    def report(self) -> list[Json]:
        stamp = BEGIN_MS + self.now * 1000
        last = stamp if self.silent_since is None else BEGIN_MS + self.silent_since * 1000
        rows: list[Json] = [{"type": "codec", "id": "codec-audio", "mimeType": "audio/opus"},
                            {"type": "codec", "id": "codec-video", "mimeType": "video/H264"},
                            {"type": "candidate-pair", "id": "pair", "currentRoundTripTime": self.rtt,
                             "bytesSent": round(self.now * 200_000), "bytesReceived": round(self.now * 200_000),
                             "availableOutgoingBitrate": 2_000_000}]
        sent = round(50 * self.now)
        for number, kind in enumerate(("audio", "video")):
            ids = {"kind": kind, "ssrc": self.ssrc + 10 * number, "codecId": f"codec-{kind}"}
            rows += [
                {"type": "media-source", "id": f"source-{kind}", "kind": kind, "audioLevel": 0.25,
                 "framesPerSecond": 30.0, "width": 1280, "height": 720},
                {"type": "outbound-rtp", "id": f"out-{kind}", **ids, "active": True, "remoteId": f"remote-in-{kind}",
                 "mediaSourceId": f"source-{kind}", "packetsSent": sent, "bytesSent": sent * 100,
                 "targetBitrate": self.target if kind == "video" else 32_000},
                {"type": "remote-inbound-rtp", "id": f"remote-in-{kind}", **ids, "packetsLost": round(self.lost),
                 "packetsReceived": round(self.packets),
                 "jitter": self.jitter, "fractionLost": self.loss, "roundTripTime": self.rtt},
                {"type": "inbound-rtp", "id": f"in-{kind}", **ids, "remoteId": f"remote-out-{kind}",
                 "packetsReceived": round(self.packets), "bytesReceived": round(self.packets) * 100,
                 "packetsLost": round(self.lost), "jitter": self.jitter, "lastPacketReceivedTimestamp": last},
                {"type": "remote-outbound-rtp", "id": f"remote-out-{kind}", **ids, "packetsSent": sent},
            ]
        by_id = {row["id"]: row for row in rows}
        by_id["in-audio"] |= {"totalSamplesReceived": round(self.now * 48_000),
                              "concealedSamples": round(self.concealed * 48_000),
                              "silentConcealedSamples": round(self.concealed * 4_800), "audioLevel": 0.5,
                              "jitterBufferDelay": self.now * 2880,
                              "jitterBufferEmittedCount": round(self.now * 48_000)}
        by_id["out-video"] |= {"qualityLimitationReason": self.limited_by,
                               "framesSent": round(self.frames_sent), "framesEncoded": round(self.frames_sent),
                               "frameWidth": 1280, "frameHeight": 720, "totalEncodeTime": self.frames_sent * 0.01}
        by_id["in-video"] |= {"framesDecoded": round(self.frames), "framesReceived": round(self.frames),
                              "totalFreezesDuration": self.frozen, "freezeCount": round(self.frozen > 0)}
        for row in rows:
            row["timestamp"] = stamp
        return rows
