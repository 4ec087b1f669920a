"""Associations with DTLS between two ends on loopback: where the other is, whose certificate it has, what passes by
which port.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aioice.ice import CandidatePair

from appliance.media import dtls_way, ice_seam
from appliance.media.api import IceServers
from appliance.media.association_seam import Association
from appliance.media.dtls_way import DtlsWay
from appliance.media.servers import ServerPool
from appliance.media.ways import STRANGER, OurEnd, TheirEnd, _bind
from tests.support.media_pair import until

HOST = "127.0.0.1"


@dataclass
class End:
    """One side, what it was given in the clear, and how often it was told of its state."""

    name: str
    ice: bool = False
    mux: bool = True
    got: list[tuple[bytes, bool]] = field(default_factory=list)
    told: int = 0
    arrivals: int = 0
    refuse: bool = False

    def __post_init__(self) -> None:
        self.way = DtlsWay(
            self._take, name=self.name, host=HOST, servers=ServerPool(IceServers()), loopback=True, ice=self.ice,
            marking=0, on_arrival=self._arrived, on_state=self._changed, mux=self.mux)

    def _take(self, data: bytes, rtcp: bool) -> bool:
        if self.refuse:
            raise ValueError("cannot be read")
        self.got.append((data, rtcp))
        return True

    def _changed(self) -> None:
        self.told += 1

    def _arrived(self) -> None:
        self.arrivals += 1


def seen(end: OurEnd, *, client: bool, controlling: bool = False, **more: Any) -> TheirEnd:
    """As the other side's description tells it."""
    return TheirEnd(frozenset({("sha-256", end.fingerprint)}), client, end.tls_id, end.ice, controlling, **more)


@asynccontextmanager
async def ends(
    *, ice: bool = False, mux: bool = True, only: str = "",
) -> AsyncIterator[tuple[End, End, OurEnd, OurEnd]]:
    """Two, open, with nothing agreed; the second one is to begin. ``only``: the address that both have."""
    here, there = End("here", ice, mux), End("there", ice, mux)
    for end in (here, there):
        end.way._media._agent._only = only or end.way._media._agent._only
    try:
        yield here, there, await here.way.open(), await there.way.open()
    finally:
        await there.way.close()
        await here.way.close()
        await asyncio.sleep(0)


async def connected(*both: End) -> None:
    await until(lambda: all(one.way.state == "connected" for one in both), 5, "both are connected")


async def all_come(end: End, count: int) -> None:
    await until(lambda: len(end.got) == count, 5, f"{count} packets at {end.name}")


def port_of(end: End) -> int:
    """Where the path in use begins; 0 while there is none."""
    local = end.way.facts().get("local")
    return 0 if local is None else int(local.port)


def rtp(number: int) -> bytes:
    return bytes((0x80, 0, 0, number)) + bytes(8) + b"voice"


REPORT = bytes((0x80, 201, 0, 1)) + bytes(4)


@pytest.mark.parametrize("ice", [False, True])
async def test_what_one_sends_the_other_has_in_the_clear(ice: bool) -> None:
    async with ends(ice=ice) as (here, there, ours, theirs):
        assert (ours.ice is not None) is ice
        await here.way.send(rtp(0), rtcp=False)
        here.way.agree(seen(theirs, client=True, controlling=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        for sender, taker in ((here, there), (there, here)):
            await sender.way.send(rtp(1), rtcp=False)
            await sender.way.send(REPORT, rtcp=True)
            await all_come(taker, 2)
            assert taker.got == [(rtp(1), False), (REPORT, True)], "what was sent before is gone"
        assert here.way.security()["dtlsRole"] == "server"
        assert here.way.security()["srtpCipher"].startswith("SRTP_AEAD")
        assert here.way.certificates()["remote"].fingerprint == theirs.fingerprint
        assert here.way.facts()["dtlsState"] == "connected"
        assert here.way.address is not None
        assert here.told >= 2
        assert here.way.failure == ("", "")


@pytest.mark.parametrize("insists", [False, True])
@pytest.mark.parametrize("tie_breaker", [0, 2**64 - 1])
async def test_a_peer_that_checks_before_its_answer_is_here(tie_breaker: int, insists: bool) -> None:
    """It may nominate the one path there is, once, where it ``insists`` on that as we do and we give way."""
    async with ends(ice=True, only=HOST) as (here, there, ours, theirs):
        agent, other = here.way._media._agent, there.way._media._agent
        agent._tie_breaker = tie_breaker
        there.way.agree(seen(ours, client=False, controlling=insists), ours.address)
        await until(lambda: any(pair.state is CandidatePair.State.SUCCEEDED for pair in other._check_list), 5,
                    "a path is known to it, and nominated where it may")
        here.way.agree(seen(theirs, client=True, controlling=True), theirs.address)
        await connected(here, there)
        assert agent.ice_controlling is (tie_breaker > 0 or not insists)
        assert other.ice_controlling is not agent.ice_controlling


async def test_a_peer_behind_a_translator_is_where_its_first_packet_comes_from_and_nobody_else_is() -> None:
    async with ends() as (here, there, ours, theirs):
        here.way.agree(seen(theirs, client=True), (HOST, 9))
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data in (rtp(1), b"\x16\xfe\xfd", b"\x00\x01", b"?"):
                stranger.sendto(data, ours.address)
            await until(lambda: here.way.strangers == 4, 2, "all are strangers")
        await here.way.send(rtp(2), rtcp=False)
        await until(lambda: there.got == [(rtp(2), False)], 2, "it is still found")


async def test_a_peer_that_moves_is_followed_by_the_same_association() -> None:
    async with ends() as (here, there, ours, theirs):
        here.way.agree(seen(theirs, client=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.bind((HOST, 0))
            elsewhere.setblocking(False)
            assert here.way.continues(seen(theirs, client=True))
            here.way.agree(seen(theirs, client=True), elsewhere.getsockname())
            await here.way.send(rtp(1), rtcp=False)
            assert len(await loop.sock_recv(elsewhere, 2000)) > len(rtp(1)), "sealed, and there"
        assert here.way.state == "connected"
        assert here.told == 4, "and nothing was done over: checking, completed, connecting, connected"


async def test_another_certificate_than_was_announced_ends_it() -> None:
    async with ends() as (here, there, ours, theirs):
        here.way.agree(seen(replace(theirs, fingerprint=ours.fingerprint), client=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await until(lambda: here.way.state == "failed", 5, "it is refused")
        assert here.way.failure == ("dtls", STRANGER)
        await there.way.send(rtp(1), rtcp=False)
        assert here.got == []


@pytest.mark.parametrize(("change", "continues"), [
    ({}, True), ({"client": False}, False), ({"tls_id": "x" * 20}, False), ({"ice": None}, False),
    ({"fingerprints": frozenset({("sha-256", "AB")})}, False), ({"controlling": True}, True)])
async def test_what_is_another_association(change: dict[str, Any], continues: bool) -> None:
    async with ends(ice=True) as (here, _, _, theirs):
        first = seen(theirs, client=True)
        assert here.way.continues(first), "anything may come first"
        here.way.agree(first, theirs.address)
        assert here.way.continues(replace(first, **change)) is continues


async def test_another_path_of_the_same_association() -> None:
    async with ends(ice=True) as (here, there, ours, theirs):
        here.way.agree(seen(theirs, client=True, controlling=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        path = port_of(here)
        certificates = here.way.certificates()
        new_ours, new_theirs = await here.way.restart_ice(), await there.way.restart_ice()
        assert here.way.carries(new_ours)
        assert here.way.restarts(seen(new_theirs, client=True))
        here.way.agree(seen(new_theirs, client=True, controlling=True), new_theirs.address)
        there.way.agree(seen(new_ours, client=False), new_ours.address)
        await until(lambda: port_of(here) not in (0, path), 5, "another path")
        await there.way.send(rtp(3), rtcp=False)
        await until(lambda: here.got == [(rtp(3), False)], 5, "it goes on")
        assert here.way.certificates() == certificates


def lost(end: OurEnd) -> OurEnd:
    """As one that is told to be where nobody is."""
    assert end.ice is not None
    return replace(end, ice=replace(end.ice, candidates=(f"candidate:1 1 udp 1 {HOST} 9 typ host",)))


async def looks(end: End) -> None:
    """For a path, in vain."""
    agent = end.way._media._agent
    await until(lambda: any(pair.state is CandidatePair.State.IN_PROGRESS for pair in agent._check_list), 5,
                f"{end.name} looks for a path")
    assert end.way.state == "connecting"


@pytest.mark.parametrize("search_s", [0.0, 0.1])
@pytest.mark.parametrize("restarts", [1, 2])
async def test_a_path_that_is_looked_for_in_vain_is_found_after_a_restart(restarts: int, search_s: float) -> None:
    """Whether checks are still begun or only awaited; and nothing is looked for any more then."""
    async with ends(ice=True, only=HOST) as (here, there, ours, theirs):
        here.way.agree(seen(lost(theirs), client=True, controlling=True), theirs.address)
        there.way.agree(seen(lost(ours), client=False), ours.address)
        for left in range(restarts, 0, -1):
            await looks(here)
            await looks(there)
            await asyncio.sleep(search_s)
            told = [await one.way.restart_ice() for one in (here, there)]
            new_ours, new_theirs = told if left == 1 else map(lost, told)
            here.way.agree(seen(new_theirs, client=True, controlling=True), new_theirs.address)
            there.way.agree(seen(new_ours, client=False), new_ours.address)
        await connected(here, there)
        for sender, taker in ((here, there), (there, here)):
            await sender.way.send(rtp(1), rtcp=False)
            await all_come(taker, 1)
            await until(lambda: not sender.way._media._connecting, 2, "no search is left")  # noqa: B023


async def test_a_restart_that_the_other_side_does_not_follow_ends_a_search_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ice_seam, "FOLLOWED_S", 0.2)
    async with ends(ice=True, only=HOST) as (here, _, _, theirs):
        here.way.agree(seen(lost(theirs), client=True, controlling=True), theirs.address)
        await looks(here)
        await here.way.restart_ice()
        assert here.way.state == "connecting"
        await until(lambda: here.way.state == "failed", 5, "it is given up")
        assert here.way.failure[0] == "iceFailed"


async def test_packets_that_cannot_be_read_are_counted() -> None:
    async with ends() as (here, there, ours, theirs):
        here.way.agree(seen(theirs, client=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        here.refuse = True
        await there.way.send(rtp(1), rtcp=False)
        await there.way.send(REPORT, rtcp=True)
        await until(lambda: here.way.malformed == 2, 2, "both are counted")
        here.refuse = False
        await there.way.send(rtp(2), rtcp=False)
        await until(lambda: here.got == [(rtp(2), False)], 2, "and the next is taken")


@pytest.mark.parametrize("mux", [True, False])
async def test_closed_at_any_moment_and_twice(mux: bool) -> None:
    for turns in range(0, 60, 3):
        async with ends(mux=mux) as (here, there, ours, theirs):
            here.way.agree(seen(theirs, client=True, mux=mux), theirs.address)
            there.way.agree(seen(ours, client=False, mux=mux), ours.address)
            for _ in range(turns):
                await asyncio.sleep(0)
            await here.way.close()
            await here.way.close()
            for rtcp in (False, True):
                with pytest.raises(ConnectionError):
                    await here.way.send(REPORT if rtcp else rtp(1), rtcp=rtcp)
    never = End("never", mux=mux)
    await never.way.close()


async def test_closed_while_it_opens() -> None:
    for turns in range(24):
        end = End("early", mux=False)
        opening = asyncio.create_task(end.way.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        await end.way.close()
        found = (await asyncio.gather(opening, return_exceptions=True))[0]
        assert isinstance(found, OSError | OurEnd), found
        if isinstance(found, OurEnd):
            assert is_free(found.address[1])
            assert is_free(found.rtcp)


async def test_without_a_port_an_error_says_where() -> None:
    end = Association(
        lambda _data, _rtcp: True, name="nowhere", host="192.0.2.77", servers=ServerPool(IceServers()), loopback=False,
        ice=False, marking=0, on_arrival=lambda: None, on_state=lambda: None)
    with pytest.raises(OSError, match=r"192\.0\.2\.77"):
        await end.open()
    await end.close()


# --- RTCP on a port of its own ----------------------------------------------------------------------------------------


class Tap(asyncio.DatagramProtocol):
    """Stands before a port of this machine, and knows the kinds of what passes either way."""

    def __init__(self, port: int) -> None:
        self._to = (HOST, port)
        self._from: Any = None
        self.kinds: set[str] = set()

    async def open(self, here: socket.socket) -> int:
        self._socket, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=here)
        return int(here.getsockname()[1])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.kinds.add("handshake" if data[0] < 64 else "report" if 192 <= data[1] < 224 else "media")
        if addr != self._to:
            self._from = addr
        self._socket.sendto(data, self._from if addr == self._to else self._to)

    def close(self) -> None:
        self._socket.close()


def side_by_side() -> tuple[socket.socket, socket.socket]:
    first, second = _bind(HOST, mux=False)
    assert second is not None
    return first, second


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def agree_apart(here: End, there: End, ours: OurEnd, theirs: OurEnd) -> None:
    """As both descriptions say without ``a=rtcp-mux``."""
    here.way.agree(seen(theirs, client=True, controlling=True, mux=False), theirs.address, (HOST, theirs.rtcp))
    there.way.agree(seen(ours, client=False, mux=False), ours.address, (HOST, ours.rtcp))


async def reported(sender: End, taker: End) -> None:
    """Reports go to nobody before their own handshake, and nobody waits for it but who looks for one."""
    taker.got.clear()
    async with asyncio.timeout(5):
        while not taker.got:
            await sender.way.send(REPORT, rtcp=True)
            await asyncio.sleep(0.01)
    assert taker.got[0] == (REPORT, True)


@pytest.mark.parametrize("ice", [False, True])
async def test_reports_have_a_port_and_a_handshake_of_their_own(ice: bool) -> None:
    async with ends(ice=ice, mux=False) as (here, there, ours, theirs):
        agree_apart(here, there, ours, theirs)
        await connected(here, there)
        assert not here.way.mux
        for sender, taker in ((here, there), (there, here)):
            await sender.way.send(rtp(1), rtcp=False)
            await all_come(taker, 1)
            await reported(sender, taker)
        assert here.way.malformed == here.way.strangers == 0
        ports = [one for end in (ours, theirs) for one in (end.address[1], end.rtcp)]
        assert len(set(ports)) == 4
        assert not any(is_free(one) for one in ports)
    assert all(is_free(one) for one in ports), "nothing is left at the end"


@pytest.mark.parametrize("told", [True, False])
async def test_nothing_but_reports_goes_by_that_port_and_none_by_the_other(told: bool) -> None:
    """Who tells none has it above that of RTP."""
    async with ends(mux=False) as (here, there, ours, theirs):
        media, reports = Tap(ours.address[1]), Tap(ours.rtcp)
        first, second = side_by_side()
        address, port = (HOST, await media.open(first)), await reports.open(second)
        here.way.agree(seen(theirs, client=True, mux=False), theirs.address, (HOST, theirs.rtcp))
        there.way.agree(seen(ours, client=False, mux=False), address, (HOST, port) if told else None)
        await connected(here, there)
        for sender, taker in ((here, there), (there, here)):
            await sender.way.send(rtp(1), rtcp=False)
            await all_come(taker, 1)
            await reported(sender, taker)
        assert (media.kinds, reports.kinds) == ({"handshake", "media"}, {"handshake", "report"})
        media.close()
        reports.close()


async def test_it_is_the_port_above_where_that_is_free() -> None:
    def made(**more: Any) -> Association:
        return Association(
            lambda _data, _rtcp: True, name="above", host=HOST, servers=ServerPool(IceServers()), loopback=True,
            ice=False, marking=0, on_arrival=lambda: None, on_state=lambda: None, **more)

    media = made()
    port = (await media.open()).address[1]
    while not is_free(port + 1):  # somebody else on this machine has it
        await media.close()
        media = made()
        port = (await media.open()).address[1]
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST, port + 1))
        for _ in range(2):
            reports = made(beside=media)
            found.append((await reports.open()).address[1])
            await reports.close()
            other.close()
    await media.close()
    assert found[0] not in (port, port + 1)
    assert found[1] == port + 1


async def test_a_port_that_is_not_needed_is_let_go_of_and_does_not_come_back() -> None:
    async with ends(mux=False) as (here, there, ours, theirs):
        assert here.way.continues(seen(theirs, client=True, mux=False))
        here.way.agree(seen(theirs, client=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await connected(here, there)
        await until(lambda: is_free(ours.rtcp), 2, "the port is free")
        await here.way.send(REPORT, rtcp=True)
        await all_come(there, 1)
        assert here.way.continues(seen(theirs, client=True))
        assert not here.way.continues(seen(theirs, client=True, mux=False)), "that would take another one"


async def test_who_comes_to_take_reports_beside_the_sound_has_them_there() -> None:
    async with ends(mux=False) as (here, there, ours, theirs):
        agree_apart(here, there, ours, theirs)
        await connected(here, there)
        await reported(there, here)
        here.way.agree(seen(theirs, client=True), theirs.address)
        there.way.agree(seen(ours, client=False), ours.address)
        await until(lambda: is_free(ours.rtcp) and is_free(theirs.rtcp), 2, "the ports are free")
        await reported(here, there)
        await reported(there, here)
        assert here.way.state == there.way.state == "connected"


async def test_reports_go_on_by_another_path() -> None:
    async with ends(ice=True, mux=False) as (here, there, ours, theirs):
        agree_apart(here, there, ours, theirs)
        await connected(here, there)
        await reported(there, here)
        new_ours, new_theirs = await here.way.restart_ice(), await there.way.restart_ice()
        assert new_ours.rtcp not in (0, ours.rtcp)
        agree_apart(here, there, new_ours, new_theirs)
        await until(lambda: port_of(here) not in (0, ours.address[1]), 5, "another path")
        await until(lambda: is_free(ours.rtcp) and is_free(theirs.rtcp), 5, "and the former ports are left")
        await reported(there, here)
        await reported(here, there)


@pytest.mark.parametrize("answer", [b"", bytes.fromhex("15fefd000000000000000000020228")])  # silence, or a fatal alert
async def test_without_reports_the_sound_goes_on_and_it_is_told_once(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    class Nobody(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if answer:
                silent.sendto(answer, addr)

    monkeypatch.setattr(dtls_way, "REPORTS_WITHIN_S", 0.2)
    loop = asyncio.get_running_loop()
    async with ends(mux=False) as (here, there, ours, theirs):
        silent, _ = await loop.create_datagram_endpoint(Nobody, local_addr=(HOST, 0))
        here.way.agree(seen(theirs, client=False, mux=False), theirs.address, silent.get_extra_info("sockname"))
        there.way.agree(seen(ours, client=True), ours.address)
        await connected(here, there)
        await until(lambda: is_free(ours.rtcp), 5, "it was given up")
        for _ in range(2):
            await here.way.send(REPORT, rtcp=True)
        await here.way.send(rtp(1), rtcp=False)
        await all_come(there, 1)
        assert (here.way.state, here.way.failure, there.got) == ("connected", ("", ""), [(rtp(1), False)])
        here.way.agree(seen(theirs, client=False, mux=False), theirs.address, silent.get_extra_info("sockname"))
        assert here.way.state == "connected", "a hold is no other thing"
        silent.close()
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith("here goes on without reports")


async def test_another_certificate_at_the_port_of_reports_ends_it_all_the_same() -> None:
    async with ends(mux=False) as (here, there, ours, theirs):
        between = End("between")
        await between.way.open()
        here.way.agree(seen(theirs, client=True, mux=False), theirs.address, (HOST, 9))
        there.way.agree(seen(ours, client=False), ours.address)
        between.way.agree(seen(ours, client=False), (HOST, ours.rtcp))
        await until(lambda: here.way.state == "failed", 5, "it is refused")
        assert here.way.failure == ("dtls", STRANGER)
        await between.way.close()
