"""What an endpoint does with its messages, whatever becomes of their sending."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from appliance.providers.api import Peer
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.endpoint import Endpoint, Switchboard
from tests.support.direct_parts import LoopClock


class Breaks:
    """A connection whose first message meets a fault of ours."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.tries = 0

    async def send(self, text: str, expiry_s: int) -> bool:
        self.tries += 1
        if self.tries == 1:
            raise ZeroDivisionError("a fault")
        self.sent.append(text)
        return True

    async def close(self, code: int, reason: str) -> None: ...


async def test_a_fault_in_sending_costs_one_message_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint("page:1", Peer("desk", "operator:desk", "Desk"), cast(Switchboard, None), LoopClock())
    line = Breaks()
    endpoint.attach(line)
    endpoint.post(wire.RingingSignal("call-0001"))
    endpoint.post(wire.RingingSignal("call-0002"))
    assert await endpoint.flush(2.0)
    assert [text.count("call-0002") for text in line.sent] == [1]
    assert endpoint.dropped == 1
    assert "could not be sent" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    await endpoint.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("direct.send")]
