"""The command line against the real HTTP door on its Unix socket, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.doors.cli import main
from appliance.doors.http import Ports
from appliance.errors import NotPermitted, Refused
from appliance.faces.commandline import ExitCode
from appliance.faces.envelope import refusal
from appliance.vocabulary import Answer, Command, Origin, Result, Scope
from tests.support.http_door import ADMIN, Running, running_door

Said = tuple[int, str, str]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_door(tmp_path, Ports()) as door:
        yield door


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*words: str) -> Said:
        try:
            code = main(["--socket", str(tmp_path / "s"), *words])
        except SystemExit as end:  # argparse ends so
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


async def test_a_verb_arrives_with_everything_filled_in(running: Running, say: Callable[..., Said]) -> None:
    code, out, err = await asyncio.to_thread(say, "io.set", "door", "2.5")
    answer = json.loads(out)
    assert (code, answer["result"], err) == (0, "done", "")
    command = running.desk.commands[0]
    assert (command.verb.name, dict(command.args)) == ("io.set", {"relay": "door", "seconds": 2.5})
    assert (command.origin, command.scope, command.ttl_s) == (Origin.CLI, Scope.ADMIN, 5)
    assert command.ts is not None
    assert command.id == answer["id"]


@pytest.mark.parametrize(("words", "args"), [
    (["call.dial", "operator:*"], {"to": "operator:*"}),
    (["call", "dial", "operator:*"], {"to": "operator:*"}),
    (["call", "dial", "--targets", "a", "b", "--ring-seconds", "20", "--no-video", "--strategy", "parallel"],
     {"targets": ["a", "b"], "ringSeconds": 20, "video": False, "strategy": "parallel"}),
    (["dnd", "set", "on"], {"on": True}),
    (["dnd.set", "false"], {"on": False}),
    (["sim.fault", "camera.freeze"], {"fault": "camera.freeze"}),
    (["sim.fault", "thermal", "on", "--value", "90"], {"fault": "thermal", "active": True, "value": 90.0}),
    (["book.put", "Desk", "--uris", "operator:desk", "--auto-answer"],
     {"name": "Desk", "uris": ["operator:desk"], "autoAnswer": True}),
])
async def test_arguments_are_those_of_the_vocabulary(
    words: list[str], args: dict[str, object], running: Running, say: Callable[..., Said],
) -> None:
    code, _, err = await asyncio.to_thread(say, *words, "--wait", "0")
    assert code == 0, err
    assert dict(running.desk.commands[0].args) == args


async def test_a_long_verb_is_waited_for(running: Running, say: Callable[..., Said]) -> None:
    asked = asyncio.create_task(asyncio.to_thread(say, "call.dial", "desk", "--id", "one"))
    await running.desk.waiting.wait()
    running.desk.finals["one"].set_result(Answer("one", Result.DONE, data={"callId": "c1"}))
    code, out, _ = await asked
    assert (code, json.loads(out)["data"]) == (0, {"callId": "c1"})


async def test_what_is_not_finished_in_time_says_so(running: Running, say: Callable[..., Said]) -> None:
    code, out, _ = await asyncio.to_thread(say, "call.dial", "desk", "--wait", "0.05")
    assert (code, json.loads(out)["result"]) == (ExitCode.UNFINISHED, "accepted")


@pytest.mark.parametrize(("answer", "code"), [
    (lambda c: Answer(c.id, Result.FAILED, 500, "internal", message="broken"), ExitCode.FAILED),
    (lambda c: Answer(c.id, Result.EXPIRED, 408, "ttlExpired", message="late"), ExitCode.EXPIRED),
    (lambda c: refusal(c.id, Refused("no call", code=409), 1), ExitCode.REFUSED),
    (lambda c: refusal(c.id, NotPermitted("no"), 1), ExitCode.REFUSED),
])
async def test_exit_codes_follow_the_answer(
    answer: Callable[[Command], Answer], code: ExitCode, running: Running, say: Callable[..., Said],
) -> None:
    running.desk.answer = answer
    found, out, err = await asyncio.to_thread(say, "call.mute")
    assert found == code
    assert json.loads(out)["message"] in err


async def test_a_challenge_is_answered_with_its_nonce(running: Running, say: Callable[..., Said]) -> None:
    def challenge(command: Command) -> Answer:
        if command.nonce == "n-1":
            return Answer(command.id, Result.DONE)
        return refusal(command.id, NotPermitted("again", code=401, sub_code="challenge", data={"nonce": "n-1"}), 1)

    running.desk.answer = challenge
    code, out, _ = await asyncio.to_thread(say, "io.set", "door", "3")
    assert (code, json.loads(out)["result"]) == (0, "done")
    first, second = running.desk.commands
    assert (first.id, first.args) == (second.id, second.args)


def test_the_help_of_a_verb_names_the_members_of_an_object(say: Callable[..., Said]) -> None:
    code, out, _ = say("video.constraints", "--help")
    shown = " ".join(out.split())
    assert code == 0
    assert "limits on what is sent. frameHeight: lines;" in shown
    assert "maxVideos: pictures of others at the same time, what one shares among them (0 to 10)" in shown


async def test_what_the_daemon_finds_wrong_is_usage(running: Running, say: Callable[..., Said]) -> None:
    code, _, err = await asyncio.to_thread(say, "devices.volume", "300")
    assert code == ExitCode.USAGE
    assert "must be at most 100" in err
    code, _, err = await asyncio.to_thread(say, "io.set", "door", "1", "--ttl", "60")
    assert (code, "at most 5 s" in err) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(("words", "hint"), [
    (["call.dail", "x"], "Did you mean 'call.dial'?"), (["call", "dail", "x"], "Did you mean 'call.dial'?"),
    (["call"], "There are: call.dial, "), (["io.set", "door", "three"], "'three' is no number"),
    (["helth"], "Did you mean 'health'?"), (["dnd.set", "maybe"], "neither on nor off"),
    (["devices.volume", "loud"], "'loud' is no whole number"), (["call.mute", "--wait", "nan"], "--wait is 0 to 180"),
    (["--token-file", "/x", "health"], "go with --url"), ([], "usage: edgecall"),
    (["video.constraints", "--send", "frameHeight=360"], "is not JSON: Expecting value: line 1 column 1 (char 0); "),
    (["video.constraints", "--send", "[360]"], """is no JSON object; write it like '{"name": 1}'"""),
])
def test_wrong_usage_is_told_before_anything_is_sent(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (ExitCode.USAGE, "")
    assert hint in err


async def test_state_health_stats_and_address(running: Running, say: Callable[..., Said]) -> None:
    running.bulletin.set("call", {"state": "None"})
    code, out, _ = await asyncio.to_thread(say, "state", "call")
    assert (code, json.loads(out)) == (0, {"state": "None"})
    code, out, _ = await asyncio.to_thread(say, "state")
    assert json.loads(out)["documents"] == {"call": {"state": "None"}}
    code, out, err = await asyncio.to_thread(say, "state", "cal")
    assert (code, out) == (ExitCode.REFUSED, "")
    assert "Known: device" in err
    code, out, err = await asyncio.to_thread(say, "state", "availability")  # which only the broker can tell
    assert (code, out) == (ExitCode.REFUSED, "")
    code, out, err = await asyncio.to_thread(say, "health")
    assert (code, "status" in json.loads(out)) == (0, True)
    code, out, _ = await asyncio.to_thread(say, "stats")
    assert (code, json.loads(out)["stats"]) == (0, [])
    assert (await asyncio.to_thread(say, "state", "quality"))[1] == out
    code, out, _ = await asyncio.to_thread(say, "address", "--operator")
    assert (code, out.startswith(f"{running.base}/enter?")) == (0, True)
    assert "next=/operator" in out.replace("%2F", "/")
    code, out, _ = await asyncio.to_thread(say, "address", "--json")
    assert set(json.loads(out)) == {"address"}


async def _listening(running: Running) -> None:
    """Until the stream of events is open: only the door knows, and it tells nobody."""
    async with asyncio.timeout(5):
        while not len(running.door._events):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_events_come_one_a_line(running: Running, say: Callable[..., Said]) -> None:
    running.bulletin.set("call", {"state": "None"})
    asked = asyncio.create_task(asyncio.to_thread(say, "events", "--states", "--count", "3"))
    await _listening(running)
    running.bulletin.set("call", {"state": "Incoming"})
    running.bulletin.post("io.pressed", name="call")
    code, out, _ = await asked
    first, second, third = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["document"], second["document"]) == ({"state": "None"}, {"state": "Incoming"})
    assert third["type"] == "edgecall.io.pressed"


async def test_statistics_come_one_sample_a_line(running: Running, say: Callable[..., Said]) -> None:
    asked = asyncio.create_task(asyncio.to_thread(say, "stats", "--follow", "--interval", "2", "--count", "2"))
    await _listening(running)
    for number in range(2):
        running.bulletin.set("call", {"state": "None", "number": number})
        running.bulletin.sample({"callId": None, "number": number})
    code, out, _ = await asked
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"callId": None, "number": 0}, {"callId": None, "number": 1}]
    code, out, err = await asyncio.to_thread(say, "stats", "--follow", "--interval", "0")
    assert (code, out, "--interval is 1 to 60 seconds" in err) == (ExitCode.USAGE, "", True)
    code, _, err = await asyncio.to_thread(say, "stats", "--interval", "2")
    assert (code, "go with --follow" in err) == (ExitCode.USAGE, True)


async def test_the_end_of_the_daemon_ends_the_events(tmp_path: Path, say: Callable[..., Said]) -> None:
    async with running_door(tmp_path) as running:
        asked = asyncio.create_task(asyncio.to_thread(say, "events"))
        await _listening(running)
    code, out, err = await asked
    assert (code, out) == (ExitCode.NOT_RUNNING, "")
    assert "shutdown" in err


async def test_another_appliance_by_address_and_token(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    token = tmp_path / "token"
    token.write_text(ADMIN)
    token.chmod(0o600)

    async def mute(url: str = running.base) -> int:
        return await asyncio.to_thread(main, ["--url", url, "--token-file", str(token), "call.mute"])

    assert await mute() == 0
    assert (running.desk.commands[0].origin, running.desk.commands[0].sender) == (Origin.HTTP, "admin")
    token.write_text("wrong-token-0123456789")
    assert await mute() == ExitCode.REFUSED
    token.chmod(0o644)
    assert await mute() == ExitCode.USAGE
    assert "chmod 600" in capsys.readouterr().err
    assert await mute("http://door.local") == ExitCode.USAGE
    assert "unencrypted" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["--data", "D", "call", "dial", "x"], ["call", "--data", "D", "dial", "x"], ["call.dial", "x", "--data=D"],
    ["call.dial", "--data", "D", "--wait", "0", "x"],
])
def test_which_appliance_may_be_said_anywhere(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([word.replace("D", str(tmp_path)) for word in words]) == ExitCode.NOT_RUNNING
    assert f"{tmp_path}/edgecall.sock" in capsys.readouterr().err


async def test_nothing_is_taken_from_behind_two_dashes(running: Running, say: Callable[..., Said]) -> None:
    assert (await asyncio.to_thread(say, "data.send", "--", "--url"))[0] == 0
    assert dict(running.desk.commands[0].args) == {"payload": "--url"}


# --- trouble --------------------------------------------------------------------------------------------------------


def test_no_daemon_gives_one_line_that_names_the_socket(tmp_path: Path, say: Callable[..., Said]) -> None:
    code, out, err = say("call.mute")
    assert (code, out) == (ExitCode.NOT_RUNNING, "")
    assert err.count("\n") == 1
    assert str(tmp_path / "s") in err
    assert "edgecall run" in err
    (tmp_path / "s").write_text("")  # left behind by a daemon that was killed
    assert say("call.mute")[0] == ExitCode.NOT_RUNNING
    assert main(["--data", "/" + "x" * 200, "health"]) == ExitCode.NOT_RUNNING  # too long for a socket


@contextmanager
def _server(path: Path, reply: bytes) -> Iterator[None]:
    """Answers one request with ``reply`` and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(5)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(reply)

    thread = threading.Thread(target=serve, name="test-server")
    thread.start()
    try:
        yield
    finally:
        thread.join(5)
        listener.close()


@pytest.mark.parametrize(("reply", "words"), [
    (b"", "left without an answer"), (b"garbage\r\n\r\n", "left without an answer"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "left in the middle"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "no appliance"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no appliance"),
])
def test_what_is_no_appliance_is_told(reply: bytes, words: str, tmp_path: Path, say: Callable[..., Said]) -> None:
    with _server(tmp_path / "s", reply):
        code, out, err = say("call.mute")
    assert (code, out) == (ExitCode.NOT_RUNNING, "")
    assert words in err


def test_ctrl_c_ends_without_a_trace(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.settimeout(10)
    with listener, subprocess.Popen(
        [sys.executable, "-m", "appliance.doors.cli", "--socket", str(tmp_path / "s"), "events"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:
        client, _ = listener.accept()  # it has connected and waits for us
        with client:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")


def test_a_reader_that_leaves_is_no_trouble(tmp_path: Path) -> None:
    process = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m appliance.doors.cli completion bash | head -c 1"],
        capture_output=True, timeout=10, check=False)
    assert process.stderr == b""


def test_the_command_line_starts_without_the_heavy_imports() -> None:
    """It is used in scripts: what it imports decides how fast it is there."""
    script = ("import sys; from appliance.doors.cli import main; code = main(['--data', '/nowhere', 'health']); "
              "print(code, *sys.modules)")
    words = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=10,
                           check=True).stdout.split()
    assert words[0] == "4"
    assert not {"aiohttp", "asyncio", "av", "aiortc", "paho", "ssl.SSLContext", "appliance.settings"} & set(words)


def test_check_tells_every_fault_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgecall.toml"
    path.write_text("[call]\nring_s = 1\nrings = 2\n")
    assert main(["check", str(path)]) == ExitCode.SETTINGS
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 2)
    path.write_text("[call]\nring_s = 40\n")
    assert main(["check", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["call"]["ring_s"] == 40


def test_check_tells_every_fault_of_the_board_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, board = tmp_path / "edgecall.toml", tmp_path / "rig.toml"
    path.write_text(f"[board]\nname = 'pi'\nfile = '{board}'\n")
    board.write_text("[audio]\nloud = 1\n[camera]\nrotation = 1\n")
    assert main(["check", str(path)]) == ExitCode.SETTINGS
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 2)
    assert err.startswith(f"board file {board}: [audio] loud: there is no such key")
    board.write_text("")
    assert main(["check", str(path)]) == 0


def test_run_becomes_the_daemon_with_its_own_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    seen: list[object] = []

    def daemon(name: str, run_name: str, alter_sys: bool) -> None:
        seen.extend([name, run_name, list(sys.argv)])
        raise SystemExit(78)

    monkeypatch.setattr(runpy, "run_module", daemon)
    monkeypatch.setattr(sys, "argv", ["edgecall"])
    assert main(["run", "--board", "sim", "--no-broker"]) == 78
    assert main(["--data", "/srv/d", "run"]) == 78
    assert seen == ["appliance", "__main__", ["edgecall run", "--board", "sim", "--no-broker"],
                    "appliance", "__main__", ["edgecall run", "--data", "/srv/d"]]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts_are_sound(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    complete = ('COMP_WORDS=(edgecall call.re); COMP_CWORD=1; _edgecall; echo "${COMPREPLY[@]}"; '
                'COMP_WORDS=(edgecall call.reject --reason de); COMP_CWORD=3; _edgecall; echo "${COMPREPLY[@]}"')
    if shell == "bash":
        done = subprocess.run(["bash", "-c", f"{script}\n{complete}"], capture_output=True, text=True, timeout=10,
                              check=True)
        assert done.stdout.split() == ["call.reject", "call.resume", "call.remove", "declined"]


def test_verbs_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verbs"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name", "summary", "scope", "acts", "args"} == set(listed[0])
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()
    assert os.environ.get("EDGECALL_DATA") is None  # nothing of ours is left in the environment
