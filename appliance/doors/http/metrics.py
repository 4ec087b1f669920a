"""``GET /metrics``: the Prometheus text format 0.0.4, written by hand (a client library would cost 4 MB)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from appliance.bulletin import Bulletin
from appliance.doors.http.stages import stage_cpu_s
from appliance.vocabulary import DIAGNOSTICS, CallState, Event, Json

__all__ = ["CONTENT_TYPE", "Metrics", "active_diagnostics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]

_RTP: Final = (
    ("bytesSent", "edgecall_rtp_sent_bytes_total", "counter", "RTP payload bytes sent."),
    ("packetsSent", "edgecall_rtp_sent_packets_total", "counter", "RTP packets sent."),
    ("bytesReceived", "edgecall_rtp_received_bytes_total", "counter", "RTP payload bytes received."),
    ("packetsReceived", "edgecall_rtp_received_packets_total", "counter", "RTP packets received."),
    ("packetsLost", "edgecall_rtp_lost_packets_total", "counter", "RTP packets lost on the way."),
    ("jitter", "edgecall_rtp_jitter_seconds", "gauge", "Interarrival jitter (RFC 3550 6.4.1)."),
    ("roundTripTime", "edgecall_rtp_round_trip_seconds", "gauge", "Round-trip time by RTCP."),
    ("framesSent", "edgecall_video_sent_frames_total", "counter", "Pictures sent."),
    ("framesDecoded", "edgecall_video_decoded_frames_total", "counter", "Pictures decoded."),
    ("freezeCount", "edgecall_video_freezes_total", "counter", "Freezes of the received picture (W3C freezeCount)."),
    ("totalFreezesDuration", "edgecall_video_frozen_seconds_total", "counter", "Time the received picture was frozen."),
    ("concealedSamples", "edgecall_audio_concealed_samples_total", "counter", "Samples played in place of lost sound."),
    ("availableOutgoingBitrate", "edgecall_available_outgoing_bits_per_second", "gauge", "What the path may carry."),
)


def active_diagnostics(document: Json) -> frozenset[str]:
    """Names of the diagnostics that ``state/diag`` holds raised: a flag that is true, a quality above 1 (good)."""
    return frozenset(name for name, row in document.items() if row["value"] is True or row["value"] > 1)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"{name}{{{inner}}} {value:g}" if inner else f"{name} {value:.12g}")
    return "\n".join(lines) + "\n"


class Metrics:
    """Counts calls and requests from its making on; everything else is read when it is asked for."""

    def __init__(self, bulletin: Bulletin, device: str) -> None:
        self._bulletin = bulletin
        self._device = device
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._started: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self._missed = 0

    def request(self, method: str, route: str, status: int) -> None:
        """Count one request. ``route`` is a pattern, never a path: labels must stay few."""
        self._requests[method, route, status] += 1

    def event(self, event: Event) -> None:
        """Count one event of the bulletin."""
        if event.type == "call.started":
            self._started[str(event.data.get("direction", ""))] += 1
        elif event.type == "call.ended":
            reason = event.data.get("reason")
            reason = reason if isinstance(reason, Mapping) else {}
            self._ended[f"{reason.get('code', '')}/{reason.get('subCode', '')}"] += 1
        elif event.type == "call.missed":
            self._missed += 1

    async def text(self, health: Json, stats: Sequence[Json], streams: Mapping[str, int]) -> str:
        """The exposition. ``streams``: open event streams, peers and panels."""
        process, stages = await asyncio.to_thread(lambda: (_process(), stage_cpu_s()))
        return "".join([*self._device_families(health), *self._call_families(), *_rtp_families(stats),
                        *self._http_families(streams), *_process_families(process, stages)])

    def _device_families(self, health: Json) -> Iterable[str]:
        version = str(self._bulletin.document("device").get("version", ""))
        yield _family("edgecall_info", "gauge", "Always 1; identity in labels.",
                      [({"device": self._device, "version": version, "boot": self._bulletin.boot}, 1)])
        status = health.get("status")
        yield _family("edgecall_health", "gauge", "1 for the present health.",
                      [({"status": s}, status == s) for s in ("ok", "degraded", "failed")])
        active = active_diagnostics(self._bulletin.document("diag"))
        yield _family("edgecall_diagnostic", "gauge", "1 while a user-facing diagnostic is active.",
                      [({"name": name}, name in active) for name in DIAGNOSTICS])
        yield _family("edgecall_state_revision", "counter", "Revision of the state.", [({}, self._bulletin.rev)])

    def _call_families(self) -> Iterable[str]:
        now = self._bulletin.document("call").get("state", CallState.NONE.value)
        yield _family("edgecall_call_state", "gauge", "1 for the present state of the call.",
                      [({"state": state.value}, now == state.value) for state in CallState])
        level = self._bulletin.document("net").get("networkQualityLevel")
        if level is not None:
            yield _family("edgecall_network_quality_level", "gauge", "5 excellent to 1 bad, 0 while reconnecting.",
                          [({}, level)])
        yield _family("edgecall_calls_started_total", "counter", "Calls connected.",
                      [({"direction": key}, value) for key, value in self._started.items()])
        yield _family("edgecall_calls_ended_total", "counter", "Calls ended, by reason.",
                      [({"reason": key}, value) for key, value in self._ended.items()])
        yield _family("edgecall_calls_missed_total", "counter", "Incoming calls unanswered.", [({}, self._missed)])

    def _http_families(self, streams: Mapping[str, int]) -> Iterable[str]:
        yield _family("edgecall_http_requests_total", "counter", "HTTP requests answered.",
                      [({"method": method, "route": route, "code": str(code)}, value)
                       for (method, route, code), value in self._requests.items()])
        yield _family("edgecall_http_streams", "gauge", "Open streams and WebSockets.",
                      [({"kind": kind}, value) for kind, value in streams.items()])


def _rtp_families(stats: Sequence[Json]) -> Iterable[str]:
    for key, name, kind, text in _RTP:
        samples: list[Sample] = [
            ({"type": str(row.get("type", "")), "kind": str(row.get("kind", "")), "id": str(row.get("id", ""))},
             float(row[key]))
            for row in stats if isinstance(row.get(key), (int, float))]
        if samples:
            yield _family(name, kind, text, samples)


def _process() -> dict[str, Any]:
    """Memory and handles of the daemon, from ``/proc``. Blocking: 1-3 ms for the memory map."""
    sizes: dict[str, float] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in {"Pss", "Rss"}:
                sizes[name] = float(rest.split()[0]) * 1024
    with contextlib.suppress(OSError):
        sizes["fds"] = float(sum(1 for _ in os.scandir("/proc/self/fd")))
    return sizes


def _process_families(process: Mapping[str, float], stages: Mapping[str, float]) -> Iterable[str]:
    for key, name, text in (
        ("Pss", "edgecall_memory_pss_bytes", "Proportional set size of the daemon."),
        ("Rss", "edgecall_memory_rss_bytes", "Resident set size of the daemon."),
        ("fds", "edgecall_open_fds", "Open file descriptors of the daemon."),
    ):
        if key in process:
            yield _family(name, "gauge", text, [({}, process[key])])
    yield _family("edgecall_cpu_seconds_total", "counter", "CPU time of the daemon.", [({}, time.process_time())])
    yield _family("edgecall_stage_cpu_seconds_total", "counter", "CPU time by thread and process.",
                  [({"stage": name}, value) for name, value in sorted(stages.items())])
    yield _family("edgecall_threads", "gauge", "Python threads of the daemon.", [({}, threading.active_count())])
    yield _family("edgecall_tasks", "gauge", "Tasks of the loop.", [({}, len(asyncio.all_tasks()))])
