"""Five hundred telephone calls, one after the other: nothing is left of any of them, and memory stays where it was."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.providers.sip.provider import SipProvider
from tests.support.baresip import Baresip, baresip
from tests.support.house import Running, house, start_of
from tests.support.waiting import until

pytestmark = [pytest.mark.long, pytest.mark.peer, pytest.mark.timeout(3600)]

CALLS = 500
WARM_UP = 300  # fills arenas, and what remembers the last commands, events and lines (measured: 450 calls)
LINGER_S = 40.0  # of the last transactions (RFC 3261 17: 32 s)
POOL = 4  # threads by which asyncio's own pool may still fill up
GROWTH_KIB = 6 * 1024  # between the first and the last third: the allocator goes up in steps, and then stays


@dataclass(frozen=True)
class Held:
    """What this process has: descriptors, among them every port, threads, tasks; and what telephony has."""

    files: int
    threads: int
    tasks: int
    calls: int
    transactions: int

    @classmethod
    def now(cls, sip: SipProvider) -> Held:
        gc.collect()
        return cls(len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks()),
                   len(sip.legs), sum(account.agent.busy for account in sip._accounts))


def own_kib() -> int:
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss_Anon:"))


async def done(running: Running, verb: str, **args: Any) -> None:
    answer = await running.give(verb, **args)
    assert answer["result"] == "done", answer


async def call(running: Running, phone: Baresip, number: int) -> None:
    """By turns they call, hold, press a key, and hang up."""
    phone.events.clear()
    running.events.clear()
    if number % 20 == 5:  # an account takes thirty a minute
        assert running.house.ways.sip is not None
        await phone.tell("dial", str(running.house.ways.sip._accounts[0].agent.contact().uri))
        await running.until(lambda: running.document("call")["state"] == "Incoming")
        await done(running, "call.answer")
    else:
        await done(running, "call.dial", to=f"sip:phone@127.0.0.1:{phone.port}")
    await running.until(lambda: running.document("call")["state"] == "Connected")
    if number % 10 == 3:
        await done(running, "call.hold")
        await done(running, "call.resume")
    if number % 10 == 6:
        await done(running, "call.dtmf", digits="1")
    if number % 2:
        await phone.tell("hangup")
    else:
        await done(running, "call.hangup")
    await running.until(lambda: running.document("call")["state"] == "Disconnected")
    await phone.until("CALL_CLOSED")
    await asyncio.sleep(0.25)  # ten commands a second are taken


async def test_five_hundred_calls_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=opus/48000/2,G722/16000/1,PCMA/8000/1;answermode=auto"
    async with baresip(tmp_path / "phone", line) as phone:
        tables = ('[[sip.accounts]]\nname = "trunk"\naddress = "sip:door@127.0.0.1"\nregister = false\n'
                  f'servers = "127.0.0.1:{phone.port}"\ntransport = "udp"\nkeep_alive = false\n'
                  'trusted = ["127.0.0.0/8"]\ntrust_caller_id = true\n'
                  '[[book]]\nname = "Phone"\nuris = ["sip:phone@127.0.0.1"]\n')
        settings = {"sip.require_encryption": False, "mqtt.enabled": False, "sip.calls_per_hour": 3600,
                    "sip.calls_per_target": 3600}
        async with house(await start_of(tmp_path, settings, tables=tables)) as running:
            await running.until(lambda: running.document("provider").get("providers", {}).get("sip", {}).get(
                "accounts", {}).get("trunk", {}).get("up"))
            sip = running.house.ways.sip
            assert sip is not None

            async def quiet() -> Held:
                await until(lambda: not any(account.agent.busy for account in sip._accounts), "it is over", LINGER_S)
                await asyncio.sleep(2)
                return Held.now(sip)

            for number in range(WARM_UP):
                await call(running, phone, number)
            before, memory, begun = await quiet(), [], time.monotonic()
            for number in range(CALLS):
                await call(running, phone, number)
                memory.append(own_kib())
            took_s = time.monotonic() - begun
            after = await quiet()
            third = CALLS // 3
            grown = statistics.median(memory[-third:]) - statistics.median(memory[:third])
            words = f"{before} -> {after}, memory {memory[0]} -> {memory[-1]} KiB, thirds {grown:+.0f}, {took_s:.0f} s"
            assert (after.calls, after.transactions) == (0, 0), words
            assert after.files <= before.files, words
            assert after.tasks <= before.tasks, words
            assert after.threads <= before.threads + POOL, words
            assert grown < GROWTH_KIB, words
    with capsys.disabled():
        print(f"\n  {words}")
