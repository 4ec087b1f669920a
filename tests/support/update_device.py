"""A device with the image's update service on a real socket, a program that speaks as RAUC does, a card of files."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgecall_image.daemon import Condition, condition
from edgecall_image.gate import Gate, Unit, judge
from edgecall_image.layout import Slot
from edgecall_image.rauc import Rauc
from edgecall_image.record import Record
from edgecall_image.service import Service
from edgecall_image.updater import Paths, Updater
from tests.support.bundle_server import BundleServer
from tests.support.fake_rauc import install_fake_rauc
from tests.support.slot_card import Card

__all__ = ["RELAY", "Device"]

IMAGE = Path(__file__).parents[2] / "image"
RELAY = ("env", f"PYTHONPATH={IMAGE}", os.environ.get("PYTHON", "python3"), "-c",
         "import sys; from edgecall_image.relay import main; sys.exit(main([]))")


class Device:
    """A device with a card, from boot to boot; what runs in each boot is a service of its own."""

    def __init__(self, folder: Path, origins: tuple[str, ...]) -> None:
        self.folder = folder
        self.card = Card(folder)
        self.version = {"A": "1.0.0", "B": "0.9.0"}
        self.record = Record(self.card.place.marks)
        self.socket = folder / "socket"
        self.reboots = folder / "reboots"
        self.paths = Paths(
            marks=self.card.place.marks, data=folder, settings=folder / "edgecall.toml", version=folder / "version",
            system_conf=folder / "system.conf", call_lock=folder / "call.lock", daemon=folder / "edgecall.sock")
        self.paths.settings.write_text(f"[update]\norigins = {json.dumps(list(origins))}\n")
        self.paths.system_conf.write_text("[system]\nmin-bundle-version=1.0.0\n")
        self.paths.version.write_text("1.0.0\n")
        self.judge_uid = os.getuid()  # the health gate's: root's on a device
        self.reboot_fails = False
        self.relay: tuple[str, ...] = RELAY
        self.rauc()

    def rauc(self, **scenario: Any) -> Rauc:
        return Rauc(str(install_fake_rauc(self.folder, self.card.place, **scenario)))

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """The service runs, as systemd starts it."""
        said = "echo no >&2; exit 1" if self.reboot_fails else f"echo once >>{self.reboots}"
        update = Updater(self.card.slots, Rauc(str(self.folder / "rauc")), self.paths, relay=self.relay,
                         relay_user="", reboot=("sh", "-c", said), grace_s=0.0)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.unlink(missing_ok=True)
        listener.bind(str(self.socket))
        listener.listen()
        task = asyncio.create_task(
            Service(update, frozenset({os.getuid()}), root=self.judge_uid).serve(listener), name="test.service")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            listener.close()

    def boots(self) -> Slot:
        """The firmware starts a slot, and the slots are settled."""
        return self._came_up(self.card.reboot())

    def power_cut(self) -> None:
        self._came_up(self.card.power_cycle())

    def _came_up(self, slot: Slot) -> Slot:
        self.card.slots.settle()
        self.paths.version.write_text(self.version[slot] + "\n")
        return slot

    async def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        return await self.send(json.dumps({"verb": verb, **args}).encode() + b"\n")

    async def send(self, line: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 20)
        try:
            writer.write(line)
            if not line.endswith(b"\n"):
                writer.write_eof()
            answer = json.loads(await reader.readline())
            assert await reader.read() == b"", "one request, one answer"
        finally:
            writer.close()
            await writer.wait_closed()
        assert set(answer) == ({"ok", "status"} if answer["ok"] else {"ok", "error"})
        return answer["status"] if answer["ok"] else answer["error"]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 20)
        writer.write(b'{"verb": "watch"}\n')

        async def told() -> AsyncIterator[dict[str, Any]]:
            while line := await reader.readline():
                answer = json.loads(line)
                yield answer.get("status", answer)

        lines = told()
        try:
            yield lines
        finally:
            await lines.aclose()
            writer.close()
            await writer.wait_closed()

    async def until(self, phase: str) -> dict[str, Any]:
        async with self.watched() as told:
            async for status in told:
                if status["phase"] == phase:
                    return status
        raise AssertionError(f"never {phase}")

    async def installs(self, server: BundleServer, job: str = "j-1", **args: Any) -> dict[str, Any]:
        """To its end."""
        await self.ask("install", url=server.url, id=job, **args)
        async with self.watched() as told:
            async for status in told:
                if status["phase"] != "installing":
                    return status
        raise AssertionError("it never ended")

    def gate(self) -> Gate:
        job = self.record.open_job()
        well = Unit("active", 0, 20.0, 85.0)
        ticks = itertools.count(0.0, 10.0)
        return Gate(Condition.of(job.before) if job else None, unit=lambda: well,
                    condition=lambda: condition(self.paths.daemon), broker=lambda: None, network=lambda: True,
                    free_bytes=lambda: 1 << 30, told=lambda _step: None, clock=lambda: next(ticks),
                    sleep=lambda _s: None)

    def judged(self) -> bool:
        """By the health gate, on a clock that runs."""
        self.restarted = False

        def restart() -> None:
            self.restarted = True

        return judge(self.gate(), self.card.slots, Rauc(str(self.folder / "rauc")), self.record,
                     self.paths.version.read_text().strip(), calls_end=lambda: None, reboot=restart)
