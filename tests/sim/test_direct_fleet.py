"""Appliances that call each other over a broker in memory, in virtual time, with scripted media."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from appliance.errors import Refused
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.vocabulary import END_REASONS
from tests.support.clock import virtual_time
from tests.support.direct_parts import Device, MemoryBroker, ScriptedSession

INVITE = wire.Invite("call-0009", wire.Party("mallory", "Mallory"), wire.Sends(True, True), "device:bravo")


@asynccontextmanager
async def fleet(*names: str) -> AsyncIterator[tuple[MemoryBroker, list[Device]]]:
    broker = MemoryBroker()
    world: dict[str, ScriptedSession] = {}
    devices = [await Device(name, broker, world).start() for name in names or ("alpha", "bravo")]
    try:
        yield broker, devices
    finally:
        for device in devices:
            await device.stop()
            assert device.studio.open == [], "a session was left open"
            assert device.provider.legs == {}


async def connected(alpha: Device, bravo: Device) -> tuple[api.Leg, api.Leg]:
    told = await alpha.dial("device:bravo")
    await asyncio.sleep(0.2)
    assert told.kinds == ["Ringing", "Accepted", "Connected"]
    return told.leg, bravo.incoming[-1].leg


@virtual_time
async def test_a_device_calls_another_and_both_are_connected() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        leg, other = await connected(alpha, bravo)
        assert bravo.incoming[0].call_id == "call-0001"
        assert other.peer == api.Peer("alpha", "device:alpha", "alpha", "device", verified=True)
        assert broker.types("alpha", "bravo") == ["invite", "answer"]
        assert broker.types("bravo", "alpha") == ["ringing", "accept"]
        await leg.send("text", "hello")
        await other.tell(muted=True, held=True, video=False)
        await asyncio.sleep(0.1)
        told = bravo.told["call-0001"]
        assert api.DataReceived("text", "hello", told.leg.id) in told.events
        assert alpha.told["call-0001"].events[-2:] == [api.PeerMedia(True, False), api.Held(True)]
        assert alpha.studio.open[0].peer_says == (False, False)
        await leg.end(END_REASONS["0/local"])
        await asyncio.sleep(0.1)
        assert (alpha.told["call-0001"].ended, bravo.told["call-0001"].ended) == ("0/local", "0/remote")


@virtual_time
async def test_every_message_twice_is_one_call() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        broker.twice = True
        await connected(alpha, bravo)
        assert len(bravo.incoming) == 1
        assert len(alpha.studio.sessions) == len(bravo.studio.sessions) == 1


@pytest.mark.parametrize(
    ("key", "there"),
    [("603/declined", "603/declined"), ("486/busy", "486/busy"), ("480/doNotDisturb", "480/doNotDisturb"),
     ("403/notAllowed", "403/notAllowed")],
)  # fmt: skip
def test_a_refusal_reaches_the_caller_with_its_reason(key: str, there: str) -> None:
    @virtual_time
    async def run() -> None:
        async with fleet() as (_broker, (alpha, bravo)):
            bravo.answers = False
            told = await alpha.dial("device:bravo")
            await asyncio.sleep(0.1)
            await bravo.incoming[0].leg.end(END_REASONS[key])
            await asyncio.sleep(0.1)
            assert (told.ended, bravo.told["call-0001"].ended) == (there, key)

    run()


@virtual_time
async def test_the_caller_gives_up() -> None:
    async with fleet() as (_broker, (alpha, bravo)):
        bravo.answers = False
        told = await alpha.dial("device:bravo")
        await asyncio.sleep(0.1)
        await told.leg.end(END_REASONS["487/noAnswer"])
        await asyncio.sleep(0.1)
        assert (told.ended, bravo.told["call-0001"].ended) == ("487/noAnswer", "487/noAnswer")
        await bravo.incoming[0].leg.accept(api.MediaWanted())
        assert bravo.studio.sessions == []


@virtual_time
async def test_a_device_that_is_not_there_is_unreachable_after_4_s_and_does_not_ring_later() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        broker.cut("bravo")
        began = asyncio.get_running_loop().time()
        told = await alpha.dial("device:bravo")
        assert told.task is not None
        await told.task
        assert told.ended == "480/unreachable"
        assert 4.0 <= asyncio.get_running_loop().time() - began < 4.1
        broker.mend("bravo")
        await asyncio.sleep(1)
        assert all(leg.ended for leg in bravo.told.values()), "it rang for a caller who is gone"
        await asyncio.sleep(10)
        assert bravo.provider.legs == {}


@virtual_time
async def test_without_a_broker_a_device_cannot_be_called_and_that_is_said_at_once() -> None:
    async with fleet() as (broker, (alpha, _bravo)):
        broker.cut("alpha")
        with pytest.raises(Refused) as refused:
            await alpha.dial("device:bravo")
        assert refused.value.key == "480/unreachable"
        broker.mend("alpha")
        for nobody in ("device:alpha", "device:Not an id", "device:x/+/y"):
            with pytest.raises(Refused) as refused:
                await alpha.dial(nobody)
            assert refused.value.key == "404/notFound"


@virtual_time
async def test_both_dial_each_other_and_one_call_lives() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        mine, theirs = await asyncio.gather(
            alpha.dial("device:bravo", "call-of-alpha"), bravo.dial("device:alpha", "call-of-bravo"))
        await asyncio.sleep(0.5)
        assert alpha.incoming == bravo.incoming == [], "no second call is shown"
        assert mine.kinds[-2:] == ["Accepted", "Connected"]
        assert theirs.kinds[-2:] == ["Accepted", "Connected"]
        assert set(alpha.provider.legs) == set(bravo.provider.legs) == {"call-of-alpha"}
        assert len(alpha.studio.open) == len(bravo.studio.open) == 1
        assert broker.types("bravo", "alpha").count("accept") == 1
        await theirs.leg.end(END_REASONS["0/local"])
        await asyncio.sleep(0.1)
        assert (mine.ended, theirs.ended) == ("0/remote", "0/local")


def forged(device: str, signal: wire.Signal, ts: float, nonce: str | None = None) -> tuple[str, bytes]:
    return f"edgecall/v1/bravo/signal/{device}", wire.pack(signal, ts=ts, nonce=nonce).encode()


@virtual_time
async def test_a_stranger_a_retained_one_and_one_without_expiry_do_not_ring() -> None:
    broker = MemoryBroker()
    bravo = await Device("bravo", broker, {}, accept=lambda device: device == "alpha").start()
    now = bravo.clock.wall()
    broker.carry(*forged("mallory", INVITE, now), 5)
    broker.carry(*forged("alpha", INVITE, now), 5, retained=True)
    broker.carry(*forged("alpha", INVITE, now), None)
    broker.carry(*forged("bravo", INVITE, now), 5)
    await asyncio.sleep(0.1)
    assert bravo.incoming == []
    assert [sender for _, sender in bravo.refused] == ["mallory", "alpha", "alpha", "bravo"]
    broker.carry(*forged("alpha", INVITE, now), 5)
    await asyncio.sleep(0.1)
    assert bravo.incoming[0].leg.peer.identity == "alpha", "the sender is who the topic says, not who the message says"
    await bravo.stop()


@virtual_time
async def test_a_late_and_a_replayed_invitation_do_not_ring() -> None:
    broker = MemoryBroker()
    bravo = await Device("bravo", broker, {}).start()
    bravo.answers = False
    now = bravo.clock.wall()
    broker.carry(*forged("alpha", INVITE, now - 14), 5)  # a stalled connection: expiry is left, its time is over
    await asyncio.sleep(0.1)
    assert bravo.incoming == []
    topic, payload = forged("alpha", INVITE, now, "nonce-0123456789")
    broker.carry(topic, payload, 5)
    await asyncio.sleep(0.1)
    assert len(bravo.incoming) == 1
    await bravo.incoming[0].leg.end(END_REASONS["603/declined"])
    broker.carry(topic, payload, 5)
    again = json.loads(payload) | {"nonce": "nonce-9876543210"}
    broker.carry(topic, json.dumps(again).encode(), 5)  # a new nonce, an old call
    await asyncio.sleep(0.1)
    assert len(bravo.incoming) == 1
    await bravo.stop()


@virtual_time
async def test_an_end_that_overtook_its_invitation_keeps_it_from_ringing() -> None:
    broker = MemoryBroker()
    bravo = await Device("bravo", broker, {}).start()
    now = bravo.clock.wall()
    broker.carry(*forged("alpha", wire.Cancel(INVITE.call_id, wire.Cause(487, "cancelled")), now), 5)
    broker.carry(*forged("alpha", INVITE, now), 5)
    await asyncio.sleep(0.1)
    assert bravo.incoming == []
    await bravo.stop()


@virtual_time
async def test_more_than_ten_invitations_in_a_minute_are_refused_and_told() -> None:
    broker = MemoryBroker()
    bravo = await Device("bravo", broker, {}).start()
    bravo.answers = False
    for number in range(12):
        invite = wire.Invite(f"call-{number:04}", wire.Party("alpha", "Alpha"), wire.Sends(True, True))
        broker.carry(*forged("alpha", invite, bravo.clock.wall()), 5)
        await asyncio.sleep(0.1)
        for call in bravo.incoming:
            await call.leg.end(END_REASONS["486/busy"])
    assert len(bravo.incoming) == 10
    assert ("more than 10 calls in a minute", "alpha") in bravo.refused
    await bravo.stop()


@virtual_time
async def test_a_call_id_of_another_peer_is_refused() -> None:
    async with fleet("alpha", "bravo", "charlie") as (_broker, (alpha, bravo, charlie)):
        await connected(alpha, bravo)
        told = await charlie.dial("device:bravo", "call-0001")
        await asyncio.sleep(0.1)
        assert told.ended == "403/notAllowed"
        assert ("a call id that is another's", "charlie") in bravo.refused
        assert len(bravo.incoming) == 1


@virtual_time
async def test_garbage_changes_nothing_and_is_told_once() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        leg, _ = await connected(alpha, bravo)
        for number in range(5):
            garbage = json.dumps({"v": 1, "type": "bye", "x": number}).encode()
            broker.carry("edgecall/v1/bravo/signal/alpha", garbage, 5)
        await asyncio.sleep(0.1)
        assert len(bravo.refused) == 1
        assert not bravo.told["call-0001"].ended
        await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_lost_media_is_rebuilt_under_the_same_call() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        leg, _ = await connected(alpha, bravo)
        await leg.set_media(api.MediaWanted(send_video=False))
        old = (alpha.studio.open[0], bravo.studio.open[0])
        old[0].received = [{"type": "inbound-rtp", "id": "in-audio"}]
        assert await leg.replaced() == []
        for session in old:
            session.silent()
        await asyncio.sleep(0.3)
        assert await leg.replaced() == [[{"type": "transport", "id": old[0].name}, *old[0].received]]
        assert await leg.replaced() == [], "each is told once"
        assert alpha.told["call-0001"].kinds[-2:] == ["Lost", "Recovered"]
        assert bravo.told["call-0001"].kinds[-2:] == ["Lost", "Recovered"]
        assert all(session.closed for session in old)
        assert len(alpha.studio.open) == len(bravo.studio.open) == 1
        assert alpha.studio.open[0].wanted.send_video is False, "what was wanted holds for the new connection"
        assert "reoffer" in broker.types("bravo", "alpha")


@virtual_time
async def test_a_broker_gone_for_20_s_does_not_touch_a_call_with_media() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        leg, _ = await connected(alpha, bravo)
        before = list(alpha.told["call-0001"].kinds)
        broker.cut()
        await asyncio.sleep(20)
        broker.mend()
        await asyncio.sleep(1)
        assert alpha.told["call-0001"].kinds == before
        await leg.end(END_REASONS["0/local"])
        await asyncio.sleep(0.1)
        assert bravo.told["call-0001"].ended == "0/remote"


@virtual_time
async def test_media_and_broker_lost_come_back_when_the_broker_does() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        await connected(alpha, bravo)
        broker.cut()
        alpha.studio.open[0].silent()
        bravo.studio.open[0].silent()
        await asyncio.sleep(30)
        assert alpha.told["call-0001"].kinds[-1] == "Lost"
        assert len(bravo.studio.sessions) == 1, "no attempt is made that cannot be told"
        broker.mend()
        await asyncio.sleep(0.5)
        assert alpha.told["call-0001"].kinds[-1] == bravo.told["call-0001"].kinds[-1] == "Recovered"


@virtual_time
async def test_attempts_go_on_while_media_does_not_connect() -> None:
    async with fleet() as (_broker, (alpha, bravo)):
        await connected(alpha, bravo)
        alpha.studio.connects = False
        alpha.studio.open[0].silent()
        bravo.studio.open[0].silent()
        await asyncio.sleep(30)
        assert 4 <= len(bravo.studio.sessions) <= 12
        assert len(bravo.studio.open) <= 2
        alpha.studio.connects = True
        await asyncio.sleep(8)
        assert alpha.told["call-0001"].kinds[-1] == bravo.told["call-0001"].kinds[-1] == "Recovered"


@virtual_time
async def test_a_hang_up_the_peer_could_not_be_told_is_told_when_it_asks() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        leg, _ = await connected(alpha, bravo)
        broker.cut("alpha")
        began = asyncio.get_running_loop().time()
        await leg.end(END_REASONS["0/local"])
        assert asyncio.get_running_loop().time() - began <= 2.0
        await asyncio.sleep(40)  # longer than the message was worth sending
        broker.mend("alpha")
        bravo.studio.open[0].silent()
        await asyncio.sleep(0.5)
        assert bravo.told["call-0001"].ended == "0/remote"


@virtual_time
async def test_an_offer_that_cannot_be_used_ends_the_call_with_its_reason() -> None:
    async with fleet() as (broker, (alpha, bravo)):
        bravo.answers = False
        told = await alpha.dial("device:bravo")
        await asyncio.sleep(0.1)
        accept = wire.Accept("call-0001", "v=0 offer nocodec", wire.Party("bravo", ""), wire.Sends(True, True))
        broker.carry("edgecall/v1/alpha/signal/bravo", wire.pack(accept, ts=alpha.clock.wall()).encode(), 5)
        await asyncio.sleep(0.1)
        assert told.ended == "488/noCodec"
        assert bravo.told["call-0001"].ended == "488/noCodec"


@virtual_time
async def test_stopping_tells_the_peer_why() -> None:
    async with fleet() as (_broker, (alpha, bravo)):
        await connected(alpha, bravo)
        await alpha.provider.stop()
        await alpha.provider.stop()
        await asyncio.sleep(0.1)
        assert (alpha.told["call-0001"].ended, bravo.told["call-0001"].ended) == ("503/shutdown", "503/shutdown")
