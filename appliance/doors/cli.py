"""The command ``edgecall``: every verb and what is known, over the appliance's Unix socket or its web address.

JSON goes to stdout, words for people to stderr. Only the standard library is imported before the answer is there:
a command line that is used by hand and in scripts must start at once.
"""

from __future__ import annotations

import contextlib
import difflib
import http.client
import json
import os
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from appliance.faces.commandline import (
    OWN_COMMANDS,
    ExitCode,
    completion,
    exit_code,
    given_args,
    joined,
    parser,
    sorted_out,
)
from appliance.vocabulary import SAMPLE_S, VERB, VERBS, VOLATILE, Json, Verb

if TYPE_CHECKING:
    import ssl

__all__ = ["main"]

CONNECT_S: Final = 5.0
ANSWER_S: Final = 15.0
"""Beyond the time waited for: a daemon that takes longer to answer is stuck."""
SILENCE_S: Final = 45.0
"""The event stream has a heartbeat every 15 s; three lost ones are a lost daemon."""
MAX_REPLY: Final = 16 * 1024 * 1024
WAIT_MAXIMUM_S: Final = 180.0


class _NotRunningError(Exception):
    """The appliance cannot be reached; the message says where it was sought and what to do."""


class _UsageError(Exception):
    """The command line is wrong in a way argparse cannot see."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its ExitCode."""
    where, rest = sorted_out(sys.argv[1:] if argv is None else argv)
    if rest[:1] == ["run"]:
        return _run([*where, *rest[1:]])
    try:
        if rest[:1] == ["doctor"]:
            return _doctor(rest[1:])
        words = joined(rest)
        _suggest(words)
        return int(_command([*where, *words]))
    except _NotRunningError as error:
        print(f"edgecall: {error}", file=sys.stderr)
        return ExitCode.NOT_RUNNING
    except _UsageError as error:
        print(f"edgecall: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # the reader of our stdout has left (| head): keep the interpreter from complaining when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE


def _run(words: list[str]) -> int:
    """Become the daemon, as ``python -m appliance`` does; it has a command line and exit codes of its own."""
    import runpy

    sys.argv = ["edgecall run", *words]
    try:
        runpy.run_module("appliance", run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # while modules are still read
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.DONE


def _doctor(words: list[str]) -> int:
    """Look after the hardware without the appliance; it has a command line of its own too."""
    from hw import doctor

    try:
        return doctor.main(words)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)


def _command(words: list[str]) -> ExitCode:
    top = parser()
    asked = top.parse_args(words)
    if asked.own_version:
        return _version()
    if asked.command is None:
        top.print_help(sys.stderr)
        return ExitCode.USAGE
    if asked.command in VERB:
        return _verb(VERB[asked.command], asked)
    return _OWN[asked.command](asked)


def _suggest(words: list[str]) -> None:
    """argparse would list forty choices for a slip of the finger."""
    known = [*VERB, *OWN_COMMANDS]
    first = words[0] if words else ""
    if not first or first.startswith("-") or first in known:
        return
    group = [verb for verb in VERB if verb.startswith(f"{first}.")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        raise _UsageError(f"{first!r} alone is no command. There are: {', '.join(group)}. See: edgecall COMMAND --help")
    near = difflib.get_close_matches(".".join(words[:2]), known, 1, 0.8) or difflib.get_close_matches(first, known, 1)
    raise _UsageError(f"there is no command {first[:64]!r}." + (f" Did you mean {near[0]!r}?" if near else "")
                      + " See: edgecall --help")


# --- commands -------------------------------------------------------------------------------------------------------


def _verb(verb: Verb, asked: Namespace) -> ExitCode:
    wait: float = asked.command_wait
    if not 0 <= wait <= WAIT_MAXIMUM_S:
        raise _UsageError(f"--wait is 0 to {WAIT_MAXIMUM_S:g} seconds")
    envelope: Json = {"id": asked.command_id or f"cli-{os.urandom(12).hex()}", "ts": round(time.time(), 3),
                      "args": given_args(verb, asked)}
    if verb.acts or asked.command_ttl is not None:
        envelope["ttl_s"] = verb.max_ttl_s if asked.command_ttl is None else asked.command_ttl
    peer = _peer(asked)
    answer = _send(peer, verb, envelope, wait)
    nonce = answer.get("data", {}).get("nonce") if answer.get("subCode") == "challenge" else None
    if isinstance(nonce, str):
        # the appliance's clock is not synchronised: a second round trip proves that the command is fresh
        again = {**envelope, "ts": round(time.time(), 3), "nonce": nonce}
        answer = _send(peer, verb, again, wait)
    _show(answer)
    if answer.get("message"):
        print(f"edgecall: {answer['message']}", file=sys.stderr)
    return exit_code(answer, waited=wait > 0)


def _send(peer: _Peer, verb: Verb, envelope: Json, wait: float) -> Json:
    query = f"?wait={wait:g}" if wait else ""
    answer: Json = peer.ask("POST", f"/v1/cmd/{verb.name}{query}", envelope, patience_s=wait).document()
    return answer


def _state(asked: Namespace) -> ExitCode:
    path = "/v1/state" if asked.name is None else f"/v1/state/{quote(asked.name, safe='')}"
    return _get(asked, path)


def _stats(asked: Namespace) -> ExitCode:
    if not asked.follow:
        if asked.interval is not None or asked.count is not None:
            raise _UsageError("--interval and --count go with --follow")
        return _get(asked, f"/v1/stats?dialect={asked.dialect}")
    interval, (least, most) = SAMPLE_S[0] if asked.interval is None else asked.interval, SAMPLE_S
    if not least <= interval <= most:
        raise _UsageError(f"--interval is {least} to {most} seconds")
    return _follow(asked, f"/v1/events?{VOLATILE}={interval}&dialect={asked.dialect}", _sample_line)


def _sample_line(kind: str, data: str) -> str | None:
    message = json.loads(data) if kind == "state" else {}
    return json.dumps(message["document"], ensure_ascii=False) if message.get("name") == VOLATILE else None


def _health(asked: Namespace) -> ExitCode:
    reply = _peer(asked).ask("GET", "/v1/health")
    health = reply.document()
    if reply.status not in {200, 503} or "status" not in health:
        return _refused(health)
    _show(health)
    print(f"edgecall: {health['status']}", file=sys.stderr)
    return ExitCode.FAILED if reply.status == 503 else ExitCode.DONE


def _get(asked: Namespace, path: str) -> ExitCode:
    reply = _peer(asked).ask("GET", path)
    document = reply.document()
    if reply.status != 200:
        return _refused(document)
    _show(document)
    return ExitCode.DONE


def _address(asked: Namespace) -> ExitCode:
    wish = {"page": "/operator" if asked.operator else None, "name": asked.name, "scope": asked.scope}
    reply = _peer(asked).ask("POST", "/v1/address", {key: value for key, value in wish.items() if value is not None})
    document = reply.document()
    if reply.status != 200:
        return _refused(document)
    if asked.json:
        _show(document)
    else:
        print(document["address"])
    return ExitCode.DONE


def _events(asked: Namespace) -> ExitCode:
    """One line for each event."""
    wanted = {"event", "state"} if asked.states else {"event"}
    return _follow(asked, "/v1/events", lambda kind, data: data if kind in wanted else None)


def _follow(asked: Namespace, path: str, line: Callable[[str, str], str | None]) -> ExitCode:
    """Print what ``line`` makes of each message, until Ctrl-C, or until the appliance ends the stream."""
    if asked.count is not None and asked.count < 1:
        raise _UsageError("--count is at least 1")
    left = asked.count
    reason = "the connection was lost"
    for kind, data in _peer(asked).stream(path):
        if kind == "cut":
            reason = f"the appliance ended the stream: {json.loads(data).get('reason', '')}"
        if kind == "refused":
            return _refused(json.loads(data))
        words = line(kind, data)
        if words is None:
            continue
        print(words, flush=True)
        if left is not None:
            left -= 1
            if left == 0:
                return ExitCode.DONE
    raise _NotRunningError(reason)


def _verbs(_asked: Namespace) -> ExitCode:
    _show([{
        "name": verb.name, "summary": verb.summary, "scope": verb.scope.value, "acts": verb.acts,
        "args": [{"name": arg.name, "type": arg.type.value, "required": arg.required, "help": arg.help}
                 for arg in verb.args],
    } for verb in VERBS])
    return ExitCode.DONE


def _check(asked: Namespace) -> ExitCode:
    """All faults of a settings file, and of the board file that it names, one a line; the settings as they would be,
    when there is none."""
    from appliance.errors import SettingsError
    from appliance.settings import explain, load

    try:
        settings = load(Path(asked.file) if asked.file is not None else None)
    except SettingsError as error:
        for fault in error.faults:
            print(f"{error.path}: {fault}", file=sys.stderr)
        return ExitCode.SETTINGS
    if settings.board.name == "pi":
        from hw.doctor import board_file_faults

        if faults := board_file_faults(settings.board.file):
            print(*faults, sep="\n", file=sys.stderr)
            return ExitCode.SETTINGS
    _show(explain(settings))
    return ExitCode.DONE


def _completion(asked: Namespace) -> ExitCode:
    sys.stdout.write(completion(asked.shell))
    return ExitCode.DONE


def _version() -> ExitCode:
    from importlib.metadata import version

    print(version("edgecall"))
    return ExitCode.DONE


_OWN: Final = {
    "state": _state, "stats": _stats, "health": _health, "address": _address, "events": _events, "verbs": _verbs,
    "check": _check, "completion": _completion,
}


def _show(document: Any) -> None:
    """Indented for a human at a terminal, on one line for a program."""
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def _refused(answer: Json) -> ExitCode:
    print(f"edgecall: {answer.get('message') or 'the appliance refused'}", file=sys.stderr)
    return exit_code(answer, waited=False) if "result" in answer else ExitCode.REFUSED


# --- the way to the appliance ---------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the appliance's Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes

    def document(self) -> Json:
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _NotRunningError(f"what answers there is no appliance (HTTP status {self.status})")
        return found


@dataclass(frozen=True, slots=True)
class _Peer:
    """One appliance: ``sockets`` to try in order, or ``url``."""

    sockets: tuple[Path, ...] = ()
    url: str = ""
    token: str = field(default="", repr=False)
    ca_file: str = ""

    def ask(self, method: str, path: str, body: Json | None = None, *, patience_s: float = 0.0) -> _Reply:
        """One request, one reply. Raises _NotRunningError."""
        connection, response = self._request(method, path, body, ANSWER_S + patience_s)
        try:
            content = response.read(MAX_REPLY + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _NotRunningError(f"the appliance left in the middle of its answer: {error}") from error
        finally:
            connection.close()
        if response.length and len(content) <= MAX_REPLY:  # read(n) does not tell of a body cut short
            raise _NotRunningError("the appliance left in the middle of its answer")
        if len(content) > MAX_REPLY:
            raise _NotRunningError("the answer is larger than 16 MiB: this is no appliance")
        return _Reply(response.status, content)

    def stream(self, path: str) -> Iterator[tuple[str, str]]:
        """Server-sent events as (event, data), until the stream ends; ``refused`` with the answer otherwise."""
        connection, response = self._request("GET", path, None, SILENCE_S)
        try:
            if response.status != 200:
                reply = _Reply(response.status, response.read(MAX_REPLY))
                yield "refused", json.dumps(reply.document())
                return
            kind, data = "", []
            while line := response.readline(MAX_REPLY):
                name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
                if name == "event":
                    kind = value.strip()
                elif name == "data":
                    data.append(value.removeprefix(" "))
                elif not name and not value:
                    if data:
                        yield kind, "\n".join(data)
                    kind, data = "", []
        except (OSError, http.client.HTTPException) as error:
            raise _NotRunningError(f"the connection to the appliance was lost: {error}") from error
        finally:
            connection.close()

    def _request(
        self, method: str, path: str, body: Json | None, patience_s: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Accept": "text/event-stream, application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self._connected()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(patience_s)
            with contextlib.suppress(BrokenPipeError):  # it refused before it had read all: its answer says why
                connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            return connection, connection.getresponse()
        except TimeoutError as error:
            connection.close()
            raise _NotRunningError(f"the appliance did not answer within {patience_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _NotRunningError(f"the appliance left without an answer: {error}") from error

    def _connected(self) -> http.client.HTTPConnection:
        if self.url:
            return self._connected_url()
        for path in self.sockets:
            connection = _UnixConnection(path, CONNECT_S)
            try:
                connection.connect()
            except PermissionError:
                connection.close()
                raise _NotRunningError(
                    f"you may not use {path}: join its group, or run this as its user (sudo)") from None
            except OSError:
                connection.close()
                continue
            return connection
        raise _NotRunningError(
            f"the appliance is not running: nobody answers at {' or '.join(map(str, self.sockets))}. Start it with "
            "'edgecall run' or 'systemctl start edgecall'; name its folder with --data if it is another one")

    def _connected_url(self) -> http.client.HTTPConnection:
        url = urlsplit(self.url)
        host, port = url.hostname or "", url.port
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=self._trust())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise _NotRunningError(f"{self.url} cannot be reached: {error}") from error
        return connection

    def _trust(self) -> ssl.SSLContext:
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise _UsageError(f"--ca-file {self.ca_file}: {error}") from error


def _peer(asked: Namespace) -> _Peer:
    if asked.own_url:
        return _remote(asked)
    if asked.own_token_file or asked.own_ca_file:
        raise _UsageError("--token-file and --ca-file go with --url")
    if asked.own_socket:
        return _Peer((Path(asked.own_socket),))
    from appliance.places import socket_candidates

    environ = {**os.environ, "EDGECALL_DATA": asked.own_data} if asked.own_data else os.environ
    return _Peer(socket_candidates(environ))


def _remote(asked: Namespace) -> _Peer:
    from appliance.settings.formats import is_loopback
    from appliance.settings.secret import read_secret

    try:
        url = urlsplit(asked.own_url)
        url.port  # noqa: B018 - raises ValueError for what is no port
    except ValueError as error:
        raise _UsageError(f"--url {asked.own_url}: {error}") from None
    if url.scheme not in {"http", "https"} or not url.hostname or url.username is not None or url.path.strip("/"):
        raise _UsageError("--url is http://HOST[:PORT] or https://HOST[:PORT]")
    if url.scheme == "http" and asked.own_token_file and not is_loopback(url.hostname):
        raise _UsageError("the token would cross the network unencrypted: use https://")
    token = ""
    if asked.own_token_file:
        try:
            token = read_secret(str(Path(asked.own_token_file).expanduser().absolute()), Path(), os.environ).reveal()
        except ValueError as error:
            raise _UsageError(f"--token-file: {error}") from None
    return _Peer(url=asked.own_url, token=token, ca_file=asked.own_ca_file or "")


if __name__ == "__main__":
    sys.exit(main())
