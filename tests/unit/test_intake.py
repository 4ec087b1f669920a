"""Intake: one final answer each, never twice, never late; also over a crash."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance import intake as intake_module
from appliance.bulletin import Bulletin
from appliance.errors import Refused, StoreError
from appliance.faces.envelope import decode, encode, parse
from appliance.intake import Intake
from appliance.store import JournalState, Store
from appliance.store import service as service_module
from appliance.vocabulary import VERB, VERBS, Answer, Command, Origin, Result, Scope
from hw.api import DeviceMissingError
from tests.support.waiting import until_true

RELAY = {"relay": "door", "seconds": 3}


class HandClock:
    def __init__(self, *, synchronised: bool = True) -> None:
        self.now = 1000.0
        self.is_synchronised = synchronised

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now

    def synchronised(self) -> bool:
        return self.is_synchronised


class House:
    """A real store, a real intake, handlers that count."""

    def __init__(self, folder, clock: HandClock) -> None:
        self.clock = clock
        self.store = Store(folder, ballast=0)
        self.bulletin = Bulletin("b")
        self.done: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting: set[str] = set()
        self.both_wait = asyncio.Event()
        self.events: list[str] = []
        self.told: list[tuple[str, Answer]] = []
        self.intake = Intake(self.store, {
            "io.set": self._relay, "call.dial": self._dial, "call.mute": self._mute, "data.send": self._broken,
            "call.hold": self._refused, "devices.volume": self._gone, "book.list": self._not_json,
        }, self.bulletin, clock)
        self.intake.on_answer(lambda command, answer: self.told.append((command.id, answer)))

    async def _relay(self, command: Command):
        self.done.append(command.id)

    async def _wait(self, command: Command):
        self.waiting.add(command.id)
        if len(self.waiting) == 2:
            self.both_wait.set()
        await self.gate.wait()

    async def _mute(self, command: Command):
        await self._wait(command)
        self.done.append(command.id)

    async def _dial(self, command: Command):
        await self._wait(command)
        self.done.append(command.id)
        return {"callId": "c1"}

    async def _broken(self, command: Command):
        raise KeyError("secret")

    async def _refused(self, command: Command):
        raise Refused("There is no call.", sub_code="noCall")

    async def _gone(self, command: Command):
        raise DeviceMissingError("The loudspeaker is not there.")

    async def _not_json(self, command: Command):
        return {"entries": object()}

    def command(self, verb, command_id="1", *, origin=Origin.MQTT, sender="fleet", ts=None, ttl_s=None, nonce=None,
                **args) -> Command:
        body = {"id": command_id, "args": args, "ts": self.clock.wall() if ts is None else ts}
        if ttl_s is not None:
            body["ttl_s"] = ttl_s
        if nonce is not None:
            body["nonce"] = nonce
        return parse(verb, body, origin=origin, sender=sender, scope=Scope.ADMIN, now=self.clock.monotonic)

    async def outbox(self) -> list[tuple[str, bytes]]:
        rows, _ = await self.store.outbox(100)
        return [(row.topic, row.payload) for row in rows]


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    made = House(tmp_path, HandClock())
    await made.store.open()
    with made.bulletin.subscribed(on_event=lambda event: made.events.append(event.data["why"])):
        yield made
    await made.intake.stop()
    await made.store.close()


async def crash_and_return(house: House, tmp_path) -> House:
    """What a SIGKILL leaves: the rows that were committed, and nothing else."""
    await house.store.close()  # first, as a dead process writes no answer
    await house.intake.stop()
    again = House(tmp_path, house.clock)
    await again.store.open()
    return again


async def test_a_short_verb_answers_once_and_its_id_again_gets_the_same_bytes(house):
    first = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    house.bulletin.set("io", {"relay": 1})  # state_rev moves on; the stored answer does not
    house.clock.now += 60
    again = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    assert first.result is Result.DONE and encode(first) == encode(again)
    assert house.done == ["1"] and house.told == []


@pytest.mark.parametrize("verb, args", [("io.set", RELAY | {"seconds": 4}), ("call.mute", {})])
async def test_an_id_of_another_command_is_refused(house, verb, args):
    await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    answer = await house.intake.submit(house.command(verb, ttl_s=5, **args))
    assert (answer.result, answer.code, answer.sub_code) == (Result.REJECTED, 409, "idReused")


async def test_a_long_verb_is_accepted_and_finished_exactly_once(house):
    house.gate.clear()
    dial = house.command("call.dial", ttl_s=30, to="a")
    assert (await house.intake.submit(dial)).result is Result.ACCEPTED
    assert (await house.intake.submit(dial)).result is Result.ACCEPTED  # while it runs
    assert await house.intake.final("1", 0.001) is None
    house.gate.set()
    final = await house.intake.final("1", 5)
    assert final is not None and final.data == {"callId": "c1"}
    await asyncio.sleep(0)
    assert house.told == [("1", final)] and house.done == ["1"]
    assert await house.intake.submit(dial) == final == await house.intake.final("1", 5)


async def test_the_events_of_a_command_are_kept_before_its_final_answer(house):
    kept: list[tuple[list[str], bool]] = []

    async def keep() -> None:
        kept.append((list(house.done), bool(await house.outbox())))

    house.intake.before_final(keep)
    await house.intake.take(house.command("io.set", ttl_s=5, relay="door", seconds=1), "answers")
    await house.intake.submit(house.command("call.mute", "2"))
    assert kept[0] == (["1"], False), "its answer came before, or it was not done"


async def test_a_store_that_hangs_delays_an_answer_by_its_limit_alone(house, monkeypatch):
    monkeypatch.setattr("appliance.intake.SETTLE_S", 0.05)

    async def keep() -> None:
        await asyncio.Event().wait()

    house.intake.before_final(keep)
    answer = await asyncio.wait_for(house.intake.submit(house.command("call.mute")), 5)
    assert answer.result is Result.DONE


async def test_two_of_the_same_at_once_run_once(house):
    house.gate.clear()
    both = [asyncio.create_task(house.intake.submit(house.command("call.mute"))) for _ in range(2)]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    house.gate.set()
    results = sorted(answer.result.value for answer in await asyncio.gather(*both))
    assert results == ["accepted", "done"] and house.done == ["1"]


async def test_a_sender_that_goes_away_leaves_no_command_without_an_answer(house):
    task = asyncio.create_task(house.intake.submit(house.command("io.set", ttl_s=5, **RELAY)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    final = answer if answer.result.final else await house.intake.final("1", 5)
    assert final is not None and final.result is Result.DONE and house.done == ["1"]


async def test_a_late_command_expires_and_stays_expired(house):
    late = house.command("io.set", ttl_s=5, **RELAY)
    house.clock.now += 5.01
    answer = await house.intake.submit(late)
    assert (answer.result, answer.code, answer.sub_code) == (Result.EXPIRED, 408, "ttlExpired")
    again = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    assert encode(again) == encode(answer) and house.done == []


@pytest.mark.parametrize("age_s, synchronised, result", [
    (6.9, True, Result.DONE), (7.1, True, Result.EXPIRED), (-4.9, True, Result.DONE), (-5.1, True, Result.REJECTED),
])
async def test_a_stalled_link_is_seen_by_the_senders_clock(house, age_s, synchronised, result):
    command = house.command("io.set", ttl_s=5, ts=house.clock.wall() - age_s, **RELAY)
    assert (await house.intake.submit(command)).result is result
    assert house.done == (["1"] if result is Result.DONE else [])


async def test_without_a_clock_a_relay_needs_its_second_step(house):
    house.clock.is_synchronised = False
    first = await house.intake.submit(house.command("io.set", ttl_s=5, ts=1.0, **RELAY))
    assert (first.result, first.code, first.sub_code) == (Result.REJECTED, 401, "challenge") and house.events == []
    nonce = first.data["nonce"]
    other = await house.intake.submit(house.command("io.set", ttl_s=5, nonce=nonce, relay="gate", seconds=1))
    assert other.sub_code == "challenge" and house.events == ["challenge"]  # a nonce is good for its own command
    assert (await house.intake.submit(house.command("io.set", ttl_s=5, nonce=nonce, **RELAY))).sub_code == "challenge"
    fresh = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    answer = await house.intake.submit(house.command("io.set", ttl_s=5, nonce=fresh.data["nonce"], **RELAY))
    assert answer.result is Result.DONE and house.done == ["1"]


async def test_a_challenge_runs_out_and_a_button_needs_none(house):
    house.clock.is_synchronised = False
    first = await house.intake.submit(house.command("io.set", ttl_s=5, **RELAY))
    house.clock.now += 5.1
    late = await house.intake.submit(house.command("io.set", ttl_s=5, nonce=first.data["nonce"], **RELAY))
    assert late.sub_code == "challenge" and house.done == []
    pressed = await house.intake.submit(house.command("io.set", "2", origin=Origin.PANEL, ttl_s=5, **RELAY))
    assert pressed.result is Result.DONE


async def test_a_flood_is_refused_for_its_sender_alone(house):
    answers = [await house.intake.submit(house.command("io.set", str(n), ttl_s=5, **RELAY)) for n in range(25)]
    assert [answer.sub_code for answer in answers] == [""] * 20 + ["busy"] * 5
    other = await house.intake.submit(house.command("io.set", "x", sender="other", ttl_s=5, **RELAY))
    assert other.result is Result.DONE
    house.clock.now += 0.1
    assert (await house.intake.submit(house.command("io.set", "24", ttl_s=5, **RELAY))).result is Result.DONE


async def test_in_a_flood_what_only_stops_something_is_done_up_to_a_bound_of_its_own(house):
    for n in range(25):
        flood = await house.intake.submit(house.command("io.set", str(n), ttl_s=5, **RELAY))
    assert (flood.code, flood.sub_code) == (429, "busy")
    answers = [await house.intake.submit(house.command("call.mute", f"m{n}")) for n in range(59)]
    answers.append(await house.intake.submit(house.command("io.set", "open", ttl_s=5, relay="door", seconds=0)))
    assert {answer.result for answer in answers} == {Result.DONE}
    over = await house.intake.submit(house.command("call.mute", "over"))
    assert (over.code, over.sub_code) == (429, "busy")
    house.clock.now += 0.1
    assert (await house.intake.submit(house.command("call.mute", "over"))).result is Result.DONE


def test_what_only_stops_something_needs_no_time_to_live():
    stops = {verb.name for verb in VERBS if verb.stops}
    assert stops == {
        "call.reject", "call.hangup", "room.leave", "call.lowerHand", "call.mute", "call.muteOthers",
        "call.muteIncoming", "video.stop", "content.stop", "record.stop", "audio.listen",
        "preview.stop", "update.cancel"}
    assert not any(VERB[name].acts for name in stops)


@pytest.mark.parametrize("verb, args, result, key", [
    ("call.hold", {}, Result.REJECTED, (409, "noCall")),
    ("devices.volume", {"percent": 5}, Result.FAILED, (410, "deviceFault.media")),
    ("data.send", {"payload": "x"}, Result.FAILED, (500, "internal")),
    ("book.list", {}, Result.FAILED, (500, "internal")),
    ("dnd.set", {"on": True}, Result.REJECTED, (501, "FeatureNotSupported")),
])
async def test_what_a_handler_raises_becomes_the_answer(house, caplog, verb, args, result, key):
    answer = await house.intake.submit(house.command(verb, ttl_s=5, **args))
    assert (answer.result, (answer.code, answer.sub_code)) == (result, key)
    assert "secret" not in answer.message
    assert ("defect" in caplog.text) == (key[0] == 500)


async def test_each_answer_is_logged_with_fields_and_without_arguments(house, caplog):
    with caplog.at_level(logging.INFO, "appliance.intake"):
        await house.intake.submit(house.command("io.set", ttl_s=5, relay="hidden", seconds=1))
    (record,) = [record for record in caplog.records if getattr(record, "operation", "") == "clientOperation"]
    assert (record.verb, record.result, record.sender) == ("io.set", "done", "fleet") and record.duration_ms >= 0
    assert "hidden" not in json.dumps(record.__dict__, default=str)


async def test_answers_for_the_outbox_are_committed_with_the_journal(house):
    assert await house.intake.take(house.command("call.dial", ttl_s=30, to="a"), "ack/call.dial") is None
    await house.intake.final("1", 5)
    assert await house.intake.take(house.command("call.dial", ttl_s=30, to="a"), "ack/call.dial") is None
    answers = [decode(payload) for _, payload in await house.outbox()]
    assert [answer.result.value for answer in answers] == ["accepted", "done", "done"]
    assert encode(answers[1]) == encode(answers[2]) and house.told == []


async def _has(house: House, messages: int) -> bool:
    return len(await house.outbox()) >= messages


@pytest.mark.parametrize("verb, args", [("call.dial", {"to": "a"}), ("call.mute", {})])
async def test_a_command_that_runs_for_another_door_is_finished_on_this_one_too(house, verb, args):
    house.gate.clear()
    by_http = asyncio.create_task(house.intake.submit(house.command(verb, ttl_s=30, origin=Origin.HTTP, **args)))
    await until(lambda: house.waiting)
    for _ in range(2):
        assert await house.intake.take(house.command(verb, ttl_s=30, **args), "ack/x") is None
    house.gate.set()
    first = await by_http
    final = first if first.result.final else await house.intake.final("1", 5)
    await until_true(lambda: _has(house, 3), "the answer on the other door")
    await house.intake.stop()
    told = [(topic, json.loads(payload)["result"]) for topic, payload in await house.outbox()]
    assert told == [("ack/x", "accepted"), ("ack/x", "accepted"), ("ack/x", "done")]
    assert (await house.outbox())[-1][1] == encode(final)
    assert house.done == ["1"]


async def test_a_flood_over_mqtt_does_not_reach_the_flash(house):
    answers = [await house.intake.take(house.command("io.set", str(n), ttl_s=5, **RELAY), "ack/io.set")
               for n in range(22)]
    assert [answer and answer.sub_code for answer in answers] == [None] * 20 + ["busy"] * 2


async def test_after_a_crash_what_ran_is_interrupted_or_run_again(house, tmp_path):
    house.gate.clear()
    await house.intake.take(house.command("call.dial", "dial", ttl_s=30, to="a"), "ack/call.dial")
    await house.intake.take(house.command("call.mute", "mute"), "ack/call.mute")
    await asyncio.wait_for(house.both_wait.wait(), 5)
    again = await crash_and_return(house, tmp_path)
    await again.intake.recover()
    assert (await again.intake.final("mute", 5)).result is Result.DONE and again.done == ["mute"]
    dial = await again.intake.final("dial", 5)
    assert (dial.result, dial.sub_code) == (Result.FAILED, "interrupted")
    finals = [decode(payload).id for topic, payload in await again.outbox() if b"accepted" not in payload]
    assert sorted(finals) == ["dial", "mute"]
    await again.store.close()


async def test_after_a_crash_what_was_not_begun_has_expired(house, tmp_path, monkeypatch):
    async def killed(command_id: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(house.store, "start", killed)
    await house.intake.take(house.command("io.set", ttl_s=5, **RELAY), "ack/io.set")
    again = await crash_and_return(house, tmp_path)
    await again.intake.recover()
    answer = await again.intake.final("1", 5)
    assert (answer.result, answer.sub_code) == (Result.EXPIRED, "ttlExpired") and again.done == []
    assert encode(await again.intake.submit(again.command("io.set", ttl_s=5, **RELAY))) == encode(answer)
    await again.store.close()


async def test_stop_gives_what_runs_its_final_answer(house):
    house.gate.clear()
    await house.intake.submit(house.command("call.dial", ttl_s=30, to="a"))
    await house.intake.stop()
    answer = await house.intake.final("1", 1)
    assert (answer.result, answer.sub_code) == (Result.FAILED, "shutdown")
    assert (await house.intake.submit(house.command("call.mute", "2"))).sub_code == "shutdown"


async def test_a_button_works_without_a_store_and_mqtt_is_told(house):
    await house.store.close()
    local = house.command("io.set", origin=Origin.PANEL, ttl_s=5, **RELAY)
    assert (await house.intake.submit(local)).result is Result.DONE and house.done == ["1"]
    remote = await house.intake.submit(house.command("io.set", "2", ttl_s=5, **RELAY))
    assert (remote.result, remote.sub_code) == (Result.FAILED, "store") and house.done == ["1"]
    late = house.command("io.set", "3", origin=Origin.HTTP, ttl_s=5, **RELAY)
    house.clock.now += 6
    assert (await house.intake.submit(late)).result is Result.EXPIRED


@asynccontextmanager
async def hanging(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The data folder does not answer; at the end it does again."""
    release = threading.Event()
    monkeypatch.setattr(intake_module, "RETRY_S", 0.01)
    try:
        with monkeypatch.context() as short:
            short.setattr(service_module, "WAIT_S", 0.05)
            with pytest.raises(StoreError):
                await store._ask(release.wait)
            yield
    finally:
        release.set()


async def until(true) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - the store's thread tells the loop, nothing to await
            await asyncio.sleep(0.005)


async def test_a_final_answer_waits_for_a_store_that_hangs_and_its_id_gets_it_meanwhile(house, tmp_path, monkeypatch):
    house.gate.clear()
    dial = house.command("call.dial", ttl_s=30, to="a")
    assert await house.intake.take(dial, "ans/1") is None
    await until(lambda: "1" in house.waiting)
    async with hanging(house.store, monkeypatch):
        running = await house.intake.take(dial, "ans/1")
        assert running.result is Result.ACCEPTED, "it runs: that the card hangs is no reason to call it failed"
        assert (await house.intake.take(dial, "ans/2")).result is Result.ACCEPTED
        house.gate.set()
        final = await house.intake.final("1", 20)
        assert (final.result, final.data) == (Result.DONE, {"callId": "c1"})
        assert await house.intake.take(dial, "ans/1") == final
        another = await house.intake.take(house.command("call.dial", ttl_s=30, to="b"), "ans/1")
        assert another.sub_code == "idReused"
    await until(lambda: not house.intake._running)
    topics = [(topic, decode(payload)) for topic, payload in await house.outbox()]
    assert [answer for topic, answer in topics if topic == "ans/1"][1:] == [final]
    assert [answer for topic, answer in topics if topic == "ans/2"] == [final]
    assert (await house.store.command("1")).state is JournalState.FINAL
    again = await crash_and_return(house, tmp_path)
    await again.intake.recover()
    assert await again.intake.submit(dial) == final and again.done == []
    await again.intake.stop()
    await again.store.close()


async def test_what_a_crash_left_behind_is_answered_when_the_store_answers_again(house, tmp_path, monkeypatch):
    house.gate.clear()
    await house.intake.take(house.command("call.dial", ttl_s=30, to="a"), "ans/1")
    await until(lambda: "1" in house.waiting)
    again = await crash_and_return(house, tmp_path)
    async with hanging(again.store, monkeypatch):
        await again.intake.recover()
    await until(lambda: again.intake._recovered)
    _, final = [decode(payload) for _, payload in await again.outbox()]
    assert (final.result, final.sub_code) == (Result.FAILED, "interrupted")
    await again.intake.stop()
    await again.store.close()


async def test_a_stop_does_not_wait_for_a_store_that_hangs(house, monkeypatch):
    house.gate.clear()
    await house.intake.submit(house.command("call.dial", ttl_s=30, to="a"))
    async with hanging(house.store, monkeypatch):
        house.gate.set()
        assert (await house.intake.final("1", 20)).result is Result.DONE
        async with asyncio.timeout(20):
            await house.intake.stop()
        assert house.intake._running == {}


async def test_what_waits_for_a_store_that_hangs_is_bounded(house, monkeypatch):
    monkeypatch.setattr(intake_module, "UNSTORED", 2)
    house.gate.clear()
    await house.intake.submit(house.command("call.dial", ttl_s=30, to="a"))
    async with hanging(house.store, monkeypatch):
        house.gate.set()
        await house.intake.final("1", 20)
        for number in range(2, 8):
            local = house.command("io.set", str(number), origin=Origin.PANEL, ttl_s=5, **RELAY)
            assert (await house.intake.submit(local)).result is Result.DONE
        await until(lambda: len(house.intake._running) <= 2)
        assert "1" in house.intake._running, "what was journalled is kept before what never was"
    await until(lambda: not house.intake._running)
    assert (await house.store.command("1")).state is JournalState.FINAL
