"""STUN and TURN servers: what settings name, in which order they are asked, and what becomes of the slow ones."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from appliance.errors import SettingsError
from appliance.media.api import IceServers
from appliance.media.servers import (
    DOWN_S,
    HEAD_START_S,
    KNOWN_S,
    SET_BACK_S,
    TURN_S,
    Server,
    ServerPool,
    first_answer,
    why,
)
from tests.support.clock import virtual_time


def test_addresses_are_read_as_their_rfcs_write_them() -> None:
    assert Server.parse("stun:stun.example") == Server("stun", "stun.example", 3478, "udp")
    assert Server.parse("turn:turn.example:80?transport=tcp") == Server("turn", "turn.example", 80, "tcp")
    assert Server.parse("turns:[2001:db8::1]") == Server("turns", "2001:db8::1", 5349, "tls")
    for bad in (
        "stun:", "stun:a?transport=tcp", "turns:a?transport=udp", "turn:a:0", "turn://a", "http:a", "turn:a:1:2"
    ):
        with pytest.raises(ValueError, match=re.escape(bad)):
            Server.parse(bad)


def test_a_login_that_ends_is_made_of_a_secret_each_time() -> None:
    """By ``printf 1800086400:door | openssl dgst -sha1 -hmac secret -binary | base64``."""
    server = Server.parse("turn:turn.example", "door", secret="secret")
    assert server.login(lambda: 1_800_000_000.0) == ("1800086400:door", "T08i+G2TEyhXCkMXU2dUcVZmZVU=")
    assert server.login(lambda: 1_800_000_001.0)[0] == "1800086401:door"
    assert Server.parse("turn:turn.example", "door", "open").login() == ("door", "open")
    assert "secret" not in repr(server)


def test_only_what_settings_name_is_asked() -> None:
    assert (ServerPool(IceServers()).stun, ServerPool(IceServers()).turn) == ([], [])
    pool = ServerPool(IceServers(("a.example",), ("turn:b.example", "turns:c.example"), "door", "secret"))
    assert [str(server) for server in (*pool.stun, *pool.turn)] == [
        "stun:a.example:3478", "turn:b.example:3478 (udp)", "turns:c.example:5349 (tls)"]
    assert {(server.username, server.password) for server in pool.turn} == {("door", "secret")}
    with pytest.raises(SettingsError):
        ServerPool(IceServers(stun=("stun:",)))


def test_a_password_is_never_in_words() -> None:
    servers = IceServers((), ("turn:b.example",), "door", "geheim")
    pool = ServerPool(servers)
    assert "geheim" not in repr(servers) + repr(pool.turn) + str(pool.turn[0])


@pytest.mark.parametrize(("error", "words"), [
    (TimeoutError(), "no answer in time"),
    (socket.gaierror(-2, "Name or service not known"), "its name is not found"),
    (ConnectionRefusedError(111, "Connect call failed"), "nobody listens at its port"),
    (OSError(113, "No route to host"), "No route to host"),
    (ConnectionError("it answers 486 Allocation Quota Reached"), "it answers 486 Allocation Quota Reached"),
    (ValueError(), "ValueError"),
])
def test_why_a_server_is_of_no_use_is_said_in_words(error: Exception, words: str) -> None:
    assert why(error) == words


class World:
    """Servers that answer after some seconds, or not at all (None), or refuse (an exception)."""

    def __init__(self, answers: dict[str, float | Exception | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.pool = ServerPool(IceServers((), tuple(answers), "u", "p"), lambda: asyncio.get_running_loop().time())

    async def ask(self, server: Server) -> str:
        self.asked.append(server.host)
        after = self.answers[f"turn:{server.host}"]
        if isinstance(after, Exception):
            raise after
        await asyncio.sleep(1e6 if after is None else after)
        self.held.add(server.host)
        return server.host

    async def discard(self, host: str) -> None:
        self.held.discard(host)

    async def race(self) -> tuple[str | None, float]:
        """Who won, and after how many seconds."""
        self.asked.clear()
        began = asyncio.get_running_loop().time()
        won = await first_answer(self.pool, self.pool.turn, self.ask, discard=self.discard)
        assert self.held == ({won} if won else set()), "an allocation nobody uses is kept"
        self.held.clear()
        return won, round(asyncio.get_running_loop().time() - began, 3)


@virtual_time
async def test_the_first_is_taken_when_it_answers_and_the_second_is_not_troubled() -> None:
    world = World({"turn:a": 0.1, "turn:b": 0.1})
    assert await world.race() == ("a", 0.1)
    assert world.asked == ["a"]


@virtual_time
async def test_a_silent_server_costs_a_head_start_once() -> None:
    world = World({"turn:a": None, "turn:b": 0.1})
    assert await world.race() == ("b", HEAD_START_S + 0.1)
    assert await world.race() == ("b", 0.1)
    await asyncio.sleep(SET_BACK_S)
    world.answers["turn:a"] = 0.1
    assert await world.race() == ("a", 0.1)


@virtual_time
async def test_a_refusal_is_followed_by_the_next_at_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World({"turn:a": ConnectionError("refused"), "turn:b": 0.1})
    assert await world.race() == ("b", 0.1)
    assert [record.getMessage() for record in caplog.records] == ["turn:a:3478 (udp) cannot be used: refused"]


@virtual_time
async def test_none_that_answers_is_waited_for_in_one_call_and_not_in_all() -> None:
    world = World({"turn:a": None, "turn:b": None})
    assert await world.race() == (None, TURN_S)
    assert await world.race() == (None, DOWN_S)
    assert world.asked == ["a", "b"], "at once"
    world.answers["turn:b"] = 0.2
    assert await world.race() == ("b", 0.2), "one that came back"


@virtual_time
async def test_of_servers_that_are_known_is_waited_for_as_long_as_they_take() -> None:
    world = World({"turn:a": 0.1})
    assert world.pool.patience(world.pool.turn) == TURN_S
    assert await world.race() == ("a", 0.1)
    world.answers["turn:a"] = None
    assert await world.race() == (None, KNOWN_S)
    world.pool.moved()
    assert world.pool.patience(world.pool.turn) == DOWN_S, "a dead one does not hold up a call that moves"
    world.answers["turn:a"] = 0.4
    assert await world.race() == ("a", 0.4)
    assert world.pool.patience(world.pool.turn) == pytest.approx(1.2)
    world.pool.moved()
    assert world.pool.patience(world.pool.turn) == TURN_S, "the network is another one"


@virtual_time
async def test_two_answers_in_one_moment_leave_one() -> None:
    world = World({"turn:a": HEAD_START_S + 0.1, "turn:b": 0.1})
    won, _ = await world.race()
    assert won in ("a", "b")


@virtual_time
async def test_gathering_that_is_given_up_keeps_nothing_and_blames_nobody() -> None:
    world = World({"turn:a": 1.0})
    task = asyncio.create_task(world.race())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    assert world.held == set()
    assert world.pool.patience(world.pool.turn) == TURN_S
