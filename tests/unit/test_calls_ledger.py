"""What is kept of calls, on virtual time: records and summaries, over restarts, crashes and slow cards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from appliance.errors import StoreError
from appliance.providers.api import Ended
from appliance.vocabulary import END_REASONS, Json
from tests.support.calls import OPERATOR, OPERATORS, House, MemoryRecords, connected, settle
from tests.support.clock import virtual_time


class Ledger:
    """A Conclusion that writes down what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, list[Sequence[Json]]]] = []
        self.told: list[Json] = []
        self.broken = False

    def media(self, call_id: str, last: Sequence[Sequence[Json]]) -> Json:
        self.given.append((call_id, list(last)))
        return {"metrics": ["of", call_id]}

    async def tell(self, summary: Json) -> None:
        if self.broken:
            raise StoreError("The data folder is full.")
        self.told.append(summary)


@virtual_time
async def test_a_call_that_ends_is_concluded_with_its_last_report_kept_and_told(tmp_path: Path) -> None:
    ledger = Ledger()
    async with House(tmp_path, entries=[OPERATORS], conclusion=ledger) as house:
        leg = await connected(house)
        leg.report, leg.given_up = [{"type": "inbound-rtp"}], [[{"type": "transport"}]]
        call_id = house.call["callId"]
        leg.peer_does(Ended(END_REASONS["0/remote"]))
        await settle()
        assert ledger.given == [(call_id, [[{"type": "transport"}], [{"type": "inbound-rtp"}]])]
        (told,) = ledger.told
        assert (told["callId"], told["endReason"]["subCode"], told["media"]) == (
            call_id, "remote", {"metrics": ["of", call_id]})
        assert house.records.summaries == {call_id: told}
        assert "media" not in house.records.past[0], "the list of calls stays small"
        ledger.broken = True
        leg = house.provider.call_in(OPERATOR, "call-2")
        await settle()
        leg.peer_does(Ended(END_REASONS["487/cancelled"]))
        await settle()
        assert house.records.summaries["call-2"]["media"] == {"metrics": ["of", "call-2"]}
        assert house.call["state"] == "Disconnected"


@virtual_time
async def test_a_call_cut_by_a_crash_gets_its_end_told_once(tmp_path: Path) -> None:
    records = MemoryRecords()
    records.values["active_call"] = "call-9"
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == [{
            "callId": "call-9", "reason": END_REASONS["410/deviceFault.restart"].payload(), "durationMs": None}]
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == []


class SlowRecords(MemoryRecords):
    """A card that takes its time over each write, or does not answer any more."""

    def __init__(self, write_s: float) -> None:
        super().__init__()
        self.write_s = write_s
        self.hangs = False

    async def add_call(self, record: Json) -> None:
        await asyncio.sleep(self.write_s)
        await super().add_call(record)

    async def get(self, name: str, default: str | None = None) -> str | None:
        if self.hangs:
            raise StoreError("the data folder does not answer")
        return await super().get(name, default)

    async def set(self, name: str, value: str) -> None:
        await asyncio.sleep(self.write_s)
        await super().set(name, value)


@virtual_time
async def test_a_call_ended_by_a_stop_is_not_told_again_by_the_next_start(tmp_path: Path) -> None:
    records = SlowRecords(1.5)
    async with House(tmp_path, entries=[OPERATORS], records=records) as house:
        await connected(house)
        await asyncio.sleep(2)
        assert records.values["active_call"]
    assert [told["reason"]["subCode"] for told in house.posted("call.ended")] == ["shutdown"]
    assert [record["endReason"]["subCode"] for record in records.past] == ["shutdown"]
    async with House(tmp_path, records=records) as house:
        assert house.posted("call.ended") == []


@virtual_time
async def test_a_card_that_hangs_holds_neither_start_nor_stop(tmp_path: Path) -> None:
    records = SlowRecords(3600)
    records.hangs = True
    async with House(tmp_path, entries=[OPERATORS], records=records) as house:
        await connected(house)
        began = asyncio.get_running_loop().time()
        await house.controller.stop()
        assert asyncio.get_running_loop().time() - began <= 5
