"""Whole calls: the installed service on kernel devices, called by its button, seen and heard by a peer outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.hil.line import Line, ready_line
from tests.support.waiting import until_true

pytestmark = [
    pytest.mark.lg_feature(["camera", "sound", "panel", "faults"]), pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone,
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(env: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    async with ready_line(env, tmp_path_factory.mktemp("call")) as line:
        yield line


async def test_a_call_by_the_button_is_heard_on_both_sides_and_seen(line: Line) -> None:
    await line.connected()
    await line.flows()
    assert (await line.received("audio"))["packetsLost"] == 0
    await line.counts(0)
    assert "\nSeccomp:\t2\n" in await line.run("cat /proc/$(systemctl show --value -p MainPID edgecall)/status")
    await line.over()


async def test_a_call_on_a_network_that_loses_and_delays(line: Line) -> None:
    both = "netem delay 50ms 10ms loss 3%"
    await line.run(f"tc qdisc add dev vec0 root {both} && tc qdisc add dev vec0 ingress && ip link set ifb0 up && "
                   "tc filter add dev vec0 parent ffff: matchall action mirred egress redirect dev ifb0 && "
                   f"tc qdisc add dev ifb0 root {both}")
    try:
        await line.connected()
        await line.flows(60)
        await line.counts(0, 60)
        assert await line.round_trip() > 0.07, "both ways are delayed by 50 ms, give or take 10"

        async def lost() -> bool:
            return bool((await line.received("audio"))["packetsLost"] > 0)

        await until_true(lost, "three of a hundred are lost", 30)
        await line.over()
    finally:
        await line.run("tc qdisc del dev vec0 root; tc qdisc del dev vec0 ingress; tc qdisc del dev ifb0 root")
