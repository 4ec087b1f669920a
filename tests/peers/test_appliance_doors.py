"""Every door of the running appliance gives the same answer, and none of them is brought down by rubbish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from appliance.faces.commandline import option
from appliance.vocabulary import ROOT, VERB, VERBS, Scope
from tests.support.appliance import Appliance, Counts, Json, envelope
from tests.support.broker import Broker, Client, User
from tests.support.pair import connect, online

pytestmark = [pytest.mark.peer, pytest.mark.asyncio(loop_scope="module")]

CLOCK_IS_SET = ("-m", "tests.support.clock_is_set")
VIDEO = {"video.width": 640, "video.height": 360, "video.fps": 15, "board.screen": "640x360"}
Ask = Callable[[str, Json], Awaitable[Json]]


@dataclass
class Doors:
    """The door of the house, and the lobby that proves that calls still work."""

    broker: Broker
    door: Appliance
    lobby: Appliance
    boss: Client
    token: str
    web: aiohttp.ClientSession

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def http(self, verb: str, body: Json) -> Json:
        async with self.web.post(f"{self.door.url}/v1/cmd/{verb}?wait=10", json=body, headers=self.bearer) as reply:
            return dict(await reply.json())

    async def socket(self, verb: str, body: Json) -> Json:
        return await self.door.post(verb, body)

    async def mqtt(self, verb: str, body: Json) -> Json:
        """As ``publish`` of the appliance, but what was answered before does not count."""
        before = len(self.boss.seen)
        expiry = math.ceil(body["ttl_s"]) if body.get("ttl_s") else None
        await self.boss.publish(f"{ROOT}/door-1/cmd/{verb}", json.dumps(body), expiry_s=expiry)
        found = await self.boss.until(lambda m: m in self.boss.seen[before:] and m.topic.endswith(f"/ack/{verb}") and (
            answer := json.loads(m.payload))["id"] == body["id"] and answer["result"] != "accepted", 20)
        return dict(json.loads(found.payload))

    async def cli(self, verb: str, body: Json) -> Json:
        """The command line as a person types it."""
        given = [arg for arg in VERB[verb].args if arg.name in body["args"]]
        words = [str(body["args"][arg.name]) for arg in given if arg.positional]
        words += [word for arg in given if not arg.positional for word in (option(arg), str(body["args"][arg.name]))]
        code, out, err = await self.run(verb, *words, "--id", body["id"])
        assert out, (code, err)
        return dict(json.loads(out))

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "appliance.doors.cli", "--data", str(self.door.data), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2])
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    @property
    def all(self) -> dict[str, Ask]:
        return {"http": self.http, "socket": self.socket, "mqtt": self.mqtt, "cli": self.cli}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Doors]:
    folder = tmp_path_factory.mktemp("doors")
    broker = Broker(folder / "broker", users=[User("boss", Scope.ADMIN)], devices=["door-1", "lobby-2", "spare-3"])
    await broker.start()
    secret = secrets.token_urlsafe(24)
    (folder / "token").write_text(secret)
    (folder / "token").chmod(0o600)
    tokens = f'[[http.tokens]]\nname = "desk"\nscope = "admin"\ntoken_file = "{folder / "token"}"\n'
    known = '[[book]]\nname = "{}"\nuris = ["device:{}"]\n'
    async with AsyncExitStack() as stack:
        stack.push_async_callback(broker.stop)
        door = Appliance(folder / "door", broker=broker, program=CLOCK_IS_SET, settings=VIDEO,
                         tables=tokens + known.format("Lobby", "lobby-2") + known.format("Spare", "spare-3"))
        lobby = Appliance(folder / "lobby", device="lobby-2", broker=broker, settings=VIDEO,
                          tables=known.format("Door", "door-1"))
        await asyncio.gather(*(stack.enter_async_context(one) for one in (door, lobby)))
        await asyncio.gather(*map(online, (door, lobby)))
        boss = await stack.enter_async_context(door.commander())
        web = await stack.enter_async_context(aiohttp.ClientSession())
        yield Doors(broker, door, lobby, boss, secret, web)


@pytest_asyncio.fixture(loop_scope="module")
async def doors(shared: Doors) -> AsyncIterator[Doors]:
    yield shared
    assert shared.door.process.returncode is None, shared.door.log()
    assert "Traceback" not in (shared.door.folder / "log").read_text()


def same(answers: dict[str, Json]) -> Json:
    """What all doors answered, without what belongs to one command."""
    stripped = {door: {k: v for k, v in answer.items() if k not in ("id", "state_rev")}
                for door, answer in answers.items()}
    first = next(iter(stripped.values()))
    assert all(answer == first for answer in stripped.values()), stripped
    return first


@pytest.mark.parametrize("verb, args, result, key", [
    ("devices.volume", {"percent": 57}, "done", "0/"),
    ("call.hangup", {}, "rejected", "409/noCall"),
    ("call.answer", {}, "rejected", "409/noCall"),
    ("book.remove", {"name": "Nobody"}, "rejected", "404/notFound"),
    ("io.set", {"relay": "moon", "seconds": 1}, "rejected", None),
    ("call.dial", {"to": "sip:desk@example.org"}, "rejected", "501/FeatureNotSupported"),
    ("book.list", {}, "done", "0/"),
    ("audio.filters", {"ns": "low", "halfDuplex": "auto"}, "done", "0/"),
    ("audio.listen", {}, "done", "0/"),
])
async def test_every_door_gives_the_same_answer(
        doors: Doors, verb: str, args: Json, result: str, key: str | None) -> None:
    answers = {name: await ask(verb, envelope(verb, args)) for name, ask in doors.all.items()}
    answer = same(answers)
    assert answer["result"] == result, answer
    assert key is None or f"{answer['code']}/{answer['subCode']}" == key


@pytest.mark.parametrize("verb, change, key, words", [
    ("devices.volume", {"args": {"percnt": 5}}, "400/unknownArg", "Did you mean 'percent'?"),
    ("devices.volume", {"args": {}}, "400/missingArg", "percent"),
    ("devices.volume", {"args": {"percent": 101}}, "400/badArg", "at most 100"),
    ("devices.volume", {"args": {"percent": "5"}}, "400/badArg", "an integer"),
    ("devices.volume", {"arg": {}}, "400/unknownField", "Did you mean 'args'?"),
    ("io.set", {"ttl_s": None}, "400/noExpiry", "ttl_s"),
    ("io.set", {"ttl_s": 3600}, "400/ttlTooLong", "at most 5 s"),
    ("io.set", {"ts": -20.0}, "408/ttlExpired", ""),
])
async def test_every_door_refuses_the_same(doors: Doors, verb: str, change: Json, key: str, words: str) -> None:
    args = {"percent": 50} if verb == "devices.volume" else {"relay": "door", "seconds": 1}
    since = len(doors.door.events)
    answers = {}
    for name in ("http", "socket", "mqtt"):
        body = {**envelope(verb, args), **change}
        if "ts" in change:
            body["ts"] = time.time() + change["ts"]
        if change == {"ttl_s": 3600} and name == "mqtt":
            body = {**body, "ttl_s": 3600}
        answers[name] = await doors.all[name](verb, {k: v for k, v in body.items() if v is not None})
    answer = same(answers)
    assert f"{answer['code']}/{answer['subCode']}" == key and words in answer["message"], answer
    assert answer["result"] == ("expired" if key.endswith("ttlExpired") else "rejected")
    assert not relays(doors, since)


def relays(doors: Doors, since: int) -> list[Json]:
    return [event["data"] for event in doors.door.events[since:] if event["type"] == "edgecall.io.relay"]


async def pulsed_once(doors: Doors, since: int) -> None:
    """The relay has closed once, and is open again."""
    await doors.door.until(lambda: relays(doors, since), "the relay closes")
    await doors.door.wait_for_state("io", lambda io: not io["relays"]["door"]["closed"])
    await doors.door.until(lambda: len(relays(doors, since)) > 1, "and its opening is told")
    assert [event["closed"] for event in relays(doors, since)] == [True, False]


async def test_a_verb_that_is_none_is_named_with_what_was_meant(doors: Doors) -> None:
    for name in ("http", "socket"):
        answer = await doors.all[name]("devices.volumes", {"id": f"wrong-{name}", "args": {}})
        assert (answer["code"], answer["subCode"], answer["id"]) == (400, "unknownVerb", f"wrong-{name}")
        assert "Did you mean 'devices.volume'?" in answer["message"]
    code, _, err = await doors.run("devices.volumes", "5")
    assert code != 0 and "devices.volume" in err


async def test_the_same_id_acts_once_whichever_door_it_comes_through(doors: Doors) -> None:
    since = len(doors.door.events)
    body = envelope("io.set", {"relay": "door", "seconds": 0.2})
    first = await doors.http("io.set", body)
    assert first["result"] == "done", first
    again = [await doors.all[name]("io.set", body) for name in ("http", "socket", "mqtt", "cli", "mqtt")]
    assert again == [first] * 5
    await pulsed_once(doors, since)
    for name in ("http", "socket", "mqtt"):
        other = await doors.all[name]("io.set", {**body, "args": {"relay": "door", "seconds": 0.3}})
        assert (other["result"], other["code"], other["subCode"]) == ("rejected", 409, "idReused")
    assert [event["closed"] for event in relays(doors, since)] == [True, False]


async def test_the_same_id_on_all_doors_at_once_acts_once(doors: Doors) -> None:
    since = len(doors.door.events)
    body = envelope("io.set", {"relay": "door", "seconds": 0.2})
    answers = await asyncio.gather(*(ask("io.set", body) for ask in doors.all.values()))
    assert {answer["result"] for answer in answers} <= {"accepted", "done"}, "accepted while it runs"
    await pulsed_once(doors, since)
    again = [await ask("io.set", body) for ask in doors.all.values()]
    assert again == [again[0]] * 4 and again[0]["result"] == "done"
    assert all(answer == again[0] for answer in answers if answer["result"] == "done")
    assert answers.count(again[0]), "who began it has its end"


async def test_a_long_command_is_accepted_first_and_has_one_final_answer(doors: Doors) -> None:
    body = envelope("call.dial", {"to": "device:nobody-9"})
    async with doors.web.post(f"{doors.door.url}/v1/cmd/call.dial", json=body, headers=doors.bearer) as reply:
        assert (reply.status, (await reply.json())["result"]) == (202, "accepted")
    by_mqtt = await doors.mqtt("call.dial", body)  # the same id, while it runs
    by_http = await doors.http("call.dial", body)  # and after it
    assert by_mqtt == by_http
    assert (by_mqtt["result"], f"{by_mqtt['code']}/{by_mqtt['subCode']}") == ("failed", "480/unreachable")
    assert len([e for e in doors.door.events if e["type"] == "edgecall.call.ended"]) == 1


async def test_what_was_sent_while_it_was_off_is_answered_when_it_is_back(doors: Doors) -> None:
    await doors.door.stop()
    waits = envelope("devices.volume", {"percent": 61})
    late = envelope("call.dial", {"to": "Lobby"}, ttl_s=1)
    await doors.boss.publish(f"{ROOT}/door-1/cmd/devices.volume", json.dumps(waits))
    await doors.boss.publish(f"{ROOT}/door-1/cmd/call.dial", json.dumps(late), expiry_s=30)
    await asyncio.sleep(3.1)  # over its time to live and what clocks may differ
    since = len(doors.door.events)
    await doors.door.start()
    for body, result in ((waits, "done"), (late, "expired")):
        answer = await doors.boss.until(lambda m, body=body: "/ack/" in m.topic
                                        and json.loads(m.payload)["id"] == body["id"], 20)
        assert json.loads(answer.payload)["result"] == result, answer
    assert doors.door.state("devices")["volume"] == 61
    assert not [event for event in doors.door.events[since:] if event["type"].startswith("edgecall.call")]


async def test_what_lay_on_the_shelf_of_the_broker_is_refused(doors: Doors) -> None:
    body = envelope("devices.volume", {"percent": 3})
    topic = f"{ROOT}/door-1/cmd/devices.volume"
    await doors.door.stop()
    await doors.boss.publish(topic, json.dumps(body), retain=True)
    since = len(doors.boss.seen)
    await doors.door.start()
    await online(doors.door)
    found = await doors.boss.until(lambda m: m in doors.boss.seen[since:] and b"retained" in m.payload
                                   and m.topic.endswith("/ack/devices.volume"))
    await doors.boss.publish(topic, b"", retain=True)
    assert json.loads(found.payload)["result"] == "rejected"
    assert doors.door.state("devices")["volume"] != 3


async def test_a_wrong_token_is_refused_and_braked_and_the_right_one_is_not(doors: Doors) -> None:
    async def wrong() -> int:
        async with doors.web.get(f"{doors.door.url}/v1/state", headers={"Authorization": "Bearer wrong"}) as reply:
            assert "documents" not in await reply.text()
            return reply.status

    since = len(doors.door.events)
    statuses = [await wrong() for _ in range(20)]
    assert statuses[0] == 401 and statuses[-1] == 429, statuses
    await doors.door.event("security.refused", since=since, why="token", origin="http")
    assert (await doors.http("book.list", envelope("book.list", {})))["result"] == "done"
    async with doors.web.get(f"{doors.door.url}/v1/state") as reply:
        assert reply.status == 401


# --- rubbish --------------------------------------------------------------------------------------------------------


def examples(strategy: st.SearchStrategy[Any], count: int = 60) -> list[Any]:
    """The same ones at each run."""
    found: list[Any] = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
    st.text(max_size=10), inner, max_size=4), max_leaves=12)
NAMES = st.sampled_from([verb.name for verb in VERBS if verb.name not in ("sim.fault", "sim.source")])
ARGUMENT = st.sampled_from(sorted({arg.name for verb in VERBS for arg in verb.args})) | st.text(max_size=8)
ARGUMENTS = st.dictionaries(ARGUMENT, VALUES, max_size=3)
ENVELOPES = st.fixed_dictionaries({}, optional={
    "id": st.text(max_size=70) | SCALARS, "ts": VALUES, "ttl_s": VALUES, "args": ARGUMENTS | VALUES, "nonce": VALUES})
DEEP = st.sampled_from([b"[" * 30_000, b'{"id":' * 10_000, b'{"id":"x","id":"y"}', b'{"id":"x","ts":1e999}',
                        b'{"id":"' + b"9" * 70_000 + b'"}', b"\xff\xfe\x00", b'{"id":"\\ud800"}', b"1" * 5000])
BODIES = st.binary(max_size=200) | DEEP | ENVELOPES.map(lambda body: json.dumps(body).encode()) | VALUES.map(
    lambda value: json.dumps(value).encode())
SIGNALS = st.fixed_dictionaries(
    {"v": st.just(1) | VALUES, "nonce": st.uuids().map(lambda one: one.hex) | VALUES,
     "type": st.sampled_from(["hello", "duty", "invite", "accept", "answer", "candidate", "reject", "bye", "update",
                              "lost", "resume", "reoffer", "settle", "leaving", "picture", "cancel"]) | VALUES},
    optional={"callId": st.text(max_size=70) | st.just("call-rubbish"), "sdp": VALUES, "ts": VALUES, "reason": VALUES,
              "caller": VALUES, "generation": VALUES, "candidate": VALUES, "on": VALUES, "jpeg": VALUES})


@contextlib.asynccontextmanager
async def unharmed(doors: Doors) -> AsyncIterator[None]:
    """The daemon lives, is well, has nothing left of it, and still takes calls."""
    before = await settled(doors)
    yield
    assert doors.door.process.returncode is None, doors.door.log()
    async with doors.door.http.get("http://edgecall/v1/health") as reply:
        health = await reply.json()
        assert reply.status == 200 and health["status"] != "failed", health
    log = (doors.door.folder / "log").read_text()
    assert "Traceback" not in log and "defect" not in log, doors.door.log()
    after = await settled(doors)
    assert after.fds <= before.fds + 3 and after.threads <= before.threads + 1, (before, after)
    assert after.own_kib - before.own_kib < 6 * 1024, (before, after)
    await connect(doors.door, doors.lobby, "Lobby")
    await doors.door.give("call.hangup")
    await asyncio.gather(doors.door.ended("0/local"), doors.lobby.ended("0/remote"))


async def settled(doors: Doors) -> Counts:
    """Its counts once they stand still: connections that were closed are let go a moment later."""
    async with asyncio.timeout(20):
        counts = await doors.door.counts()
        while True:
            await asyncio.sleep(0.3)
            now = await doors.door.counts()
            if (now.fds, now.tasks) == (counts.fds, counts.tasks):
                return now
            counts = now


async def test_rubbish_by_http(doors: Doors) -> None:
    async with unharmed(doors):
        for verb, body in examples(st.tuples(NAMES | st.text(max_size=30), BODIES)):
            for headers in (doors.bearer, {}):
                path = "".join(c for c in verb if c.isalnum() or c == ".")
                async with doors.web.post(f"{doors.door.url}/v1/cmd/{path}", data=body, headers=headers) as reply:
                    assert reply.status < 500, (verb, body, await reply.text())
        paths = st.tuples(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"]),
                          st.text(max_size=60), st.dictionaries(st.sampled_from(["wait", "token", "next", "page"]),
                                                                st.text(max_size=20), max_size=2))
        for method, path, query in examples(paths):
            with contextlib.suppress(aiohttp.ClientConnectionError, ValueError):
                async with doors.web.request(method, f"{doors.door.url}/{path.lstrip('/')}", params=query,
                                             headers=doors.bearer, allow_redirects=False) as reply:
                    assert reply.status < 500, (method, path, query)
        port = int(doors.door.url.rpartition(":")[2])
        for raw in examples(st.binary(min_size=1, max_size=300) | st.sampled_from([
                b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", b"GET /v1/state HTTP/9.9\r\n\r\n",
                b"POST /v1/cmd/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"POST /v1/cmd/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"])):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            with contextlib.suppress(OSError):
                writer.write_eof()
                async with asyncio.timeout(5):
                    await reader.read()
            writer.close()


async def test_rubbish_by_the_signalling_socket(doors: Doors) -> None:
    def message(kind: str, **fields: object) -> str:
        return json.dumps({"v": 1, "type": kind, "nonce": secrets.token_urlsafe(16), "ts": time.time(), **fields})

    async with unharmed(doors), AsyncExitStack() as stack:
        socket: aiohttp.ClientWebSocketResponse | None = None
        cut = 0
        texts = st.text(max_size=200) | SIGNALS.map(json.dumps) | VALUES.map(json.dumps) | st.binary(max_size=60)
        for number, text in enumerate(examples(texts, 120)):
            if socket is None or socket.closed:
                cut += 1
                socket = await stack.enter_async_context(doors.web.ws_connect(
                    f"{doors.door.url}/v1/peer?page=p{cut}", headers=doors.bearer))
                if number % 2:  # otherwise rubbish is the first thing it says
                    await socket.send_str(message("hello", client="page"))
            with contextlib.suppress(ConnectionError):
                await (socket.send_bytes(text) if isinstance(text, bytes) else socket.send_str(text))
            with contextlib.suppress(TimeoutError):
                await socket.receive(timeout=0.02)
        assert 1 < cut < 120


async def test_rubbish_by_mqtt(doors: Doors) -> None:
    async with unharmed(doors), Client(doors.broker.port, "spare-3") as spare:
        for verb, body, expiry, correlation in examples(st.tuples(
                NAMES, BODIES, st.none() | st.integers(0, 10), st.none() | st.binary(max_size=20))):
            await doors.boss.publish(f"{ROOT}/door-1/cmd/{verb}", body, expiry_s=expiry, correlation=correlation)
        signals = st.binary(max_size=200) | SIGNALS.map(json.dumps) | DEEP
        for number, text in enumerate(examples(signals, 120)):
            await spare.publish(f"{ROOT}/door-1/signal/spare-3", text, expiry_s=5 if number % 5 else None)
        answer = await doors.mqtt("devices.volume", envelope("devices.volume", {"percent": 44}))
        assert answer["result"] == "done", answer


async def hang_up(doors: Doors) -> None:
    await doors.door.give("call.hangup")
    await asyncio.gather(doors.door.ended("0/local"), doors.lobby.ended("0/remote"))


async def rubbish_in_a_call(doors: Doors, count: int) -> None:
    call_id = await connect(doors.door, doors.lobby, "Lobby")
    since, expected = len(doors.door.events), []
    for number, (payload, channel) in enumerate(examples(
            st.tuples(st.text(max_size=400), st.text(max_size=64) | st.just("edgecall")), count)):
        answer = await doors.lobby.give("data.send", payload=payload, channel=channel)
        if answer["result"] == "done":
            expected.append(payload)
        else:
            assert answer["code"] in (400, 409, 429), answer
        if number % 15 == 14:
            await asyncio.sleep(1.5)  # the rate of commands, not of the channel
    assert len(expected) > count / 3

    def received() -> list[str]:
        return [event["data"]["payload"] for event in doors.door.events[since:]
                if event["type"] == "edgecall.data.received" and event["data"]["callId"] == call_id]

    await doors.door.until(lambda: len(received()) >= len(expected), "the data messages")
    assert sorted(received()) == sorted(expected)
    await hang_up(doors)


async def test_rubbish_by_the_data_channel_of_a_call(doors: Doors) -> None:
    await rubbish_in_a_call(doors, 10)  # what a first call and its rubbish load is not left by it
    async with unharmed(doors):
        await rubbish_in_a_call(doors, 60)
