"""A real baresip: it says a tone, keeps what it hears of the other side, and is told over TCP what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hw.sim import pattern
from tests.support.film import FPS, SIZE, grey_film
from tests.support.ports import free_port
from tests.support.spectrum import SILENCE, share_of, strongest
from tests.support.waiting import until

__all__ = ["Baresip", "baresip"]

START_S: Final = 10.0
MODULES: Final = Path("/usr/lib/baresip/modules")
MEDIA: Final = ("g711", "g722", "opus", "ausine", "aufile", "aubridge", "sndfile", "srtp")
VIDEO: Final = ("avcodec", "avformat", "fakevideo", "snapshot")
PNG_END: Final = bytes.fromhex("49454e44ae426082")
APPS: Final = ("account", "contact", "menu", "ctrl_tcp")


class Baresip:
    """One user agent of ``account``, a line of its accounts file; ``hertz``: what it says; ``shows``: the luma (16 to
    235) of the picture that it sends, None: it has none; ``config``: more lines of its settings; ``modules``: of
    sound, without ``sndfile`` nobody knows what it hears."""

    def __init__(
        self, folder: Path, account: str, *, hertz: int = 1000, host: str = "127.0.0.1", shows: int | None = None,
        config: Sequence[str] = (), modules: Sequence[str] = MEDIA,
    ) -> None:
        self.folder = folder
        self.port = free_port(host, with_next=True)  # TLS has the one above
        self.events: list[dict[str, Any]] = []
        self.log: list[str] = []
        self._account = account
        self._hertz = hertz
        self._shows = shows
        self._more = config
        self._modules = modules
        self._host = host
        self._control = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._tokens = itertools.count(1)
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._shows is not None:
            await asyncio.to_thread(grey_film, self.folder / "film.mp4", luma=self._shows, seconds=60)
        (self.folder / "config").write_text(self._config())
        (self.folder / "accounts").write_text(self._account + "\n")
        (self.folder / "contacts").write_text("")
        program = shutil.which("baresip") or "/usr/bin/baresip"
        self._process = await asyncio.create_subprocess_exec(
            program, "-f", str(self.folder), "-v", "-s", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, cwd=self.folder, env={**os.environ, "HOME": str(self.folder)})
        self._tasks.append(asyncio.create_task(self._read_log(self._process)))
        try:
            async with asyncio.timeout(START_S):
                while True:
                    with contextlib.suppress(OSError):
                        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._control)
                        break
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError("baresip did not start:\n" + "".join(self.log[-30:])) from None
        self._tasks.append(asyncio.create_task(self._read(reader)))

    async def stop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _config(self) -> str:
        shows = [] if self._shows is None else [
            f"video_source avformat,{self.folder}/film.mp4", "video_display fakevideo,nobody",
            "video_size {}x{}".format(*SIZE), f"video_fps {FPS}", "video_bitrate 300000", "video_fullscreen no"]
        modules = [f"module {name}.so" for name in (*self._modules, *(VIDEO if shows else ()))]
        apps = [f"module_app {name}.so" for name in APPS]
        more = {line.split(" ")[0] for line in self._more} - {"module"}  # it takes the first of two lines
        lines = [
            f"sip_listen {self._host}:{self.port}", "call_local_timeout 120", "call_max_calls 4",
            f"audio_path {self.folder}", "audio_player aubridge,nobody", f"audio_source ausine,{self._hertz}",
            "audio_alert aufile,alert.wav", "ausrc_srate 48000", "auplay_srate 48000", "ausrc_channels 2",
            "auplay_channels 2", "audio_level no", f"net_interface {self._host}", "rtp_ports 40000-49999",
            "rtcp_mux no", f"module_path {MODULES}", *modules, *apps, f"ctrl_tcp_listen 127.0.0.1:{self._control}",
            f"snd_path {self.folder}", "opus_bitrate 32000", *shows]
        return "\n".join([*(line for line in lines if line.split(" ")[0] not in more), *self._more, ""])

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace"))
            del self.log[:-5000]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Netstrings of JSON."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int((await reader.readuntil(b":"))[:-1])
                message = json.loads((await reader.readexactly(size + 1))[:-1])
                if message.get("response"):
                    future = self._answers.pop(str(message.get("token")), None)
                    if future is not None and not future.done():
                        future.set_result(message)
                else:
                    self.events.append(message)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # --- hands ------------------------------------------------------------------------------------------------------

    async def tell(self, command: str, params: str = "", *, believed: bool = True) -> str:
        """One of baresip's commands; returns what it says. Not ``believed``: also where it says that it failed."""
        token = str(next(self._tokens))
        self._answers[token] = future = asyncio.get_running_loop().create_future()
        body = json.dumps({"command": command, "params": params, "token": token}).encode()
        assert self._writer is not None
        self._writer.write(b"%d:%b," % (len(body), body))
        async with asyncio.timeout(5):
            answer = await future
        assert answer["ok"] or not believed, answer
        return str(answer["data"])

    # --- eyes and ears ----------------------------------------------------------------------------------------------

    @property
    def told(self) -> list[str]:
        return [str(one["type"]) for one in self.events]

    async def until(self, kind: str, within_s: float = 10.0) -> dict[str, Any]:
        """The first event of this kind."""
        await until(lambda: kind in self.told, f"{kind}; {self.told}\n{''.join(self.log[-25:])}", within_s)
        return next(one for one in self.events if one["type"] == kind)

    def hears(self) -> tuple[float, float]:
        """Strongest frequency of the last 200 ms that it decoded of the other side, and its level in dB."""
        samples, rate = self._heard()
        return strongest(samples, rate) if rate else SILENCE

    def hears_tone(self, hertz: float) -> float:
        """The share of this tone in the power of the last 200 ms, 0..1."""
        samples, rate = self._heard()
        return share_of(hertz, samples, rate) if rate else 0.0

    def _heard(self) -> tuple[npt.NDArray[np.float64], int]:
        """The last 200 ms and their rate, 0 before there are as many."""
        dumps = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda one: one.stat().st_mtime)
        if not dumps:
            return np.zeros(0), 0
        data = dumps[-1].read_bytes()
        rate = int.from_bytes(data[24:28], "little")
        channels = int.from_bytes(data[22:24], "little")
        count = rate * channels * 2 // 5
        usable = (len(data) - 44) // (2 * channels) * 2 * channels
        samples = np.frombuffer(data[44 : 44 + usable][-count:], dtype="<i2").astype(float)[::channels] / 32768
        return samples, rate if len(samples) >= rate // 5 else 0

    @property
    def received(self) -> int:
        """Packets of the other side, as of the last report."""
        return next((int(one["rtcp_stats"]["rx"]["sent"]) for one in reversed(self.events)
                     if one["type"] == "CALL_RTCP"), 0)

    async def reports(self, count: int) -> None:
        """Until so many more have come."""
        due = self.told.count("CALL_RTCP") + count
        await until(lambda: self.told.count("CALL_RTCP") >= due, "reports at baresip", 15)

    async def sees(self) -> tuple[pattern.Mark | None, float]:
        """What the last picture of the other side has in its band, and its mean luma (0 to 255)."""
        path = self.folder / f"seen-{next(self._tokens)}.png"
        await self.tell("snapshot_recv", str(path), believed=False)
        await until(lambda: path.exists() and path.read_bytes().endswith(PNG_END), "a snapshot of baresip")
        return await asyncio.to_thread(_read_picture, path)

    def stands(self) -> bool:
        """Nothing was decoded for half a second: the file of what it hears does not grow."""
        dumps = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda one: one.stat().st_mtime)
        return bool(dumps) and time.time() - dumps[-1].stat().st_mtime > 0.5

    async def hear(self, hertz: float, within_s: float = 10.0) -> None:
        """Until it hears this tone of the other side."""
        await until(lambda: abs(self.hears()[0] - hertz) < 12 and self.hears()[1] > -45,
                    f"{hertz} Hz at baresip, which hears {self.hears()}\n{''.join(self.log[-25:])}", within_s)


@asynccontextmanager
async def baresip(folder: Path, account: str, **more: Any) -> AsyncIterator[Baresip]:
    made = Baresip(folder, account, **more)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def _read_picture(path: Path) -> tuple[pattern.Mark | None, float]:
    grey = Image.open(path).convert("L")
    data = grey.tobytes()
    return pattern.read(data, *grey.size), sum(data) / max(1, len(data))
