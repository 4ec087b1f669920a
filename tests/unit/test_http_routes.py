"""What the routes answer: commands and their statuses, state, events, peers, the panel stream, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.doors.http import Ports
from appliance.doors.http.events import QUEUE_LIMIT, SAMPLES_BEHIND
from appliance.doors.http.metrics import active_diagnostics
from appliance.doors.http.replies import status_of
from appliance.doors.http.stages import stage_cpu_s
from appliance.handover import PeerChannel
from appliance.vocabulary import VERBS, Answer, Result
from hw.api import DeviceBusyError, DeviceMissingError, HardwareError
from tests.support.event_stream import events
from tests.support.http_door import ADMIN, OPERATOR, Hands, Running, running_door
from tests.support.media_pair import until


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_door(tmp_path) as running:
        yield running


# --- commands -------------------------------------------------------------------------------------------------------


async def _post(at: Running, verb: str, body: Any, query: str = "") -> tuple[int, dict[str, Any]]:
    async with at.http.post(f"{at.base}/v1/cmd/{verb}{query}", headers=at.bearer(ADMIN),
                            data=body if isinstance(body, bytes) else json.dumps(body)) as response:
        return response.status, await response.json()


async def test_a_command_is_handed_in_and_its_answer_handed_out(at: Running) -> None:
    status, body = await _post(at, "dnd.set", {"id": "c-1", "args": {"on": True}})
    assert (status, body) == (200, Answer("c-1", Result.DONE).payload())
    command = at.desk.commands[0]
    assert (command.verb.name, command.args, command.origin, command.sender) == (
        "dnd.set", {"on": True}, "http", "admin")


async def test_a_long_command_is_accepted_and_can_be_waited_for(at: Running) -> None:
    dial = {"id": "c-2", "ttl_s": 10, "args": {"to": "operator:*"}}
    assert (await _post(at, "call.dial", dial))[0] == 202
    waiting = asyncio.create_task(_post(at, "call.dial", dial, "?wait=5"))
    await at.desk.waiting.wait()
    at.desk.finals["c-2"].set_result(Answer("c-2", Result.DONE, data={"callId": "x"}))
    status, body = await waiting
    assert (status, body["data"]) == (200, {"callId": "x"})
    assert (await _post(at, "call.dial", {**dial, "id": "c-3"}, "?wait=0.01"))[0] == 202


@pytest.mark.parametrize(("verb", "body", "status"), [
    ("call.dail", {"id": "c-1"}, 400),
    ("dnd.set", {"id": "c-1", "args": {"no": True}}, 400),
    ("dnd.set", b"{", 400),
    ("dnd.set", b"\xff\xfe", 400),
    ("dnd.set", [], 400),
    ("call.unmute", {"id": "c-1"}, 400),
    ("data.send", b" " * 70_000, 413),
])
async def test_a_wrong_command_is_refused_with_words(at: Running, verb: str, body: Any, status: int) -> None:
    found, answer = await _post(at, verb, body)
    assert (found, answer["result"], answer["code"]) == (status, "rejected", status)
    assert answer["message"]
    assert at.desk.commands == []


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", "999"])
async def test_a_wrong_wait_is_refused_before_anything_happens(at: Running, wait: str) -> None:
    assert (await _post(at, "call.hangup", {"id": "c-1"}, f"?wait={wait}"))[0] == 400
    assert at.desk.commands == []


@pytest.mark.parametrize(("result", "code", "status"), [
    (Result.DONE, 0, 200), (Result.ACCEPTED, 0, 202), (Result.REJECTED, 409, 409), (Result.EXPIRED, 408, 408),
    (Result.FAILED, 603, 409), (Result.FAILED, 487, 409), (Result.FAILED, 496, 409), (Result.FAILED, 500, 500),
    (Result.FAILED, 503, 503), (Result.REJECTED, 429, 429), (Result.FAILED, 599, 502), (Result.FAILED, 410, 503),
])
def test_the_status_follows_the_answer(result: Result, code: int, status: int) -> None:
    assert status_of(Answer("x", result, code)) == status


# --- state and events -----------------------------------------------------------------------------------------------


async def test_state_is_told_whole_and_by_name(at: Running) -> None:
    at.bulletin.set("call", {"state": "None"})
    async with at.http.get(f"{at.base}/v1/state", headers=at.bearer(OPERATOR)) as response:
        assert await response.json() == {"rev": 1, "boot": "boot-1", "documents": {"call": {"state": "None"}}}
    async with at.http.get(f"{at.base}/v1/state/call", headers=at.bearer(OPERATOR)) as response:
        assert await response.json() == {"state": "None"}
    async with at.http.get(f"{at.base}/v1/state/coffee", headers=at.bearer(OPERATOR)) as response:
        assert response.status == 404


async def test_a_wrong_address_or_method_is_told_with_where_to_look(at: Running) -> None:
    async with at.http.get(f"{at.base}/v1/statistics", headers=at.bearer(OPERATOR)) as response:
        answer = await response.json()
        assert (response.status, answer["subCode"]) == (404, "notFound")
        assert "/v1/openapi.json" in answer["message"]
    async with at.http.put(f"{at.base}/v1/state", headers=at.bearer(OPERATOR)) as response:
        answer = await response.json()
        assert (response.status, answer["subCode"]) == (405, "methodNotAllowed")
        assert "Allow" in answer["message"] and "GET" in response.headers["Allow"]


async def _messages(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    async with contextlib.aclosing(events(response)) as stream:
        async for event in stream:
            found.append(event)
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")


async def test_a_stream_begins_with_everything_and_goes_on_in_order(at: Running) -> None:
    at.bulletin.set("call", {"state": "None"})
    at.bulletin.set("io", {})
    async with at.http.get(f"{at.base}/v1/events",
                           headers={**at.bearer(OPERATOR), "Last-Event-ID": "77"}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        hello, *documents = await _messages(response, 3)
        assert (hello[0], hello[1]["boot"], hello[1]["rev"]) == ("hello", "boot-1", 2)
        assert abs(hello[1]["time"] - time.time()) < 5
        assert documents == [
            ("state", {"name": "call", "rev": 2, "document": {"state": "None"}}),
            ("state", {"name": "io", "rev": 2, "document": {}}),
        ]
        at.bulletin.set("call", {"state": "Incoming"})
        at.bulletin.post("call.incoming", callId="k")
        at.bulletin.set("call", {"state": "Connected"})
        first, event, last = await _messages(response, 3)
        assert first[1]["document"] == {"state": "Incoming"}
        assert event[0] == "event"
        assert (event[1]["specversion"], event[1]["type"], event[1]["source"], event[1]["data"]) == (
            "1.0", "edgecall.call.incoming", "edgecall/v1/lobby", {"callId": "k"})
        assert (last[1]["rev"], last[1]["document"]) == (4, {"state": "Connected"})


async def test_a_slow_client_is_cut_and_holds_nobody_up(at: Running) -> None:
    async with at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as response:
        await _messages(response, 1)
        for n in range(QUEUE_LIMIT + 1):  # in one step of the loop: the writer gets no turn
            at.bulletin.post("io.pressed", name=str(n))
        assert (await _messages(response, QUEUE_LIMIT + 1))[-1] == ("cut", {"reason": "slow"})
        assert await response.content.read() == b"\n"
    async with at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as response:
        assert (await _messages(response, 1))[0][0] == "hello"


async def test_streams_are_bounded(at: Running) -> None:
    streams = [await at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) for _ in range(32)]
    async with at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as response:
        assert response.status == 503
    for stream in streams:
        stream.close()


async def test_health_is_for_everybody_and_its_causes_are_not(tmp_path: Path) -> None:
    health = {"status": "failed", "causes": ["disk"]}
    async with running_door(tmp_path, Ports(health=lambda: health)) as at:
        async with at.http.get(f"{at.base}/v1/health") as response:
            assert (response.status, await response.json()) == (503, {"status": "failed"})
        async with at.http.get(f"{at.base}/v1/health", headers=at.bearer(OPERATOR)) as response:
            assert await response.json() == health


async def test_the_snapshot_is_a_picture_or_a_reason(tmp_path: Path) -> None:
    found: list[bytes | HardwareError] = [
        b"\xff\xd8\xff jpeg", DeviceMissingError("camera 0 is unplugged"),
        DeviceBusyError("camera 0 is held by motion")]

    async def snapshot() -> bytes:
        one = found.pop(0)
        if isinstance(one, HardwareError):
            raise one
        return one

    async with running_door(tmp_path, Ports(snapshot=snapshot)) as at:
        url, headers = f"{at.base}/v1/camera/snapshot", at.bearer(OPERATOR)
        async with at.http.get(url, headers=headers) as response:
            assert (response.content_type, await response.read()) == ("image/jpeg", b"\xff\xd8\xff jpeg")
        async with at.http.get(url, headers=headers) as response:
            body = await response.json()
            assert (response.status, body["message"]) == (503, "camera 0 is unplugged")
        async with at.http.get(url, headers=headers) as response:
            body = await response.json()
            assert (response.status, body["message"]) == (503, "camera 0 is held by motion")
            assert f"{body['code']}/{body['subCode']}" == "410/deviceFault.media", "as through every door"


async def test_statistics_and_summaries_have_a_dialect(tmp_path: Path) -> None:
    asked: list[tuple[str | None, str]] = []

    async def report(dialect: str) -> dict[str, Any]:
        return {"stats": []} if dialect == "w3c" else {"acs": {}}

    async def summary(call_id: str | None, dialect: str) -> dict[str, Any]:
        asked.append((call_id, dialect))
        return {"callId": "call-1"}

    async with running_door(tmp_path, Ports(report=report, summary=summary)) as at:
        async def get(path: str) -> tuple[int, Any]:
            async with at.http.get(f"{at.base}/v1/{path}", headers=at.bearer(OPERATOR)) as response:
                return response.status, await response.json()

        assert await get("stats") == (200, {"stats": []})
        assert await get("stats?dialect=acs") == (200, {"acs": {}})
        status, refusal = await get("stats?dialect=x")
        assert (status, refusal["subCode"]) == (400, "dialect")
        assert "w3c, acs" in refusal["message"]
        assert await get("calls/last/summary") == (200, {"callId": "call-1"})
        await get("calls/call-1/summary?dialect=acs")
        assert asked == [(None, "w3c"), ("call-1", "acs")]
        assert await get("state/quality?dialect=acs") == (200, {"acs": {}})
        for path in ("stats?dialcet=acs", "stats?quality=1", "calls/last/summary?interval=1", "state/quality?",
                     "state/call?dialect=acs", "events?interval=1", "stats?dialect=acs&dialect=w3c"):
            status, answer = await get(path)
            if path.endswith("?"):
                assert status == 200
            else:
                assert (status, answer["subCode"]) == (400, "query"), path
                assert path.partition("?")[2].partition("=")[0] in answer["message"]
    async with running_door(tmp_path, Ports()) as at:
        assert (await get("calls/last/summary"))[0] == 404


async def test_an_event_stream_that_asks_for_samples_gets_them_while_it_lasts(tmp_path: Path) -> None:
    following: list[tuple[int, str]] = []

    @contextlib.contextmanager
    def follow(interval: int, dialect: str) -> Iterator[None]:
        following.append((interval, dialect))
        try:
            yield
        finally:
            following.remove((interval, dialect))

    def ended() -> bool:
        at.bulletin.sample({})  # the appliance hears that a client has left when it writes to it
        return not following

    async with running_door(tmp_path, Ports(follow=follow)) as at:
        events, headers = f"{at.base}/v1/events", at.bearer(OPERATOR)
        async with at.http.get(f"{events}?quality=5&dialect=acs", headers=headers) as response:
            await until(lambda: len(at.door._events) == 1)
            assert following == [(5, "acs")]
            at.bulletin.sample({"callId": "call-1", "quality": {}, "acs": {}})
            while not (line := (await response.content.readline()).decode()).startswith("data: {\"name\":\"quality\""):
                assert line
            assert json.loads(line[6:])["document"]["callId"] == "call-1"
        await until(ended)
        for query, word in (("quality=0", "1 to 60"), ("quality=61", "1 to 60"), ("quality=1.5", "whole number"),
                            ("quality=", "1 to 60"), ("quality=²", "1 to 60"), ("dialect=acs", "quality=SECONDS"),
                            ("quality=1&dialect=x", "w3c, acs")):
            async with at.http.get(f"{events}?{query}", headers=headers) as response:
                answer = await response.json()
                assert (response.status, word in answer["message"]) == (400, True), query
        assert following == []


async def test_a_stream_that_is_behind_is_spared_samples_and_no_state(at: Running) -> None:
    async with at.http.get(f"{at.base}/v1/events", headers=at.bearer(OPERATOR)) as response:
        await until(lambda: len(at.door._events) == 1)
        for number in range(40):  # in one step of the loop: nothing is written between
            at.bulletin.sample({"number": number})
        at.bulletin.set("call", {"state": "None"})
        told: list[str] = []
        while not told or "call" not in told[-1]:
            line = (await response.content.readline()).decode()
            told += [line] if line.startswith("data: {\"name\"") else []
        assert len(told) == SAMPLES_BEHIND + 1


async def test_metrics_count_calls_requests_and_rates(tmp_path: Path) -> None:
    async def stats() -> Sequence[dict[str, Any]]:
        return [{"type": "inbound-rtp", "kind": "audio", "id": "a\"1", "packetsReceived": 7, "jitter": 0.002}]

    async with running_door(tmp_path, Ports(stats=stats)) as at:
        at.bulletin.set("call", {"state": "Connected"})
        at.bulletin.set("net", {"networkQualityLevel": 4})
        at.bulletin.set("diag", {"cameraFreeze": {"value": True}, "noNetwork": {"value": False}})
        at.bulletin.post("call.ended", callId="x", reason={"code": 487, "subCode": "noAnswer"})
        async with at.http.get(f"{at.base}/metrics", headers=at.bearer(OPERATOR)) as response:
            text = await response.text()
        for line in ('edgecall_call_state{state="Connected"} 1', 'edgecall_diagnostic{name="cameraFreeze"} 1',
                     'edgecall_diagnostic{name="noNetwork"} 0', 'edgecall_calls_ended_total{reason="487/noAnswer"} 1',
                     'edgecall_rtp_received_packets_total{type="inbound-rtp",kind="audio",id="a\\"1"} 7',
                     'edgecall_health{status="ok"} 1', "edgecall_network_quality_level 4"):
            assert line in text.splitlines()
        assert "edgecall_memory_pss_bytes" in text
        assert re.search(r'^edgecall_stage_cpu_seconds_total\{stage="loop"\} \S+$', text, re.MULTILINE)


def test_processor_time_is_told_by_thread_and_by_process() -> None:
    started, over = threading.Event(), threading.Event()

    def work() -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
        started.set()
        over.wait()

    pool = [threading.Thread(target=work, name=f"hw.work_{number}") for number in range(2)]
    before = stage_cpu_s()
    work_too = "import time\nwhile time.process_time() < 0.05: pass\nprint(flush=True)\ninput()"
    command = [sys.executable, "-S", "-c", work_too, "hw.pi.camera.process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            for thread in pool:
                thread.start()
                started.wait()
                started.clear()
            process.stdout.readline()
            spent = stage_cpu_s()
        finally:
            over.set()
            for thread in pool:
                thread.join()
            process.communicate(b"\n")
    assert 0.09 < spent["hw.work"] < 0.3, "both threads of the pool"
    assert 0.04 < spent["camera process"] < 0.5
    assert spent["loop"] >= before["loop"] > 0
    assert {"hw.work", "camera process"}.isdisjoint(stage_cpu_s()), "what has ended is gone"


def test_a_diagnostic_is_active_as_a_flag_or_as_a_poor_quality() -> None:
    document = {"tamper": {"value": True}, "noNetwork": {"value": False}, "networkSendQuality": {"value": 1},
                "networkReceiveQuality": {"value": 2}}
    assert active_diagnostics(document) == {"tamper", "networkReceiveQuality"}


# --- pages ----------------------------------------------------------------------------------------------------------


async def test_static_files_have_types_etags_and_no_way_out(at: Running) -> None:
    url = f"{at.base}/console/console.css"
    async with at.http.get(url) as response:
        assert (response.status, response.content_type) == (200, "text/css")
        etag = response.headers["ETag"]
        policy = response.headers["Content-Security-Policy"]
        assert "'unsafe-" not in policy
        assert "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "edgecall"
    async with at.http.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    for path in ("/console/..%2f..%2fsettings.py", "/console/__init__.py", "/console/%00", "/console//etc/passwd"):
        async with at.http.get(at.base + path) as response:
            assert response.status == 404


# --- peers ----------------------------------------------------------------------------------------------------------


async def test_a_peer_channel_carries_texts_with_a_proven_identity(tmp_path: Path) -> None:
    identities = []
    left = asyncio.Event()

    async def echo(channel: PeerChannel) -> None:
        identities.append(channel.identity)
        async for text in channel:
            await channel.send(text)
        left.set()

    async with running_door(tmp_path, Ports(attach=echo)) as at, at.browser() as browser:
        async with browser.ws_connect(f"{at.base}/v1/peer?page=tab-1", headers={"Origin": at.base},
                                      max_msg_size=0) as socket:
            whole = "x" * 65_536
            await socket.send_str(whole)
            assert await socket.receive_str() == whole
        await left.wait()
        assert (identities[0].name, identities[0].loopback) == ("operator", True)
        assert identities[0].session.endswith(":tab-1")
        async with at.http.ws_connect(f"{at.base}/v1/peer", headers=at.bearer(OPERATOR)) as socket:
            await socket.send_str(whole + "x")
            assert (await socket.receive()).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        async with at.http.ws_connect(f"{at.base}/v1/peer", headers=at.bearer(OPERATOR)) as socket:
            await socket.send_bytes(b"x")
            assert (await socket.receive()).data == aiohttp.WSCloseCode.UNSUPPORTED_DATA
        async with at.http.ws_connect(f"{at.base}/v1/peer", headers=at.bearer(OPERATOR)) as socket:
            await at.door.stop()
            assert (await socket.receive()).data == aiohttp.WSCloseCode.GOING_AWAY


# --- the panel stream -----------------------------------------------------------------------------------------------


async def test_the_panel_stream_shows_plays_and_lends(tmp_path: Path) -> None:
    panel = Hands()
    async with running_door(tmp_path, Ports(simulation=panel)) as at:
        async with (at.http.ws_connect(f"{at.base}/v1/sim", headers=at.bearer(OPERATOR)) as one,
                    at.http.ws_connect(f"{at.base}/v1/sim", headers=at.bearer(OPERATOR)) as two):
            await one.send_str('{"watch": true}')
            frames = [await one.receive_bytes() for _ in range(2)]
            assert all(frame[:4] == b"\x01\xff\xd8\xff" for frame in frames)
            await one.send_str('{"watch": false, "lend": true}')
            while (message := await one.receive()).type is not aiohttp.WSMsgType.TEXT:
                pass
            assert json.loads(message.data) == {"lend": True}
            await one.send_bytes(b"\x11" + bytes(960))
            await one.send_bytes(b"\x11odd")
            await one.send_bytes(b"\x12\xff\xd8\xff")
            await one.send_bytes(b"\x12not a jpeg")
            await two.send_bytes(b"\x11" + bytes(960))  # does not lend
            await two.send_str('{"lend": true, "listen": true}')
            assert json.loads(await two.receive_str()) == {"lend": True}
            assert json.loads(await one.receive_str()) == {"lend": False}
            assert panel.lent == [("audio", bytes(960)), ("picture", b"\xff\xd8\xff")]
            assert panel.sink is not None
            panel.sink(b"\1\0" * 480)
            assert await two.receive_bytes() == b"\x02" + b"\1\0" * 480
            await two.send_str("no json")
            assert (await two.receive()).data == aiohttp.WSCloseCode.POLICY_VIOLATION
        await at.door.stop()
        assert panel.sink is None


async def test_a_panel_that_takes_nothing_is_cut_off_to_connect_anew(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = Hands()
    picture = bytes(8 << 20)  # more than the buffers of a connection
    monkeypatch.setattr(panel, "screen", lambda _width: picture)
    async with running_door(tmp_path, Ports(simulation=panel)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.door.port)
        writer.write((f"GET /v1/sim HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n"
                      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n").encode())
        assert b" 101 " in await reader.readline()
        words = b'{"watch": true, "lend": true}'
        writer.write(bytes([0x81, 0x80 | len(words), 0, 0, 0, 0]) + words)  # masked with 0 (RFC 6455 5.3)
        async with asyncio.timeout(10):
            # the page stalls, then reads on: what is left, and the end
            with contextlib.suppress(ConnectionError), monkeypatch.context() as impatient:
                impatient.setattr("appliance.doors.http.sim.SEND_S", 0.2)
                await until(lambda: len(at.door._sim) == 1)
                await until(lambda: len(at.door._sim) == 0, 8, "the stalled page is forgotten")
                while await reader.read(1 << 16):
                    pass
        writer.close()
        assert at.door._sim._lender is None
        async with at.http.ws_connect(f"{at.base}/v1/sim", headers=at.bearer(OPERATOR), max_msg_size=0) as again:
            await again.send_str('{"watch": true}')
            assert len(await again.receive_bytes()) == len(picture) + 1


async def test_a_real_board_has_no_panel_stream(at: Running) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await at.http.ws_connect(f"{at.base}/v1/sim", headers=at.bearer(OPERATOR))
    assert caught.value.status == 501


# --- garbage --------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
_ENVELOPE = st.fixed_dictionaries({}, optional={
    "id": _JSON | st.just("c-1"), "ts": _JSON, "ttl_s": _JSON | st.just(5), "args": _JSON, "nonce": _JSON})
_BODY = st.binary(max_size=200) | (_JSON | _ENVELOPE).map(lambda value: json.dumps(value).encode())
_PATH = st.sampled_from([f"/v1/cmd/{verb.name}" for verb in VERBS] + [
    "/v1/state/x", "/v1/address", "/v1/session", "/enter", "/", "/operator", "/v1/health", "/metrics", "/v1/peer",
    "/v1/sim", "/console/x", "/v1/cmd/", "/v1/openapi.json"]) | st.text(
        st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(lambda text: "/" + text)
_HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)


async def _raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_garbage_on_any_route_is_never_our_failure(at: Running) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=250, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    @given(method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "BREW"]), path=_PATH, body=_BODY,
           admin=st.booleans(), name=st.sampled_from(["Cookie", "Origin", "Authorization", "If-None-Match", "Range",
                                                      "Content-Encoding", "Upgrade", "X"]), value=_HEADER)
    def attack(method: str, path: str, body: bytes, admin: bool, name: str, value: str) -> None:
        token = f"Authorization: Bearer {ADMIN}\r\n" if admin and name != "Authorization" else ""
        head = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/html\r\n"
                f"{token}{name}: {value}\r\nContent-Length: {len(body)}\r\n\r\n")
        reply = asyncio.run_coroutine_threadsafe(_raw(at.door.port, head.encode("latin-1") + body), loop).result(10)
        assert not reply.startswith(b"HTTP/1.1 500"), reply

    await asyncio.to_thread(attack)
    async with at.http.get(f"{at.base}/v1/state", headers=at.bearer(OPERATOR)) as response:
        assert response.status == 200


async def test_garbage_bytes_are_answered_and_forgotten(at: Running) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", b"GET " + b"a" * 20_000,
                    b"POST /v1/cmd/dnd.set HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        reply = await asyncio.wait_for(_raw(at.door.port, garbage + b"\r\n\r\n"), 5)
        assert b" 500 " not in reply.partition(b"\r\n")[0]
