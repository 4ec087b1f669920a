"""The torture messages of RFC 4475 and RFC 5118: what comes of each at an agent, which goes on as before."""

from __future__ import annotations

import pytest

from tests.support.sip_torture import REFUSED, RFC_4475, RFC_5118, RINGS, Outcome
from tests.support.sip_world import A, B, World

MESSAGES = [*RFC_4475, *RFC_5118]


def test_there_is_one_for_each_of_both_standards() -> None:
    names = [name for name, _, _ in RFC_4475]
    assert len(names) == len(set(names)) == 49
    assert {name.split(" ")[0] for name, _, _ in RFC_5118} == {f"4.{number}" for number in range(1, 11)}


@pytest.mark.parametrize(("name", "data", "outcome"), MESSAGES, ids=[one[0] for one in MESSAGES])
def test_what_comes_of_it(name: str, data: bytes, outcome: Outcome) -> None:
    world = World()
    agent = world.bob.agent
    agent.receive(data, A)
    world.clock.pass_time(0.01)
    said = [one.message.status for one in world.network.sent if one.source == B]  # type: ignore[union-attr]
    assert said == ([100] if outcome == RINGS else [outcome] if isinstance(outcome, int) else [])
    assert agent.malformed == (outcome == REFUSED)
    assert len(world.bob.calls) == (outcome == RINGS)
    for call in world.bob.calls:
        call.reject(486)
    world.clock.pass_time(40)
    world.connect()
    world.call.end()
    world.nothing_left()

