"""Fuzz targets of telephony: whatever bytes arrive are understood, or refused by the exception that is meant for it.

    python -m tests.support.sip_fuzz sip|sdp|sdes [--seconds 60] [--seed N]

Inputs are right and wrong ones of the tests with faults put in, of bytes and of words. What breaks a target is printed
with the seed that leads to it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.media.api import IceFragment
from appliance.media.ways import OurEnd
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import Framer, Request, parse
from appliance.providers.sip.offer import Negotiation, NotAcceptable, Outline
from appliance.providers.sip.sdes import SUITES, Key, MediaProtection, parse_crypto
from tests.support.mutation import mutated
from tests.support.sip_messages import BROKEN, INVITE, STRANGE
from tests.support.sip_torture import RFC_4475, RFC_5118, SDP, SDP_6
from tests.support.sip_world import A, World

__all__ = ["TARGETS", "Broken", "Target", "fuzz", "lasting", "only_malformed"]

WORDS: Final = [
    *(bytes([one]) for one in b"\"<>;,:/=|@%\\\0\r\n \t[]0"), b"\r\n", b"\r\n ", b"\r\n\r\n", b"::", b"--",
    b"-1", b"65536", b"99999999999", b"\xff\xfe", "ü٣".encode(),
    b"sip:", b"SIP/2.0", b"Via: ", b"v: ", b"Content-Length: ", b"l: ", b"CSeq: ", b"tag=", b"Contact: *",
    b"Replaces: ", b"branch=z9hG4bK", b"multipart/mixed;boundary=", b"m=audio 0 ", b"c=IN IP4 ", b"c=IN IP6 ",
    b"a=crypto:1 ", b"inline:", b"a=rtpmap:", b"a=fmtp:", b"a=rtcp:", b"a=ptime:"]


class Broken(Exception):
    """A target raised what it must not. Its words are all that is needed to see it again."""


@dataclass(frozen=True)
class Target:
    seeds: Sequence[bytes]
    run: Callable[[bytes], None]


def _sip(data: bytes) -> None:
    """As a datagram, torn on a stream, and at an agent that has a call."""
    only_malformed(data)
    framer = Framer()
    try:
        for at in range(0, len(data), 97):
            for one in framer.feed(data[at : at + 97]):
                only_malformed(one)
    except Malformed:
        pass
    _WORLD.bob.agent.receive(data, A)
    for call in _WORLD.bob.calls:
        call.reject(486)
    _WORLD.bob.calls.clear()
    _WORLD.clock.pass_time(40)
    _WORLD.network.sent.clear()
    assert _WORLD.bob.agent.busy == 0


def only_malformed(data: bytes) -> None:
    """Parse it as a message, and look at what is looked at of one."""
    try:
        message = parse(data)
    except Malformed:
        return
    assert parse(message.serialise()).serialise() == message.serialise()
    for name in ("contact", "route", "record-route", "p-asserted-identity"):
        try:
            message.addresses(name)
        except Malformed:
            continue
    if isinstance(message, Request):
        try:
            assert message.uri.identity
        except Malformed:
            return


def _sdp(data: bytes) -> None:
    """As an offer, and as the answer to ours: in the clear, with keys, and with DTLS, with ICE and without."""
    for places, secure in ((PORTS, False), (PORTS, True), *((one, True) for one in ENDS)):
        negotiation = Negotiation("192.0.2.1", places, secure=secure)
        negotiation.offer()
        for step in (negotiation.take_answer, negotiation.answer):
            try:
                step(data)
            except (Malformed, NotAcceptable):
                continue
            negotiation.offer()
    try:
        Outline.of(data)
    except Malformed:
        return


def _sdes(data: bytes) -> None:
    """What is a key protects packets."""
    found = parse_crypto(data.decode("utf-8", "replace"))
    if found is None:
        return
    number, key = found
    assert 0 <= number < 10**9
    here, there = MediaProtection(), MediaProtection()
    here.agree((key, Key.new(key.suite)))
    there.agree((Key.new(key.suite), key))
    packet = bytes.fromhex("800000010000000012345678") + b"voice"
    assert there.unprotect(here.protect(packet, rtcp=False), rtcp=False) == packet


PORTS: Final = {"audio": (30_000, 30_001)}
ENDS: Final = [{"audio": OurEnd(("192.0.2.1", 30_000), ":".join(["AB"] * 32), "a" * 32, fragment)} for fragment in (
    None, IceFragment("ours", "w" * 22, ("candidate:9 1 udp 1 192.0.2.1 30000 typ host",)))]
_WORLD: Final = World()
_OFFERS: Final = [
    SDP.encode(), SDP_6.encode(), Negotiation("192.0.2.1", PORTS, secure=True).offer(),
    Negotiation("2001:db8::1", {"audio": (30_000, 30_007)}).offer(),
    *(Negotiation("192.0.2.1", places, secure=True).offer() for places in ENDS),
    SDP.replace("RTP/AVP 0", "RTP/AVP 111 13 101").encode() + b"a=rtpmap:111 opus/48000/2\r\na=fmtp:111 usedtx=1;x\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=ptime:30\r\na=maxptime:40\r\na=rtcp:4001 IN IP4 192.0.2.7\r\n"
    b"a=sendonly\r\n"]

TARGETS: Final = {
    "sip": Target([INVITE, *(data for _, data, _ in STRANGE), *(data for _, data in BROKEN),
                   *(data for _, data, _ in (*RFC_4475, *RFC_5118))], _sip),
    "sdp": Target(_OFFERS, _sdp),
    "sdes": Target([f"{number} {Key.new(suite)}{more}".encode() for number, (suite, more) in enumerate(
        (suite, more) for suite in SUITES for more in ("", "|2^20", "|2^31|1:4", " KDR=1", " UNENCRYPTED_SRTP"))],
        _sdes),
}


def _changed(seed: bytes, dice: random.Random) -> bytes:
    data = seed
    if dice.random() < 0.5:
        data = mutated(data, dice)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(data) + 1)
        data = data[:at] + dice.choice(WORDS) + data[at + dice.choice((0, 0, 1, 4, 20)) :]
    return data


def fuzz(target: Target, inputs: Iterable[int], seed: int) -> int:
    """Try so many; returns how many. Raises Broken."""
    dice, count = random.Random(seed), 0
    for count in inputs:
        data = _changed(dice.choice(target.seeds), dice)
        try:
            target.run(data)
        except Exception as error:
            raise Broken(f"input {count} of seed {seed}: {data!r}") from error
    return count


def lasting(seconds: float) -> Iterator[int]:
    """1, 2, 3 and so on, for so long."""
    end = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    arguments = parser.parse_args()
    tried = fuzz(TARGETS[arguments.target], lasting(arguments.seconds), arguments.seed)
    print(f"{tried} inputs of seed {arguments.seed}: none broke it")


if __name__ == "__main__":
    main()
