"""Unmodified picamera2 with its own H264Encoder: libcamera's vimc camera in, the test kernel's encoder out.

Runs in the guest, in the Debian 13 of ``tests/hil/picamera2/suite``. Writes the stream to the file it is given, and one
JSON line about it.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import av
from picamera2 import Picamera2
from picamera2.encoders import H264Encoder
from picamera2.outputs import FileOutput

PICTURES = 12
LIMIT_S = 60.0

with Picamera2() as camera:
    # of this camera alone: a pixel format that its debayer does, and a frame duration that nobody can set
    main = {"size": (640, 360), "format": "BGR888"}
    camera.configure(camera.create_video_configuration(main, controls={}, buffer_count=4))
    camera.camera_ctrl_info.setdefault("FrameDurationLimits", (None, SimpleNamespace(min=33333, max=33333)))
    encoder = H264Encoder(bitrate=1_000_000, framerate=30, repeat=True)
    output = FileOutput(sys.argv[1])
    taken = []
    camera.post_callback = lambda request: taken.append(time.monotonic())
    camera.start_recording(encoder, output)
    deadline = time.monotonic() + LIMIT_S
    while len(taken) < PICTURES and time.monotonic() < deadline:
        time.sleep(0.1)
    camera.stop_recording()

with av.open(sys.argv[1]) as stream:
    sizes = [(picture.width, picture.height) for picture in stream.decode(video=0)]
print(json.dumps({"taken": len(taken), "decoded": len(sizes), "sizes": sorted(set(sizes))}))
