"""Data messages in frames: whole or in parts, in any order, numbered, and never more of them kept than is said."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.api import DataMessage
from appliance.media.messages import FRAME_LIMIT, PARTIAL, PARTIAL_BYTES, PARTIAL_S, PARTS, Inbound, Outbound

SMALL = 4000  # bytes of a frame: what makes parts of a message that is easy to look at


class Hand:
    """Monotonic time in the test's hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def kept(inbound: Inbound) -> int:
    """Characters of parts that wait."""
    return sum(one.size for one in inbound._partial.values())


def test_a_short_message_is_one_frame_that_anybody_reads() -> None:
    frame, = Outbound().frames("chat", "häuschen")
    read = json.loads(frame)
    assert (read["channel"], read["payload"], read["seq"]) == ("chat", "häuschen", 1)
    assert Inbound(Hand()).take(frame) == DataMessage("chat", "häuschen")


def test_the_plain_frame_of_who_knows_no_numbers_is_read() -> None:
    inbound = Inbound(Hand())
    for _ in range(2):
        assert inbound.take('{"channel":"chat","payload":"hello"}') == DataMessage("chat", "hello")


def test_who_sends_it_and_who_is_meant() -> None:
    frame, = Outbound().frames("chat", "x", to=["8", "9"])
    assert Inbound(Hand()).take(frame, "7") == DataMessage("chat", "x", "7", ("8", "9"))


def test_nobody_speaks_in_the_place_of_another() -> None:
    inbound = Inbound(Hand())
    forged, right = (json.dumps({"channel": "c", "run": "r", "seq": number, "payload": "x"}) for number in (9, 2))
    assert inbound.take(forged, "mallory") is not None
    assert inbound.take(right, "olga") == DataMessage("c", "x", "olga")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400), st.integers(1, 60), st.randoms())
def test_parts_in_any_order_are_the_message(text: str, times: int, dice: random.Random) -> None:
    payload = text * times
    frames = Outbound(SMALL).frames("chat", payload, lossy=True)
    assert all(len(frame.encode()) <= SMALL for frame in frames)
    dice.shuffle(frames)
    inbound = Inbound(Hand())
    found = [message for frame in frames if (message := inbound.take(frame)) is not None]
    assert found == [DataMessage("chat", payload)]
    assert (inbound.malformed, inbound.abandoned, kept(inbound)) == (0, 0, 0)


def test_sixty_kilobytes_of_what_is_dearest_in_json() -> None:
    payload = "\x01" * 60_000  # six bytes each
    frames = Outbound().frames("chat", payload)
    assert len(frames) > 5
    inbound = Inbound(Hand())
    assert [inbound.take(frame) for frame in frames][-1] == DataMessage("chat", payload)


def test_too_much_is_refused_and_takes_no_number() -> None:
    outbound = Outbound()
    for channel, payload, to in (("chat", "x" * 70_000, []), ("chat", "ä" * 40_000, []),
                                 ("chat", "x" * 4000, ["ä" * 128] * 300)):
        with pytest.raises(ValueError, match="too large"):
            outbound.frames(channel, payload, to=to)
    assert json.loads(outbound.frames("chat", "x")[0])["seq"] == 1


def test_a_gap_is_seen_for_reliable_and_lossy_apart() -> None:
    outbound, inbound = Outbound(), Inbound(Hand())
    reliable = [outbound.frames("chat", str(n))[0] for n in range(6)]
    lossy = [outbound.frames("chat", str(n), lossy=True)[0] for n in range(6)]

    def lost(frame: str) -> int | None:
        message = inbound.take(frame)
        return None if message is None else message.lost

    assert [lost(reliable[n]) for n in (1, 2, 5)] == [0, 0, 2]  # what came before us is not missed
    assert [lost(lossy[n]) for n in (0, 3, 1, 4)] == [0, 2, 0, 0]  # overtaken, and handed on all the same
    assert lost(reliable[5]) is None  # twice is once
    assert lost(Outbound().frames("chat", "x")[0]) == 0  # another sender


def test_parts_that_never_come_are_forgotten() -> None:
    hand = Hand()
    inbound = Inbound(hand)
    outbound = Outbound(SMALL)
    first = outbound.frames("chat", "x" * 10_000, lossy=True)
    inbound.take(first[0])
    hand.now += PARTIAL_S + 0.1
    assert inbound.take(outbound.frames("chat", "next", lossy=True)[0]) == DataMessage("chat", "next")
    assert (inbound.abandoned, kept(inbound)) == (1, 0)


def test_memory_is_bounded_whatever_comes() -> None:
    inbound = Inbound(Hand())
    dice = random.Random(1)
    for number in range(1, 2000):
        frame: dict[str, Any] = {"channel": "chat", "payload": "x" * dice.randrange(60_000), "run": str(number % 7),
                                 "seq": number, "lossy": True, "part": dice.randrange(1, PARTS), "of": PARTS}
        inbound.take(json.dumps(frame))
        assert kept(inbound) <= PARTIAL_BYTES
        assert len(inbound._partial) <= PARTIAL
    for number in range(1000):
        inbound.take(json.dumps({"channel": "c", "payload": "", "run": f"r{number}", "seq": 1}))
    assert len(inbound._latest) <= 64
    assert inbound.abandoned > 1900


@pytest.mark.parametrize("frame", [
    "[]", "{", "7", "null", b"\xff", "[" * 5000, "x" * (FRAME_LIMIT + 1), '{"channel": 1, "payload": "x"}',
    '{"channel": "c", "payload": "x", "seq": 0, "run": "r"}', '{"channel": "c", "payload": "x", "seq": true}',
    '{"channel": "c", "payload": "x", "part": 2, "of": 2}', '{"channel": "c", "payload": "x", "of": 65}',
    '{"channel": "c", "payload": "x", "to": "all"}', '{"channel": "c", "payload": "x", "to": [1]}',
    '{"channel": "c", "payload": "x", "run": 7}', json.dumps({"channel": "c" * 129, "payload": "x"}),
], ids=range(16))
def test_what_is_no_frame_is_counted_and_left(frame: str | bytes) -> None:
    inbound = Inbound(Hand())
    assert inbound.take(frame) is None
    assert inbound.malformed == 1


def test_parts_that_lie_about_their_number_do_not_meet() -> None:
    inbound = Inbound(Hand())
    head = {"channel": "c", "run": "r", "seq": 1, "lossy": True}
    assert inbound.take(json.dumps({**head, "payload": "a", "part": 5, "of": 64})) is None
    assert inbound.take(json.dumps({**head, "payload": "b", "part": 0, "of": 2})) is None
    assert inbound.take(json.dumps({**head, "payload": "c", "part": 1, "of": 2})) == DataMessage("c", "bc")


def part(number: int, payload: str, *, run: str = "r", at: int = 0, of: int = 2) -> str:
    return json.dumps({"channel": "c", "run": run, "seq": number, "payload": payload, "part": at, "of": of})


@pytest.mark.parametrize(("times", "size"), [(100, 1), (40, 60_000)])
def test_who_leaves_messages_unfinished_spoils_nobody_elses(times: int, size: int) -> None:
    inbound = Inbound(Hand())
    assert inbound.take(part(1, "a"), "olga") is None
    for number in range(1, times + 1):
        assert inbound.take(part(number, "x" * size), "mallory") is None
    found = inbound.take(part(1, "b", at=1), "olga")
    assert found is not None and found.payload == "ab"
    assert kept(inbound) <= PARTIAL_BYTES and len(inbound._partial) <= PARTIAL


def test_a_space_in_a_name_makes_nobody_another() -> None:
    inbound = Inbound(Hand())
    assert inbound.take(json.dumps({"channel": "c", "run": "b r", "seq": 9, "payload": "x"}), "a") is not None
    assert inbound.take(json.dumps({"channel": "c", "run": "r", "seq": 1, "payload": "y"}), "a b") is not None
