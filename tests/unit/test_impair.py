"""The bad network of the tests does what it says: shares and rates proven by counting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import cast

import pytest

from tests.support.clock import virtual_time
from tests.support.impair import HEADERS, Burst, Conditions, Link, relay
from tests.support.media_pair import until

PACKET = bytes(1000 - HEADERS)
"""1000 bytes of IP packet."""


def sends(link: Link, packets: int, *, every_s: float = 0.001, begin: float = 0.0) -> list[bool]:
    """Send, and tell for each whether it was taken by the link; everything is delivered at the end."""
    fate = []
    for number in range(packets):
        before = link.counters.lost + link.counters.overflowed + link.counters.darkened
        link.send(begin + number * every_s, PACKET)
        fate.append(link.counters.lost + link.counters.overflowed + link.counters.darkened == before)
    return fate


def arrivals(link: Link, *, until: float, step: float = 0.001) -> Iterator[tuple[float, bytes]]:
    for turn in range(round(until / step) + 1):
        for packet in link.take(turn * step):
            yield turn * step, packet


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1, 1.0])
def test_random_loss_is_the_share_that_was_asked_for(loss: float) -> None:
    link = Link(Conditions(loss=loss), seed=3)
    sends(link, 20_000)
    assert link.counters.lost / 20_000 == pytest.approx(loss, abs=0.005)
    link.take(1000)
    assert link.counters.arrived + link.counters.lost == link.counters.sent == 20_000


def test_bursts_have_the_share_and_the_length_that_were_asked_for() -> None:
    link = Link(Conditions(loss=Burst.of(0.02, length=5)), seed=4)
    fate = sends(link, 200_000)
    assert link.counters.lost / 200_000 == pytest.approx(0.02, abs=0.003)
    runs = [len(list(run)) for arrived, run in groupby(fate) if not arrived]
    assert sum(runs) / len(runs) == pytest.approx(5, abs=0.5)


def test_a_trace_is_followed_packet_by_packet() -> None:
    link = Link(Conditions(loss=(False, True, False, False)))
    assert sends(link, 8) == [True, False, True, True] * 2


def test_the_same_seed_gives_the_same_fate_and_another_another() -> None:
    fates = [sends(Link(Conditions(loss=0.1), seed=seed), 500) for seed in (7, 7, 8)]
    assert fates[0] == fates[1] != fates[2]


def test_delay_and_jitter_lie_within_their_bounds_and_keep_the_order() -> None:
    link = Link(Conditions(delay_s=0.02, jitter_s=0.03), seed=1)
    late = []
    for number in range(1000):
        sent = number * 0.005
        link.send(sent, number.to_bytes(2, "big"))
    order = []
    while (now := link.next_at) is not None:
        for packet in link.take(now):
            order.append(int.from_bytes(packet, "big"))
            late.append(now - order[-1] * 0.005)
    assert order == list(range(1000))
    assert min(late) >= 0.02
    assert 0.045 < max(late) <= 0.05 + 1e-9


def test_packets_held_back_are_overtaken() -> None:
    link = Link(Conditions(delay_s=0.01, reorder=0.1, reorder_s=0.02), seed=2)
    for number in range(1000):
        link.send(number * 0.005, number.to_bytes(2, "big"))
    order = []
    while (now := link.next_at) is not None:
        order += [int.from_bytes(packet, "big") for packet in link.take(now)]
    overtaken = sum(later < earlier for earlier, later in pairwise(order))
    assert sorted(order) == list(range(1000))
    assert link.counters.held_back == pytest.approx(100, abs=30)
    assert overtaken > 50


@pytest.mark.parametrize(("conditions", "longest_s"), [
    (Conditions(rate_bps=800_000, queue_ms=250), 0.25),
    (Conditions(rate_bps=800_000, queue_bytes=10_000), 0.1),
])
def test_a_cap_lets_its_rate_through_and_its_queue_drops_the_tail(conditions: Conditions, longest_s: float) -> None:
    link = Link(conditions)
    sends(link, 4000, every_s=0.005)  # 1.6 Mbit/s for 20 s: twice the cap
    arrived = link.take(20.0)
    assert len(arrived) * 1000 * 8 / 20 == pytest.approx(800_000, rel=0.01)
    waiting = link.counters.sent - link.counters.arrived - link.counters.overflowed
    assert waiting * 0.01 == pytest.approx(longest_s, abs=0.011)
    assert link.queued_bytes == waiting * 1000
    link.take(20.0 + longest_s)
    assert link.counters.arrived + link.counters.overflowed == 4000


def test_below_the_cap_nothing_is_dropped_and_only_the_transmission_delays() -> None:
    link = Link(Conditions(rate_bps=800_000))
    for number in range(100):
        link.send(number * 0.02, PACKET)
        assert link.take(number * 0.02 + 0.0099) == []
        assert len(link.take(number * 0.02 + 0.0101)) == 1


def test_a_changed_rate_holds_for_what_waits_already() -> None:
    link = Link(Conditions(rate_bps=80_000, queue_ms=1000))
    for _ in range(5):
        link.send(0.0, PACKET)  # 0.1 s each
    assert len(link.take(0.15)) == 1
    link.change(0.15, Conditions(rate_bps=800_000, queue_ms=1000))
    assert link.next_at == pytest.approx(0.155)  # half of the second was sent; the rest ten times as fast
    assert len(link.take(0.1951)) == 4
    link.change(1.0, Conditions(rate_bps=80_000))
    link.send(1.0, PACKET)
    link.change(1.01, Conditions())
    assert len(link.take(1.01)) == 1


def test_in_the_dark_nothing_passes_and_nothing_is_kept() -> None:
    link = Link(Conditions(delay_s=0.1))
    link.send(0.0, PACKET)
    link.change(0.05, Conditions(dark=True))
    link.send(0.06, PACKET)
    assert link.next_at is None
    link.change(1.0, Conditions())
    link.send(1.0, PACKET)
    assert (link.take(2.0), link.counters.darkened) == ([PACKET], 2)


@virtual_time
async def test_a_trace_of_rates_on_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    link, begun = Link(), loop.time()
    got = {}
    for rate in (400_000, 100_000, 800_000):
        link.change(loop.time(), Conditions(rate_bps=rate, queue_ms=250))
        before = link.counters.arrived_bytes
        while loop.time() < begun + 10:
            link.send(loop.time(), PACKET)
            link.take(loop.time())
            await asyncio.sleep(0.005)
        got[rate] = (link.counters.arrived_bytes - before) * 8 / 10
        begun = loop.time()
    assert got == {rate: pytest.approx(rate, rel=0.02) for rate in got}


# --- the relay ------------------------------------------------------------------------------------------------------


class Peer(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.more = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)
        self.more.set()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(2):
            while len(self.got) < count:
                self.more.clear()
                await self.more.wait()


async def peer() -> Peer:
    _, made = await asyncio.get_running_loop().create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0))
    return made


async def test_the_relay_carries_both_ways_counts_and_takes_one_address_of_a_peer() -> None:
    left, right, stranger = [await peer() for _ in range(3)]
    try:
        async with relay(right_to_left=Conditions(loss=(False, True))) as between:
            right.transport.sendto(b"hello", between.for_right)  # nobody is there on the left yet
            await until(lambda: between.right_to_left.counters.sent == 1)
            left.transport.sendto(b"check", between.for_left)
            await right.has(1)
            for number in range(10):
                right.transport.sendto(bytes([number]), between.for_right)
            stranger.transport.sendto(b"no", between.for_left)
            await left.has(5)
            assert [data[0] for data in left.got] == [1, 3, 5, 7, 9]
            assert right.got == [b"check"]
            assert (between.left_to_right.counters.arrived, between.right_to_left.counters.lost) == (1, 5)
            between.change(Conditions(dark=True))
            left.transport.sendto(b"lost", between.for_left)
            between.change(left_to_right=Conditions(delay_s=0.01))
            left.transport.sendto(b"late", between.for_left)
            await right.has(2)
            assert right.got[-1] in (b"lost", b"late")
            assert between.right_to_left.conditions.dark
    finally:
        for one in (left, right, stranger):
            one.transport.close()
        await asyncio.sleep(0)


async def test_a_description_is_left_with_the_relay_as_its_only_candidate() -> None:
    lines = ["m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=candidate:1 1 udp 5 10.0.0.1 1000 typ host",
             "a=candidate:2 1 tcp 5 10.0.0.1 9 typ host tcptype active", "a=mid:0", "a=end-of-candidates",
             "m=video 9 UDP/TLS/RTP/SAVPF 97", "a=mid:1", "a=candidate:1 1 udp 5 fe80::1 1000 typ host", ""]
    async with relay() as between:
        host, port = between.for_right
        own = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host"
        rewritten = between.from_left("\r\n".join(lines)).split("\r\n")
        assert rewritten == [lines[0], own, *lines[3:7], own, ""]
        assert str(between.for_left[1]) in between.from_right("\r\n".join(lines))
