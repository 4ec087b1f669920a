"""What handing a camera's pictures to the kernel's H.264 encoder costs: copied, or in memory that both share (DMABUF).

    python -m tests.bench.bench_handover [--camera N] [--size 1280x720] [--fps 30] [--pixels YU12] [--pictures 300]

In the guest, by ``scripts/hil --run --load 'vivid n_devs=1 node_types=0x1' --load hilenc -- python -m ...`` as above.
Five ways, in turn, each with the same camera, encoder, size and rate:

* *as the camera process does*, with copies, and with memory that the encoder shares (``UsbSensor``, ``Developer``,
  ``CameraEncoder``);
* *copied once*: from the camera's mapped buffer into the encoder's;
* *camera's memory*: its buffers are exported, and the encoder reads them;
* *encoder's memory*: its buffers are exported, and the camera writes into them.

Counted is processor time of this process, its system calls included, but not what drivers do on threads of the kernel.
A way that a driver refuses is told with its words.
"""

from __future__ import annotations

import argparse
import functools
import os
import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from hw.api import EncoderKind, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.develop import Developer
from hw.pi.camera.usb import UsbSensor, find_usb
from hw.pi.encoder.ladder import CameraEncoder
from hw.pi.encoder.probe import find_encoder
from hw.pi.v4l2 import Format, Node, Queue, QueueKind
from tests.bench.figures import Figure, table

BUFFERS: Final = 4
SILENT_S: Final = 5.0
SKIPPED: Final = 10
"""Pictures before the first that counts."""


@dataclass(frozen=True)
class Job:
    camera: str
    encoder: str
    mode: VideoMode
    pixels: str
    pictures: int


class Ends:
    """An open camera and an open encoder in one format, without buffers yet."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job = job
        self.camera, self.encoder = stack.enter_context(Node(job.camera)), stack.enter_context(Node(job.encoder))
        mode = job.mode
        self.given = self.camera.set_format(QueueKind.CAMERA, mode.width, mode.height, job.pixels)
        self.camera.set_rate(QueueKind.CAMERA, mode.fps)
        self.raw = self.encoder.set_format(QueueKind.RAW, mode.width, mode.height, job.pixels)
        self.encoder.set_format(QueueKind.CODED, mode.width, mode.height, "H264", size=512 * 1024)
        if shape(self.given) != shape(self.raw):
            raise OSError(0, f"the camera's {self.given} is not the encoder's {self.raw}")
        self._stack = stack

    def queue(self, node: Node, kind: QueueKind, *, foreign: bool = False) -> Queue:
        queue = Queue(node, kind, BUFFERS, foreign=foreign)
        self._stack.callback(queue.close)
        return queue

    def exported(self, queue: Queue) -> list[int]:
        files = [queue.export(index) for index in range(queue.count)]
        for file in files:
            self._stack.callback(os.close, file)
        return files

    def started(self, *queues: Queue) -> Queue:
        """With the encoder's coded side, which is returned."""
        coded = self.queue(self.encoder, QueueKind.CODED)
        for index in range(coded.count):
            coded.put(index)
        for queue in (*queues, coded):
            queue.start()
        return coded


def shape(one: Format) -> tuple[int, int, str, int, int]:
    return one.width, one.height, one.pixels, one.line, one.size


def woken(*files: int) -> set[int]:
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    ready = {file for file, _ in poll.poll(SILENT_S * 1000)}
    if not ready:
        raise OSError(0, f"nothing came for {SILENT_S:g} s")
    return ready


# --- the ways: each yields whenever a picture has come out coded


def as_it_is(job: Job, *, shared: bool) -> Iterator[None]:
    camera = next(one for one in find_usb() if one.path == job.camera)
    sensor, developer = UsbSensor(camera, job.mode), Developer(CameraConfig(), job.mode)
    encoder = CameraEncoder(lambda *_: None)
    try:
        encoder.open(job.mode, sensor.layout if shared else None)
        while True:
            woken(sensor.file, *(file for file, _ in encoder.files()))
            if (shot := sensor.take()) is not None:
                if encoder.shares:
                    encoder.share(shot)
                elif (picture := shot.picture()) is not None:
                    encoder.encode(developer.develop(picture), shot.pts_us)
                    shot.close()
            for _ in encoder.collect():
                yield
            if encoder.kind is not EncoderKind.HARDWARE or encoder.shares is not shared:
                raise OSError(0, "the encoder failed" if encoder.shares is shared else "it shares no memory")
    finally:
        encoder.close()
        sensor.close()


def copied_once(job: Job) -> Iterator[None]:
    with ExitStack() as stack:
        ends = Ends(job, stack)
        shots, raws = ends.queue(ends.camera, QueueKind.CAMERA), ends.queue(ends.encoder, QueueKind.RAW)
        for index in range(shots.count):
            shots.put(index)
        coded, free, size = ends.started(shots, raws), list(range(raws.count)), ends.raw.size
        while True:
            woken(ends.camera.file, ends.encoder.file)
            while (back := raws.get()) is not None:
                free.append(back.index)
            while (shot := shots.get()) is not None:
                if free:
                    index = free.pop()
                    raws.memory(index)[:size] = memoryview(shots.memory(shot.index))[:size]
                    raws.put(index, used=size, pts_us=shot.pts_us)
                shots.put(shot.index)
            yield from _coded(coded)


def cameras_memory(job: Job) -> Iterator[None]:
    with ExitStack() as stack:
        ends = Ends(job, stack)
        shots, raws = ends.queue(ends.camera, QueueKind.CAMERA), ends.queue(ends.encoder, QueueKind.RAW, foreign=True)
        files = ends.exported(shots)
        for index in range(shots.count):
            shots.put(index)
        coded = ends.started(shots, raws)
        while True:
            woken(ends.camera.file, ends.encoder.file)
            while (back := raws.get()) is not None:
                shots.put(back.index)
            while (shot := shots.get()) is not None:
                raws.put(shot.index, used=ends.raw.size, pts_us=shot.pts_us, file=files[shot.index])
            yield from _coded(coded)


def encoders_memory(job: Job) -> Iterator[None]:
    with ExitStack() as stack:
        ends = Ends(job, stack)
        raws, shots = ends.queue(ends.encoder, QueueKind.RAW), ends.queue(ends.camera, QueueKind.CAMERA, foreign=True)
        files = ends.exported(raws)
        for index in range(shots.count):
            shots.put(index, file=files[index])
        coded = ends.started(shots, raws)
        while True:
            woken(ends.camera.file, ends.encoder.file)
            while (back := raws.get()) is not None:
                shots.put(back.index, file=files[back.index])
            while (shot := shots.get()) is not None:
                raws.put(shot.index, used=ends.raw.size, pts_us=shot.pts_us)
            yield from _coded(coded)


def _coded(queue: Queue) -> Iterator[None]:
    while (done := queue.get()) is not None:
        queue.put(done.index)
        yield


WAYS: Final[dict[str, Callable[[Job], Iterator[None]]]] = {
    "as the camera process does, with copies": functools.partial(as_it_is, shared=False),
    "as the camera process does, with shared memory": functools.partial(as_it_is, shared=True),
    "copied once": copied_once,
    "camera's memory, read by the encoder": cameras_memory, "encoder's memory, filled by the camera": encoders_memory,
}


@contextmanager
def running(way: Callable[[Job], Iterator[None]], job: Job) -> Iterator[Iterator[None]]:
    coming = way(job)
    try:
        for _ in range(SKIPPED):
            next(coming)
        yield coming
    finally:
        coming.close()  # type: ignore[attr-defined]


def measure(name: str, job: Job) -> list[Figure]:
    """Per picture, in windows of a tenth of all: milliseconds of processor time, and pictures a second."""
    costs, rates = [], []
    with running(WAYS[name], job) as coming:
        for _ in range(10):
            begun, used = time.monotonic(), time.process_time()
            for _ in range(job.pictures // 10):
                next(coming)
            costs.append((time.process_time() - used) * 1000 / (job.pictures // 10))
            rates.append(job.pictures // 10 / (time.monotonic() - begun))
    return [Figure(f"{name}: processor time a picture", "ms", tuple(costs)),
            Figure(f"{name}: pictures", "1/s", tuple(rates))]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--camera", type=int, default=0, help="which of those that are found")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--pixels", choices=("YU12", "NV12"), default="YU12")
    parser.add_argument("--pictures", type=int, default=300)
    arguments = parser.parse_args()
    width, height = (int(word) for word in arguments.size.split("x"))
    camera, found = find_usb()[arguments.camera], find_encoder()
    job = Job(camera.path, found.path, VideoMode(width, height, arguments.fps, 1_000_000), arguments.pixels,
              arguments.pictures)
    print(f"{camera.name} to {found.path or found.reason}, {arguments.pixels}")
    figures: list[Figure] = []
    for name in WAYS:
        try:
            figures += measure(name, job)
        except OSError as error:
            print(f"{name}: refused: {error.strerror or error}")
    print(table(figures, markdown=True))
    medians = [statistics.median(one.samples) for one in figures if one.unit == "ms"]
    return 0 if medians else 1


if __name__ == "__main__":
    sys.exit(main())
