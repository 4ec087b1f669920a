"""What leaves through one transport: stamped, paced, allotted; and what feedback of any kind does to it."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from appliance.media.congestion.allocation import Allocation
from appliance.media.congestion.delay import Usage
from appliance.media.congestion.estimator import PACING, START_BPS
from appliance.media.congestion.transport_cc import Arrivals
from appliance.media.transmission import UNREPORTED_S, Outbound, Transmission
from tests.support.clock import virtual_time
from tests.support.media_pair import until

HEAD = bytes(16)


def packet(size: int, *, wide: bool = True) -> Outbound:
    return Outbound(bytearray(size), 17 if wide else None, 20)


class Peer:
    """Takes what is sent and reports on it."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, bytes]] = []
        self.arrivals = Arrivals()

    async def send(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self.packets.append((now, data))
        self.arrivals.add(struct.unpack_from("!H", data, 17)[0], now)

    @property
    def numbers(self) -> list[int]:
        return [struct.unpack_from("!H", data, 17)[0] for _, data in self.packets]


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Those of transmissions: the loop's own, and one that can be set."""
    clocks = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time(), time=time.time)
    monkeypatch.setattr("appliance.media.transmission.time", clocks)
    return clocks


def available(transmission: Transmission) -> float | None:
    return transmission.available_bps


def pauses(transmission: Transmission) -> bool:
    return transmission.allocation.video is None


@asynccontextmanager
async def transmitting() -> AsyncIterator[tuple[Transmission, Peer]]:
    transmission, peer = Transmission("test"), Peer()
    transmission.attach(peer.send)
    try:
        yield transmission, peer
    finally:
        await transmission.close()
        await transmission.close()


@virtual_time
async def test_sound_picture_and_repair_share_one_count() -> None:
    async with transmitting() as (transmission, peer):
        await transmission.send_audio(packet(100))
        assert await transmission.send_frame([packet(1000), packet(1000)], 1900)
        transmission.resend([packet(1000)])
        await until(lambda: len(peer.packets) == 4)
        assert peer.numbers == [0, 1, 2, 3]
        assert all(data[20:23] != bytes(3) for _, data in peer.packets), "the time of sending stands in each"


@virtual_time
async def test_setting_the_clock_does_not_move_the_times_of_a_call(clocks: SimpleNamespace) -> None:
    async with transmitting() as (transmission, peer):
        now = asyncio.get_running_loop().time()
        assert transmission.ntp(now) == pytest.approx(time.time() + 2_208_988_800, abs=1)
        await transmission.send_audio(packet(100))
        clocks.time = lambda: time.time() + 3610
        await transmission.send_audio(packet(100))
        first, second = (int.from_bytes(data[20:23], "big") for _, data in peer.packets)
        assert (second - first) % (1 << 24) < 1 << 18, "in 2^-18 s: less than a second apart"


@virtual_time
async def test_a_large_frame_is_spread_and_sound_overtakes_it() -> None:
    async with transmitting() as (transmission, peer):
        frame = [packet(1200) for _ in range(30)]
        sending = asyncio.create_task(transmission.send_frame(frame, 30 * 1180))
        await until(lambda: len(peer.packets) >= 4)
        assert not sending.done()
        await transmission.send_audio(packet(77))
        assert len(peer.packets[-1][1]) == 77
        assert await sending
        assert [len(data) for _, data in peer.packets].count(1200) == 30
        took = peer.packets[-1][0] - peer.packets[0][0]
        assert took > 0.8 * 30 * 1244 * 8 / (PACING[0] * START_BPS)
        assert all(each.sent_at > 0 for each in frame)


@virtual_time
async def test_reports_set_the_estimate_and_probes_raise_it() -> None:
    async with transmitting() as (transmission, peer):
        told: list[Allocation] = []
        transmission.on_allocation = told.append
        transmission.demand = lambda: 1_500_000
        transmission.pad_with(lambda size: packet(max(40, min(280, size))))
        assert available(transmission) is None, "nothing is known yet"
        await transmission.send_audio(packet(100))
        assert available(transmission) == START_BPS
        async with asyncio.timeout(3):
            while transmission.target_bps < 1_500_000:
                await transmission.send_frame([packet(1000)], 980)
                for report in peer.arrivals.reports():
                    transmission.on_feedback(report.fci())
                await asyncio.sleep(0.02)
        assert transmission.target_bps >= 1_500_000
        assert transmission.probes > 0
        assert transmission.packets_arrived > 10
        assert transmission.packets_lost == 0
        assert told[-1].video is not None
        assert told[-1].video > 1_000_000


@virtual_time
async def test_malformed_feedback_is_counted_and_changes_nothing() -> None:
    async with transmitting() as (transmission, _):
        await transmission.send_audio(packet(100))
        transmission.on_feedback(b"")
        transmission.on_feedback(bytes(40))
        assert transmission.reports_malformed == 2
        assert transmission.target_bps == START_BPS


@virtual_time
async def test_without_transport_wide_feedback_remb_and_loss_must_do() -> None:
    async with transmitting() as (transmission, _):
        transmission.demand = lambda: 1_500_000
        await transmission.send_frame([packet(1000, wide=False)], 900)
        assert available(transmission) is None
        transmission.on_remb(2_000_000)
        assert available(transmission) is None, "far above what is sent"
        assert transmission.allocation.video is not None
        assert transmission.allocation.video >= 1_500_000
        for _ in range(60):
            await transmission.send_frame([packet(1200, wide=False)] * 3, 3500)
            await asyncio.sleep(0.02)
        transmission.on_remb(400_000)
        assert available(transmission) == 400_000
        assert transmission.allocation.video < 400_000


@virtual_time
async def test_a_peer_that_promised_reports_and_gives_none_is_not_waited_for() -> None:
    async with transmitting() as (transmission, _):
        await transmission.send_audio(packet(100))
        before = transmission.reported
        await asyncio.sleep(UNREPORTED_S)
        assert (before, transmission.reported) == (True, False)
        transmission.on_remb(400_000)
        assert available(transmission) is None, "far above what is sent: the picture is the limit"
        assert transmission.target_bps > 1_000_000


@virtual_time
async def test_a_wish_of_the_peer_limits_what_the_path_would_carry() -> None:
    async with transmitting() as (transmission, _):
        await transmission.send_audio(packet(100))
        transmission.on_remb(300_000)
        assert transmission.target_bps == 300_000
        assert available(transmission) == START_BPS, "the estimate itself is another matter"


@virtual_time
async def test_retransmissions_are_limited() -> None:
    async with transmitting() as (transmission, _):
        allowed = sum(transmission.may_resend(1200) for _ in range(1000))
        assert 5 <= allowed < 40


@virtual_time
async def test_a_transport_that_is_gone_ends_the_waiting() -> None:
    async with transmitting() as (transmission, _):
        async def gone(_: bytes) -> None:
            raise ConnectionError("closed")

        transmission.attach(gone)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(transmission.send_frame([packet(1000)], 980), 1)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(transmission.send_frame([packet(1000)], 980), 1)
        with pytest.raises(ConnectionError):
            await transmission.send_audio(packet(100))


@virtual_time
async def test_closing_in_the_middle_of_a_frame_leaves_nothing() -> None:
    async with transmitting() as (transmission, peer):
        async def send() -> None:
            with pytest.raises(ConnectionError):
                await transmission.send_frame([packet(1200) for _ in range(200)], 200 * 1180)

        async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            await until(lambda: len(peer.packets) > 2)
            await transmission.close()


@virtual_time
async def test_after_closing_nothing_is_waited_for() -> None:
    async with transmitting() as (transmission, _):
        await transmission.close()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(transmission.send_frame([packet(1000)], 980), 1)


@virtual_time
async def test_a_defect_in_sending_reports_ends_the_session_like_any_other() -> None:
    async with transmitting() as (transmission, _):
        async def defective(_: bytes) -> None:
            raise LookupError("a defect")

        told: list[Exception] = []
        transmission.on_failure = told.append
        transmission.report_as(7, defective)
        transmission.on_packet(1, 8)
        await until(lambda: bool(told))
        assert isinstance(told[0], LookupError)


@pytest.mark.parametrize(("padded", "tail"), [(True, "told"), (True, "lost"), (False, "told")])
@virtual_time
async def test_a_picture_that_pauses_is_back_where_the_peer_reports_on_pictures_alone(padded: bool, tail: str) -> None:
    """Janus takes no transport-wide numbers for sound. It paused for good: nothing was reported on any more, and a last
    packet that was lost counted as a path that is dead, each second anew. Padding needs a stream of retransmissions,
    which not every peer has."""
    async with transmitting() as (transmission, peer):
        transmission.demand = lambda: 300_000
        transmission.pad_with(lambda size: packet(max(40, min(280, size))) if padded else None)
        sound = packet(100, wide=False)

        async def some() -> None:
            await transmission.send_audio(sound)
            if not pauses(transmission):
                await transmission.send_frame([packet(1000)], 980)
            for report in peer.arrivals.reports():
                transmission.on_feedback(report.fci())
            await asyncio.sleep(0.02)

        lost = False

        async def send(data: bytes) -> None:
            if len(data) != sound.size and not lost:
                await peer.send(data)

        transmission.attach(send)
        for _ in range(10):
            await some()
        assert transmission.reports_received > 0
        lost = tail == "lost"
        transmission.demand = lambda: None  # or a probe may show, in the middle of it, that there is room
        async with asyncio.timeout(5):
            while not pauses(transmission):
                transmission._estimator._delay.value = 30_000.0  # the path was full, or this machine had no time
                await some()
        transmission.demand = lambda: 300_000
        async with asyncio.timeout(25):
            while lost and not transmission.probes:
                await some()
        lost = False
        transmission._estimator._detector.usage = Usage.OVER
        async with asyncio.timeout(10 if padded else 40):
            while pauses(transmission):
                await some()
        assert transmission.probes > 0


@virtual_time
async def test_a_picture_that_pauses_is_back_where_the_peer_reports_by_remb_and_loss() -> None:
    async with transmitting() as (transmission, _):
        transmission.demand = lambda: 300_000
        for _ in range(60):
            await transmission.send_frame([packet(1200, wide=False)] * 3, 3500)
            await asyncio.sleep(0.02)
        transmission.on_remb(50_000)
        await asyncio.sleep(2)
        assert pauses(transmission)
        await asyncio.sleep(30)
        assert not pauses(transmission)
