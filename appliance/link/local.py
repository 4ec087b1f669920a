"""The broker of the first minute: mosquitto as a child process on loopback, with a configuration of its own.

``admin`` and ``operator`` may log in with passwords made here (``<data>/secrets``), and whoever ``mqtt.users`` names,
each by the access list of his scope. Port, persistence and configuration lie in ``<data>/broker``. It never touches a
mosquitto that the system runs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import pwd
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from appliance.durable import replace_file
from appliance.faces.acl import User, access_list
from appliance.settings import MqttSettings, MqttUserSettings, Secret
from appliance.vocabulary import Scope

__all__ = ["LocalBroker", "LocalBrokerError", "find_mosquitto", "password_line"]

log = logging.getLogger(__name__)

READY_S: Final = 5.0
STOP_S: Final = 2.0
RESTART_FIRST_S: Final = 0.5
RESTART_LAST_S: Final = 30.0
STEADY_S: Final = 30.0
_ENDING: Final = ((signal.SIGTERM, 0.2), (signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S))
"""Asked twice: mosquitto 2.0 forgets a SIGTERM that comes between its word `running` and its main loop."""
_END_WITH_US: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for a SIGTERM when we end (PR_SET_PDEATHSIG), also by SIGKILL, and then becomes the broker. Not
setpriv(1): it also sets capabilities, for which the service's system call filter kills it."""
OWN_USERS: Final = (User("admin", Scope.ADMIN), User("operator", Scope.OPERATOR))

_CONFIGURATION: Final = """\
listener {port} 127.0.0.1
user {user}
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
use_username_as_clientid {as_clientid}
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_packet_size 262144
max_keepalive 120
persistent_client_expiration 7d
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
"""


class LocalBrokerError(RuntimeError):
    """The local broker cannot be started; the message says what to do."""


def find_mosquitto() -> str:
    """Its path; Debian installs it where an ordinary user's PATH does not look. Raises LocalBrokerError."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise LocalBrokerError(
            "mosquitto is not installed. Install it (Debian: sudo apt-get install mosquitto), name another broker with "
            "mqtt.host in the settings, or set mqtt.enabled = false.")
    return found


def password_line(name: str, password: str) -> str:
    """One line of mosquitto's password file: PBKDF2-SHA512, as mosquitto_passwd(1) writes it."""
    salt, rounds = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"{name}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


class LocalBroker:
    """``start`` gives the device's settings for it; it is restarted when it dies, and gone after ``stop`` (or us)."""

    def __init__(self, data_dir: Path, device_id: str, *, users: Sequence[MqttUserSettings] = (),
                 on_ready: Callable[[], None] = lambda: None) -> None:
        """``users``: beside OWN_USERS; one of the same name takes its place. ``on_ready``: told after each start."""
        self._folder = data_dir / "broker"
        self._secrets = data_dir / "secrets"
        self._device_id = device_id
        self._given = {user.name: user.password.reveal() for user in users}
        self._users = (*(user for user in OWN_USERS if user.name not in self._given),
                       *(User(user.name, Scope(user.scope)) for user in users))
        self._port = 0
        self._on_ready = on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> MqttSettings:
        """On the port of last time if that is free. Raises LocalBrokerError when it is not installed, a user has the
        device's id, or it is not ready within READY_S."""
        program = await asyncio.to_thread(find_mosquitto)
        try:
            password = await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise LocalBrokerError(f"The local broker's folder cannot be written: {error}") from error
        except ValueError as error:  # of the access list
            raise LocalBrokerError(f"The local broker has no users: {error}. Choose another device.id.") from error
        await self._launch(program)
        self._keeper = asyncio.create_task(self._keep(program), name="local broker")
        return MqttSettings(host="127.0.0.1", port=self._port, username=self._device_id, password=Secret(password))

    def password_file(self, user: str) -> Path:
        """Where a user's generated password lies (mode 0600)."""
        return self._secrets / f"mqtt-{user}"

    async def stop(self) -> None:
        """May be called twice."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        await self._end()

    def _prepare(self) -> str:
        """Write configuration, passwords and access list; returns the device's password."""
        for folder in (self._folder, self._secrets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = [self._device_id, *(user.name for user in self._users)]
        passwords = {name: self._given.get(name) or self._password(name) for name in names}
        self._port = self._port or self._free_port()
        for name, text in {
            "port": str(self._port),
            "passwords": "".join(password_line(*pair) + "\n" for pair in passwords.items()),
            "acl": access_list(self._users, [self._device_id]),
            "mosquitto.conf": _CONFIGURATION.format(
                port=self._port, folder=self._folder, user=pwd.getpwuid(os.geteuid()).pw_name,
                as_clientid="false"),  # people use several clients under one name here; in the field it is true
        }.items():
            replace_file(self._folder / name, text.encode())
        return passwords[self._device_id]

    def _password(self, name: str) -> str:
        path = self.password_file(name)
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text().strip():
                return found
        password = secrets.token_urlsafe(24)
        replace_file(path, f"{password}\n".encode())
        return password

    def _free_port(self) -> int:
        """Last time's if it is free: what people noted down goes on working."""
        wanted = [0]
        with contextlib.suppress(OSError, ValueError):
            wanted.insert(0, int((self._folder / "port").read_text()))
        for port in wanted:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
        raise OSError("no port is free on 127.0.0.1")

    async def _launch(self, program: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-ISc", _END_WITH_US, str(os.getpid()), program, "-c", str(self._folder / "mosquitto.conf"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True)  # Ctrl-C is ours to handle: it ends after our `offline`
        ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        said: list[str] = []
        self._reader = asyncio.create_task(self._read(self._process, ready, said), name="local broker log")
        done, _ = await asyncio.wait({ready}, timeout=READY_S)
        if not done or not ready.result() or not await self._serves():
            await self._end()
            raise LocalBrokerError(
                f"mosquitto did not start on 127.0.0.1:{self._port}: {'; '.join(said[-3:]) or 'no answer'}")
        self._on_ready()

    async def _serves(self) -> bool:
        """Whether its main loop turns. A SIGTERM before that is forgotten (mosquitto 2.0), and the one that the kernel
        sends at our end comes only once."""
        try:
            async with asyncio.timeout(READY_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(b"\xe0\x00")  # a DISCONNECT without a CONNECT: it hangs up
                    await reader.read()
                finally:
                    writer.close()
        except ConnectionResetError:
            return True
        except (OSError, TimeoutError):
            return False
        return True

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[bool], said: list[str]) -> None:
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        while line := (await process.stderr.readline()).decode("utf-8", "replace").strip():
            text = line.partition(": ")[2] or line
            del said[:-4]
            said.append(text)
            log.debug("mosquitto: %s", text)
            if not ready.done() and text.endswith(" running"):
                ready.set_result(True)
        if not ready.done():
            ready.set_result(False)

    async def _keep(self, program: str) -> None:
        delay, loop = RESTART_FIRST_S, asyncio.get_running_loop()
        while True:
            begun = loop.time()
            if self._process is not None:
                code = await self._process.wait()
                log.warning("the local broker ended (%d); starting it again", code)
            if loop.time() - begun >= STEADY_S:
                delay = RESTART_FIRST_S
            await asyncio.sleep(delay)
            delay = min(2 * delay, RESTART_LAST_S)
            try:
                await self._launch(program)
            except (LocalBrokerError, OSError) as error:
                log.warning("%s", error)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            for number, patience_s in _ENDING:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await process.wait()
                        break
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
