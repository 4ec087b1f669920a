"""What is shown to others, watched: which faults end it, when, and which do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from appliance.media.content import FAILING_S, Content
from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    EncodedFrame,
    EncoderKind,
    Fault,
    FaultKind,
    HardwareError,
    Kind,
    Picture,
    VideoMode,
)
from tests.support.clock import virtual_time


class HandSource:
    """A source whose pictures and faults come by hand."""

    encoder = EncoderKind.SOFTWARE
    mode: VideoMode | None = None

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.closed = 0
        self.fault: Callable[[Fault], None] = lambda _: None

    def start(self, mode: VideoMode, sink: Callable[[EncodedFrame], None]) -> VideoMode:
        self.mode = mode
        if self.works:
            sink(EncodedFrame(b"\0\0\1\x65", 0, keyframe=True))
        return mode

    def on_fault(self, sink: Callable[[Fault], None]) -> None:
        self.fault = sink

    def fails(self, fault: FaultKind, *, active: bool = True) -> None:
        self.fault(Fault(Kind.CAMERA, fault, "hdmi0", active, "words"))

    def request_keyframe(self) -> None: ...

    def set_bitrate(self, bits_per_second: int) -> None: ...

    def set_mode(self, mode: VideoMode) -> None: ...

    def snapshot(self, deadline_s: float = 2.0) -> bytes:
        return b""

    def preview(self, sink: Callable[[Picture], None] | None, side: int = 320) -> None: ...

    def stop(self) -> None:
        self.mode = None

    def close(self) -> None:
        self.closed += 1


class Opened:
    """One Content, with what it told."""

    def __init__(self, source: HandSource) -> None:
        self.source, self.lost = source, list[str]()
        self._executor = ThreadPoolExecutor(1)
        self.content = Content(source, asyncio.get_running_loop(), self._executor, on_lost=self.lost.append)

    async def __aenter__(self) -> Opened:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.content.close()
        self._executor.shutdown()
        assert self.source.closed == 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@virtual_time
@pytest.mark.parametrize("fault", [FaultKind.PULLED, FaultKind.MISSING])
async def test_what_is_pulled_ends_it_at_once_and_once(fault: FaultKind) -> None:
    async with Opened(HandSource()) as one:
        await one.content.open()
        one.source.fails(fault)
        await asyncio.sleep(0.01)
        assert one.lost == ["words"]
        one.source.fails(FaultKind.MISSING)
        one.source.fails(FaultKind.FAILED)
        await asyncio.sleep(10)
        assert one.lost == ["words"]


@virtual_time
async def test_what_fails_has_time_to_come_back() -> None:
    async with Opened(HandSource()) as one:
        await one.content.open()
        one.source.fails(FaultKind.FAILED)
        await asyncio.sleep(FAILING_S - 0.5)
        one.source.fails(FaultKind.FAILED, active=False)
        await asyncio.sleep(10)
        assert one.lost == []
        one.source.fails(FaultKind.FAILED)
        await asyncio.sleep(FAILING_S + 0.1)
        assert one.lost == ["words"]


@virtual_time
@pytest.mark.parametrize("fault", [FaultKind.NO_SIGNAL, FaultKind.STALLED, FaultKind.COVERED, FaultKind.SLOW])
async def test_a_black_or_still_picture_ends_nothing(fault: FaultKind) -> None:
    async with Opened(HandSource()) as one:
        await one.content.open()
        one.source.fails(fault)
        await asyncio.sleep(60)
        assert one.lost == []


@virtual_time
@pytest.mark.parametrize(("fault", "error"), [
    (FaultKind.BUSY, DeviceBusyError), (FaultKind.DENIED, DeviceDeniedError), (FaultKind.FORMAT, DeviceFormatError),
    (FaultKind.MISSING, DeviceMissingError), (FaultKind.PULLED, DevicePulledError),
    (FaultKind.FAILED, DeviceFailedError),
])
async def test_what_cannot_be_opened_is_refused_by_what_is_wrong_and_not_told(
    fault: FaultKind, error: type[HardwareError],
) -> None:
    async with Opened(HandSource(works=False)) as one:
        opening = asyncio.ensure_future(one.content.open())
        await settle()
        one.source.fails(fault)
        with pytest.raises(error, match="words") as refused:
            await opening
        assert type(refused.value) is error
        assert one.lost == []
