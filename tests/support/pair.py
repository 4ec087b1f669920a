"""What every test with two appliances does."""

from __future__ import annotations

import asyncio

from tests.support.appliance import Appliance

__all__ = ["connect", "online"]


async def online(one: Appliance) -> None:
    """Its broker has it."""
    await one.wait_for_state("net", lambda net: net.get("brokerConnected"), 20)


async def connect(caller: Appliance, called: Appliance, to: str) -> str:
    """One calls, the other answers, both are connected; the call's id."""
    dialling = asyncio.create_task(caller.give("call.dial", to=to, wait=30))
    await called.call_is("Incoming")
    await caller.call_is("Ringing")
    answered = await called.give("call.answer", wait=20)
    assert answered["result"] == "done", answered
    answer = await dialling
    assert answer["result"] == "done", answer
    await asyncio.gather(caller.call_is("Connected"), called.call_is("Connected"))
    call_id = str(answer["data"]["callId"])
    assert caller.state("call")["callId"] == called.state("call")["callId"] == call_id
    return call_id
