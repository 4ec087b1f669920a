"""Calls over a network that loses every fifth message, or every second: all end, on both sides, and nothing is left."""

from __future__ import annotations

import random

import pytest

from appliance.providers.sip.events import Answered, Closed, Offered
from tests.support.sip_world import ANSWER, World

CALLS = 60


class Lossy(World):
    """``dice`` decides what is lost, when who does what, and who hangs up."""

    def __init__(self, dice: random.Random, loss: float) -> None:
        super().__init__()
        self.dice = dice
        self.loss = loss
        self.network.lose = lambda _: dice.random() < self.loss

    def live(self) -> None:
        """One call, from the dialling to its end."""
        self.dial()
        self._wait(8)
        if self.bob.calls and self.dice.random() < 0.8:
            self.bob.calls[0].ring()
            self._wait(3)
            if self.dice.random() < 0.8:
                self.bob.calls[0].accept(ANSWER)
            else:
                self.bob.calls[0].reject(486)
            self._wait(3)
        for _ in range(self.dice.randrange(4)):
            if self.bob.calls and self.dice.random() < 0.5:
                self.bob.calls[0].offer(lambda: b"another")
                self._wait(3)
                if self.of(Offered):
                    self.call.answer(b"fine")
            else:
                self.call.offer(lambda: b"another")
                self._wait(3)
                if self.bob.of(Offered):
                    self.bob.calls[0].answer(b"fine")
            self._wait(3)
        if self.bob.calls and self.dice.random() < 0.5:
            self.bob.calls[0].end()
        else:
            self.call.end()
        self._wait(1)

    def _wait(self, most: float) -> None:
        self.clock.pass_time(self.dice.uniform(0.0, most))


@pytest.mark.parametrize("loss", [0.05, 0.2, 0.5])
def test_every_call_ends_on_both_sides(loss: float) -> None:
    dice = random.Random(3261)
    answered = 0
    for number in range(CALLS):
        world = Lossy(dice, loss)
        world.live()
        world.clock.pass_time(120)  # 64 T1 for the call, and as much for its BYE
        for call in world.bob.calls:
            call.reject(480)  # which an appliance does when it has rung for long enough; nothing where it was answered
        world.loss = 0.0
        world.clock.pass_time(5000)  # a session timer, where one side does not know of the end
        answered += bool(world.of(Answered))
        assert len(world.of(Closed)) == 1, number
        assert len(world.bob.of(Closed)) == len(world.bob.calls), number
        assert world.anna.agent.busy == 0, number
        assert world.bob.agent.busy == 0, number
    assert answered > CALLS * (0.3 if loss < 0.5 else 0.1)
