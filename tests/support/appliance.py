"""The whole appliance as a child process, commanded through its own doors and watched through its own event stream.

Nothing of it is imported here but its words: what a test learns came out of a socket. ``Panel`` is the front panel's
page: what the simulated loudspeaker plays and what the simulated screen shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import itertools
import json
import math
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np

from appliance.vocabulary import ROOT, VERB
from hw.sim import pattern
from tests.support.broker import Broker, Client
from tests.support.event_stream import events

__all__ = ["Appliance", "Counts", "Json", "Panel", "envelope", "toml"]

Json = dict[str, Any]

ROOM: Final = Path(__file__).resolve().parents[2]
START_S: Final = 20.0
STOP_S: Final = 8.0
TONE_HERTZ: Final = 1000
RATE: Final = 48_000

_numbers = itertools.count(1)


def toml(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value)) if isinstance(value, (str, Path)) else str(value)


def envelope(verb: str, args: Mapping[str, Any], *, command_id: str = "", ttl_s: float | None = None) -> Json:
    """A command as a person's program would write it: with a time to live exactly where one is needed."""
    body: Json = {"id": command_id or f"t{os.getpid()}-{next(_numbers)}", "ts": time.time(), "args": dict(args)}
    if ttl_s is not None:
        body["ttl_s"] = ttl_s
    elif VERB[verb].acts:
        body["ttl_s"] = VERB[verb].max_ttl_s
    return body


@dataclass(frozen=True)
class Counts:
    """What the daemon holds: by ``/proc``, and the tasks of its loop as it tells them itself."""

    fds: int
    threads: int
    tasks: int
    own_kib: int


class Appliance:
    """``async with Appliance(folder) as door:`` runs it; ``kill`` and ``start`` again keep its data.

    ``settings``: ``{"call.ring_s": 5}``. ``tables``: TOML text after them. ``broker``: None uses no broker at all.
    ``program``: what the interpreter runs, ``through``: the command that runs the interpreter, ``environ``: variables
    beside those of the test. ``start_s``: what it may take until it is up.
    """

    def __init__(
        self, folder: Path, *, device: str = "door-1", broker: Broker | None = None, port: int | None = None,
        settings: Mapping[str, Any] | None = None, tables: str = "", program: Sequence[str] = ("-m", "appliance"),
        through: Sequence[str] = (), environ: Mapping[str, str] | None = None, start_s: float = START_S,
    ) -> None:
        self.folder = folder
        self.start_s = start_s
        self.program = (*through, sys.executable, *program)
        self.environ = dict(environ or {})
        self.device = device
        self.broker = broker
        self.data = folder / "data"
        self.config = folder / "edgecall.toml"
        self.settings: Json = {
            "device.id": device, "device.name": device.title(), "board.microphone": f"tone:{TONE_HERTZ}",
            "http.port": 0, "mqtt.enabled": False, **(settings or {})}
        if broker is not None:
            secret = folder / "mqtt.password"
            folder.mkdir(parents=True, exist_ok=True)
            secret.write_text(device)
            secret.chmod(0o600)
            self.settings |= {"mqtt.enabled": True, "mqtt.host": "127.0.0.1", "mqtt.port": port or broker.port,
                              "mqtt.username": device, "mqtt.password_file": secret}
        self.tables = tables
        self.address = ""
        self.announced_at = 0.0  # monotonic: when the line with the address was read
        self.documents: dict[str, Json] = {}
        self.events: list[Json] = []
        self.history: list[tuple[float, str, Json]] = []
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._http: aiohttp.ClientSession | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Appliance:
        try:
            return await self.start()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.stop(check=False)
        await self._forget()

    def write_settings(self, **more: Any) -> None:
        """Write the settings file anew; ``call__ring_s=5`` is ``call.ring_s``."""
        self.settings |= {name.replace("__", "."): value for name, value in more.items()}
        sections: dict[str, list[str]] = {}
        for name, value in self.settings.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, []).append(f"{key} = {toml(value)}")
        text = "\n".join(f"[{section}]\n" + "\n".join(rows) + "\n" for section, rows in sections.items())
        self.config.write_text(f"{text}\n{self.tables}\n")

    async def start(self, *arguments: str) -> Appliance:
        """Returns when it has printed its address and its event stream is open."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        self.write_settings()
        self.documents.clear()
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.program, "--config", str(self.config), "--data", str(self.data), *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOM,
                start_new_session=True, env=os.environ | self.environ)
        self.address = await self._announced(self._process)
        self._http = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.data / "edgecall.sock")))
        ready = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._follow(self._http, ready), name=f"{self.device} events"))
        async with asyncio.timeout(self.start_s):
            await ready.wait()
        return self

    async def _announced(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self.start_s):
                async for line in process.stdout:
                    if found := re.search(r"https?://\S+", line.decode()):
                        self.announced_at = time.monotonic()
                        self._tasks.append(asyncio.create_task(_drain(process.stdout), name=f"{self.device} stdout"))
                        return found[0]
        except TimeoutError:
            pass
        raise AssertionError(f"it did not start:\n{self.log()}")

    async def _forget(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def kill(self) -> None:
        """SIGKILL: no word to anybody. Its children must see that it is gone and go too."""
        self.process.kill()
        await self.process.wait()
        await self._forget()

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, check: bool = True) -> tuple[int, float]:
        """Exit code and seconds it took. Raises when something of it is left."""
        children = self.children()
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(f"not stopped within {STOP_S} s:\n{self.log()}") from None
        took = time.monotonic() - begun
        await self._forget()
        left = [pid for pid in children if alive(pid)]
        assert not (check and left), f"left behind: {left}"
        assert not (check and (self.data / "edgecall.sock").exists()), "its socket is left"
        return self.process.returncode or 0, took

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @property
    def url(self) -> str:
        """Without the one-time token."""
        return self.address.partition("/enter")[0]

    def log(self, lines: int = 40) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])

    async def fresh_address(self, page: str = "/operator", **wish: str) -> str:
        async with self.http.post("http://edgecall/v1/address", json={"page": page, **wish}) as response:
            return str((await response.json())["address"])

    # --- what it holds ----------------------------------------------------------------------------------------------

    def children(self) -> list[int]:
        found, heads = [], [self.process.pid]
        while heads:
            for path in Path(f"/proc/{heads.pop()}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    pids = [int(pid) for pid in path.read_text().split()]
                    found += pids
                    heads += pids
        return found

    async def counts(self) -> Counts:
        async with self.http.get("http://edgecall/metrics") as response:
            text = await response.text()
        tasks = re.search(r"^edgecall_tasks (\S+)", text, re.MULTILINE)
        assert tasks is not None
        here = Path(f"/proc/{self.process.pid}")
        fds = len(list((here / "fd").iterdir()))
        return Counts(fds, len(list((here / "task").iterdir())), int(float(tasks[1])), self.own_kib())

    def own_kib(self) -> int:
        """What the daemon alone wrote (anonymous pages; camera process and broker are not in it). The pages of
        libraries that are in PSS too weigh more as soon as another process that shares them ends: no measure of
        growth."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1])
        raise AssertionError("no Pss_Anon in smaps_rollup")

    # --- commands ---------------------------------------------------------------------------------------------------

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    async def give(self, verb: str, *, wait: float = 10.0, command_id: str = "", **args: Any) -> Json:
        """One command through the Unix socket; the final answer unless it takes longer than ``wait``."""
        return await self.post(verb, envelope(verb, args, command_id=command_id), wait=wait)

    async def post(self, verb: str, body: Json | bytes | str, *, wait: float = 10.0) -> Json:
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        async with self.http.post(f"http://edgecall/v1/cmd/{verb}?wait={wait:g}", data=data) as response:
            return dict(await response.json())

    async def get(self, path: str) -> Json:
        """A document over the Unix socket."""
        async with self.http.get(f"http://edgecall{path}") as response:
            response.raise_for_status()
            return dict(await response.json())

    async def publish(self, client: Client, verb: str, body: Json | None = None, **args: Any) -> Json:
        """One command over MQTT; the final answer. ``client`` must have subscribed to the answers."""
        body = body or envelope(verb, args)
        expiry = math.ceil(body["ttl_s"]) if "ttl_s" in body else None
        await client.publish(f"{ROOT}/{self.device}/cmd/{verb}", json.dumps(body), expiry_s=expiry)
        message = await client.until(
            lambda m: m.topic == f"{ROOT}/{self.device}/ack/{verb}" and _final(m.payload, body["id"]), 30)
        return dict(json.loads(message.payload))

    @contextlib.asynccontextmanager
    async def commander(self, name: str = "boss") -> AsyncIterator[Client]:
        """A client on the broker that hears answers, state and events."""
        assert self.broker is not None
        async with Client(self.broker.port, name, f"{name}-{next(_numbers)}") as client:
            await client.subscribe(*(f"{ROOT}/{self.device}/{what}/+" for what in ("ack", "state", "event")))
            yield client

    # --- what it tells ----------------------------------------------------------------------------------------------

    async def _follow(self, http: aiohttp.ClientSession, ready: asyncio.Event) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        try:
            async with http.get("http://edgecall/v1/events", timeout=timeout) as response:
                async for name, body in events(response):
                    self._take(name, body)
                    if "io" in self.documents and "call" in self.documents:
                        ready.set()
        except aiohttp.ClientError:
            pass  # it was stopped or killed

    def _take(self, name: str, body: Json) -> None:
        if name == "state":
            self.documents[body["name"]] = body["document"]
            self.history.append((time.monotonic(), body["name"], body["document"]))
        elif name == "event":
            self.events.append(body)
        self._changed.set()

    def state(self, name: str) -> Json:
        """The newest document that was told."""
        return self.documents.get(name, {})

    async def until(self, condition: Callable[[], Any], what: str = "", within_s: float = 10.0) -> Any:
        """Wait until ``condition`` is true of what was told; looked at when something new is told."""
        try:
            async with asyncio.timeout(within_s):
                while not (found := condition()):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            call = {key: self.state("call").get(key) for key in ("state", "endReason", "callerInfo")}
            raise AssertionError(f"not within {within_s} s: {what or condition}; call {call}\n{self.log()}") from None

    async def wait_for_state(self, name: str, fits: Callable[[Json], Any], within_s: float = 10.0) -> Json:
        await self.until(lambda: name in self.documents and fits(self.documents[name]), f"state/{name}", within_s)
        return self.documents[name]

    async def call_is(self, *states: str, within_s: float = 10.0) -> Json:
        await self.until(lambda: self.state("call").get("state") in states, f"call {states}", within_s)
        return self.state("call")

    async def ended(self, reason: str, within_s: float = 10.0) -> Json:
        """The call is over with this reason, ``410/mediaLost``."""
        call = await self.call_is("Disconnected", within_s=within_s)
        told = call["endReason"]
        assert f"{told['code']}/{told['subCode']}" == reason, f"{told}\n{self.log()}"
        return call

    async def on_duty(self, count: int = 1) -> None:
        await self.wait_for_state("device", lambda device: len(device.get("onDuty", [])) >= count)

    async def event(self, kind: str, within_s: float = 10.0, *, since: int = 0, **data: Any) -> Json:
        """The first of this kind, whose data hold these."""
        def found() -> Json | None:
            return next((one for one in self.events[since:]
                         if one["type"] == f"edgecall.{kind}" and data.items() <= one["data"].items()), None)

        return dict(await self.until(found, f"event {kind} {data or ''}", within_s))

    async def press(self, client: Client | None = None, button: str = "call", seconds: float = 0.1) -> None:
        """The button at the front, by ``sim.press``: over MQTT where a client is given.

        Until it is let go or held long: a call can ring before that, and a press of a button that is down is none.
        """
        since = len(self.events)
        if client is None:
            answer = await self.give("sim.press", button=button, seconds=seconds)
        else:
            answer = await self.publish(client, "sim.press", button=button, seconds=seconds)
        assert answer["result"] == "done", answer
        await self.until(lambda: any(one["type"] in ("edgecall.io.released", "edgecall.io.held") and
                                     one["data"]["name"] == button for one in self.events[since:]), f"{button} let go")

    @contextlib.asynccontextmanager
    async def panel(self, *, watch: bool = False) -> AsyncIterator[Panel]:
        async with self.http.ws_connect("http://edgecall/v1/sim", max_msg_size=1 << 20) as socket:
            await socket.send_json({"listen": True, "watch": watch})
            panel = Panel()
            reader = asyncio.create_task(panel.read(socket), name=f"{self.device} panel")
            try:
                yield panel
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)


class Panel:
    """Ears at the simulated loudspeaker, eyes on the simulated screen."""

    def __init__(self) -> None:
        self.sound: deque[tuple[float, np.ndarray]] = deque(maxlen=3000)
        self.screens: deque[bytes] = deque(maxlen=50)
        self._changed = asyncio.Event()

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            kind, payload = message.data[0], message.data[1:]
            if kind == 0x02:
                self.sound.append((time.monotonic(), np.frombuffer(payload, "<i2").astype(np.float32) / 32768))
            elif kind == 0x01:
                self.screens.append(payload)
            self._changed.set()

    def heard(self, seconds: float = 0.2) -> tuple[float, float]:
        """Strongest frequency and level (dB of full scale) of the last ``seconds``."""
        wanted, got = int(seconds * RATE), []
        for _, block in reversed(self.sound):
            got.append(block)
            wanted -= len(block)
            if wanted <= 0:
                break
        if wanted > 0:
            return 0.0, -200.0
        samples = np.concatenate(got[::-1])[-int(seconds * RATE):]
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        power = float(np.mean(samples**2))
        return float(np.argmax(spectrum)) / seconds, 10 * math.log10(power + 1e-20)

    async def until(self, fits: Callable[[], Any], what: str, within_s: float = 10.0) -> Any:
        try:
            async with asyncio.timeout(within_s):
                while not (found := fits()):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise AssertionError(f"not within {within_s} s: {what}; heard {self.heard()}") from None

    async def hears(self, hertz: float, within_s: float = 10.0) -> None:
        def fits() -> bool:
            found, level = self.heard()
            return abs(found - hertz) < 11 and level > -45

        await self.until(fits, f"{hertz} Hz at the loudspeaker", within_s)

    async def silent(self, within_s: float = 5.0, seconds: float = 0.1) -> None:
        await self.until(lambda: self.heard(seconds)[1] < -70, "silence at the loudspeaker", within_s)

    def mark(self) -> pattern.Mark | None:
        """The mark of the newest picture of the screen."""
        return mark_on(self.screens[-1]) if self.screens else None

    async def sees(self, within_s: float = 10.0) -> pattern.Mark:
        """The counter of the test picture that the other side shows on the screen."""
        seen: set[int] = set()

        def fits() -> pattern.Mark | None:
            for jpeg in list(self.screens):
                if id(jpeg) not in seen:
                    seen.add(id(jpeg))
                    if mark := mark_on(jpeg):
                        return mark
            return None

        found: pattern.Mark = await self.until(fits, "the test picture on the screen", within_s)
        self.screens.clear()
        return found

    async def loses_sight(self, seconds: float = 0.7, within_s: float = 10.0) -> None:
        """For so long the screen shows no test picture; those on their way may still be shown before."""
        async with asyncio.timeout(within_s):
            while True:
                self.screens.clear()
                try:
                    await self.sees(seconds)
                except AssertionError:
                    return


def mark_on(jpeg: bytes, shape: float = 5 / 3) -> pattern.Mark | None:
    """The mark of a picture of this shape that fills the height of a screen, in the middle."""
    from PIL import Image

    image = Image.open(io.BytesIO(jpeg)).convert("L")
    width, height = image.size
    for wide in {round(height * shape) // 2 * 2, round(height * shape), width}:
        left = (width - wide) // 2
        part = image.crop((left, 0, left + wide, height))
        if mark := pattern.read(part.tobytes(), part.width, part.height):
            return mark
    return None


def alive(pid: int) -> bool:
    """A process that runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] not in "ZX"
    except OSError:
        return False


@functools.lru_cache(maxsize=256)
def _parsed(payload: bytes) -> Json:
    found = json.loads(payload)
    return found if isinstance(found, dict) else {}


def _final(payload: bytes, command_id: str) -> bool:
    body = _parsed(payload)
    return body.get("id") == command_id and body.get("result") != "accepted"


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


