"""GStreamer's webrtcbin as one end of a call: a program for the system's Python, which has the ``gi`` of Debian.

    /usr/bin/python3 -m tests.support.gst_end       (PYTHONPATH at the repository; commands and answers are JSON lines)

``{"do": "offer"}`` and ``{"do": "answer", "sdp": …}`` are answered with the local description and all its candidates,
``{"do": "accept", "sdp": …}`` and ``{"do": "report"}`` with what has come out of the decoders so far. It sends the test
picture (``hw/sim/pattern.py``) as H.264 constrained baseline and a tone of ``HERTZ`` as Opus. Its certificate is RSA.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
import time
from collections import deque
from typing import Any, Final

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402 - the versions must be named before

from hw.sim import pattern  # noqa: E402

HERTZ: Final = 1000
WIDTH, HEIGHT, FPS = 320, 192, 30
KEPT: Final = 20  # buffers of sound, 10 to 20 ms each

SENDS: Final = f"""
webrtcbin name=peer bundle-policy=max-bundle latency=60
audiotestsrc is-live=true freq={HERTZ} volume=0.3 samplesperbuffer=960
  ! audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay pt={{audio}}
  ! application/x-rtp,media=audio,encoding-name=OPUS,payload={{audio}}
  ! queue ! peer.sink_0
appsrc name=camera is-live=true format=time do-timestamp=true
  caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1
  ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=400 key-int-max=60
  ! video/x-h264,profile=constrained-baseline
  ! rtph264pay config-interval=-1 aggregate-mode=zero-latency pt={{video}}
  ! capssetter caps=application/x-rtp,packetization-mode=(string)1,profile-level-id=(string)42e01f
  ! queue ! peer.sink_1
"""
# capssetter: webrtcbin compares the level of the encoder as text with that of the offer, and finds nothing in common.
PICTURES: Final = "rtph264depay ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 ! appsink name=out sync=false"
SOUND: Final = (
    "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1"
    " ! appsink name=out sync=false"
)


class End:
    def __init__(self) -> None:
        self.loop = GLib.MainLoop()
        self.frames = 0
        self.lumas: list[int] = []
        self.sound: deque[bytes] = deque(maxlen=KEPT)
        self.candidates: list[tuple[int, str]] = []
        self.state = "new"
        self.pipeline: Any = None
        self.peer: Any = None

    # -- commands

    def offer(self) -> None:
        self._build(video=102, audio=111)
        self.peer.connect("on-negotiation-needed", lambda _: GLib.idle_add(self._describe, "offer"))

    def answer(self, sdp: str) -> None:
        self._build(video=_payload(sdp, "H264"), audio=_payload(sdp, "opus"))
        self._remote("offer", sdp, lambda: self._describe("answer"))

    def accept(self, sdp: str) -> None:
        self._remote("answer", sdp, lambda: say({}))

    def report(self) -> None:
        say({"frames": self.frames, "lumas": self.lumas[-30:], "state": self.state,
             "sound": base64.b64encode(b"".join(self.sound)).decode()})

    # -- the pipeline

    def _build(self, *, video: int, audio: int) -> None:
        self.pipeline = Gst.parse_launch(SENDS.format(video=video, audio=audio))
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-ice-candidate", lambda _, line, text: self.candidates.append((line, text)))
        self.peer.connect("pad-added", self._on_pad)
        self.peer.connect("notify::connection-state", self._on_state)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: fail(str(message.parse_error())))
        self.pipeline.set_state(Gst.State.PLAYING)
        threading.Thread(target=self._paint, args=(self.pipeline.get_by_name("camera"),), daemon=True).start()

    def _paint(self, camera: Any) -> None:
        painter, number, due = pattern.PatternPainter(WIDTH, HEIGHT), 0, time.monotonic()
        while True:
            planes = painter.paint(number, time.monotonic_ns() // 1000)
            camera.emit("push-buffer", Gst.Buffer.new_wrapped(b"".join(planes)))
            number += 1
            due += 1 / FPS
            time.sleep(max(0.0, due - time.monotonic()))

    def _on_state(self, peer: Any, _: Any) -> None:
        self.state = peer.get_property("connection-state").value_nick

    def _on_pad(self, _: Any, pad: Any) -> None:
        if pad.direction != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        way = Gst.parse_bin_from_description(PICTURES if kind == "video" else SOUND, True)
        out = way.get_by_name("out")
        out.set_property("emit-signals", True)
        out.connect("new-sample", self._on_picture if kind == "video" else self._on_sound)
        self.pipeline.add(way)
        way.sync_state_with_parent()
        pad.link(way.get_static_pad("sink"))

    def _on_picture(self, out: Any) -> Any:
        data = out.emit("pull-sample").get_buffer().extract_dup(0, 1)
        self.frames += 1
        self.lumas.append(data[0])
        return Gst.FlowReturn.OK

    def _on_sound(self, out: Any) -> Any:
        buffer = out.emit("pull-sample").get_buffer()
        self.sound.append(buffer.extract_dup(0, buffer.get_size()))
        return Gst.FlowReturn.OK

    # -- descriptions

    def _describe(self, kind: str) -> bool:
        def made(promise: Any, *_: Any) -> None:
            reply = promise.get_reply()
            if reply.has_field("error"):
                fail(f"{kind}: {reply.get_value('error')}")
            self.peer.emit("set-local-description", reply.get_value(kind), Gst.Promise.new())
            GLib.idle_add(self._gathered)

        self.peer.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(made))
        return False

    def _gathered(self) -> bool:
        """Tell the description once all candidates are there; they are signalled apart from it."""
        local = self.peer.get_property("local-description")
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if local is None or self.peer.get_property("ice-gathering-state") != complete:
            GLib.timeout_add(5, self._gathered)
            return False
        head, *sections = re.split(r"(?m)^(?=m=)", local.sdp.as_text())
        own = [text for line, text in self.candidates if line == 0]
        say({"sdp": head + "".join(section + "".join(f"a={text}\r\n" for text in own) for section in sections)})
        return False

    def _remote(self, kind: str, sdp: str, then: Any) -> None:
        _, message = GstSdp.SDPMessage.new_from_text(sdp)
        number = GstWebRTC.WebRTCSDPType.OFFER if kind == "offer" else GstWebRTC.WebRTCSDPType.ANSWER
        description = GstWebRTC.WebRTCSessionDescription.new(number, message)
        done = Gst.Promise.new_with_change_func(lambda *_: GLib.idle_add(lambda: then() and False))
        self.peer.emit("set-remote-description", description, done)


def _payload(sdp: str, codec: str) -> int:
    """The first payload type of a codec; of H.264 the first with packetization-mode 1."""
    for number in re.findall(rf"(?im)^a=rtpmap:(\d+) {codec}/", sdp):
        if codec != "H264" or re.search(rf"(?m)^a=fmtp:{number} .*packetization-mode=1", sdp):
            return int(number)
    fail(f"the offer has no {codec}")
    raise AssertionError


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def fail(why: str) -> None:
    say({"error": why})
    sys.exit(1)


def main() -> None:
    Gst.init(None)
    end = End()

    def read() -> None:
        for line in sys.stdin:
            command = json.loads(line)
            GLib.idle_add(lambda command=command: getattr(end, command.pop("do"))(**command) and False)
        GLib.idle_add(end.loop.quit)

    threading.Thread(target=read, daemon=True).start()
    end.loop.run()
    if end.pipeline is not None:
        end.pipeline.set_state(Gst.State.NULL)


main()
