"""CPU of sending a pre-encoded 720p30 picture, ours beside stock aiortc in the same run.

    python -m tests.bench.bench_send_path [--quick] [--json FILE]

The clip (textured pan, about 1.3 Mbit/s) is encoded before anything is measured and played by a thread like a
camera's. The far end is another process. Three cases, taken in turn so that load of the machine hits all alike:

    capture   the clip thread and the hand-over to the loop, nothing sent: what the board costs
    ours      the same clip through Session
    stock     the same clip through aiortc's own RTCPeerConnection and RTCRtpSender

CPU is process time of this process, in per cent of one core; send path = case minus capture. Audio is not sent.
Prints medians and the spread; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from fractions import Fraction

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from appliance.media.api import Directions, IceServers, SessionClosed
from appliance.media.camera import CameraFeed, CameraTrack
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.rtp_seam import codec_preferences
from appliance.media.screen import Screen
from appliance.media.servers import ServerPool
from appliance.media.sound import Loudness
from appliance.media.webrtc import WebRtcSession
from hw.api import EncodedFrame, EncoderKind, Picture, VideoMode
from tests.bench.figures import Figure, table, write

FPS = 30


def clip(seconds: int = 6, *, width: int = 1280, height: int = 720) -> list[tuple[bytes, bool]]:
    """Access units of a textured pan: 30 a second, constrained baseline, a key frame every 2 s, 1.3 Mbit/s at 720p."""
    rng = np.random.default_rng(5)
    texture = rng.integers(0, 255, (150, 400), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS, 1)
    encoder.bit_rate = 1_300_000 * width // 1280
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "g": str(2 * FPS), "repeat-headers": "1"}
    encoder.profile = "Baseline"
    units = []
    for number in range(seconds * FPS):
        frame = av.VideoFrame(width, height, "yuv420p")
        luma = np.ascontiguousarray(texture[number : number + height, number * 2 : number * 2 + width])
        frame.planes[0].update(luma.tobytes())
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts = number
        units += [(bytes(packet), packet.is_keyframe) for packet in encoder.encode(frame)]
    return units


class ClipCamera:
    """Plays the clip in real time on a thread, over and over."""

    encoder = EncoderKind.RECORDED

    def __init__(self, units: list[tuple[bytes, bool]]) -> None:
        self._units = units
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(sink,), name="clip")
        self._thread.start()
        return mode

    def _run(self, sink: Callable[[EncodedFrame], None]) -> None:
        due, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / FPS
            data, key = self._units[number % len(self._units)]
            number += 1
            sink(EncodedFrame(data, time.monotonic_ns() // 1000, key))

    def request_keyframe(self) -> None: ...

    def set_bitrate(self, bits_per_second: int) -> None: ...

    def set_mode(self, mode: VideoMode) -> None: ...

    @property
    def mode(self) -> VideoMode | None:
        return None

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class FarEnd:
    async def start(self, offer: str) -> str:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.media_far_end",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(offer).encode() + b"\n")
        return str(await self._line())

    async def result(self) -> dict[str, float]:
        result = dict(await self._line())
        await self._process.wait()
        return result

    async def _line(self) -> object:
        assert self._process.stdout is not None
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 30))


@asynccontextmanager
async def capture(feed: CameraFeed) -> AsyncIterator[FarEnd | None]:
    track = feed.track()
    track.set_sending(True)

    async def drain() -> None:
        while True:
            await track.recv()

    task = asyncio.create_task(drain())
    yield None
    track.stop()
    task.cancel()


@asynccontextmanager
async def ours(feed: CameraFeed) -> AsyncIterator[FarEnd | None]:
    session = WebRtcSession(
        "bench", wanted=Directions(), servers=ServerPool(IceServers()), loopback=True, marks=Marks(), microphone=None,
        camera=feed, loudspeaker=Loudspeaker(), screen=Screen(None), voice=Loudness(),
    )
    session.peer_sends(audio=False, video=False)
    far = FarEnd()
    await session.accept_answer(await far.start(await session.offer()))
    async for event in session.events():
        assert not isinstance(event, SessionClosed), event
        break
    yield far
    await session.close()


@asynccontextmanager
async def stock(feed: CameraFeed) -> AsyncIterator[FarEnd | None]:
    track: CameraTrack = feed.track()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver(track, direction="sendonly").setCodecPreferences(codec_preferences("video"))
    connected = asyncio.Event()
    peer.on("connectionstatechange", lambda: peer.connectionState == "connected" and connected.set())
    await peer.setLocalDescription(await peer.createOffer())
    far = FarEnd()
    await peer.setRemoteDescription(RTCSessionDescription(await far.start(peer.localDescription.sdp), "answer"))
    await connected.wait()
    track.set_sending(True)
    yield far
    track.stop()
    await peer.close()


CASES = {"capture": capture, "ours": ours, "stock": stock}


async def measure(units: list[tuple[bytes, bool]], name: str, seconds: float) -> dict[str, float]:
    executor = ThreadPoolExecutor(1)
    feed = CameraFeed(ClipCamera(units), VideoMode(), asyncio.get_running_loop(), executor)
    feed.start()
    async with CASES[name](feed) as far:
        await asyncio.sleep(1.0)
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - wall) * 100
    result: dict[str, float] = {"cpu": share}
    if far is not None:
        received = await far.result()
        result |= {"frames": received["framesReceived"], "lost": received.get("packetsLost", 0)}
    await feed.close()
    executor.shutdown()
    return result


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    windows, seconds = (2, 3.0) if arguments.quick else (7, 8.0)
    sys.setswitchinterval(0.001)
    units = clip()
    rate = sum(len(data) for data, _ in units) * 8 * FPS / len(units)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for number in range(windows):
        for name in CASES:
            runs[name].append(await measure(units, name, seconds))
            print(f"window {number + 1} of {windows}, {name}: {runs[name][-1]}", file=sys.stderr)
    base = statistics.median(run["cpu"] for run in runs["capture"])
    share = {name: tuple(run["cpu"] for run in results) for name, results in runs.items()}
    ours_path, stock_path = (tuple(cpu - base for cpu in share[name]) for name in ("ours", "stock"))
    figures = [
        Figure("send path of pre-encoded 720p30, CPU", "% of a core", ours_path, 3),
        Figure("  the same through stock aiortc", "% of a core", stock_path),
        Figure("  ours / stock", "ratio", tuple(a / b for a, b in zip(ours_path, stock_path, strict=True))),
        Figure("  clip and hand-over, taken off both", "% of a core", share["capture"]),
    ]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {
            "clipBitsPerSecond": round(rate), "windowS": seconds,
            "framesAtPeer": {name: [run["frames"] for run in runs[name]] for name in ("ours", "stock")}})


if __name__ == "__main__":
    asyncio.run(main())
